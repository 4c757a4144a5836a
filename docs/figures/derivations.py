"""The figures of the derivation pages: the units as block diagrams, and what their equations do."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

import nalu_np as nn
from nalu_np.layer import nac_radius
from nalu_np.units.nalu import GATES
from nalu_np.vjps import LOSSES, log_product, mix, mse, nac_weight

from ._tools import WIDTH, Diagram, below, ink, panels, powers, tint

Host = NDArray[Any]

# --- units in a picture -----------------------------------------------------------------------------------------


def _diagram(height: float) -> tuple[Figure, Diagram]:
    figure = Figure(figsize=(WIDTH, WIDTH * height / 10))
    return figure, Diagram(figure.add_axes((0, 0, 1, 1)), 10, height)


def _weight(diagram: Diagram, x: float, y: float) -> None:
    """W_hat and M_hat become W, three rows below."""
    diagram.parameter("W_hat", x - 1.1, y, r"$\hat{W}$")
    diagram.parameter("M_hat", x + 1.1, y, r"$\hat{M}$")
    diagram.operation("tanh", x - 1.1, y + 1.6, "tanh", 1.5)
    diagram.operation("sigma", x + 1.1, y + 1.6, r"$\sigma$", 1.5)
    diagram.operation("times", x, y + 3.2, r"$\times$", 1.0)
    for start, end in (("W_hat", "tanh"), ("M_hat", "sigma"), ("tanh", "times"), ("sigma", "times")):
        diagram.arrow(start, end)


def unit_nac() -> Figure:
    """A NAC: weights that rest at -1, 0 and 1, then a sum."""
    figure, diagram = _diagram(6.6)
    _weight(diagram, 7.0, 0.7)
    diagram.value("x", 2.2, 1.9)
    diagram.operation("sum", 2.2, 3.9, "$x\\,W$")
    diagram.value("a", 2.2, 5.9)
    diagram.arrow("x", "sum", "$(B, I)$")
    diagram.arrow("times", "sum", "$W\\;\\;(I, O)$")
    diagram.arrow("sum", "a", "$(B, O)$")
    return figure


def unit_lognac() -> Figure:
    """A NAC in log space: the same sum between a logarithm and an exponential."""
    figure, diagram = _diagram(8.8)
    _weight(diagram, 7.2, 0.9)
    diagram.value("x", 2.2, 0.5)
    diagram.operation("log", 2.2, 2.2, r"$\log(|x| + \epsilon)$", 3.2)
    diagram.operation("sum", 2.2, 4.1, "$l\\,W$")
    diagram.operation("exp", 2.2, 6.1, "exp")
    diagram.value("m", 2.2, 8.1)
    for start, end, text in (
        ("x", "log", "$(B, I)$"),
        ("log", "sum", "$l$"),
        ("times", "sum", "$W\\;\\;(I, O)$"),
        ("sum", "exp", "$p$"),
        ("exp", "m", "$(B, O)$"),
    ):
        diagram.arrow(start, end, text)
    return figure


def unit_nalu() -> Figure:
    """A NALU: a gate between a sum and a product, which share their weights."""
    figure, diagram = _diagram(10.6)
    left, middle, right = 1.3, 4.4, 8.2
    diagram.value("x", middle, 0.6)
    diagram.operation("log", right, 2.2, r"$\log(|x| + \epsilon)$", 3.2)
    diagram.parameter("G", left, 2.2)
    diagram.operation("gated", left, 4.4, "$x\\,G$", 1.6)
    diagram.operation("sum", middle, 4.4, "$x\\,W$", 1.6)
    diagram.parameter("W", (middle + right) / 2, 4.4)
    diagram.operation("product", right, 4.4, "$l\\,W$", 1.6)
    diagram.operation("sigma", left, 6.3, r"$\sigma$", 1.6)
    diagram.operation("exp", right, 6.3, "exp", 1.6)
    diagram.operation("mix", middle, 8.6, "$g\\,a + (1 - g)\\,m$", 4.4)
    diagram.value("y", middle, 10.1)
    edges = [("x", "gated"), ("x", "sum"), ("x", "log"), ("log", "product", "$l$"), ("W", "sum"), ("W", "product")]
    edges += [("G", "gated"), ("gated", "sigma", "$z$"), ("product", "exp", "$p$"), ("mix", "y")]
    for edge in edges:
        diagram.arrow(*edge)
    for start, text, dx in (("sigma", "$g$", -0.3), ("sum", "$a$", 0.3), ("exp", "$m$", 0.3)):
        diagram.arrow(start, "mix")
        (_, (x, y), _), (_, to, _) = diagram.boxes[start], diagram.boxes["mix"]
        place = (x + to[0]) / 2 + dx, (y + to[1]) / 2
        diagram.axes.text(*place, text, ha="right" if dx < 0 else "left", va="center")
    tied = r"$W = \tanh(\hat{W})\,\sigma(\hat{M})$"
    diagram.axes.text(7.6, 10.1, tied, ha="center", va="center", color="C1")
    return figure


def unit_gate() -> Figure:
    """The four gates, each with the choices g that it makes of the same four rows for two outputs."""
    x = np.array([[1.0, 2.0], [-1.0, -2.0], [2.0, -1.0], [-2.0, 1.0]])
    G = {"matrix": np.array([[0.9, -0.6], [0.5, 0.7]])}
    G |= {"abs": G["matrix"], "scalar": G["matrix"][:, :1], "independent": np.array([1.4, -0.9])}
    maps = {"matrix": r"x\,G", "scalar": r"x\,G", "abs": r"|x|\,G", "independent": "G"}
    figure = Figure(figsize=(WIDTH, 4.7), layout="constrained")
    grid = figure.subplots(2, 2)
    for axes, (kind, inner) in zip(grid.flat, maps.items(), strict=True):
        g, _ = GATES[kind](x, G[kind])
        _draw_choices(axes, np.broadcast_to(g, (4, g.shape[1])), [f"({a:g}, {b:g})" for a, b in x])
        axes.set_title(f"{kind}\n$g = \\sigma({inner})$".replace("-", "−"))
        shape = {"scalar": "one column: $(B, 1)$", "independent": "one row: $(O)$"}.get(kind, "$(B, O)$")
        axes.set_xlabel(shape)
    return figure


def _draw_choices(axes: Axes, g: Host, rows: list[str]) -> None:
    """The values of g in cells, as deep as they are large."""
    B = len(g)
    for (b, o), value in np.ndenumerate(g):
        color = tint("C0", 0.08 + 0.5 * value)
        axes.axvspan(o + 0.04, o + 0.96, 1 - (b + 0.94) / B, 1 - (b + 0.06) / B, color=color)
        axes.text(o + 0.5, B - b - 0.5, f"{value:.2f}", ha="center", va="center", fontsize=11.5)
    axes.set(xlim=(0, 2), ylim=(0, B), xticks=[])
    axes.set_yticks(B - np.arange(B) - 0.5, [row.replace("-", "−") for row in rows], fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def unit_scan() -> Figure:
    """A recurrence through time: the same cell at every step, and the gradient that comes back."""
    figure, diagram = _diagram(7.0)
    diagram.value("h_0", 0.6, 2.6)
    for t, x in {"1": 2.9, "2": 5.5, "T": 8.9}.items():
        diagram.value(f"x_{t}", x, 4.9)
        diagram.operation(f"cell_{t}", x, 2.6, "cell", 1.4)
        diagram.value(f"y_{t}", x, 0.5)
        diagram.arrow(f"x_{t}", f"cell_{t}")
        diagram.arrow(f"cell_{t}", f"y_{t}")
    diagram.value("dots", 7.2, 2.6, r"$\cdots$", 0.6)
    back = {"color": "C1", "linestyle": (0, (3, 1.5))}
    for start, end in (("h_0", "cell_1"), ("cell_1", "cell_2"), ("cell_2", "dots"), ("dots", "cell_T")):
        diagram.arrow(start, end)
        diagram.arrow(end, start, bend=-0.55, **back)
    diagram.axes.text(4.2, 2.45, "$h_1$", ha="center", va="bottom")
    diagram.axes.text(4.2, 3.75, "$dh_1$", ha="center", va="center", color="C1")
    note = "the same parameters in every cell;\nbroken: the gradients, which go back"
    diagram.axes.text(5, 6.2, note, ha="center", va="center")
    return figure


# --- weights ----------------------------------------------------------------------------------------------------


def weight_surface() -> Figure:
    """W over W_hat and M_hat: three plains, and the slopes between them."""
    figure, (axes,) = panels(1, 3.7)
    grid = np.linspace(-6, 6, 73)
    W_hat, M_hat = np.meshgrid(grid, grid)
    W, _ = nac_weight(W_hat, M_hat)
    levels = [-1.0, -0.9, -0.5, -0.1, 0.1, 0.5, 0.9, 1.0]
    sides = [("C0", 0.75), ("C0", 0.45), ("C0", 0.2), ("C0", 0.0), ("C1", 0.2), ("C1", 0.45), ("C1", 0.75)]
    colors = [tint(*side) for side in sides]
    axes.contourf(W_hat, M_hat, W, levels=levels, colors=colors)
    axes.contour(W_hat, M_hat, W, levels=levels[1:-1], colors=ink(), linewidths=0.8, linestyles="-")
    for x, y, text in ((-4, 4.4, "W near −1"), (4, 4.4, "W near 1"), (0, -4.2, "W near 0")):
        axes.text(x, y, text, ha="center", va="center")
    axes.set(xlabel=r"$\hat{W}$", ylabel=r"$\hat{M}$", xticks=(-6, -3, 0, 3, 6), yticks=(-6, -3, 0, 3, 6))
    return figure


def weight_gradient() -> Figure:
    """On the way to W = 1 both gradients vanish, and that of W_hat sooner than what is missing."""
    figure, (axes,) = panels()
    q = np.linspace(0.2, 10, 99)
    W, vjp = nac_weight(q, q)
    dW_hat, dM_hat = vjp(np.ones_like(q))
    for name, label, value in (
        ("missing", "$1 - W$", 1 - W),
        ("W_hat", r"$\partial W / \partial\hat{W}$", dW_hat),
        ("M_hat", r"$\partial W / \partial\hat{M}$", np.abs(dM_hat)),
    ):
        axes.plot(q, value, label=label, gid=name)
    powers(axes, y=2)
    axes.set(xlabel=r"$\hat{W} = \hat{M}$, on the way to $W = 1$", ylabel="size", xlim=(0, 10), ylim=(1e-9, 3))
    axes.legend(loc="lower left")
    return figure


@functools.cache
def _normal_weights(std: float) -> Host:
    """W for each pair of a thousand quantiles of a normal distribution."""
    quantiles = np.array([std * NormalDist().inv_cdf((i + 0.5) / 1000) for i in range(1000)])
    W_hat, M_hat = np.meshgrid(quantiles, quantiles)
    return np.asarray(nac_weight(W_hat, M_hat)[0])


def _near_stable(W: Host) -> float:
    """Share of weights within 0.1 of -1, 0 or 1."""
    return float((np.minimum(np.abs(W), 1 - np.abs(W)) <= 0.1).mean())


def weight_histogram() -> Figure:
    """Where W lies if W_hat and M_hat are normal: few weights start near -1 or 1 unless the spread is large."""
    figure, all_axes = panels(3, 1.75, sharex=True)
    for axes, std in zip(all_axes, (1, 5, 20), strict=True):
        W = _normal_weights(std)
        share, edges = np.histogram(W, bins=40, range=(-1, 1))
        near = np.minimum(np.abs(edges[:-1] + 0.025), 1 - np.abs(edges[:-1] + 0.025)) < 0.1
        for mask, color in ((near, "C1"), (~near, "C0")):
            heights = 100 * share[mask] / W.size
            axes.bar(edges[:-1][mask], heights, width=0.044, align="edge", color=color)
        axes.set_title(f"standard deviation {std}: {100 * _near_stable(W):.1f} % near −1, 0, 1")
        axes.set(ylabel="%", xticks=(-1, -0.5, 0, 0.5, 1))
        axes.set_gid(f"std-{std}")
    all_axes[-1].set_xlabel("$W$")
    return figure


def zero_gradient() -> Figure:
    """For the same dW = 1 the gradient of M_hat points up or down by chance, that of W_hat always up."""
    figure, all_axes = panels(2, 2.0, sharex=True)
    W_hat, M_hat = np.random.default_rng(0).uniform(-2, 2, (2, 200_000))
    _, vjp = nac_weight(W_hat, M_hat)
    gradients = vjp(np.ones_like(W_hat))
    for axes, name, gradient, color in zip(all_axes, ("W", "M"), gradients, ("C0", "C1"), strict=True):
        share, edges = np.histogram(gradient, bins=56, range=(-0.4, 1.0))
        axes.stairs(100 * share / gradient.size, edges, fill=True, color=tint(color, 0.6))
        axes.axvline(gradient.mean(), gid=f"mean-{name}", linewidth=2, linestyle="--", color=ink())
        axes.set(ylabel="%", title=rf"$d\hat{{{name}}}$: mean {gradient.mean():.2f}".replace("-0.00", "0.00"))
    all_axes[1].set(xlabel="gradient, where dW = 1", xticks=(-0.4, 0, 0.4, 0.8))
    return figure


def _variance(r: Host) -> Host:
    """Var[W] as derived."""
    return (1 - np.tanh(r) / r) * (r - np.tanh(r / 2)) / (2 * r)


def glorot_variance() -> Figure:
    """The variance of W for W_hat, M_hat ~ U(-r, r), and the radii that it gives to units of four sizes."""
    figure, (axes,) = panels()
    r = np.linspace(0.02, 10, 200)
    axes.plot(r, _variance(r), label="formula", gid="formula")
    axes.axhline(0.5, linewidth=1, linestyle=":", color=ink())
    u = np.random.default_rng(0).uniform(-1, 1, (2, 100_000))
    at = np.array([0.5, 1, 2, 4, 6, 8, 10])
    sample = [float(nac_weight(*(radius * u))[0].var()) for radius in at]
    axes.plot(at, sample, "o", color="C1", label="sample", gid="sample")
    for fans in (102, 30, 12):
        radius = nac_radius(fans)
        axes.plot(radius, 2 / fans, "s", color="C2", gid=f"fans-{fans}", zorder=3)
        axes.text(radius + 0.35, 2 / fans, f"$I + O = {fans}$: $r = {radius:.2f}$", va="center", fontsize=11.5)
    axes.set(xlabel="$r$", ylabel="Var[$W$]", xlim=(0, 10.2), ylim=(0, 0.54), yticks=(0, 0.25, 0.5))
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.92))
    return figure


# --- products ---------------------------------------------------------------------------------------------------


def product_singularity() -> Figure:
    """Near x = 0 a negative exponent makes the product huge, and every exponent below 1 its slope."""
    figure, (value, slope) = panels(2, 2.6, sharex=True)
    x = np.geomspace(1e-10, 1, 61)
    for color, W in (("C0", -1.0), ("C1", 0.5)):
        for line, eps in (("-", 1e-7), ((0, (3, 1.5)), 1e-2)):
            m, vjp = log_product(x[:, None], np.array([[W]]), eps=eps)
            dx, _ = vjp(np.ones_like(m))
            text = f"$W = {W:g}$, $\\epsilon = 10^{{{round(math.log10(eps))}}}$"
            options: dict[str, Any] = {"color": color, "linestyle": line, "gid": f"{W:g}-{eps:g}"}
            value.plot(x, m[:, 0], label=text, **options)
            slope.plot(x, np.abs(dx[:, 0]), **options)
    powers(value, x=2, y=2)
    powers(slope, x=2, y=4)
    value.set(title="value $m$", ylim=(1e-5, 1e8))
    slope.set(title="slope $|dm/dx|$", xlabel="$x$", ylim=(1e-1, 1e15))
    below(figure, value)
    return figure


def _solved(*weights: float) -> dict[str, Host]:
    """Parameters of a NAC or LogNAC whose weights are these, -1, 0 or 1 to all digits of float64."""
    W = np.array(weights, dtype=float)[:, None]
    return {"W_hat": 20.0 * W, "M_hat": np.full_like(W, 40.0)}


def lost_sign() -> Figure:
    """A product of powers of |x| is the same for x and -x."""
    figure, (axes,) = panels()
    x = np.linspace(-2, 2, 81)
    rows = np.stack([x, np.full_like(x, 1.5)], axis=1)
    axes.plot(x, 1.5 * x, label="$1.5\\,x$, the true product", gid="truth")
    axes.plot(x, nn.LogNAC(2, 1)(_solved(1, 1), rows)[0][:, 0], label="$m(x)$", gid="product")
    axes.axhline(0, linewidth=0.8, linestyle="-", color=ink())
    axes.set(xlabel="$x$", ylabel="output", xticks=(-2, -1, 0, 1, 2), yticks=(-3, 0, 3))
    axes.legend(loc="lower right")
    return figure


def log_moments() -> Figure:
    """With 100 inputs a product starts far above 1 wherever the inputs are not near 1."""
    figure, (axes,) = panels()
    I, eps = 100, 1e-7  # noqa: E741
    z, fine = np.geomspace(0.15, 1 / 0.15, 15), np.geomspace(0.15, 1 / 0.15, 81)
    axes.plot(fine, (1 + np.log(fine + eps) ** 2 / (I + 2)) ** I, label="formula", gid="formula")
    axes.plot(z, _mean_products(z, I, eps), "o", color="C1", label="mean of 100,000 units", gid="sample")
    powers(axes, x=1, y=1)
    axes.set_xticks((0.2, 0.5, 1, 2, 5), ("0.2", "0.5", "1", "2", "5"))
    axes.set(xlabel="$|x|$, of all 100 inputs", ylabel="$E[m]$", ylim=(0.7, 100))
    axes.legend(loc="upper center")
    return figure


def _radius_weights(I: int, part: int) -> Host:  # noqa: E741
    """Weights of 20,000 units of I inputs and 2 outputs, with Madsen and Johansen's radius."""
    r = nac_radius(I + 2)
    uniform = np.random.default_rng(part).random((2, I, 20_000), dtype="float32")
    return np.asarray(nac_weight(*(r * (2 * uniform - 1)))[0])


