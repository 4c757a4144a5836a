"""The recurrent cells that a NAC's accumulator is compared with: RNN, GRU and LSTM, with PyTorch's equations.

Tags as in `vjps`: [lstm.1] is a forward equation, [lstm.1*] its adjoint. h_new is the new state and the output y,
and dh_new = dy + dstate the sum of what the output gets and of what comes back from later steps; `scan` starts it
with 0 after the last step and sums the parameters' gradients over time.

The equations are written for rows, h (B, H), with the letters j and k for units of the state and q for columns of
all gates side by side; the code keeps them transposed, h (H, B), so that the values of one gate lie together in
memory, which is several times as fast where H is small.
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

    u_bj = sum_i(x_bi * W_ih_ij) + b_ih_j,  v_bj = sum_k(h_bk * W_hh_kj) + b_hh_j         [rnn.1]
    a_bj = u_bj + v_bj,  h_new_bj = tanh(a_bj)                                            [rnn.2]
    da_bj = dh_new_bj * (1 - h_new_bj**2),  du_bj = da_bj,  dv_bj = da_bj                 [rnn.2*]
    dW_ih_ij = sum_b(x_bi * du_bj),  dx_bi = sum_j(du_bj * W_ih_ij),  db_ih_j = sum_b(du_bj) [rnn.1*]
    dW_hh_kj = sum_b(h_bk * dv_bj),  dh_bk = sum_j(dv_bj * W_hh_kj),  db_hh_j = sum_b(dv_bj) [rnn.1*]

    With "relu" max(u + v, 0) stands for tanh, and [u + v > 0] for its slope.

    Parameters
    ----------
    in_features, out_features : int
        I and H. Parameters: W_ih (I, H), W_hh (H, H), b_ih and b_hh (H).
    activation : str
        "tanh" or "relu".

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more, or an option has a value outside its choices.

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
            dh_new = dy.mT + dstate  # [scan.2*]
            da = activation_vjp(dh_new)  # [rnn.2*]
            return maps_vjp(da, da, need_dx)  # [rnn.1*]

        return (h.mT, h), vjp


@register
@dataclass(frozen=True, repr=False)
class GRU(Gated):
    """The gated recurrent unit, in the variant that resets after the product with W_hh.

    u_bq = sum_i(x_bi * W_ih_iq) + b_ih_q,  v_bq = sum_k(h_bk * W_hh_kq) + b_hh_q         [gru.1]
    r_bj = sigma(u_r_bj + v_r_bj),  z_bj = sigma(u_z_bj + v_z_bj)                         [gru.2]
    n_bj = tanh(u_n_bj + r_bj * v_n_bj)                                                   [gru.3]
    h_new_bj = (1 - z_bj) * n_bj + z_bj * h_bj                                            [gru.4]
    dz_bj = dh_new_bj * (h_bj - n_bj),  dn_bj = dh_new_bj * (1 - z_bj)                    [gru.4*]
    du_n_bj = dn_bj * (1 - n_bj**2),  dv_n_bj = du_n_bj * r_bj,  dr_bj = du_n_bj * v_n_bj [gru.3*]
    du_r_bj = dr_bj * r_bj * (1 - r_bj),  dv_r_bj = du_r_bj                               [gru.2*]
    du_z_bj = dz_bj * z_bj * (1 - z_bj),  dv_z_bj = du_z_bj                               [gru.2*]
    dW_ih_iq = sum_b(x_bi * du_bq),  dx_bi = sum_q(du_bq * W_ih_iq),  db_ih_q = sum_b(du_bq) [gru.1*]
    dW_hh_kq = sum_b(h_bk * dv_bq),  db_hh_q = sum_b(dv_bq)                               [gru.1*]
    dh_bj = dh_new_bj * z_bj + sum_q(dv_bq * W_hh_jq)                                     [gru.0*]

    u and v are cut in three, u = [u_r, u_z, u_n], and their gradients are put together in the same order.

    Parameters
    ----------
    in_features, out_features : int
        I and H. Parameters: W_ih (I, 3 H), W_hh (H, 3 H), b_ih and b_hh (3 H), their columns in the order r, z, n.

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more.

    Notes
    -----
    Names, order and equations are PyTorch's with matrices transposed, and so are the initial values, all
    U(-1/sqrt(H), 1/sqrt(H)); h = 0 at first. The article resets before the product, n = tanh(u_n + (r h) W_hn);
    its z keeps the old state, as here, while in many later texts z takes the new one. Keras' `reset_after=True` is
    the variant of PyTorch.

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
            dh_new = dy.mT + dstate  # [scan.2*]
            dz, dn = dh_new * (state - n), dh_new * (1 - z)  # [gru.4*]
            du_n = dn * (1 - n * n)  # [gru.3*]
            dr, dv_n = du_n * v_n, du_n * r  # [gru.3*]
            du_rz = xp.concat([dr, dz], axis=-2) * rz * (1 - rz)  # [gru.2*]
            du, dv = (xp.concat([du_rz, last], axis=-2) for last in (du_n, dv_n))
            dx, dparams, dh_maps = maps_vjp(du, dv, need_dx)  # [gru.1*]
            return dx, dparams, dh_new * z + dh_maps  # [gru.0*]

        return (h.mT, h), vjp


