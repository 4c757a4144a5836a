"""The blocks that units are made of: each returns its value and its vector-Jacobian product.

    value, vjp = block(inputs)
    dinputs = vjp(dvalue)

`dq` is the gradient of the loss with respect to `q`. A vjp reads its forward pass backwards, stores nothing,
writes nothing in place, and is linear in `dvalue`. Each block's docstring states its equations, entry by entry:
the letters after the last underscore are indices, as in a_bo = sum_i(x_bi * W_io). [sum.1] is the tag of a forward
equation and [sum.1*] of an adjoint, and the same tags stand beside the lines that compute them. The derivation
pages are written from these docstrings, and the adjoints are compared with what SymPy derives from the rest.

Axis letters: S replicas, B batch, I inputs, O outputs. A leading S may be missing on either side of a product;
the vjp then sums over S what broadcasting had repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from .backend import Array, namespace


class DataVjp(Protocol):
    """Vjp of a block with data and weights: (dx, dweights); `need_dx=False` skips dx and gives None."""

    def __call__(self, dy: Array, need_dx: bool = True, /) -> tuple[Any, Any]: ...


PairVjp = Callable[[Array], tuple[Any, Any]]
Elementwise = Callable[[Array], tuple[Any, Callable[[Array], Any]]]


def unbroadcast(dq: Array, q: Array) -> Array:
    """Sum a gradient over the axes along which broadcasting has repeated `q`, back to the shape of `q`."""
    if dq.shape == q.shape:
        return dq
    xp = namespace(dq)
    for _ in range(dq.ndim - q.ndim):
        dq = xp.sum(dq, axis=0)
    for axis, size in enumerate(q.shape):
        if size == 1 and dq.shape[axis] != 1:
            dq = xp.sum(dq, axis=axis, keepdims=True)
    return dq


def sigmoid(x: Array) -> Any:
    """sigma(x) = 1 / (1 + exp(-x)), without overflow: below x = -80 it stays at sigma(-80), about 2e-35."""
    xp = namespace(x)
    return 1 / (1 + xp.exp(xp.minimum(-x, 80.0)))


def nac_weight(W_hat: Array, M_hat: Array) -> tuple[Any, PairVjp]:
    """Weights that rest at -1, 0 and 1 (Trask et al. 2018, section 2).

    t_io = tanh(W_hat_io),  s_io = sigma(M_hat_io),  W_io = t_io * s_io                   [weight.1]
    dW_hat_io = dW_io * (1 - t_io**2) * s_io                                              [weight.1*]
    dM_hat_io = dW_io * W_io * (1 - s_io)                                                 [weight.2*]
    """
    t, s = namespace(W_hat, M_hat).tanh(W_hat), sigmoid(M_hat)  # [weight.1]
    W = t * s  # [weight.1]

    def vjp(dW: Array) -> tuple[Any, Any]:
        dW_hat = dW * (1 - t * t) * s  # [weight.1*]
        dM_hat = dW * W * (1 - s)  # [weight.2*]
        return dW_hat, dM_hat

    return W, vjp


def linear(x: Array, W: Array) -> tuple[Any, DataVjp]:
    """A sum of weighted inputs, without a bias.

    a_bo = sum_i(x_bi * W_io)                                                             [sum.1]
    dW_io = sum_b(x_bi * da_bo)                                                           [sum.1*]
    dx_bi = sum_o(da_bo * W_io)                                                           [sum.2*]
    """
    a = x @ W  # [sum.1]

    def vjp(da: Array, need_dx: bool = True) -> tuple[Any, Any]:
        dW = unbroadcast(x.mT @ da, W)  # [sum.1*]
        return (unbroadcast(da @ W.mT, x) if need_dx else None), dW  # [sum.2*]

    return a, vjp


def log_product(x: Array, W: Array, *, eps: float) -> tuple[Any, DataVjp]:
    """A product of powers, computed in log space: m_o = prod_i (|x_i| + eps)^W_io. It is blind to signs.

    r_bi = abs(x_bi) + eps,  l_bi = log(r_bi)                                             [product.1]
    m_bo = exp(p_bo),  p_bo = sum_i(l_bi * W_io)                                          [product.2]
    dp_bo = dm_bo * m_bo                                                                  [product.1*]
    dW_io = sum_b(l_bi * dp_bo)                                                           [product.2*]
    dx_bi = sum_o(dp_bo * W_io) * sign(x_bi) / r_bi                                       [product.3*]

    At the kink x = 0, sign(0) = 0.
    """
    xp = namespace(x, W)
    r = xp.abs(x) + eps  # [product.1]
    l = xp.log(r)  # [product.1]  # noqa: E741  (the derivation's letter)
    m = xp.exp(l @ W)  # [product.2]

    def vjp(dm: Array, need_dx: bool = True) -> tuple[Any, Any]:
        dp = dm * m  # [product.1*]
        dW = unbroadcast(l.mT @ dp, W)  # [product.2*]
        return (unbroadcast((dp @ W.mT) * xp.sign(x) / r, x) if need_dx else None), dW  # [product.3*]

    return m, vjp


def parity(x: Array, W: Array) -> Any:
    """The sign of a product: odd powers of negative factors turn it; roots are of magnitudes. It has no gradient.

    h_io = floor(2 * abs(W_io) + 1 / 2) % 4                                               [parity.1]
    n_bo = sum_i((x_bi < 0) * (h_io == 2)),  s_bo = (-1)**n_bo                            [parity.2]

    h counts the halves of the exponent rounded to a multiple of 1/2; n the negative factors with an odd one.
    """
    xp = namespace(x, W)
    h = xp.floor(2.0 * xp.abs(W) + 0.5) % 4.0  # [parity.1]; an odd number has 2 halves, modulo 4
    odd = xp.maximum(1.0 - xp.abs(h - 2.0), 0.0)  # [parity.2]
    negative = xp.maximum(-xp.sign(x), 0.0)  # [parity.2]
    return 1.0 - 2.0 * ((negative @ odd) % 2.0)  # [parity.2]; n is at most I, exact in float32


def gate(x: Array, G: Array) -> tuple[Any, DataVjp]:
    """A choice between 0 and 1 that depends on the input, without a bias.

    z_bo = sum_i(x_bi * G_io),  g_bo = sigma(z_bo)                                        [gate.1]
    dz_bo = dg_bo * g_bo * (1 - g_bo)                                                     [gate.1*]
    dG_io = sum_b(x_bi * dz_bo)                                                           [gate.2*]
    dx_bi = sum_o(dz_bo * G_io)                                                           [gate.3*]
    """
    z, linear_vjp = linear(x, G)  # [gate.1]
    g = sigmoid(z)  # [gate.1]

    def vjp(dg: Array, need_dx: bool = True) -> tuple[Any, Any]:
        dz = dg * g * (1 - g)  # [gate.1*]
        return linear_vjp(dz, need_dx)  # [gate.2*] [gate.3*]

    return g, vjp


def abs_gate(x: Array, G: Array) -> tuple[Any, DataVjp]:
    """The gate of |x|: flipping the sign of the input does not swap the paths.

    r_bi = abs(x_bi),  z_bo = sum_i(r_bi * G_io),  g_bo = sigma(z_bo)                     [gate.2]
    dz_bo = dg_bo * g_bo * (1 - g_bo),  dG_io = sum_b(r_bi * dz_bo)                       [gate.4*]
    dr_bi = sum_o(dz_bo * G_io),  dx_bi = dr_bi * sign(x_bi)                              [gate.4*]

    At the kink x = 0, sign(0) = 0.
    """
    xp = namespace(x, G)
    g, gate_vjp = gate(xp.abs(x), G)  # [gate.2]

    def vjp(dg: Array, need_dx: bool = True) -> tuple[Any, Any]:
        dr, dG = gate_vjp(dg, need_dx)  # [gate.4*]
        return (dr * xp.sign(x) if need_dx else None), dG  # [gate.4*]

    return g, vjp


def independent_gate(x: Array, G: Array) -> tuple[Any, DataVjp]:
    """A gate without input: one number an output, the same for every row.

    g_o = sigma(G_o)                                                                      [gate.3]
    dG_o = dg_o * g_o * (1 - g_o)                                                         [gate.5*]

    dg comes summed over the batch; dx = 0.
    """
    xp = namespace(x, G)
    g = sigmoid(G)[..., None, :]  # [gate.3], (O) -> (1, O)

    def vjp(dg: Array, need_dx: bool = True) -> tuple[Any, Any]:
        dG = dg * g * (1 - g)  # [gate.5*]
        return (xp.zeros_like(x) if need_dx else None), dG[..., 0, :]

    return g, vjp


def mix(g: Array, a: Array, m: Array) -> tuple[Any, Callable[[Array], tuple[Any, Any, Any]]]:
    """The gate's mixture of two paths; g may be (B, 1), one choice for all outputs of a row.

    y_bo = g_bo * a_bo + (1 - g_bo) * m_bo                                                [mix.1]
    dg_bo = dy_bo * (a_bo - m_bo),  da_bo = dy_bo * g_bo,  dm_bo = dy_bo * (1 - g_bo)     [mix.1*]
    """
    h = 1 - g  # [mix.1]
    y = g * a + h * m  # [mix.1]; not m + g (a - m), which loses an a beside a huge m

    def vjp(dy: Array) -> tuple[Any, Any, Any]:
        return unbroadcast(dy * (a - m), g), dy * g, dy * h  # [mix.1*]

    return y, vjp


def _where(mask: Any, dy: Array) -> Any:
    """dy where the mask is true, else 0."""
    xp = namespace(dy)
    return xp.where(mask, dy, xp.zeros_like(dy))


def identity(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = z."""
    return z, lambda dy: dy


