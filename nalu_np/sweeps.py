"""Sweeps: one function run on many configs, over any executor, each result a line of a file as it comes.

The file is JSON Lines. First a header: the format, its version, the library's version, the function's name. Then a
line for each finished run, only ever appended; of several lines with one key, the last counts. The key is the
SHA-256 of the canonical JSON (keys sorted, no spaces, ASCII) of `{"config": ..., "run": name}`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import operator
import os
import stat
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from .errors import FileError, OptionError, SweepError, printable

FORMAT = "nalu_np results"
VERSION = 1
BEGIN = f'{{"format": "{FORMAT}"'.encode()
MOST_HEADER = 1 << 16
MOST_SUBMITTED = 1024  # runs handed to an executor and not finished; more would only take memory
MOST_DEPTH = 100  # lists and dicts inside each other
MOST_BITS = 14_000  # of an integer: Python reads 4,300 digits
SYNC_EVERY = 1.0  # seconds; a write took 1 microsecond, with its fsync 170 on a fast disk, and disks differ
FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Path = str | os.PathLike[str]
Record = dict[str, Any]


class Executor(Protocol):
    """What a sweep needs of an executor; those of concurrent.futures have it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Start a call, or put it in a queue."""
        ...


def sweep(
    run: Callable[[Any], Any],
    configs: Iterable[Any],
    *,
    executor: Executor | None = None,
    out: Path = "results.jsonl",
    resume: bool = True,
    callback: Callable[[Record], object] | None = None,
) -> dict[str, int]:
    """Run a function on every config, and write each result to a file as it comes.

    A second call with the same file runs only what is not finished: what is new, what failed, and what was lost
    when a worker or this process died.

    Parameters
    ----------
    run : function
        At the top level of a module that the workers can import, since they find it by its name. It takes a config
        and returns a result. An exception in it is recorded as a failure and ends nothing.
    configs : iterable
        Plain JSON: None, bool, int, float, str, lists, dicts with text as keys. Each is one run; equal ones are
        run once. They are equal if their JSON is: the order of keys does not count, but 1, 1.0 and True are three
        configs. All are checked before the first run.
    executor : executor, optional
        Anything with the `submit` of concurrent.futures. None runs one after the other in this process. Others
        that are tested: `ThreadPoolExecutor`, `ProcessPoolExecutor(mp_context=get_context("spawn"))`, and
        `client.get_executor(pure=False)` of dask.distributed. It is not shut down.
    out : str or path
        The results file; its folder must be there. While a sweep writes it, another one is refused.
    resume : bool
        False runs every config again; the new lines count, the old ones stay in the file.
    callback : function, optional
        Called in this process with the record of each run that finishes, as in `read_results`, and in it `done`
        and `total`: how many of the configs are settled, the skipped ones included. What it raises ends the sweep.

    Returns
    -------
    dict
        How many configs in `total`; `skipped` since they are done already; `done` and `failed` in this call.

    Raises
    ------
    OptionError
        If run cannot be found by its name, a config or a result is not JSON, or the executor is shut down.
    FileError
        If the file cannot be written (a missing folder, a full disk), is being written by another sweep, is
        another sweep's or no results file at all, is damaged, or is of a newer format. It stays as it is.
    SweepError
        If the executor lost runs because a worker died. Make a new executor and call again.

    Warns
    -----
    UserWarning
        If an incomplete last line was cut off, if the file was begun by another version of the library, or if it
        cannot be locked here.

    Notes
    -----
    Results may hold NumPy's numbers, strings and arrays, and tuples: they become numbers, text and lists. NaN and
    infinities, which JSON lacks, are written as ``{"$float": "NaN"}`` and read back as floats. A result that holds
    anything else is recorded as failed and ends the sweep with an OptionError, as the next would be no better.
    `run` gets a config of its own, its keys sorted.

    At any moment the process may be killed: a line is written by one call and counts once it is complete. A crash
    of the whole machine can take the runs of the last second. At most 1,024 runs are submitted at a time. If
    threadpoolctl is installed, BLAS has one thread in this process until the sweep ends, and in worker processes
    for good: so the bits do not depend on the executor. A run's SystemExit is a failure in a worker, and ends this
    process without one.

    Examples
    --------
    >>> import math, pathlib, tempfile
    >>> from nalu_np.sweeps import read_results, sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "roots.jsonl")
    ...     print(sweep(math.sqrt, [4.0, 9.0, -1.0], out=path))
    ...     print(sweep(math.sqrt, [4.0, 9.0, 16.0], out=path))
    ...     [(record["config"], record.get("result")) for record in read_results(path)]
    {'total': 3, 'skipped': 0, 'done': 2, 'failed': 1}
    {'total': 3, 'skipped': 2, 'done': 1, 'failed': 0}
    [(4.0, 2.0), (9.0, 3.0), (-1.0, None), (16.0, 4.0)]
    """
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "submit", None))):
        raise OptionError(f"sweep: executor must be None or have a method submit, got {executor!r:.80}")
    if callback is not None and not callable(callback):
        raise OptionError(f"sweep: callback must be a function of a record, got {callback!r:.80}")
    if not isinstance(resume, bool):
        raise OptionError(f"sweep: resume must be True or False, got {resume!r:.80}")
    module, qualname, name = _named(run, executor)
    jobs = _jobs(configs, name)
    counts = {"total": len(jobs), "skipped": 0, "done": 0, "failed": 0}

    with _Results(out, name) as results, _one_blas_thread():
        for note in results.notes:
            warnings.warn(note, stacklevel=2)
        waiting = [key for key in jobs if not (resume and key in results.finished)]
        counts["skipped"] = len(jobs) - len(waiting)

        def keep(key: bytes, outcome: str) -> Record:
            line = f'{{"key": "{key.hex()}", "config": {jobs[key]}, {outcome[1:]}'
            results.append(line.encode() + b"\n")
            record = cast("Record", _decoded(line))
            counts[record["status"]] += 1
            return record

        def settle(key: bytes, outcome: str, stop: str) -> None:
            record = keep(key, outcome)
            if stop:
                raise OptionError(f"sweep: {stop}")
            if callback is not None:
                settled = counts["skipped"] + counts["done"] + counts["failed"]
                callback({**record, "done": settled, "total": counts["total"]})

        calls = ((key, (module, qualname, jobs[key], os.getpid())) for key in waiting)
        if executor is None:
            for key, call in calls:
                settle(key, *_work(*call))
        else:
            try:
                _distribute(executor, calls, keep, settle)
            except SweepError as error:
                finished = counts["done"] + counts["failed"]
                kept = f"{finished} of {len(waiting)} runs are finished and kept in {results.shown}"
                raise SweepError(f"sweep: {error}; {kept}; call again with a new executor for the rest") from None
    return counts


def read_results(path: Path) -> list[Record]:
    """Read what `sweep` wrote: one record for each config that was run, the last if there are several.

    Parameters
    ----------
    path : str or path
        The file; it may be read while a sweep writes it.

    Returns
    -------
    list of dict
        In the order of the file, each with `key` and `config`; `status`, which is "done" or "failed"; `seconds`,
        or None where no run came back; and either `result`, or `error` with `type`, `message` and the last lines
        of the `traceback`.

    Raises
    ------
    FileError
        If the file cannot be read, is no results file, is damaged, or is of a newer format.

    Warns
    -----
    UserWarning
        If the last line is incomplete: a sweep was killed there, or is writing it now. It is left out.

    Examples
    --------
    >>> import math, pathlib, tempfile
    >>> from nalu_np.sweeps import read_results, sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "signs.jsonl")
    ...     counts = sweep(math.copysign, [1], out=path)
    ...     record, = read_results(path)
    >>> record["config"], record["status"], record["error"]["type"]
    (1, 'failed', 'TypeError')
    """
    shown = printable(os.fsdecode(path), None)
    records = {}
    with _explained(shown, "cannot be read: {}; check the path"):
        _ordinary(path)
        with open(path, "rb") as file:
            header, end = _header(file, shown)
            for record, after in _records(file, header, end, shown):
                records[record["key"]], end = record, after
            torn = end < file.seek(0, os.SEEK_END)
    if torn:
        text = "a sweep was killed there, or is writing it now; it is left out"
        warnings.warn(f"{shown}: its last line is incomplete: {text}", stacklevel=2)
    return [*records.values()]


# --- what is run ------------------------------------------------------------------------------------------------


def _named(run: object, executor: object) -> tuple[str, str, str]:
    """Where workers find the function: module and name in it; and how files call it."""
    module, qualname = getattr(run, "__module__", None), getattr(run, "__qualname__", None)
    here = executor is None or isinstance(executor, ThreadPoolExecutor)
    if not callable(run):
        problem = f"{run!r:.80} is not a function"
    elif isinstance(run, partial):
        problem = "a partial has no name; put what it fixes into the configs"
    elif inspect.ismethod(run):
        problem = f"{qualname} is a method, tied to an object; make it a function, its needs in the config"
    elif not isinstance(qualname, str) or not isinstance(module, str):
        problem = f"an object of class {type(run).__name__} has no name; define a function with def"
    elif "<lambda>" in qualname:
        problem = "a lambda has no name; define it with def"
    elif "<locals>" in qualname:
        outer = qualname.partition(".<locals>")[0]
        problem = f"it is defined inside {outer}; move it out, with what it needs from there in the config"
    elif not _is_found(run, module, qualname):
        problem = f"{module}:{qualname} is not this function; give it a name of its own in its module"
    elif module == "__main__" and not here:
        problem = "it is in __main__, which is another module in each process; move it to a file and import it"
    else:
        return module, qualname, f"{_lasting(module)}:{qualname}"
    why = "because workers import it by its name, and the results file is known by it"
    raise OptionError(f"sweep: run must be a function at the top level of a module, {why}: {problem}")


def _found(module: str, qualname: str) -> Any:
    return operator.attrgetter(qualname)(importlib.import_module(module))


def _is_found(run: object, module: str, qualname: str) -> bool:
    try:
        return _found(module, qualname) is run
    except (ImportError, AttributeError):
        return False


def _lasting(module: str) -> str:
    """The name under which a module can be imported: a program's own is that of its file."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return main.__spec__.name  # type: ignore[union-attr]
    file = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(file))[0] if file else module


