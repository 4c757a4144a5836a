"""Dense: the ordinary layer that arithmetic units are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Array, namespace
from ..errors import OptionError
from ..layer import INITIALIZERS, Layer, Parametric, Params, Values, Vjp, check_choice, fan_in_uniform, register
from ..vjps import ACTIVATIONS, crelu, linear, prelu, unbroadcast

CHOICES = (*ACTIVATIONS, "prelu", "crelu")


@register
@dataclass(frozen=True, repr=False)
class Dense(Layer):
    """An affine map and an activation.

    y = f(x W + b)

    Parameters
    ----------
    in_features, out_features : int
        I and O. Parameters: W (I, O) and, with a bias, b (O); with "prelu" also its slope alpha (1).
    activation : str
        "identity", "relu", "relu6", "tanh", "sigmoid", "hardtanh", "softsign", "threshold", "elu", "selu",
        "softshrink", "hardshrink", "tanhshrink", "leakyrelu", "softplus", "prelu" or "crelu".
    bias : bool
        Whether there is a b; it starts at 0, with "fan_in_uniform" drawn as W.
    initializer : str
        Of W; as for NAC.

    Raises
    ------
    OptionError
        If an option has a value outside its choices, or with "crelu" O is odd.

    Notes
    -----
    What each activation computes, and its slope at a kink, is stated in `nalu_np.vjps`; numbers and conventions
    are PyTorch's. relu, relu6, hardtanh and the shrinks have slope 0 at their kinks; leakyrelu, prelu and selu
    the slope of their lower side. threshold and hardshrink jump, and their slope does not see it. prelu has one
    alpha for the whole layer, at first 1/4.

    crelu gives each unit two outputs: O must be even, W is (I, O / 2), and y is first the positive parts of all
    units and then the negative ones, max(-z, 0).

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> params = {"W": np.array([[2.0], [1.0]]), "b": np.array([-4.0])}
    >>> x = np.array([[1.0, 1.0], [3.0, 1.0]])
    >>> nn.Dense(2, 1, activation="relu")(params, x)[0]
    array([[0.],
           [3.]])
    >>> nn.Dense(2, 2, activation="crelu")(params, x)[0]
    array([[0., 1.],
           [3., 0.]])
    """

    _: KW_ONLY
    activation: str = "identity"
    bias: bool = True
    initializer: str = "glorot_uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "activation", self.activation, CHOICES)
        check_choice(self, "initializer", self.initializer, list(INITIALIZERS))
        if not isinstance(self.bias, bool):
            raise OptionError(f"Dense: bias must be True or False, got {self.bias!r}")
        if self.activation == "crelu" and self.out_features % 2:
            raise OptionError(
                f"Dense: crelu gives each unit two outputs, so out_features must be even, got {self.out_features}"
            )

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """Every activation, and one without a bias."""
        return (*(cls(3, 2, activation=name) for name in CHOICES), cls(2, 3, bias=False))

    @property
    def units(self) -> int:
        """Columns of W."""
        return self.out_features // 2 if self.activation == "crelu" else self.out_features

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """W (I, O), b (O) and alpha (1)."""
        b = {"b": (self.units,)} if self.bias else {}
        alpha = {"alpha": (1,)} if self.activation == "prelu" else {}
        return {"W": (self.in_features, self.units), **b, **alpha}

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """W by the chosen initialiser; b = 0, or drawn as W where that is PyTorch's; alpha = 1/4."""
        shape = self._shapes[name]
        if name == "alpha":
            return np.full(shape, 0.25)
        if name == "b":
            drawn = self.initializer == "fan_in_uniform"
            return fan_in_uniform(rng, shape, self.in_features) if drawn else np.zeros(shape)
        return INITIALIZERS[self.initializer](rng, shape)

    def forward(self, params: Params, x: Array, *, keep: Values | None = None, **_: Any) -> tuple[Any, Vjp]:
        """y = f(x W + b)."""
        z, sum_vjp = linear(x, params["W"])
        if self.bias:
            z = z + params["b"][..., None, :]
        y, activation_vjp = self._activate(params, z)

        def vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            dz, *dalpha = activation_vjp(dy)
            dx, dW = sum_vjp(dz, need_dx)
            db = [unbroadcast(namespace(dz).sum(dz, axis=-2), params["b"])] if self.bias else []
            return dx, dict(zip(self._shapes, (dW, *db, *dalpha), strict=True))

        if keep is not None:
            keep.update(z=z)
        return y, vjp

    def _activate(self, params: Params, z: Array) -> tuple[Any, Callable[[Array], tuple[Any, ...]]]:
        """y = f(z);  vjp(dy) -> (dz), with prelu (dz, dalpha)."""
        if self.activation == "prelu":
            return prelu(z, params["alpha"])
        y, vjp = crelu(z) if self.activation == "crelu" else ACTIVATIONS[self.activation](z)
        return y, lambda dy: (vjp(dy),)
