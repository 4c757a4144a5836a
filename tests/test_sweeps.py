"""Sweeps: each config runs once, each result is in the file, and no death of any process changes the records."""

import contextlib
import errno
import hashlib
import importlib
import json
import math
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import sweep_jobs as jobs
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_jobs import aside_from_timings

from nalu_np import __version__, sweeps
from nalu_np.errors import FileError, NaluError, OptionError
from nalu_np.sweeps import SweepError, read_results, sweep

HERE = pathlib.Path(__file__).parent
text = st.text(max_size=6) | st.sampled_from(["\ud800", "\0", "\x1b[31m", "größe", "$float"])
keys = st.text(max_size=3).filter(lambda key: key != "$float")
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results.jsonl"


@pytest.fixture(scope="module")
def processes():
    """Starting one takes a second, so most tests share them."""
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps") / "scratch.jsonl"


def xs(*values):
    return [{"x": x} for x in values]


def by_config(path):
    return {json.dumps(record["config"]): record for record in read_results(path)}


def refusal(kind, call, *arguments, **options):
    """The message of an error, after the checks that hold for all."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert isinstance(caught.value, NaluError)
    assert message.isprintable()
    assert len(message) < 900
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def helper(*call, **options):
    return subprocess.Popen(
        [sys.executable, str(HERE / "sweep_jobs.py"), json.dumps(call)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process, timeout=600):
    printed, problem = process.communicate(timeout=timeout)
    assert process.returncode == 0, problem
    return json.loads(printed)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def exists(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


# --- what a sweep does ------------------------------------------------------------------------------------------


def test_each_config_runs_once_and_each_result_is_a_line(out):
    seen = []
    counts = sweep(jobs.square, xs(1, 2, 1, 3), out=out, callback=seen.append)
    assert counts == {"total": 3, "skipped": 0, "done": 3, "failed": 0}

    lines = out.read_text("ascii").splitlines()
    header = {"format": "nalu_np results", "version": 1, "library": __version__, "run": "sweep_jobs:square"}
    assert json.loads(lines[0]) == header
    records = read_results(out)
    assert [json.loads(line) for line in lines[1:]] == records
    assert [(record["config"], record["result"]) for record in records] == [
        ({"x": 1}, {"square": 1}),
        ({"x": 2}, {"square": 4}),
        ({"x": 3}, {"square": 9}),
    ]
    assert all([*record] == ["key", "config", "status", "result", "seconds"] for record in records)
    assert all(record["status"] == "done" and record["seconds"] >= 0 for record in records)
    assert seen == [{**record, "done": i, "total": 3} for i, record in enumerate(records, 1)]


def test_the_key_is_what_the_documents_say(out):
    sweep(jobs.square, [{"x": 2, "a": [1.5, None]}], out=out)
    canonical = '{"config":{"a":[1.5,null],"x":2},"run":"sweep_jobs:square"}'
    assert read_results(out)[0]["key"] == hashlib.sha256(canonical.encode()).hexdigest()


def test_a_second_call_runs_what_is_new_and_what_failed(out, tmp_path):
    file = tmp_path / "there"
    configs = [{"file": str(file)}, {"file": str(HERE)}]
    assert sweep(jobs.fixable, configs, out=out) == {"total": 2, "skipped": 0, "done": 1, "failed": 1}
    assert sweep(jobs.fixable, configs, out=out) == {"total": 2, "skipped": 1, "done": 0, "failed": 1}
    file.touch()
    seen = []
    more = [*configs, {"file": str(tmp_path)}]
    assert sweep(jobs.fixable, more, out=out, callback=seen.append) == {
        "total": 3,
        "skipped": 1,
        "done": 2,
        "failed": 0,
    }
    assert [(record["done"], record["total"]) for record in seen] == [(2, 3), (3, 3)]
    assert [record["status"] for record in read_results(out)] == ["done"] * 3
    content = out.read_bytes()
    assert content.count(b"\n") == 6, "a line a run, and the header"
    assert sweep(jobs.fixable, more, out=out) == {"total": 3, "skipped": 3, "done": 0, "failed": 0}
    assert out.read_bytes() == content


def test_without_resume_all_run_again_and_the_last_line_counts(out, tmp_path):
    file = tmp_path / "there"
    file.touch()
    configs = [{"file": str(file)}]
    sweep(jobs.fixable, configs, out=out)
    file.unlink()
    assert sweep(jobs.fixable, configs, out=out, resume=False)["failed"] == 1
    assert [record["status"] for record in read_results(out)] == ["failed"]
    assert out.read_bytes().count(b"\n") == 3
    file.touch()
    assert sweep(jobs.fixable, configs, out=out)["done"] == 1, "what failed last is tried again"


def test_an_exception_is_a_record(out):
    assert sweep(jobs.picky, xs(1, 2), out=out)["failed"] == 1
    failed, done = read_results(out)
    assert [*failed] == ["key", "config", "status", "error", "seconds"]
    assert failed["status"] == "failed"
    assert failed["error"]["type"] == "ValueError"
    assert failed["error"]["message"] == "1 is odd"
    lines = failed["error"]["traceback"]
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "ValueError: 1 is odd"
    assert "in picky" in lines[1]
    assert not any("sweeps.py" in line for line in lines)
    assert done["result"] == 1


@pytest.mark.parametrize(
    ("run", "kind", "message"),
    [
        (jobs.mute, "sweep_jobs.OddError", "(its message cannot be shown)"),
        (jobs.recurse, "RecursionError", "maximum recursion"),
        (math.sqrt, "TypeError", "must be real number"),
    ],
)
def test_any_exception_is_a_record(out, run, kind, message):
    assert sweep(run, [{}], out=out)["failed"] == 1
    error = read_results(out)[0]["error"]
    assert error["type"] == kind
    assert message in error["message"]
    assert 1 <= len(error["traceback"]) <= 12


def test_an_empty_sweep_is_one(out):
    assert sweep(jobs.echo, iter(()), out=out) == {"total": 0, "skipped": 0, "done": 0, "failed": 0}
    assert read_results(out) == []


def test_a_run_cannot_change_its_record(out):
    configs = [{"x": [0]}]
    sweep(jobs.spoil, configs, out=out)
    assert read_results(out)[0]["config"] == configs[0] == {"x": [0]}


@settings(deadline=None, max_examples=60)
@given(value=json_value)
def test_what_is_read_is_what_was_returned(scratch, value):
    scratch.unlink(missing_ok=True)
    seen = []
    sweep(jobs.echo, [value], out=scratch, callback=seen.append)
    # repr tells 1 from 1.0 and True, 0.0 from -0.0, and takes NaN for itself. A config's keys come sorted.
    expected = repr(ordered(value))
    for record in (*read_results(scratch), *seen):
        assert repr(record["config"]) == repr(record["result"]) == expected
    for line in scratch.read_text("ascii").splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert sweep(jobs.echo, [value], out=scratch)["skipped"] == 1


def ordered(value):
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [*map(ordered, value)] if isinstance(value, list) else value


@settings(deadline=None)
@given(first=json_value, second=json_value, seed=st.randoms())
def test_keys_are_equal_where_configs_are(first, second, seed):
    def key(config):
        return [*sweeps._jobs([config], "run")]

    assert key(first) == key(shuffled(first, seed))
    assert (key(first) == key(second)) == (repr(ordered(first)) == repr(ordered(second)))


def shuffled(value, seed):
    if isinstance(value, dict):
        names = sorted(value)
        seed.shuffle(names)
        return {name: shuffled(value[name], seed) for name in names}
    return [shuffled(item, seed) for item in value] if isinstance(value, list) else value


def test_one_and_one_point_and_true_are_three_configs():
    configs = [1, 1.0, True, "1", [1], None, 0, 0.0, -0.0, False, "", {}, [], math.nan, math.inf, -math.inf, "NaN"]
    assert len(sweeps._jobs(configs, "run")) == len(configs)
    assert not {*sweeps._jobs(configs, "run")} & {*sweeps._jobs(configs, "another")}


def test_results_of_numpy_become_plain(out):
    values = {
        "float32": (np.float32(0.1), float(np.float32(0.1))),
        "int": (np.int64(3), 3),
        "bool": (np.array([True]), [True]),
        "nan": (np.array([[1.0, np.nan], [-np.inf, 2]]), [[1.0, math.nan], [-math.inf, 2.0]]),
        "text": (np.array(["a", "bcd"]), ["a", "bcd"]),
        "scalar": (np.array(2), 2),
        "unsigned": (np.uint64(2**64 - 1), 2**64 - 1),
        "half": (np.float16(np.inf), math.inf),
        "tuple": ((1, (2.0, None)), [1, [2.0, None]]),
        "dict": (types.MappingProxyType({"a": 1}) | {}, {"a": 1}),
    }
    for given_, expected in values.values():
        plain = sweeps._plain({"a": given_}, "result", strict=False)
        assert repr(sweeps._decoded(json.dumps(plain, allow_nan=False))) == repr({"a": expected})


# --- over executors ---------------------------------------------------------------------------------------------


def test_records_are_equal_over_executors(tmp_path, processes):
    configs = [{"seed": seed} for seed in range(6)]
    paths = {}
    with ThreadPoolExecutor(3) as threads:
        for name, executor in {"serial": None, "threads": threads, "processes": processes}.items():
            for run in (jobs.numbers, jobs.square):  # and one that fails, to see that tracebacks are equal
                path = paths[name, run.__name__] = tmp_path / f"{name}-{run.__name__}"
                sweep(run, configs, executor=executor, out=path)
    for run in ("numbers", "square"):
        records = {
            name: aside_from_timings(read_results(paths[name, run])) for name, other in paths if other == run
        }
        assert len(records["serial"]) == 6
        assert records["serial"] == records["threads"] == records["processes"]
    assert all(record["status"] == "failed" for record in read_results(paths["serial", "square"]))


def test_a_bounded_number_is_submitted(out, monkeypatch):
    monkeypatch.setattr(sweeps, "MOST_SUBMITTED", 5)
    most, open_ = 0, set()

    class Watched(ThreadPoolExecutor):
        def submit(self, *call):
            nonlocal most
            future = super().submit(*call)
            open_.add(future)
            most = max(most, len([f for f in open_ if not f.done()]))
            return future

    with Watched(2) as executor:
        assert sweep(jobs.echo, iter(range(100)), executor=executor, out=out)["done"] == 100
    assert len(open_) == 100
    assert 1 <= most <= 5
    assert sorted(record["result"] for record in read_results(out)) == [*range(100)]


def test_blas_has_one_thread_in_every_run(out, processes):
    control = pytest.importorskip("threadpoolctl", reason="the limit is that of threadpoolctl")
    with control.threadpool_limits(2):
        for executor in (None, ThreadPoolExecutor(3), processes):
            sweep(jobs.where, [*range(9)], executor=executor, out=out, resume=False)
            found = [record["result"]["limits"] for record in read_results(out)]
            assert all(limits and {*limits} == {1} for limits in found)
            assert {*jobs.limits()} == {2}, "what the program had chosen is back"


def test_what_a_worker_process_does_first(monkeypatch):
    """It limits its BLAS, once for each module; not so where the sweep has done it."""
    limited = []
    monkeypatch.setattr(sweeps, "_one_blas_thread", lambda: limited.append(1))
    sweeps._limit_blas.cache_clear()
    for sweeper, times in [(os.getpid(), 0), (0, 1), (0, 1)]:
        assert json.loads(sweeps._work("sweep_jobs", "echo", "1", sweeper)[0])["result"] == 1
        assert len(limited) == times
    sweeps._limit_blas.cache_clear()


def test_without_threadpoolctl_it_runs_too(monkeypatch, out):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert sweep(jobs.echo, [1], out=out)["done"] == 1


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (lambda config: config, "a lambda has no name; define it with def"),
        (jobs.unnamed, "a lambda has no name"),
        (jobs.make_closure(1), "it is defined inside make_closure; move it out"),
        (jobs.partly, "a partial has no name; put what it fixes into the configs"),
        (jobs.Model().run, "Model.run is a method, tied to an object; make it a function"),
        (jobs.Model(), "an object of class Model has no name; define a function with def"),
        (None, "None is not a function"),
        (
            types.FunctionType(jobs.echo.__code__, {"__name__": "sweep_jobs"}, "echo"),
            "is not this function; give it a name of its own",
        ),
    ],
)
def test_run_must_be_found_by_its_name(out, run, problem):
    message = refusal(OptionError, sweep, run, [1], out=out)
    assert problem in message
    assert message.startswith(
        "sweep: run must be a function at the top level of a module, because workers import it"
    )
    assert not out.exists()


def test_a_function_that_its_module_does_not_have(out, monkeypatch):
    def absent(config):
        return config

    absent.__qualname__ = "absent"
    assert "test_sweeps:absent is not this function" in refusal(OptionError, sweep, absent, [1], out=out)
    absent.__module__ = "no_such_module"
    assert "no_such_module:absent is not this function" in refusal(OptionError, sweep, absent, [1], out=out)


@pytest.mark.parametrize("run", [jobs.renamed, jobs.Model.static, math.sqrt])
def test_what_is_found_by_its_name_is_taken(out, run):
    assert sweep(run, [4.0], out=out)["total"] == 1


def test_decorated_functions_are_refused_if_another_has_their_name(out):
    assert "sweep_jobs:square is not this function" in refusal(OptionError, sweep, jobs.decorated, [1], out=out)


PROGRAM = """
import sys, nalu_np
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from nalu_np.sweeps import sweep

