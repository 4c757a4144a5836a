"""The benchmark: what a step of one seed costs, beside other libraries, in one run.

Every contender of a case has a process of its own, pinned to its core, with BLAS at one thread. The contenders
take turns, round after round, so that what the machine does meanwhile meets all of them. A contender is timed
only after it has computed the same losses as the readable tier in its first steps.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import peers
from .backend import get_backend, to_numpy, use_backend
from .errors import NaluError, OptionError
from .layer import Layer, chain
from .optim import Adam
from .train import fit
from .units import NAC, NALU

Host = NDArray[Any]

#: Steps that a contender has to agree on before it is timed, of how many replicas at most, and how well.
AGREE, FEW, TOLERANCE = 5, 256, 1e-3

#: The share of losses that has to agree: where a hidden value passes zero, its logarithm makes roundings large.
MOST = 0.95

LR = 1e-3

#: Seconds that a turn takes at least, by the clock that counts; others' CPU time is known to 0.01 s.
TURN = {"CPU": 0.25, "wall": 1.0}

#: Steps come in such numbers: for so many `fit` draws rows at once.
BLOCK = 32

#: Of a process's cores, the share that others may take before a turn by the wall clock is thrown away.
TAKEN = 0.05

#: Steps of the training that starts from nothing.
COLD_STEPS = 22_000

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


# --- what is trained, and by whom -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """A model, how many replicas of it, and the rows of a step; `fresh` rows are drawn inside the loop."""

    model: Layer
    replicas: int
    rows: int
    fresh: bool = False

    def task(self, rng: np.random.Generator, n: int) -> tuple[Host, Host]:
        """Rows from U(1, 2): every target is the product of the first half's mean and the second's."""
        x = rng.random((self.model.in_features, n), dtype=np.float32).T  # a plane an input, as the kernel has them
        x += 1.0
        half = x.shape[1] // 2
        means = x if half == 1 else x @ np.repeat(np.eye(2, dtype=np.float32) / half, half, axis=0)
        return x, np.broadcast_to(means[:, :1] * means[:, 1:], (n, self.model.out_features))

    def data(self) -> tuple[Host, Host]:
        """Rows in memory, other ones for each replica: (S, B, I) and (S, B, O)."""
        x, y = self.task(np.random.default_rng(0), self.replicas * self.rows)
        return x.reshape(self.replicas, self.rows, -1), y.reshape(self.replicas, self.rows, -1)


class _Readable(Adam):
    """The same optimiser; the fused kernel trains with no subclass of it."""


@dataclass(frozen=True)
class Ours:
    """A training by the fused kernel, "planes", or by the "readable" tier."""

    training: Training
    tier: str
    threads: int = 1

    def _fit(self, **options: Any) -> Host:
        training = self.training
        data: tuple[Any, ...] = (training.task,) if training.fresh else training.data()
        batch = training.rows if training.fresh else None
        adam = Adam(lr=LR) if self.tier == "planes" else _Readable(lr=LR)
        options.update(batch=batch, optimizer=adam, replicas=training.replicas, block=BLOCK, workers=self.threads)
        return fit(training.model, *data, **options).history["loss"]

    def losses(self, steps: int) -> Host:
        """Of the first steps, (steps, S)."""
        return self._fit(steps=steps, every=1)

    def seconds(self, steps: int, clock: Callable[[], float]) -> float:
        """What a segment takes, the second: what a training does once, before its first step, is no step."""
        ends: list[float] = []
        self._fit(steps=2 * steps, every=steps, callback=lambda _: ends.append(clock()))
        return ends[1] - ends[0]


class Peer:
    """A training by another library."""

    def __init__(self, training: Training, name: str) -> None:
        model = training.model
        build = peers.PEERS[peers.library(name) or ""][name]
        params = {name: to_numpy(value) for name, value in model.init(0, training.replicas).items()}
        self.losses = build(model, params, *training.data(), lr=LR, fresh=training.fresh)

    def seconds(self, steps: int, clock: Callable[[], float]) -> float:
        """What so many steps take."""
        started = clock()
        self.losses(steps)
        return clock() - started


#: A turn of a contender: what it took, in the unit of its case; None if others disturbed it.
Turn = Callable[[], float | None]


@dataclass(frozen=True)
class Steps:
    """A contender that trains: "planes", "readable", or one of `peers`; its turns are in ns a seed-step."""

    label: str
    by: str
    training: Training
    threads: int = 1
    clock: str = "CPU"

    @property
    def unit(self) -> str:
        """Of its turns."""
        return f"{self.clock} ns a seed-step"

    def _contender(self, training: Training) -> Ours | Peer:
        if self.by in ("planes", "readable"):
            return Ours(training, self.by, self.threads)
        return Peer(training, self.by)

    def start(self) -> Turn:
        """Check it, warm it up, and find how many steps make a turn.

        Raises
        ------
        NaluError
            If it computes something else than the readable tier.
        """
        few = replace(self.training, replicas=min(self.training.replicas, FEW), fresh=False)
        found, expected = self._contender(few).losses(AGREE), Ours(few, "readable").losses(AGREE)
        if found.shape != expected.shape or np.isclose(found, expected, rtol=TOLERANCE, atol=0).mean() < MOST:
            raise NaluError(f"bench: {self.label} computes other losses than the readable tier")
        contender = self._contender(self.training)
        clock = time.process_time if self.clock == "CPU" else time.perf_counter
        contender.seconds(BLOCK, clock)  # what is compiled is compiled before it counts
        blocks = max(1, round(TURN[self.clock] / contender.seconds(BLOCK, clock)))
        if blocks > 1:
            contender.seconds(blocks * BLOCK, clock)

        def turn() -> float | None:
            before = _busy()
            seconds = contender.seconds(blocks * BLOCK, clock)
            if self.clock == "wall" and _taken(before, _busy()) > TAKEN:
                return None
            return seconds / (blocks * BLOCK) / self.training.replicas * 1e9

        return turn


@dataclass(frozen=True)
class Cold:
    """A contender from nothing: a new process imports its library, trains a NAC and says its weights."""

    label: str
    by: str
    threads: int = 1
    clock: str = "CPU"

    @property
    def unit(self) -> str:
        """Of its turns."""
        return f"{self.clock} s"

    def start(self) -> Turn:
        """Its turn; checked each time."""
        program = peers.COLD[self.by]
        source = "from __future__ import annotations\nimport importlib, json, sys\n" + inspect.getsource(program)
        source += f"print(json.dumps({program.__name__}(*json.loads(sys.argv[1]))))\n"
        params = {name: to_numpy(value)[0].tolist() for name, value in NAC(2, 1).init(0, 1).items()}
        command = [sys.executable, "-c", source, json.dumps([params, COLD_STEPS, LR])]
        clock = _spent_by_children if self.clock == "CPU" else time.perf_counter

        def turn() -> float:
            before = clock()
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = clock() - before
            if not np.allclose(json.loads(found.stdout), 1, atol=0.01):
                raise NaluError(f"bench: {self.label} has not learned the sum; its weights are {found.stdout:.60}")
            return seconds

        return turn


def _spent_by_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _busy() -> tuple[float, float, float]:
    """The time, CPU time of this process, and that of all on its cores, as far as the system tells."""
    mine, everyone = time.process_time(), 0.0
    try:
        with open("/proc/stat", encoding="ascii") as file:
            for line in file:
                name, *ticks = line.split()
                if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in _cores():
                    user, nice, system, _, _, *rest = map(int, ticks)
                    everyone += (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        everyone = mine
    return time.perf_counter(), mine, everyone


def _taken(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """The share of this process's cores that others took meanwhile."""
    wall, mine, everyone = np.subtract(after, before)
    return float((everyone - mine) / (wall * len(_cores())))


