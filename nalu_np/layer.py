"""What a layer is: a pure function with named parameters that returns its value and its vjp.

    y, vjp = layer(params, x)
    dx, dparams = vjp(dy)

Here are the protocol, its two combinators (`chain` and `scan`), the initialisers, the registry by which files
name layers, and the views that let an optimiser see all parameters as one flat vector.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .backend import INIT, Array, Streams, dtype_name, namespace
from .errors import DTypeError, ModelFileError, OptionError, ParameterError, ShapeError

Params = Mapping[str, Array]
Values = dict[str, Array]


class Vjp(Protocol):
    """vjp(dy) -> (dx, dparams); with `need_dx=False` dx is None, which spares a first layer half its work."""

    def __call__(self, dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]: ...


class CellVjp(Protocol):
    """vjp(dy, dstate) -> (dx, dparams, dstate) of one step of a recurrent cell."""

    def __call__(self, dy: Array, dstate: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any], Any]: ...


# --- initialisers: one replica's values of one parameter, drawn in float64 --------------------------------------


def _fans(shape: tuple[int, ...]) -> int:
    return shape[0] + shape[-1]


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """U(-2, 2), as in the articles."""
    return rng.uniform(-2.0, 2.0, shape)


def _truncated_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """N(0, 0.02), drawn again beyond two standard deviations, as in the TensorFlow tutorial."""
    z = rng.standard_normal(shape)
    while (outside := np.abs(z) > 2).any():
        z[outside] = rng.standard_normal(int(outside.sum()))
    return 0.02 * z


def _glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """U(-r, r) with variance 2 / (I + O) (Glorot & Bengio 2010, equation 16)."""
    r = math.sqrt(6 / _fans(shape))
    return rng.uniform(-r, r, shape)


def nac_radius(fans: int) -> float:
    """The r for which W_hat, M_hat ~ U(-r, r) give W = tanh(W_hat) sigma(M_hat) the variance 2 / (I + O).

    Var[W](r) = (1 - tanh(r)/r) (r - tanh(r/2)) / (2 r) stays below 1/2, so I + O counts as 5 at least.
    """
    low, high = 1e-3, 10.0
    for _ in range(60):
        r = (low + high) / 2
        variance = (1 - math.tanh(r) / r) * (r - math.tanh(r / 2)) / (2 * r)
        low, high = (r, high) if variance < 2 / max(fans, 5) else (low, r)
    return r


def _madsen_johansen(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """U(-r, r) with r solved for the variance of W (Madsen & Johansen 2020)."""
    r = nac_radius(_fans(shape))
    return rng.uniform(-r, r, shape)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """N(0, 1)."""
    return rng.standard_normal(shape)


def fan_in_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None
) -> NDArray[np.float64]:
    """U(-r, r) with r = 1 / sqrt(I), the default of PyTorch's Linear (Glorot & Bengio 2010, equation 1)."""
    r = 1 / math.sqrt(shape[0] if fan_in is None else fan_in)
    return rng.uniform(-r, r, shape)


INITIALIZERS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]] = {
    "uniform": _uniform,
    "truncated_normal": _truncated_normal,
    "glorot_uniform": _glorot_uniform,
    "madsen_johansen": _madsen_johansen,
    "normal": _normal,
    "fan_in_uniform": fan_in_uniform,
}


# --- the protocol ---------------------------------------------------------------------------------------------