def mine(config):
    return config + 1

if __name__ == "__main__":
    print(sweep(mine, [1], out=sys.argv[1])["done"])
    print(sweep(mine, [2], out=sys.argv[1], executor=ThreadPoolExecutor(1))["done"])
    try:
        sweep(mine, [3], out=sys.argv[1], executor=ProcessPoolExecutor(1, get_context("spawn")))
    except nalu_np.errors.OptionError as error:
        print(error)
"""


def test_a_function_of_the_program_itself(tmp_path, out):
    """It is known by the program's file, and not given to other processes."""
    program = tmp_path / "experiment.py"
    program.write_text(PROGRAM)
    runs = [sys.executable, str(program), str(out)]
    printed = subprocess.run(runs, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[:2] == ["1", "1"]
    assert printed[2].endswith(
        "it is in __main__, which is another module in each process; move it to a file and import it"
    )
    assert json.loads(out.read_text().splitlines()[0])["run"] == "experiment:mine"


def test_a_function_of_main_is_not_for_processes(monkeypatch, out):
    def mine(config):
        return config

    mine.__module__, mine.__qualname__ = "__main__", "mine"
    monkeypatch.setattr(sys.modules["__main__"], "mine", mine, raising=False)
    message = refusal(OptionError, sweep, mine, [1], out=out, executor=Manual())
    assert message.endswith(
        "it is in __main__, which is another module in each process; move it to a file and import it"
    )
    assert sweep(mine, [1], out=out, executor=ThreadPoolExecutor(1))["done"] == 1


@pytest.mark.parametrize(
    ("main", "name"),
    [
        ({"__spec__": types.SimpleNamespace(name="package.program"), "__file__": "/x/y.py"}, "package.program"),
        ({"__spec__": None, "__file__": "/x/y.py"}, "y"),
        ({"__spec__": None}, "__main__"),
    ],
)
def test_names_of_programs(monkeypatch, main, name):
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(**main))
    assert sweeps._lasting("__main__") == name
    assert sweeps._lasting("other") == "other"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ((1, 2), "configs[1]: tuple is not a type of JSON; use a list"),
        ({"a": [1, {"b": {3}}]}, "configs[1]['a'][1]['b']: set is not a type of JSON; use plain types"),
        ({"lr": np.float64(1)}, "configs[1]['lr']: float64 is not a type of JSON; use .item()"),
        ({"lr": np.ones(1)}, "configs[1]['lr']: ndarray is not a type of JSON; use .tolist()"),
        ({1: 2}, "configs[1]: keys must be text, got the key 1"),
        ({"$float": "NaN"}, "configs[1]: '$float' is reserved"),
        pytest.param(10**5000, "configs[1]: an integer of 16,610 bits of 14,000", id="integer"),
        (OptionError, "configs[1]: type is not a type of JSON"),
    ],
)
def test_configs_must_be_json(out, config, problem):
    assert problem in refusal(OptionError, sweep, jobs.echo, [0, config], out=out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"configs": {"x": 1}}, "configs must be a list of configs, got {'x': 1}"),
        ({"configs": "x"}, "configs must be a list of configs"),
        ({"configs": 3}, "configs must be a list of configs, got 3"),
        ({"executor": ThreadPoolExecutor}, "executor must be None or have a method submit"),
        ({"executor": 4}, "executor must be None or have a method submit, got 4"),
        ({"resume": "yes"}, "resume must be True or False, got 'yes'"),
        ({"callback": 1}, "callback must be a function of a record, got 1"),
    ],
)
def test_options_are_checked(out, options, problem):
    assert problem in refusal(OptionError, sweep, jobs.echo, **{"configs": [1], "out": out, **options})
    assert not out.exists()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("set", "result: set is not a type of JSON"),
        ("complex", "result: complex is not"),
        ("object", "result[0]['a']: object is not"),
        ("keys", "result['a']: keys must be text, got the key 1"),
        ("reserved", "result: '$float' is reserved"),
        ("long double", "result: longdouble is not"),
        ("dates", "result: ndarray is not a type of JSON; use .tolist()"),
        ("objects", "result: ndarray is not"),
        ("circular", "nested deeper than 100 levels"),
        (5000, "nested deeper than 100 levels"),
        ("integer", "result: an integer of 16,610 bits of 14,000"),
    ],
)
def test_a_result_that_is_not_json_ends_the_sweep(out, config, problem):
    message = refusal(OptionError, sweep, jobs.strange, [0, config, 1], out=out)
    assert message.startswith("sweep: sweep_jobs:strange returned what is not JSON for the config ")
    assert problem in message
    done, failed = read_results(out)
    assert (done["status"], failed["status"]) == ("done", "failed")
    assert problem in failed["error"]["message"]
    assert sweep(jobs.strange, [0, 1], out=out)["skipped"] == 1