def _cores() -> list[int]:
    """Those that this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


# --- the cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is trained, in words, and the contenders; the first is what the others are compared with."""

    title: str
    contenders: tuple[Steps | Cold, ...]


def _case(title: str, training: Training, *others: str) -> Case:
    """Both of our tiers, and some peers."""
    return Case(title, tuple(Steps(by, by, training) for by in ("planes", "readable", *others)))


UNIT = NALU(2, 1)
TWO = chain(NALU(100, 2), NALU(2, 1))
EVERYONE = "jax", "jax by hand", "torch", "torch.compile"

CASES = {
    "A-nac": _case("a NAC 2 -> 1, all 2,000 rows", Training(NAC(2, 1), 1, 2000), "jax", "torch", "torch.compile"),
    "A-nalu": _case("a NALU 2 -> 1, all 2,000 rows", Training(UNIT, 1, 2000), *EVERYONE),
    **{
        f"C-{n}": _case(f"{n:,} seeds of a NALU 2 -> 1, 128 rows", Training(UNIT, n, 128), *EVERYONE)
        for n in (10, 100, 1024)
    },
    "C-1024-fresh": _case(
        "1,024 seeds of a NALU 2 -> 1, 128 rows drawn anew at every step, for each seed others",
        Training(UNIT, 1024, 128, fresh=True),
        *("jax", "jax by hand", "torch"),
    ),
    "E-fresh": _case(
        "64 seeds of NALUs 100 -> 2 -> 1, 128 rows drawn anew at every step, for each seed others",
        Training(TWO, 64, 128, fresh=True),
        *("jax", "torch", "torch a seed at a time"),
    ),
    "D": _case(
        "a NALU 512 -> 512, 256 rows",
        Training(NALU(512, 512), 1, 256),
        *("jax", "jax a step", "torch", "torch.compile"),
    ),
    "cold": Case(
        f"from a new process to a trained NAC 2 -> 1: imports, and {COLD_STEPS:,} steps on all 2,000 rows",
        tuple(Cold(by, by) for by in peers.COLD),
    ),
    "threads": Case(
        "2,048 seeds of a NALU 2 -> 1, 128 rows, in two threads and in one",
        tuple(
            Steps(f"planes, {words}", "planes", Training(UNIT, 2048, 128), threads, "wall")
            for words, threads in (("two threads", 2), ("one thread", 1))
        ),
    ),
    "flat": Case(
        "more and more seeds of a NALU 2 -> 1, 128 rows",
        tuple(Steps(f"planes, {n:,} seeds", "planes", Training(UNIT, n, 128)) for n in (512, 4096, 100_000)),
    ),
}

