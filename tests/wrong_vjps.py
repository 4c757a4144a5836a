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
from nalu_np.layer import Cell, Chain, Layer, Scan
from nalu_np.layers import Accumulator, Last, Recurrent
from nalu_np.vjps import ACTIVATIONS, crelu, parity, prelu, sigmoid, unbroadcast

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


# --- activations by their slopes -------------------------------------------------------------------------------


def chosen(dy, z, alpha):
    """PReLU's gradients by its definition, (dz, dalpha)."""
    return np.where(z > 0, dy, alpha[..., None, :] * dy), np.where(z > 0, 0, dy * z)


def over_all(dslope):
    """Summed over rows, then outputs: (..., B, O) to (..., 1)."""
    return dslope.sum(axis=-2).sum(axis=-1, keepdims=True)


Slope = Callable[..., Any]

#: Mistake, to the activation, what its vjp says, (dy, z, alpha) -> dz, dalpha, and the argument found wrong.
WRONG_SLOPES: dict[str, tuple[str, Slope, str]] = {
    "relu6 without its upper kink": ("relu6", lambda dy, z, _: (dy * (z > 0), None), "dW"),
    "hardtanh with the slope of tanh": ("hardtanh", lambda dy, z, _: (dy * (1 - np.tanh(z) ** 2), None), "dW"),
    "hardtanh with the kinks of relu6": ("hardtanh", lambda dy, z, _: (dy * (z > 0) * (z < 6), None), "dW"),
    "softsign without its square": ("softsign", lambda dy, z, _: (dy / (1 + np.abs(z)), None), "dW"),
    "a threshold that passes every gradient": ("threshold", lambda dy, z, _: (dy, None), "dW"),
    "a threshold with its slope from 0": ("threshold", lambda dy, z, _: (dy * (z > 0), None), "dW"),
    "elu with slope y below 0": (
        "elu",
        lambda dy, z, _: (dy * np.where(z > 0, 1, np.expm1(np.minimum(z, 0))), None),
        "dW",
    ),
    "selu with the slope of elu": ("selu", lambda dy, z, _: (dy * np.exp(np.minimum(z, 0)), None), "dW"),
    "selu without alpha below 0": (
        "selu",
        lambda dy, z, _: (1.0507009873554805 * dy * np.exp(np.minimum(z, 0)), None),
        "dW",
    ),
    "softshrink with its slope turned": ("softshrink", lambda dy, z, _: (dy * (np.abs(z) < 0.5), None), "dW"),
    "hardshrink of one side": ("hardshrink", lambda dy, z, _: (dy * (z > 0.5), None), "dW"),
    "tanhshrink with the slope of tanh": ("tanhshrink", lambda dy, z, _: (dy * (1 - np.tanh(z) ** 2), None), "dW"),
    "leakyrelu that does not leak": ("leakyrelu", lambda dy, z, _: (dy * (z > 0), None), "dW"),
    "leakyrelu that leaks a tenth": ("leakyrelu", lambda dy, z, _: (dy * np.where(z > 0, 1, 0.1), None), "dW"),
    "softplus with the slope of relu": ("softplus", lambda dy, z, _: (dy * (z > 0), None), "dW"),
    "prelu with the slope of z > 0 everywhere": (
        "prelu",
        lambda dy, z, alpha: (dy, over_all(chosen(dy, z, alpha)[1])),
        "dW",
    ),
    "dalpha of prelu from z > 0 too": (
        "prelu",
        lambda dy, z, alpha: (chosen(dy, z, alpha)[0], over_all(dy * z)),
        "dalpha",
    ),
    "dalpha of prelu with |z|": (
        "prelu",
        lambda dy, z, alpha: (chosen(dy, z, alpha)[0], over_all(np.abs(chosen(dy, z, alpha)[1]))),
        "dalpha",
    ),
    "dalpha of prelu without z": (
        "prelu",
        lambda dy, z, alpha: (chosen(dy, z, alpha)[0], over_all(dy * (z < 0))),
        "dalpha",
    ),
    "dalpha of prelu averaged": (
        "prelu",
        lambda dy, z, alpha: (chosen(dy, z, alpha)[0], over_all(chosen(dy, z, alpha)[1]) / z.shape[-1]),
        "dalpha",
    ),
    "crelu with the sign of its lower half forgotten": (
        "crelu",
        lambda dy, z, _: (dy[..., :2] * (z > 0) + dy[..., 2:] * (z < 0), None),
        "dW",
    ),
    "crelu with its halves swapped": (
        "crelu",
        lambda dy, z, _: (dy[..., 2:] * (z > 0) - dy[..., :2] * (z < 0), None),
        "dW",
    ),
    "crelu with its halves side by side": (
        "crelu",
        lambda dy, z, _: (dy[..., ::2] * (z > 0) - dy[..., 1::2] * (z < 0), None),
        "dW",
    ),
}