def test_a_worker_that_cannot_import_the_function_ends_the_sweep(out, monkeypatch):
    outcome, stop = sweeps._work("no_such_module", "run", "1", os.getpid())
    assert stop.startswith(
        "a worker cannot import no_such_module:run: No module named 'no_such_module'; install it"
    )
    assert json.loads(outcome)["error"]["type"] == "ModuleNotFoundError"


def test_an_executor_that_is_shut_down(out, processes):
    executor = ThreadPoolExecutor(1)
    sweep(jobs.echo, [1], executor=executor, out=out)
    executor.shutdown()
    message = refusal(OptionError, sweep, jobs.echo, [1, 2], executor=executor, out=out)
    assert message.startswith("sweep: the executor takes no runs: cannot schedule new futures after shutdown")
    assert message.endswith("give one that is open")
    assert sweep(jobs.echo, [1], executor=executor, out=out)["skipped"] == 1
    assert [record["result"] for record in read_results(out)] == [1]


# --- files that are not as they should be -----------------------------------------------------------------------


@pytest.fixture
def good(out):
    sweep(jobs.square, xs(1, 2, 3), out=out)
    return out


def file_refusals(path, run=jobs.square):
    """What both say of a file; neither touches it."""
    content = path.read_bytes()
    messages = [
        refusal(FileError, sweep, run, xs(1, 4), out=path),
        refusal(FileError, read_results, path),
    ]
    assert path.read_bytes() == content
    for message in messages:
        assert message.startswith(f"{path}: ")
    assert messages[0] == messages[1]
    return messages[0].removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"hello",
        b"\n",
        b"x,y\n1,2\n",
        b'{"format": "another"}\n',
        b'{"format": "nalu_np results"}\n',
        b'{"format": "nalu_np results", "version": true, "run": "a:b", "library": ""}\n',
        b'{"format": "nalu_np results", "version": 0, "run": "a:b", "library": ""}\n',
        b'{"format": "nalu_np results", "version": 1, "run": 1, "library": ""}\n',
        b'{"format": "nalu_np results", "version": 1, "run": "a:b"}\n',
        b"[" * 60_000 + b"\n",
        b"[" * 70_000,
        b'{"format": "nalu_np results"' + b" " * 70_000,
        b"\xff\xfe\x00\n",
        b"PK\x03\x04" + bytes(100),
        b"[1]\n",
    ],
)
def test_foreign_files_are_left_alone(out, content):
    out.write_bytes(content)
    assert file_refusals(out) == "not a results file; choose one that sweep has written, or a new path"


