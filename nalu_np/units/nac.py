"""NAC, a sum with weights that rest at -1, 0 and 1, and LogNAC, the same in log space: a product of powers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Array
from ..errors import OptionError
from ..layer import INITIALIZERS, Layer, Parametric, Params, Values, Vjp, check_choice, register
from ..vjps import DataVjp, linear, log_product, nac_weight

if TYPE_CHECKING:
    from .nalu import NALU


def set_eps(owner: LogNAC | NALU) -> None:
    """Make eps a plain float, or raise OptionError: a NumPy float64 would turn float32 into float64."""
    eps = owner.eps
    if not isinstance(eps, float | np.floating) or not 0 < eps < 1:
        raise OptionError(f"{type(owner).__name__}: eps must be a number with 0 < eps < 1, got {eps!r:.60}")
    object.__setattr__(owner, "eps", float(eps))


@register
@dataclass(frozen=True, repr=False)
class NAC(Layer):
    """Neural accumulator: adds and subtracts its inputs.

    y = x @ W,  W = tanh(W_hat) * sigma(M_hat)

    Parameters
    ----------
    in_features, out_features : int
        I and O. Parameters: W_hat, M_hat (I, O).
    initializer : str
        "uniform" U(-2, 2), "truncated_normal" (.02), "normal" N(0, 1), "glorot_uniform", "fan_in_uniform"
        (PyTorch's default for a linear layer) or "madsen_johansen".

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more, or an option has a value outside its choices.

    Notes
    -----
    Exact gradient, no kinks. |W| < 1: the weights of a sum are reached only in the limit, where the gradient
    vanishes, and a NAC by itself cannot multiply an input by more than 1.

    References
    ----------
    Trask et al. 2018, Neural Arithmetic Logic Units, section 2, equation (1).

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> params = {"W_hat": np.array([[20.0], [-20.0]]), "M_hat": np.array([[20.0], [20.0]])}
    >>> y, vjp = nn.NAC(2, 1)(params, np.array([[5.0, 3.0]]))
    >>> y.round(6)
    array([[2.]])
    """

    _: KW_ONLY
    initializer: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "initializer", self.initializer, list(INITIALIZERS))

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """One of each shape that matters."""
        return cls(2, 1), cls(3, 2, initializer="madsen_johansen")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """W_hat and M_hat, (I, O)."""
        return dict.fromkeys(("W_hat", "M_hat"), (self.in_features, self.out_features))

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """By the chosen initialiser."""
        return INITIALIZERS[self.initializer](rng, self._shapes[name])

    def forward(self, params: Params, x: Array, *, keep: Values | None = None, **_: Any) -> tuple[Any, Vjp]:
        """W, then the path; LogNAC has another, [lognac.1].

        W_io = tanh(W_hat_io) * sigma(M_hat_io)                                           [nac.1]
        a_bo = sum_i(x_bi * W_io)                                                         [nac.2]
        dW_io = sum_b(x_bi * da_bo),  dx_bi = sum_o(da_bo * W_io)                         [nac.2*]
        dW_hat_io = dW_io * (1 - tanh(W_hat_io)**2) * sigma(M_hat_io)                     [nac.1*]
        dM_hat_io = dW_io * W_io * (1 - sigma(M_hat_io))                                  [nac.1*]
        """
        W, weight_vjp = nac_weight(params["W_hat"], params["M_hat"])  # [nac.1]
        y, path_vjp = self._path(x, W)  # [nac.2]

        def vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            dx, dW = path_vjp(dy, need_dx)  # [nac.2*]
            dW_hat, dM_hat = weight_vjp(dW)  # [nac.1*]
            return dx, {"W_hat": dW_hat, "M_hat": dM_hat}

        if keep is not None:
            keep.update({"W": W, self._symbol: y})
        return y, vjp

    _symbol = "a"

    def _path(self, x: Array, W: Array) -> tuple[Any, DataVjp]:
        """a = x W."""
        return linear(x, W)


@register
@dataclass(frozen=True, repr=False)
class LogNAC(NAC):
    """NAC in log space, the complex NAC of the articles: multiplies, divides and takes roots.

    y = exp(log(abs(x) + eps) @ W),  W = tanh(W_hat) * sigma(M_hat)

    Parameters
    ----------
    in_features, out_features : int
        I and O. Parameters: W_hat, M_hat (I, O).
    eps : float
        Keeps the logarithm finite at x = 0.
    initializer : str
        As for NAC.

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more, or an option has a value outside its choices.

    Notes
    -----
    Exact gradient but at the kink x = 0, where dx = 0 by convention. Blind to signs: y(x) = y(|x|) > 0. An
    input near 0 with a negative weight makes y as large as eps^-1.

    References
    ----------
    Trask et al. 2018, section 2, equation (2); NAC• in Madsen & Johansen 2020.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> params = {"W_hat": np.array([[20.0], [-20.0]]), "M_hat": np.array([[20.0], [20.0]])}
    >>> y, vjp = nn.LogNAC(2, 1)(params, np.array([[6.0, 3.0]]))
    >>> y.round(5)
    array([[2.]])
    """

    _: KW_ONLY
    eps: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        set_eps(self)

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """An eps that counts, and the default."""
        return cls(2, 1), cls(3, 2, eps=0.01)

    _symbol = "m"

    def _path(self, x: Array, W: Array) -> tuple[Any, DataVjp]:
        """The path in log space.

        l_bi = log(abs(x_bi) + eps),  p_bo = sum_i(l_bi * W_io),  m_bo = exp(p_bo)        [lognac.1]
        dp_bo = dm_bo * m_bo,  dW_io = sum_b(l_bi * dp_bo)                                [lognac.1*]
        dx_bi = sum_o(dp_bo * W_io) * sign(x_bi) / (abs(x_bi) + eps)                      [lognac.1*]
        """
        return log_product(x, W, eps=self.eps)  # [lognac.1] [lognac.1*]
