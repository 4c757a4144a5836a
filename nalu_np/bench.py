"""The benchmark: what a step of one seed costs, beside other libraries, in one run.

Contenders take turns, round after round, so that what the machine does meanwhile meets all of them. What is
counted is CPU time of this process; BLAS should have one thread, and the process one core (`taskset -c 0`). A
contender is timed only after it has computed the same losses as the readable tier in its first steps.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import peers
from .backend import use_backend
from .errors import NaluError, OptionError
from .layer import Layer, chain
from .optim import Adam
from .train import fit
from .units import NAC, NALU

Host = NDArray[Any]

#: Steps that a contender has to agree on before it is timed, and how well.
AGREE, TOLERANCE = 5, 1e-3

LR = 1e-3


@dataclass(frozen=True)
class Case:
    """A model, how many replicas of it, and the rows of a step; `fresh` rows are drawn inside the loop."""

    model: Layer
    replicas: int
    rows: int
    steps: int
    fresh: bool = False

    def task(self, rng: np.random.Generator, n: int) -> tuple[Host, Host]:
        """Rows from U(1, 2): the target is the product of the first half's sum and the second's."""
        x = rng.random((n, self.model.in_features), dtype=np.float32)
        x += 1.0
        half = x.shape[1] // 2
        sums = x if half == 1 else x @ np.repeat(np.eye(2, dtype=np.float32), half, axis=0)
        return x, sums[:, :1] * sums[:, 1:]

    def data(self) -> tuple[Host, Host]:
        """Rows in memory, other ones for each replica: (S, B, I) and (S, B, 1)."""
        x, y = self.task(np.random.default_rng(0), self.replicas * self.rows)
        return x.reshape(self.replicas, self.rows, -1), y.reshape(self.replicas, self.rows, 1)


TWO = chain(NALU(100, 2), NALU(2, 1))
CASES = {
    "A-NAC": Case(NAC(2, 1), 1, 2000, 2000),
    "A-NALU": Case(NALU(2, 1), 1, 2000, 1000),
    "C-10": Case(NALU(2, 1), 10, 128, 1000),
    "C-100": Case(NALU(2, 1), 100, 128, 1000),
    "C-1024": Case(NALU(2, 1), 1024, 128, 400),
    "C-1024-fresh": Case(NALU(2, 1), 1024, 128, 200, fresh=True),
    "E-fresh": Case(TWO, 64, 128, 200, fresh=True),
}

#: What takes some steps from the initial values, and returns the losses.
Run = Callable[[int], Host]


class _Readable(Adam):
    """The same optimiser; the fused kernel trains with no subclass of it."""


def _ours(case: Case, tier: str, *, fresh: bool) -> Run:
    """By the fused kernel or by the readable tier."""
    data: tuple[Any, ...] = (case.task,) if fresh else case.data()
    batch = case.rows if fresh else None
    adam = Adam(lr=LR) if tier == "planes" else _Readable(lr=LR)

    def run(steps: int) -> Host:
        every = 1 if steps <= AGREE else steps
        found = fit(
            case.model, *data, steps=steps, batch=batch, optimizer=adam, replicas=case.replicas, every=every
        )
        return found.history["loss"]

    return run


def contender(case: Case, name: str, *, fresh: bool) -> Run:
    """By name: "planes" and "readable" are ours, the others are in `peers`."""
    if name in ("planes", "readable"):
        return _ours(case, name, fresh=fresh)
    if name not in peers.PEERS:
        raise OptionError(f"bench: unknown peer {name!r:.60}; choose among {', '.join(peers.PEERS)}")
    params = case.model.init(0, case.replicas)
    return peers.PEERS[name](case.model, params, *case.data(), lr=LR, fresh=fresh)


@dataclass(frozen=True)
class Measured:
    """Nanoseconds of CPU time a seed-step, of each round."""

    case: str
    contender: str
    ns: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.ns)


def measure(case_name: str, names: Sequence[str], rounds: int) -> list[Measured]:
    """All contenders of one case, in turns.

    Raises
    ------
    NaluError
        Where a contender computes something else.
    """
    case = CASES[case_name]
    expected = contender(case, "readable", fresh=False)(AGREE)
    for name in names:
        found = contender(case, name, fresh=False)(AGREE)
        if not np.allclose(found, expected, rtol=TOLERANCE):
            raise NaluError(f"bench: {name} computes other losses than the readable tier in case {case_name}")
    runs = {name: contender(case, name, fresh=case.fresh) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():
        run(case.steps)  # what is compiled is compiled before the clock starts
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.process_time()
            run(case.steps)
            times[name].append((time.process_time() - started) / case.steps / case.replicas * 1e9)
    return [Measured(case_name, name, tuple(times[name])) for name in names]


def primitives() -> dict[str, float]:
    """What NumPy's own loops cost, in ns an element of 64k: the floor of everything here."""
    x, out = np.random.default_rng(0).uniform(1, 2, 1 << 16).astype(np.float32), np.empty(1 << 16, np.float32)
    rng = np.random.default_rng(0)
    loops: dict[str, Callable[[], object]] = {
        "multiply": lambda: np.multiply(x, x, out=out),
        "divide": lambda: np.divide(1.0, x, out=out),
        "exp2": lambda: np.exp2(x, out=out),
        "log2": lambda: np.log2(x, out=out),
        "tanh": lambda: np.tanh(x, out=out),
        "uniform": lambda: rng.random(out=out, dtype=np.float32),
    }
    costs = {}
    for name, loop in loops.items():
        times = []
        for _ in range(9):
            started = time.process_time()
            for _ in range(50):
                loop()
            times.append((time.process_time() - started) / 50 / x.size * 1e9)
        costs[name] = statistics.median(times)
    return costs