def _jobs(configs: Iterable[Any], name: str) -> dict[bytes, str]:
    """The canonical JSON of each config under its key: as text, which takes less memory than objects do."""
    if isinstance(configs, str | bytes | dict) or not isinstance(configs, Iterable):
        raise OptionError(f"sweep: configs must be a list of configs, got {configs!r:.80}")
    texts = (_canonical(config, f"configs[{i}]") for i, config in enumerate(configs))
    return {_key(text, name): text for text in texts}


def _canonical(config: object, where: str) -> str:
    plain = _plain(config, where, strict=True)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _key(config: str, name: str) -> bytes:
    return hashlib.sha256(f'{{"config":{config},"run":{json.dumps(name)}}}'.encode()).digest()


def _plain(value: object, where: str, strict: bool, depth: int = 0) -> Any:
    """The value in the types of JSON, or an error that names the place."""
    if not strict:
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufU" and _is_native(value):
            if value.dtype.kind != "f" or np.isfinite(value).all():
                return value.tolist()  # item by item takes as long as a short run
            value = value.tolist()
        elif isinstance(value, tuple):
            value = [*value]
        elif isinstance(value, dict):
            value = dict(value)
    kind = type(value)
    if depth > MOST_DEPTH:
        raise OptionError(f"{where:.200}: nested deeper than {MOST_DEPTH} levels")
    if value is None or kind is bool or kind is str:
        return value
    if isinstance(value, int) and kind is int:
        if value.bit_length() > MOST_BITS:
            raise OptionError(f"{where:.200}: an integer of {value.bit_length():,} bits of {MOST_BITS:,}")
        return value
    if isinstance(value, float) and kind is float:
        if math.isfinite(value):
            return value
        return {"$float": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, list) and kind is list:
        return [_plain(item, f"{where}[{i}]", strict, depth + 1) for i, item in enumerate(value)]
    if isinstance(value, dict) and kind is dict:
        for key in value:
            if type(key) is not str or key == "$float":
                need = "'$float' is reserved" if key == "$float" else "keys must be text"
                raise OptionError(f"{where:.200}: {need}, got the key {key!r:.40}")
        return {key: _plain(item, f"{where}[{key!r:.40}]", strict, depth + 1) for key, item in value.items()}
    hint = {"tuple": "use a list", "ndarray": "use .tolist()"}.get(kind.__name__, "use plain types")
    hint = "use .item()" if isinstance(value, np.generic) and strict else hint
    raise OptionError(f"{where:.200}: {kind.__name__} is not a type of JSON; {hint}")


