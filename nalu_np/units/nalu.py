"""NALU: a gate between a sum and a product of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Array
from ..errors import OptionError
from ..layer import INITIALIZERS, Layer, Parametric, Params, Values, Vjp, check_choice, register
from ..vjps import abs_gate, gate, independent_gate, linear, log_product, mix, nac_weight
from .nac import set_eps

GATES = {"matrix": gate, "scalar": gate, "abs": abs_gate, "independent": independent_gate}


@register
@dataclass(frozen=True, repr=False)
class NALU(Layer):
    """Neural arithmetic logic unit: adds, subtracts, multiplies, divides or takes roots, as its gate decides.

    y = g * a + (1 - g) * m,  a = x @ W,  m = exp(log(abs(x) + eps) @ W)
    g = sigma(x @ G),  W = tanh(W_hat) * sigma(M_hat)

    Parameters
    ----------
    in_features, out_features : int
        I and O. Parameters: W_hat, M_hat (I, O) and G; not tied: W_hat_a, M_hat_a, W_hat_m, M_hat_m and G.
    tied : bool
        One W for both paths, as in the paper, or a NAC for each, as in the articles.
    gate : str
        "matrix": g = sigma(x G), G (I, O), a choice for each output. "scalar": G (I, 1), one choice a row.
        "abs": g = sigma(|x| G). "independent": g = sigma(G), G (O), the same for every row.
    eps : float
        Keeps the logarithm finite at x = 0.
    initializer : str
        As for NAC, for all parameters; with "madsen_johansen" G is Glorot uniform, as theirs is.

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more, or an option has a value outside its choices.

    Notes
    -----
    Exact gradient but at the kink x = 0, where sign(0) = 0 by convention. The gate has no bias: g(0) = 1/2, and
    with "matrix" or "scalar" g(-x) = 1 - g(x), so that an input-dependent gate may flip on inputs beyond those
    of training. The product path is blind to signs.

    References
    ----------
    Trask et al. 2018, Neural Arithmetic Logic Units, section 2, equation (2) and figure 2.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> layer = nn.NALU(2, 1, gate="independent")
    >>> big = np.full((2, 1), 20.0)
    >>> x = np.array([[3.0, 4.0]])
    >>> layer({"W_hat": big, "M_hat": big, "G": np.array([40.0])}, x)[0].round(5)
    array([[7.]])
    >>> layer({"W_hat": big, "M_hat": big, "G": np.array([-40.0])}, x)[0].round(5)
    array([[12.]])
    """

    _: KW_ONLY
    tied: bool = True
    gate: str = "matrix"
    eps: float = 1e-7
    initializer: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tied, bool):
            raise OptionError(f"NALU: tied must be True or False, got {self.tied!r}")
        check_choice(self, "gate", self.gate, list(GATES))
        check_choice(self, "initializer", self.initializer, list(INITIALIZERS))
        set_eps(self)

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """Every gate, tied and not, with an eps that counts; the first is the default."""
        return cls(3, 2), *(
            cls(3, 2, gate=kind, tied=tied, eps=0.01) for kind, tied in product(GATES, (True, False))
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The weights, (I, O), and G."""
        weights = ("W_hat", "M_hat") if self.tied else ("W_hat_a", "M_hat_a", "W_hat_m", "M_hat_m")
        matrix = (self.in_features, self.out_features)
        G = {"scalar": (self.in_features, 1), "independent": (self.out_features,)}.get(self.gate, matrix)
        return {**dict.fromkeys(weights, matrix), "G": G}

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """By the chosen initialiser."""
        solved = name == "G" and self.initializer == "madsen_johansen"
        return INITIALIZERS["glorot_uniform" if solved else self.initializer](rng, self._shapes[name])

    def forward(self, params: Params, x: Array, *, keep: Values | None = None, **_: Any) -> tuple[Any, Vjp]:
        """Two paths and a gate between them; with tied weights W_a = W_m = W, and dW is the sum of both.

        W_io = tanh(W_hat_io) * sigma(M_hat_io)                                           [nalu.1]
        a_bo = sum_i(x_bi * W_io)                                                         [nalu.2]
        l_bi = log(abs(x_bi) + eps),  p_bo = sum_i(l_bi * W_io),  m_bo = exp(p_bo)        [nalu.3]
        z_bo = sum_i(x_bi * G_io),  g_bo = sigma(z_bo)                                    [nalu.4]
        y_bo = g_bo * a_bo + (1 - g_bo) * m_bo                                            [nalu.5]
        dg_bo = dy_bo * (a_bo - m_bo),  da_bo = dy_bo * g_bo,  dm_bo = dy_bo * (1 - g_bo) [nalu.5*]
        dz_bo = dg_bo * g_bo * (1 - g_bo),  dG_io = sum_b(x_bi * dz_bo),  dx_g_bi = sum_o(dz_bo * G_io) [nalu.4*]
        dp_bo = dm_bo * m_bo,  dW_m_io = sum_b(l_bi * dp_bo)                              [nalu.3*]
        dx_m_bi = sum_o(dp_bo * W_io) * sign(x_bi) / (abs(x_bi) + eps)                    [nalu.3*]
        dW_a_io = sum_b(x_bi * da_bo),  dx_a_bi = sum_o(da_bo * W_io)                     [nalu.2*]
        dW_io = dW_a_io + dW_m_io                                                         [nalu.1*]
        dW_hat_io = dW_io * (1 - tanh(W_hat_io)**2) * sigma(M_hat_io)                     [nalu.1*]
        dM_hat_io = dW_io * W_io * (1 - sigma(M_hat_io))                                  [nalu.1*]
        dx_bi = dx_a_bi + dx_m_bi + dx_g_bi                                               [nalu.0*]
        """
        a_names = ("W_hat", "M_hat") if self.tied else ("W_hat_a", "M_hat_a")
        m_names = ("W_hat_m", "M_hat_m")
        W_a, weight_a_vjp = nac_weight(*(params[name] for name in a_names))  # [nalu.1]
        W_m, weight_m_vjp = (W_a, weight_a_vjp) if self.tied else nac_weight(*(params[n] for n in m_names))
        a, sum_vjp = linear(x, W_a)  # [nalu.2]
        m, product_vjp = log_product(x, W_m, eps=self.eps)  # [nalu.3]
        g, gate_vjp = GATES[self.gate](x, params["G"])  # [nalu.4]
        y, mix_vjp = mix(g, a, m)  # [nalu.5]

        def vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            dg, da, dm = mix_vjp(dy)  # [nalu.5*]
            dx_g, dG = gate_vjp(dg, need_dx)  # [nalu.4*]
            dx_m, dW_m = product_vjp(dm, need_dx)  # [nalu.3*]
            dx_a, dW_a = sum_vjp(da, need_dx)  # [nalu.2*]
            if self.tied:
                dweights = dict(zip(a_names, weight_a_vjp(dW_a + dW_m), strict=True))  # [nalu.1*]
            else:
                dweights = dict(zip(a_names, weight_a_vjp(dW_a), strict=True))
                dweights |= zip(m_names, weight_m_vjp(dW_m), strict=True)
            dx = dx_a + dx_m + dx_g if need_dx else None  # [nalu.0*]
            return dx, {**dweights, "G": dG}

        if keep is not None:
            keep.update({"W": W_a} if self.tied else {"W_a": W_a, "W_m": W_m}, a=a, m=m, g=g)
        return y, vjp