def test_a_newer_format(good):
    good.write_bytes(
        good.read_bytes().replace(b'"version": 1, "library": "', b'"version": 2, "library": "9.\x1b', 1)
    )
    good.write_bytes(good.read_bytes().replace(b"\x1b", b"\\u001b"))
    assert file_refusals(good).startswith("results of a newer format, version 2, of nalu_np 9.\\x1b")
    assert file_refusals(good).endswith("; update nalu_np")


def test_another_sweeps_file(good):
    content = good.read_bytes()
    message = refusal(FileError, sweep, jobs.other, xs(1), out=good)
    told = "it holds the results of sweep_jobs:square, not of sweep_jobs:other; choose another path"
    assert message == f"{good}: {told}"
    assert good.read_bytes() == content


def test_a_file_begun_by_another_version_of_the_library(good):
    good.write_bytes(good.read_bytes().replace(__version__.encode(), b"0.0.9", 1))
    with pytest.warns(UserWarning, match=rf"begun by nalu_np 0\.0\.9, continued by {__version__}"):
        assert sweep(jobs.square, xs(4), out=good)["done"] == 1


def damages(lines):
    record = json.loads(lines[2])
    return {
        "cut": lines[2][:-9],
        "empty": b"",
        "zeros": bytes(len(lines[2])),
        "another file": b"<html>",
        "not UTF-8": b"\xff" + lines[2],
        "two in one": lines[1] + lines[2],
        "no record": b"[1]",
        "a gap": json.dumps({k: v for k, v in record.items() if k != "config"}).encode(),
        "no outcome": json.dumps({k: v for k, v in record.items() if k != "result"}).encode(),
        "failed with a result": lines[2].replace(b'"done"', b'"failed"'),
        "unknown outcome": lines[2].replace(b'"done"', b'"lost"'),
        "odd outcome": lines[2].replace(b'"done"', b"[]"),
        "status of no kind": lines[2].replace(b'"status": "done"', b'"status": "status"'),
        "another config": lines[2].replace(b'"x":2', b'"x":5'),
        "another key": lines[2].replace(record["key"].encode(), b"0" * 64),
        "NaN": lines[2].replace(b'"square": 4', b'"square": NaN'),
        "no float": lines[2].replace(b'"square": 4', b'"$float": "nought"'),
        "an odd float": lines[2].replace(b'"square": 4', b'"$float": []'),
        "deep": b"[" * 100_000,
    }


