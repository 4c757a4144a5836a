"""Layers along time: two ways to make a cell of a layer, and the read-out of the last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Array, Streams, namespace
from ..errors import OptionError
from ..layer import Cell, CellVjp, Layer, Parametric, Params, Values, Vjp, overrides, register
from ..vjps import unbroadcast
from .dense import Dense


class Around(Parametric):
    """What is made around one layer of rows: it has the layer's parameters, and is stored by the layer alone."""

    layer: Layer

    def __init__(self, layer: Layer) -> None:
        if not isinstance(layer, Layer) or layer.rank != 2:
            raise OptionError(f"{type(self).__name__}: expected a layer of rows (B, I), got {layer!r:.200}")
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "in_features", layer.in_features)
        object.__setattr__(self, "out_features", layer.out_features)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layer!r})"

    def config(self) -> dict[str, Any]:
        """The layer's options; the sizes follow from them."""
        return {"type": type(self).__name__, "layer": self.layer.config()}

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

    def project(self, params: Params) -> Params:
        """The layer's."""
        return self.layer.project(params)


@register
@dataclass(frozen=True, init=False, repr=False)
class Accumulator(Around, Cell):
    """A running sum of what a layer makes of each input, from 0: the wiring in which a NAC counts.

    h_new_bo = h_bo + a_bo                                                                [accumulator.1]
    da_bo = dh_new_bo,  dh_bo = dh_new_bo                                                 [accumulator.1*]

    a is what the layer makes of x_t; h_t is h_new, the output y_t, and the h of the next step.

    Parameters
    ----------
    layer : Layer
        Any layer of rows; the cell has its parameters.

    Raises
    ------
    OptionError
        If it is not a layer of rows.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> model = nn.scan(nn.Accumulator(nn.Dense(1, 1, bias=False)))
    >>> x = np.arange(4.0).reshape(4, 1, 1)                       # T = 4 steps of one row
    >>> model({"W": np.array([[1.0]])}, x)[0].ravel()
    array([0., 1., 3., 6.])
    """

    layer: Layer

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """A running sum of a small dense layer."""
        return (cls(Dense(3, 2, activation="tanh")),)

    def start(self, params: Params, x: Array) -> Array:
        """h_0 = 0, with the shape of one output."""
        return namespace(x).zeros_like(self.layer.forward(params, x)[0])

    def step(
        self, params: Params, x: Array, state: Array, *, rng: Streams | None = None, train: bool = False
    ) -> tuple[tuple[Any, Any], CellVjp]:
        """h_t = h_{t-1} + layer(x_t)."""
        y, layer_vjp = self.layer.forward(params, x, rng=rng, train=train)
        h = state + y  # [accumulator.1]

        def vjp(dy: Array, dstate: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any], Any]:
            dh = dy + dstate  # [scan.2*]
            dx, dparams = layer_vjp(dh, need_dx)  # [accumulator.1*]
            return dx, dparams, dh  # [accumulator.1*]

        return (h, h), vjp

    def penalty(self, params: Params, x: Array, step: int) -> tuple[Array, dict[str, Any]] | None:
        """The layer's, on the rows of all steps together."""
        *lead, T, B, I = x.shape  # noqa: E741
        return self.layer.penalty(params, namespace(x).reshape(x, (*lead, T * B, I)), step)