def check_size(owner: object, name: str, value: object) -> None:
    """Raise OptionError unless a number of features is an integer of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(f"{type(owner).__name__}: {name} must be an integer >= 1, got {value!r:.60}")


def check_choice(owner: object, name: str, value: object, choices: Sequence[str]) -> None:
    """Raise OptionError unless an option is one of its choices."""
    if value not in choices:
        raise OptionError(f"{type(owner).__name__}: {name} must be one of {', '.join(choices)}, got {value!r:.60}")


@dataclass(frozen=True, repr=False)
class Parametric:
    """Named parameters: their shapes, how they are drawn, and the options that rebuild the object.

    A subclass is a frozen dataclass; its fields are its options, and all that a file needs to store.
    """

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter of one replica, by name; every layer defines it."""
        raise NotImplementedError(f"{type(self).__name__} must define shapes()")

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """Initial values of one parameter of one replica, in float64; every layer defines it."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(name, rng)")

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)
        given = [repr(getattr(self, f.name)) for f in fields if not f.kw_only]
        given += [
            f"{f.name}={value!r}" for f in fields if f.kw_only and (value := getattr(self, f.name)) != f.default
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    @classmethod
    def examples(cls) -> Sequence[Parametric]:
        """Small instances that together use every option: what the contract is checked on."""
        return ()

    @property
    def parts(self) -> tuple[Parametric, ...]:
        """What it is made of, where that has parameters of its own kind (a chain's layers, a scan's cell)."""
        return ()

    def penalty(self, params: Params, x: Array, step: int) -> tuple[Array, dict[str, Any]] | None:
        """Regulariser at a step, which counts from 1: its value (S) and its gradient for every name, or None."""
        return None

    def project(self, params: Params) -> Params:
        """Parameters (S, ...), back where they are allowed; `fit` asks after each step of the optimiser."""
        return params

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return self.shapes()

    def init(
        self, seed: int = 0, replicas: int | Sequence[int] | None = None, dtype: Any = "float32"
    ) -> dict[str, Array]:
        """Draw parameters.

        Parameters
        ----------
        seed : int
            Seed of the run.
        replicas : int, sequence of int, or None
            S independent sets with a leading axis S; [17] is replica 17 alone, to the same bits; None is
            replica 0 without the axis.
        dtype : str or dtype
            "float32" or "float64"; it decides the precision of everything computed with them.

        Returns
        -------
        dict
            New arrays by name, (...) or (S, ...), in the library of new arrays.

        Raises
        ------
        OptionError
            If an argument is none of these.
        ShapeError
            If a layer of one's own draws another shape than `shapes()` gives.

        Examples
        --------
        >>> import nalu_np as nn
        >>> {name: value.shape for name, value in nn.NAC(2, 1).init(seed=0, replicas=64).items()}
        {'W_hat': (64, 2, 1), 'M_hat': (64, 2, 1)}
        """
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
            raise OptionError(f"init: seed must be an integer >= 0, got {seed!r:.60}")
        streams = Streams(seed, replicas, INIT)
        return {name: streams.stack(partial(self._drawn, name), dtype_name(dtype)) for name in self._shapes}

    def _drawn(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """What `draw` gives, of the shape that it must have."""
        drawn = self.draw(name, rng)
        if np.shape(drawn) != self._shapes[name]:
            raise ShapeError(
                f"{self!r}: draw({name!r}, rng) gives shape {np.shape(drawn)}, expected {self._shapes[name]}, "
                "that of one replica; change draw() or shapes()"
            )
        return drawn

    def config(self) -> dict[str, Any]:
        """The options in plain JSON types; `from_config` rebuilds an equal object."""
        config: dict[str, Any] = {"type": type(self).__name__}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            config[field.name] = _plain(value)
        return config


def _plain(value: Any) -> Any:
    """An option in JSON types: parts as their own configs, tuples as lists."""
    if isinstance(value, Parametric):
        return value.config()
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, repr=False)
class Layer(Parametric):
    """A pure function of parameters and data. Units subclass it; so can you.

    y, vjp = layer(params, x);  dx, dparams = vjp(dy)

    A subclass defines `shapes`, `draw` and `forward`. Where it is a frozen dataclass, its fields are its options,
    and `nalu_np.layer.register` lets files name it.

    Parameters
    ----------
    in_features, out_features : int
        I and O, for x (B, I) and y (B, O).

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> from nalu_np.vjps import unbroadcast
    >>> class Scale(nn.Layer):  # y = c x, with a c for each column
    ...     def shapes(self):
    ...         return {"c": (self.in_features,)}
    ...     def draw(self, name, rng):
    ...         return rng.uniform(-2, 2, self.in_features)
    ...     def forward(self, params, x, **options):
    ...         c = params["c"][..., None, :]  # (I) -> (1, I)
    ...         def vjp(dy, need_dx=True):
    ...             dc = unbroadcast(dy * x, c)[..., 0, :]
    ...             return (unbroadcast(dy * c, x) if need_dx else None), {"c": dc}
    ...         return c * x, vjp
    >>> y, vjp = Scale(2, 2)({"c": np.array([2.0, 3.0])}, np.ones((1, 2)))
    >>> y, nn.check_layer(Scale(3, 3), examples=5).examples
    (array([[2., 3.]]), 5)
    """

    in_features: int
    out_features: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_size(self, "in_features", self.in_features)
        check_size(self, "out_features", self.out_features)

    @property
    def rank(self) -> int:
        """Axes of x without replicas: 2 for rows (B, I), 3 for sequences (T, B, I)."""
        return 2

    def __call__(
        self, params: Params, x: Array, *, rng: Streams | None = None, train: bool = False
    ) -> tuple[Any, Vjp]:
        """Check the inputs and compute.

        Parameters
        ----------
        params : mapping of str to array
            Shapes as in `shapes()`, or all with S in front.
        x : array
            (B, I), shared by the replicas, or (S, B, I). Same library and dtype as the parameters.
        rng : Streams, optional
            Random numbers for layers that draw them.
        train : bool
            Whether layers that behave differently in training do so.

        Returns
        -------
        y : array
            (B, O), or (S, B, O) where either side has replicas.
        vjp : callable
            `vjp(dy, need_dx=True) -> (dx, dparams)`: dx with the shape of x, dparams with the keys of params.

        Raises
        ------
        ParameterError, ShapeError, DTypeError, MixedBackendError
            Where the inputs do not fit each other.
        """
        self._check(params, x)
        y, vjp = self.forward(params, x, rng=rng, train=train)

        def checked_vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            namespace(dy, y)
            if dy.shape != y.shape:
                raise ShapeError(f"{self!r}: vjp expects dy with the shape of y, {y.shape}, got {dy.shape}")
            if dy.dtype != y.dtype:
                raise DTypeError(f"{self!r}: vjp expects dy with the dtype of y, {y.dtype}, got {dy.dtype}")
            return vjp(dy, need_dx)

        return y, checked_vjp

    def forward(
        self,
        params: Params,
        x: Array,
        *,
        rng: Streams | None = None,
        train: bool = False,
        keep: Values | None = None,
    ) -> tuple[Any, Vjp]:
        """Compute without checks: what training calls, and what a subclass defines.

        Arguments and results are those of a call. Intermediate values go by name into `keep`, where it is given.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(params, x, ...)")

    def surrogate(self, params: Params, x: Array) -> Any:
        """The function whose derivative the vjp is: the layer itself, unless it declares another.

        A layer with a straight-through estimator returns here what it pretends to compute; the gradient
        checker differentiates this.
        """
        return self.forward(params, x)[0]

    def values(self, params: Params, x: Array) -> Values:
        """All intermediate values by their symbols in the paper (W, a, m, g ...), and y.

        Parameters
        ----------
        params : mapping of str to array
            As in a call, (...) or (S, ...).
        x : array
            (B, I) or (S, B, I), as in a call.

        Returns
        -------
        dict
            Arrays by name; those of a chain begin with the layer's position, as in 0.W.

        Raises
        ------
        ParameterError, ShapeError, DTypeError, MixedBackendError
            As from a call.

        Examples
        --------
        >>> import numpy as np, nalu_np as nn
        >>> layer = nn.NALU(2, 1)
        >>> list(layer.values(layer.init(), np.ones((5, 2), "float32")))
        ['W', 'a', 'm', 'g', 'y']
        """
        self._check(params, x)
        keep: Values = {}
        keep["y"] = self.forward(params, x, keep=keep)[0]
        return keep

    def _check(self, params: Params, x: Array) -> None:
        check_names(self, params)
        xp = namespace(x, *params.values())
        lead = check_shapes(self, params)
        dtypes = {value.dtype for value in params.values()}
        if dtypes - {x.dtype}:
            names = ", ".join(sorted(str(dtype) for dtype in dtypes))
            raise DTypeError(
                f"{self!r}: x is {x.dtype}, but the parameters are {names}; convert x, or init(dtype=...)"
            )
        if x.dtype not in (xp.float32, xp.float64):
            raise DTypeError(f"{self!r}: expected float32 or float64, got {x.dtype}")
        axes = {2: "B", 3: "T, B"}.get(self.rank, "...")
        if x.ndim not in (self.rank, self.rank + 1) or x.shape[-1] != self.in_features:
            sizes = f"({axes}, I={self.in_features})"
            wrong_size = x.ndim > 0 and x.shape[-1] != self.in_features
            cure = f"transpose x, or build it for {x.shape[-1]} inputs" if wrong_size else "add or drop an axis"
            raise ShapeError(
                f"{self!r}: x has shape {x.shape}, expected {sizes} or the same with S in front; {cure}"
            )
        if lead and x.ndim > self.rank and x.shape[0] != lead[0]:
            raise ShapeError(
                f"{self!r}: x has {x.shape[0]} replicas, {x.shape}, but the parameters have {lead[0]}"
            )


