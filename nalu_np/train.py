"""`fit`: many replicas of a layer trained at once, in segments of steps.

Replicas never meet: each has its own initial values, its own stream of data and its own fate. A replica whose
loss, gradient or update turns non-finite is frozen at the parameters before that step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .backend import (
    DATA,
    NOISE,
    Array,
    Streams,
    birthplace,
    dtype_name,
    from_numpy,
    get_backend,
    library,
    namespace,
    replica_numbers,
    to_numpy,
)
from .errors import OptionError, ShapeError
from .kernels import planes
from .layer import Layer, flatten, views
from .optim import Adam, Optimizer
from .vjps import LOSSES

#: A task: draws n rows, x (n, I) and y (n, O), from a generator; for sequences x (T, n, I) and y (T, n, O).
Sample = Callable[[np.random.Generator, int], tuple[NDArray[Any], NDArray[Any]]]

#: Fills planes x (I, S, B) and y (O, S, B) with the next batch, told whether they are still empty; the answer is
#: whether x is another than before.
Feed = Callable[[NDArray[Any], NDArray[Any], bool], bool]


@dataclass(frozen=True)
class Segment:
    """What a callback sees at the end of a segment: the step, and the segment's row of the history."""

    step: int
    steps: int
    loss: NDArray[np.float64]
    valid_loss: NDArray[np.float64] | None


@dataclass(frozen=True)
class Result:
    """What `fit` returns; S replicas, K segments.

    Attributes
    ----------
    params : dict
        The last parameters, (S, ...).
    best_params : dict
        Each replica's parameters at the end of its best segment: the lowest validation loss, or without
        validation the lowest training loss.
    history : dict
        "loss" (K, S), the mean training loss of the segment; "valid_loss" (K, S) at its end;
        "penalty" (K, S) where the layer has one. NaN from where a replica diverged.
    best : int
        Position of the replica with the lowest loss of all.
    diverged : array of bool
        (S): which replicas turned non-finite, and were frozen.
    how : dict
        What was used: the tier, "planes" for the fused kernel and else "readable"; backend, dtype, data; for
        planes the chunk, how many replicas were trained at once. None of it changes a replica's bits but the tier,
        the backend and the dtype.
    """

    params: dict[str, Any]
    best_params: dict[str, Any]
    history: dict[str, NDArray[Any]]
    best: int
    diverged: NDArray[np.bool_]
    how: dict[str, str]


def fit(
    model: Layer,
    x: ArrayLike | Sample,
    y: ArrayLike | None = None,
    *,
    steps: int,
    optimizer: Optimizer | None = None,
    loss: str = "mse",
    batch: int | None = None,
    replicas: int | Sequence[int] = 1,
    seed: int = 0,
    dtype: str = "float32",
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    every: int = 1000,
    block: int = 32,
    workers: int = 1,
    callback: Callable[[Segment], object] | None = None,
) -> Result:
    """Train replicas of a layer.

    Parameters
    ----------
    model : Layer
        A layer or a chain.
    x, y : array
        (N, I) and (N, O), shared by all replicas, or (S, N, I) and (S, N, O). On the host; moved at this edge.
        For layers of sequences (T, N, I) and (T, N, O), likewise.
        Or x is a task `sample(rng, n) -> x (n, I), y (n, O)` and y is left out.
    steps : int
        Steps of the optimiser.
    optimizer : Optimizer
        `Adam()` unless given.
    loss : str
        "mse" or "mae".
    batch : int, optional
        Rows a step. None: all rows at every step. With arrays, rows are drawn with replacement from each
        replica's own stream. A task needs it.
    replicas : int or sequence of int
        How many, or which ones; a replica's trajectory does not depend on the others, to the bit.
    seed : int
        Seed of the run: initial values and data.
    dtype : str
        "float32" or "float64".
    validation : pair of arrays, optional
        Rows by which `best_params` and `best` are chosen.
    every : int
        Steps a segment; records, best parameters and callbacks happen at its end.
    block : int
        Steps for which rows are drawn at once; part of the definition of a run.
    workers : int
        Threads among which chunks of replicas are shared, where a fused kernel trains them.
    callback : callable, optional
        Called with a `Segment`; a true answer stops the training.

    Returns
    -------
    Result

    Raises
    ------
    OptionError, ShapeError
        Where options or data do not fit.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> x = np.random.default_rng(0).uniform(1, 2, (200, 2))
    >>> result = nn.fit(nn.NAC(2, 1), x, x[:, :1] - x[:, 1:], optimizer=nn.Adam(lr=0.05), steps=2000, replicas=8)
    >>> layer, params = nn.NAC(2, 1), nn.replica(result.best_params, result.best)
    >>> layer.values(params, x.astype("float32"))["W"].round(1).ravel().tolist()
    [1.0, -1.0]
    """
    _keep_freed_memory()
    optimizer = Adam() if optimizer is None else optimizer
    _check_options(
        model,
        optimizer,
        loss,
        steps=steps,
        every=every,
        block=block,
        workers=workers,
        batch=1 if batch is None else batch,
    )
    dtype, numbers = dtype_name(dtype), replica_numbers(replicas)
    data = _data(x, y, batch, block, model.rank, len(numbers), dtype)
    fused = get_backend() == "numpy" and planes.supports(model, loss, optimizer)
    kind = _PlaneRun if fused else _Run
    run = kind(model, LOSSES[loss], optimizer, data, seed, numbers, dtype, workers)
    held_out = None
    if validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise OptionError(f"fit: validation must be a pair (x, y), got {type(validation).__name__}")
        x_held, y_held = _rows(*validation, model.rank, len(numbers), dtype)
        held_out = from_numpy(x_held, dtype), from_numpy(y_held, dtype)

    history: dict[str, list[NDArray[Any]]] = {}
    with np.errstate(all="ignore"):  # a replica that diverges is a result, not a storm of warnings
        run.prepare()
        if held_out is not None:
            run.check(*held_out)
        while run.step < steps:
            record = run.segment(min(every, steps - run.step), held_out)
            for name, row in record.items():
                history.setdefault(name, []).append(row)
            segment = Segment(run.step, steps, record["loss"], record.get("valid_loss"))
            if callback is not None and callback(segment):
                break

    return Result(
        params=run.params,
        best_params=views(run.best_theta, run.shapes),
        history={name: np.stack(rows) for name, rows in history.items()},
        best=int(np.argmin(to_numpy(run.best_loss))),
        diverged=~to_numpy(run.alive),
        how={**run.how, "backend": get_backend(), "dtype": dtype, "data": data.name},
    )


