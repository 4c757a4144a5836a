"""Table 1 (left), 6 and 7 of the paper: sums of parts of 100 numbers, and an operation on two such sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layer import Layer, chain
from ..layers import Dense
from ..units import NAC, NALU, LogNAC
from . import scores
from .base import Cell, Config, Experiment, Picture, Row, Section, parts

OPS = tuple(op for op in scores.OPS if op != "a")

INPUTS, HIDDEN = 100, 2
SECTIONS = slice(0, 10), slice(30, 40)  # of a and of b
RANGES = {"interpolation": (0.0, 0.5), "extrapolation": (0.5, 2.0)}

ACTIVATIONS = {
    "ReLU6": "relu6",
    "Softsign": "softsign",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "SELU": "selu",
    "ELU": "elu",
    "ReLU": "relu",
    "CReLU": "crelu",
    "None": "identity",
}


def _mlp(activation: str) -> Layer:
    width = HIDDEN * (2 if activation == "crelu" else 1)  # two outputs for each of its units
    return chain(Dense(INPUTS, width, activation=activation), Dense(width, 1))


def _two(first: Callable[..., Layer], second: Callable[..., Layer], **options: Any) -> Layer:
    drawn = {"initializer": "glorot_uniform", **options}
    return chain(first(INPUTS, HIDDEN, **drawn), second(HIDDEN, 1, **drawn))


MODELS: dict[str, Callable[[], Layer]] = {
    **{name: partial(_mlp, activation) for name, activation in ACTIVATIONS.items()},
    "NAC": partial(_two, NAC, NAC),
    "NALU": partial(_two, NALU, NALU),
    "NAC-LogNAC": partial(_two, NAC, LogNAC),
    "NALU-separate": partial(_two, NALU, NALU, tied=False),
    "NALU-independent": partial(_two, NALU, NALU, gate="independent"),
}

#: Table 7: 100 times the mean squared error over that of a random model; models in the order of the paper.
PRINTED = {
    "interpolation": {
        "add": ".2 .3 .2 .1 0 .2 0 0 0 0 0",
        "sub": "0 1.0 .5 .3 .1 .8 .2 .1 0 0 0",
        "mul": "3.2 8.6 9.3 5.2 5.1 2.5 2.6 15.5 20.9 21.4 0",
        "div": "4.2 4.7 4.4 3.58 10.4 10.5 10.5 8.6 35.0 37.1 5.3",
        "square": ".7 1.0 .2 0 4.3 .1 .5 .1 4.3 22.4 0",
        "root": ".5 .7 31.6 24.2 .3 .4 1.8 .2 2.2 3.6 0",
    },
    "extrapolation": {
        "add": "42.6 39.5 43.3 42.3 0 0 0 0 0 0 0",
        "sub": "29.0 23.1 27.3 22.8 13.3 8.2 14.5 0 0 0 0",
        "mul": "10.1 27.4 26.6 16.7 10.4 5.1 5.0 5.4 29.5 33.3 0",
        "div": "37.2 32.6 35.3 32.1 17.4 17.5 17.5 16.2 52.3 61.3 .7",
        "square": "47.0 41.5 46.4 45.8 26.5 8.7 12.2 8.7 25.1 53.3 0",
        "root": "10.3 7.7 11.2 8.5 1.7 2.4 12.1 1.5 20.0 16.4 0",
    },
}
PUBLISHED = [*ACTIVATIONS, "NAC", "NALU"]

#: Table 6: mean squared errors, on ranges that are not stated.
RAW = {
    "interpolation": {
        "add": ".0144 .0229 .0213 .0086 .0031 .0191 .0040 .0020 .0017 <.0001 <.0001",
        "sub": ".0010 .0616 .0344 .0183 .0046 .0510 .0133 .0035 .0007 <.0001 .0001",
        "mul": "7.579 20.07 21.82 12.06 11.99 5.928 6.084 36.28 48.91 50.02 <.0001",
        "div": ".0499 .0558 .0514 .0421 .1218 .1233 .1233 .1011 .4113 .4363 .0625",
        "square": "1.027 1.479 .3327 .0672 6.462 .1744 .7829 .1593 6.495 34.09 <.0001",
        "root": ".0080 .0101 .0124 .0026 .0046 .0055 .0265 .0027 .0329 .0538 <.0001",
    },
    "extrapolation": {
        "add": "51.56 47.78 52.37 51.14 .0126 .1064 .0225 .0127 .0013 <.0001 .0012",
        "sub": "12.22 9.734 11.54 9.627 5.60 3.458 6.108 .0090 .0007 <.0001 <.0001",
        "mul": "366.6 998.6 971.3 608.9 380.7 187.8 183.0 197.9 1076 1215 <.0001",
        "div": "15.46 13.55 14.65 13.34 7.219 7.286 7.291 6.746 21.75 25.48 .2920",
        "square": "2195 1938 2168 2142 1237 406.6 569.4 408.4 1172 2490 <.0001",
        "root": ".4294 .3237 .4702 .3571 .0739 .1006 .5066 .0622 .8356 .6876 <.0001",
    },
}

#: Cells of Table 7 that do not follow from Table 6.
INCONSISTENT = {
    ("root", "Tanh", "interpolation"): "Table 6 gives .84 for this cell of Table 7",
    ("root", "Sigmoid", "interpolation"): "Table 6 gives .18 for this cell of Table 7",
}


def published(op: str, model: str, place: str) -> str:
    """What Table 7 prints, to one decimal, as most of its cells are; "" for models that it does not have."""
    if model not in PUBLISHED:
        return ""
    text = PRINTED[place][op].split()[PUBLISHED.index(model)]
    return f"{float(text):.1f}" if len(text.partition(".")[2]) < 2 else text


def raw(op: str, model: str, place: str) -> str:
    """What Table 6 prints."""
    return RAW[place][op].split()[PUBLISHED.index(model)] if model in PUBLISHED else ""


def incomparable(op: str, model: str, place: str) -> str:
    """Why a cell of Table 7 cannot be compared."""
    return INCONSISTENT.get((op, model, place), "")


def draw(op: str, place: str, rng: np.random.Generator, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows x (n, 100) of a range, and their targets (n, 1)."""
    low, high = RANGES[place]
    x = rng.random((n, INPUTS), dtype=np.float32)
    x *= np.float32(high - low)
    x += np.float32(low)
    a, b = (x[:, section].sum(axis=1, keepdims=True) for section in SECTIONS)
    return x, scores.OPS[op](a, b)


