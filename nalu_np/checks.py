"""The gradient checker, and the contract that every layer must pass.

A derivative is measured along a random direction v, one for each named argument, in float64:

    n(h) = (L(q - 2 h v) - 8 L(q - h v) + 8 L(q + h v) - L(q + 2 h v)) / (12 h),   L(q) = sum(dy * y(q))

at h and h / 2, extrapolated, and compared with the vjp's sum(dq * v): relative to the larger of the two, but never
finer than the rounding of L allows. A long step may bend or cross a kink and a short one drowns in rounding, but a
wrong slope is wrong at every step: it is accused only where the measurements at two steps have settled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import Array, from_numpy, library, to_numpy
from .errors import GradientError, OptionError
from .layer import REGISTRY, Cell, Layer, Parametric, Vjp, chain, check_built, from_config, scan

Host = NDArray[Any]
HostParams = dict[str, Host]

STEPS = (1e-3, 1e-2, 1e-4, 1e-5, 1e-6)  # a later one counts where an earlier one leaves doubt
TOLERANCE = 1e-6
SETTLED = 1e-7  # how near two measurements of a slope must be


class _KinkError(Exception):
    """The measured derivative does not settle: the point lies at a kink, or rounding is all there is."""


@dataclass(frozen=True)
class Report:
    """What was checked, and the largest scaled error of each argument's gradient.

    Attributes
    ----------
    layer : str
        The layer, as it prints itself.
    examples : int
        Points at which everything was checked.
    errors : dict
        Argument to largest error, relative to the gradient along the direction.

    Examples
    --------
    >>> import nalu_np as nn
    >>> report = nn.gradcheck(nn.NAC(2, 1))
    >>> report.layer, report.examples, bool(max(report.errors.values()) < 1e-6)
    ('NAC(2, 1)', 1, True)
    """

    layer: str
    examples: int
    errors: dict[str, float]

    def __str__(self) -> str:
        name = max(self.errors, key=lambda name: self.errors[name])
        return f"{self.layer}: {self.examples} examples, largest error {self.errors[name]:.1e} in d{name}"


def directional_error(value: Callable[[float], float], slope: float, magnitude: float) -> float:
    """Scaled difference between a claimed slope of `value` at 0 and the measured one.

    Parameters
    ----------
    value : callable
        L as a function of the distance along the direction.
    slope : float
        The derivative of L at 0 that is claimed.
    magnitude : float
        Sum of the absolute terms of L, from which its rounding error follows.

    Returns
    -------
    float
        |measured - slope| relative to the larger of the two, or to where rounding begins to count.

    Raises
    ------
    _KinkError
        If the measured slope settles at too few steps to say so.
    """
    middle = value(0.0)

    def around(t: float) -> tuple[float, float]:
        ahead, behind = value(t), value(-t)
        return ahead - behind, ahead - 2 * middle + behind

    errors: list[float] = []
    for h in STEPS:
        (half, half_bend), (one, one_bend), (two, _) = around(h / 2), around(h), around(2 * h)
        coarse, fine = (8 * one - two) / (12 * h), (8 * half - one) / (6 * h)
        rounding = 32 * np.finfo(np.float64).eps * magnitude / h
        scale = max(abs(slope), abs(fine), np.finfo(np.float64).tiny)
        # Where L is smooth its bend shrinks with the square of the step; at a kink, with the step alone.
        jump = (4 * half_bend - one_bend) / h
        settled = max(abs(coarse - fine), abs(jump)) <= SETTLED * scale + rounding
        # A short step at which rounding is all there is must not forgive what a long one has seen.
        blind = errors and h < STEPS[0] and rounding > TOLERANCE * scale
        if blind or not settled:
            continue
        errors.append(abs(fine + (fine - coarse) / 15 - slope) / (scale + rounding / TOLERANCE))
        if errors[-1] <= TOLERANCE / 100:
            break
    if math.isfinite(middle) and not math.isfinite(slope):
        return math.inf
    error = min(errors, default=math.inf)
    if error > TOLERANCE and len(errors) < 2:
        raise _KinkError
    # What no step forgives is told as the step says that rounding has blurred least: 2 for a flipped sign.
    return error if error <= TOLERANCE else max(errors, default=math.inf)


def gradcheck(
    layer: Layer,
    params: Mapping[str, Any] | None = None,
    x: Any = None,
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    full: bool = False,
) -> Report:
    """Compare a layer's vjp with finite differences in float64.

    Parameters
    ----------
    layer : Layer
        Its `surrogate` is what the vjp must be the derivative of: by default the layer itself.
    params, x : mapping and array, optional
        The point; drawn at random, away from kinks where that can be had, if left out. Parameters (...) or
        (S, ...), x (B, I) or (S, B, I); in any dtype, computed with in float64.
    seed : int
        Of the point, the cotangent and the directions.
    tolerance : float
        Largest scaled error allowed.
    full : bool
        Check every entry of every argument, instead of one random direction in each.

    Returns
    -------
    Report

    Raises
    ------
    GradientError
        If a gradient is not the derivative; the message names the argument. Also at a given point whose slope
        cannot be measured: a kink, an overflow. And if `forward` or the vjp returns no pair of the right kinds.
    OptionError
        If it is no layer, but a class, say, or params is no mapping.
    ParameterError, ShapeError, DTypeError
        If a given point does not fit the layer.

    Examples
    --------
    >>> import nalu_np as nn
    >>> list(nn.gradcheck(nn.NALU(2, 1)).errors)
    ['W_hat', 'M_hat', 'G', 'x']
    """
    check_built("gradcheck", layer)
    if not isinstance(params, Mapping | None):
        raise OptionError(
            f"gradcheck: params must be a mapping of names to arrays, got {type(params).__name__}; "
            "call gradcheck(layer, params, x)"
        )
    rng = np.random.default_rng(seed)
    for _ in range(20):
        given_params = _draw_params(layer, rng) if params is None else _doubles(params)
        given_x = _draw_x(layer, rng, 3) if x is None else to_numpy(x).astype(np.float64)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                errors = _gradients(layer, given_params, given_x, rng, full)
        except _KinkError:
            if params is not None and x is not None:
                break
            continue
        largest = {name: float(np.max(scaled)) for name, scaled in errors.items()}
        wrong = [name for name, error in largest.items() if not error <= tolerance]
        if wrong:
            name, *others = wrong
            shape = {**given_params, "x": given_x}[name].shape
            worst = int(np.argmax(errors[name]))
            entry = [int(i) for i in np.unravel_index(worst, shape)] if full else ""
            too = (
                f"; nor {'are' if others[1:] else 'is'} {', '.join(f'd{other}' for other in others)}"
                if others
                else ""
            )
            raise GradientError(
                f"{layer!r}: d{name}{entry} is not the derivative: it differs by {largest[name]:.1e} of its "
                f"size from the measured slope (allowed {tolerance:.0e}){too}"
            )
        return Report(repr(layer), 1, largest)
    raise GradientError(
        f"{layer!r}: the measured slope does not settle; the point lies at a kink, overflows or is all rounding"
    )


def check_layer(layer: Layer, *, seed: int = 0, examples: int = 1) -> Report:
    """Check the whole contract of a layer at random points, in its gradient and beyond.

    Options that rebuild the layer, and initial values that do not depend on other replicas; the gradient of every
    argument; shapes, names and dtypes; a vjp that is linear, gives zeros for zeros, gives the same bits twice, and
    is not disturbed by another; inputs left alone, read-only, or strided; replicas stacked or one by one, to the
    same bits; what replicas share gets the sum of their gradients; rows permuted, single or none; float32 near
    float64; a projection that is idempotent and a penalty whose gradient is its derivative.

    Parameters
    ----------
    layer : Layer
        Registered or not.
    seed : int
        Of all random points.
    examples : int
        Number of points: shapes, ordinary, small, large and saturated values.

    Returns
    -------
    Report

    Raises
    ------
    GradientError
        At the first clause that does not hold; the message says which. It carries what the layer itself raised.
    OptionError
        If it is no layer, but a class, say, or if examples is less than 1.

    Examples
    --------
    >>> import nalu_np as nn
    >>> nn.check_layer(nn.NAC(3, 2), examples=5).examples
    5
    """
    check_built("check_layer", layer)
    if examples < 1:
        raise OptionError(f"check_layer: examples must be 1 or more, got {examples!r}")
    worst: dict[str, float] = {}
    with _clause(layer, "options"):
        _check_options(layer, seed)
    for example in range(examples):
        rng = np.random.default_rng((seed, example))
        with _clause(layer, "gradient"):
            report = gradcheck(layer, seed=int(rng.integers(2**31)))
            case = _Case(layer, rng)
        for name, error in report.errors.items():
            worst[name] = max(worst.get(name, 0.0), error)
        for clause in (
            case.shapes,
            case.inputs_untouched,
            case.read_only,
            case.vjp_properties,
            case.strides,
            case.replicas,
            case.shared,
            case.rows,
            case.no_rows,
            case.precision,
            case.projection,
            case.penalties,
        ):
            with _clause(layer, clause.__name__):
                clause()
    return Report(repr(layer), examples, worst)


@contextmanager
def _clause(layer: Layer, name: str) -> Iterator[None]:
    """Any error becomes a GradientError that names the clause; overflow is none."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except GradientError:
        raise
    except Exception as error:
        raise GradientError(f"{layer!r}: {name}: {type(error).__name__}: {error}") from error