#: The case whose floor is known, and what the floor is called among the contenders.
FLOOR, ALONE = "C-1024", "NumPy's loops alone"


# --- measuring --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What a contender took: the median of its turns, the turns, None for those thrown away, and its memory."""

    case: str
    contender: str
    value: float
    unit: str
    values: Sequence[float | None]
    peak_MiB: float | None = None  # noqa: N815  (the unit's name)

    @property
    def kept(self) -> list[float]:
        """The turns that were not thrown away."""
        return [value for value in self.values if value is not None]

    def times(self, other: Row) -> tuple[float, float, float]:
        """How many times as long as another row: of the medians, and the lowest and highest of a round."""
        pairs = zip(self.values, other.values, strict=True)
        median = self.value / other.value
        ratios = [mine / its for mine, its in pairs if mine is not None and its is not None] or [median]
        return median, min(ratios), max(ratios)


class _Process:
    """A new process, which runs functions: pinned to as many cores as it has threads."""

    def __init__(self, threads: int, backend: str) -> None:
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), _settle, (threads, backend))

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.submit(function, *args).result()


def _settle(threads: int, backend: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _cores()[:threads])
    use_backend(backend)


_turn: Turn | None = None  # of the contender whose process this is


def _start(contender: Steps | Cold) -> None:
    global _turn
    _turn = contender.start()


def _take_turn() -> float | None:
    assert _turn is not None
    return _turn()