# --- the runs ---------------------------------------------------------------------------------------------------

QUICK = ("None", "ReLU6", "NAC", "NALU", "NAC-LogNAC")


def cells(scale: str, seeds: int | None) -> list[Config]:
    """Every operation with every model."""
    count = seeds or {"quick": 10, "default": 100, "full": 100}[scale]
    steps = 12_000 * (10 if scale == "full" else 1)
    ops, models = (("add", "mul"), QUICK) if scale == "quick" else (OPS, tuple(MODELS))
    common = {"experiment": "static", "steps": steps, "batch": 64, "lr": 0.01}
    return parts([{**common, "op": op, "model": model} for op in ops for model in models], count)


def run(config: Config) -> dict[str, Any]:
    """Train on fresh rows of the inner range; measure on both."""
    return scores.trained(config, MODELS[config["model"]](), MODELS["ReLU6"](), draw, measured=1000)


#: Microseconds a seed and step, of one core.
COST = {
    "mlp": 45.0,
    "NAC": 17.0,
    "NALU": 27.0,
    "NAC-LogNAC": 17.0,
    "NALU-separate": 90.0,
    "NALU-independent": 70.0,
}


def seconds(config: Config) -> float:
    """About how long a config takes."""
    return float(config["steps"] * config["count"] * COST.get(config["model"], 40.0) * 1e-6)


# --- what they say ----------------------------------------------------------------------------------------------


def rows(cells: Sequence[Cell]) -> list[Row]:
    """Every cell, beside Tables 7 and 6."""
    return scores.rows(cells, published, raw, incomparable)


