"""Table 1 (right), 8 and 9 of the paper: sums over a sequence, and an operation on two of them at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layer import Cell as Step
from ..layer import Layer, chain, scan
from ..layers import GRU, LSTM, RNN, Accumulator, Dense, Last, Recurrent
from ..units import NAC, NALU, LogNAC
from . import scores
from .base import Cell, Config, Experiment, Picture, Row, Section, parts

OPS = tuple(scores.OPS)

INPUTS, HIDDEN = 10, 2
SECTIONS = slice(0, 4), slice(5, 9)  # of a and of b
LENGTHS = {"interpolation": 10, "extrapolation": 1000}
HIGH = 0.1  # entries are uniform between 0 and this


def _ordinary(cell: Step) -> Layer:
    return chain(scan(cell), Last(Dense(HIDDEN, 1)))


def _accumulated(unit: Callable[..., Layer], head: Callable[..., Layer]) -> Layer:
    first = unit(INPUTS, HIDDEN, initializer="glorot_uniform")
    return chain(scan(Accumulator(first)), Last(head(HIDDEN, 1, initializer="glorot_uniform")))


def _beside(unit: Callable[..., Layer]) -> Layer:
    first = unit(INPUTS + HIDDEN, HIDDEN, initializer="glorot_uniform")
    return chain(scan(Recurrent(first)), Last(unit(HIDDEN, 1, initializer="glorot_uniform")))


MODELS: dict[str, Callable[[], Layer]] = {
    "LSTM": lambda: _ordinary(LSTM(INPUTS, HIDDEN)),
    "GRU": lambda: _ordinary(GRU(INPUTS, HIDDEN)),
    "RNN-tanh": lambda: _ordinary(RNN(INPUTS, HIDDEN)),
    "RNN-ReLU": lambda: _ordinary(RNN(INPUTS, HIDDEN, activation="relu")),
    "NAC": partial(_accumulated, NAC, NAC),
    "NAC-beside": partial(_beside, NAC),
    "NALU": partial(_accumulated, NALU, NALU),
    "NALU-beside": partial(_beside, NALU),
    "NAC-LogNAC": partial(_accumulated, NAC, LogNAC),
}

#: Table 9 on sequences of 1,000, for a, a + b, a - b, a * b, a / b, a^2, sqrt(a).
PRINTED = {
    "LSTM": "100.0 96.1 97.0 98.2 95.6 98.0 95.8",
    "GRU": "100.0 96.2 95.6 99.0 94.7 99.2 95.4",
    "RNN-tanh": "100.0 96.2 96.2 98.0 96.3 97.8 95.4",
    "RNN-ReLU": "98.6 85.5 70.9 97.9 862.5 98.0 34.1",
    "NAC": "0.0 0.0 0.0 88.4 >999.9 123.7 >999.9",
    "NALU": "0.0 0.0 0.0 0.0 >999.9 0.0 0.0",
}

#: On sequences of 10 all are 0.0 but these.
INSIDE = {("NAC", "mul"): "1.5", ("NAC", "div"): "1.2", ("NAC", "square"): "2.3", ("NAC", "root"): "2.1"}

#: Table 8: mean squared errors on sequences of 10 and of 1,000, in the same order.
RAW = {
    "interpolation": {
        "LSTM": ".000544 .037351 .015579 .004282 .014142 .016741 .002258",
        "GRU": ".000584 .006819 .026034 .005473 .059921 .029642 .002185",
        "RNN-tanh": ".041697 .020395 .040893 .169256 .115955 .340204 .068180",
        "RNN-ReLU": ".005471 .010728 .019738 .091305 .073977 .017803 .007818",
        "NAC": ".00020 <.00001 .000001 .46862 .350227 .70909 .617613",
        "NALU": "<.000001 <.000001 .000001 .000003 .000431 .000001 .003492",
    },
    "extrapolation": {
        "LSTM": "330097 323877 326746 330618 321622 330264 322305",
        "GRU": "330309 324036 321989 333336 318537 334332 321107",
        "RNN-tanh": "332760 324180 324000 330137 323908 329339 320840",
        "RNN-ReLU": "325690 287928 238771 329636 2902047 330305 114725",
        "NAC": "1.8946 .00004 .01537 297800 3083319119 416701 2152274742",
        "NALU": "<.000001 .013131 .013843 47.0244 >999999 2804.85 1671.81",
    },
}


def published(op: str, model: str, place: str) -> str:
    """What Table 9 prints; for either wiring, since the paper does not state it."""
    row = model.removesuffix("-beside")
    if row not in PRINTED:
        return ""
    return INSIDE.get((row, op), "0.0") if place == "interpolation" else PRINTED[row].split()[OPS.index(op)]


def raw(op: str, model: str, place: str) -> str:
    """What Table 8 prints, for either wiring."""
    row = RAW[place].get(model.removesuffix("-beside"), "")
    return row.split()[OPS.index(op)] if row else ""


def incomparable(op: str, model: str, place: str) -> str:
    """Why a cell of Table 9 cannot be compared."""
    if place == "extrapolation" and op in ("mul", "div", "square", "root"):
        return "published: divided by the error of a random LSTM that is the same for all operations"
    return ""


# --- the runs ---------------------------------------------------------------------------------------------------


def draw(op: str, place: str, rng: np.random.Generator, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sequences x (T, n, 10), and their targets (1, n, 1)."""
    x = rng.random((LENGTHS[place], n, INPUTS), dtype=np.float32)
    x *= np.float32(HIGH)
    sums = x.sum(axis=0, dtype=np.float64)
    a, b = (sums[:, section].sum(axis=1)[None, :, None] for section in SECTIONS)
    return x, scores.OPS[op](a, b)


