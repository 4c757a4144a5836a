"""What each step of a run trains on: rows of arrays or of a task, drawn a block of steps at a time.

Replica r draws from its own stream, for `block` steps at once, so that all kinds of run see the same batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .backend import DATA, Array, Streams, birthplace, from_numpy, library, to_numpy
from .errors import OptionError, ShapeError

#: A task: draws n rows, x (n, I) and y (n, O), from a generator; for sequences x (T, n, I) and y (T, n, O).
Sample = Callable[[np.random.Generator, int], tuple[NDArray[Any], NDArray[Any]]]

#: Fills planes x (I, S, B) and y (O, S, B) with the next batch, told whether they are still empty; the answer is
#: whether x is another than before.
Feed = Callable[[NDArray[Any], NDArray[Any], bool], bool]

#: Raises ShapeError unless a model accepts x and computes y.
Check = Callable[[Any, Any], None]

Drawn = TypeVar("Drawn")

LOW = (1 << 64) - 1


def positions(states: Sequence[Any]) -> NDArray[np.uint64]:
    """States of streams as rows of 4: upper and lower half, whether half a number is left over, and that half."""
    found = np.empty((len(states), 4), np.uint64)
    for row, state in zip(found, states, strict=True):
        number = state["state"]["state"]
        row[:] = number >> 64, number & LOW, state["has_uint32"], state["uinteger"]
    return found


def states(generators: Sequence[np.random.Generator]) -> list[Any]:
    """Where streams are; the rest of a state follows from the seed."""
    return [generator.bit_generator.state for generator in generators]


def move(generators: Sequence[np.random.Generator], to: NDArray[np.uint64]) -> None:
    """Put streams to these positions; one does for all."""
    for generator, row in zip(generators, np.broadcast_to(to, (len(generators), 4)), strict=True):
        high, low, left, half = row.tolist()
        state = generator.bit_generator.state
        number = {**state["state"], "state": high << 64 | low}
        generator.bit_generator.state = {**state, "state": number, "has_uint32": left, "uinteger": half}


class Draws:
    """Streams that are read for a block of steps at once, and can go on after any step."""

    def __init__(self, seed: int, numbers: list[int], block: int) -> None:
        self.generators = Streams(seed, numbers, DATA).generators if numbers else []
        self.block, self.skip = block, 0
        self.begun = states(self.generators)

    def positions(self, step: int) -> NDArray[np.uint64]:
        """Where the streams were before the block of the next step was drawn; `step` was the last."""
        return positions(self.begun if step % self.block else states(self.generators))

    def move(self, step: int, to: NDArray[np.uint64]) -> None:
        """Go on after a step, from where the streams were then."""
        move(self.generators, to)
        self.begun, self.skip = states(self.generators), step % self.block

    def steps(self, draw: Callable[[list[np.random.Generator]], Sequence[Drawn]]) -> Iterator[Drawn]:
        """What `draw` makes of the streams, one step after the other, without an end."""
        while True:
            self.begun = states(self.generators)
            drawn = draw(self.generators)
            yield from itertools.islice(drawn, self.skip, None)
            self.skip = 0


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


def rows_of(x: Any, y: Any, rank: int, replicas: int, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both arrays on the host, with equally many rows."""
    x, y = _host("x", x, rank, replicas, dtype), _host("y", y, rank, replicas, dtype)
    if x.shape[-2] != y.shape[-2]:
        raise ShapeError(f"fit: x has {x.shape[-2]} rows, but y has {y.shape[-2]}")
    return x, y


def data_of(
    x: Any, y: Any, batch: int | None, block: int, rank: int, replicas: int, dtype: str, shared: bool
) -> Data:
    """The data of a run, checked."""
    if not isinstance(shared, bool):
        raise OptionError(f"fit: shared_batches must be True or False, got {shared!r:.80}")
    if callable(x):
        if batch is None or y is not None:
            raise OptionError("fit: a task needs batch=, the rows a step, and brings its own y")
        return Data("task", batch, block, rank, dtype, x, None, shared)
    if y is None:
        raise OptionError("fit: y is missing; give arrays x and y, or a task sample(rng, n)")
    x, y = rows_of(x, y, rank, replicas, dtype)
    if batch is None:
        return Data("all rows", x.shape[-2], block, rank, dtype, x, y, shared)
    if batch > x.shape[-2]:
        raise OptionError(f"fit: batch is {batch}, but there are {x.shape[-2]} rows; leave batch out")
    return Data("rows drawn", batch, block, rank, dtype, x, y, shared)