def check_built(who: str, layer: object) -> None:
    """Raise OptionError unless it is a layer; a class of layers is none yet."""
    if isinstance(layer, type) and issubclass(layer, Layer):
        name = layer.__name__
        raise OptionError(f"{who}: expected a layer, got the class {name}; build it, e.g. {name}(2, 1)")
    if not isinstance(layer, Layer):
        raise OptionError(f"{who}: expected a layer, got {layer!r:.200}")


def check_names(layer: Parametric, params: Params) -> None:
    """Raise ParameterError unless it is a mapping, and its names are the layer's."""
    shapes = layer._shapes
    if not isinstance(params, Mapping):
        raise ParameterError(
            f"{layer!r}: params must be a mapping of names to arrays, got {type(params).__name__}; "
            "call layer(params, x), with params as from init()"
        )
    if params.keys() != shapes.keys():
        missing, unknown = shapes.keys() - params.keys(), params.keys() - shapes.keys()
        raise ParameterError(
            f"{layer!r}: expected parameters {', '.join(shapes)}"
            + (f"; missing: {', '.join(sorted(missing))}" if missing else "")
            + (f"; unknown: {', '.join(sorted(map(str, unknown)))}" if unknown else "")
        )


def check_shapes(layer: Parametric, params: Params) -> tuple[int, ...]:
    """Raise ShapeError unless the shapes are the layer's, all with the same S in front or none: (S,) or ()."""
    leads: set[tuple[int, ...]] = set()
    for name, shape in layer._shapes.items():
        found = tuple(params[name].shape)
        lead = found[: len(found) - len(shape)]
        if lead + shape != found or len(lead) > 1:
            raise ShapeError(f"{layer!r}: {name} has shape {found}, expected {shape} or {('S', *shape)}")
        leads.add(lead)
    if len(leads) > 1:
        counts = ", ".join(str(lead[0]) if lead else "none" for lead in sorted(leads))
        raise ShapeError(f"{layer!r}: the parameters disagree about the number of replicas: {counts}")
    return leads.pop() if leads else ()


