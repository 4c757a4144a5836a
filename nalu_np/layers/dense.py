"""Dense: the ordinary layer that arithmetic units are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Array, namespace
from ..errors import OptionError
from ..layer import INITIALIZERS, Layer, Parametric, Params, Values, Vjp, check_choice, register
from ..vjps import ACTIVATIONS, linear, unbroadcast


@register
@dataclass(frozen=True, repr=False)
class Dense(Layer):
    """An affine map and an activation.

    y = f(x W + b)

    Parameters
    ----------
    in_features, out_features : int
        I and O. Parameters: W (I, O) and, with a bias, b (O).
    activation : str
        "identity", "relu", "relu6", "tanh" or "sigmoid".
    bias : bool
        Whether there is a b; it starts at 0.
    initializer : str
        Of W; as for NAC.

    Notes
    -----
    The slope of relu and relu6 at their kinks is 0.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> params = {"W": np.array([[2.0], [1.0]]), "b": np.array([-4.0])}
    >>> nn.Dense(2, 1, activation="relu")(params, np.array([[1.0, 1.0], [3.0, 1.0]]))[0]
    array([[0.],
           [3.]])
    """

    _: KW_ONLY
    activation: str = "identity"
    bias: bool = True
    initializer: str = "glorot_uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "activation", self.activation, list(ACTIVATIONS))
        check_choice(self, "initializer", self.initializer, list(INITIALIZERS))
        if not isinstance(self.bias, bool):
            raise OptionError(f"Dense: bias must be True or False, got {self.bias!r}")

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """Every activation, and one without a bias."""
        return (*(cls(3, 2, activation=name) for name in ACTIVATIONS), cls(2, 3, bias=False))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """W (I, O) and b (O)."""
        b = {"b": (self.out_features,)} if self.bias else {}
        return {"W": (self.in_features, self.out_features), **b}

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """W by the chosen initialiser, b = 0."""
        shape = self._shapes[name]
        return np.zeros(shape) if name == "b" else INITIALIZERS[self.initializer](rng, shape)

    def forward(self, params: Params, x: Array, *, keep: Values | None = None, **_: Any) -> tuple[Any, Vjp]:
        """y = f(x W + b)."""
        z, sum_vjp = linear(x, params["W"])
        if self.bias:
            z = z + params["b"][..., None, :]
        y, activation_vjp = ACTIVATIONS[self.activation](z)

        def vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            dz = activation_vjp(dy)
            dx, dW = sum_vjp(dz, need_dx)
            if not self.bias:
                return dx, {"W": dW}
            return dx, {"W": dW, "b": unbroadcast(namespace(dz).sum(dz, axis=-2), params["b"])}

        if keep is not None:
            keep.update(z=z)
        return y, vjp
