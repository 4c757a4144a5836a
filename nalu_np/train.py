"""`fit`: many replicas of a layer trained at once, in segments of steps.

Replicas never meet: each has its own initial values, its own stream of data and its own fate. A replica whose
loss, gradient or update turns non-finite is frozen at the parameters before that step.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .backend import (
    NOISE,
    Array,
    Streams,
    dtype_name,
    from_numpy,
    get_backend,
    namespace,
    replica_numbers,
    to_numpy,
)
from .batches import Data, Feed, Sample, data_of, move, positions, rows_of, states
from .checkpoint import Checkpoint
from .errors import DTypeError, OptionError, ShapeError
from .kernels import planes
from .layer import Layer, check_built, check_names, check_shapes, flatten, overrides, views
from .optim import Adam, Optimizer
from .store import Arrays
from .vjps import LOSSES

#: What a checkpoint keeps of a run beside the state of its optimiser, its records and its streams.
STATE = ("theta", "best_theta", "best_loss", "alive")


@dataclass(frozen=True)
class Segment:
    """What a callback sees at the end of a segment: the step, the segment's row of the history, the parameters.

    Attributes
    ----------
    step, steps : int
        The last step of the segment, from 1, and how many the run has in all.
    loss : array
        (S): the mean training loss of the segment, NaN where a replica has diverged.
    valid_loss : array or None
        (S): the loss on the validation rows; None without them.
    params : dict
        (S, ...), those of the run: to be kept as they are, or copied to be changed.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> x = np.ones((4, 2), "float32")
    >>> def stop(segment):                                     # a true answer ends the training
    ...     print(segment.step, "of", segment.steps, segment.loss.shape)
    ...     return segment.step >= 20
    >>> result = nn.fit(nn.NAC(2, 1), x, x[:, :1], steps=1000, every=10, replicas=3, callback=stop)
    10 of 1000 (3,)
    20 of 1000 (3,)
    """

    step: int
    steps: int
    loss: NDArray[np.float64]
    valid_loss: NDArray[np.float64] | None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What `fit` returns; S replicas, K segments.

    Attributes
    ----------
    params : dict
        The last parameters, (S, ...).
    best_params : dict
        Each replica's parameters at the end of its best segment: the lowest validation loss, or without
        validation the lowest training loss. A penalty does not count: what it has brought about by the end of
        training is in `params`.
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

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> x = np.random.default_rng(0).uniform(1, 2, (100, 2))
    >>> result = nn.fit(nn.NAC(2, 1), x, x[:, :1] + x[:, 1:], steps=200, every=50, replicas=8)
    >>> result.params["W_hat"].shape, result.history["loss"].shape, bool(result.diverged.any())
    ((8, 2, 1), (4, 8), False)
    """

    params: dict[str, Any]
    best_params: dict[str, Any]
    history: dict[str, NDArray[Any]]
    best: int
    diverged: NDArray[np.bool_]
    how: dict[str, str]

    def __repr__(self) -> str:
        losses = self.history.get("valid_loss", self.history.get("loss", np.empty((0, len(self.diverged)))))
        least = np.fmin.reduce(losses[:, self.best], initial=np.inf)  # which passes over NaN
        return (
            f"Result(replicas={len(self.diverged)}, segments={len(losses)}, best={self.best}, "
            f"best_loss={least:.3g}, diverged={np.count_nonzero(self.diverged)}, how={self.how})"
        )


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
    params: Mapping[str, Any] | None = None,
    shared_batches: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Result:
    """Train replicas of a layer.

    theta_new = project(theta + update(dloss/dtheta + dpenalty/dtheta))

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
        Rows by which `best_params` and `best` are chosen: x (N, I) and y (N, O), or with S, as above.
    every : int
        Steps a segment; records, best parameters, callbacks and checkpoints happen at its end. The last segment
        ends with the last step.
    block : int
        Steps for which rows are drawn at once; part of the definition of a run.
    workers : int
        Threads among which chunks of replicas are shared, where a fused kernel trains them.
    callback : callable, optional
        Called with a `Segment`; a true answer stops the training.
    params : mapping of str to array, optional
        Initial parameters instead of those drawn from `seed`: (S, ...), or the same for all replicas. In either
        library, finite, of `dtype`.
    shared_batches : bool
        Draw one batch a step for all replicas, that of replica 0, instead of one for each. It saves time where
        data are expensive, at a price: replicas then differ by their initial values alone, and their successes
        are correlated through the data. Rates and intervals over them hold for this one order of batches, not for
        the task; for those a paper would report, leave it off. With all rows at every step nothing is drawn.
    checkpoint : str or path, optional
        A file to which the state of the run is written at the end of each segment, before the callback: a kill
        between the two loses that call. Where it is there already the run goes on from it, and a finished one
        returns at once. On NumPy the result has the bits of a run that was never interrupted, also where `steps`
        is larger than before. All arguments but `steps`, `workers` and `callback` must be the same. A task must
        draw from its generator alone, and is told from others by its name and what it draws first.

    Returns
    -------
    Result

    Raises
    ------
    OptionError, ShapeError, ParameterError, DTypeError
        Where options, data or parameters do not fit.
    CheckpointError
        If the checkpoint cannot be written, or is of another run, damaged or no checkpoint; it stays as it is.

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
    steps, every, block, workers = int(steps), int(every), int(block), int(workers)
    dtype, numbers = dtype_name(dtype), replica_numbers(replicas)
    _check_columns(model, y)
    data = data_of(x, y, batch, block, model.rank, len(numbers), dtype, shared_batches)
    held_out = None if validation is None else _held_out(validation, model, len(numbers), dtype)
    start = model.init(seed, numbers, dtype)  # which looks at the seed too
    if params is not None:
        start = _given(model, params, len(numbers), dtype)
    fused = get_backend() == "numpy" and planes.supports(model, loss, optimizer)
    kind = _PlaneRun if fused else _Run
    run = kind(model, LOSSES[loss], optimizer, data, start, every, seed, numbers, dtype, workers)

    with np.errstate(all="ignore"):  # a replica that diverges is a result, not a storm of warnings
        file = None if checkpoint is None else Checkpoint(checkpoint, **run.identity(), validation=held_out)
        saved = None if file is None else file.read(steps, run.fits)
        if saved is not None:
            run.restore(*saved)
        run.prepare()
        if held_out is not None:
            run.check(*held_out)
        if run.step and (run.step % every == 0 or run.step == steps):
            run.close(held_out)
        while run.step < steps:
            run.take(min(every - run.step % every, steps - run.step))
            if file is not None:
                file.write(run.step, run.save())
            record = run.close(held_out)
            segment = Segment(run.step, steps, record["loss"], record.get("valid_loss"), run.params)
            if callback is not None and callback(segment):
                break

    return Result(
        params=run.params,
        best_params=views(run.best_theta, run.shapes),
        history={name: np.stack(rows) for name, rows in run.history.items()},
        best=int(np.argmin(to_numpy(run.best_loss))),
        diverged=~to_numpy(run.alive),
        how={**run.how, "backend": get_backend(), "dtype": dtype, "data": data.how},
    )


class _Run:
    """The state of S replicas between two steps, all of it on the device."""

    how: dict[str, str] = {"tier": "readable"}  # noqa: RUF012  (never changed)

    def __init__(
        self,
        model: Layer,
        loss: Any,
        optimizer: Optimizer,
        data: Data,
        start: Mapping[str, Any],
        every: int,
        seed: int,
        numbers: list[int],
        dtype: str,
        workers: int,
    ) -> None:
        self.model, self.loss, self.optimizer, self.data = model, loss, optimizer, data
        self.every, self.seed, self.numbers, self.dtype, self.workers = every, seed, numbers, dtype, workers
        self.shapes = model.shapes()
        self.theta = flatten(start, self.shapes)
        self.params = views(self.theta, self.shapes)
        self.state = optimizer.init(self.theta)
        self.rng = Streams(seed, numbers, NOISE)
        self.parts = self.cut()
        self.draws = [data.draws(seed, numbers[part]) for part in self.parts]
        self.penalised = overrides(model, "penalty")
        self.step = 0
        self.ones = from_numpy(np.ones(len(numbers)), dtype)
        self.nan = self.ones * float("nan")
        self.best_loss: Any = self.ones * float("inf")
        self.best_theta = self.theta
        self.alive: Any = self.ones > 0
        self.sums: dict[str, Any] = {}  # of what the steps of this segment recorded
        self.history: dict[str, list[NDArray[Any]]] = {}

    def cut(self) -> list[slice]:
        """The replicas that are trained at once."""
        return [slice(0, len(self.numbers))]

    def prepare(self) -> None:
        """Open the stream of batches, and look at the first."""
        batches = self.data.batches(self.draws[0])
        first = next(batches)
        self.check(*first)
        self.batches = itertools.chain([first], batches)

    def check(self, x: Array, y: Array) -> None:
        """Raise ShapeError unless the model accepts x, and y is what it computes; for x of one, by one replica."""
        rank = self.model.rank
        params = self.params if x.ndim > rank else {name: q[:1, ...] for name, q in self.params.items()}
        prediction, _ = self.model(params, x)
        if y.shape[-rank:] != prediction.shape[1:]:
            raise ShapeError(
                f"fit: y has shape {y.shape}, but {self.model!r} computes {prediction.shape[1:]} "
                f"for each replica; y needs one column an output"
            )

    def take(self, steps: int) -> None:
        """Some steps."""
        for _ in range(steps):
            for name, value in self.advance(*next(self.batches)).items():
                self.sums[name] = self.sums[name] + value if name in self.sums else value

    def close(self, held_out: tuple[Array, Array] | None) -> dict[str, NDArray[np.float64]]:
        """The end of a segment: its record, and whether its parameters are the best so far."""
        xp, steps = namespace(self.theta), (self.step - 1) % self.every + 1
        record = {name: value / steps for name, value in self.sums.items()}
        self.sums = {}
        if held_out is not None:
            prediction, _ = self.model.forward(self.params, held_out[0])
            record["valid_loss"] = xp.where(self.alive, self.loss(prediction, held_out[1])[0], self.nan)
        chosen_by = record["loss"] if held_out is None else record["valid_loss"]
        better = chosen_by < self.best_loss
        self.best_loss = xp.where(better, chosen_by, self.best_loss)
        self.best_theta = xp.where(better[:, None], self.theta, self.best_theta)
        rows = {name: to_numpy(value).astype(np.float64) for name, value in record.items()}
        for name, row in rows.items():
            self.history.setdefault(name, []).append(row)
        return rows

    def identity(self) -> dict[str, Any]:
        """The arguments of `fit` on which every number of a run depends, but for the validation."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "loss": self.loss.__name__,
            "batch": None if self.data.name == "all rows" else self.data.rows,
            "replicas": self.numbers,
            "seed": self.seed,
            "dtype": self.dtype,
            "every": self.every,
            "block": self.data.block,
            "shared_batches": self.data.shared,
            "params": self.theta,
            "data": self.data.identity(self.seed, self.numbers),
        }

    def save(self) -> Arrays:
        """The state on the host, before the segment is closed; see `checkpoint`."""
        device = {name: getattr(self, name) for name in STATE}
        device |= {f"optimizer.{i}": array for i, array in enumerate(self.state)}
        device |= {f"sums.{name}": total for name, total in self.sums.items()}
        data = np.concatenate([draws.positions(self.step) for draws in self.draws])
        return {
            **{name: to_numpy(array) for name, array in device.items()},
            **{f"history.{name}": np.stack(rows) for name, rows in self.history.items()},
            "data": data[:1] if self.data.shared else data,
            "noise": positions(states(self.rng.generators)),
        }

    def fits(self, step: int, arrays: Arrays) -> bool:
        """Whether such arrays could be what this run saved at a step; asked before the first."""

        def forms(arrays: Arrays) -> dict[str, Any]:
            return {name: (array.shape, array.dtype) for name, array in arrays.items()}

        S, closed = len(self.numbers), (step - 1) // self.every
        found, expected = forms(arrays), forms(self.save())
        sums = [found.pop(name)[0] for name in arrays if name.startswith("sums.")]
        history = [found.pop(name)[0] for name in arrays if name.startswith("history.")]
        recorded = bool(sums) and bool(history) == (closed > 0)
        return recorded and {*sums} == {(S,)} and {*history} <= {(closed, S)} and found == expected

    def restore(self, step: int, arrays: Arrays) -> None:
        """Go on from what was saved at a step."""
        self.step = step
        for name in STATE:
            setattr(self, name, from_numpy(arrays[name], arrays[name].dtype.name))
        self.params = views(self.theta, self.shapes)
        optimizer = (arrays[f"optimizer.{i}"] for i in range(len(self.state)))
        self.state = tuple(from_numpy(array, array.dtype.name) for array in optimizer)
        for name, array in arrays.items():
            group, _, record = name.partition(".")
            if group == "sums":
                self.sums[record] = from_numpy(array, array.dtype.name)
            elif group == "history":
                self.history[record] = list(array)
        for draws, part in zip(self.draws, self.parts, strict=True):
            draws.move(step, arrays["data"] if self.data.shared else arrays["data"][part])
        move(self.rng.generators, arrays["noise"])

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
        elif self.penalised:  # it may begin later
            scalars["penalty"] = self.ones * 0.0

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

    def cut(self) -> list[slice]:
        """Chunks; each has its own parameters, moments and stream of batches."""
        size, S = planes.chunk(self.model, self.data.rows), len(self.numbers)
        self.how = {"tier": "planes", "chunk": str(min(size, S))}
        return [slice(at, min(at + size, S)) for at in range(0, S, size)]

    def prepare(self) -> None:
        """Hand the state to the kernel."""
        self.trainees = []
        for part in self.parts:
            trainee = planes.Trainee(self.model, self.theta[part], cast(Adam, self.optimizer))
            trainee.m[...], trainee.v[...] = (moment[part].T for moment in self.state)
            trainee.alive[...] = self.alive[part]
            self.trainees.append(trainee)
        self.feeds = [self._feed(k) for k in range(len(self.parts))]

    def _feed(self, k: int) -> Feed:
        return self.data.feed(self.draws[k], self.parts[k], self.check)

    def take(self, steps: int) -> None:
        """Some steps of each chunk, in as many threads as there are workers."""
        first, self.step = self.step + 1, self.step + steps

        def train(k: int) -> Any:
            trainee, feed = self.trainees[k], self.feeds[k]
            if len(self.parts) > self.workers and self.every >= self.data.block:
                # Only chunks in training hold a block; what a segment leaves of one is drawn again.
                self.draws[k].move(first - 1, self.draws[k].positions(first - 1))
                feed = self._feed(k)
            workspace = planes.Workspace(trainee, self.data.rows)
            sums = np.zeros_like(trainee.records)
            for row, name in zip(sums, trainee.names, strict=True):
                row += self.sums[name][self.parts[k]] if name in self.sums else 0
            with np.errstate(all="ignore"):
                for step in range(first, first + steps):
                    fresh = feed(workspace.x, workspace.target, step == first)
                    sums += workspace.step(step, fresh=fresh)
            return sums

        chunks = range(len(self.trainees))
        if self.workers > 1:
            with ThreadPoolExecutor(self.workers) as pool:
                sums = list(pool.map(train, chunks))
        else:
            sums = [train(k) for k in chunks]
        self.sums = dict(zip(self.trainees[0].names, np.concatenate(sums, axis=1), strict=True))
        # New arrays, laid out as those read from a file: a callback may keep the parameters.
        self.theta, *moments = (
            np.ascontiguousarray(np.concatenate([getattr(trainee, name).T for trainee in self.trainees]))
            for name in ("theta", "m", "v")
        )
        self.state = tuple(moments)
        self.alive = np.concatenate([trainee.alive for trainee in self.trainees])
        self.params = views(self.theta, self.shapes)


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of arrays that are freed, for the next step to take again.

    By default glibc gives blocks of 128 KiB back to the system at once, and each step pays for page faults:
    measured, two thirds of its time. Freeing one large block moves that threshold, for the whole process.
    """
    np.empty(30 << 20, np.uint8)


def _check_options(model: object, optimizer: object, loss: object, **counts: object) -> None:
    if not hasattr(optimizer, "update") or isinstance(optimizer, type):
        raise OptionError(f"fit: expected an optimizer such as nn.Adam(lr=0.01), got {optimizer!r:.60}")
    check_built("fit", model)
    if not isinstance(loss, str) or loss not in LOSSES:
        raise OptionError(f"fit: loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    for name, value in counts.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise OptionError(f"fit: {name} must be an integer >= 1, got {value!r}")


def _check_columns(model: Layer, y: Any) -> None:
    """Raise ShapeError where the one column of y has no axis of its own."""
    if model.rank == 2 and model.out_features == 1 and np.ndim(y) == 1:
        raise ShapeError(
            f"fit: y has shape {np.shape(y)}, expected (N, O=1), one column an output; pass y[:, None]"
        )


def _held_out(validation: object, model: Layer, replicas: int, dtype: str) -> tuple[Array, Array]:
    """The rows to validate on, checked, on the device."""
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise OptionError(f"fit: validation must be a pair (x, y), got {type(validation).__name__}")
    x, y = validation
    _check_columns(model, y)
    x, y = rows_of(x, y, model.rank, replicas, dtype)
    return from_numpy(x, dtype), from_numpy(y, dtype)


def _given(model: Layer, params: object, replicas: int, dtype: str) -> dict[str, Array]:
    """Initial parameters, checked, as new arrays (S, ...)."""
    if not isinstance(params, Mapping):
        raise OptionError(f"fit: params must be a mapping of names to arrays, got {type(params).__name__}")
    check_names(model, params)
    namespace(*params.values())
    lead = check_shapes(model, params)
    if lead not in ((), (replicas,)):
        raise ShapeError(f"fit: params has {lead[0]} replicas, but there are {replicas}; pass replicas={lead[0]}")
    found = {}
    for name, shape in model.shapes().items():
        host = to_numpy(params[name])
        if host.dtype.name != dtype:
            raise DTypeError(f"fit: params has {name} in {host.dtype}, but dtype is {dtype}; convert one of them")
        if not np.isfinite(host).all():
            raise OptionError(
                f"fit: params has NaN or infinity in {name}; start from a replica that did not diverge"
            )
        found[name] = from_numpy(np.broadcast_to(host, (replicas, *shape)), dtype)
    return found