QUICK = ("RNN-ReLU", "NAC", "NALU", "NAC-LogNAC")


def cells(scale: str, seeds: int | None) -> list[Config]:
    """Every operation with every model."""
    count = seeds or {"quick": 10, "default": 100, "full": 100}[scale]
    steps = 3000 * (10 if scale == "full" else 1)
    ops, models = (("add", "mul"), QUICK) if scale == "quick" else (OPS, tuple(MODELS))
    common = {"experiment": "recurrent", "steps": steps, "batch": 64, "lr": 0.02}
    return parts([{**common, "op": op, "model": model} for op in ops for model in models], count)


def run(config: Config) -> dict[str, Any]:
    """Train on fresh sequences of 10; measure on those of 10 and 1,000."""
    return scores.trained(config, MODELS[config["model"]](), MODELS["LSTM"](), draw, measured=100)


#: Microseconds a seed and step, of one core.
COST = {"RNN-tanh": 90.0, "RNN-ReLU": 90.0, "NAC": 70.0, "NAC-LogNAC": 70.0}


def seconds(config: Config) -> float:
    """About how long a config takes."""
    return float(config["steps"] * config["count"] * COST.get(config["model"], 140.0) * 1e-6)


# --- what they say ----------------------------------------------------------------------------------------------


def rows(cells: Sequence[Cell]) -> list[Row]:
    """Every cell, beside Tables 9 and 8."""
    return scores.rows(cells, published, raw, incomparable)


def pictures(cells: Sequence[Cell]) -> list[Picture]:
    """All seeds."""
    return [scores.picture(cells)]


def sections(cells: Sequence[Cell]) -> list[Section]:
    """The table as the paper has it, and what it leaves open."""
    return [*scores.tables(cells, published), Section("Why cells differ", WHY)]


WHY = (
    "The paper does not state how a NAC or NALU is made recurrent. Here NAC and NALU accumulate, "
    "h = h + unit(x): the state is a running sum. In NAC-beside and NALU-beside the unit sees the state beside "
    "the input, h = unit([x, h]), and has to learn a weight of exactly 1 for it; after 1,000 steps a weight of 1 "
    "- d has lost about 500 d of the sum.",
    "Nor does it state data and training; those above are ours.",
    "The published scores divide by the error of a random LSTM that is the same for all operations (Table 8), "
    "which cannot be the error of such a network on a * b and on sqrt(a) alike. Ours are relative to random LSTMs "
    "on the same operation.",
    "Several zeros of Table 9 on sequences of 10 do not follow from Table 8, whose errors divided by that of the "
    "random LSTM are up to 1.1 for the RNN with tanh; Table 1 prints 863.5 for a cell that is 862.5 in Table 9.",
    "No formula is read out: the law is a sum over time, which the read-out of a single layer does not have.",
    "A quotient does not grow with the length, and a root only tenfold: what is off by as much as the sums grow "
    "then has scores beyond 999.9.",
)

RECURRENT = Experiment(
    name="recurrent",
    title="Arithmetic on sums over time",
    claim="Recurrent NACs and NALUs, trained on sequences of 10, hold on sequences of 1,000; LSTM, GRU and RNN do "
    "not.",
    source="Trask et al. 2018, section 4.1, Table 1 (right), and appendix B, Tables 8 and 9",
    protocol=(
        "A sequence of rows of 10 entries, uniform between 0 and 0.1; a is the sum of entries 1 to 4 over all "
        "steps, b of entries 6 to 9; the target, after the last step, is a or an operation on a and b.",
        "LSTM, GRU and RNN with two hidden units and a linear output. NAC and NALU with a state of two, and a "
        "layer of the same unit at the end, in two wirings: accumulator, and state beside the input. Besides, not "
        "in the paper: an accumulating NAC and a LogNAC at the end.",
        "Training: a fresh batch of 64 sequences of 10 at every step, mean squared error after the last, Adam at "
        "a rate of 0.02, 3,000 steps; PyTorch's initial values for LSTM, GRU and RNN, Glorot's for the others; "
        "float32, measured in float64.",
        "Interpolation: 100 sequences of 10. Extrapolation: 100 sequences of 1,000.",
        "Score: 100 times the mean squared error over the mean of 100 untrained LSTMs. Success: a score below "
        "0.05 on extrapolation, which the paper's tables print as 0.0.",
    ),
    deviations={
        "always": (
            "The paper does not state its data, training, initial values and wiring.",
            "A seed that diverges is a failure.",
        ),
        "quick": ("10 seeds, and only a + b and a * b with four models.",),
        "full": ("Ten times the steps: 30,000.",),
    },
    metrics=scores.METRICS,
    cells=cells,
    run=run,
    rows=rows,
    seconds=seconds,
    pictures=pictures,
    sections=sections,
    key=tuple(f"{op}/{model}/success" for op in ("add", "mul") for model in ("NALU", "NAC", "RNN-ReLU")),
)

EXPERIMENTS = (RECURRENT,)