def _is_native(value: np.ndarray[Any, Any] | np.generic) -> bool:
    """Whether Python has these numbers: not those wider than a double."""
    return value.dtype.kind == "U" or value.dtype.itemsize <= 8


def _decoded(text: str | bytes) -> Any:
    return json.loads(text, object_hook=_float_or_dict, parse_constant=_no_constant)


def _float_or_dict(value: dict[str, Any]) -> Any:
    return FLOATS[value["$float"]] if "$float" in value else value


def _no_constant(name: str) -> None:
    """NaN and Infinity are not JSON, though Python reads them."""
    raise ValueError(f"it holds {name}")


# --- in a worker ------------------------------------------------------------------------------------------------


def _work(module: str, qualname: str, text: str, sweeper: int) -> tuple[str, str]:
    """One run: what to write about it, and why to end the sweep, if so; text, as pickle need not know the rest."""
    elsewhere = os.getpid() != sweeper
    if elsewhere:
        _end_with(sweeper)
    stop, outcome = "", {}
    begun = time.perf_counter()
    try:
        run = _found(module, qualname)
    except Exception as error:
        where = "install it there, or put its folder on their PYTHONPATH"
        stop = f"a worker cannot import {module}:{qualname}: {printable(_message(error), 200)}; {where}"
        outcome = _failure(error)
    else:
        try:
            if elsewhere:
                _limit_blas(module)
            result = run(_decoded(text))
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and not elsewhere:
                raise
            outcome = _failure(error)
        else:
            try:
                outcome = {"status": "done", "result": _plain(result, "result", strict=False)}
            except OptionError as error:
                stop = f"{module}:{qualname} returned what is not JSON for the config {text:.200}: {error}"
                outcome = _failure(error)
    return json.dumps({**outcome, "seconds": round(time.perf_counter() - begun, 6)}, allow_nan=False), stop