def machine() -> dict[str, str]:
    """What it ran on."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "as many as it likes"
    return {"cpu": model, "python": platform.python_version(), "numpy": np.__version__, "BLAS threads": threads}


def bench(cases: Sequence[str], peer_names: Sequence[str], rounds: int) -> dict[str, Any]:
    """The whole benchmark, as plain JSON types.

    Raises
    ------
    OptionError
        At an unknown case or peer, or one that is not installed.
    """
    use_backend("numpy")
    for name in cases:
        if name not in CASES:
            raise OptionError(f"bench: unknown case {name!r:.60}; choose among {', '.join(CASES)}")
    for name in peer_names:
        contender(CASES["C-10"], name, fresh=False)  # a missing peer is told before hours of work
    names = ["planes", "readable", *peer_names]
    found = [one for case in cases for one in measure(case, names, rounds)]
    return {
        "machine": {**machine(), **peers.versions(peer_names)},
        "primitives_ns": {name: round(cost, 3) for name, cost in primitives().items()},
        "results": [
            {"case": m.case, "contender": m.contender, "ns": [round(ns, 1) for ns in m.ns]} for m in found
        ],
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for a reader: medians, their spread, and how many times as long as the fused kernel."""
    lines = [f"{name:14}{value}" for name, value in report["machine"].items()]
    costs = ", ".join(f"{name} {cost:.2f}" for name, cost in report["primitives_ns"].items())
    lines += ["", f"NumPy's loops, ns an element: {costs}", ""]
    lines.append(
        f"{'ns of CPU a seed-step':16}{'':16}{'median':>10}{'lowest':>10}{'highest':>10}{'times ours':>12}"
    )
    ours: dict[str, float] = {}
    for one in report["results"]:
        median = statistics.median(one["ns"])
        ours.setdefault(one["case"], median)
        ends = f"{min(one['ns']):>10,.0f}{max(one['ns']):>10,.0f}"
        lines.append(
            f"{one['case']:16}{one['contender']:16}{median:>10,.0f}{ends}{median / ours[one['case']]:>12.2f}"
        )
    return "\n".join(lines)
