"""The gradient checker, and the contract that every layer must pass.

A derivative is measured along a random direction v, one for each named argument, in float64:

    n(h) = (L(q - 2 h v) - 8 L(q - h v) + 8 L(q + h v) - L(q + 2 h v)) / (12 h),   L(q) = sum(dy * y(q))

at h and h / 2, extrapolated, and compared with the vjp's sum(dq * v): relative to the larger of the two, but never
finer than the rounding of L allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import Array, from_numpy, to_numpy
from .errors import GradientError
from .layer import REGISTRY, Cell, Layer, chain, from_config, overrides, scan

Host = NDArray[Any]
HostParams = dict[str, Host]

STEP = 1e-3
TOLERANCE = 1e-6


class _KinkError(Exception):
    """The measured derivative does not settle: a kink lies within a step."""


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
    """

    def measured(h: float) -> float:
        near, far = value(h) - value(-h), value(2 * h) - value(-2 * h)
        return (8 * near - far) / (12 * h)

    coarse, fine = measured(STEP), measured(STEP / 2)
    rounding = 8 * np.finfo(np.float64).eps * magnitude / STEP
    scale = max(abs(slope), abs(fine), np.finfo(np.float64).tiny)
    if not np.isfinite(coarse + fine) or abs(coarse - fine) > 1e-3 * scale + rounding:
        raise _KinkError
    extrapolated = fine + (fine - coarse) / 15
    return abs(extrapolated - slope) / (scale + rounding / TOLERANCE)


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
    params, x : optional
        The point; drawn at random, away from kinks where that can be had, if left out. x (B, I).
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
        If a gradient is not the derivative; the message names the argument.

    Examples
    --------
    >>> import nalu_np as nn
    >>> list(nn.gradcheck(nn.NALU(2, 1)).errors)
    ['W_hat', 'M_hat', 'G', 'x']
    """
    rng = np.random.default_rng(seed)
    for _ in range(20):
        given_params = _draw_params(layer, rng) if params is None else _host(params)
        given_x = _draw_x(layer, rng, 3) if x is None else _host({"x": x})["x"]
        try:
            errors = _gradients(layer, given_params, given_x, rng, full)
        except _KinkError:
            if params is not None and x is not None:
                break
            continue
        for name, error in errors.items():
            if not error <= tolerance:
                raise GradientError(
                    f"{layer!r}: d{name} is not the derivative: it differs by {error:.1e} of its size from the "
                    f"measured slope (allowed {tolerance:.0e})"
                )
        return Report(repr(layer), 1, errors)
    raise GradientError(f"{layer!r}: the measured slope does not settle; the point lies at a kink or overflows")


def check_layer(layer: Layer, *, seed: int = 0, examples: int = 1) -> Report:
    """Check the whole contract of a layer at random points, in its gradient and beyond.

    Shapes and names; the gradient of every argument; a vjp that is linear, gives zeros for zeros, gives the same
    bits twice, and is not disturbed by another; inputs left alone; strided inputs; replicas stacked or one by one,
    to the same bits; rows permuted, single or none; float32 near float64; initial values that do not depend on
    other replicas; options that rebuild the layer; a projection that is idempotent and a penalty whose gradient is
    its derivative.

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
        At the first clause that does not hold; the message says which.

    Examples
    --------
    >>> import nalu_np as nn
    >>> nn.check_layer(nn.NAC(3, 2), examples=5).examples
    5
    """
    worst: dict[str, float] = {}
    _check_options(layer, seed)
    for example in range(examples):
        rng = np.random.default_rng((seed, example))
        report = gradcheck(layer, seed=int(rng.integers(2**31)))
        for name, error in report.errors.items():
            worst[name] = max(worst.get(name, 0.0), error)
        case = _Case(layer, rng)
        for clause in (
            case.shapes,
            case.vjp_properties,
            case.inputs_untouched,
            case.strides,
            case.replicas,
            case.rows,
            case.precision,
            case.regularisation,
        ):
            with np.errstate(over="ignore"):
                clause()
    return Report(repr(layer), examples, worst)


# --- points -----------------------------------------------------------------------------------------------------


def _host(arrays: Mapping[str, Any]) -> HostParams:
    return {name: to_numpy(array).astype(np.float64) for name, array in arrays.items()}


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


def _gradients(
    layer: Layer, params: HostParams, x: Host, rng: np.random.Generator, full: bool
) -> dict[str, float]:
    """Scaled error of each argument's gradient, along one direction or along every axis."""
    y, vjp = layer(_device(params), from_numpy(x, "float64"))
    dy = rng.normal(size=y.shape)
    dx, dparams = vjp(from_numpy(dy, "float64"))
    arguments, gradients = {**params, "x": x}, {**_host(dparams), **_host({"x": dx})}
    errors = {}
    for name, point in arguments.items():
        if gradients[name].shape != point.shape:
            raise GradientError(f"{layer!r}: d{name} has shape {gradients[name].shape}, not {point.shape}")
        # Steps relative to each entry, so that a small x is not carried across the kink at 0.
        reach = rng.normal(size=point.shape) * (np.abs(point) + 0.01)
        axes = np.eye(point.size).reshape(-1, *point.shape) if full else np.ones((1, *point.shape))
        errors[name] = max(
            (
                directional_error(
                    lambda t, v=axis * reach, name=name: _weighted(layer, arguments, name, t * v, dy)[0],  # type: ignore[misc]
                    float(np.sum(gradients[name] * axis * reach)),
                    _weighted(layer, arguments, name, 0 * reach, dy)[1],
                )
                for axis in axes
            ),
            default=0.0,
        )
    return errors


