"""The paper's first figure: ordinary networks learn y = x inside the training range, and lose it outside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..layer import Layer, chain
from ..layers import Dense
from ..optim import SGD
from ..train import fit
from ..units import NAC
from .base import (
    GREY,
    MARKERS,
    PALETTE,
    Cell,
    Config,
    Experiment,
    Host,
    Metric,
    Picture,
    Row,
    Section,
    error,
    every,
    outcome,
    parts,
    replicas,
)

#: Table 5, as printed: mean absolute error over the integers from -1000 to 1000.
TABLE = {
    "Hardtanh": "495.47",
    "ReLU6": "494.59",
    "Softsign": "494.19",
    "Tanh": "493.65",
    "Sigmoid": "493.15",
    "Threshold": "432.97",
    "SELU": "365.66",
    "ELU": "142.83",
    "Softshrink": "119.17",
    "ReLU": "83.63",
    "LeakyReLU": "77.02",
    "Tanhshrink": "57.03",
    "Softplus": "37.60",
    "PReLU": "14.66",
    "Hardshrink": "",
    "None": "<0.0001",
    "NAC": "",
}

#: Figure 1, by its legend and as measured in it: mean absolute error at -20 and at 20.
FIGURE = {
    "Threshold": ("16.2", "16.7"),
    "Hardtanh": ("14.9", "15.9"),
    "Tanhshrink": ("13.8", "14.8"),
    "Tanh": ("13.9", "14.7"),
    "Sigmoid": ("13.1", "14.1"),
    "ReLU6": ("12.7", "13.7"),
    "Hardshrink": ("9.4", "10.2"),
    "Softsign": ("4.1", "4.4"),
    "LeakyReLU": ("3.3", "3.3"),
    "PReLU": ("2.7", "2.5"),
    "Softplus": ("2.6", "2.2"),
    "Softshrink": ("1.6", "1.7"),
    "ReLU": ("1.0", "1.0"),
    "SELU": ("0.55", "0.55"),
    "ELU": ("0.4", "0.5"),
}
LEGEND = "read from Figure 1, whose legend contradicts Table 5"

WIDTH = 8
TRAINED = np.arange(-5.0, 6)[:, None]
DRAWN = np.arange(-20.0, 21)[:, None]
TESTED = np.arange(-1000.0, 1001)[:, None]


def cells(scale: str, seeds: int | None) -> list[Config]:
    """One cell a nonlinearity."""
    seeds = seeds or (20 if scale == "quick" else 100)
    cell = {"experiment": "identity", "op": "-", "steps": 10_000, "lr": 0.01}
    return parts([{**cell, "model": model} for model in TABLE], seeds, most=100)


def network(model: str) -> Layer:
    """Three hidden layers of eight units with one nonlinearity, and a linear output; or the same of NACs."""
    sizes = ((1, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH))
    if model == "NAC":
        return chain(*(NAC(i, o) for i, o in (*sizes, (WIDTH, 1))))
    kind: dict[str, Any] = {
        "activation": "identity" if model == "None" else model.lower(),
        "initializer": "fan_in_uniform",
    }
    return chain(*(Dense(i, o, **kind) for i, o in sizes), Dense(WIDTH, 1, initializer="fan_in_uniform"))


def run(config: Config) -> dict[str, Any]:
    """Train on the eleven integers; measure at every integer to 1000."""
    model = network(config["model"])
    result = fit(
        model,
        TRAINED,
        TRAINED,
        optimizer=SGD(lr=config["lr"]),
        steps=config["steps"],
        every=every(config),
        replicas=replicas(config),
        seed=config["seed"],
    )
    errors = {
        name: np.abs(model(result.params, x.astype(np.float32))[0].astype(np.float64) - x)[..., 0]
        for name, x in (("trained", TRAINED), ("curve", DRAWN), ("tested", TESTED))
    }
    means = {"mae_train": errors["trained"].mean(axis=1), "mae_1000": errors["tested"].mean(axis=1)}
    return outcome(result, curve=errors["curve"], **means)


def seconds(config: Config) -> float:
    """About how long a config takes: a fixed part a step, and one a seed."""
    return float(config["steps"] * (160 + 5 * config["count"]) * 1e-6)


METRICS = {
    "mae_1000": Metric("mean absolute error over the integers from -1000 to 1000, mean over seeds (Table 5)"),
    "minus20": Metric("mean absolute error at x = -20, mean over seeds (Figure 1)"),
    "plus20": Metric("mean absolute error at x = 20, mean over seeds (Figure 1)"),
    "mae_train": Metric("mean absolute error on the eleven training points, mean over seeds"),
}


def rows(cells: Sequence[Cell]) -> list[Row]:
    """Table 5 and the ends of Figure 1."""
    made = []
    for cell in cells:
        ends = FIGURE.get(cell.model, ("", ""))
        for metric, values, published in (
            ("mae_1000", cell["mae_1000"], TABLE[cell.model]),
            ("minus20", cell["curve"][:, 0], ends[0]),
            ("plus20", cell["curve"][:, -1], ends[1]),
            ("mae_train", cell["mae_train"], ""),
        ):
            doubt = LEGEND if published and metric.endswith("20") else ""
            doubt = CHOSEN if published and not doubt and cell.model == "Threshold" else doubt
            name = f"{cell.name}/{metric}"
            made.append(error(name, values, published, statistic=np.mean, incomparable=doubt))
    return made


def pictures(cells: Sequence[Cell]) -> list[Picture]:
    """The paper's figure, and its table beside ours."""
    ends = ", ".join(f"{c.model} {c['curve'][:, -1].mean():.2g}" for c in cells)
    return [
        Picture(
            "figure1",
            "Ordinary networks lose the identity outside of their training range",
            f"Mean absolute error at each x from -20 to 20, a line a nonlinearity; the training range, -5 to 5, "
            f"is shaded. At x = 20: {ends}.",
            f"Mean over {cells[0].count} models each. It is Figure 1 of the paper, with None and NAC besides.",
            partial(draw_figure, cells=cells),
            5.2,
        ),
        Picture(
            "table5",
            "Table 5 beside ours",
            "For each nonlinearity the mean absolute error over the integers from -1000 to 1000, published and "
            "ours, on a logarithmic scale; the numbers are in the table above.",
            "Ours with its 95 % interval, where that is wider than the point. Below 0.001 all is drawn at 0.001.",
            partial(draw_table, cells=cells),
            4.6,
        ),
    ]