def pictures(cells: Sequence[Cell]) -> list[Picture]:
    """All seeds."""
    return [scores.picture(cells)]


def sections(cells: Sequence[Cell]) -> list[Section]:
    """The table as the paper has it, and what it leaves open."""
    return [*scores.tables(cells, published), Section("Why cells differ", WHY)]


WHY = (
    "The paper states neither the ranges of its data, nor learning rate, batch size, steps, initial values and "
    "number of runs, nor which run its tables show. The configuration here is ours, the same for all models.",
    "A median over all seeds is shown here. The paper does not say which of its runs its zeros for NALU are; the "
    "rows `success` say how often they come here.",
    "Sums of ten entries hardly vary: a and b are 2.5 with a deviation of 0.46. A plane is then a good fit of a "
    "product inside the range, and with None the score, which divides by the mean square of the target, is small.",
    "ReLU6 has two hidden units. Where both are dead the network is a constant, whose error is the variance of "
    "the target: medians then jump between two clusters of seeds, and so do the ends of their intervals.",
    "The score divides by the error of random networks, which grows with the range: a small score outside the "
    "range does not mean a small error. The rows `mse_extrapolation` have the errors themselves.",
    "A NAC cannot multiply, and a NALU has to find a gate in both of its layers. NAC-LogNAC, whose layers are a "
    "sum and a product without a gate, stands beside; how far from exact its products still are after these "
    "steps, its scores say.",
    "No formula is read out: one of 100 inputs has twenty terms and more, and the scores say whether it is right.",
    "In Table 7 the interpolation cells of Tanh and Sigmoid for the square root do not follow from Table 6.",
)

STATIC = Experiment(
    name="static",
    title="Arithmetic on sums of inputs",
    claim="Two stacked NALUs learn all of a + b, a - b, a * b, a / b, a^2 and sqrt(a) so that it holds outside "
    "the range of training; ordinary networks do not.",
    source="Trask et al. 2018, section 4.1, Table 1 (left), and appendix B, Tables 6 and 7",
    protocol=(
        "x has 100 entries, a is the sum of entries 1 to 10, b of entries 31 to 40; the target is an operation "
        "on a and b.",
        "Two layers with two hidden units. MLPs with one of eight nonlinearities or none, and a linear output; "
        "two NACs; two NALUs, as in the paper with one W for both paths and a gate that depends on the input. "
        "Besides, not in the paper: a NAC and a LogNAC; NALUs with separate weights; NALUs whose gate does not "
        "see the input.",
        "Training: x uniform between 0 and 0.5, a fresh batch of 64 rows at every step, mean squared error, Adam "
        "at a rate of 0.01, 12,000 steps; Glorot's uniform initial values; float32, measured in float64.",
        "Interpolation: 1,000 rows of the same range. Extrapolation: 1,000 rows uniform between 0.5 and 2, where "
        "every a is larger than any of training.",
        "Score: 100 times the mean squared error over the mean of 100 untrained MLPs of ReLU6. Success: a score "
        "below 0.05 on extrapolation, which the paper's tables print as 0.0.",
    ),
    deviations={
        "always": (
            "The paper does not state its data, training and initial values; those above are ours: two sections "
            "of ten entries, of 100 between 0 and 0.5.",
            "Neither gradients nor exponents are clipped, as the paper has no such thing; a seed that diverges is "
            "a failure.",
        ),
        "quick": ("10 seeds, and only a + b and a * b with five models.",),
        "full": ("Ten times the steps: 120,000.",),
    },
    metrics=scores.METRICS,
    cells=cells,
    run=run,
    rows=rows,
    seconds=seconds,
    pictures=pictures,
    sections=sections,
    key=(
        *("add/NALU/success", "mul/NALU/success", "add/NAC/success", "mul/NAC-LogNAC/success"),
        *("add/ReLU6/extrapolation", "mul/ReLU6/extrapolation"),
    ),
)

EXPERIMENTS = (STATIC,)