@pytest.mark.parametrize("name", damages([b"{}", b"{}", b'{"key": ""}']))
def test_a_damaged_line_is_named(good, name):
    lines = good.read_bytes().splitlines()
    changed = damages(lines)[name]
    assert changed != lines[2]
    good.write_bytes(b"\n".join([*lines[:2], changed, *lines[3:]]) + b"\n")
    message = file_refusals(good)
    assert message.startswith("line 3 is damaged: ")
    assert message.endswith("restore it from a copy, or delete the line to have it run again")


def test_a_damaged_last_line_that_is_complete_is_damaged_too(good):
    good.write_bytes(good.read_bytes()[:-9] + b"\n")
    assert file_refusals(good).startswith("line 4 is damaged: ")


def test_a_torn_file_is_repaired_wherever_it_was_cut(good):
    """At any byte: the sweep goes on, says what it did, and ends with the same records."""
    content = good.read_bytes()
    whole = aside_from_timings(read_results(good))
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    header = content.index(b"\n") + 1
    for cut in [*range(0, header, 5), *range(header - 3, header + 3), *range(last - 3, len(content) + 1, 3)]:
        good.write_bytes(content[:cut])
        left = content[:cut].rpartition(b"\n")[2]
        torn = left != b"" and cut + 1 not in (last, len(content))  # but for its end, the line is whole
        with warnings.catch_warnings(record=True) as read:
            warnings.simplefilter("always")
            records = read_results(good)
        assert len(records) == content[: cut + 1 if cut + 1 in (last, len(content)) else cut].count(b"\n") - (
            cut >= header
        )
        assert good.read_bytes() == content[:cut], "reading repairs nothing"
        with warnings.catch_warnings(record=True) as swept:
            warnings.simplefilter("always")
            counts = sweep(jobs.square, xs(1, 2, 3), out=good)
        assert counts["skipped"] == len(records)
        assert aside_from_timings(read_results(good)) == whole
        assert good.read_bytes().count(b"\n") == 4
        told = [str(warning.message) for warning in (*read, *swept)]
        assert len(told) == 2 * torn, (cut, told)
        if torn:
            assert told[0].startswith(f"{good}: its last line is incomplete: a sweep was killed there")
            end = f"was cut off ({len(left):,} bytes); that run, if any, is done again"
            assert told[1] == f"{good}: its last line was incomplete and {end}"
            assert {warning.filename for warning in (*read, *swept)} == {__file__}