def _weighted(layer: Layer, arguments: HostParams, name: str, shift: Host, dy: Host) -> tuple[float, float]:
    """L = sum(dy * y) with one argument shifted, and the sum of its absolute terms."""
    moved = _device({**arguments, name: arguments[name] + shift})
    x = moved.pop("x")
    terms = dy * to_numpy(layer.surrogate(moved, x))
    return float(terms.sum()), float(np.abs(terms).sum())


# --- the contract -----------------------------------------------------------------------------------------------


def _require(holds: bool, layer: Layer, clause: str) -> None:
    if not holds:
        raise GradientError(f"{layer!r}: {clause}")


def _same(a: Mapping[str, Host], b: Mapping[str, Host]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _close(a: Mapping[str, Host], b: Mapping[str, Host], tolerance: float = 1e-9) -> bool:
    """Equal up to rounding, relative to the largest entry of each array."""
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape
        and bool(np.all(np.abs(a[name] - b[name]) <= tolerance * max(np.abs(b[name]).max(initial=0.0), 1e-9)))
        for name in a
    )


def _check_options(layer: Layer, seed: int) -> None:
    registry = {**REGISTRY, type(layer).__name__: type(layer)}
    _require(from_config(layer.config(), registry) == layer, layer, "config() must rebuild an equal layer")
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
        self.replicas_count = int(rng.integers(1, 4))
        self.row_count = int(rng.integers(1, 5))
        self.params = _draw_params(layer, rng, self.replicas_count)
        self.x = _draw_x(layer, rng, self.row_count, self.replicas_count)

    def run(
        self, params: HostParams, x: Host, dy: Host | None = None, dtype: str = "float64", need_dx: bool = True
    ) -> dict[str, Host]:
        """Value and gradients on the host: y, dx and d<name>."""
        y, vjp = self.layer(_device(params, dtype), from_numpy(x, dtype))
        dx, dparams = vjp(from_numpy(self.cotangent(y.shape) if dy is None else dy, dtype), need_dx=need_dx)
        _require(need_dx or dx is None, self.layer, "vjp(dy, need_dx=False) must give None for dx")
        given = {"dx": dx} if need_dx else {}
        return {
            "y": to_numpy(y),
            **{name: to_numpy(value) for name, value in given.items()},
            **{f"d{name}": to_numpy(value) for name, value in dparams.items()},
        }

    def cotangent(self, shape: tuple[int, ...]) -> Host:
        """A dy that depends on the shape alone."""
        return np.random.default_rng(shape).normal(size=shape)

    def shapes(self) -> None:
        """y is (S, B, O); each gradient has its argument's shape and dtype; dparams has the names of params."""
        S, features = self.replicas_count, self.layer.out_features
        for dtype in ("float64", "float32"):
            got = self.run(self.params, self.x, dtype=dtype)
            expected = {"y": (*self.x.shape[:-1], features), "dx": self.x.shape}
            expected |= {f"d{name}": (S, *shape) for name, shape in self.layer.shapes().items()}
            _require(list(got) == list(expected), self.layer, f"dparams must have the names {list(self.params)}")
            for name, shape in expected.items():
                clause = f"{name} must be {dtype} {shape}, got {got[name].dtype} {got[name].shape}"
                _require(got[name].shape == shape and got[name].dtype == dtype, self.layer, clause)
        shared = self.run(self.params, self.x[0])
        _require(shared["y"].shape == got["y"].shape, self.layer, "a shared x must give y with replicas")
        _require(shared["dx"].shape == self.x[0].shape, self.layer, "a shared x must get a dx of its own shape")

    def vjp_properties(self) -> None:
        """Linear in dy; zeros for zeros; the same bits twice, also with another vjp alive; need_dx spares dx."""
        y, vjp = self.layer(_device(self.params), from_numpy(self.x, "float64"))
        one, two = self.rng.normal(size=(2, *y.shape))

        def pull(dy: Host) -> dict[str, Host]:
            dx, dparams = vjp(from_numpy(dy, "float64"))
            return {"x": to_numpy(dx), **_host(dparams)}

        first, second = pull(one), pull(two)
        other = {name: value + 0.5 for name, value in self.params.items()}
        self.run(other, self.x)
        _require(_same(pull(one), first), self.layer, "vjp called twice must give the same bits")
        combined = {name: 2 * first[name] - 3 * second[name] for name in first}
        # Relative to the terms, not to their difference, which may cancel.
        size = {name: 2 * np.abs(first[name]).max() + 3 * np.abs(second[name]).max() + 1e-9 for name in first}
        linear = pull(2 * one - 3 * two)
        gap = max(float((np.abs(linear[name] - combined[name]) / size[name]).max()) for name in first)
        _require(gap < 1e-9, self.layer, f"vjp must be linear in dy; it misses by {gap:.1e}")
        zero = pull(0 * one)
        _require(not any(value.any() for value in zero.values()), self.layer, "vjp(0) must be 0")
        full, spared = self.run(self.params, self.x), self.run(self.params, self.x, need_dx=False)
        full.pop("dx")
        _require(_same(full, spared), self.layer, "need_dx=False must not change dparams")

    def inputs_untouched(self) -> None:
        """Nothing is written to what was given, and read-only arrays are fine."""
        params, x = _device(self.params), from_numpy(self.x, "float64")
        y, vjp = self.layer(params, x)
        dy = from_numpy(self.cotangent(y.shape), "float64")
        for array in (*params.values(), x, dy):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        vjp(dy)
        _require(
            _same(
                _host({**params, "x": x, "dy": dy}), {**self.params, "x": self.x, "dy": self.cotangent(y.shape)}
            ),
            self.layer,
            "a layer must not write to its inputs",
        )

    def strides(self) -> None:
        """Inputs that are not contiguous give the same numbers."""
        doubled = {name: np.repeat(value, 2, axis=-1) for name, value in {**self.params, "x": self.x}.items()}
        strided = {name: value[..., ::2] for name, value in _device(doubled).items()}
        y, _ = self.layer({name: strided[name] for name in self.params}, strided["x"])
        expected = self.run(self.params, self.x)["y"]
        _require(_close({"y": to_numpy(y)}, {"y": expected}), self.layer, "strided inputs must give the same y")

    def replicas(self) -> None:
        """Stacked replicas are a loop over replicas, to the bit."""
        stacked = self.run(self.params, self.x)
        dy = self.cotangent(stacked["y"].shape)
        for r in range(self.replicas_count):
            alone = self.run({name: value[r] for name, value in self.params.items()}, self.x[r], dy[r])
            _require(
                _same(alone, {name: value[r] for name, value in stacked.items()}),
                self.layer,
                "stacked replicas must give the bits of replicas one by one",
            )

    def rows(self) -> None:
        """Rows do not know of each other: permuted, single, none."""
        got = self.run(self.params, self.x)
        dy = self.cotangent(got["y"].shape)
        order = self.rng.permutation(self.row_count)
        permuted = self.run(self.params, self.x[..., order, :], dy[..., order, :])
        expected = {**got, "y": got["y"][..., order, :], "dx": got["dx"][..., order, :]}
        _require(_close(permuted, expected), self.layer, "permuting rows must permute y and dx alone")
        single = self.run(self.params, self.x[..., :1, :])["y"]
        _require(
            _close({"y": single}, {"y": got["y"][..., :1, :]}), self.layer, "a row alone must give the same y"
        )
        none = self.run(self.params, self.x[..., :0, :])
        zeros = not any(none[f"d{name}"].any() for name in self.params)
        _require(none["y"].shape[-2] == 0 and zeros, self.layer, "no rows must give no y, and gradients of 0")

    def precision(self) -> None:
        """float32 is near float64, at ordinary values."""
        params = {name: np.clip(value, -2, 2) for name, value in self.params.items()}
        x = np.clip(np.abs(self.x), 0.5, 2)
        # Rounded first, so that both precisions see the same numbers.
        params, x = _host(_device(params, "float32")), x.astype(np.float32).astype(np.float64)
        single, double = self.run(params, x, dtype="float32"), self.run(params, x)
        single.pop("dx"), double.pop("dx")
        # Relative to the largest of all: a small gradient may be the difference of large terms.
        scale = max(np.abs(value).max(initial=1e-9) for value in double.values())
        gap = max(float(np.abs(single[name] - double[name]).max(initial=0.0)) for name in double) / scale
        _require(gap < 1e-4, self.layer, f"float32 must be near float64; it misses by {gap:.1e}")

    def regularisation(self) -> None:
        """A projection is idempotent; a penalty's gradient is its derivative."""
        once = _host(self.layer.project(_device(self.params)))
        twice = _host(self.layer.project(_device(once)))
        _require(_same(once, twice), self.layer, "project must be idempotent")
        if not overrides(self.layer, "penalty"):
            return
        x = from_numpy(self.x, "float64")
        for step in (1, 1000, 1_000_000):
            penalty = self.layer.penalty(_device(self.params), x, step)
            if penalty is None:
                continue
            gradient = _host(penalty[1])
            reach = {n: self.rng.normal(size=v.shape) * (np.abs(v) + 0.01) for n, v in self.params.items()}

            def value(t: float, step: int = step, reach: HostParams = reach) -> float:
                moved = _device({n: v + t * reach[n] for n, v in self.params.items()})
                shifted: Any = self.layer.penalty(moved, x, step)
                return float(to_numpy(shifted[0]).sum())

            slope = sum(float(np.sum(gradient[n] * reach[n])) for n in gradient)
            try:
                error = directional_error(value, slope, abs(value(0.0)))
            except _KinkError:
                continue
            _require(error <= TOLERANCE, self.layer, f"the penalty's gradient is wrong by {error:.1e} of its size")


def registered_layers() -> list[Layer]:
    """Small instances of every registered layer, with every option, in chains and along time."""
    examples = [list(cls.examples()) for cls in REGISTRY.values()]
    layers = [example for group in examples for example in group if isinstance(example, Layer)]
    firsts = [group[0] for group in examples if group]
    chains = [chain(first, type(first)(first.out_features, 1)) for first in firsts if isinstance(first, Layer)]
    return [*layers, *chains, *(scan(first) for first in firsts if isinstance(first, Cell))]