class _Run:
    """The state of S replicas between two steps, all of it on the device."""

    how: dict[str, str] = {"tier": "readable"}  # noqa: RUF012  (never changed)

    def __init__(
        self,
        model: Layer,
        loss: Any,
        optimizer: Optimizer,
        data: _Data,
        seed: int,
        numbers: list[int],
        dtype: str,
        workers: int,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.data, self.seed, self.numbers, self.dtype, self.workers = data, seed, numbers, dtype, workers
        self.shapes = model.shapes()
        self.theta = flatten(model.init(seed, numbers, dtype), self.shapes)
        self.params = views(self.theta, self.shapes)
        self.state = optimizer.init(self.theta)
        self.rng = Streams(seed, numbers, NOISE)
        self.step = 0
        self.ones = from_numpy(np.ones(len(numbers)), dtype)
        self.nan = self.ones * float("nan")
        self.best_loss: Any = self.ones * float("inf")
        self.best_theta = self.theta
        self.alive: Any = self.ones > 0

    def prepare(self) -> None:
        """Open the stream of batches, and look at the first."""
        batches = self.data.batches(self.seed, self.numbers)
        first = next(batches)
        self.check(*first)
        self.batches = itertools.chain([first], batches)

    def check(self, x: Array, y: Array) -> None:
        """Raise ShapeError unless the model accepts x, and y is what it computes."""
        prediction, _ = self.model(self.params, x)
        if y.shape not in (prediction.shape, prediction.shape[1:]):
            raise ShapeError(
                f"fit: y has shape {y.shape}, but {self.model!r} computes {prediction.shape[1:]} "
                f"for each replica; y needs one column an output"
            )

    def take(self, steps: int) -> dict[str, Any]:
        """Some steps, and the sums of what was recorded."""
        sums: dict[str, Any] = {}
        for _ in range(steps):
            for name, value in self.advance(*next(self.batches)).items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def segment(self, steps: int, held_out: tuple[Array, Array] | None) -> dict[str, NDArray[np.float64]]:
        """Some steps, and the record of them."""
        sums = self.take(steps)
        xp = namespace(self.theta)
        record = {name: value / steps for name, value in sums.items()}
        if held_out is not None:
            prediction, _ = self.model.forward(self.params, held_out[0])
            record["valid_loss"] = xp.where(self.alive, self.loss(prediction, held_out[1])[0], self.nan)
        chosen_by = record["loss"] if held_out is None else record["valid_loss"]
        better = chosen_by < self.best_loss
        self.best_loss = xp.where(better, chosen_by, self.best_loss)
        self.best_theta = xp.where(better[:, None], self.theta, self.best_theta)
        return {name: to_numpy(value).astype(np.float64) for name, value in record.items()}

    def advance(self, x: Array, y: Array) -> dict[str, Any]:
        """One step of every replica; its losses (S), NaN where a replica has diverged."""
        xp = namespace(self.theta)
        self.step += 1
        prediction, vjp = self.model.forward(self.params, x, rng=self.rng, train=True)
        losses, loss_vjp = self.loss(prediction, y)
        _, dparams = vjp(loss_vjp(self.ones), need_dx=False)
        gradient = flatten(dparams, self.shapes)
        scalars = {"loss": losses}
        penalty = self.model.penalty(self.params, x, self.step)
        if penalty is not None:
            scalars["penalty"] = penalty[0]
            gradient = gradient + flatten(penalty[1], self.shapes)

        delta, self.state = self.optimizer.update(gradient, self.state, self.step)
        theta = self.theta + delta
        for value in scalars.values():
            self.alive = self.alive & xp.isfinite(value)
        # A sum is finite only where all its terms are: one pass over the vectors instead of four.
        self.alive = self.alive & xp.all(xp.isfinite(sum(self.state, gradient + theta)), axis=-1)
        before, self.theta = self.theta, xp.where(self.alive[:, None], theta, self.theta)
        self.params = views(self.theta, self.shapes)
        projected = self.model.project(self.params)
        if projected is not self.params:
            theta = flatten(projected, self.shapes)
            self.alive = self.alive & xp.all(xp.isfinite(theta), axis=-1)
            self.theta = xp.where(self.alive[:, None], theta, before)  # what is frozen is not projected either
            self.params = views(self.theta, self.shapes)
        return {name: xp.where(self.alive, value, self.nan) for name, value in scalars.items()}


class _PlaneRun(_Run):
    """The same by the fused kernel: segments outside, chunks of replicas inside."""

    def prepare(self) -> None:
        """Cut the replicas into chunks; each has its own parameters, moments and stream of batches."""
        size = planes.chunk(self.model, self.data.rows)
        self.how = {"tier": "planes", "chunk": str(min(size, len(self.numbers)))}
        self.parts = [slice(at, at + size) for at in range(0, len(self.numbers), size)]
        self.trainees = [
            planes.Trainee(self.model, self.theta[part], cast(Adam, self.optimizer)) for part in self.parts
        ]
        self.feeds = [self.data.feed(self.seed, self.numbers[part], part, self.check) for part in self.parts]
        self.theta = self.theta.copy()  # the best so far are the first, and these change in place

    def take(self, steps: int) -> dict[str, Any]:
        """Some steps of each chunk, in as many threads as there are workers."""
        first, self.step = self.step + 1, self.step + steps

        def train(k: int) -> Any:
            trainee, feed = self.trainees[k], self.feeds[k]
            workspace = planes.Workspace(self.model, trainee.theta.shape[1], self.data.rows, self.dtype)
            sums = np.zeros(trainee.theta.shape[1], self.dtype)
            with np.errstate(all="ignore"):
                for step in range(first, first + steps):
                    fresh = feed(workspace.x, workspace.target, step == first)
                    sums += trainee.step(workspace, step, fresh=fresh)
            return sums

        chunks = range(len(self.trainees))
        if self.workers > 1:
            with ThreadPoolExecutor(self.workers) as pool:
                losses = list(pool.map(train, chunks))
        else:
            losses = [train(k) for k in chunks]
        for part, trainee in zip(self.parts, self.trainees, strict=True):
            self.theta[part] = trainee.theta.T
            self.alive[part] = trainee.alive
        self.params = views(self.theta, self.shapes)
        return {"loss": np.concatenate(losses)}


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of arrays that are freed, for the next step to take again.

    By default glibc gives blocks of 128 KiB back to the system at once, and each step pays for page faults:
    measured, two thirds of its time. Freeing one large block moves that threshold, for the whole process.
    """
    np.empty(30 << 20, np.uint8)


def _check_options(model: object, optimizer: object, loss: object, **counts: object) -> None:
    if not hasattr(optimizer, "update") or isinstance(optimizer, type):
        raise OptionError(f"fit: expected an optimizer such as nn.Adam(lr=0.01), got {optimizer!r:.60}")
    if not isinstance(model, Layer):
        raise OptionError(f"fit: expected a layer, got {model!r:.200}")
    if not isinstance(loss, str) or loss not in LOSSES:
        raise OptionError(f"fit: loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    for name, value in counts.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise OptionError(f"fit: {name} must be an integer >= 1, got {value!r}")


# --- data -------------------------------------------------------------------------------------------------------


def _host(name: str, value: Any, rank: int, replicas: int, dtype: str) -> NDArray[Any]:
    """An array of numbers on the host, checked and converted; x or y of all rows."""
    array = to_numpy(value) if library(value) else np.asarray(value)
    axes = {2: "N", 3: "T, N"}[rank]
    if array.dtype.kind not in "fiu" or array.ndim not in (rank, rank + 1) or 0 in array.shape:
        raise ShapeError(
            f"fit: {name} must be a non-empty array of numbers, ({axes}, features) or (S, {axes}, features), "
            f"got {array.dtype} {array.shape}"
        )
    if array.ndim > rank and array.shape[0] != replicas:
        raise ShapeError(f"fit: {name} has {array.shape[0]} replicas, {array.shape}, but there are {replicas}")
    with np.errstate(over="ignore"):  # 1e39 becomes infinite in float32, and is refused as such
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][-2])
        raise OptionError(
            f"fit: {name} has NaN or infinity in {dtype}, first in row {row}; leave such rows out, or scale {name}"
        )
    return array


def _rows(x: Any, y: Any, rank: int, replicas: int, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both arrays on the host, with equally many rows."""
    x, y = _host("x", x, rank, replicas, dtype), _host("y", y, rank, replicas, dtype)
    if x.shape[-2] != y.shape[-2]:
        raise ShapeError(f"fit: x has {x.shape[-2]} rows, but y has {y.shape[-2]}")
    return x, y


@dataclass
class _Data:
    """What is trained on: `rows` a step, from arrays that are checked and on the host, or from a task.

    All kinds of run see the same batches: replica r draws from its own stream, for `block` steps at once.
    """

    name: str
    rows: int
    block: int
    rank: int
    dtype: str
    x: Any
    y: Any = None

    def sample(self, s: int) -> Sample:
        """How replica at position s draws rows."""
        if self.name == "task":
            return self.x  # type: ignore[no-any-return]
        return _row_sample(*(v if v.ndim == self.rank else v[s] for v in (self.x, self.y)))

    def batches(self, seed: int, numbers: list[int]) -> Iterator[tuple[Array, Array]]:
        """What each step trains on, without an end."""
        if self.name == "all rows":
            return itertools.repeat((from_numpy(self.x, self.dtype), from_numpy(self.y, self.dtype)))
        samples = [self.sample(s) for s in range(len(numbers))]
        return _drawn(samples, self.rows, self.block, seed, self.rank, numbers, self.dtype)

    def feed(self, seed: int, numbers: list[int], part: slice, check: Callable[[Any, Any], None]) -> Feed:
        """What fills the planes of a chunk for each step; `check` sees some rows of one replica before."""
        if self.name != "task":
            check(*(v if v.ndim == self.rank else v[0] for v in (self.x, self.y)))
        if self.name == "all rows":
            return _all_rows(*(v if v.ndim == self.rank else v[part] for v in (self.x, self.y)))
        generators = Streams(seed, numbers, DATA).generators
        if self.name == "rows drawn" and self.x.ndim == self.y.ndim == self.rank:
            return _drawn_rows(self.x, self.y, generators, self.block)
        samples = [self.sample(s) for s in range(part.start, part.start + len(numbers))]
        return _drawn_planes(samples, generators, self.rows, self.block, self.dtype, check)


def _data(x: Any, y: Any, batch: int | None, block: int, rank: int, replicas: int, dtype: str) -> _Data:
    """The data of a run, checked."""
    if callable(x):
        if batch is None or y is not None:
            raise OptionError("fit: a task needs batch=, the rows a step, and brings its own y")
        return _Data("task", batch, block, rank, dtype, x)
    if y is None:
        raise OptionError("fit: y is missing; give arrays x and y, or a task sample(rng, n)")
    x, y = _rows(x, y, rank, replicas, dtype)
    if batch is None:
        return _Data("all rows", x.shape[-2], block, rank, dtype, x, y)
    if batch > x.shape[-2]:
        raise OptionError(f"fit: batch is {batch}, but there are {x.shape[-2]} rows; leave batch out")
    return _Data("rows drawn", batch, block, rank, dtype, x, y)


def _row_sample(x: NDArray[Any], y: NDArray[Any]) -> Sample:
    """A table as a task: rows drawn with replacement."""

    def sample(rng: np.random.Generator, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
        chosen = _chosen(rng, x.shape[-2], n)
        return x.take(chosen, axis=-2), y.take(chosen, axis=-2)  # ten times as fast as x[chosen]

    return sample


def _chosen(rng: np.random.Generator, rows: int, n: int) -> NDArray[Any]:
    """n row numbers; short integers are drawn in less time."""
    return rng.integers(rows, size=n, dtype=np.uint16 if rows <= 1 << 16 else np.int64)


def _all_rows(x: NDArray[Any], y: NDArray[Any]) -> Feed:
    """All rows at every step: they are put there once."""

    def feed(x_planes: NDArray[Any], y_planes: NDArray[Any], empty: bool) -> bool:
        if empty:
            x_planes[:] = np.moveaxis(x, -1, 0).reshape(x.shape[-1], -1, x.shape[-2])
            y_planes[:] = np.moveaxis(y, -1, 0).reshape(y.shape[-1], -1, y.shape[-2])
        return empty

    return feed


def _drawn_rows(x: NDArray[Any], y: NDArray[Any], generators: list[np.random.Generator], block: int) -> Feed:
    """Rows of a shared table: only their numbers are kept for a block."""
    columns, targets = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    chosen: Iterator[NDArray[Any]] = iter(())

    def feed(x_planes: NDArray[Any], y_planes: NDArray[Any], _: bool) -> bool:
        nonlocal chosen
        rows = next(chosen, None)
        if rows is None:
            _, S, B = x_planes.shape
            numbers = np.empty((block, S, B), np.intp)
            for s, rng in enumerate(generators):
                numbers[:, s] = _chosen(rng, len(x), block * B).reshape(block, B)
            chosen = iter(numbers)
            rows = next(chosen)
        for plane, column in zip((*x_planes, *y_planes), (*columns, *targets), strict=True):
            np.take(column, rows, out=plane, mode="clip")  # "raise" would fill a buffer first
        return True

    return feed


def _drawn_planes(
    samples: list[Sample],
    generators: list[np.random.Generator],
    batch: int,
    block: int,
    dtype: str,
    check: Callable[[Any, Any], None],
) -> Feed:
    """What tasks draw for a block, as planes."""
    drawn: Iterator[tuple[NDArray[Any], NDArray[Any]]] = iter(())

    def feed(x_planes: NDArray[Any], y_planes: NDArray[Any], _: bool) -> bool:
        nonlocal drawn
        pair = next(drawn, None)
        if pair is None:
            found = [sample(rng, block * batch) for sample, rng in zip(samples, generators, strict=True)]
            x, y = (
                _blocked(name, [pair[i] for pair in found], block, batch, 2, dtype, planes=True)
                for i, name in enumerate("xy")
            )
            check(x[0, :, 0].T, y[0, :, 0].T)
            drawn = zip(x, y, strict=True)
            pair = next(drawn)
        x_planes[:], y_planes[:] = pair
        return True

    return feed


def _drawn(
    samples: list[Sample], batch: int, block: int, seed: int, rank: int, numbers: list[int], dtype: str
) -> Iterator[tuple[Array, Array]]:
    """Rows drawn by each replica's own stream, a block of steps at a time: (block, S, B, features) at once."""
    generators = Streams(seed, numbers, DATA).generators
    while True:
        drawn = [sample(rng, block * batch) for sample, rng in zip(samples, generators, strict=True)]
        xs, ys = (
            _blocked(name, [pair[i] for pair in drawn], block, batch, rank, dtype) for i, name in enumerate("xy")
        )
        for t in range(block):
            yield xs[t, ...], ys[t, ...]


def _blocked(
    name: str,
    parts: list[NDArray[Any]],
    block: int,
    batch: int,
    rank: int,
    dtype: str,
    planes: bool = False,
) -> Any:
    """What each replica drew for a block of steps, as one array: (block, S, B, features) or with T before B.

    As planes it is (block, features, S, B), on the host.
    """
    shape = np.shape(parts[0])
    for part in parts:
        found = np.shape(part)
        if len(found) != rank or found[-2] != block * batch or found != shape:
            time = "T, " * (rank - 2)
            raise ShapeError(
                f"fit: the task's {name} has shape {found}, expected ({time}{block * batch}, features), "
                f"the same for all replicas"
            )
    lead, features = shape[:-2], shape[-1]
    if planes:
        host = np.empty((block, features, len(parts), batch), dtype)
        for s, part in enumerate(parts):
            host[:, :, s] = np.moveaxis(np.reshape(part, (block, batch, features)), 2, 1)
        return host
    host = np.empty((block, len(parts), *lead, batch, features), dtype)
    for s, part in enumerate(parts):
        host[:, s] = np.moveaxis(np.reshape(part, (*lead, block, batch, features)), -3, 0)
    return birthplace().asarray(host)