@dataclass(frozen=True, repr=False)
class Activated(nn.Dense):
    """A dense layer whose activation has a vjp of `change`."""

    _: KW_ONLY
    change: str = ""

    def _activate(self, params, z):
        name, slope, _ = WRONG_SLOPES[self.change]
        alpha = params.get("alpha")
        y = prelu(z, alpha)[0] if name == "prelu" else (crelu if name == "crelu" else ACTIVATIONS[name])(z)[0]
        return y, lambda dy: [d for d in slope(dy, z, alpha) if d is not None]


# --- the recurrent cells in lines, for rows --------------------------------------------------------------------


def sum_lines(*gates: str) -> dict[str, Line]:
    """u = x W_ih + b_ih and v = h W_hh + b_hh, each cut into gates: u_i, v_i ..."""

    def part(name: str, k: int) -> Line:
        return lambda v: getattr(v, name)[..., k * v.H : (k + 1) * v.H]

    return {
        "H": lambda v: v.W_hh.shape[-2],
        "u": lambda v: v.x @ v.W_ih + v.b_ih[..., None, :],
        "h": lambda v: v.state[..., : v.H],
        "v": lambda v: v.h @ v.W_hh + v.b_hh[..., None, :],
        **{f"{name}_{gate}": part(name, k) for k, gate in enumerate(gates) for name in "uv"},
    }


MAP_ADJOINTS: dict[str, Line] = {
    "dx": lambda v: v.du @ v.W_ih.mT,
    "dW_ih": lambda v: v.x.mT @ v.du,
    "db_ih": lambda v: v.du.sum(axis=-2),
    "dW_hh": lambda v: v.h.mT @ v.dv,
    "db_hh": lambda v: v.dv.sum(axis=-2),
}
LSTM_LINES: dict[str, Line] = {
    **sum_lines("i", "f", "g", "o"),
    "i": lambda v: sigmoid(v.u_i + v.v_i),
    "f": lambda v: sigmoid(v.u_f + v.v_f),
    "g": lambda v: np.tanh(v.u_g + v.v_g),
    "o": lambda v: sigmoid(v.u_o + v.v_o),
    "c": lambda v: v.state[..., v.H :],
    "c_next": lambda v: v.f * v.c + v.i * v.g,
    "y": lambda v: v.o * np.tanh(v.c_next),
    "next": lambda v: np.concatenate([v.y, v.c_next], axis=-1),
    "dh_next": lambda v: v.dy + v.dstate[..., : v.H],
    "do": lambda v: v.dh_next * np.tanh(v.c_next),
    "dc_next": lambda v: v.dstate[..., v.H :] + v.dh_next * v.o * (1 - np.tanh(v.c_next) ** 2),
    "di": lambda v: v.dc_next * v.g,
    "df": lambda v: v.dc_next * v.c,
    "dg": lambda v: v.dc_next * v.i,
    "dc": lambda v: v.dc_next * v.f,
    "da_i": lambda v: v.di * v.i * (1 - v.i),
    "da_f": lambda v: v.df * v.f * (1 - v.f),
    "da_g": lambda v: v.dg * (1 - v.g**2),
    "da_o": lambda v: v.do * v.o * (1 - v.o),
    "du": lambda v: np.concatenate([v.da_i, v.da_f, v.da_g, v.da_o], axis=-1),
    "dv": lambda v: v.du,
    **MAP_ADJOINTS,
    "dh": lambda v: v.dv @ v.W_hh.mT,
    "dlast": lambda v: np.concatenate([v.dh, v.dc], axis=-1),
}
GRU_LINES: dict[str, Line] = {
    **sum_lines("r", "z", "n"),
    "r": lambda v: sigmoid(v.u_r + v.v_r),
    "z": lambda v: sigmoid(v.u_z + v.v_z),
    "n": lambda v: np.tanh(v.u_n + v.r * v.v_n),
    "y": lambda v: (1 - v.z) * v.n + v.z * v.h,
    "next": lambda v: v.y,
    "dh_next": lambda v: v.dy + v.dstate,
    "dz": lambda v: v.dh_next * (v.h - v.n),
    "dn": lambda v: v.dh_next * (1 - v.z),
    "da_n": lambda v: v.dn * (1 - v.n**2),
    "dr": lambda v: v.da_n * v.v_n,
    "da_r": lambda v: v.dr * v.r * (1 - v.r),
    "da_z": lambda v: v.dz * v.z * (1 - v.z),
    "du": lambda v: np.concatenate([v.da_r, v.da_z, v.da_n], axis=-1),
    "dv": lambda v: np.concatenate([v.da_r, v.da_z, v.da_n * v.r], axis=-1),
    **MAP_ADJOINTS,
    "dh": lambda v: v.dv @ v.W_hh.mT + v.dh_next * v.z,
    "dlast": lambda v: v.dh,
}
CELLS = {"LSTM": (LSTM_LINES, 4, 2), "GRU": (GRU_LINES, 3, 1)}

