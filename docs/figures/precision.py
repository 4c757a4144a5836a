"""The figures of the page about rounding errors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import nalu_np as nn

from ._tools import below, panels, powers

Host = NDArray[Any]

FACTORS, DRAWS = 10, 60

#: Sums by precision, and by the W_hat = M_hat of their weight: at 40 it is 1, at 10 as training leaves it.
SUMS = {"float32": ("float32", 40.0), "float64": ("float64", 40.0), "trained": ("float64", 10.0)}


def _off(values: Host, exact: Iterable[Fraction]) -> Host:
    """Relative errors, held against exact numbers."""
    pairs = zip(values.astype("float64").tolist(), exact, strict=True)
    return np.array([float(Fraction(value) / truth - 1) for value, truth in pairs])


def _product_errors(dtype: str) -> tuple[Host, Host, Host]:
    """For ever larger factors: |p|, and the typical errors of exp(sum of logs) and of a running product."""
    machine = float(np.finfo(dtype).eps)
    layer, W = nn.ProductPath(FACTORS, 1), {"W": np.ones((FACTORS, 1), dtype)}
    sizes, logs, running = [], [], []
    for scale in np.geomspace(1.05, 3000, 16):
        x = (scale * np.random.default_rng(0).uniform(0.97, 1.03, (DRAWS, FACTORS))).astype(dtype)
        exact = [prod(map(Fraction, row)) for row in x.astype("float64").tolist()]
        for kept, y in ((logs, layer(W, x)[0][:, 0]), (running, np.multiply.accumulate(x, axis=1)[:, -1])):
            kept.append(np.sqrt(np.mean(_off(y, exact) ** 2)) / machine)
        sizes.append(FACTORS * np.log(scale))
    return np.array(sizes), np.array(logs), np.array(running)


@functools.cache
def _both() -> dict[str, tuple[Host, Host, Host]]:
    return {dtype: _product_errors(dtype) for dtype in ("float32", "float64")}


def long_products() -> Figure:
    """The error of a product of ten factors, in units of the last place, for ever larger factors."""
    figure, (axes,) = panels(1, 3.6)
    for (dtype, (p, *errors)), markers, line in zip(_both().items(), ("os", "^D"), ("-", "--"), strict=True):
        for error, name, color, marker in zip(
            errors, ("exp of logs", "running"), ("C0", "C1"), markers, strict=True
        ):
            style = {"color": color, "linestyle": line, "marker": marker}
            axes.plot(p, error, label=f"{name}, {dtype}", gid=f"{name}-{dtype}", **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks((1, 10, 80), ("1", "10", "80"))
    axes.set_yticks((1, 10), ("1", "10"))
    axes.minorticks_off()
    axes.set(xlabel="$|p|$, the logarithm of the product", ylabel="error / machine epsilon")
    below(figure, axes)
    return figure


def eps_bias() -> Figure:
    """How far a LogNAC with W = 1 is off that returns its input: eps below 1, rounding above."""
    figure, (axes,) = panels()
    x = np.geomspace(1e-9, 1e12, 2101)
    for dtype, color, line in (("float32", "C1", "--"), ("float64", "C0", "-")):
        params = {name: np.full((1, 1), 40.0, dtype) for name in ("W_hat", "M_hat")}
        rows = x[:, None].astype(dtype)
        error = np.abs(nn.LogNAC(1, 1)(params, rows)[0].astype("float64") / rows - 1)[:, 0]
        typical = np.median(error[:2100].reshape(-1, 50), axis=1)
        axes.plot(x[25:2100:50], typical, color=color, linestyle=line, label=dtype, gid=dtype)
    powers(axes, x=4, y=4)
    axes.set(xlabel="$x$", ylabel="relative error", ylim=(1e-17, 1e3))
    axes.legend(loc="upper right")
    return figure


@functools.cache
def _sums() -> tuple[Host, dict[str, Host]]:
    """Lengths, and the typical relative errors of running sums that long, by precision and by weight."""
    drawn = np.random.default_rng(0).uniform(1, 2, (1000, 6, 1))
    model = nn.scan(nn.Accumulator(nn.NAC(1, 1)))
    found = {}
    for name, (dtype, hat) in SUMS.items():
        params = {part: np.full((1, 1), hat, dtype) for part in ("W_hat", "M_hat")}
        x = drawn.astype(dtype)
        columns = zip(x[..., 0].T.tolist(), model(params, x)[0][..., 0].T, strict=True)
        errors = [_off(y, itertools.accumulate(map(Fraction, column))) for column, y in columns]
        found[name] = np.sqrt(np.mean(np.square(errors), axis=0))
    return np.arange(1, 1001), found


def long_sums() -> Figure:
    """A running sum of a thousand steps: rounding against a weight that has not quite arrived at 1."""
    figure, (axes,) = panels(1, 3.4)
    T, found = _sums()
    at = np.unique(np.geomspace(2, 1000, 30).astype(int)) - 1
    styles = zip(found.items(), "so^", ("C1", "C0", "C2"), strict=True)
    for (name, errors), marker, color in styles:
        label = "$1 - W = 4.5 \\cdot 10^{-5}$" if name == "trained" else name
        axes.plot(T[at], errors[at], color=color, marker=marker, markevery=5, label=label, gid=name)
    powers(axes, x=1, y=4)
    axes.set(xlabel="steps", ylabel="relative error", ylim=(1e-17, 1))
    axes.legend(loc="upper center", ncols=2, columnspacing=0.8, bbox_to_anchor=(0.45, 1.05))
    return figure
