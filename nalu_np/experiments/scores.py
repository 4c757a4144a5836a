"""What the paper's tables of synthetic arithmetic share: scores relative to a random network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import to_numpy
from ..layer import Layer, Params
from ..optim import Adam
from ..train import fit
from .base import (
    MARKERS,
    PALETTE,
    Cell,
    Config,
    Host,
    Metric,
    Picture,
    Row,
    Section,
    error,
    every,
    middle,
    outcome,
    rate,
    replicas,
)

#: Operations on the sums a and b.
OPS: dict[str, Callable[[Any, Any], Any]] = {
    "a": lambda a, b: a,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "square": lambda a, b: a * a,
    "root": lambda a, b: np.sqrt(a),
}
SYMBOLS = {
    "a": "a",
    "add": "a + b",
    "sub": "a - b",
    "mul": "a * b",
    "div": "a / b",
    "square": "a^2",
    "root": "sqrt(a)",
}

#: Where is measured: like in training, and beyond.
PLACES = ("interpolation", "extrapolation")

#: A score that the tables of the paper print as 0.0.
ZERO = 0.05

#: Draws the rows of a place for an operation: (op, place, rng, n) -> x, y.
Draw = Callable[[str, str, np.random.Generator, int], tuple[NDArray[Any], NDArray[Any]]]

#: What is printed or said about (op, model, place), or "".
Published = Callable[[str, str, str], str]

METRICS = {
    "interpolation": Metric(
        "score on rows like those of training: 100 times the mean squared error over that of random networks, "
        "median over seeds"
    ),
    "extrapolation": Metric(
        "score on rows beyond training: 100 times the mean squared error over that of random networks, median "
        "over seeds"
    ),
    "success": Metric("seeds with a score below 0.05 beyond training, which one decimal prints as 0.0", rate=True),
    "mse_interpolation": Metric("mean squared error on rows like those of training, median over seeds"),
    "mse_extrapolation": Metric("mean squared error on rows beyond training, median over seeds"),
}


# --- the runs ---------------------------------------------------------------------------------------------------


def squared_errors(layer: Layer, params: Params, x: Host, y: Host) -> Host:
    """Mean squared error of each seed, computed in float64, some rows at a time: sequences are kept whole."""
    exact = {name: to_numpy(value).astype(np.float64) for name, value in params.items()}
    with np.errstate(all="ignore"):
        parts = [
            (to_numpy(layer.forward(exact, x[..., at : at + 25, :])[0]) - y[..., at : at + 25, :]) ** 2
            for at in range(0, x.shape[-2], 25)
        ]
    errors = np.concatenate(parts, axis=-2)
    return np.asarray(errors.reshape(len(errors), -1).mean(axis=1))


def held_out(draw: Draw, op: str, place: str, n: int) -> tuple[Host, Host]:
    """The same rows for all models and seeds."""
    x, y = draw(op, place, np.random.default_rng(PLACES.index(place)), n)
    return x.astype(np.float64), y.astype(np.float64)


def random_error(layer: Layer, x: Host, y: Host) -> float:
    """What a score is relative to: the mean error of 100 networks before training."""
    return float(squared_errors(layer, layer.init(seed=0, replicas=100), x, y).mean())


def trained(config: Config, layer: Layer, random: Layer, draw: Draw, measured: int) -> dict[str, Any]:
    """Train on fresh rows at every step; measure errors, and scores relative to `random`, on so many rows."""
    op = config["op"]
    result = fit(
        layer,
        partial(draw, op, "interpolation"),
        batch=config["batch"],
        optimizer=Adam(lr=config["lr"]),
        steps=config["steps"],
        every=every(config),
        replicas=replicas(config),
        seed=config["seed"],
    )
    found: dict[str, Host] = {}
    for place in PLACES:
        x, y = held_out(draw, op, place, measured)
        errors = squared_errors(layer, result.params, x, y)
        errors[result.diverged] = np.nan
        found[f"mse_{place}"], found[place] = errors, 100 * errors / random_error(random, x, y)
    return outcome(result, **found)


# --- what they say ----------------------------------------------------------------------------------------------


def rows(cells: Sequence[Cell], score: Published, raw: Published, incomparable: Published) -> list[Row]:
    """Rates, scores and errors of every cell, beside the paper's scores and raw errors.

    `incomparable` says why a published score cannot be compared, or "".
    """
    made = []
    for cell in cells:
        made.append(rate(f"{cell.name}/success", cell["extrapolation"] < ZERO))
        for place in PLACES:
            at = (cell.op, cell.model, place)
            why, note = (incomparable(*at), SELECTED) if score(*at) else ("", "")
            made.append(error(f"{cell.name}/{place}", cell[place], score(*at), note, incomparable=why))
        for place in PLACES:
            printed = raw(cell.op, cell.model, place)
            other = "published: of data whose range is not stated" if printed else ""
            made.append(error(f"{cell.name}/mse_{place}", cell[f"mse_{place}"], printed, incomparable=other))
    return made


SELECTED = "published: runs and their selection are not stated"


def picture(cells: Sequence[Cell]) -> Picture:
    """Scores beyond training of every seed, an axis an operation."""
    ops = list(dict.fromkeys(cell.op for cell in cells))
    models = list(dict.fromkeys(cell.model for cell in cells))
    best = max(cells, key=lambda cell: float((cell["extrapolation"] < ZERO).mean()))
    return Picture(
        "scores",
        "Scores beyond training",
        f"Scores of every seed, on a logarithmic scale, for {', '.join(SYMBOLS[op] for op in ops)}. The most "
        f"successful, {best.model} on {SYMBOLS[best.op]}, is below {ZERO} in "
        f"{(best['extrapolation'] < ZERO).mean():.0%} of seeds.",
        "A point a seed; 100 is a random network, and left of the dashed line the paper's tables would print 0.0. "
        "Squares are units of neural arithmetic, circles ordinary networks.",
        partial(_draw, cells=cells, ops=ops, models=models),
        height=1.2 + (0.6 + 0.19 * len(models)) * ((len(ops) + 1) // 2),
    )


def _draw(figure: Any, cells: Sequence[Cell], ops: Sequence[str], models: Sequence[str]) -> None:
    grid = figure.subplots((len(ops) + 1) // 2, min(2, len(ops)), sharex=True, sharey=True, squeeze=False)
    for axes, op in zip(grid.flat, ops, strict=False):
        for cell in (cell for cell in cells if cell.op == op):
            scores = np.clip(np.nan_to_num(cell["extrapolation"], nan=1e6), 1e-9, 1e6)
            at = models.index(cell.model) + np.linspace(-0.25, 0.25, len(scores))
            kind = int("NA" in cell.model)  # NAC, NALU and their compounds
            axes.plot(scores, at, MARKERS[kind], color=PALETTE[kind], markersize=2.5, alpha=0.5, linestyle="none")
        axes.axvline(ZERO, color=PALETTE[3], linestyle="--", linewidth=1)
        axes.set(xscale="log", title=SYMBOLS[op])
        axes.set_yticks(range(len(models)), models, fontsize=9)
    grid.flat[0].invert_yaxis()
    for axes in grid.flat[len(ops) :]:
        axes.set_visible(False)
    for axes in grid.flat[max(0, len(ops) - 2) : len(ops)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("score beyond training")


def tables(cells: Sequence[Cell], published: Published) -> list[Section]:
    """Scores as the paper has them, a column an operation."""
    ops = list(dict.fromkeys(cell.op for cell in cells))
    found = {(cell.op, cell.model): cell for cell in cells}
    made = []
    for place in reversed(PLACES):
        table = []
        for model in dict.fromkeys(cell.model for cell in cells):
            shown = (_beside(found.get((op, model)), place, published(op, model, place)) for op in ops)
            table.append((model, *shown))
        text = "Medians over seeds, and in brackets what the paper prints."
        made.append(Section(f"Scores, {place}", (text,), ("model", *(SYMBOLS[op] for op in ops)), tuple(table)))
    return made


def _beside(cell: Cell | None, place: str, theirs: str) -> str:
    if cell is None:
        return ""
    score = float(middle(cell[place]))
    ours = f"{score:.1f}" if score < 999.95 else ">999.9"
    return f"{ours} ({theirs})" if theirs else ours