#: Mistake, to the cell, the lines it changes, and the argument whose gradient is found wrong.
WRONG_CELLS: dict[str, tuple[str, dict[str, Line], str]] = {
    "an LSTM that forgets what later steps say of c": (
        "LSTM",
        {"dc_next": lambda v: v.dh_next * v.o * (1 - np.tanh(v.c_next) ** 2)},
        "dW_ih",
    ),
    "an LSTM that forgets what later steps say of h": ("LSTM", {"dh_next": lambda v: v.dy}, "dW_ih"),
    "an LSTM with dc past its forget gate": ("LSTM", {"dc": lambda v: v.dc_next}, "dW_ih"),
    "an LSTM with dc' without the slope of tanh": (
        "LSTM",
        {"dc_next": lambda v: v.dstate[..., v.H :] + v.dh_next * v.o},
        "dW_ih",
    ),
    "an LSTM with do of c' where tanh(c') belongs": ("LSTM", {"do": lambda v: v.dh_next * v.c_next}, "dW_ih"),
    "an LSTM with df of the new c": ("LSTM", {"df": lambda v: v.dc_next * v.c_next}, "dW_ih"),
    "an LSTM with di and dg swapped": (
        "LSTM",
        {"di": lambda v: v.dc_next * v.i, "dg": lambda v: v.dc_next * v.g},
        "dW_ih",
    ),
    "an LSTM whose g has the slope of a sigma": ("LSTM", {"da_g": lambda v: v.dg * v.g * (1 - v.g)}, "dW_ih"),
    "an LSTM with dW_hh of the new h": ("LSTM", {"dW_hh": lambda v: v.y.mT @ v.dv}, "dW_hh"),
    "an LSTM with gates in another order on the way back": (
        "LSTM",
        {"du": lambda v: np.concatenate([v.da_i, v.da_f, v.da_o, v.da_g], axis=-1)},
        "dW_ih",
    ),
    "an LSTM with one of two biases": ("LSTM", {"db_hh": lambda v: 0 * v.db_ih}, "db_hh"),
    "a GRU that forgets what z keeps": ("GRU", {"dh": lambda v: v.dv @ v.W_hh.mT}, "dW_ih"),
    "a GRU whose state is kept alone": ("GRU", {"dh": lambda v: v.dh_next * v.z}, "dW_ih"),
    "a GRU with dv as du": ("GRU", {"dv": lambda v: v.du}, "dW_ih"),
    "a GRU with dr of h where its map belongs": ("GRU", {"dr": lambda v: v.da_n * v.h}, "dW_ih"),
    "a GRU with dz turned": ("GRU", {"dz": lambda v: v.dh_next * (v.n - v.h)}, "dW_ih"),
    "a GRU with z and 1 - z swapped on the way back": ("GRU", {"dn": lambda v: v.dh_next * v.z}, "dW_ih"),
    "a GRU with db_hh of the input": ("GRU", {"db_hh": lambda v: v.du.sum(axis=-2)}, "db_hh"),
}


