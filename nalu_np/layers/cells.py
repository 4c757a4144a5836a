"""The recurrent cells that a NAC's accumulator is compared with: RNN, GRU and LSTM, with PyTorch's equations.

Tags as in `vjps`: [lstm.1] is a forward equation and [lstm.1*] its adjoint. The gradient of a cell's new state,
dh' = dy + dstate, is the sum of what the output y = h' gets and of what comes back from later steps; `scan` starts
it with 0 after the last step and sums the parameters' gradients over time.

The equations are written for rows, h (B, H); the code keeps them transposed, h (H, B), so that the values of one
gate lie side by side in memory, which is several times as fast where H is small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..backend import Array, namespace
from ..layer import Cell, CellVjp, Parametric, Params, check_choice, fan_in_uniform, register
from ..vjps import ACTIVATIONS, sigmoid, unbroadcast

NAMES = ("W_ih", "W_hh", "b_ih", "b_hh")


def affine(x: Array, W: Array, b: Array) -> tuple[Any, Callable[[Array, bool], tuple[Any, Any, Any]]]:
    """z = W^T x + b of transposed rows, x (I, B) and z (O, B);  vjp(dz, need_dx) -> (dx, dW, db)."""

    def vjp(dz: Array, need_dx: bool) -> tuple[Any, Any, Any]:
        db = unbroadcast(namespace(dz).sum(dz, axis=-1), b)
        return (unbroadcast(W @ dz, x) if need_dx else None), unbroadcast(x @ dz.mT, W), db

    return W.mT @ x + b[..., None], vjp


@dataclass(frozen=True, repr=False)
class Gated(Cell):
    """What the three cells share: affine maps of the input and of the state, each as wide as all gates."""

    gates: ClassVar[int] = 1

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """One with no two sizes alike."""
        return (cls(3, 2),)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """W_ih (I, K H), W_hh (H, K H), b_ih and b_hh (K H), for K gates."""
        I, H, width = self.in_features, self.out_features, self.gates * self.out_features  # noqa: E741
        return dict(zip(NAMES, ((I, width), (H, width), (width,), (width,)), strict=True))

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """U(-r, r) with r = 1 / sqrt(H), for all parameters."""
        return fan_in_uniform(rng, self._shapes[name], self.out_features)

    def start(self, params: Params, x: Array) -> Array:
        """h = 0, of as many replicas as x or the parameters have."""
        return namespace(x).zeros_like(params["W_ih"][..., : self.out_features].mT @ x.mT)

    def _maps(self, params: Params, x: Array, h: Array) -> tuple[Any, Any, Callable[..., tuple[Any, Any, Any]]]:
        """u = x W_ih + b_ih,  v = h W_hh + b_hh;  vjp(du, dv, need_dx) -> (dx, dparams, dh)."""
        u, u_vjp = affine(x.mT, params["W_ih"], params["b_ih"])
        v, v_vjp = affine(h, params["W_hh"], params["b_hh"])

        def vjp(du: Array, dv: Array, need_dx: bool) -> tuple[Any, Any, Any]:
            dx, dW_ih, db_ih = u_vjp(du, need_dx)
            dh, dW_hh, db_hh = v_vjp(dv, True)
            dparams = dict(zip(NAMES, (dW_ih, dW_hh, db_ih, db_hh), strict=True))
            return (dx.mT if need_dx else None), dparams, dh

        return u, v, vjp


@register
@dataclass(frozen=True, repr=False)
class RNN(Gated):
    """The simple recurrent network of Elman.

    u = x W_ih + b_ih,  v = h W_hh + b_hh                                                 [rnn.1]
    h' = f(u + v),  y = h'                                                                [rnn.2]
    du = dv = dh' f'(u + v)                                                               [rnn.2*]
    dW_ih = x^T du,  dx = du W_ih^T,  dW_hh = h^T dv,  dh = dv W_hh^T                     [rnn.1*]

    Parameters
    ----------
    in_features, out_features : int
        I and H. Parameters: W_ih (I, H), W_hh (H, H), b_ih and b_hh (H).
    activation : str
        "tanh" or "relu".

    Notes
    -----
    Names and equations are PyTorch's with matrices transposed, and so are the initial values, all
    U(-1/sqrt(H), 1/sqrt(H)); h = 0 at first. The slope of relu at 0 is 0.

    References
    ----------
    Elman 1990, Finding structure in time.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> model = nn.scan(nn.RNN(1, 1, activation="relu"))
    >>> one, zero = np.ones((1, 1)), np.zeros(1)
    >>> model({"W_ih": one, "W_hh": one, "b_ih": zero, "b_hh": zero}, np.ones((4, 1, 1)))[0].ravel()  # it counts
    array([1., 2., 3., 4.])
    """

    _: KW_ONLY
    activation: str = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "activation", self.activation, ("tanh", "relu"))

    def step(self, params: Params, x: Array, state: Array, **_: Any) -> tuple[tuple[Any, Any], CellVjp]:
        """[rnn.1] and [rnn.2]."""
        u, v, maps_vjp = self._maps(params, x, state)  # [rnn.1]
        h, activation_vjp = ACTIVATIONS[self.activation](u + v)  # [rnn.2]

        def vjp(dy: Array, dstate: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any], Any]:
            da = activation_vjp(dy.mT + dstate)  # [rnn.2*]
            return maps_vjp(da, da, need_dx)  # [rnn.1*]

        return (h.mT, h), vjp


@register
@dataclass(frozen=True, repr=False)
class GRU(Gated):
    """The gated recurrent unit, in the variant that resets after the product with W_hh.

    u = x W_ih + b_ih,  v = h W_hh + b_hh, each cut in three: u_r, u_z, u_n, v_r, v_z, v_n    [gru.1]
    r = sigma(u_r + v_r),  z = sigma(u_z + v_z)                                           [gru.2]
    n = tanh(u_n + r v_n)                                                                 [gru.3]
    h' = (1 - z) n + z h,  y = h'                                                         [gru.4]
    dz = dh' (h - n),  dn = dh' (1 - z),  dh = dh' z                                      [gru.4*]
    du_n = dn (1 - n^2),  dv_n = du_n r,  dr = du_n v_n                                   [gru.3*]
    du_r = dv_r = dr r (1 - r),  du_z = dv_z = dz z (1 - z)                               [gru.2*]
    dW_ih = x^T du,  dx = du W_ih^T,  dW_hh = h^T dv,  dh has dv W_hh^T besides           [gru.1*]

    Parameters
    ----------
    in_features, out_features : int
        I and H. Parameters: W_ih (I, 3 H), W_hh (H, 3 H), b_ih and b_hh (3 H), their columns in the order r, z, n.

    Notes
    -----
    Names, order and equations are PyTorch's with matrices transposed, and so are the initial values, all
    U(-1/sqrt(H), 1/sqrt(H)); h = 0 at first. The article resets before the product, n = tanh(u_n + (r h) W_hn),
    and lets z choose the new state: its z is 1 - z here. Keras' `reset_after=True` is the variant of PyTorch.

    References
    ----------
    Cho et al. 2014, Learning phrase representations using RNN encoder-decoder for statistical machine translation.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> model = nn.scan(nn.GRU(10, 2))
    >>> model(model.init(), np.ones((7, 5, 10), "float32"))[0].shape
    (7, 5, 2)
    """

    gates: ClassVar[int] = 3

    def step(self, params: Params, x: Array, state: Array, **_: Any) -> tuple[tuple[Any, Any], CellVjp]:
        """[gru.1] to [gru.4]."""
        xp, H = namespace(x, state), self.out_features
        u, v, maps_vjp = self._maps(params, x, state)  # [gru.1]
        u_rz, u_n, v_rz, v_n = u[..., : 2 * H, :], u[..., 2 * H :, :], v[..., : 2 * H, :], v[..., 2 * H :, :]
        rz = sigmoid(u_rz + v_rz)  # [gru.2]
        r, z = rz[..., :H, :], rz[..., H:, :]
        n = xp.tanh(u_n + r * v_n)  # [gru.3]
        h = (1 - z) * n + z * state  # [gru.4]

        def vjp(dy: Array, dstate: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any], Any]:
            dh = dy.mT + dstate
            dz, dn = dh * (state - n), dh * (1 - z)  # [gru.4*]
            du_n = dn * (1 - n * n)  # [gru.3*]
            dr, dv_n = du_n * v_n, du_n * r
            du_rz = xp.concat([dr, dz], axis=-2) * rz * (1 - rz)  # [gru.2*]
            du, dv = (xp.concat([du_rz, last], axis=-2) for last in (du_n, dv_n))
            dx, dparams, dh_maps = maps_vjp(du, dv, need_dx)  # [gru.1*]
            return dx, dparams, dh * z + dh_maps

        return (h.mT, h), vjp


@register
@dataclass(frozen=True, repr=False)
class LSTM(Gated):
    """Long short-term memory, with a forget gate and without peepholes.

    u = x W_ih + b_ih,  v = h W_hh + b_hh,  a = u + v, cut in four: a_i, a_f, a_g, a_o    [lstm.1]
    i = sigma(a_i),  f = sigma(a_f),  g = tanh(a_g),  o = sigma(a_o)                      [lstm.2]
    c' = f c + i g                                                                        [lstm.3]
    h' = o tanh(c'),  y = h'                                                              [lstm.4]
    do = dh' tanh(c'),  dc' has dh' o (1 - tanh(c')^2) besides that of later steps        [lstm.4*]
    di = dc' g,  df = dc' c,  dg = dc' i,  dc = dc' f                                     [lstm.3*]
    da_i = di i (1 - i), so for f and o,  da_g = dg (1 - g^2)                             [lstm.2*]
    du = dv = da,  dW_ih = x^T du,  dx = du W_ih^T,  dW_hh = h^T dv,  dh = dv W_hh^T      [lstm.1*]

    Parameters
    ----------
    in_features, out_features : int
        I and H. Parameters: W_ih (I, 4 H), W_hh (H, 4 H), b_ih and b_hh (4 H), their columns in the
        order i, f, g, o.

    Notes
    -----
    Names, order and equations are PyTorch's with matrices transposed, and so are the initial values, all
    U(-1/sqrt(H), 1/sqrt(H)), the bias of the forget gate too; h = c = 0 at first. The state holds both.

    References
    ----------
    Hochreiter & Schmidhuber 1997, Long short-term memory; Gers, Schmidhuber & Cummins 2000, Learning to forget.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> model = nn.chain(nn.scan(nn.LSTM(10, 2)), nn.Last(nn.Dense(2, 1)))
    >>> model(model.init(), np.ones((7, 5, 10), "float32"))[0].shape
    (1, 5, 1)
    """

    gates: ClassVar[int] = 4

    def start(self, params: Params, x: Array) -> Array:
        """h = 0 and c = 0."""
        h = super().start(params, x)
        return namespace(x).stack([h, h], axis=-3)

    def step(self, params: Params, x: Array, state: Array, **_: Any) -> tuple[tuple[Any, Any], CellVjp]:
        """[lstm.1] to [lstm.4]."""
        xp, H = namespace(x, state), self.out_features
        h, c = state[..., 0, :, :], state[..., 1, :, :]
        u, v, maps_vjp = self._maps(params, x, h)
        a = u + v  # [lstm.1]
        s, g = (
            sigmoid(a),
            xp.tanh(a[..., 2 * H : 3 * H, :]),
        )  # [lstm.2]; the sigma of a_g is not used
        i, f, o = s[..., :H, :], s[..., H : 2 * H, :], s[..., 3 * H :, :]
        c_next = f * c + i * g  # [lstm.3]
        t = xp.tanh(c_next)
        h_next = o * t  # [lstm.4]

        def vjp(dy: Array, dstate: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any], Any]:
            dh = dy.mT + dstate[..., 0, :, :]
            do, dc = dh * t, dstate[..., 1, :, :] + dh * o * (1 - t * t)  # [lstm.4*]
            di, df, dg = dc * g, dc * c, dc * i  # [lstm.3*]
            da = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)]  # [lstm.2*]
            du = xp.concat(da, axis=-2)
            dx, dparams, dh = maps_vjp(du, du, need_dx)  # [lstm.1*]
            return dx, dparams, xp.stack([dh, dc * f], axis=-3)

        return (h_next.mT, xp.stack([h_next, c_next], axis=-3)), vjp