@dataclass(frozen=True, repr=False)
class Cell(Parametric):
    """One step of a recurrence, which `scan` repeats along time. Subclass it as you would a `Layer`.

    (y, state_new), vjp = step(params, x, state);  dx, dparams, dstate = vjp(dy, dstate_new)

    A subclass defines `shapes`, `draw`, `start` and `step`. The state is one array, with S and B in front as y has
    them; its last axis is the cell's own.

    Parameters
    ----------
    in_features, out_features : int
        I and O, for x (B, I) and y (B, O) of one step.

    Raises
    ------
    OptionError
        If a size is not an integer of 1 or more.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> class Decay(nn.Cell):  # h_new = x + h / 2,  y = h_new
    ...     def shapes(self):
    ...         return {}
    ...     def start(self, params, x):
    ...         return 0 * x
    ...     def step(self, params, x, state, **options):
    ...         h = x + state / 2
    ...         def vjp(dy, dstate, need_dx=True):
    ...             dh = dy + dstate
    ...             return dh, {}, dh / 2
    ...         return (h, h), vjp
    >>> y, vjp = nn.scan(Decay(1, 1))({}, np.ones((3, 1, 1)))  # T = 3 steps of one row
    >>> y.ravel()
    array([1.  , 1.5 , 1.75])
    """

    in_features: int
    out_features: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_size(self, "in_features", self.in_features)
        check_size(self, "out_features", self.out_features)

    def start(self, params: Params, x: Array) -> Array:
        """The state before the first step; x is the first input, (..., B, I)."""
        raise NotImplementedError(f"{type(self).__name__} must define start(params, x)")

    def step(
        self, params: Params, x: Array, state: Array, *, rng: Streams | None = None, train: bool = False
    ) -> tuple[tuple[Any, Any], CellVjp]:
        """One step of time: ((y, state), vjp), y (..., B, O); `vjp(dy, dstate) -> (dx, dparams, dstate)`."""
        raise NotImplementedError(f"{type(self).__name__} must define step(params, x, state)")


