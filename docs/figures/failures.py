"""The figures of "Why NALU fails" that no derivation page has."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import nalu_np as nn
from nalu_np.vjps import linear, log_product, mix

from ._tools import below, ink, panels, tint

Host = NDArray[Any]

SEEDS, SPREADS = 64, (1, 5, 20)

MODELS = {"NALU": "o", "NALU-separate": "s", "NAC-LogNAC": "^", "NAC": "D"}
SIMPLE = {"add": "$a + b$", "sub": "$a - b$", "mul": "$a\\,b$", "div": "$a / b$"}
OPS = {**SIMPLE, "square": "$a^2$", "root": r"$\sqrt{a}$"}


@functools.cache
def _paths(spread: float) -> tuple[Host, Host, Host]:
    """Steps, the weight that is farther from 1 of 64 NACs that learn a + b, (points, S), and which arrive."""
    x = np.random.default_rng(0).uniform(1, 2, (500, 2)).astype("float32")
    layer = nn.NAC(2, 1)
    normal = np.random.default_rng(1).normal(0, spread, (2, SEEDS, 2, 1)).astype("float32")
    params = dict(zip(("W_hat", "M_hat"), normal, strict=True))
    steps, weights = [0], [layer.values(params, x)["W"]]

    def look(segment: nn.Segment) -> None:
        steps.append(segment.step)
        weights.append(layer.values(segment.params, x)["W"])

    options: dict[str, Any] = {"optimizer": nn.Adam(lr=0.02), "replicas": SEEDS, "params": params}
    nn.fit(layer, x, x.sum(axis=1, keepdims=True), steps=2000, every=40, callback=look, **options)
    W = np.array(weights)[..., 0].min(axis=-1)
    return np.array(steps), W, W[-1] > 0.9


def plains() -> Figure:
    """The wider the initial values, the more weights stay on the plain on which they began."""
    figure, all_axes = panels(3, 1.9, sharex=True)
    for axes, spread in zip(all_axes, SPREADS, strict=True):
        steps, W, learned = _paths(spread)
        for mask, color, gid in ((learned, "C0", "learned"), (~learned, "C1", "stuck")):
            line = "-" if gid == "learned" else "--"
            axes.plot(steps[::2], W[::2, mask][:, :20], color=color, linestyle=line, linewidth=1.2, gid=gid)
        axes.set_title(f"standard deviation {spread}: {learned.sum()} of {SEEDS} learn $a + b$")
        axes.set(ylabel="$W$", yticks=(-1, 0, 1), ylim=(-1.15, 1.15))
    all_axes[-1].set(xlabel="step", xticks=(0, 1000, 2000))
    return figure


@functools.cache
def _choices() -> tuple[Host, Host]:
    """Steps, and the mean gate of 32 NALUs with separate weights that learn a - b, (points, S)."""
    x = np.random.default_rng(0).uniform(1, 2, (500, 2)).astype("float32")
    layer = nn.NALU(2, 1, tied=False)
    steps, gates = [0], [layer.values(layer.init(0, 32), x)["g"].mean(axis=(1, 2))]

    def look(segment: nn.Segment) -> None:
        steps.append(segment.step)
        gates.append(layer.values(segment.params, x)["g"].mean(axis=(1, 2)))

    options: dict[str, Any] = {"optimizer": nn.Adam(lr=0.01), "replicas": 32, "batch": 32}
    nn.fit(layer, x, x[:, :1] - x[:, 1:], steps=2500, every=50, callback=look, **options)
    return np.array(steps), np.array(gates)


def gate_luck() -> Figure:
    """Gates of many seeds that are to learn the same difference: the start decides which of them open its path."""
    figure, (axes,) = panels(1, 3.1)
    steps, gates = _choices()
    right = gates[-1] > 0.9
    for mask, color, line, label in ((right, "C0", "-", "above 0.9"), (~right, "C1", "--", "below")):
        drawn = axes.plot(steps[::2], gates[::2, mask], color=color, linestyle=line, linewidth=1.2)
        drawn[0].set_label(f"{label}: {mask.sum()}")
    axes.set(xlabel="step", ylabel="gate $g$, mean", yticks=(0, 0.5, 1), xticks=(0, 1000, 2000), ylim=(-0.04, 1.3))
    axes.legend(loc="upper center", ncols=2)
    return figure


def tied_weights() -> Figure:
    """What the two paths of a tied NALU ask of their weight: the opposite where the input is below 1."""
    figure, (axes,) = panels()
    x = np.linspace(0.02, 3, 150)[:, None]
    pulls = []
    for row in x:
        W, rows = np.array([[0.5]]), row[None]
        (a, sum_vjp), (m, product_vjp) = linear(rows, W), log_product(rows, W, eps=1e-7)
        y, mix_vjp = mix(np.full_like(a, 0.5), a, m)
        _, da, dm = mix_vjp(np.ones_like(y))
        pulls.append((sum_vjp(da)[1][0, 0], product_vjp(dm)[1][0, 0]))
    through_sum, through_product = np.array(pulls).T
    axes.plot(x, through_sum, label="through the sum", gid="sum")
    axes.plot(x, through_product, label="through the product", gid="product")
    axes.plot(x, through_sum + through_product, label="together", gid="together")
    axes.axhline(0, linewidth=0.8, linestyle="-", color=ink())
    axes.set(xlabel="$x$, one input", ylabel=r"$\partial y / \partial W$", xticks=(0, 1, 2, 3), yticks=(0, 1, 2))
    axes.legend(loc="upper left")
    return figure


@functools.cache
def _squares() -> tuple[Host, dict[str, Host]]:
    """What one LogNAC and two stacked say beyond the rows on which they have learned x^2."""
    x = np.random.default_rng(0).uniform(1, 2, (600, 1))
    t = np.linspace(0.1, 4, 40, dtype="float32")
    models = {"one layer": nn.LogNAC(1, 1), "two layers": nn.chain(nn.LogNAC(1, 2), nn.LogNAC(2, 1))}
    found = {}
    for name, model in models.items():
        options: dict[str, Any] = {"optimizer": nn.Adam(lr=1e-2), "steps": 4000, "batch": 64, "replicas": 8}
        result = nn.fit(model, x[:400], x[:400] ** 2, validation=(x[400:], x[400:] ** 2), **options)
        found[name] = model(nn.replica(result.best_params, result.best), t[:, None])[0][:, 0]
    return t, found


def bounded_weights() -> Figure:
    """No weight of a single layer reaches 2, so that x^2 takes two."""
    figure, (axes,) = panels()
    t, found = _squares()
    axes.axvspan(1, 2, color=tint("C2", 0.25), linewidth=0)
    axes.text(1.5, 7.6, "trained here", ha="center", va="bottom", fontsize=11.5)
    axes.plot(t, t * t, label="$x^2$", color=ink(), linewidth=5, alpha=0.35, gid="truth")
    for (name, y), marker, color, line in zip(found.items(), "os", ("C1", "C0"), ("--", "-"), strict=True):
        axes.plot(t, y, label=name, marker=marker, markevery=6, color=color, linestyle=line, gid=name)
    axes.set(xlabel="$x$", ylabel="output", xticks=(0, 1, 2, 3, 4), yticks=(0, 4, 8, 12, 16))
    axes.legend(loc="upper left")
    return figure


def success_rates() -> Figure:
    """How many of 100 seeds learn arithmetic on sums of inputs so that it holds beyond the training rows."""
    figure, (axes,) = panels(1, 4.6)
    table = json.loads((Path(__file__).parents[1] / "experiments.json").read_text(encoding="utf-8"))
    rows = {row["row"]: row for row in table["static"]["rows"]}
    for i, (model, marker) in enumerate(MODELS.items()):
        found = [rows[f"static/{op}/{model}/success"] for op in OPS]
        rate, low, high = (100 * np.array([row[key] for row in found]) for key in ("ours", "low", "high"))
        at, reach = np.arange(len(OPS)) + 0.19 * (i - 1.5), (rate - low, high - rate)
        axes.errorbar(rate, at, xerr=reach, fmt=marker, color=f"C{i}", elinewidth=1.5, label=model)
    axes.set(ylim=(len(OPS) - 0.5, -0.5), xlim=(-3, 103), xlabel="% of 100 seeds", xticks=(0, 25, 50, 75, 100))
    axes.set_title("success beyond the training rows")
    axes.set_yticks(range(len(OPS)), OPS.values())
    axes.tick_params(axis="y", length=0)
    below(figure, axes)
    return figure