@pytest.mark.parametrize("kind", ["missing folder", "folder", "pipe", "device", "read-only", "null", "missing"])
def test_paths_that_cannot_be(tmp_path, kind, monkeypatch):
    path = {
        "missing folder": tmp_path / "no" / "results.jsonl",
        "device": "/dev/full",
        "null": "a\0b",
    }.get(kind, tmp_path / kind)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "read-only":
        path.touch()
        real = open

        def refuse(file, mode="r", *rest, **options):
            if "a" in mode:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(file, mode, *rest, **options)

        monkeypatch.setattr("builtins.open", refuse)  # root may write anything
    ran = []
    if kind != "missing":
        message = refusal(FileError, sweep, jobs.echo, [1], out=path, callback=ran.append)
        assert "cannot be written: " in message
        assert message.endswith("; choose another path")
    if kind != "read-only":
        assert "cannot be read: " in refusal(FileError, read_results, path)
    assert not ran


# --- locks ------------------------------------------------------------------------------------------------------


def test_two_sweeps_cannot_write_one_file(out):
    told = []

    def nested(record):
        told.append(refusal(FileError, sweep, jobs.square, xs(5), out=out))
        assert len(read_results(out)) == len(told), "but it can be read"

    sweep(jobs.square, xs(1, 2), out=out, callback=nested)
    assert told == [f"{out}: another sweep is writing it; wait until it ends, or choose another path"] * 2
    assert sweep(jobs.square, xs(5), out=out)["done"] == 1


def test_a_sweep_of_another_process_is_refused_until_that_is_dead(out, tmp_path):
    pids = tmp_path / "pids"
    with helper("sweep_in_processes", str(out), str(pids), "fork", 50, 0.1) as process:
        try:
            until(lambda: out.exists() and out.read_bytes().count(b"\n") > 2)
            assert "another sweep is writing it" in refusal(FileError, sweep, jobs.slow, [], out=out)
        finally:
            process.kill()
    # At once, though its forked workers may live for a moment.
    configs = [{"x": x, "sleep": 0.1, "pids": str(pids)} for x in range(4)]
    assert sweep(jobs.slow, configs, out=out)["skipped"] >= 2
    until(lambda: not any(exists(pid) for pid in {*pids.read_text().split()} - {str(os.getpid())}))


def test_a_child_lets_go_of_the_files(out):
    with sweeps._Results(out, "a:b") as results:
        assert results._file in sweeps._open_files
        pid = os.fork()
        if not pid:
            os._exit(not (results._file.closed and not sweeps._open_files))
        assert os.waitpid(pid, 0)[1] == 0
    assert results._file.closed
    assert not sweeps._open_files
    with sweeps._Results(out, "a:b") as results:
        sweeps._after_fork()  # the same, where coverage sees it
        assert results._file.closed
        results._file = open(out, "ab")  # noqa: SIM115


def test_where_files_cannot_be_locked_a_sweep_says_so(out, monkeypatch):
    import fcntl

    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with pytest.warns(UserWarning, match=r"cannot be locked here \(No locks available\): let no other sweep"):
            assert sweep(jobs.echo, [1], out=out)["done"] == 1
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.warns(UserWarning, match="cannot be locked on this system"):
        assert sweep(jobs.echo, [2], out=out)["done"] == 1