def _mean_products(z: Host, I: int, eps: float) -> Host:  # noqa: E741
    """E[m] over 100,000 units whose inputs are all z."""
    rows = np.repeat(z[:, None], I, axis=1).astype("float32")
    products = (log_product(rows, _radius_weights(I, part), eps=eps)[0] for part in range(5))
    return np.asarray(np.mean([m.mean(axis=1, dtype="float64") for m in products], axis=0))


# --- gates ------------------------------------------------------------------------------------------------------


@functools.cache
def _adder() -> tuple[nn.NALU, dict[str, Host]]:
    """A NALU that has learned a + b from rows between 1 and 2: of 16 seeds the best by validation."""
    x = np.random.default_rng(0).uniform(1, 2, (600, 2))
    y = x.sum(axis=1, keepdims=True)
    layer = nn.NALU(2, 1)
    options: dict[str, Any] = {"optimizer": nn.Adam(lr=1e-2), "steps": 3000, "batch": 128, "replicas": 16}
    result = nn.fit(layer, x[:400], y[:400], validation=(x[400:], y[400:]), **options)
    return layer, dict(nn.replica(result.best_params, result.best))


def gate_swap() -> Figure:
    """A gate without a bias: g(-x) = 1 - g(x), so that an adder of positive rows multiplies negative ones."""
    figure, (gates, outputs) = panels(2, 2.6, sharex=True)
    layer, params = _adder()
    t = np.linspace(-3, 3, 121, dtype="float32")
    values = layer.values(params, np.stack([t, t], axis=1))
    mirrored = layer.values(params, -np.stack([t, t], axis=1))
    gates.plot(t, values["g"][:, 0], label="$g(x)$", gid="gate")
    gates.plot(t, mirrored["g"][:, 0], label="$g(-x)$", gid="mirrored")
    gates.set(yticks=(0, 0.5, 1), title="gate of a trained adder")
    gates.legend(loc="center left")
    gates.set_ylim(-0.05, 1.25)
    outputs.plot(t, 2 * t, label="$a + b$", gid="truth")
    outputs.plot(t, values["y"][:, 0], label="NALU", gid="output")
    for axes in (gates, outputs):
        axes.axvspan(1, 2, color=tint("C2", 0.25), linewidth=0)
    gates.text(1.5, 1.06, "trained here", ha="center", va="bottom", fontsize=11.5)
    outputs.set(xlabel="$a = b$", yticks=(-6, 0, 6), xticks=(-3, -2, -1, 0, 1, 2, 3), title="its output")
    outputs.legend(loc="upper center")
    outputs.set_ylim(-7, 11)
    return figure


