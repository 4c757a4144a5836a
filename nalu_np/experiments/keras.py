"""The Keras demo: two NALUs learn a difference of two sums of 100 inputs; the gate of the first is stuck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import to_numpy
from ..layer import Layer, chain
from ..optim import RMSprop
from ..train import fit
from ..units import NAC, NALU
from .base import (
    GREY,
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
    middle,
    outcome,
    parts,
    rate,
    replicas,
    rounded,
)

INPUTS, FIRST = 100, 45  # the first 45 are added, the others subtracted
ROWS, BATCH = 1 << 16, 1024
RATES = (1e-2, 1e-3, 1e-4)
DEVIATIONS = {"inside": 0.5, "wide": 2.0}

#: A seed has solved the task when its error on wide rows is at most this part of the mean size of the target.
TOLERANCE = 0.01


class DemoNALU(NALU):
    """With the demo's initial values: gates at 10, the others N(0, 1)."""

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """G = 10."""
        return np.full(self.shapes()[name], 10.0) if name == "G" else super().draw(name, rng)


MODELS: dict[str, Callable[[], Layer]] = {
    "NALU": lambda: chain(
        DemoNALU(INPUTS, 2, gate="abs", initializer="normal"), DemoNALU(2, 1, gate="abs", initializer="normal")
    ),
    "NAC": lambda: chain(NAC(INPUTS, 2, initializer="normal"), NAC(2, 1, initializer="normal")),
}


def draw(deviation: float, rng: np.random.Generator, n: int) -> tuple[Host, Host]:
    """Rows x (n, 100) and their targets (n, 1)."""
    x = rng.normal(0, deviation, (n, INPUTS))
    return x, (x[:, :FIRST].sum(axis=1) - x[:, FIRST:].sum(axis=1))[:, None]


def held_out(where: str) -> tuple[Host, Host]:
    """The same 2,000 rows for all."""
    return draw(DEVIATIONS[where], np.random.default_rng(1), 2000)


# --- the runs ---------------------------------------------------------------------------------------------------