def test_the_module_needs_nothing_of_posix(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("nalu_np._sweeps_again", sweeps.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.sweep is not sweep


# --- full disks -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_size(most):
    """As `ulimit -f`: a write beyond it is cut short, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_last_line_needs_no_end_of_line(good):
    """As some editors save it."""
    good.write_bytes(good.read_bytes()[:-1])
    assert sweep(jobs.square, xs(1, 2, 3, 4), out=good)["skipped"] == 3
    assert len(read_results(good)) == 4


@pytest.mark.parametrize("threads", [0, 3])
def test_a_full_disk_loses_nothing(out, threads):
    executor = ThreadPoolExecutor(threads) if threads else None
    configs = xs(*range(20))
    with file_size(2000):
        message = refusal(FileError, sweep, jobs.square, configs, out=out, executor=executor)
    assert message == f"{out}: cannot be written: File too large; make room and call again, what is in it is kept"
    kept = read_results(out)
    assert 5 < len(kept) < 20
    assert out.read_bytes().endswith(b"\n"), "the line that did not fit is not there in part"
    counts = sweep(jobs.square, configs, out=out)
    assert counts == {"total": 20, "skipped": len(kept), "done": 20 - len(kept), "failed": 0}
    assert len(read_results(out)) == 20


def test_a_disk_that_is_full_from_the_start(out):
    ran = []
    with file_size(10):
        assert "cannot be written: File too large" in refusal(
            FileError, sweep, jobs.square, xs(1), out=out, callback=ran.append
        )
    assert not ran
    assert out.read_bytes() == b""
    assert read_results(out) == []
    assert sweep(jobs.square, xs(1), out=out)["done"] == 1


def test_a_disk_that_fails_late(out, monkeypatch):
    """Some systems say only when asked to sync that there was no room."""
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "cannot be written: No space left on device; make room" in refusal(
        FileError, sweep, jobs.square, xs(1), out=out
    )
    assert len(calls) == 1, "a short sweep syncs at its end"
    monkeypatch.setattr(sweeps, "SYNC_EVERY", 0)
    content = out.read_bytes()
    assert "No space left" in refusal(FileError, sweep, jobs.square, xs(2), out=out)
    assert out.read_bytes() == content
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(real(descriptor)))
    calls.clear()
    assert sweep(jobs.square, xs(1, 2, 3), out=out)["skipped"] == 1
    assert len(calls) == 3, "after each line, and at the end"


# --- what ends a sweep early ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_what_a_callback_raises_ends_the_sweep_and_harms_nothing(out, error, threads):
    def end(record):
        if record["done"] == 3:
            raise error("enough")

    executor = ThreadPoolExecutor(threads) if threads else None
    with pytest.raises(error, match="enough"):
        sweep(jobs.square, xs(*range(2000)), out=out, executor=executor, callback=end)
    records = read_results(out)
    assert 3 <= len(records) < 2000
    assert len(records) == 3 or threads
    counts = sweep(jobs.square, xs(*range(2000)), out=out)
    assert counts["skipped"] == len(records)
    assert counts["done"] == 2000 - len(records)


@pytest.mark.parametrize("run", [jobs.interrupts, jobs.exits])
def test_what_ends_a_program_ends_it(out, run):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        sweep(run, [1], out=out)
    assert read_results(out) == []
    assert sweep(run, [], out=out)["total"] == 0, "the lock is gone"


def test_a_run_that_ends_its_worker_is_a_failure(out, processes):
    for executor in (processes, ThreadPoolExecutor(1)):
        assert sweep(jobs.exits, [1], out=out, executor=executor)["failed"] == 1
        assert read_results(out)[0]["error"]["type"] == "SystemExit"
    assert json.loads(sweeps._work("sweep_jobs", "exits", "1", 0)[0])["error"]["message"] == "3"


def test_ctrl_c_while_waiting_for_workers(out):
    configs = [{"x": 1, "sleep": 0.0}, {"x": 2, "sleep": 2.0}]
    executor = ThreadPoolExecutor(1)
    main = threading.get_ident()
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs.slow, configs, executor=executor, out=out)
    assert time.monotonic() - begun < 1.7, "it does not wait for what runs"
    assert [record["result"] for record in read_results(out)] == [1]
    executor.shutdown(wait=False)


class Manual:
    """An executor whose futures end as a test says."""

    def __init__(self, *ends):
        self.ends, self.futures, self.calls = ends, [], []

    def submit(self, *call):
        future = Future()
        self.futures.append(future)
        self.calls.append(call)
        if len(self.futures) == len(self.ends):  # all are there: the last first, so that the first ones are left
            for end, other, (function, *arguments) in [*zip(self.ends, self.futures, self.calls, strict=True)][
                ::-1
            ]:
                if end is None:  # it does not end, but for a test that would hang
                    timer = threading.Timer(10, other.cancel)
                    timer.daemon = True
                    timer.start()
                    continue
                if end == "cancel":
                    other.cancel()
                    other.set_running_or_notify_cancel()
                elif end == "run":
                    other.set_result(function(*arguments))
                else:
                    other.set_exception(end)
        return future


@pytest.mark.parametrize("end", [BrokenExecutor(), CancelledError(), KeyboardInterrupt(), "cancel"])
def test_lost_runs_are_an_error_and_the_finished_are_kept(out, end):
    executor = Manual("run", "run", None, end, "run")
    message = refusal(SweepError, sweep, jobs.square, xs(*range(5)), executor=executor, out=out)
    assert message == (
        "sweep: the executor lost runs: a worker died (killed, out of memory, or crashed); "
        f"3 of 5 runs are finished and kept in {out}; call again with a new executor for the rest"
    )
    assert executor.futures[2].cancelled()
    assert sorted(record["config"]["x"] for record in read_results(out)) == [0, 1, 4]
    assert sweep(jobs.square, xs(*range(5)), out=out) == {"total": 5, "skipped": 3, "done": 2, "failed": 0}


def test_a_full_disk_ends_the_rescue_too(out, monkeypatch):
    executor = Manual("run", KeyboardInterrupt(), "run", None)

    def full(record):
        monkeypatch.setattr(
            sweeps._Results, "append", lambda self, line: (_ for _ in ()).throw(FileError("full again"))
        )
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sweep(jobs.square, xs(*range(4)), executor=executor, out=out, callback=full)
    assert executor.futures[3].cancelled()
    assert [record["config"]["x"] for record in read_results(out)] == [2]


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError("its worker gave up")])
def test_a_run_that_its_worker_gave_up_is_a_failure(out, error):
    assert sweep(jobs.square, xs(1, 2), executor=Manual("run", error), out=out)["failed"] == 1
    failed = by_config(out)['{"x": 2}']
    assert failed["error"]["type"] == type(error).__name__
    assert failed["error"]["message"] == str(error)
    assert failed["seconds"] is None


def test_an_executor_that_breaks_while_it_is_given_runs(out):
    class Broken(Manual):
        def submit(self, *call):
            if len(self.futures) == 2:
                raise BrokenExecutor
            return super().submit(*call)

    message = refusal(SweepError, sweep, jobs.square, xs(1, 2, 3), executor=Broken("run", "run"), out=out)
    assert message.startswith("sweep: the executor is broken: a worker died")
    assert len(read_results(out)) == 2


# --- processes that are killed ----------------------------------------------------------------------------------


def test_a_killed_worker_is_an_error_and_a_second_call_completes(out, tmp_path):
    configs = [{"x": x} for x in range(8)] + [{"x": 8, "once": str(tmp_path / "mark")}, {"x": 9, "sleep": 0.3}]
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        message = refusal(SweepError, sweep, jobs.dies, configs, executor=executor, out=out)
        assert "a worker died (killed, out of memory, or crashed); 8 of 10 runs are finished and kept" in message
        assert "the executor is broken" in refusal(
            SweepError, sweep, jobs.dies, configs, executor=executor, out=out
        )
    assert [record["result"] for record in read_results(out)] == [*range(8)]
    assert sweep(jobs.dies, configs, out=out) == {"total": 10, "skipped": 8, "done": 2, "failed": 0}
    assert [record["result"] for record in read_results(out)] == [*range(10)]


def test_workers_end_with_a_sweep_that_is_killed(out, tmp_path):
    pids = tmp_path / "pids"
    with helper("sweep_in_processes", str(out), str(pids), "spawn", 50, 0.1) as process:
        until(lambda: out.exists() and out.read_bytes().count(b"\n") > 3)
        process.kill()
    until(lambda: not any(exists(pid) for pid in pids.read_text().split()), 10)
    configs = [{"x": x, "sleep": 0.0, "pids": str(pids)} for x in range(3)]
    assert sweep(jobs.slow, configs, out=out)["done"] == 3, "it is another config"
    assert len(read_results(out)) >= 6


def test_only_a_worker_of_this_sweep_ends_with_it(monkeypatch):
    import multiprocessing

    ended, joined = threading.Event(), []
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    parent = types.SimpleNamespace(pid=7, join=lambda: joined.append(1))
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    sweeps._end_with.cache_clear()
    sweeps._end_with(8)
    assert not ended.wait(0.1)
    assert json.loads(sweeps._work("sweep_jobs", "echo", "1", 7)[0])["result"] == 1
    assert ended.wait(5)
    assert joined == [1]
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: None)
    sweeps._end_with.cache_clear()
    sweeps._end_with(7)
    assert joined == [1]
    sweeps._end_with.cache_clear()


def test_a_sweep_killed_at_random_moments_has_the_same_records(tmp_path):
    seen = finish(helper("kill_at_random", str(tmp_path), 8, None))
    assert seen["kills"] >= 8
    assert seen["within"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_sweep_killed_at_fifty_random_moments_has_the_same_records(tmp_path, seed):
    seen = finish(helper("kill_at_random", str(tmp_path), 50, seed))
    print(seen)
    assert seen["kills"] >= 50
    assert seen["within"] >= 12


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_sweep_over_processes_killed_at_random_moments(tmp_path, method):
    rng, pids = np.random.default_rng(3), tmp_path / "pids"
    configs = [{"x": x, "sleep": 0.05, "pids": str(pids)} for x in range(60)]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "results.jsonl"
    sweep(jobs.slow, configs, out=whole)
    pids.write_text("")
    for _ in range(10):
        with helper("sweep_in_processes", str(out), str(pids), method, 60, 0.05) as process:
            time.sleep(rng.uniform(0.5, 2))
            process.kill()
    finish(helper("sweep_in_processes", str(out), str(pids), method, 60, 0.05))
    assert aside_from_timings(read_results(out)) != []
    assert sorted(aside_from_timings(read_results(out))) == sorted(aside_from_timings(read_results(whole)))
    until(lambda: not any(exists(pid) for pid in pids.read_text().split()), 10)


# --- dask -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_dask_retries_what_a_killed_worker_had(tmp_path, out):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    configs = [{"x": x} for x in range(20)] + [{"x": x, "once": str(tmp_path / f"{x}")} for x in (20, 21)]
    with (
        distributed.LocalCluster(
            2, threads_per_worker=1, dashboard_address=None, worker_dashboard_address=None
        ) as c,
        distributed.Client(c) as client,
    ):
        executor = client.get_executor(pure=False)
        counts = sweep(jobs.dies, configs, executor=executor, out=out)
        assert counts == {"total": 22, "skipped": 0, "done": 22, "failed": 0}
        assert (tmp_path / "20").exists()
        assert (tmp_path / "21").exists()
        for name, one in {"serial": None, "dask": executor}.items():
            sweep(jobs.numbers, [{"seed": s} for s in range(6)], executor=one, out=tmp_path / name)
        executor.shutdown()
        message = refusal(
            OptionError, sweep, jobs.numbers, [{"seed": 7}], executor=executor, out=tmp_path / "dask"
        )
        assert "the executor takes no runs" in message
    assert sorted(record["result"] for record in read_results(out)) == [*range(22)]
    serial, dask = (aside_from_timings(read_results(tmp_path / name)) for name in ("serial", "dask"))
    assert len(serial) == 6
    assert serial == dask