def gate_choice() -> Figure:
    """Where a step of gradient descent moves an undecided gate, if the law is a sum and if it is a product."""
    figure, all_axes = panels(2, 2.9, sharex=True)
    x, W = np.meshgrid(np.linspace(0.05, 4, 80), np.linspace(0.02, 1, 60))
    a, m = 2 * x * W, np.exp(2 * W * np.log(x))
    y, mix_vjp = mix(np.full_like(x, 0.5), a, m)
    colors = {"to the product": tint("C1", 0.55), "to the sum": tint("C0", 0.55)}
    for axes, name, target in zip(all_axes, ("$x_1 + x_2$", "$x_1 x_2$"), (2 * x, x * x), strict=True):
        _, mse_vjp = mse(y.reshape(-1, 1), target.reshape(-1, 1))
        dg, _, _ = mix_vjp(mse_vjp(np.ones(y.size)).reshape(y.shape))
        axes.contourf(x, W, -dg, levels=[-1e9, 0, 1e9], colors=list(colors.values()))
        axes.contour(x, W, a - m, levels=[0], colors=ink(), linewidths=1.6, linestyles="solid")
        axes.contour(x, W, y - target, levels=[0], colors=ink(), linewidths=1.6, linestyles="dotted")
        axes.set(title=f"the law is {name}", ylabel="$W$", yticks=(0, 0.5, 1), ylim=(0, 1))
    all_axes[1].set(xlabel="$x_1 = x_2$", xticks=(0, 1, 2, 3, 4))
    keys: list[Any] = [Patch(color=color, label=label) for label, color in colors.items()]
    keys += [Line2D([], [], color=ink(), linewidth=1.6, linestyle=line, label=label) for line, label in BOUNDARIES]
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure


