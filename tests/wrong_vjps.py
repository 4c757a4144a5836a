"""Layers with one mistake each, as they are made, and which clause of the contract finds it.

`python tests/wrong_vjps.py` plants every mistake, runs the checker, and prints what caught it as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

import nalu_np as nn
from nalu_np.backend import INIT, Streams
from nalu_np.errors import GradientError
from nalu_np.layer import Chain, Layer, Scan
from nalu_np.layers import Accumulator
from nalu_np.vjps import parity, sigmoid, unbroadcast

# --- a NALU written out, one line an equation, so that one line can be wrong -----------------------------------

Line = Callable[[SimpleNamespace], Any]

#: The right lines; `v` holds what the lines above have computed, and the arguments.
LINES: dict[str, Line] = {
    "t": lambda v: np.tanh(v.W_hat),
    "s": lambda v: sigmoid(v.M_hat),
    "W": lambda v: v.t * v.s,
    "r": lambda v: np.abs(v.x) + v.eps,
    "l": lambda v: np.log(v.r),
    "a": lambda v: v.x @ v.W,
    "m": lambda v: np.exp(v.l @ v.W),
    "z": lambda v: v.x @ v.G,
    "g": lambda v: sigmoid(v.z),
    "y": lambda v: v.g * v.a + (1 - v.g) * v.m,
    "dg": lambda v: v.dy * (v.a - v.m),
    "da": lambda v: v.dy * v.g,
    "dm": lambda v: v.dy * (1 - v.g),
    "dz": lambda v: v.dg * v.g * (1 - v.g),
    "dp": lambda v: v.dm * v.m,
    "dW": lambda v: v.x.mT @ v.da + v.l.mT @ v.dp,
    "dG": lambda v: v.x.mT @ v.dz,
    "dW_hat": lambda v: v.dW * (1 - v.t**2) * v.s,
    "dM_hat": lambda v: v.dW * v.t * v.s * (1 - v.s),
    "dx_a": lambda v: v.da @ v.W.mT,
    "dx_m": lambda v: (v.dp @ v.W.mT) * np.sign(v.x) / v.r,
    "dx_g": lambda v: v.dz @ v.G.mT,
    "dx": lambda v: v.dx_a + v.dx_m + v.dx_g,
}
FORWARD = list(LINES)[: list(LINES).index("y") + 1]
BACKWARD = list(LINES)[len(FORWARD) :]

ABS_GATE: dict[str, Line] = {
    "z": lambda v: np.abs(v.x) @ v.G,
    "dG": lambda v: np.abs(v.x).mT @ v.dz,
    "dx_g": lambda v: (v.dz @ v.G.mT) * np.sign(v.x),
}

#: Right: NALU with a matrix gate, and with a gate of |x|.
RIGHT_LINES: dict[str, dict[str, Line]] = {"": {}, "a gate of |x|": ABS_GATE}

#: Mistake, to the lines it changes and the argument whose gradient is found wrong.
WRONG_LINES: dict[str, tuple[dict[str, Line], str]] = {
    "the product path without 1 - g": ({"dm": lambda v: v.dy}, "dW_hat"),
    "the sum path without g": ({"da": lambda v: v.dy}, "dW_hat"),
    "g and 1 - g swapped": ({"da": lambda v: v.dy * (1 - v.g), "dm": lambda v: v.dy * v.g}, "dW_hat"),
    "dg with the paths swapped": ({"dg": lambda v: v.dy * (v.m - v.a)}, "dG"),
    "dg of the sum path alone": ({"dg": lambda v: v.dy * v.a}, "dG"),
    "the gate's gradient without g (1 - g)": ({"dz": lambda v: v.dg}, "dG"),
    "the gate's gradient with g alone": ({"dz": lambda v: v.dg * v.g}, "dG"),
    "dp without m": ({"dp": lambda v: v.dm}, "dW_hat"),
    "dW with x where log(|x| + eps) belongs": ({"dW": lambda v: v.x.mT @ (v.da + v.dp)}, "dW_hat"),
    "dW not transposed, in a square layer": (
        {"dW": lambda v: (v.x.mT @ v.da + v.l.mT @ v.dp).mT},
        "dW_hat",
    ),
    "tied dW of the sum path alone": ({"dW": lambda v: v.x.mT @ v.da}, "dW_hat"),
    "tied dW of the product path alone": ({"dW": lambda v: v.l.mT @ v.dp}, "dW_hat"),
    "dW twice": ({"dW": lambda v: 2 * (v.x.mT @ v.da + v.l.mT @ v.dp)}, "dW_hat"),
    "dW_hat with 1 - t": ({"dW_hat": lambda v: v.dW * (1 - v.t) * v.s}, "dW_hat"),
    "dW_hat without s": ({"dW_hat": lambda v: v.dW * (1 - v.t**2)}, "dW_hat"),
    "dM_hat without t": ({"dM_hat": lambda v: v.dW * v.s * (1 - v.s)}, "dM_hat"),
    "dM_hat with s (1 - s) of W": ({"dM_hat": lambda v: v.dW * v.W * (1 - v.W)}, "dM_hat"),
    "dM_hat off by a part in 100,000": ({"dM_hat": lambda v: v.dW * v.W * (1 - v.s) * 1.00001}, "dM_hat"),
    "dG averaged over the batch": ({"dG": lambda v: v.x.mT @ v.dz / v.x.shape[-2]}, "dG"),
    "dG of a gate of |x| with x": ({**ABS_GATE, "dG": lambda v: v.x.mT @ v.dz}, "dG"),
    "dx of a gate of |x| without sign(x)": ({**ABS_GATE, "dx_g": LINES["dx_g"]}, "dx"),
    "dx without sign(x)": ({"dx_m": lambda v: (v.dp @ v.W.mT) / v.r}, "dx"),
    "dx without eps": ({"dx_m": lambda v: (v.dp @ v.W.mT) / v.x}, "dx"),
    "dx without the gate": ({"dx": lambda v: v.dx_a + v.dx_m}, "dx"),
    "dx with W not transposed, in a square layer": ({"dx_a": lambda v: v.da @ v.W}, "dx"),
    "dx right for positive x alone": ({"dx_m": lambda v: (v.dp @ v.W.mT) * (v.x > 0) / v.r}, "dx"),
    "forward log(|x|) + eps": ({"l": lambda v: np.log(np.abs(v.x)) + v.eps}, "dx"),
    "forward log(|x + eps|)": (
        {
            "l": lambda v: np.log(np.abs(v.x + v.eps)),
            "dx_m": lambda v: (v.dp @ v.W.mT) * np.sign(v.x) / (np.abs(v.x) + v.eps),
        },
        "dx",
    ),
    "the gate's gradient cut off where it saturates": (
        {"dz": lambda v: v.dg * v.g * (1 - v.g) * (np.abs(v.z) < 8)},
        "dG",
    ),
    "dx that is 0 / 0": ({"dx_a": lambda v: v.da @ v.W.mT * ((v.x - v.x) / (v.x - v.x))}, "dx"),
}


@dataclass(frozen=True, repr=False)
class Written(Layer):
    """NALU in lines; `change` names the ones that are not the usual ones, right or wrong."""

    _: KW_ONLY
    change: str = ""
    eps: float = 0.1

    def shapes(self):
        return dict.fromkeys(("W_hat", "M_hat", "G"), (self.in_features, self.out_features))

    def draw(self, name, rng):
        return rng.uniform(-2, 2, self.shapes()[name])

    def forward(self, params, x, *, rng=None, train=False, keep=None):
        changed = RIGHT_LINES[self.change] if self.change in RIGHT_LINES else WRONG_LINES[self.change][0]
        lines = {**LINES, **changed}
        v = SimpleNamespace(**params, x=x, eps=self.eps)
        for name in FORWARD:
            setattr(v, name, lines[name](v))

        def vjp(dy, need_dx=True):
            u = SimpleNamespace(**vars(v), dy=dy)
            for name in BACKWARD:
                setattr(u, name, lines[name](u))
            dparams = {name: unbroadcast(getattr(u, f"d{name}"), q) for name, q in params.items()}
            return (unbroadcast(u.dx, x) if need_dx else None), dparams

        if keep is not None:
            keep.update(W=v.W, a=v.a, m=v.m, g=v.g)
        return v.y, vjp


# --- the paths of the race, in lines ---------------------------------------------------------------------------

SUM_LINES: dict[str, Line] = {
    "m": lambda v: v.x @ v.W,
    "y": lambda v: v.m * v.c[..., None, :],
    "dc": lambda v: np.sum(v.dy * v.m, axis=-2),
    "dm": lambda v: v.dy * v.c[..., None, :],
    "dW": lambda v: v.x.mT @ v.dm,
    "dx": lambda v: v.dm @ v.W.mT,
}
PRODUCT_LINES: dict[str, Line] = {
    "l": lambda v: np.log(np.abs(v.x)),
    "s": lambda v: parity(v.x, v.W),
    "m": lambda v: v.s * np.exp(v.l @ v.W),
    "y": SUM_LINES["y"],
    "dc": SUM_LINES["dc"],
    "dm": SUM_LINES["dm"],
    "dp": lambda v: v.dm * v.m,
    "dW": lambda v: v.l.mT @ v.dp,
    "dx": lambda v: (v.dp @ v.W.mT) / v.x,
}

#: Mistake, to the path, the lines it changes, and the argument whose gradient is found wrong.
WRONG_PATHS: dict[str, tuple[dict[str, Line], dict[str, Line], str]] = {
    "dW of a sum without c": (SUM_LINES, {"dW": lambda v: v.x.mT @ v.dy}, "dW"),
    "dx of a sum without c": (SUM_LINES, {"dx": lambda v: v.dy @ v.W.mT}, "dx"),
    "dc of c times the sum": (SUM_LINES, {"dc": lambda v: np.sum(v.dy * v.y, axis=-2)}, "dc"),
    "dc averaged over the batch": (SUM_LINES, {"dc": lambda v: np.mean(v.dy * v.m, axis=-2)}, "dc"),
    "dc of the first row": (SUM_LINES, {"dc": lambda v: (v.dy * v.m)[..., 0, :]}, "dc"),
    "dc without m": (SUM_LINES, {"dc": lambda v: np.sum(v.dy, axis=-2)}, "dc"),
    "dc of |m|": (PRODUCT_LINES, {"dc": lambda v: np.sum(v.dy * np.abs(v.m), axis=-2)}, "dc"),
    "dW of a signed product without c": (PRODUCT_LINES, {"dm": lambda v: v.dy}, "dW"),
    "dW of a signed product without its sign": (PRODUCT_LINES, {"dp": lambda v: v.dm * np.abs(v.m)}, "dW"),
    "dW of a signed product with log(x) of positive x alone": (
        PRODUCT_LINES,
        {"dW": lambda v: (v.l * (v.x > 0)).mT @ v.dp},
        "dW",
    ),
    "dx of a signed product without 1 / x": (PRODUCT_LINES, {"dx": lambda v: v.dp @ v.W.mT}, "dx"),
    "dx of a signed product with 1 / |x|": (PRODUCT_LINES, {"dx": lambda v: (v.dp @ v.W.mT) / np.abs(v.x)}, "dx"),
    "dx of a signed product without W": (
        PRODUCT_LINES,
        {"dx": lambda v: (v.dp @ np.ones_like(v.W).mT) / v.x},
        "dx",
    ),
    "dx of a signed product, W rounded": (
        PRODUCT_LINES,
        {"dx": lambda v: (v.dp @ (np.floor(2 * v.W + 0.5) / 2).mT) / v.x},
        "dx",
    ),
    "the parity of all factors in the gradient": (
        PRODUCT_LINES,
        {"dp": lambda v: v.dm * v.m * v.s * np.prod(np.sign(v.x), axis=-1, keepdims=True)},
        "dW",
    ),
    "the parity of W cut off where that of W rounded belongs": (
        PRODUCT_LINES,
        {"dp": lambda v: v.dm * v.m * v.s * parity(v.x, np.trunc(v.W))},
        "dW",
    ),
    "a sign as smooth as a cosine whose slope is forgotten": (
        PRODUCT_LINES,
        {"s": lambda v: np.cos(np.pi * ((v.x < 0) * 1.0 @ v.W))},
        "dW",
    ),
}


@dataclass(frozen=True, repr=False)
class WrittenPath(Layer):
    """A path in lines: `lines` are the right ones, `change` names those that are not."""

    _: KW_ONLY
    product: bool = False
    change: str = ""

    def shapes(self):
        return {"W": (self.in_features, self.out_features), "c": (self.out_features,)}

    def draw(self, name, rng):
        return rng.uniform(-2, 2, self.shapes()[name])

    def forward(self, params, x, *, rng=None, train=False, keep=None):
        lines = PRODUCT_LINES if self.product else SUM_LINES
        lines = {**lines, **(WRONG_PATHS[self.change][1] if self.change else {})}
        names = list(lines)
        middle = names.index("y") + 1
        v = SimpleNamespace(**params, x=x)
        for name in names[:middle]:
            setattr(v, name, lines[name](v))

        def vjp(dy, need_dx=True):
            u = SimpleNamespace(**vars(v), dy=dy)
            for name in names[middle:]:
                setattr(u, name, lines[name](u))
            dparams = {name: unbroadcast(getattr(u, f"d{name}"), q) for name, q in params.items()}
            return (unbroadcast(u.dx, x) if need_dx else None), dparams

        if keep is not None:
            keep.update(m=v.m)
        return v.y, vjp


def dc_not_summed(params, x, y, vjp):
    c = params["c"]

    def wrong(dy, need_dx=True):
        dx, dparams = vjp(dy, need_dx)
        return dx, {**dparams, "c": dy * (y / c[..., None, :])}

    return y, wrong


# --- mistakes around a right layer -----------------------------------------------------------------------------

Change = Callable[..., Any]


def altered(change: Change, base: type[Layer] = nn.Dense, **methods: Any) -> type[Layer]:
    """A layer whose forward pass ends in `change(params, x, y, vjp) -> y, vjp`."""

    def forward(self, params, x, **options):
        return change(params, x, *base.forward(self, params, x, **options))

    return type(f"Altered{base.__name__}", (base,), {"forward": forward, **methods})


def pulled(change: Change) -> Layer:
    """A dense layer whose vjp ends in `change(dx, dparams) -> dx, dparams`; dx may be None."""
    return altered(lambda params, x, y, vjp: (y, lambda dy, need_dx=True: change(*vjp(dy, need_dx))))(3, 2)


def pushed(change: Change) -> Layer:
    """A dense layer with `change(dy) -> dy` before its vjp."""
    return altered(lambda params, x, y, vjp: (y, lambda dy, need_dx=True: vjp(change(dy), need_dx)))(3, 2)


def with_methods(**methods: Any) -> Layer:
    """A dense layer with other methods."""
    return type("AlteredDense", (nn.Dense,), methods)(3, 2)


def average(d):
    """Over the replicas, where there are any."""
    return np.broadcast_to(d.mean(axis=0), d.shape) if d.ndim == 3 else d


def leaks_forward(params, x, y, vjp):
    return (y - average(y)) + y, lambda dy, need_dx=True: vjp((dy - average(dy)) + dy, need_dx)


def accumulates(params, x, y, vjp):
    total = {name: np.zeros_like(q) for name, q in params.items()}

    def wrong(dy, need_dx=True):
        dx, dparams = vjp(dy, need_dx)
        for name in dparams:
            total[name] = total[name] + dparams[name]
        return dx, dict(total)

    return y, wrong


LATEST: dict[str, Any] = {}


def binds_late(params, x, y, vjp):
    LATEST["vjp"] = vjp
    return y, lambda dy, need_dx=True: LATEST["vjp"](dy, need_dx)


BUFFERS: dict[Any, Any] = {}


def into_buffer(array):
    """One workspace a shape and dtype, for all calls."""
    buffer = BUFFERS.setdefault((array.shape, array.dtype.name), np.empty_like(array))
    buffer[...] = array
    return buffer


def rounds_its_bias(params, x, y, vjp):
    np.round(params["b"], 3, out=params["b"])
    return y, vjp


def writes_x(params, x, y, vjp):
    def wrong(dy, need_dx=True):
        gradients = vjp(dy, need_dx)
        np.abs(x, out=x)
        return gradients

    return y, wrong


def writes_dy(params, x, y, vjp):
    """Tanh by hand: the derivative is right, but dy is used as a workspace."""
    y = np.tanh(y)

    def wrong(dy, need_dx=True):
        dy *= 1 - y * y
        return vjp(dy, need_dx)

    return y, wrong


def writes_and_restores(params, x, y, vjp):
    def wrong(dy, need_dx=True):
        dy *= 2
        dx, dparams = vjp(dy, need_dx)
        dy /= 2
        return (None if dx is None else dx / 2), {name: d / 2 for name, d in dparams.items()}

    return y, wrong


def dx_of_one_replica(params, x, y, vjp):
    def wrong(dy, need_dx=True):
        dx, dparams = vjp(dy, need_dx)
        shared = need_dx and dy.ndim > x.ndim
        return (dy[0] @ params["W"][0].mT if shared else dx), dparams

    return y, wrong


def dx_not_summed(params, x, y, vjp):
    def wrong(dy, need_dx=True):
        return (dy @ params["W"].mT if need_dx else None), vjp(dy)[1]

    return y, wrong


def shared_weights_averaged(params, x, y, vjp):
    def wrong(dy, need_dx=True):
        dx, dparams = vjp(dy, need_dx)
        share = dy.shape[0] if x.ndim > params["W"].ndim else 1
        return dx, {name: d / share for name, d in dparams.items()}

    return y, wrong


def spares_too_much(params, x, y, vjp):
    def wrong(dy, need_dx=True):
        dx, dparams = vjp(dy, need_dx)
        return dx, (dparams if need_dx else {**dparams, "b": 0 * dparams["b"]})

    return y, wrong


def gives_dx_anyway(params, x, y, vjp):
    return y, lambda dy, need_dx=True: vjp(dy)


def centred(params, x, y, vjp):
    """Batch normalisation without the scale; its derivative is right."""

    def centre(q):
        return q - q.sum(axis=-2, keepdims=True) / max(q.shape[-2], 1)

    return centre(y), lambda dy, need_dx=True: vjp(centre(dy), need_dx)


def numbers_rows(params, x, y, vjp):
    return y + np.arange(y.shape[-2], dtype=y.dtype)[:, None], vjp


def guards_x(params, x, y, vjp):
    if np.max(np.abs(x)) > 1e6:
        raise OverflowError("x is too large")
    return y, vjp


def divides_by_rows(params, x, y, vjp):
    rows = y.shape[-2]
    return y, lambda dy, need_dx=True: vjp(dy * (rows / rows), need_dx)


def half_precision(params, x, y, vjp):
    return (y.astype("float16").astype(y.dtype) if y.dtype == np.float32 else y), vjp


def believes_contiguous(params, x, y, vjp):
    """A kernel takes a pointer and walks on without looking at the strides."""
    packed = np.lib.stride_tricks.as_strided(x, x.shape, np.empty(x.shape, x.dtype).strides)
    return packed @ params["W"] + params["b"][..., None, :], vjp


def noisy(params, x, y, vjp):
    return y + 1e-3 * np.random.default_rng().normal(size=y.shape), vjp


def rounded(params, x, y, vjp):
    """A straight-through estimator: y is rounded, and the vjp is that of no rounding."""
    return np.round(y), vjp


def squeezed(params, x, y, vjp):
    return y[..., 0], lambda dy, need_dx=True: vjp(dy[..., None], need_dx)


def one_generator(self, seed=0, replicas=None, dtype="float32"):
    rng = np.random.default_rng(seed)
    lead = () if replicas is None else (len(Streams(seed, replicas, INIT).generators),)
    return {name: rng.normal(size=(*lead, *shape)).astype(dtype) for name, shape in self.shapes().items()}


def keeps_another_y(self, params, x, *, rng=None, train=False, keep=None):
    y, vjp = nn.Dense.forward(self, params, x, keep=keep)
    return (y if keep is None else y.round(3)), vjp


class Scaled(nn.Dense):
    """An option that is no field: nothing stores it."""

    def __init__(self, in_features, out_features, *, factor=1.0, **options):
        super().__init__(in_features, out_features, **options)
        object.__setattr__(self, "factor", factor)


@dataclass(frozen=True, repr=False)
class Banded(nn.Dense):
    """An option that JSON does not know."""

    _: KW_ONLY
    band: frozenset[int] = frozenset({1, 2})


@dataclass(frozen=True, repr=False)
class Confused(nn.Dense):
    """A parameter with the name of the data."""

    def shapes(self):
        return {"W": (self.in_features, self.out_features), "x": (self.out_features,)}

    def forward(self, params, x, **options):
        y, vjp = super().forward({"W": params["W"], "b": params["x"]}, x, **options)

        def renamed(dy, need_dx=True):
            dx, dparams = vjp(dy, need_dx)
            return dx, {"W": dparams["W"], "x": dparams["b"]}

        return y, renamed


# --- projections and penalties ---------------------------------------------------------------------------------


def squares(W):
    return (W * W).sum(axis=(-1, -2))


def decay(value: Change = squares, slope: Change = lambda W: 2 * W, weight: Change = lambda step: 0.1) -> Layer:
    """A dense layer with weight decay, right or wrong."""

    def penalty(self, params, x, step):
        W, b = params["W"], params["b"]
        return weight(step) * value(W), {"W": weight(step) * slope(W), "b": np.zeros_like(b)}

    return with_methods(penalty=penalty)


def clamped(clamp: Change) -> Layer:
    """A dense layer whose W is brought back after each step."""
    return with_methods(project=lambda self, params: {**params, "W": clamp(params["W"])})


def schedule_forgotten(self, params, x, step):
    W, b, weight = params["W"], params["b"], min(step / 1000, 1)
    return weight * squares(W), {"W": 2 * W, "b": 0 * b}


# --- time and depth --------------------------------------------------------------------------------------------


class Forgetful(Accumulator):
    """No gradient through time."""

    def step(self, params, x, state, **options):
        value, vjp = super().step(params, x, state, **options)

        def wrong(dy, dstate, need_dx=True):
            dx, dparams, dstate = vjp(dy, dstate, need_dx)
            return dx, dparams, 0 * dstate

        return value, wrong


class LastStep(Scan):
    """The gradient of the last step alone."""

    def forward(self, params, x, **options):
        y, vjp = super().forward(params, x, **options)
        _, last = super().forward(params, x[..., -1:, :, :], **options)
        return y, lambda dy, need_dx=True: (vjp(dy, need_dx)[0], last(dy[..., -1:, :, :], need_dx)[1])


class Reversed(Scan):
    """dx in the order in which it was computed."""

    def forward(self, params, x, **options):
        y, vjp = super().forward(params, x, **options)

        def wrong(dy, need_dx=True):
            dx, dparams = vjp(dy, need_dx)
            return (dx[..., ::-1, :, :] if need_dx else None), dparams

        return y, wrong


class Skips(Chain):
    """The way back leaves out the layer in the middle."""

    def forward(self, params, x, **options):
        (first, middle, last), vjps = self.layers, []
        y = x
        for i, layer in enumerate((first, middle, last)):
            y, vjp = layer.forward(self.part(params, i), y)
            vjps.append(vjp)

        def wrong(dy, need_dx=True):
            dy, d2 = vjps[2](dy)
            _, d1 = vjps[1](dy)
            dx, d0 = vjps[0](dy, need_dx)
            return dx, {f"{i}.{name}": d for i, part in enumerate((d0, d1, d2)) for name, d in part.items()}

        return y, wrong


def dense_cell(cell=Accumulator):
    return cell(nn.Dense(3, 2, activation="tanh"))


# --- all of them -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """One mistake."""

    bug: str
    layer: Layer
    words: str
    """How the message goes on after the name of the layer."""
    by: str = "check_layer"
    """Who finds it: gradcheck, at some random points, or the contract beyond."""


def _gradient(bug: str, layer: Layer, name: str) -> Wrong:
    return Wrong(bug, layer, f"{name} is not the derivative", "gradcheck")


WRITES = "a layer must not write to its inputs; it writes to"
ALONE = "stacked replicas must give the bits of replicas one by one"
SHARE = "what replicas share must get the sum of their gradients"
TWICE = "vjp called twice must give the same bits"
LATER = "what a call or a vjp has given must not change later"
CONFIG = "config() must rebuild an equal layer"
NAC3 = nn.NAC(3, 3)

WRONG = [
    *(_gradient(bug, Written(3, 3, change=bug), name) for bug, (_, name) in WRONG_LINES.items()),
    *(
        _gradient(bug, WrittenPath(3, 3, product=lines is PRODUCT_LINES, change=bug), name)
        for bug, (lines, _, name) in WRONG_PATHS.items()
    ),
    Wrong(
        "dc that is not summed over the rows",
        altered(dc_not_summed, nn.SumPath)(3, 2, scale=True),
        "dc has shape (3, 2)",
        "gradcheck",
    ),
    _gradient("a straight-through estimator that is not declared", altered(rounded)(3, 2), "dW"),
    _gradient("a gradient that is not passed on through time", nn.scan(dense_cell(Forgetful)), "dW"),
    _gradient("a scan with the gradient of the last step alone", LastStep(dense_cell()), "dW"),
    _gradient("a scan with dx in reversed time", Reversed(dense_cell()), "dx"),
    _gradient("a chain that leaves out a layer on the way back", Skips([NAC3, NAC3, NAC3]), "d0.W_hat"),
    Wrong(
        "noise that no generator was asked for",
        altered(noisy)(3, 2),
        "the measured slope does not settle",
        "gradcheck",
    ),
    Wrong(
        "a key is missing", pulled(lambda dx, d: (dx, {"W": d["W"]})), "dparams must have the names", "gradcheck"
    ),
    Wrong(
        "a key too many",
        pulled(lambda dx, d: (dx, {**d, "c": d["b"]})),
        "dparams must have the names",
        "gradcheck",
    ),
    Wrong(
        "db with the row axis",
        pulled(lambda dx, d: (dx, {**d, "b": d["b"][None]})),
        "db has shape (1, 2)",
        "gradcheck",
    ),
    Wrong("no dx", pulled(lambda dx, d: (None, d)), "vjp(dy) must give dx", "gradcheck"),
    Wrong(
        "keys in another order",
        pulled(lambda dx, d: (dx, dict(reversed(d.items())))),
        "dparams must have the names ['W', 'b'], in order",
    ),
    Wrong("y without its last axis", altered(squeezed)(3, 1), "y must be float64"),
    Wrong("y in float64", altered(lambda p, x, y, vjp: (y * np.float64(1), vjp))(3, 2), "y must be float32"),
    Wrong(
        "dW in float64",
        pulled(lambda dx, d: (dx, {**d, "W": d["W"] * np.float64(1)})),
        "dW must be float32 (3, 3, 2), got float64",
    ),
    Wrong("y through float16", altered(half_precision)(3, 2), "float32 must be near float64"),
    Wrong("another y in values()", with_methods(forward=keeps_another_y), "values() must hold the y of a call"),
    Wrong("gradients that accumulate", altered(accumulates)(3, 2), TWICE),
    Wrong("a vjp that reads what the latest call has left", altered(binds_late)(3, 2), TWICE),
    Wrong("one workspace for dW", pulled(lambda dx, d: (dx, {**d, "W": into_buffer(d["W"])})), LATER),
    Wrong("one workspace for y", altered(lambda p, x, y, vjp: (into_buffer(y), vjp))(3, 2), LATER),
    Wrong("a bias rounded in place", altered(rounds_its_bias)(3, 2), f"{WRITES} b"),
    Wrong("a vjp that writes to x", altered(writes_x)(3, 2), f"{WRITES} x"),
    Wrong("a vjp that writes to dy", altered(writes_dy)(3, 2), f"{WRITES} dy"),
    Wrong("a vjp that writes to dy and back", altered(writes_and_restores)(3, 2), "read_only: ValueError"),
    Wrong("a gradient clipped at 5", pushed(lambda dy: np.clip(dy, -5, 5)), "vjp must be linear in dy"),
    Wrong("a gradient that is never quite 0", pushed(lambda dy: dy + 1e-12), "vjp(0) must be 0"),
    Wrong("need_dx=False leaves out db", altered(spares_too_much)(3, 2), "need_dx=False must not change dparams"),
    Wrong(
        "need_dx=False is ignored", altered(gives_dx_anyway)(3, 2), "vjp(dy, need_dx=False) must give None for dx"
    ),
    Wrong("strides are ignored", altered(believes_contiguous)(3, 2), "strided inputs must give the same numbers"),
    Wrong(
        "gradients averaged over replicas",
        pulled(lambda dx, d: (dx, {k: average(v) for k, v in d.items()})),
        ALONE,
    ),
    Wrong("y centred over replicas", altered(leaks_forward)(3, 2), ALONE),
    Wrong("a shared x gets the dx of one replica", altered(dx_of_one_replica)(3, 2), SHARE),
    Wrong("a shared x gets the dx of each replica", altered(dx_not_summed)(3, 2), SHARE),
    Wrong("shared parameters get an average", altered(shared_weights_averaged)(3, 2), SHARE),
    Wrong("y that depends on the row's number", altered(numbers_rows)(3, 2), "permuting rows must permute"),
    Wrong("y centred over the batch", altered(centred)(3, 2), "a row alone must give the same y and dx"),
    Wrong("a maximum over no rows", altered(guards_x)(3, 2), "no_rows: ValueError"),
    Wrong("a division by no rows", altered(divides_by_rows)(3, 2), "no_rows: ZeroDivisionError"),
    Wrong(
        "one generator for all replicas",
        with_methods(init=one_generator),
        "init(): W of replica 3 must not depend on the other replicas",
    ),
    Wrong("an option that no file stores", Scaled(3, 2, factor=2.0), CONFIG),
    Wrong(
        "an option left out of config()", with_methods(config=lambda self: {"type": "AlteredDense"}), "options: "
    ),
    Wrong("an option that JSON does not know", Banded(3, 2), "options: TypeError"),
    Wrong("a parameter called x", Confused(3, 2), "no parameter may have the name x", "gradcheck"),
    Wrong("a projection that is not idempotent", clamped(lambda W: 0.9 * W), "project must be idempotent"),
    Wrong(
        "a projection in place",
        clamped(lambda W: np.clip(W, -1, 1, out=W)),
        "project must not write to its inputs",
    ),
    Wrong(
        "a projection in float64",
        clamped(lambda W: np.clip(W, -1.0, np.ones(1))),
        "project must keep names, shapes and dtypes",
    ),
    Wrong(
        "a projection that looks at all replicas",
        clamped(lambda W: W / np.abs(W).max()),
        "project must give the bits",
    ),
    Wrong(
        "a penalty's gradient without its 2", decay(slope=lambda W: W), "dW of the penalty is not the derivative"
    ),
    Wrong(
        "a schedule that the gradient forgets",
        with_methods(penalty=schedule_forgotten),
        "dW of the penalty is not",
    ),
    Wrong(
        "one penalty for all replicas",
        decay(lambda W: squares(W).sum()),
        "a penalty must have one value a replica",
    ),
    Wrong(
        "a penalty averaged over replicas",
        decay(lambda W: squares(W) / len(W), lambda W: 2 * W / len(W)),
        "a penalty must give the bits",
    ),
    Wrong(
        "a penalty in float64",
        decay(weight=lambda step: np.float64(0.1)),
        "a penalty must have one value a replica and the shapes of params, in float32",
    ),
]

RIGHT = [
    *(Written(3, 3, change=change) for change in RIGHT_LINES),
    WrittenPath(3, 3),
    WrittenPath(3, 3, product=True),
    altered(rounded, surrogate=lambda self, params, x: nn.Dense.forward(self, params, x)[0])(3, 2),
    decay(),
    clamped(lambda W: np.clip(W, -1, 1)),
    nn.chain(Written(3, 3), nn.NAC(3, 2)),
    nn.scan(nn.layers.Accumulator(Written(3, 3))),
]


def caught(layer: Layer, seeds: int = 10) -> tuple[str, str]:
    """Who catches a wrong layer, and the message; two empty strings where nobody does."""
    try:
        for seed in range(seeds):
            nn.gradcheck(layer, seed=seed)
    except GradientError as error:
        return "gradcheck", str(error)
    try:
        nn.check_layer(layer, examples=seeds)
    except GradientError as error:
        return "check_layer", str(error)
    return "", ""


def table() -> str:
    """Markdown: each mistake, and what caught it."""
    rows = ["| bug | caught by |", "|---|---|"]
    for wrong in WRONG:
        who, message = caught(wrong.layer)
        clause = message.removeprefix(f"{wrong.layer!r}: ")
        bug = wrong.bug.replace("|", "\\|")
        rows.append(f"| {bug} | {f'{who}: {clause}' if who else '**nothing**'} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