def relu(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = max(z, 0);  dz = dy [z > 0], so that the kink z = 0 has slope 0."""
    return namespace(z).maximum(z, 0.0), lambda dy: _where(z > 0, dy)


def relu6(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = min(max(z, 0), 6);  dz = dy [0 < z < 6], so that both kinks have slope 0."""
    xp = namespace(z)
    return xp.minimum(xp.maximum(z, 0.0), 6.0), lambda dy: _where((z > 0) & (z < 6), dy)


def tanh(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = tanh(z);  dz = dy (1 - y^2)."""
    y = namespace(z).tanh(z)
    return y, lambda dy: dy * (1 - y * y)


def logistic(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = sigma(z);  dz = dy y (1 - y)."""
    y = sigmoid(z)
    return y, lambda dy: dy * y * (1 - y)


def hardtanh(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = min(max(z, -1), 1);  dz = dy [-1 < z < 1], so that both kinks have slope 0."""
    xp = namespace(z)
    return xp.minimum(xp.maximum(z, -1.0), 1.0), lambda dy: _where((z > -1) & (z < 1), dy)


def softsign(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = z / (1 + |z|);  dz = dy / (1 + |z|)^2, smooth at z = 0."""
    q = 1 / (1 + namespace(z).abs(z))
    return z * q, lambda dy: dy * q * q


def threshold(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = z where z > 1, else 0;  dz = dy [z > 1], so that the jump z = 1 belongs to the flat side.

    The two numbers are those of PyTorch's Threshold(1, 0): it has no defaults, and the article does not state its
    own. Of a few pairs this one came nearest to the article's table, with plain gradient descent.
    """
    return _where(z > 1, z), lambda dy: _where(z > 1, dy)


def elu(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = z where z > 0, else exp(z) - 1;  dz = dy there, else dy exp(z), which is 1 at z = 0.

    exp(z) - 1 = 2 t / (1 - t) with t = tanh(z / 2) keeps the digits of a small z.
    """
    xp = namespace(z)
    below = xp.minimum(z, 0.0)
    t = xp.tanh(below / 2)
    return xp.where(z > 0, z, 2 * t / (1 - t)), lambda dy: dy * xp.exp(below)


def selu(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = 1.0507 elu(z), its lower side times 1.6733 besides; the kink z = 0 has the slope of that side, 1.758."""
    alpha, scale = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, equation (14)
    xp = namespace(z)
    y, elu_vjp = elu(z)

    def side(q: Array) -> Any:
        return xp.where(z > 0, scale * q, scale * alpha * q)

    return side(y), lambda dy: side(elu_vjp(dy))


def softshrink(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = z cut by 1/2 towards 0;  dz = dy [|z| > 1/2], so that both kinks have slope 0."""
    xp = namespace(z)
    return z - xp.minimum(xp.maximum(z, -0.5), 0.5), lambda dy: _where(xp.abs(z) > 0.5, dy)


def hardshrink(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = z [|z| > 1/2];  dz = dy [|z| > 1/2], so that both jumps belong to the flat side."""
    outside = namespace(z).abs(z) > 0.5
    return _where(outside, z), lambda dy: _where(outside, dy)


def tanhshrink(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = z - tanh(z);  dz = dy tanh(z)^2."""
    t = namespace(z).tanh(z)
    return z - t, lambda dy: dy * t * t


def leakyrelu(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = z where z > 0, else z / 100;  dz = dy there, else dy / 100: the kink z = 0 has slope 1/100."""
    xp = namespace(z)
    return xp.where(z > 0, z, 0.01 * z), lambda dy: xp.where(z > 0, dy, 0.01 * dy)


def softplus(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = log(1 + exp(z)) = max(z, 0) + log(1 + u), u = exp(-|z|), which never overflows;  dz = dy sigma(z).

    log(1 + u) = u log(w) / (w - 1) with w = 1 + u as rounded keeps the digits of a small u (Kahan).
    """
    xp = namespace(z)
    u = xp.exp(-xp.abs(z))
    w = 1 + u
    d = w - 1
    log = xp.where(d > 0, xp.log(w) * (u / xp.maximum(d, 1e-30)), u)
    return xp.maximum(z, 0.0) + log, lambda dy: dy * sigmoid(z)


def prelu(z: Array, alpha: Array) -> tuple[Any, PairVjp]:
    """y = z where z > 0, else alpha z, with one learned alpha (1) a layer.

    dz = dy where z > 0, else alpha dy: the kink z = 0 has slope alpha;  dalpha = sum of dy z [z <= 0]
    """
    xp = namespace(z, alpha)
    positive, slope = z > 0, alpha[..., None, :]

    def vjp(dy: Array) -> tuple[Any, Any]:
        dslope = unbroadcast(dy * xp.minimum(z, 0.0), slope)
        return unbroadcast(xp.where(positive, dy, slope * dy), z), dslope[..., 0, :]

    return xp.where(positive, z, slope * z), vjp


def crelu(z: Array) -> tuple[Any, Callable[[Array], Any]]:
    """y = [max(z, 0), max(-z, 0)], twice the columns (Shang et al. 2016);  both halves have slope 0 at z = 0."""
    xp, n = namespace(z), z.shape[-1]
    y = xp.concat([xp.maximum(z, 0.0), xp.maximum(-z, 0.0)], axis=-1)
    return y, lambda dy: _where(z > 0, dy[..., :n]) - _where(z < 0, dy[..., n:])


#: From z to y entry by entry. Beside these, `crelu` doubles the columns and `prelu` has a parameter.
ACTIVATIONS: dict[str, Elementwise] = {
    "identity": identity,
    "relu": relu,
    "relu6": relu6,
    "tanh": tanh,
    "sigmoid": logistic,
    "hardtanh": hardtanh,
    "softsign": softsign,
    "threshold": threshold,
    "elu": elu,
    "selu": selu,
    "softshrink": softshrink,
    "hardshrink": hardshrink,
    "tanhshrink": tanhshrink,
    "leakyrelu": leakyrelu,
    "softplus": softplus,
}


def _size(y: Array) -> int:
    """Entries of one replica."""
    return math.prod(y.shape[1:])


def _mean(x: Array) -> Any:
    """Mean over every axis but the replicas', (S, ...) -> (S).

    One axis after the other: a sum over two axes at once has bits that depend on how many replicas there are.
    """
    xp, size = namespace(x), _size(x)
    while x.ndim > 1:
        x = xp.sum(x, axis=1)
    return x / size


def _spread(dL: Array, y: Array) -> Any:
    """Each entry's part in a mean, (S) -> (S, 1, ..., 1)."""
    return (dL / _size(y))[(...,) + (None,) * (y.ndim - 1)]


def mse(y: Array, target: Array) -> tuple[Any, Callable[[Array], Any]]:
    """Mean squared error of each replica, (S, B, O) -> (S).

    d_bo = y_bo - target_bo,  L = sum_b(sum_o(d_bo**2)) / (B * O)                         [mse.1]
    dy_bo = 2 * dL * d_bo / (B * O)                                                       [mse.1*]
    """
    d = y - target  # [mse.1]

    def vjp(dL: Array) -> Any:
        return d * _spread(2 * dL, y)  # [mse.1*]

    return _mean(d * d), vjp  # [mse.1]


def mae(y: Array, target: Array) -> tuple[Any, Callable[[Array], Any]]:
    """Mean absolute error of each replica, (S, B, O) -> (S).

    d_bo = y_bo - target_bo,  L = sum_b(sum_o(abs(d_bo))) / (B * O)                       [mae.1]
    dy_bo = dL * sign(d_bo) / (B * O)                                                     [mae.1*]

    At the kink, sign(0) = 0.
    """
    xp = namespace(y, target)
    d = y - target  # [mae.1]

    def vjp(dL: Array) -> Any:
        return xp.sign(d) * _spread(dL, y)  # [mae.1*]

    return _mean(xp.abs(d)), vjp  # [mae.1]


LOSSES = {"mse": mse, "mae": mae}