BOUNDARIES = (("-", "$a = m$"), (":", "$y$ as it should be"))

# --- losses and Adam --------------------------------------------------------------------------------------------


def loss_gradients() -> Figure:
    """Near the optimum the gradient of MSE goes to 0, those of MAE and of the root do not."""
    figure, (axes,) = panels()
    scale = np.geomspace(1e-6, 1, 25)
    residuals = scale[:, None, None] * np.random.default_rng(0).standard_normal((1, 200, 1))
    zero = np.zeros_like(residuals)
    found = {}
    for name, loss in LOSSES.items():
        value, vjp = loss(residuals, zero)
        found[name.upper()] = vjp(np.ones_like(value))
        if name == "mse":
            found["RMSE"] = vjp(0.5 / np.sqrt(value))  # by the chain rule
    for name, dy in found.items():
        axes.plot(scale, np.abs(dy).sum(axis=(1, 2)), label=name, gid=name)
    powers(axes, x=2, y=2)
    axes.set(xlabel="typical error $|y - t|$", ylabel="sum of $|dL/dy|$", ylim=(1e-6, 10))
    axes.legend(loc="lower right")
    return figure


def _steps(gradients: Host) -> Host:
    """The lengths of Adam's steps, in units of its rate, for gradients (T, P)."""
    adam = nn.Adam(lr=1.0)
    state, lengths = adam.init(gradients[0][None]), []
    for step, gradient in enumerate(gradients, 1):
        delta, state = adam.update(gradient[None], state, step)
        lengths.append(np.abs(delta[0]))
    return np.array(lengths)