def draw_figure(figure: Any, cells: Sequence[Cell]) -> None:
    """A line a nonlinearity, its name at the right end."""
    axes = figure.subplots()
    axes.axvspan(-5, 5, color=GREY, alpha=0.15, linewidth=0)
    axes.text(0, 19.2, "training range", ha="center", color=GREY)
    curves = {cell.model: cell["curve"].mean(axis=0) for cell in cells}
    names = sorted(curves, key=lambda name: float(curves[name][-1]))
    ends = np.clip([curves[name][-1] for name in names], 0, 20)
    for i, (name, place) in enumerate(zip(names, _apart(ends, 1.05), strict=True)):
        color, dashes = PALETTE[i % len(PALETTE)], ("-", "--", ":")[i // len(PALETTE) % 3]
        axes.plot(DRAWN[:, 0], curves[name], color=color, linestyle=dashes, linewidth=1.4, label=name)
        axes.plot([20, 21.5], [ends[i], place], color=color, linewidth=0.8, clip_on=False)
        axes.text(21.8, place, name, va="center", fontsize=9)
    axes.set(xlabel="x", ylabel="mean absolute error", xlim=(-20, 20), ylim=(0, 20))


def _apart(places: Host, least: float) -> Host:
    """Ascending places, moved as little as need be to lie so far apart, around where they were."""
    moved = np.array(places, np.float64)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + least)
    shift = max(0.0, float(moved[-1]) - 20.5)
    for i in range(len(moved) - 1, -1, -1):
        most = moved[i + 1] - least if i + 1 < len(moved) else moved[i] - shift
        moved[i] = min(moved[i], most)
    return moved