# --- the registry ---------------------------------------------------------------------------------------------

Kind = TypeVar("Kind", bound=type[Parametric])

#: Every layer and cell that a file may name. Files can build these, and nothing else.
REGISTRY: dict[str, type[Parametric]] = {}


def register(cls: Kind) -> Kind:
    """Enter a class into the registry under its own name."""
    REGISTRY[cls.__name__] = cls
    return cls


def from_config(config: object, registry: Mapping[str, type[Parametric]]) -> Parametric:
    """Rebuild what `config()` described, from the classes of a registry.

    Raises
    ------
    ModelFileError
        If the description is not of that form, or names a class that the registry does not hold.
    """
    name = config.get("type") if isinstance(config, dict) else config
    if not isinstance(config, dict) or not isinstance(name, str) or name not in registry:
        raise ModelFileError(
            f"unknown layer {name!r:.60}; known: {', '.join(sorted(registry))}; "
            "one of your own is known by @register, or by registry= where it is loaded"
        )

    def option(value: object) -> object:
        if isinstance(value, dict):
            return from_config(value, registry)
        return tuple(map(option, value)) if isinstance(value, list) else value

    options: dict[str, Any] = {key: option(value) for key, value in config.items() if key != "type"}
    try:
        return registry[name](**options)
    except (TypeError, ValueError) as error:  # an option of the wrong name, type or value
        raise ModelFileError(f"layer {name}: its options are not valid: {error}") from None


# --- combinators ----------------------------------------------------------------------------------------------


@register
@dataclass(frozen=True, init=False, repr=False)
class Chain(Layer):
    """Layers one after the other; see `chain`."""

    layers: tuple[Layer, ...]

    def __init__(self, layers: Sequence[Layer]) -> None:
        layers = tuple(layers)
        if not layers or not all(isinstance(layer, Layer) for layer in layers):
            raise OptionError(f"chain: expected one or more layers, got {layers!r:.200}")
        for before, after in itertools.pairwise(layers):
            if before.out_features != after.in_features or before.rank != after.rank:
                raise OptionError(f"chain: {before!r} does not fit {after!r}, which follows it")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "in_features", layers[0].in_features)
        object.__setattr__(self, "out_features", layers[-1].out_features)

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.layers))})"

    def config(self) -> dict[str, Any]:
        """The layers' options; the sizes follow from them."""
        return {"type": "Chain", "layers": [layer.config() for layer in self.layers]}

    @property
    def parts(self) -> tuple[Parametric, ...]:
        """The layers."""
        return self.layers

    @property
    def rank(self) -> int:
        """Axes of x without replicas."""
        return self.layers[0].rank

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all layers, named 0.W_hat, 1.W_hat ..."""
        return {f"{i}.{n}": s for i, layer in enumerate(self.layers) for n, s in layer.shapes().items()}

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """Drawn by the layer that owns the parameter."""
        i, _, rest = name.partition(".")
        return self.layers[int(i)].draw(rest, rng)

    def part(self, params: Params, i: int) -> Params:
        """Parameters of layer i, under its own names."""
        return {name: params[f"{i}.{name}"] for name in self.layers[i]._shapes}

    def forward(
        self,
        params: Params,
        x: Array,
        *,
        rng: Streams | None = None,
        train: bool = False,
        keep: Values | None = None,
    ) -> tuple[Any, Vjp]:
        """Forward through the layers; the vjp goes back through them."""
        vjps = []
        for i, layer in enumerate(self.layers):
            inner: Values | None = None if keep is None else {}
            x, layer_vjp = layer.forward(self.part(params, i), x, rng=rng, train=train, keep=inner)
            vjps.append(layer_vjp)
            if keep is not None and inner is not None:
                keep.update({f"{i}.{name}": value for name, value in inner.items()}, **{f"{i}.y": x})

        def vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            dparams: dict[str, Any] = {}
            for i in reversed(range(len(vjps))):
                dy, dpart = vjps[i](dy, need_dx or i > 0)
                dparams |= {f"{i}.{name}": value for name, value in dpart.items()}
            return dy, {name: dparams[name] for name in params}

        return x, vjp

    def surrogate(self, params: Params, x: Array) -> Any:
        """The layers' surrogates, one after the other."""
        for i, layer in enumerate(self.layers):
            x = layer.surrogate(self.part(params, i), x)
        return x

    def penalty(self, params: Params, x: Array, step: int) -> tuple[Array, dict[str, Any]] | None:
        """Sum of the layers' penalties, each on its own input."""
        value: Any = None
        dparams: dict[str, Any] = {name: namespace(q).zeros_like(q) for name, q in params.items()}
        last = max((i for i, layer in enumerate(self.layers) if overrides(layer, "penalty")), default=-1)
        for i, layer in enumerate(self.layers[: last + 1]):
            part = self.part(params, i)
            penalty = layer.penalty(part, x, step)
            if penalty is not None:
                value = penalty[0] if value is None else value + penalty[0]
                dparams |= {f"{i}.{name}": dq for name, dq in penalty[1].items()}
            if i < last:
                x, _ = layer.forward(part, x)
        return None if value is None else (value, dparams)

    def project(self, params: Params) -> Params:
        """Every layer's own projection."""
        if not overrides(self, "project"):
            return params
        projected = (layer.project(self.part(params, i)) for i, layer in enumerate(self.layers))
        return {f"{i}.{name}": q for i, part in enumerate(projected) for name, q in part.items()}