def cells(scale: str, seeds: int | None) -> list[Config]:
    """The demo's network, and the same without gates and products."""
    count = seeds or {"quick": 10, "default": 100, "full": 100}[scale]
    epochs = 200 if scale == "full" else 20
    steps = epochs * (ROWS // BATCH) * len(RATES)
    return parts(
        [{"experiment": "keras-subtract", "op": "sub", "model": model, "steps": steps} for model in MODELS],
        count,
        10,
    )


def run(config: Config) -> dict[str, Any]:
    """Train at three rates, one after the other; measure errors and gates."""
    layer = MODELS[config["model"]]()
    x, y = draw(DEVIATIONS["inside"], np.random.default_rng(0), ROWS)
    steps = config["steps"] // len(RATES)
    losses, params = [], None
    diverged = np.zeros(config["count"], np.bool_)
    for stage, lr in enumerate(RATES):
        result = fit(
            layer,
            x,
            y,
            batch=BATCH,
            block=1,
            optimizer=RMSprop(lr=lr, alpha=0.9, eps=1e-7),
            steps=steps,
            every=max(1, steps // 30),
            params=params,
            replicas=replicas(config),
            seed=config["seed"] + stage,  # other batches at each rate
        )
        losses.append(result.history["loss"])
        params, diverged = result.params, diverged | result.diverged
    seeds: dict[str, Any] = {"loss": rounded(np.concatenate(losses).T, 4), "diverged": diverged}
    exact = {name: to_numpy(value).astype(np.float64) for name, value in result.params.items()}
    for where in DEVIATIONS:
        rows, truth = held_out(where)
        values = layer.values(exact, rows)
        seeds[f"mae_{where}"] = np.abs(to_numpy(values["y"]) - truth).mean(axis=(1, 2))
        seeds[f"relative_{where}"] = seeds[f"mae_{where}"] / np.abs(truth).mean()
        for unit in "01" if "0.g" in values else "":
            seeds[f"below_{unit}_{where}"] = to_numpy(values[f"{unit}.g"] < 1).mean(axis=(1, 2))
    if "0.G" in exact:
        for unit in "01":
            seeds[f"moved_{unit}"] = np.abs(exact[f"{unit}.G"] - 10).max(axis=(1, 2))
    return outcome(result, **seeds)


def seconds(config: Config) -> float:
    """About how long a config takes."""
    return float(config["steps"] * config["count"] * {"NALU": 6e-4, "NAC": 2.5e-4}[config["model"]])


# --- what they say ----------------------------------------------------------------------------------------------

METRICS = {
    "success": Metric(
        "seeds whose mean absolute error on wide rows is at most 1 % of the target's size", rate=True
    ),
    "mae_inside": Metric("mean absolute error on 2,000 rows like those of training, median over seeds"),
    "mae_wide": Metric("mean absolute error on 2,000 rows with four times the deviation, median over seeds"),
    "below_0": Metric(
        "gates of the first layer below 1 in float64, on rows like those of training, mean over seeds"
    ),
    "below_1": Metric(
        "gates of the second layer below 1 in float64, on rows like those of training, mean over seeds"
    ),
    "moved_0": Metric("how far training moved a gate weight of the first layer from 10, median over seeds"),
    "moved_1": Metric("how far training moved a gate weight of the second layer from 10, median over seeds"),
}


def rows(cells: Sequence[Cell]) -> list[Row]:
    """Errors of both; gates of the NALU."""
    made = []
    for cell in cells:
        made.append(rate(f"{cell.name}/success", cell["relative_wide"] <= TOLERANCE))
        made += [error(f"{cell.name}/mae_{where}", cell[f"mae_{where}"]) for where in DEVIATIONS]
        if cell.model == "NALU":
            for unit in "01":
                made.append(error(f"{cell.name}/below_{unit}", cell[f"below_{unit}_inside"], statistic=np.mean))
                made.append(error(f"{cell.name}/moved_{unit}", cell[f"moved_{unit}"]))
    return made


def pictures(cells: Sequence[Cell]) -> list[Picture]:
    """The cost of both."""
    medians = " and ".join(f"{cell.model} {middle(cell['loss'][:, -1]):.2g}" for cell in cells)
    return [
        Picture(
            "cost",
            "The cost by step",
            f"Training loss by step, on a logarithmic scale, a line a seed. Medians at the end: {medians}.",
            "Mean squared error, a line a seed. Dotted: where the rate falls to a tenth.",
            partial(_draw_cost, cells=cells),
        )
    ]


def _draw_cost(figure: Any, cells: Sequence[Cell]) -> None:
    axes = figure.subplots()
    for cell, color in zip(cells, PALETTE, strict=False):
        losses = cell["loss"]
        at = np.linspace(0, cell.config["steps"], losses.shape[1] + 1)[1:]
        axes.plot(at, losses.T, color=color, alpha=0.3, linewidth=0.7)
        axes.plot(at, middle(losses), color=color, linewidth=2, label=f"{cell.model}, median")
    for stage in range(1, len(RATES)):
        axes.axvline(cells[0].config["steps"] * stage / len(RATES), color=GREY, linestyle=":")
    axes.set(xlabel="step", ylabel="mean squared error", yscale="log")
    axes.legend()


def sections(cells: Sequence[Cell]) -> list[Section]:
    """Why the gate does nothing."""
    return [Section("What the gate really does", WHY)]


WHY = (
    "The gate of the first layer is sigma(|x| G) with G = 10 for each of 100 inputs: its argument is about 400. "
    "Sigma is then 1 to the last bit, and its slope 0, so that G receives no gradient: the layer is a NAC. The "
    "rows `below_0` and `moved_0` count it.",
    "The second layer has two inputs and its argument is smaller: its gate is below 1 on the share of rows that "
    "`below_1` gives, it learns, and so its product path takes part in the output.",
    "No formula is read out: it has 100 terms, and the errors say whether they are right.",
    "NAC, which has no gates, stands beside: the rows `success` compare both on the same task.",
)

KERAS = Experiment(
    name="keras-subtract",
    title="A difference by two NALUs, the first gate of which is stuck",
    claim="Two NALUs learn a - b, where a and b are sums of 45 and 55 of 100 inputs.",
    source="The Keras demo of NALU; it prints errors without a claim",
    protocol=(
        "100 inputs, normal with a deviation of 0.5; the target is the sum of the first 45 minus that of the "
        "others.",
        "NALU of 100 inputs and 2 outputs, then of 2 inputs and 1 output; one W for both paths; gate "
        "sigma(|x| G), G = 10; W_hat and M_hat normal with a deviation of 1.",
        "65,536 rows in batches of 1,024; mean squared error; RMSprop as in Keras (rho 0.9, eps 1e-7) at rates of "
        "0.01, 0.001 and 0.0001, one after the other.",
        "Measured on 2,000 other rows, and on 2,000 wide rows with a deviation of 2.",
    ),
    deviations={
        "always": (
            "Batches are drawn with replacement by each seed's own stream, not cut from a shuffled table.",
            "eps of the logarithm is 1e-7.",
        ),
        "default": ("20 epochs' worth of steps at each rate instead of 200.",),
        "quick": ("10 seeds, and 20 epochs' worth of steps at each rate instead of 200.",),
    },
    metrics=METRICS,
    cells=cells,
    run=run,
    rows=rows,
    seconds=seconds,
    pictures=pictures,
    sections=sections,
    key=("sub/NALU/success", "sub/NALU/mae_wide", "sub/NALU/below_0", "sub/NALU/moved_0", "sub/NAC/success"),
)

EXPERIMENTS = (KERAS,)