# --- points -----------------------------------------------------------------------------------------------------


def _host(arrays: Mapping[str, Any]) -> HostParams:
    return {name: to_numpy(array) for name, array in arrays.items()}


def _doubles(arrays: Mapping[str, Any]) -> HostParams:
    return {name: array.astype(np.float64) for name, array in _host(arrays).items()}


def _host_gradients(dx: Any, dparams: Mapping[str, Any]) -> HostParams:
    given = {} if dx is None else {"dx": dx}
    return _host({**given, **{f"d{name}": value for name, value in dparams.items()}})


def _device(arrays: Mapping[str, Host], dtype: str = "float64") -> dict[str, Array]:
    return {name: from_numpy(array, dtype) for name, array in arrays.items()}


def _draw_params(layer: Layer, rng: np.random.Generator, replicas: int | None = None) -> HostParams:
    """Ordinary, small or saturated values, of both signs."""
    scale = rng.choice([0.1, 1.0, 1.0, 4.0])
    lead = () if replicas is None else (replicas,)
    drawn = {name: scale * rng.normal(size=(*lead, *shape)) for name, shape in layer.shapes().items()}
    return _host(layer.project(_device(drawn)))


def _draw_x(layer: Layer, rng: np.random.Generator, rows: int, replicas: int | None = None) -> Host:
    """Small, ordinary or large values of both signs, away from 0, where units have their kinks."""
    lead = () if replicas is None else (replicas,)
    steps = () if layer.rank == 2 else (3,)
    shape = (*lead, *steps, rows, layer.in_features)
    signs = rng.choice([-1.0, 1.0], shape) if rng.integers(4) else 1.0
    return np.asarray(rng.choice([0.05, 1.0, 1.0, 20.0]) * rng.uniform(0.5, 2.0, shape) * signs)


