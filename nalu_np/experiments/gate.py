"""The laboratory of the gate: how NALU chooses between its sum and its product, seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import to_numpy
from ..layer import replica
from ..optim import Adam
from ..readout import formula
from ..train import Segment, fit
from ..units import NALU
from ..units.nalu import GATES
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
    outcome,
    parts,
    rate,
    replicas,
)

OPS: dict[str, Callable[[Any], Any]] = {
    "add": lambda x: x[:, :1] + x[:, 1:],
    "sub": lambda x: x[:, :1] - x[:, 1:],
    "mul": lambda x: x[:, :1] * x[:, 1:],
    "div": lambda x: x[:, :1] / x[:, 1:],
}
SYMBOLS = {"add": "x1 + x2", "sub": "x1 - x2", "mul": "x1 * x2", "div": "x1 / x2"}

#: The gate at which the path of an operation is open.
SIDE = {"add": 1, "sub": 1, "mul": 0, "div": 0}

MODELS = {
    kind + ("" if tied else "-separate"): partial(NALU, 2, 1, gate=kind, tied=tied)
    for kind, tied in product(GATES, (True, False))
}

RANGES = {"inside": (1.0, 2.0), "beyond": (2.0, 6.0), "negative": (-6.0, -2.0)}

#: Points of a trajectory, and rows on which it is measured.
POINTS, ROWS = 50, 500

#: A seed has solved a task when its root mean square error beyond the range is at most this part of the target's.
TOLERANCE = 0.01


def draw(op: str, rng: np.random.Generator, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows for training."""
    x = rng.random((n, 2), dtype=np.float32) + 1
    return x, OPS[op](x)


def held_out(where: str) -> Host:
    """The same rows for all."""
    return np.random.default_rng(0).uniform(*RANGES[where], (ROWS, 2))


# --- the runs ---------------------------------------------------------------------------------------------------


def cells(scale: str, seeds: int | None) -> list[Config]:
    """Every operation with every gate."""
    count = seeds or {"quick": 20, "default": 100, "full": 100}[scale]
    steps = 20_000 * (10 if scale == "full" else 1)
    models = ("matrix", "independent") if scale == "quick" else tuple(MODELS)
    common = {"experiment": "gate", "steps": steps, "batch": 128, "lr": 0.01}
    return parts([{**common, "op": op, "model": model} for op in OPS for model in models], count)


