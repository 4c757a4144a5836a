"""The paths of the race: a sum and a signed product, each with weights of its own and nothing between them.

NALU trains two paths through one mixture, where they adapt to each other. Here each is a unit by itself, so that
each can be fitted to the target in its own domain, sums to y and products to log|y|, and the better one be taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Array, dtype_name, namespace
from ..errors import OptionError
from ..layer import Layer, Parametric, Params, Values, Vjp, register
from ..vjps import linear, log_product, parity, unbroadcast

#: What keeps the logarithm of 0 finite: far below any number that matters, so that |x| + TINY is |x|.
TINY = {"float32": 1e-37, "float64": 1e-300}


@dataclass(frozen=True, repr=False)
class _Path(Layer):
    """What both have in common: one matrix of weights, and with `scale` a constant c for each output."""

    _: KW_ONLY
    scale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.scale, bool):
            raise OptionError(f"{type(self).__name__}: scale must be True or False, got {self.scale!r:.60}")

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """With the constant and without."""
        return cls(2, 1), cls(3, 2, scale=True)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """W (I, O), and with `scale` c (O)."""
        c = {"c": (self.out_features,)} if self.scale else {}
        return {"W": (self.in_features, self.out_features), **c}

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """W ~ U(-r, r) with r = min(1/2, sqrt(6 / (I + 1))), and c = 1."""
        r = min(0.5, math.sqrt(6 / (self.in_features + 1)))
        return np.ones(self.out_features) if name == "c" else rng.uniform(-r, r, self._shapes[name])

    def _scaled(self, params: Params, p: Array, path_vjp: Any, keep: Values | None) -> tuple[Any, Vjp]:
        """With a constant, else y = p.

        y_bo = c_o * p_bo                                                                 [path.1]
        dp_bo = dy_bo * c_o,  dc_o = sum_b(dy_bo * p_bo)                                  [path.1*]
        """
        if keep is not None:
            keep.update(params)

        def vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            if not self.scale:
                dx, dW = path_vjp(dy, need_dx)
                return dx, {"W": dW}
            dx, dW = path_vjp(dy * c, need_dx)  # [path.1*]
            dc = unbroadcast(namespace(p).sum(dy * p, axis=-2), params["c"])  # [path.1*]
            return dx, {"W": dW, "c": dc}

        if not self.scale:
            return p, vjp
        c = params["c"][..., None, :]  # (O) -> (1, O)
        return p * c, vjp  # [path.1]


@register
@dataclass(frozen=True, repr=False)
class SumPath(_Path):
    """Sums and differences: NALU's sum path with free weights.

    y = x @ W

    Parameters
    ----------
    in_features, out_features : int
        I and O. Parameters: W (I, O).
    scale : bool
        Multiply by a constant c (O), a parameter too, which starts at 1: y = c (x W).

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more, or an option has a value outside its choices.

    Notes
    -----
    Exact gradient, no kinks. It is a linear map without a bias: what makes it a unit is that its weights are read
    as multiples of 1/2, and that it stands beside a `ProductPath`.

    References
    ----------
    The sum path of Trask et al. 2018, section 2, without the squashing of its weights; the pair is ours.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> nn.SumPath(2, 1)({"W": np.array([[1.0], [-1.0]])}, np.array([[5.0, 3.0]]))[0]
    array([[2.]])
    """

    def forward(self, params: Params, x: Array, *, keep: Values | None = None, **_: Any) -> tuple[Any, Vjp]:
        """y = c (x W)."""
        a, sum_vjp = linear(x, params["W"])
        if keep is not None:
            keep.update(a=a)
        return self._scaled(params, a, sum_vjp, keep)


@register
@dataclass(frozen=True, repr=False)
class ProductPath(_Path):
    """Products, quotients, powers and roots, with the sign that a product has.

    y = s exp(log|x| W),  s = (-1)^(number of negative x_i whose exponent W_i is nearest to an odd number)

    Parameters
    ----------
    in_features, out_features : int
        I and O. Parameters: W (I, O), the exponents.
    scale : bool
        Multiply by a constant c (O), a parameter too, which starts at 1.

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more, or an option has a value outside its choices.

    Notes
    -----
    Exact gradient but where x passes 0, or an exponent the middle between an odd number and its neighbours among
    the multiples of 1/2: there the sign s jumps. It has no gradient. At x = 0 log|x| counts as that of
    1e-300, in float32 1e-37, with slope 0. A root, as every power that is no whole number, is that of |x|.

    References
    ----------
    The product path of Trask et al. 2018, section 2, without the squashing of its weights, and with the sign that
    it loses by the parity of the rounded exponents, which is ours.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> nn.ProductPath(2, 1)({"W": np.array([[1.0], [-1.0]])}, np.array([[6.0, 3.0], [-6.0, 3.0]]))[0].round(9)
    array([[ 2.],
           [-2.]])
    """

    def forward(self, params: Params, x: Array, *, keep: Values | None = None, **_: Any) -> tuple[Any, Vjp]:
        """A sign that has no gradient times a product of magnitudes, r as in [product.2].

        m_bo = s_bo * r_bo                                                                [path.2]
        dr_bo = dm_bo * s_bo                                                              [path.2*]
        """
        r, product_vjp = log_product(x, params["W"], eps=TINY[dtype_name(x.dtype)])
        s = parity(x, params["W"])
        m = s * r  # [path.2]

        def signed_vjp(dm: Array, need_dx: bool = True) -> tuple[Any, Any]:
            dr = dm * s  # [path.2*]
            return product_vjp(dr, need_dx)

        if keep is not None:
            keep.update(s=s, m=m)
        return self._scaled(params, m, signed_vjp, keep)