def overrides(part: Parametric, method: str) -> bool:
    """Whether a layer or cell, or one inside it, defines a method of its own instead of the default."""
    ours = next(cls for cls in type(part).__mro__ if cls.__module__.startswith(f"{__package__}."))
    if getattr(type(part), method) is getattr(ours, method) and part.parts:  # it passes the question on
        return any(overrides(inner, method) for inner in part.parts)
    return getattr(type(part), method) is not getattr(Parametric, method)


def chain(*layers: Layer) -> Chain:
    """Layers one after the other, as one layer.

    Parameters
    ----------
    *layers : Layer
        Each takes as many inputs as the one before has outputs; all of rows, or all of sequences.

    Returns
    -------
    Layer
        From the inputs of the first to the outputs of the last: (B, I) -> (B, O), or (T, B, I) -> (T, B, O). Its
        parameters are named by position: 0.W_hat, 1.W_hat ...

    Raises
    ------
    OptionError
        If there are none, or two neighbours do not fit.

    Examples
    --------
    >>> import nalu_np as nn
    >>> model = nn.chain(nn.NAC(100, 2), nn.NAC(2, 1))
    >>> list(model.shapes())
    ['0.W_hat', '0.M_hat', '1.W_hat', '1.M_hat']
    """
    return Chain(layers)