def adam_steps() -> Figure:
    """Adam's first step is lr long for any gradient above eps; later ones depend on how steady it is."""
    figure, (scales, times) = panels(2, 2.7)
    g = np.geomspace(1e-12, 1e2, 57)
    scales.plot(g, _steps(g[None])[0], label="Adam", gid="adam")
    scales.plot(g, g, label="SGD", gid="sgd")
    powers(scales, x=4, y=4)
    scales.set(xlabel="gradient", title="first step / lr", ylim=(1e-8, 1e4))
    scales.legend(loc="lower right")
    t = np.arange(60)
    kinds = {"steady": np.ones(60), "falling to 0": 0.8**t, "changing sign": np.where(t % 2, -1.0, 1.0)}
    lengths = _steps(np.stack(list(kinds.values()), axis=1)).T
    for name, length, shape in zip(kinds, lengths, "os^", strict=True):
        times.plot(t + 1, length, label=name, gid=name, marker=shape, markevery=12)
    times.set(xlabel="step", title="|step| / lr", ylim=(0, 1.1), yticks=(0, 0.5, 1))
    times.legend(loc="upper right", bbox_to_anchor=(1, 0.88))
    return figure


# --- recurrence -------------------------------------------------------------------------------------------------

MISSING = (1e-2, 1e-3, 1e-4, 1e-5)