@dataclass
class Data:
    """What is trained on: `rows` a step, from arrays that are checked and on the host, or from a task."""

    name: str
    rows: int
    block: int
    rank: int
    dtype: str
    x: Any
    y: Any = None
    shared: bool = False

    @property
    def how(self) -> str:
        """What a result says of its data."""
        return f"{self.name}, shared" if self.shared and self.name != "all rows" else self.name

    @property
    def single(self) -> bool:
        """Whether the source of rows is the same for all replicas."""
        return self.name == "task" or self.x.ndim == self.y.ndim == self.rank

    @property
    def once(self) -> bool:
        """Whether what is drawn is the same for all replicas, and so is drawn once."""
        return self.shared and self.single

    def identity(self, seed: int, numbers: list[int]) -> tuple[Any, Any]:
        """What tells these data from others: the arrays; of a task its name, and roughly what it draws first."""
        if self.name != "task":
            return self.x, self.y
        drawn = self.x(Streams(seed, numbers[:1], DATA).generators[0], self.block * self.rows)
        # Three digits: the last may be others on another machine.
        values = [f"{value:.2e}" for part in drawn for value in np.ravel(part)[:8].tolist()]
        return getattr(self.x, "__qualname__", type(self.x).__qualname__), " ".join(values)

    def draws(self, seed: int, numbers: list[int]) -> Draws:
        """The streams that some replicas draw from: each its own, or all that of replica 0."""
        if self.name == "all rows":
            numbers = []
        elif self.shared:
            numbers = [0] if self.once else [0] * len(numbers)
        return Draws(seed, numbers, self.block)

    def batches(self, draws: Draws) -> Iterator[tuple[Array, Array]]:
        """What each step trains on, without an end: (S, B, features), or (B, features) for all replicas."""
        if self.name == "all rows":
            return itertools.repeat((from_numpy(self.x, self.dtype), from_numpy(self.y, self.dtype)))

        block = _Block(self, planes=False)

        def draw(generators: list[np.random.Generator]) -> list[tuple[Array, Array]]:
            xs, ys = (birthplace().asarray(host) for host in block.drawn(generators, first=0))
            if self.once:
                xs, ys = xs[:, 0, ...], ys[:, 0, ...]
            return [(xs[t, ...], ys[t, ...]) for t in range(self.block)]

        return draws.steps(draw)

    def feed(self, draws: Draws, part: slice, check: Check) -> Feed:
        """What fills the planes of a chunk for each step; `check` sees some rows of one replica before."""
        if self.name != "task":
            check(*(v if v.ndim == self.rank else v[0] for v in (self.x, self.y)))
        if self.name == "all rows":
            return _all_rows(*(v if v.ndim == self.rank else v[part] for v in (self.x, self.y)))
        if self.name == "rows drawn" and self.single and not self.shared:
            return _drawn_rows(draws, self.x, self.y, self.rows)

        block = _Block(self, planes=True)

        def draw(generators: list[np.random.Generator]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
            x, y = block.drawn(generators, first=part.start)
            check(x[0, 0].T, y[0, 0].T)
            return list(zip(x.transpose(1, 2, 0, 3), y.transpose(1, 2, 0, 3), strict=True))

        pairs = draws.steps(draw)

        def feed(x_planes: NDArray[Any], y_planes: NDArray[Any], _: bool) -> bool:
            x_planes[:], y_planes[:] = next(pairs)
            return True

        return feed

    def sample(self, s: int) -> Sample:
        """How the replica at position s draws rows."""
        if self.name == "task":
            return self.x  # type: ignore[no-any-return]
        return _row_sample(*(v if v.ndim == self.rank else v[s] for v in (self.x, self.y)))


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


def _drawn_rows(draws: Draws, x: NDArray[Any], y: NDArray[Any], batch: int) -> Feed:
    """Rows of a table that all share: only their numbers are kept for a block."""
    columns, targets = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)

    def draw(generators: list[np.random.Generator]) -> list[NDArray[Any]]:
        numbers = np.empty((draws.block, len(generators), batch), np.intp)
        for s, rng in enumerate(generators):
            numbers[:, s] = _chosen(rng, len(x), draws.block * batch).reshape(draws.block, batch)
        return list(numbers)

    chosen = draws.steps(draw)

    def feed(x_planes: NDArray[Any], y_planes: NDArray[Any], _: bool) -> bool:
        rows = next(chosen)
        for plane, column in zip((*x_planes, *y_planes), (*columns, *targets), strict=True):
            np.take(column, rows, out=plane, mode="clip")  # "raise" would fill a buffer first
        return True

    return feed


class _Block:
    """x and y for a block of steps: (block, S, B, features), or with T before B.

    For planes they are (S, block, features, B). Both are drawn into the same memory again and again.
    """

    def __init__(self, data: Data, planes: bool) -> None:
        self.data, self.planes = data, planes
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.hosts: dict[str, NDArray[Any]] = {}

    def drawn(self, generators: list[np.random.Generator], first: int) -> list[NDArray[Any]]:
        """The next block; the first stream is that of the replica at position `first`.

        What a stream gives is put into its place at once, while it is near the processor.
        """
        self.shapes = {}
        for s, rng in enumerate(generators):
            pair = self.data.sample(first + s)(rng, self.data.block * self.data.rows)
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ShapeError(f"fit: the task must return a pair x, y, got {type(pair).__name__}")
            for name, part in zip("xy", pair, strict=True):
                self._put(name, part, s, len(generators))
        return [self.hosts[name] for name in "xy"]

    def _put(self, name: str, part: Any, s: int, S: int) -> None:
        block, rows, rank = self.data.block, self.data.rows, self.data.rank
        shape = np.shape(part)
        if len(shape) != rank or shape[-2] != block * rows or self.shapes.setdefault(name, shape) != shape:
            time = "T, " * (rank - 2)
            raise ShapeError(
                f"fit: the task's {name} has shape {shape}, expected ({time}{block * rows}, features), "
                f"the same for all replicas"
            )
        *lead, _, features = shape
        drawn = np.reshape(part, (*lead, block, rows, features))
        at: tuple[Any, ...]
        if self.planes:
            drawn, places, at = drawn.transpose(0, 2, 1), (S, block), (s,)
        else:
            drawn, places, at = np.moveaxis(drawn, -3, 0), (block, S), (slice(None), s)
        layout = (*places, *drawn.shape[1:])
        if name not in self.hosts or self.hosts[name].shape != layout:  # sequences may change their length
            self.hosts[name] = np.empty(layout, self.data.dtype)
        self.hosts[name][at] = drawn
