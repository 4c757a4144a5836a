"""Recurrent cells: what a layer does along time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Array, Streams, namespace
from ..errors import OptionError
from ..layer import Cell, CellVjp, Layer, Parametric, Params, register
from .dense import Dense


@register
@dataclass(frozen=True, init=False, repr=False)
class Accumulator(Cell):
    """A running sum of what a layer makes of each input, from 0: the wiring in which a NAC counts.

    h_t = h_{t-1} + layer(x_t),  y_t = h_t;  dlayer_t = dh_t = dy_t + dh_{t+1}

    Parameters
    ----------
    layer : Layer
        Any layer of rows; the cell has its parameters.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> model = nn.scan(nn.Accumulator(nn.Dense(1, 1, bias=False)))
    >>> x = np.arange(4.0).reshape(4, 1, 1)                       # T = 4 steps of one row
    >>> model({"W": np.array([[1.0]])}, x)[0].ravel()
    array([0., 1., 3., 6.])
    """

    layer: Layer

    def __init__(self, layer: Layer) -> None:
        if not isinstance(layer, Layer) or layer.rank != 2:
            raise OptionError(f"Accumulator: expected a layer of rows (B, I), got {layer!r:.200}")
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "in_features", layer.in_features)
        object.__setattr__(self, "out_features", layer.out_features)

    def __repr__(self) -> str:
        return f"Accumulator({self.layer!r})"

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """A running sum of a small dense layer."""
        return (cls(Dense(3, 2, activation="tanh")),)

    def config(self) -> dict[str, Any]:
        """The layer's options; the sizes follow from them."""
        return {"type": "Accumulator", "layer": self.layer.config()}

    @property
    def parts(self) -> tuple[Parametric, ...]:
        """The layer."""
        return (self.layer,)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The layer's shapes."""
        return self.layer.shapes()

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """The layer's initial values."""
        return self.layer.draw(name, rng)

    def start(self, params: Params, x: Array) -> Array:
        """h_0 = 0, with the shape of one output."""
        return namespace(x).zeros_like(self.layer.forward(params, x)[0])

    def step(
        self, params: Params, x: Array, state: Array, *, rng: Streams | None = None, train: bool = False
    ) -> tuple[tuple[Any, Any], CellVjp]:
        """h_t = h_{t-1} + layer(x_t)."""
        y, layer_vjp = self.layer.forward(params, x, rng=rng, train=train)
        h = state + y

        def vjp(dy: Array, dstate: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any], Any]:
            dh = dy + dstate
            dx, dparams = layer_vjp(dh, need_dx)
            return dx, dparams, dh

        return (h, h), vjp

    def penalty(self, params: Params, x: Array, step: int) -> tuple[Array, dict[str, Any]] | None:
        """The layer's, on the rows of all steps together."""
        *lead, T, B, I = x.shape  # noqa: E741
        return self.layer.penalty(params, namespace(x).reshape(x, (*lead, T * B, I)), step)

    def project(self, params: Params) -> Params:
        """The layer's."""
        return self.layer.project(params)