@functools.cache
def _recurrent() -> tuple[Host, Host]:
    """Sums h_t of ones by a recurrent NAC, (T, S), and the gradients dh_T/dh_t, for each 1 - W_h of MISSING."""
    T, S = 1000, len(MISSING)
    model = nn.scan(nn.Recurrent(nn.NAC(2, 1)))
    W_hat = np.stack([np.full(S, 20.0), np.arctanh(1 - np.array(MISSING))], axis=1)[..., None]
    params = {"W_hat": W_hat, "M_hat": np.full_like(W_hat, 40.0)}
    h, vjp = model(params, np.ones((S, T, 1, 1)))
    dh = np.zeros_like(h)
    dh[:, -1] = 1.0
    dx, _ = vjp(dh)  # W_x = 1: the gradient of x_t is that of h_t
    return h[..., 0, 0].T, dx[..., 0, 0].T


def recurrent_loss() -> Figure:
    """A NAC that forgets a little at every step: the error of its sum grows with the length."""
    figure, (axes,) = panels(1, 3.4)
    h, _ = _recurrent()
    T = np.arange(1, len(h) + 1)
    for i, missing in enumerate(MISSING):
        power = f"$10^{{{round(math.log10(missing))}}}$"
        axes.plot(T[1:], (T[1:] - 1) * missing / 2, color=f"C{i}", linestyle="-", gid=f"formula-{missing:g}")
        shown = [2, 5, 10, 22, 46, 100, 215, 464, 999]
        error = 1 - h[shown, i] / T[shown]
        axes.plot(T[shown], error, "os^D"[i], color=f"C{i}", label=power, gid=f"sum-{missing:g}")
    powers(axes, x=1, y=1)
    axes.set(xlabel="steps $T$", ylabel="relative error", ylim=(1e-5, 100))
    axes.legend(title="$1 - W_h$", ncols=2, loc="upper left", columnspacing=0.8, handletextpad=0.2)
    return figure


def recurrent_gradient() -> Figure:
    """How much of the gradient of the last state arrives at earlier ones."""
    figure, (axes,) = panels(1, 3.4)
    _, dx = _recurrent()
    ago = np.arange(len(dx))[::-1]
    for i, missing in enumerate(MISSING):
        power = f"$10^{{{round(math.log10(missing))}}}$"
        marks = {"marker": "os^D"[i], "markevery": (100 + 25 * i, 225)}
        axes.plot(ago, dx[:, i], label=power, gid=f"gradient-{missing:g}", **marks)
    axes.set(xlabel="$T - t$, steps back", ylabel="$dh_T / dh_t$", ylim=(0, 1.3))
    axes.set(xticks=(0, 250, 500, 750, 1000), yticks=(0, 0.5, 1))
    tight: dict[str, Any] = {"columnspacing": 0.8, "handletextpad": 0.3, "handlelength": 1.6}
    axes.legend(title="$1 - W_h$", ncols=4, loc="upper center", **tight)
    return figure