@dataclass(frozen=True, repr=False)
class WrittenCell(Cell):
    """An LSTM or a GRU in lines; `change` names a mistake."""

    _: KW_ONLY
    kind: str = "LSTM"
    change: str = ""

    def shapes(self):
        I, H, K = self.in_features, self.out_features, CELLS[self.kind][1]  # noqa: E741
        return {"W_ih": (I, K * H), "W_hh": (H, K * H), "b_ih": (K * H,), "b_hh": (K * H,)}

    def draw(self, name, rng):
        return rng.uniform(-1, 1, self.shapes()[name])

    def start(self, params, x):
        width = CELLS[self.kind][2] * self.out_features
        return 0 * (x @ params["W_ih"])[..., :width]

    def step(self, params, x, state, **_):
        lines = CELLS[self.kind][0] | (WRONG_CELLS[self.change][1] if self.change else {})
        names = list(lines)
        middle = names.index("next") + 1
        v = SimpleNamespace(**params, x=x, state=state)
        for name in names[:middle]:
            setattr(v, name, lines[name](v))

        def vjp(dy, dstate, need_dx=True):
            u = SimpleNamespace(**vars(v), dy=dy, dstate=dstate)
            for name in names[middle:]:
                setattr(u, name, lines[name](u))
            dparams = {name: unbroadcast(getattr(u, f"d{name}"), q) for name, q in params.items()}
            return (unbroadcast(u.dx, x) if need_dx else None), dparams, u.dlast

        return (v.y, v.next), vjp


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


def nan_in_float32(dx, d):
    """A constant that float32 cannot hold, in one gradient of several."""
    return dx, {**d, "b": d["b"] * np.float32("nan") if d["b"].dtype == np.float32 else d["b"]}


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


class Shortsighted(Recurrent):
    """The state's gradient is left out."""

    def step(self, params, x, state, **options):
        value, vjp = super().step(params, x, state, **options)
        return value, lambda dy, dstate, need_dx=True: (*vjp(dy, 0 * dstate, need_dx)[:2], vjp(dy, dstate)[2])


class Turned(Recurrent):
    """The layer's input is [x, h], but its gradient is cut as if it were [h, x]."""

    def step(self, params, x, state, **options):
        value, vjp = super().step(params, x, state, **options)

        def wrong(dy, dstate, need_dx=True):
            dx, dparams, dlast = vjp(dy, dstate)
            both = np.concatenate([dx, dlast], axis=-1)
            return both[..., dlast.shape[-1] :], dparams, both[..., : dlast.shape[-1]]

        return value, wrong


class EveryStep(Last):
    """The gradient of the last step is given to all."""

    def forward(self, params, x, **options):
        y, vjp = super().forward(params, x, **options)

        def wrong(dy, need_dx=True):
            dx, dparams = vjp(dy, need_dx)
            return (dx[..., -1:, :, :] + 0 * dx if need_dx else None), dparams

        return y, wrong


class FirstStep(EveryStep):
    """The gradient of the last step is given to the first."""

    def forward(self, params, x, **options):
        y, vjp = Last.forward(self, params, x, **options)

        def wrong(dy, need_dx=True):
            dx, dparams = vjp(dy, need_dx)
            return (dx[..., ::-1, :, :] if need_dx else None), dparams

        return y, wrong


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
    *(
        _gradient(bug, Activated(3, 4 if kind == "crelu" else 2, activation=kind, change=bug), name)
        for bug, (kind, _, name) in WRONG_SLOPES.items()
    ),
    *(
        _gradient(bug, nn.scan(WrittenCell(3, 2, kind=kind, change=bug)), name)
        for bug, (kind, _, name) in WRONG_CELLS.items()
    ),
    _gradient("a recurrent layer blind to later steps", nn.scan(Shortsighted(nn.Dense(5, 2))), "dW"),
    _gradient("a recurrent layer with dx and dh in the wrong place", nn.scan(Turned(nn.Dense(5, 2))), "dW"),
    _gradient("a read-out with its gradient at every step", EveryStep(nn.Dense(3, 2)), "dx"),
    _gradient("a read-out with its gradient at the first step", FirstStep(nn.Dense(3, 2)), "dx"),
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
    Wrong("gradients that are nan in float32", pulled(nan_in_float32), "float32 must be near float64"),
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
        "a penalty must have one value a replica, and gradients with the shapes of params, all in their dtype, "
        "here float32",
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
    *(nn.scan(WrittenCell(3, 2, kind=kind)) for kind in CELLS),
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