def _peak() -> float:
    """MiB that this process, or the largest that it started, has had at most."""
    import resource  # not everywhere

    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure(name: str, case: Case, rounds: int, backend: str) -> tuple[list[Row], dict[str, str]]:
    """All contenders of one case, in turns; and who dropped out, with the reason.

    Raises
    ------
    NaluError
        Where a contender computes something else.
    """
    dropped: dict[str, str] = {}
    running: dict[Steps | Cold, _Process] = {}
    with ExitStack() as stack:
        for c in case.contenders:
            process = _Process(c.threads, backend)
            stack.callback(process.pool.shutdown)
            try:
                process(_start, c)
                running[c] = process
            except NaluError:
                raise
            except Exception as error:  # another library's, of whatever kind: the others go on
                dropped[c.label] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        turns = [{c: process(_take_turn) for c, process in running.items()} for _ in range(rounds)]
        peaks = {c: process(_peak) for c, process in running.items()}
    rows = []
    for c in running:
        values = [_short(turn[c]) for turn in turns]
        kept = [value for value in values if value is not None]
        if kept:
            rows.append(Row(name, c.label, _short(statistics.median(kept)), c.unit, values, _short(peaks[c])))
        else:
            dropped[c.label] = f"others took more than {TAKEN:.0%} of its cores in every round"
    return rows, dropped


def _short(value: Any) -> Any:
    """Five digits are enough for a file; None stays None."""
    return value and float(f"{value:.5g}")


def primitives() -> dict[str, float]:
    """What NumPy's loops cost, in ns an element of 64k, and C's two stacked products, in ns a replica of 512."""
    x, out = np.random.default_rng(0).uniform(1, 2, 1 << 16).astype(np.float32), np.empty(1 << 16, np.float32)
    rng = np.random.default_rng(0)
    block = np.ones((512, 3, 4), np.float32)
    planes, sums = (np.ones((n, 512, 128), np.float32).swapaxes(0, 1) for n in (4, 3))
    loops: dict[str, tuple[int, Callable[[], object]]] = {
        "multiply": (x.size, lambda: np.multiply(x, x, out=out)),
        "divide": (x.size, lambda: np.divide(1.0, x, out=out)),
        "exp2": (x.size, lambda: np.exp2(x, out=out)),
        "log2": (x.size, lambda: np.log2(x, out=out)),
        "tanh": (x.size, lambda: np.tanh(x, out=out)),
        "uniform": (x.size, lambda: rng.random(out=out, dtype=np.float32)),
        "product forward": (len(block), lambda: np.matmul(block, planes, out=sums)),
        "product back": (len(block), lambda: np.matmul(sums, planes.mT, out=block)),
    }
    costs = {}
    for name, (size, loop) in loops.items():
        times = []
        for _ in range(9):
            started = time.process_time()
            for _ in range(50):
                loop()
            times.append((time.process_time() - started) / 50 / size * 1e9)
        costs[name] = statistics.median(times)
    return costs


def floor(costs: Mapping[str, float]) -> float:
    """What NumPy's loops alone cost in a seed-step of C with data in memory, ns of CPU.

    Counted are, over the 128 rows: 2 exp2 (m and q = 2^v), 2 divisions (by 1 + q, each way), 9 passes that each
    cost as much as a multiplication (q m, a + q m, 1 + q, a - y; the error, its square, its scale; back two times
    the gradient); and the two stacked products. Not counted are logarithms, which data in memory need once, the
    search for exponents out of bounds, what belongs to the six weights, and calls.
    """
    passes = 2 * costs["exp2"] + 2 * costs["divide"] + 9 * costs["multiply"]
    return 128 * passes + costs["product forward"] + costs["product back"]