def run(config: Config) -> dict[str, Any]:
    """Train, look at gate and weights on the way, and at the gate on rows of other ranges at the end."""
    op, layer = config["op"], MODELS[config["model"]]()
    gates: list[Host] = []
    weights: list[Host] = []

    def look(params: Any) -> None:
        values = measured(layer, params, "inside")
        gates.append(values["g"].mean(axis=1)[:, 0])
        paths = ("W",) if layer.tied else ("W_a", "W_m")
        weights.append(np.concatenate([values[name][..., 0] for name in paths], axis=1))

    def watch(segment: Segment) -> None:
        look(segment.params)

    look(layer.init(config["seed"], replicas(config)))
    result = fit(
        layer,
        partial(draw, op),
        batch=config["batch"],
        optimizer=Adam(lr=config["lr"]),
        steps=config["steps"],
        every=max(1, config["steps"] // POINTS),
        replicas=replicas(config),
        seed=config["seed"],
        callback=watch,
    )
    seeds: dict[str, Any] = {"gate": np.array(gates).T, "weights": np.array(weights).transpose(1, 0, 2)}
    for where in RANGES:
        values, truth = measured(layer, result.params, where), OPS[op](held_out(where))
        seeds[f"error_{where}"] = np.sqrt(((values["y"] - truth) ** 2).mean(axis=(1, 2)) / (truth**2).mean())
        flipped = (values["g"][..., 0] > 0.5) != (seeds["gate"][:, -1:] > 0.5)
        seeds[f"flipped_{where}"] = np.broadcast_to(flipped, (len(flipped), ROWS)).mean(axis=1)
    G = to_numpy(result.params["G"])
    seeds["G"] = G.reshape(len(G), -1)
    seeds["formula"] = [str(formula(layer, replica(result.params, r), held_out("inside"))) for r in range(len(G))]
    return outcome(result, **seeds)


def measured(layer: NALU, params: Any, where: str) -> dict[str, Host]:
    """What a NALU computes on the way, (S, ...), on the rows of a range, in float64."""
    exact = {name: to_numpy(value).astype(np.float64) for name, value in params.items()}
    return {name: to_numpy(value) for name, value in layer.values(exact, held_out(where)).items()}


#: Microseconds a seed and step, of one core.
COST = {"matrix": 1.6}


def seconds(config: Config) -> float:
    """About how long a config takes."""
    return float(config["steps"] * config["count"] * COST.get(config["model"], 3.5) * 1e-6)


# --- what they say ----------------------------------------------------------------------------------------------

METRICS = {
    "right": Metric("seeds whose gate, on rows of training, is on the side of the operation's path", rate=True),
    "undecided": Metric("seeds whose gate, on rows of training, stays between 0.1 and 0.9", rate=True),
    "success": Metric("seeds that are off by at most 1 % (root mean square) beyond the range", rate=True),
    "right_success": Metric("the same, among the seeds whose gate is on the right side", rate=True),
    "gate": Metric("gate at the end, on rows of training, median over seeds"),
    "flipped_beyond": Metric("rows between 2 and 6 on which the gate changes sides, mean over seeds"),
    "flipped_negative": Metric("rows between -6 and -2 on which the gate changes sides, mean over seeds"),
}


def side(cell: Cell) -> Host:
    """Which seeds end on the right side."""
    return np.where((cell["gate"][:, -1] > 0.5) == SIDE[cell.op], 1.0, 0.0)


def rows(cells: Sequence[Cell]) -> list[Row]:
    """Choices, successes, flips."""
    made = []
    for cell in cells:
        end, right, solved = cell["gate"][:, -1], side(cell), cell["error_beyond"] <= TOLERANCE
        made.append(rate(f"{cell.name}/right", right))
        made.append(rate(f"{cell.name}/undecided", np.where((end > 0.1) & (end < 0.9), 1.0, 0.0)))
        made.append(rate(f"{cell.name}/success", solved))
        if right.any():
            made.append(rate(f"{cell.name}/right_success", solved[right == 1]))
        made.append(error(f"{cell.name}/gate", end))
        made += [
            error(f"{cell.name}/flipped_{where}", cell[f"flipped_{where}"], statistic=np.mean)
            for where in ("beyond", "negative")
        ]
    return made


def pictures(cells: Sequence[Cell]) -> list[Picture]:
    """Trajectories of gate and weight; where seeds end; the gate along a line through 0."""
    made = []
    for model in dict.fromkeys(cell.model for cell in cells):
        if model in DRAWN:
            made += _pictures(model, [cell for cell in cells if cell.model == model])
    return made


#: The gates that are drawn; the others take the same ways, or have separate weights.
DRAWN = ("matrix", "independent")


def _pictures(first: str, main: Sequence[Cell]) -> list[Picture]:
    shares = ", ".join(f"{SYMBOLS[cell.op]} {side(cell).mean():.0%}" for cell in main)
    made = [
        Picture(
            f"gate-{first}",
            f"The gate on its way, {first}",
            f"Mean gate of every seed by step, an axis an operation. On the right side at the end: {shares}.",
            "A line a seed, coloured by where it ends. 1 opens the sum, 0 the product; the dashed line is the "
            "side of the operation.",
            partial(_draw_paths, cells=main),
            height=4.6,
        ),
        Picture(
            f"weights-{first}",
            f"The first weight on its way, {first}",
            "Weight of x1 of every seed by step, an axis an operation; it should become 1.",
            "A line a seed, coloured by where its gate ends.",
            partial(_draw_weights, cells=main),
            height=4.6,
        ),
        Picture(
            f"ends-{first}",
            f"Where seeds end, {first}",
            "Both weights of every seed at the end, an axis an operation: filled where the task is solved.",
            "Filled: off by at most 1 % beyond the range. The cross marks the weights of the operation.",
            partial(_draw_ends, cells=main),
            height=4.6,
        ),
    ]
    if first == "matrix":
        made.append(
            Picture(
                "flip",
                "The gate outside the range of training",
                "The gate of every seed at x1 = x2 = t, for t from -6 to 6. With an input-dependent gate every "
                "curve passes through one half at t = 0, and ends on the other side.",
                "Trained between 1 and 2 (grey). The gate has no bias, so g(-x) = 1 - g(x): for negative inputs a "
                "sum becomes a product, and a product a sum.",
                partial(_draw_flips, cells=main),
                height=4.6,
            )
        )
    return made


def _grid(figure: Any, cells: Sequence[Cell]) -> Any:
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, cell in zip(grid.flat, cells, strict=False):
        axes.set_title(SYMBOLS[cell.op])
    for axes in grid.flat[len(cells) :]:
        axes.set_visible(False)
    return zip(grid.flat, cells, strict=False)


def _draw_paths(figure: Any, cells: Sequence[Cell]) -> None:
    for axes, cell in _grid(figure, cells):
        gates = cell["gate"]
        at = np.linspace(0, cell.config["steps"], gates.shape[1])
        for path in gates:
            axes.plot(at, path, color=PALETTE[0 if path[-1] > 0.5 else 1], alpha=0.4, linewidth=0.8)
        axes.axhline(SIDE[cell.op], color=GREY, linestyle="--", linewidth=1.5)
        axes.set(xlabel="step", ylabel="gate", ylim=(-0.05, 1.05))
        axes.label_outer()


def _draw_weights(figure: Any, cells: Sequence[Cell]) -> None:
    for axes, cell in _grid(figure, cells):
        paths = cell["weights"][:, :, 0]
        at = np.linspace(0, cell.config["steps"], paths.shape[1])
        for path, gate in zip(paths, cell["gate"][:, -1], strict=True):
            axes.plot(at, path, color=PALETTE[0 if gate > 0.5 else 1], alpha=0.4, linewidth=0.8)
        axes.axhline(TRUTH[cell.op][0], color=GREY, linestyle="--", linewidth=1.5)
        axes.set(xlabel="step", ylabel="weight of x1", ylim=(-1.05, 1.05))
        axes.label_outer()


TRUTH = {"add": (1, 1), "sub": (1, -1), "mul": (1, 1), "div": (1, -1)}


def _draw_ends(figure: Any, cells: Sequence[Cell]) -> None:
    for axes, cell in _grid(figure, cells):
        w1, w2 = cell["weights"][:, -1, :2].T
        solved = cell["error_beyond"] <= TOLERANCE
        color = np.where(cell["gate"][:, -1] > 0.5, PALETTE[0], PALETTE[1])
        axes.plot(*TRUTH[cell.op], "x", color=GREY, markersize=14)
        for chosen, face in ((solved, color), (~solved, np.full(len(color), "none"))):
            axes.scatter(w1[chosen], w2[chosen], s=22, edgecolors=color[chosen], facecolors=face[chosen])
        axes.set(xlabel="weight of x1", ylabel="weight of x2", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
        axes.label_outer()


def _draw_flips(figure: Any, cells: Sequence[Cell]) -> None:
    t = np.linspace(-6, 6, 121)
    for axes, cell in _grid(figure, cells):
        slope = np.clip(cell["G"].sum(axis=1), -100, 100)
        axes.axvspan(*RANGES["inside"], color=GREY, alpha=0.3)
        axes.plot(t, 1 / (1 + np.exp(-np.outer(t, slope))), color=PALETTE[0], alpha=0.3, linewidth=0.8)
        axes.set(xlabel="t", ylabel="gate at x1 = x2 = t")
        axes.label_outer()


def sections(cells: Sequence[Cell]) -> list[Section]:
    """Choices of all gates, and what they mean."""
    ops = list(dict.fromkeys(cell.op for cell in cells))
    found = {(cell.op, cell.model): cell for cell in cells}
    table = []
    for model in dict.fromkeys(cell.model for cell in cells):
        shares = (f"{side(found[op, model]).mean():.0%}" if (op, model) in found else "" for op in ops)
        table.append((model, *shares))
    return [
        Section(
            "Right choices",
            ("Seeds whose gate ends on the side of the operation's path.",),
            ("gate", *(SYMBOLS[op] for op in ops)),
            tuple(table),
        ),
        Section("What the gate does", WHY),
    ]


WHY = (
    "Where y is too low the gate moves to the larger of the two paths, where it is too high to the smaller, "
    "whatever the operation is: dz = dy (a - m) g (1 - g). So the choice depends on the weights of that moment; "
    "the figure shows gates that go to one side first and come back.",
    "Madsen and Johansen find the choice close to random in a network of two layers with 100 inputs. This is one "
    "unit with two inputs, a far easier task; the rows `right` say how often it chooses well here.",
    "With one output `scalar` is the same as `matrix`, and on positive inputs `abs` is too: these train to the "
    "same weights, and `abs` differs on negative inputs only.",
    "A gate that sees its input has no bias: g(0) = 1/2 and g(-x) = 1 - g(x) for `matrix` and `scalar`. The rows "
    "`flipped_negative` show the side change on negative inputs. `abs` and `independent` cannot flip so.",
)

GATE = Experiment(
    name="gate",
    title="How a NALU chooses",
    claim="A NALU learns to open the path of the right operation.",
    source="Trask et al. 2018, section 2; Madsen & Johansen 2020 report that the choice is close to random",
    protocol=(
        "One NALU of two inputs and one output; a sum, a difference, a product, a quotient.",
        "Gates: `matrix`, one choice an output, and `scalar`, one choice a row, depend on x (with one output they "
        "are the same); `abs` depends on |x|; `independent` on nothing. Each with one W for both paths, and with "
        "separate weights.",
        "Training: x uniform between 1 and 2, a fresh batch of 128 rows at every step, mean squared error, Adam "
        "at a rate of 0.01, 20,000 steps; all parameters uniform between -2 and 2 at first.",
        "Gate, weights and errors are measured on 500 rows between 1 and 2, between 2 and 6, and between -6 and "
        "-2.",
    ),
    deviations={
        "always": ("A laboratory of our own: no such table was published.",),
        "quick": ("20 seeds, and the gates `matrix` and `independent` only.",),
        "full": ("Ten times the steps: 200,000.",),
    },
    metrics=METRICS,
    cells=cells,
    run=run,
    rows=rows,
    seconds=seconds,
    pictures=pictures,
    sections=sections,
    key=tuple(f"{op}/{gate}/right" for op in ("add", "mul") for gate in ("matrix", "independent")),
)

EXPERIMENTS = (GATE,)