def _failure(error: BaseException) -> Record:
    """What is recorded of an exception; the frame of this module is left out, so that it is the same anywhere."""
    kind = type(error)
    frames = error.__traceback__ and error.__traceback__.tb_next
    lines = "".join(traceback.format_exception(kind, error, frames)).splitlines()[-12:]
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    described = {"type": name, "message": _message(error)[:2000], "traceback": [line[:300] for line in lines]}
    return {"status": "failed", "error": described}


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"


def _one_blas_thread() -> Any:
    """Limit BLAS in this process from here on, or to the end of a `with` in this thread."""
    try:
        return importlib.import_module("threadpoolctl").threadpool_limits(limits=1, user_api="blas")
    except ImportError:
        return nullcontext()


@cache
def _limit_blas(module: str) -> None:
    """Limit it once for all in a process of workers, when the module, and with it its libraries, are loaded.

    For threadpoolctl, only the thread that has set a limit can lift it, and runs may overlap in many threads.
    """
    _one_blas_thread()


@cache
def _end_with(sweeper: int) -> None:
    """A process that only this sweep's pool can give work ends with it; else it would wait for ever."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None and parent.pid == sweeper:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()


def _follow(join: Callable[[], object]) -> None:
    join()
    os._exit(1)


# --- over an executor -------------------------------------------------------------------------------------------


def _distribute(
    executor: Executor,
    calls: Iterator[tuple[bytes, tuple[Any, ...]]],
    keep: Callable[[bytes, str], object],
    settle: Callable[[bytes, str, str], None],
) -> None:
    """Submit the calls, a bounded number at a time, and settle them as they finish."""
    finished: SimpleQueue[Future[Any]] = SimpleQueue()
    submitted: dict[Future[Any], bytes] = {}
    try:
        while True:
            for key, call in islice(calls, MOST_SUBMITTED - len(submitted)):
                future = _submitted(executor, call)
                submitted[future] = key
                future.add_done_callback(finished.put)
            if not submitted:
                return
            future = finished.get()
            outcome = _outcome(future)
            if outcome is None:
                raise SweepError("the executor lost runs: a worker died (killed, out of memory, or crashed)")
            settle(submitted.pop(future), *outcome)
    except BaseException:
        # What has finished meanwhile is kept, what has not begun is not begun, what runs is not waited for.
        left = [future for future in submitted if not future.cancel()]
        with suppress(FileError):
            for future in left:
                if future.done() and (outcome := _outcome(future)) is not None:
                    keep(submitted[future], outcome[0])
        raise


def _submitted(executor: Executor, call: tuple[Any, ...]) -> Future[Any]:
    try:
        return executor.submit(_work, *call)
    except BrokenExecutor:
        raise SweepError("the executor is broken: a worker died (killed, out of memory, or crashed)") from None
    except Exception as error:
        problem = printable(_message(error), 200)
        raise OptionError(f"sweep: the executor takes no runs: {problem}; give one that is open") from None


def _outcome(future: Future[Any]) -> tuple[str, str] | None:
    """What a future brought, or None if its run was lost."""
    try:
        return cast("tuple[str, str]", future.result())
    except (BrokenExecutor, CancelledError, KeyboardInterrupt):
        return None
    except BaseException as error:  # not of the run but its worker: dask gave it up, or it called sys.exit
        return json.dumps({**_failure(error), "seconds": None}), ""


# --- the file ---------------------------------------------------------------------------------------------------

_open_files: set[BinaryIO] = set()


class _Results:
    """A results file that this sweep alone writes: what is finished in it, and a way to append."""

    def __init__(self, path: Path, run: str) -> None:
        self.shown = printable(os.fsdecode(path), None)
        self.notes: list[str] = []
        self.finished: set[bytes] = set()
        with _explained(self.shown, "cannot be written: {}; choose another path"):
            with suppress(FileNotFoundError):
                _ordinary(path)
            self._file = cast("BinaryIO", open(path, "a+b", buffering=0))  # noqa: SIM115  (closed by __exit__)
        _open_files.add(self._file)
        self._end, self._synced = 0, time.monotonic()
        try:
            self._lock()
            with _explained(self.shown, "cannot be read: {}"):
                self._take(run)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> _Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if kind is None:
                raise FileError(f"{self.shown}: cannot be written: {error.strerror}; make room") from None
        finally:
            self._close()

    def _close(self) -> None:
        _open_files.discard(self._file)
        self._file.close()

    def _lock(self) -> None:
        """Lock the file. The system forgets the lock with the process, however that ends."""
        try:
            import fcntl
        except ImportError:
            self.notes.append(f"{self.shown}: cannot be locked on this system: let no other sweep write it")
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            again = "wait until it ends, or choose another path"
            raise FileError(f"{self.shown}: another sweep is writing it; {again}") from None
        except OSError as error:
            problem = f"cannot be locked here ({error.strerror})"
            self.notes.append(f"{self.shown}: {problem}: let no other sweep write it")

    def _take(self, run: str) -> None:
        """Read what is there; repair its end, or begin it."""
        from . import __version__  # not at the top: the package imports this module before it has a version

        size = os.fstat(self._file.fileno()).st_size
        whole = b"\n"
        if size:
            with open(self._file.fileno(), "rb", closefd=False) as reader:
                reader.seek(0)
                header, self._end = _header(reader, self.shown)
                if header and header["run"] != run:
                    other = f"it holds the results of {printable(header['run'])}, not of {run}"
                    raise FileError(f"{self.shown}: {other}; choose another path")
                for record, after in _records(reader, header, self._end, self.shown):
                    self._end = after
                    change = self.finished.add if record["status"] == "done" else self.finished.discard
                    change(bytes.fromhex(record["key"]))
                if self._end:
                    reader.seek(self._end - 1)
                    whole = reader.read(1)
            if self._end < size:
                self._file.truncate(self._end)
                cut = f"its last line was incomplete and was cut off ({size - self._end:,} bytes)"
                self.notes.append(f"{self.shown}: {cut}; that run, if any, is done again")
            if header and header["library"] != __version__:
                begun = f"begun by nalu_np {printable(str(header['library']))}, continued by {__version__}"
                self.notes.append(f"{self.shown}: {begun}; for one version throughout, choose another path")
        if whole != b"\n":
            self.append(b"\n")  # complete but for this
        if not self._end:
            header = {"format": FORMAT, "version": VERSION, "library": __version__, "run": run}
            self.append(json.dumps(header).encode() + b"\n")

    def append(self, line: bytes) -> None:
        """Write a line; if that fails, the file is as it was."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            if time.monotonic() - self._synced >= SYNC_EVERY:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            then = "make room and call again, what is in it is kept"
            raise FileError(f"{self.shown}: cannot be written: {error.strerror}; {then}") from None
        self._end += len(line)