def _direction(point: Host, rng: np.random.Generator) -> Host:
    """Steps relative to each entry, so that a small x is not carried across the kink at 0."""
    signs = rng.choice([-1.0, 1.0], point.shape)
    return np.asarray(rng.uniform(0.5, 1.5, point.shape) * signs * (np.abs(point) + 0.01))


def _called(layer: Layer, params: dict[str, Array], x: Array) -> tuple[Array, Vjp]:
    """What a call gives, once it is known that it can: the forward pass gives y and vjp."""
    layer._check(params, x)
    given: Any = layer.forward(params, x)
    right = isinstance(given, tuple | list) and len(given) == 2 and library(given[0]) and callable(given[1])
    _require(bool(right), layer, f"forward() must return y, vjp: an array and a function, got {_told(given)}")
    return layer(params, x)


def _pulled(layer: Layer, vjp: Vjp, dy: Array, need_dx: bool = True) -> tuple[Any, Mapping[str, Any]]:
    """What a vjp gives: dx and a dict of arrays."""
    given: Any = vjp(dy, need_dx=need_dx)
    right = isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[1], Mapping)
    _require(right, layer, f"vjp(dy) must return dx, dparams: an array and a dict of arrays, got {_told(given)}")
    for name, array in {**given[1], **({} if given[0] is None else {"x": given[0]})}.items():
        _require(library(array) is not None, layer, f"vjp(dy) must give d{name} as an array, got {_told(array)}")
    return given[0], given[1]


def _told(given: object) -> str:
    """Types alone: values may fill a screen."""
    return f"({', '.join(map(_told, given))})" if isinstance(given, tuple) else type(given).__name__