@register
@dataclass(frozen=True, init=False, repr=False)
class Scan(Layer):
    """A cell applied along time; see `scan`."""

    cell: Cell

    def __init__(self, cell: Cell) -> None:
        if not isinstance(cell, Cell):
            raise OptionError(f"scan: expected a cell, got {cell!r:.200}")
        object.__setattr__(self, "cell", cell)
        object.__setattr__(self, "in_features", cell.in_features)
        object.__setattr__(self, "out_features", cell.out_features)

    def __repr__(self) -> str:
        return f"scan({self.cell!r})"

    def config(self) -> dict[str, Any]:
        """The cell's options; the sizes follow from them."""
        return {"type": "Scan", "cell": self.cell.config()}

    @property
    def parts(self) -> tuple[Parametric, ...]:
        """The cell."""
        return (self.cell,)

    @property
    def rank(self) -> int:
        """Sequences, (T, B, I)."""
        return 3

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The cell's shapes."""
        return self.cell.shapes()

    def draw(self, name: str, rng: np.random.Generator) -> NDArray[np.float64]:
        """The cell's initial values."""
        return self.cell.draw(name, rng)

    def forward(
        self,
        params: Params,
        x: Array,
        *,
        rng: Streams | None = None,
        train: bool = False,
        keep: Values | None = None,
    ) -> tuple[Any, Vjp]:
        """The same parameters theta at every step, each step's new state h_new both its output and the next state.

        q_tp = theta_p                                                                    [scan.1]
        y_bo = h_new_bo,  state_bo = h_new_bo                                             [scan.2]
        dh_new_bo = dy_bo + dstate_bo                                                     [scan.2*]
        dtheta_p = sum_t(dq_tp)                                                           [scan.1*]

        The vjp goes back through time; after the last step dstate = 0. The cells add dy and dstate themselves.
        """
        xp = namespace(x, *params.values())
        if x.shape[-3] == 0:
            raise ShapeError(f"{self!r}: x has shape {x.shape}, but a sequence needs T >= 1 steps")
        ys, vjps = [], []
        state = self.cell.start(params, x[..., 0, :, :])
        for t in range(x.shape[-3]):
            step = self.cell.step(params, x[..., t, :, :], state, rng=rng, train=train)  # [scan.1]
            (y, state), cell_vjp = step  # [scan.2]
            ys.append(y)
            vjps.append(cell_vjp)

        def vjp(dy: Array, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
            dstate = xp.zeros_like(state)
            dparams: dict[str, Any] = {name: xp.zeros_like(q) for name, q in params.items()}
            dxs = []
            for t in reversed(range(len(vjps))):
                dx, dstep, dstate = vjps[t](dy[..., t, :, :], dstate, need_dx)
                dparams = {name: dparams[name] + dstep[name] for name in params}  # [scan.1*]
                dxs.append(dx)
            return (xp.stack(dxs[::-1], axis=-3) if need_dx else None), dparams

        return xp.stack(ys, axis=-3), vjp

    def penalty(self, params: Params, x: Array, step: int) -> tuple[Array, dict[str, Any]] | None:
        """The cell's."""
        return self.cell.penalty(params, x, step)

    def project(self, params: Params) -> Params:
        """The cell's."""
        return self.cell.project(params)


def scan(cell: Cell) -> Scan:
    """A recurrent cell as a layer of sequences, time first: (T, B, I) -> (T, B, O).

    y_t, h_t = step(x_t, h_{t-1});  the parameters' gradients are summed over time

    Parameters
    ----------
    cell : Cell
        `Accumulator` or `Recurrent` around a layer, `RNN`, `GRU`, `LSTM`, or your own.

    Returns
    -------
    Layer
        With the parameters of the cell; T may differ from call to call, and is 1 or more.

    Raises
    ------
    OptionError
        If it is not a cell.

    Examples
    --------
    >>> import nalu_np as nn
    >>> nn.scan(nn.Accumulator(nn.NAC(2, 1))).shapes()
    {'W_hat': (2, 1), 'M_hat': (2, 1)}
    """
    return Scan(cell)


# --- parameters as one flat vector ----------------------------------------------------------------------------


def flatten(params: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Named parameters (S, ...) as one vector a replica, (S, P); a copy."""
    xp = namespace(*params.values())
    parts = [xp.reshape(params[name], (params[name].shape[0], math.prod(s))) for name, s in shapes.items()]
    return xp.concat(parts, axis=-1)


def views(vector: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Named views (S, ...) into a vector (S, P); nothing is copied."""
    xp = namespace(vector)
    params, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        params[name] = xp.reshape(vector[:, start:stop], (vector.shape[0], *shape))
        start = stop
    return params


def replica(params: Params, r: int) -> dict[str, Any]:
    """Parameters of one replica, without the leading axis.

    Parameters
    ----------
    params : mapping of str to array
        Of S replicas, (S, ...), as from `init` or in a `Result`.
    r : int
        Its position, from 0; below 0 it counts from the end.

    Returns
    -------
    dict
        Arrays (...) by the same names: views, where the library has them.

    Raises
    ------
    IndexError
        On NumPy, if there are not so many.

    Examples
    --------
    >>> import nalu_np as nn
    >>> nn.replica(nn.NAC(2, 1).init(replicas=8), 3)["W_hat"].shape
    (2, 1)
    """
    return {name: value[r, ...] for name, value in params.items()}