def _after_fork() -> None:
    """In a child: let go of the files, or it would hold their locks beyond its parent's death."""
    while _open_files:
        _open_files.pop().close()


getattr(os, "register_at_fork", lambda **_: None)(after_in_child=_after_fork)


def _header(file: BinaryIO, shown: str) -> tuple[Record, int]:
    """The first line and where it ends; nothing and 0 if the file was cut off in it."""
    line = file.readline(MOST_HEADER)
    if not line.endswith(b"\n") and len(line) < MOST_HEADER and (line.startswith(BEGIN) or BEGIN.startswith(line)):
        return {}, 0
    try:
        header = json.loads(line)
        known = isinstance(header, dict) and header.get("format") == FORMAT and type(header.get("version")) is int
    except (ValueError, RecursionError):
        known = False
    if known and header["version"] > VERSION:
        newer = f"version {header['version']!r:.20}, of nalu_np {printable(str(header.get('library')))}"
        raise FileError(f"{shown}: results of a newer format, {newer}; update nalu_np")
    if not (known and header["version"] == VERSION and isinstance(header.get("run"), str) and "library" in header):
        raise FileError(f"{shown}: not a results file; choose one that sweep has written, or a new path")
    return header, len(line)


def _records(file: BinaryIO, header: Record, end: int, shown: str) -> Iterator[tuple[Record, int]]:
    """The records, each with where it ends; an incomplete last line is not among them."""
    for number, line in enumerate(file if header else (), 2):
        try:
            record = _decoded(line.decode())
            _require(isinstance(record, dict) and {"key", "config", "seconds"} <= record.keys(), "not a record")
            outcome = {"done": "result", "failed": "error"}.get(record.get("status"), "status")
            _require(outcome in record and outcome != "status", "it has no outcome")
            key = _key(_canonical(record["config"], "config"), header["run"])
            _require(record["key"] == key.hex(), "its key is not that of its config")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if not line.endswith(b"\n"):
                return
            problem = f"line {number} is damaged: {printable(str(error), 100)}"
            again = "restore it from a copy, or delete the line to have it run again"
            raise FileError(f"{shown}: {problem}; {again}") from None
        end += len(line)
        yield record, end


def _ordinary(path: Path) -> None:
    """Opening a pipe would wait for ever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is not an ordinary file")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


@contextmanager
def _explained(shown: str, wording: str) -> Iterator[None]:
    """Turn the system's errors into one line that begins with the path."""
    try:
        yield
    except FileError:
        raise
    except (OSError, ValueError) as error:
        reason = printable(str(getattr(error, "strerror", None) or error), 200)
        raise FileError(f"{shown}: {wording.format(reason)}") from None