def _gradients(
    layer: Layer, params: HostParams, x: Host, rng: np.random.Generator, full: bool
) -> dict[str, list[float]]:
    """Scaled errors of each argument's gradient, along one direction or along every axis."""
    _require("x" not in params, layer, "no parameter may have the name x")
    arguments = {**params, "x": x}
    y, vjp = _called(layer, _device(params), from_numpy(x, "float64"))
    dy = rng.normal(size=y.shape)
    dx, dparams = _pulled(layer, vjp, from_numpy(dy, "float64"))
    _require(dx is not None, layer, "vjp(dy) must give dx")
    _require(dparams.keys() == params.keys(), layer, f"dparams must have the names {list(params)}")
    gradients = _host({**dparams, "x": dx})

    def terms(name: str, shift: Host | float) -> Host:
        """The terms of L = sum(dy * y), with one argument shifted."""
        moved = _device({**arguments, name: arguments[name] + shift})
        return np.asarray(dy * to_numpy(layer.surrogate(moved, moved.pop("x"))))

    # What is far below 1 counts as rounding: a sigmoid may stop at 2e-35, and its vjp need not know.
    magnitude = float(np.abs(terms("x", 0.0)).sum()) + 1e-20
    errors: dict[str, list[float]] = {}
    for name, point in arguments.items():
        found = gradients[name].shape
        _require(found == point.shape, layer, f"d{name} has shape {found}, not {point.shape}")
        reach = _direction(point, rng)
        axes = np.ones((1, *point.shape))
        if full and point.size:
            axes = np.eye(point.size).reshape(-1, *point.shape)
        errors[name] = []
        for axis in axes:
            v = axis * reach

            def value(t: float, name: str = name, v: Host = v) -> float:
                return float(terms(name, t * v).sum())

            slope = float(np.sum(gradients[name] * v))
            errors[name].append(directional_error(value, slope, magnitude))
    return errors


# --- the contract -----------------------------------------------------------------------------------------------


def _require(holds: bool, layer: Layer, clause: str) -> None:
    if not holds:
        raise GradientError(f"{layer!r}: {clause}")