@register
@dataclass(frozen=True, init=False, repr=False)
class Recurrent(Around, Cell):
    """A layer that sees its own last output beside the input, from 0: the other wiring of a recurrent NAC or NALU.

    h_t = layer([x_t, h_{t-1}]),  y_t = h_t;  [dx_t, dh_{t-1}] = dlayer_t,  the vjp of dh_t = dy_t + dh_t of later

    Parameters
    ----------
    layer : Layer
        Any layer of rows from I + H inputs to H outputs; the cell has its parameters. The first I rows of its
        weights belong to x, the last H to the state.

    Raises
    ------
    OptionError
        If it is not a layer of rows from I + H inputs to H outputs.

    Notes
    -----
    A NAC sums over time only where the weights of its state are 1, which it reaches in the limit alone: after T
    steps a weight of 1 - d has lost about T d / 2 of the sum. `Accumulator` has that 1 built in.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> cell = nn.Recurrent(nn.Dense(2, 1, bias=False))
    >>> x = np.arange(4.0).reshape(4, 1, 1)
    >>> nn.scan(cell)({"W": np.array([[1.0], [10.0]])}, x)[0].ravel()
    array([  0.,   1.,  12., 123.])
    """

    layer: Layer

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        if layer.in_features <= layer.out_features:
            raise OptionError(
                f"Recurrent: the layer takes [x, h], so it needs more inputs than outputs, got {layer!r:.200}"
            )
        object.__setattr__(self, "in_features", layer.in_features - layer.out_features)

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """A small dense layer of three inputs and two states."""
        return (cls(Dense(5, 2, activation="tanh")),)

    def start(self, params: Params, x: Array) -> Array:
        """h_0 = 0."""
        xp = namespace(x)
        return xp.zeros_like(xp.broadcast_to(x[..., :1], (*x.shape[:-1], self.out_features)))

    def step(
        self, params: Params, x: Array, state: Array, *, rng: Streams | None = None, train: bool = False
    ) -> tuple[tuple[Any, Any], CellVjp]:
        """h_t = layer([x_t, h_{t-1}])."""
        h, layer_vjp = self.layer.forward(params, self._beside(x, state), rng=rng, train=train)

        def vjp(dy: Array, dstate: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any], Any]:
            dinput, dparams = layer_vjp(dy + dstate)  # [scan.2*]
            dx = unbroadcast(dinput[..., : self.in_features], x) if need_dx else None
            return dx, dparams, dinput[..., self.in_features :]

        return (h, h), vjp

    def _beside(self, x: Array, h: Array) -> Any:
        """[x, h]; a shared x is repeated for replicas of h."""
        xp = namespace(x, h)
        return xp.concat([xp.broadcast_to(x, (*h.shape[:-1], self.in_features)), h], axis=-1)

    def penalty(self, params: Params, x: Array, step: int) -> tuple[Array, dict[str, Any]] | None:
        """The layer's, on its inputs of all steps together."""
        if not overrides(self.layer, "penalty"):
            return None
        h = self.start(params, x[..., 0, :, :])
        inputs = []
        for t in range(x.shape[-3]):
            inputs.append(self._beside(x[..., t, :, :], h))
            h, _ = self.layer.forward(params, inputs[-1])
        return self.layer.penalty(params, namespace(x).concat(inputs, axis=-2), step)


@register
@dataclass(frozen=True, init=False, repr=False)
class Last(Around, Layer):
    """A layer of rows applied to the last step of a sequence: the read-out of a recurrent network.

    (T, B, I) -> (1, B, O): y = layer(x_T);  dx_T = dlayer, and dx_t = 0 at all other steps

    Parameters
    ----------
    layer : Layer
        Any layer of rows, or a chain of them; it has its parameters.

    Raises
    ------
    OptionError
        If it is not a layer of rows.

    Notes
    -----
    y is a sequence of one step, so that layers of sequences chain, and `fit` trains them on y (1, N, O).

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> dense = nn.Dense(1, 1, bias=False)
    >>> model = nn.chain(nn.scan(nn.Accumulator(dense)), nn.Last(dense))
    >>> x = np.arange(4.0).reshape(4, 1, 1)                       # T = 4 steps of one row
    >>> model({"0.W": np.array([[1.0]]), "1.W": np.array([[10.0]])}, x)[0]
    array([[[60.]]])
    """

    layer: Layer

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """The last step of a small dense layer."""
        return (cls(Dense(3, 2, activation="tanh")),)

    @property
    def rank(self) -> int:
        """Sequences, (T, B, I)."""
        return 3

    def forward(
        self,
        params: Params,
        x: Array,
        *,
        rng: Streams | None = None,
        train: bool = False,
        keep: Values | None = None,
    ) -> tuple[Any, Vjp]:
        """y = layer(x_T)."""
        y, layer_vjp = self.layer.forward(params, x[..., -1, :, :], rng=rng, train=train, keep=keep)

        def vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            dlast, dparams = layer_vjp(dy[..., 0, :, :], need_dx)
            if not need_dx:
                return None, dparams
            xp = namespace(dlast)
            before = xp.zeros_like(x[..., :-1, :, :])
            return xp.concat([before, dlast[..., None, :, :]], axis=-3), dparams

        return y[..., None, :, :], vjp

    def penalty(self, params: Params, x: Array, step: int) -> tuple[Array, dict[str, Any]] | None:
        """The layer's, on the last step."""
        return self.layer.penalty(params, x[..., -1, :, :], step)