def draw_table(figure: Any, cells: Sequence[Cell]) -> None:
    """Published and ours, a row each."""
    axes = figure.subplots()
    found = {row.row.split("/")[2]: row for row in rows(cells) if row.row.endswith("/mae_1000")}
    for i, (name, row) in enumerate(found.items()):
        low, ours, high = (float(np.clip(v, 1e-3, 1e4)) for v in (row.low, row.ours, row.high))
        axes.plot([low, high], [i, i], color=PALETTE[0], linewidth=2)
        axes.plot(ours, i, MARKERS[0], color=PALETTE[0], label="ours" if i == 0 else None)
        if TABLE[name]:
            theirs = max(float(TABLE[name].lstrip("<")), 1e-3)
            style: dict[str, Any] = {"markerfacecolor": "none", "markersize": 9, "markeredgewidth": 1.6}
            axes.plot(theirs, i, MARKERS[3], color=PALETTE[1], label="published" if i == 0 else None, **style)
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xscale="log", xlabel="mean absolute error from -1000 to 1000", ylim=(len(found) - 0.5, -0.5))
    axes.legend(loc="center left")


def sections(cells: Sequence[Cell]) -> list[Section]:
    """Why they differ."""
    return [Section("What differs, and why", WHY)]


WHY = (
    "The paper states neither the optimiser nor the initial values nor the training points. Plain gradient "
    "descent on the eleven integers was chosen with Table 5 in view, among SGD, Adam and RMSprop: that the order "
    "of the saturating nonlinearities agrees is weak evidence. That of the others agrees in part only.",
    "A network that saturates stays near its value at the edge of training, 5, and its error is then about 495, "
    "the mean of |x| less 5. All that saturate come near it, here and in the paper, and their intervals are "
    "narrow: a row that is outside may differ by about 1.",
    "Nonlinearities that are linear far out continue with the slope that they have at the edge. How far that is "
    "from 1 depends on how the network was initialised and how well it was trained, which is not stated; there "
    "the numbers differ most.",
    "No formula is read out: of 24 hidden units it would be long, and the errors of NAC say that it computes x.",
    "Figure 1 and Table 5 contradict each other: by the legend Softsign, which saturates, errs by 4 at x = 20, "
    "and Tanhshrink, which is linear far out, by 15. The table is taken as the reference here.",
    "The threshold is PyTorch's with 1 and 0: z where z is above 1, and 0 elsewhere. The paper does not state "
    "its own; these were chosen with Table 5 in view, so its row is not compared.",
)
CHOSEN = "the threshold, which the paper does not state, was chosen to come near this number"

EXPERIMENTS = (
    Experiment(
        name="identity",
        title="Networks cannot even continue y = x",
        claim="Networks with most nonlinearities learn the identity inside the training range and fail outside, "
        "the more so the more strongly nonlinear they are.",
        source="Trask et al. 2018, Neural Arithmetic Logic Units, section 1.1 (Figure 1), appendix A (Table 5)",
        protocol=(
            "Input x, output x: three hidden layers of eight units with the same nonlinearity, a linear output.",
            "Trained on numbers from -5 to 5, here the eleven integers, with the squared error; 10,000 iterations "
            "at a rate of 0.01.",
            "100 models for each nonlinearity, their errors averaged.",
            "Table 5 is over the integers from -1000 to 1000, Figure 1 from -20 to 20.",
        ),
        deviations={
            "always": (
                "Not stated, and chosen here: plain gradient descent on all eleven points at every step; biases; "
                "weights and biases initially uniform within one over the root of the number of inputs, as in "
                "PyTorch.",
                "NAC besides, which the paper does not have here: the same network of NACs, with no other "
                "nonlinearity, W_hat and M_hat uniform between -2 and 2.",
            ),
            "quick": ("20 models instead of 100; all else is as published.",),
            "full": ("None: the default is the published scale already.",),
        },
        metrics=METRICS,
        cells=cells,
        run=run,
        rows=rows,
        seconds=seconds,
        pictures=pictures,
        sections=sections,
        key=("-/Tanh/mae_1000", "-/ReLU/mae_1000", "-/None/mae_1000", "-/NAC/mae_1000"),
    ),
)