def machine(libraries: Sequence[str]) -> dict[str, str]:
    """What it ran on."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass
    versions = {"python": platform.python_version(), "numpy": np.__version__, **peers.versions(libraries)}
    if get_backend() == "cupy":
        versions["cupy"] = sys.modules["cupy"].__version__
    return {"date": time.strftime("%Y-%m-%d"), "cpu": model, "cores": str(len(_cores())), **versions}


def _able(case: Case, libraries: Sequence[str], backend: str) -> tuple[Case, dict[str, str]]:
    """A case with those contenders that can take part; and why the others of ours cannot."""
    dropped: dict[str, str] = {}
    able = []
    for c in case.contenders:
        if c.by == "planes" and backend != "numpy":
            dropped[c.label] = "the fused kernel trains on NumPy alone"
        elif c.threads > len(_cores()):
            dropped[c.label] = f"it needs {c.threads} cores, and there is {len(_cores())}"
        elif peers.library(c.by) in (None, *libraries):
            able.append(c if backend == "numpy" else replace(c, clock="wall"))  # a GPU's work is no CPU time
    return replace(case, contenders=tuple(able)), dropped


@contextmanager
def _one_thread() -> Iterator[None]:
    """What starts within has BLAS at one thread."""
    before = dict(os.environ)
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def bench(
    cases: Sequence[str],
    libraries: Sequence[str],
    *,
    rounds: int,
    backend: str = "numpy",
    tell: Callable[[str], object] = print,
) -> dict[str, Any]:
    """The whole benchmark, as plain JSON types; what is found is told as it comes.

    Raises
    ------
    OptionError
        At an unknown case or library.
    BackendError
        If the backend cannot be used.
    """
    for what, names, known in (("case", cases, CASES), ("peer", libraries, peers.PEERS)):
        for name in names:
            if name not in known:
                raise OptionError(f"bench: unknown {what} {name!r:.60}; choose among {', '.join(known)}")
    use_backend(backend)
    missing = peers.missing(libraries)
    present = [name for name in libraries if name not in missing]
    here = machine(present)
    tell("".join(f"{name:8}{value}\n" for name, value in here.items()))
    if missing:
        install = "python -m pip install '.[bench]' in the project's folder"
        tell(f"not compared, because not installed: {', '.join(missing)}; {install}\n")
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    with _one_thread():
        with _Process(1, "numpy").pool as pool:
            costs = {name: _short(cost) for name, cost in pool.submit(primitives).result().items()}
        for name in cases:
            case, unable = _able(CASES[name], present, backend)
            found, dropped = measure(name, case, rounds, backend)
            if name == FLOOR and backend == "numpy":
                value = _short(floor(costs))
                found.append(Row(name, ALONE, value, "CPU ns a seed-step", [value] * rounds))
            dropped.update(unable)
            tell(as_text(name, found, dropped))
            rows += found
            left_out.update({f"{name}, {label}": reason for label, reason in dropped.items()})
    return {
        "machine": here,
        "missing": missing,
        "left_out": left_out,
        "primitives_ns": costs,
        "rows": [asdict(row) for row in rows],
    }


def figure(value: float) -> str:
    """A time as people write it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def as_text(name: str, rows: Sequence[Row], dropped: Mapping[str, str]) -> str:
    """One case for a reader: medians, their spread, how many times as long as the first, and its spread."""
    lines = [f"{name}: {CASES[name].title}"]
    if rows:
        heads = ("median", "lowest", "highest"), ("times", "lowest", "highest", "peak MiB")
        lines.append(
            "".join([f"  {rows[0].unit:24}", *(f"{h:>12}" for h in heads[0]), *(f"{h:>10}" for h in heads[1])])
        )
    for row in rows:
        figures = [f"{figure(value):>12}" for value in (row.value, min(row.kept), max(row.kept))]
        figures += [f"{ratio:>10.2f}" for ratio in row.times(rows[0])]
        figures.append("" if row.peak_MiB is None else f"{row.peak_MiB:>10.0f}")
        thrown = len(row.values) - len(row.kept)
        figures.append(f"  {thrown} of {len(row.values)} rounds thrown away" if thrown else "")
        lines.append(f"  {row.contender:24}" + "".join(figures))
    lines += [f"  {label} did not take part: {reason}" for label, reason in dropped.items()]
    return "\n".join(line.rstrip() for line in lines) + "\n"