@register
@dataclass(frozen=True, repr=False)
class LSTM(Gated):
    """Long short-term memory, with a forget gate and without peepholes.

    u_bq = sum_i(x_bi * W_ih_iq) + b_ih_q,  v_bq = sum_k(h_bk * W_hh_kq) + b_hh_q         [lstm.1]
    a_bq = u_bq + v_bq                                                                    [lstm.1]
    i_bj = sigma(a_i_bj),  f_bj = sigma(a_f_bj),  g_bj = tanh(a_g_bj),  o_bj = sigma(a_o_bj) [lstm.2]
    c_new_bj = f_bj * c_bj + i_bj * g_bj,  c_next_bj = c_new_bj                           [lstm.3]
    t_bj = tanh(c_new_bj),  h_new_bj = o_bj * t_bj                                        [lstm.4]
    do_bj = dh_new_bj * t_bj,  dc_new_bj = dc_next_bj + dh_new_bj * o_bj * (1 - t_bj**2)  [lstm.4*]
    di_bj = dc_new_bj * g_bj,  df_bj = dc_new_bj * c_bj,  dg_bj = dc_new_bj * i_bj        [lstm.3*]
    dc_bj = dc_new_bj * f_bj                                                              [lstm.3*]
    da_i_bj = di_bj * i_bj * (1 - i_bj),  da_f_bj = df_bj * f_bj * (1 - f_bj)             [lstm.2*]
    da_g_bj = dg_bj * (1 - g_bj**2),  da_o_bj = do_bj * o_bj * (1 - o_bj)                 [lstm.2*]
    du_bq = da_bq,  dv_bq = da_bq                                                         [lstm.1*]
    dW_ih_iq = sum_b(x_bi * du_bq),  dx_bi = sum_q(du_bq * W_ih_iq),  db_ih_q = sum_b(du_bq) [lstm.1*]
    dW_hh_kq = sum_b(h_bk * dv_bq),  dh_bk = sum_q(dv_bq * W_hh_kq),  db_hh_q = sum_b(dv_bq) [lstm.1*]

    a is cut in four, a = [a_i, a_f, a_g, a_o], and its gradient is put together in the same order. dc_next is the
    gradient that comes back from later steps.

    Parameters
    ----------
    in_features, out_features : int
        I and H. Parameters: W_ih (I, 4 H), W_hh (H, 4 H), b_ih and b_hh (4 H), their columns in the
        order i, f, g, o.

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more.

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
        s = sigmoid(a)  # [lstm.2]; that of a_g is not used
        g = xp.tanh(a[..., 2 * H : 3 * H, :])  # [lstm.2]
        i, f, o = s[..., :H, :], s[..., H : 2 * H, :], s[..., 3 * H :, :]
        c_new = f * c + i * g  # [lstm.3]
        t = xp.tanh(c_new)  # [lstm.4]
        h_new = o * t  # [lstm.4]

        def vjp(dy: Array, dstate: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any], Any]:
            dh_new = dy.mT + dstate[..., 0, :, :]  # [scan.2*]
            do, dc_new = dh_new * t, dstate[..., 1, :, :] + dh_new * o * (1 - t * t)  # [lstm.4*]
            di, df, dg, dc = dc_new * g, dc_new * c, dc_new * i, dc_new * f  # [lstm.3*]
            da = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)]  # [lstm.2*]
            du = xp.concat(da, axis=-2)
            dx, dparams, dh = maps_vjp(du, du, need_dx)  # [lstm.1*]
            return dx, dparams, xp.stack([dh, dc], axis=-3)

        return (h_new.mT, xp.stack([h_new, c_new], axis=-3)), vjp
