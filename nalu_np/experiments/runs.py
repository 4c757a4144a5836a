"""A run of an experiment in a folder: what is to be done, the records of what is done, and how to go on.

The folder holds `config.json`, the resolved configs and on what they were run, and `results.jsonl`, the records.
All else in it (`summary.csv`, figures, `report.html`) follows from these two.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..errors import FileError, OptionError, printable
from ..sweeps import Executor, read_results, sweep
from . import EXPERIMENTS, find
from .base import Cell, Config, Experiment, Record, gather

FORMAT = "nalu_np run"
VERSION = 1

MADE = "give a folder that nalu-np run has made"

#: Seconds in which a dask scheduler has to answer.
PATIENCE = 8


@dataclass(frozen=True)
class Run:
    """A folder, and what it is the run of. `sessions` says on what it was run, an entry for each start."""

    folder: Path
    experiment: Experiment
    scale: str
    seeds: int | None
    configs: list[Config]
    sessions: list[dict[str, Any]]

    @property
    def results(self) -> Path:
        """The file of records."""
        return self.folder / "results.jsonl"

    @property
    def what(self) -> str:
        """In words."""
        options = f" --{self.scale}" * (self.scale != "default") + f" --seeds {self.seeds}" * bool(self.seeds)
        return f"{self.experiment.name}{options}"

    def records(self) -> list[Record]:
        """Those of its configs, finished or failed."""
        if not self.results.exists():
            return []
        wanted = {json.dumps(config, sort_keys=True) for config in self.configs}
        return [r for r in read_results(self.results) if json.dumps(r["config"], sort_keys=True) in wanted]

    def cells(self) -> list[Cell]:
        """What is finished."""
        with self.understood():
            return gather(self.configs, self.records())

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Turn what records of another shape lead to into one error."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, FileError):
                raise
            problem = f"{type(error).__name__}: {printable(str(error), 100)}"
            who = printable(os.fsdecode(self.results), None)
            other = f"not records of {self.experiment.name} as this version makes them ({problem})"
            raise FileError(f"{who}: {other}; run it again into another folder") from None

    def seconds(self, workers: int = 1) -> float:
        """About how long what is not finished takes: the sum over workers, and at least the longest."""
        done = {json.dumps(r["config"], sort_keys=True) for r in self.records() if r["status"] == "done"}
        left = [c for c in self.configs if json.dumps(c, sort_keys=True) not in done]
        costs = [self.experiment.seconds(config) for config in left]
        return max([sum(costs) / workers, *costs], default=0.0)


def resolved(experiment: Experiment, scale: str, seeds: int | None) -> list[Config]:
    """The configs as JSON gives them back."""
    configs: list[Config] = json.loads(json.dumps(experiment.cells(scale, seeds)))
    return configs


def start(experiment: Experiment, scale: str, seeds: int | None, folder: Path, resume: bool) -> Run:
    """Take a folder for a run, or go on in it.

    Raises
    ------
    FileError
        If the folder cannot be written, holds other things, another run, or without `resume` this one.
    """
    configs = resolved(experiment, scale, seeds)
    run = Run(folder, experiment, scale, seeds, configs, [])
    who = printable(os.fsdecode(folder), None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{who}: cannot be used as a folder: {reason}; choose another --out") from None
    if "config.json" in there:
        old = read(folder)
        if (old.what, old.configs) != (run.what, configs):
            raise FileError(f"{who}: it holds another run, {old.what}, not {run.what}; choose another --out")
        if not resume:
            done = sum(record["status"] == "done" for record in old.records())
            again = f"nalu-np report {who} draws it again" if done == len(configs) else "add --resume to go on"
            state = f"{done} of {len(configs)} parts of {run.what} are done"
            raise FileError(f"{who}: {state}; {again}, or choose another --out")
        run.sessions.extend(old.sessions)
    elif there:
        names = printable(", ".join(there), 60)
        raise FileError(f"{who}: it holds other files ({names}); choose another --out")
    run.sessions.append(session())
    config = {"format": FORMAT, "version": VERSION, "experiment": experiment.name, "scale": scale, "seeds": seeds}
    text = json.dumps({**config, "sessions": run.sessions, "configs": configs}, indent=1)
    put(folder / "config.json", text.encode() + b"\n")
    return run


def read(folder: Path) -> Run:
    """The run that a folder holds, or FileError."""
    path = folder / "config.json"
    who = printable(os.fsdecode(path), None)
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(
            f"{who}: cannot be read: {error.strerror}; give a folder that nalu-np run has made"
        ) from None
    except (ValueError, RecursionError):
        found = None
    match found:
        case {"format": "nalu_np run", "version": int(version)} if version > VERSION:
            raise FileError(f"{who}: a run of a newer version of nalu_np; update it")
        case {
            "format": "nalu_np run",
            "version": 1,
            "experiment": str(name),
            "scale": str(scale),
            "seeds": int() | None as seeds,
            "sessions": [*sessions],
            "configs": [_, *_] as configs,
        } if all(isinstance(part, dict) for part in (*sessions, *configs)):
            if name not in EXPERIMENTS:
                with_name = printable(name)
                raise FileError(f"{who}: a run of '{with_name}', which this version of nalu_np does not have")
            return Run(folder, find(name), scale, seeds, configs, sessions)
    raise FileError(f"{who}: not the config of a run; {MADE}")


def session() -> dict[str, Any]:
    """On what this is run."""
    from .. import __version__  # not at the top: a constant of the package, which may not be complete yet

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "nalu_np": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores,
    }


def processor() -> str:
    """What the system calls its processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def put(path: Path, content: bytes) -> None:
    """Write a file, in place of one that is there: as a whole, or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise FileError(f"{printable(os.fsdecode(path), None)}: cannot be written: {error.strerror}") from None


# --- who computes -----------------------------------------------------------------------------------------------


def execute(run: Run, executor: Executor | None, callback: Callable[[Record], object]) -> dict[str, int]:
    """Run what is not finished; returns what `sweep` does."""
    return sweep(run.experiment.run, run.configs, executor=executor, out=run.results, callback=callback)


@contextmanager
def opened(workers: int, dask: str | None) -> Iterator[Executor | None]:
    """None for this process, processes of its own, or dask; Ctrl-C ends the processes where they are."""
    if dask is not None:
        with connected(dask) as client:
            yield client.get_executor(pure=False)
    elif workers > 1:
        pool, hook = ProcessPoolExecutor(workers, mp_context=get_context("spawn")), threading.excepthook
        try:
            _start_deaf(pool, workers)
            yield pool
        except KeyboardInterrupt:
            # The pool's own thread may find a future cancelled that it wants to fail, and would print where.
            threading.excepthook = lambda _: None
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            threading.excepthook = hook
    else:
        yield None


def _start_deaf(pool: ProcessPoolExecutor, workers: int) -> None:
    """Start the processes of a pool so that they ignore Ctrl-C, which a terminal sends to them too.

    What is ignored here when they start is ignored there from the first moment; otherwise each could print where
    it was. Only the main thread can ignore a signal, and only it is interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(workers):
            pool.submit(int)  # which starts one more, as none is idle yet
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of a dask scheduler, or OptionError if there is none."""
    who = f"--dask {printable(address, 80)}"
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise OptionError(f"{who}: needs dask; python -m pip install '.[sweep]' in the project's folder") from None
    try:
        _knock(address)
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except Exception as error:  # whatever kind its transport has
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 120)
        raise OptionError(f"{who}: no scheduler answers ({reason}); check the address") from None
    with client:
        yield client


def _knock(address: str) -> None:
    """Raise OSError or ValueError unless somebody listens there: dask's client takes half a minute to give up."""
    parts = urlsplit(address)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
        raise ValueError("expected one like tcp://host:8786")
    socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE).close()