def _same(a: Mapping[str, Host], b: Mapping[str, Host]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _largest(arrays: Mapping[str, Host]) -> dict[str, float]:
    return {name: float(np.abs(array).max(initial=0.0)) for name, array in arrays.items()}


def _gap(a: Mapping[str, Host], b: Mapping[str, Host], sizes: Mapping[str, float]) -> float:
    """Largest difference between two sets of arrays, relative to their sizes: up to rounding, less than TOLERANCE.

    A small gradient may be the difference of large terms, so the largest of all sizes counts a thousandth.
    """
    floor = 1e-3 * max(sizes.values()) + np.finfo(np.float64).tiny
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return math.inf
    # np.max, since Python's max may pass over a nan.
    return float(np.max([np.abs(a[name] - b[name]).max(initial=0.0) / (sizes[name] + floor) for name in a]))


def _close(a: Mapping[str, Host], b: Mapping[str, Host]) -> bool:
    return _gap(a, b, _largest(b)) < TOLERANCE


def _classes(part: Parametric) -> dict[str, type[Parametric]]:
    """The classes of a layer and of all that it is made of, by name."""
    inner = (_classes(inner) for inner in part.parts)
    return {name: cls for classes in inner for name, cls in classes.items()} | {type(part).__name__: type(part)}


def _check_options(layer: Layer, seed: int) -> None:
    config = json.loads(json.dumps(layer.config()))
    rebuilt = from_config(config, {**REGISTRY, **_classes(layer)})
    # By vars too: == sees the fields of a dataclass alone, and so does config().
    options, expected = ({k: v for k, v in vars(part).items() if k != "_shapes"} for part in (rebuilt, layer))
    _require(rebuilt == layer and options == expected, layer, "config() must rebuild an equal layer")
    together, alone = _host(layer.init(seed, 5)), _host(layer.init(seed, [3]))
    _require(list(together) == list(layer.shapes()), layer, "init() must give the names of shapes(), in order")
    for name, shape in layer.shapes().items():
        _require(together[name].shape == (5, *shape), layer, f"init(): {name} must have shape {(5, *shape)}")
        _require(
            np.array_equal(together[name][3], alone[name][0]),
            layer,
            f"init(): {name} of replica 3 must not depend on the other replicas",
        )


class _Case:
    """One random point, and the clauses that are checked there."""

    def __init__(self, layer: Layer, rng: np.random.Generator) -> None:
        self.layer, self.rng = layer, rng
        self.replicas_count = int(rng.integers(2, 4))
        self.row_count = int(rng.integers(2, 5))
        self.params = _draw_params(layer, rng, self.replicas_count)
        self.x = _draw_x(layer, rng, self.row_count, self.replicas_count)
        self.dy = rng.normal(size=(*self.x.shape[:-1], layer.out_features))
        if layer.rank == 3:
            y, _ = layer(_device(self.params), from_numpy(self.x, "float64"))
            if y.shape[-3:-2] == (1,):  # a read-out of the last step answers with a sequence of one
                self.dy = self.dy[..., :1, :, :]

    def require(self, holds: bool, clause: str) -> None:
        _require(holds, self.layer, clause)

    @cached_property
    def here(self) -> dict[str, Host]:
        """What the layer gives at this point."""
        return self.run(self.params, self.x, self.dy)

    def run(
        self, params: HostParams, x: Host, dy: Host, dtype: str = "float64", need_dx: bool = True
    ) -> dict[str, Host]:
        """Value and gradients on the host: y, dx and d<name>."""
        y, vjp = self.layer(_device(params, dtype), from_numpy(x, dtype))
        got = to_numpy(y)
        right = got.shape == dy.shape and got.dtype == dtype
        self.require(right, f"y must be {dtype} {dy.shape}, got {got.dtype} {got.shape}")
        return {"y": got, **self.pull(vjp, dy, dtype, need_dx)}

    def pull(self, vjp: Vjp, dy: Host, dtype: str = "float64", need_dx: bool = True) -> dict[str, Host]:
        """Gradients on the host: dx, where it is asked for, and d<name>."""
        dx, dparams = _pulled(self.layer, vjp, from_numpy(dy, dtype), need_dx)
        self.require(need_dx or dx is None, "vjp(dy, need_dx=False) must give None for dx")
        return _host_gradients(dx if need_dx else None, dparams)

    def shapes(self) -> None:
        """Each gradient has its argument's shape and dtype, and dparams the names of params, in order."""
        expected = {"y": self.dy.shape, "dx": self.x.shape}
        expected |= {f"d{name}": value.shape for name, value in self.params.items()}
        for dtype in ("float64", "float32"):
            got = self.run(self.params, self.x, self.dy, dtype)
            self.require(list(got) == list(expected), f"dparams must have the names {list(self.params)}, in order")
            for name, shape in expected.items():
                right = got[name].shape == shape and got[name].dtype == dtype
                self.require(right, f"{name} must be {dtype} {shape}, got {got[name].dtype} {got[name].shape}")
        values = self.layer.values(_device(self.params, dtype), from_numpy(self.x, dtype))
        self.require(np.array_equal(to_numpy(values["y"]), got["y"]), "values() must hold the y of a call")

    def vjp_properties(self) -> None:
        """Linear in dy; zeros for zeros; the same bits twice, also with another vjp alive; need_dx spares dx."""
        y, vjp = self.layer(_device(self.params), from_numpy(self.x, "float64"))
        one, two = self.dy, self.rng.normal(size=self.dy.shape)
        before = to_numpy(y)
        held = vjp(from_numpy(one, "float64"))
        first = _host_gradients(*held)
        second = self.pull(vjp, two)
        self.run({name: value + 0.5 for name, value in self.params.items()}, 1.5 * self.x, two)
        kept = np.array_equal(to_numpy(y), before) and _same(_host_gradients(*held), first)
        self.require(kept, "what a call or a vjp has given must not change later")
        self.require(_same(self.pull(vjp, one), first), "vjp called twice must give the same bits")
        combined = {name: 2 * first[name] - 3 * second[name] for name in first}
        # Relative to the terms, not to their difference, which may cancel.
        largest = _largest(first), _largest(second)
        sizes = {name: 2 * largest[0][name] + 3 * largest[1][name] for name in first}
        gap = _gap(self.pull(vjp, 2 * one - 3 * two), combined, sizes)
        self.require(gap < TOLERANCE, f"vjp must be linear in dy; it misses by {gap:.1e}")
        self.require(not any(v.any() for v in self.pull(vjp, 0 * one).values()), "vjp(0) must be 0")
        first.pop("dx")
        self.require(_same(self.pull(vjp, one, need_dx=False), first), "need_dx=False must not change dparams")

    def inputs_untouched(self) -> None:
        """Nothing is written to what was given."""
        params, x, dy = _device(self.params), from_numpy(self.x, "float64"), from_numpy(self.dy, "float64")
        _, vjp = self.layer(params, x)
        vjp(dy)
        given = {**self.params, "x": self.x, "dy": self.dy}
        after = _host({**params, "x": x, "dy": dy})
        changed = [name for name in given if not np.array_equal(after[name], given[name])]
        self.require(not changed, f"a layer must not write to its inputs; it writes to {', '.join(changed)}")

    def read_only(self) -> None:
        """Inputs that cannot be written are fine."""
        params, x, dy = _device(self.params), from_numpy(self.x, "float64"), from_numpy(self.dy, "float64")
        for array in (*params.values(), x, dy):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        _, vjp = self.layer(params, x)
        vjp(dy)

    def strides(self) -> None:
        """Inputs that are not contiguous give the same numbers."""
        given = {**self.params, "x": self.x, "dy": self.dy}
        doubled = _device({name: np.repeat(value, 2, axis=-1) for name, value in given.items()})
        strided = {name: value[..., ::2] for name, value in doubled.items()}
        x, dy = strided.pop("x"), strided.pop("dy")
        y, vjp = self.layer(strided, x)
        got = {"y": to_numpy(y), **_host_gradients(*vjp(dy))}
        self.require(_close(got, self.here), "strided inputs must give the same numbers")

    def replicas(self) -> None:
        """Stacked replicas are a loop over replicas, to the bit, with their axis or without."""
        for r in range(self.replicas_count):
            for one in (r, slice(r, r + 1)):
                alone = self.run(
                    {name: value[one] for name, value in self.params.items()}, self.x[one], self.dy[one]
                )
                self.require(
                    _same(alone, {name: value[one] for name, value in self.here.items()}),
                    "stacked replicas must give the bits of replicas one by one",
                )

    def shared(self) -> None:
        """An x, or parameters, without replicas: as if repeated, and the gradient is the sum over replicas."""
        for names in ({"x"}, self.params.keys()):
            once = {**self.params, "x": self.x}
            once |= {name: once[name][0] for name in names}
            repeated = {
                **self.params,
                "x": self.x,
                **{n: np.stack([once[n]] * self.replicas_count) for n in names},
            }
            got = self.run(once, once.pop("x"), self.dy)
            expected = self.run(repeated, repeated.pop("x"), self.dy)
            sizes = {name: self.replicas_count * size for name, size in _largest(expected).items()}
            expected |= {f"d{name}": expected[f"d{name}"].sum(axis=0) for name in names}
            right = _gap(got, expected, sizes) < TOLERANCE
            self.require(right, "what replicas share must get the sum of their gradients")

    def rows(self) -> None:
        """Rows do not know of each other: permuted, or one alone."""
        order = self.rng.permutation(self.row_count)
        permuted = self.run(self.params, self.x[..., order, :], self.dy[..., order, :])
        expected = {**self.here, "y": self.here["y"][..., order, :], "dx": self.here["dx"][..., order, :]}
        self.require(_close(permuted, expected), "permuting rows must permute y and dx alone")
        single = self.run(self.params, self.x[..., :1, :], self.dy[..., :1, :])
        alone, among = ({name: a[name][..., :1, :] for name in ("y", "dx")} for a in (single, self.here))
        self.require(_close(alone, among), "a row alone must give the same y and dx")

    def no_rows(self) -> None:
        """No rows give no y, and gradients of 0."""
        none = self.run(self.params, self.x[..., :0, :], self.dy[..., :0, :])
        self.require(not any(none[f"d{name}"].any() for name in self.params), "no rows must give gradients of 0")

    def precision(self) -> None:
        """float32 is near float64, at ordinary values."""

        def ordinary(array: Host, low: float = 0.0) -> Host:
            # Rounded, so that both precisions see the same numbers.
            clipped: Host = np.sign(array) * np.clip(np.abs(array), low, 2)
            return clipped.astype(np.float32).astype(np.float64)

        def nudged(array: Host) -> Host:
            return np.asarray(array * (1 + 2.0**-23 * self.rng.choice([-1, 1], array.shape)))

        params, x, dy = {n: ordinary(v) for n, v in self.params.items()}, ordinary(self.x, 0.5), ordinary(self.dy)
        single, double = self.run(params, x, dy, "float32"), self.run(params, x, dy)
        near = self.run({name: nudged(value) for name, value in params.items()}, nudged(x), nudged(dy))
        # Relative to the largest of all: a small gradient may be the difference of large terms. And as far as
        # rounding the inputs moves a result, rounding within the layer may move it too.
        largest = max(_largest(double).values()) + np.finfo(np.float64).tiny
        allowed = {name: 1e-4 * largest + 100 * np.abs(near[name] - value).max() for name, value in double.items()}
        gap = float(np.max([np.abs(single[name] - value).max() / allowed[name] for name, value in double.items()]))
        self.require(gap < 1, f"float32 must be near float64; it misses by {gap:.1e} of what rounding allows")

    def projection(self) -> None:
        """A projection is idempotent, keeps what params are, and is a loop over replicas."""
        outside = {name: self.rng.normal(size=value.shape) * 4 for name, value in self.params.items()}
        for dtype in ("float64", "float32"):
            params = _device(outside, dtype)
            before = _host(params)
            once = self.layer.project(params)
            self.require(_same(_host(params), before), "project must not write to its inputs")
            after = _host(once)
            kept = [(name, v.shape, v.dtype) for name, v in after.items()]
            expected = [(name, v.shape, v.dtype) for name, v in before.items()]
            self.require(kept == expected, "project must keep names, shapes and dtypes")
            self.require(_same(_host(self.layer.project(once)), after), "project must be idempotent")
            for r in range(self.replicas_count):
                one = _host(self.layer.project({name: v[r : r + 1, ...] for name, v in params.items()}))
                alone = _same(one, {name: v[r : r + 1] for name, v in after.items()})
                self.require(alone, "project must give the bits of replicas one by one")

    def penalties(self) -> None:
        """A penalty has one value a replica, of that replica alone, and its gradient is its derivative."""
        shapes = {"penalty": (self.replicas_count,), **{f"d{name}": v.shape for name, v in self.params.items()}}
        for step in (1, 1000, 1_000_000):
            found = {dtype: self.penalty(self.params, self.x, step, dtype) for dtype in ("float64", "float32")}
            if not found["float64"]:
                continue
            for dtype, got in found.items():
                right = shapes == {name: v.shape for name, v in got.items() if v.dtype == dtype}
                self.require(
                    right,
                    "a penalty must have one value a replica, and gradients with the shapes of params, all in "
                    f"their dtype, here {dtype}",
                )
            got = found["float64"]
            for r in range(self.replicas_count):
                params = {name: v[r : r + 1] for name, v in self.params.items()}
                alone = _same(
                    self.penalty(params, self.x[r : r + 1], step), {n: v[r : r + 1] for n, v in got.items()}
                )
                self.require(alone, "a penalty must give the bits of replicas one by one")
            for name, point in self.params.items():
                v = _direction(point, self.rng)

                def value(t: float, step: int = step, name: str = name, v: Host = v) -> float:
                    moved = {**self.params, name: self.params[name] + t * v}
                    return float(self.penalty(moved, self.x, step)["penalty"].sum())

                try:
                    magnitude = float(np.abs(got["penalty"]).sum())
                    error = directional_error(value, float(np.sum(got[f"d{name}"] * v)), magnitude)
                except _KinkError:
                    continue
                clause = f"d{name} of the penalty is not the derivative: it differs by {error:.1e} of its size"
                self.require(error <= TOLERANCE, clause)

    def penalty(self, params: HostParams, x: Host, step: int, dtype: str = "float64") -> HostParams:
        """Value and gradient on the host: penalty and d<name>; nothing where there is no penalty."""
        found = self.layer.penalty(_device(params, dtype), from_numpy(x, dtype), step)
        if found is None:
            return {}
        return {"penalty": to_numpy(found[0]), **_host({f"d{name}": v for name, v in found[1].items()})}


def registered_layers() -> list[Layer]:
    """Small instances of every registered layer, with every option, in chains and along time."""
    examples = [list(cls.examples()) for cls in REGISTRY.values()]
    layers = [example for group in examples for example in group if isinstance(example, Layer)]
    firsts = [group[0] for group in examples if group]
    rows = [first for first in firsts if isinstance(first, Layer) and first.rank == 2]
    chains = [chain(first, type(first)(first.out_features, 1)) for first in rows]
    return [*layers, *chains, *(scan(first) for first in firsts if isinstance(first, Cell))]
