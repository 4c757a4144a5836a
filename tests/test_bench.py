"""The benchmark: that its contenders compute the same, and that it says what it measured."""

import json
import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nalu_np as nn
from nalu_np import bench, peers
from nalu_np.bench import AGREE, CASES, Case, Cold, Ours, Peer, Row, Steps, Training, as_text, floor, machine
from nalu_np.cli import main
from nalu_np.errors import NaluError, OptionError

DOCS = Path(__file__).parent.parent / "docs"
SMALL = {
    "A": Training(nn.NAC(2, 1), 1, 20),
    "C": Training(nn.NALU(2, 1), 3, 8, fresh=True),
    "D": Training(nn.NALU(4, 3), 2, 8),
    "E": Training(nn.chain(nn.NALU(6, 2), nn.NALU(2, 1)), 2, 8),
}


def fake(model, params, x, y, *, lr, fresh):
    """A peer that is right, because it is ours: `losses` of the same training."""
    training = Training(model, len(x), x.shape[1], fresh)
    return Ours(training, "readable").losses


def wrong(*_, **__):
    return lambda steps: np.ones((steps, 3))


def broken(*_, **__):
    raise RuntimeError("no compiler\nand a long story")


@pytest.fixture
def small(monkeypatch):
    """Small cases, short turns, and a library "other" with three contenders, all in this process."""
    monkeypatch.setattr(bench, "CASES", {name: bench._case(f"case {name}", t) for name, t in SMALL.items()})
    monkeypatch.setattr(bench, "TURN", {"CPU": 1e-9, "wall": 1e-9})
    monkeypatch.setattr(bench, "BLOCK", 3)
    monkeypatch.setitem(peers.PEERS, "other", {"right": fake, "wrong": wrong, "broken": broken})
    monkeypatch.setattr(bench, "_settle", lambda threads, backend: None)
    monkeypatch.setattr(bench, "get_context", lambda kind: kind)
    monkeypatch.setattr(
        bench, "ProcessPoolExecutor", lambda n, _, init, given: ThreadPoolExecutor(n, "bench", init, given)
    )


# --- what is trained --------------------------------------------------------------------------------------------


def trainings():
    return {c.training for case in CASES.values() for c in case.contenders if isinstance(c, Steps)}


def test_rows_are_those_of_the_task():
    two = Training(bench.TWO, 64, 128, fresh=True)
    assert two in trainings()
    x, y = two.task(np.random.default_rng(0), 50)
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((50, 100), (50, 1), np.float32, np.float32)
    assert 1 <= x.min() < x.max() <= 2
    np.testing.assert_allclose(y[:, 0], x[:, :50].mean(axis=1) * x[:, 50:].mean(axis=1), rtol=1e-5)
    x, y = Training(nn.NALU(2, 1), 10, 128).data()
    assert (x.shape, y.shape) == ((10, 128, 2), (10, 128, 1))
    np.testing.assert_allclose(y[..., 0], x[..., 0] * x[..., 1], rtol=1e-6)
    assert (x[0] != x[1]).any()
    x, y = SMALL["D"].data()
    assert y.shape == (2, 8, 3)
    assert (y == y[..., :1]).all()


def test_the_cases_are_what_they_are_called():
    for name, case in CASES.items():
        labels = [c.label for c in case.contenders]
        assert len(set(labels)) == len(labels)
        if name[:2] in ("A-", "C-", "E-", "D"):
            assert labels[:2] == ["planes", "readable"]
            (training,) = {c.training for c in case.contenders}
            assert training.fresh == name.endswith("fresh")
            assert training.replicas == {"C": int(name.split("-")[1]) if name[0] == "C" else 0, "E": 64}.get(
                name[0], 1
            )
    assert [c.threads for c in CASES["threads"].contenders] == [2, 1]
    assert [c.training.replicas for c in CASES["flat"].contenders] == [512, 4096, 100_000]
    assert {c.unit for c in CASES["threads"].contenders} == {"wall ns a seed-step"}
    assert {c.unit for c in CASES["cold"].contenders} == {"CPU s"}
    assert {c.by for case in CASES.values() for c in case.contenders} <= {
        *("planes", "readable"),
        *(contender for contenders in peers.PEERS.values() for contender in contenders),
    }


def test_both_tiers_are_what_they_are_called(monkeypatch):
    tiers = []
    fit = bench.fit
    monkeypatch.setattr(bench, "fit", lambda *a, **k: tiers.append((found := fit(*a, **k)).how["tier"]) or found)
    for training in SMALL.values():
        slow, fast = (Ours(training, name).losses(AGREE) for name in ("readable", "planes"))
        assert slow.shape == fast.shape == (AGREE, training.replicas)
        np.testing.assert_allclose(fast, slow, rtol=1e-4)
    assert tiers == ["readable", "planes"] * len(SMALL)


def test_only_the_second_segment_is_timed(monkeypatch):
    """The first holds what a training does once."""
    given = {}

    def fit(model, *data, callback, **options):
        given.update(options)
        for _ in range(options["steps"] // options["every"]):
            callback(None)
        return Result

    class Result:
        history = {"loss": None}  # noqa: RUF012

    monkeypatch.setattr(bench, "fit", fit)
    times = iter([10.0, 13.0])
    assert Ours(SMALL["C"], "planes", 2).seconds(64, lambda: next(times)) == 3
    assert (given["steps"], given["every"], given["workers"], given["replicas"]) == (128, 64, 2, 3)
    assert given["block"] * 2 == given["every"]  # no segment ends within a block of rows drawn


# --- a contender's turns ----------------------------------------------------------------------------------------


class Clocked:
    """A contender that takes a hundredth of a second a step, by its own account."""

    def __init__(self, *_):
        self.asked = []

    def losses(self, steps):
        return Ours(replace(SMALL["C"], fresh=False), "readable").losses(steps)

    def seconds(self, steps, clock):
        self.asked.append((steps, clock))
        return steps / 100


@pytest.mark.parametrize(("clock", "blocks"), [("CPU", 5), ("wall", 10)])
def test_a_turn_is_long_enough_and_its_value_a_seed_step(monkeypatch, clock, blocks):
    one = Clocked()
    monkeypatch.setattr(Steps, "_contender", lambda self, training: one)
    monkeypatch.setattr(bench, "TURN", {"CPU": 1.6, "wall": 3.2})
    monkeypatch.setattr(bench, "_busy", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(bench, "_taken", lambda before, after: 0.05)
    turn = Steps("x", "planes", SMALL["C"], clock=clock).start()
    assert turn() == pytest.approx(1e9 / 100 / 3)
    steps, clocks = zip(*one.asked, strict=True)
    assert steps == (32, 32, blocks * 32, blocks * 32)
    assert {c.__name__ for c in clocks} == {"process_time" if clock == "CPU" else "perf_counter"}


def test_a_turn_that_others_disturb_counts_only_in_cpu_time(monkeypatch):
    monkeypatch.setattr(Steps, "_contender", lambda self, training: Clocked())
    monkeypatch.setattr(bench, "_taken", lambda before, after: 0.06)
    assert Steps("x", "planes", SMALL["C"], clock="wall").start()() is None
    assert Steps("x", "planes", SMALL["C"]).start()() is not None


def test_how_busy_the_cores_are(monkeypatch):
    monkeypatch.setattr(bench, "_cores", lambda: [1, 3])
    before, after = (10.0, 1.0, 5.0), (12.0, 4.0, 8.8)  # 2 s of 2 cores; 3 s of it mine, 0.8 s others'
    assert bench._taken(before, after) == pytest.approx(0.2)
    assert bench._busy()[2] > bench._busy()[1] > 0
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError))
    _, mine, everyone = bench._busy()
    assert everyone == mine
    before, after = bench._busy(), bench._busy()
    assert bench._taken(before, after) == 0


def test_which_ticks_are_counted(monkeypatch, tmp_path):
    """User, nice, system, and, after idle and waiting for input, interrupts of two kinds and what is stolen."""
    ticks = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 7 7 7 7 7 7 7 7 0 0\ncpu1 1 2 4 1000 1000 8 16 32 7 7\nintr 5\n"
    (tmp_path / "stat").write_text(ticks)
    opened = open
    monkeypatch.setattr("builtins.open", lambda name, **options: opened(tmp_path / "stat", **options))
    monkeypatch.setattr(bench, "_cores", lambda: [1])
    monkeypatch.setattr(bench.os, "sysconf", lambda name: 100)
    assert bench._busy()[2] == pytest.approx(0.63)


def test_cores_where_the_system_does_not_tell(monkeypatch):
    assert bench._cores() == sorted(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    assert bench._cores() == list(range(os.cpu_count()))
    bench._settle(1, "numpy")


def test_from_nothing(monkeypatch):
    """It is trained as told, in a process of its own, and what that spent is counted."""
    monkeypatch.setattr(bench, "COLD_STEPS", 3)
    before = sum(os.times()[2:4])
    with pytest.raises(NaluError, match="us has not learned the sum; its weights are "):
        Cold("us", "planes").start()()
    assert sum(os.times()[2:4]) > before
    learned = peers._cold_ours({}, 8000, 0.01)
    np.testing.assert_allclose(learned, 1, atol=0.01)
    answer = subprocess.CompletedProcess([], 0, json.dumps(learned))
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: answer)
    monkeypatch.setattr(bench, "_spent_by_children", iter([1.0, 3.5]).__next__)
    assert Cold("us", "planes").start()() == 2.5
    monkeypatch.setattr(bench.time, "perf_counter", iter([1.0, 2.0]).__next__)
    assert Cold("us", "planes", clock="wall").start()() == 1


# --- the turns of all -------------------------------------------------------------------------------------------


def test_all_are_timed_in_turns(small, monkeypatch):
    order = []

    def start(self):
        return lambda: order.append(self.label) or (None if len(order) == 1 else float(len(order)))

    monkeypatch.setattr(Steps, "start", start)
    case = Case("", tuple(Steps(name, "planes", SMALL["C"]) for name in "ab"))
    # In one process, the turn of whoever started last is taken: give each its own.
    turns = {}
    monkeypatch.setattr(bench, "_start", lambda c: turns.setdefault(c.label, c.start()))
    taken = iter("ababab")
    monkeypatch.setattr(bench, "_take_turn", lambda: turns[next(taken)]())
    rows, dropped = bench.measure("C", case, 3, "numpy")
    assert order == [*"ababab"]
    assert dropped == {}
    assert [(r.contender, r.value, list(r.values)) for r in rows] == [("a", 4, [None, 3, 5]), ("b", 4, [2, 4, 6])]
    assert all(r.unit == "CPU ns a seed-step" and r.peak_MiB > 1 for r in rows)
    monkeypatch.setattr(bench, "_take_turn", lambda: None)
    rows, dropped = bench.measure("C", case, 3, "numpy")
    assert rows == []
    assert dropped["a"] == "others took more than 5% of its cores in every round"


def test_real_processes_are_settled_and_take_turns(monkeypatch):
    case = Case("", tuple(Steps(name, name, SMALL["C"]) for name in ("planes", "readable")))
    started = []

    class Process(bench._Process):
        def __init__(self, threads, backend):
            super().__init__(threads, backend)
            started.append((self(bench._cores), self(os.getpid)))

    monkeypatch.setattr(bench, "_Process", Process)
    rows, dropped = bench.measure("C", case, 2, "numpy")
    assert [row.contender for row in rows] == ["planes", "readable"]
    assert all(min(row.values) > 0 for row in rows)
    assert [cores for cores, _ in started] == [bench._cores()[:1]] * 2
    assert len({os.getpid(), *(number for _, number in started)}) == 3
    assert dropped == {}


def test_a_process_is_pinned_to_its_cores(monkeypatch):
    pinned = []
    monkeypatch.setattr(bench, "_cores", lambda: [2, 5, 7])
    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: pinned.append(given))
    bench._settle(2, "numpy")
    assert pinned == [(0, [2, 5])]


def test_blas_has_one_thread_only_meanwhile(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with bench._one_thread():
        assert {os.environ[name] for name in bench.ONE_THREAD} == {"1"}
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_who_computes_something_else_is_not_timed(small):
    case = Case("", (Steps("right", "right", SMALL["C"]), Steps("wrong", "wrong", SMALL["C"])))
    with pytest.raises(NaluError, match="wrong computes other losses than the readable tier"):
        bench.measure("C", case, 1, "numpy")


def test_few_roundings_may_differ_and_shapes_may_not(small, monkeypatch):
    training = Training(nn.NAC(2, 1), 40, 8)
    assert Steps("x", "right", training).start()() > 0
    for spoilt, fine in ((np.s_[:, :2], True), (np.s_[:, :3], False)):

        def off(*given, spoilt=spoilt, **options):
            def run(steps):
                losses = fake(*given, **options)(steps).copy()
                losses[spoilt] *= 1.01
                return losses

            return run

        monkeypatch.setitem(peers.PEERS["other"], "right", off)
        if fine:
            assert Steps("x", "right", training).start()() > 0
        else:
            with pytest.raises(NaluError, match="x computes other losses"):
                Steps("x", "right", training).start()
    monkeypatch.setitem(peers.PEERS["other"], "right", lambda *a, **k: lambda n: fake(*a, **k)(n)[:, :1])
    with pytest.raises(NaluError, match="x computes other losses"):
        Steps("x", "right", training).start()


def test_who_breaks_down_is_told_and_the_others_go_on(small):
    case = Case("", (Steps("planes", "planes", SMALL["A"]), Steps("broken", "broken", SMALL["A"])))
    rows, dropped = bench.measure("A", case, 1, "numpy")
    assert [row.contender for row in rows] == ["planes"]
    assert dropped == {"broken": "RuntimeError: no compiler"}


# --- the report -------------------------------------------------------------------------------------------------


def test_the_floor_is_what_its_words_count():
    costs = {"exp2": 1.0, "divide": 10.0, "multiply": 100.0, "product forward": 7.0, "product back": 8.0}
    assert floor(costs) == 128 * (2 + 20 + 900) + 15


def test_primitives():
    found = bench.primitives()
    assert found.keys() == {
        *("multiply", "divide", "exp2", "log2", "tanh", "uniform", "product forward", "product back")
    }
    assert all(0 < cost < 1e5 for cost in found.values())
    assert floor(found) > 128 * found["exp2"]


def test_the_report(small, monkeypatch):
    monkeypatch.setattr(bench, "FLOOR", "C")
    monkeypatch.setattr(bench, "primitives", lambda: dict.fromkeys(bench_costs, 0.123456789))
    monkeypatch.setattr(peers, "missing", lambda names: [name for name in names if name != "other"])
    monkeypatch.setattr(peers, "versions", lambda names: dict.fromkeys(names, "9.9"))
    cases = bench.CASES
    monkeypatch.setitem(cases, "A", bench._case("case A", SMALL["A"], "jax", "right", "broken"))
    monkeypatch.setitem(cases, "T", Case("case T", (Steps("many", "planes", SMALL["A"], threads=999),)))
    told = []
    report = bench.bench(["A", "C", "T"], ["torch", "other"], rounds=2, tell=told.append)
    assert json.loads(json.dumps(report)) == report
    assert report["missing"] == ["torch"]
    assert (
        "not compared, because not installed: torch; python -m pip install '.[bench]' in the project's folder"
        in told[1]
    )
    assert (report["machine"]["numpy"], report["machine"]["other"]) == (np.__version__, "9.9")
    assert [(one["case"], one["contender"]) for one in report["rows"]] == [
        *(("A", "planes"), ("A", "readable"), ("A", "right")),
        *(("C", "planes"), ("C", "readable"), ("C", bench.ALONE)),
    ]
    assert all(len(one["values"]) == 2 and min(one["values"]) > 0 for one in report["rows"])
    assert report["rows"][-1]["value"] == pytest.approx(floor(dict.fromkeys(bench_costs, 0.12346)), rel=1e-4)
    assert report["left_out"].keys() == {"A, broken", "T, many"}
    assert report["left_out"]["T, many"].startswith("it needs 999 cores, and there ")
    assert set(report["primitives_ns"].values()) == {0.12346}
    assert [text.split(":")[0] for text in told[2:]] == ["A", "C", "T"]


bench_costs = ("multiply", "divide", "exp2", "log2", "tanh", "uniform", "product forward", "product back")


def test_on_a_gpu_the_readable_tier_is_timed_by_the_wall_clock(small, fake_cupy, monkeypatch):
    """To the end: a segment's record is copied to the host before its end is noted."""
    monkeypatch.setattr(bench, "FLOOR", "C")
    monkeypatch.setattr(bench, "primitives", lambda: dict.fromkeys(bench_costs, 1.0))
    monkeypatch.setattr(bench, "_taken", lambda before, after: 0.0)
    monkeypatch.setattr(fake_cupy, "__version__", "14.0", raising=False)
    monkeypatch.setitem(bench.CASES, "C", bench._case("case C", SMALL["C"], "right"))
    monkeypatch.setattr(peers, "missing", lambda names: [])
    monkeypatch.setattr(peers, "versions", lambda names: {})
    report = bench.bench(["C"], ["other"], rounds=1, backend="cupy", tell=lambda text: None)
    assert [(one["contender"], one["unit"]) for one in report["rows"]] == [
        ("readable", "wall ns a seed-step"),
        ("right", "wall ns a seed-step"),
    ]
    assert report["left_out"] == {"C, planes": "the fused kernel trains on NumPy alone"}
    assert report["machine"]["cupy"] == "14.0"


def test_ratios_are_of_medians_and_rounds():
    ours = Row("A", "planes", 20.0, "CPU s", (10.0, 20.0, 90.0, None))
    jax = Row("A", "jax", 4000.0, "CPU s", (3000.0, None, 4500.0, 4000.0), 123.4)
    assert jax.times(ours) == (200, 50, 300)
    assert Row("A", "x", 30.0, "CPU s", (None, None, None, 1.0)).times(ours) == (1.5, 1.5, 1.5)
    lines = as_text("A-nac", [ours, jax], {"torch": "it is ill"}).splitlines()
    assert lines[0] == f"A-nac: {CASES['A-nac'].title}"
    words = [" ".join(line.split()) for line in lines[1:]]
    assert words == [
        "CPU s median lowest highest times lowest highest peak MiB",
        "planes 20 10 90 1.00 1.00 1.00 1 of 4 rounds thrown away",
        "jax 4,000 3,000 4,500 200.00 50.00 300.00 123 1 of 4 rounds thrown away",
        "torch did not take part: it is ill",
    ]
    assert as_text("D", [], {}).splitlines() == [f"D: {CASES['D'].title}"]


def test_figures():
    assert [bench.figure(v) for v in (0.4567, 12.34, 99.9, 123.4, 1234567.0)] == [
        "0.457",
        "12.3",
        "99.9",
        "123",
        "1,234,567",
    ]
    assert [bench._short(v) for v in (None, 0.123456789, 1234567.8)] == [None, 0.12346, 1234600.0]


def test_what_it_ran_on(monkeypatch):
    assert machine([]).keys() == {"date", "cpu", "cores", "python", "numpy"}
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError))
    assert machine([])["cpu"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bench.bench(["X"], [], rounds=1), "unknown case 'X'; choose among A, C, D, E"),
        (lambda: bench.bench(["A"], ["numba"], rounds=1), "unknown peer 'numba'; choose among jax, torch"),
        (lambda: bench.bench(["A"], [], rounds=1, backend="gpu"), "expected one of numpy, cupy, auto, got 'gpu'"),
    ],
)
def test_what_is_unknown_is_refused(call, words, small):
    with pytest.raises(OptionError) as caught:
        call()
    assert words in str(caught.value)


def test_peers_that_are_missing_or_there():
    assert peers.missing(["json", "no_such_library"]) == ["no_such_library"]
    assert peers.versions(["numpy"]) == {"numpy": np.__version__}
    assert peers.library("jax by hand") == "jax"
    assert peers.library("planes") is None


@pytest.mark.parametrize("training", SMALL.values(), ids=SMALL)
def test_the_model_in_another_librarys_words(training):
    """NumPy can play the other library."""
    params = {n: v.astype(float) for n, v in training.model.init(3, training.replicas).items()}
    x, _ = training.data()
    y = peers._forward(training.model, params, x.astype(float), np, lambda z: 1 / (1 + np.exp(-z)))
    np.testing.assert_allclose(y, training.model(params, x.astype(float))[0], rtol=1e-12)


def test_the_command(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--case", "A", "--rounds", "1", "--json", "b.json"]) == 0
    assert "CPU ns a seed-step" in capsys.readouterr().out
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))["rows"][0]["case"] == "A"
    assert main(["bench", "--case", "A", "--rounds", "1", "--json", "b.json"]) == 2
    assert "b.json: it is there already" in capsys.readouterr().err
    assert main(["bench", "--case", "A", "--rounds", "1"]) == 0
    assert main(["bench", "--case", "nothing", "--json", "c.json"]) == 2
    assert not (tmp_path / "c.json").exists()
    assert main(["bench", "--peers", "nothing", "--case", "A"]) == 2
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["bench", "--backend", "cupy", "--case", "A"]) == 2
    assert "install the extra cuda12 or cuda13" in capsys.readouterr().err


# --- the page ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages():
    return runpy.run_path(str(DOCS / "performance.py"))


def test_the_page_is_what_the_script_makes_of_the_files(pages):
    reports = {
        file.name: json.loads(file.read_text(encoding="utf-8")) for file in sorted(DOCS.glob("speed-*.json"))
    }
    assert reports
    assert (DOCS / "performance.md").read_text(encoding="utf-8") == pages["page"](reports)


def test_the_page_says_who_is_faster_and_what_was_thrown_away(pages):
    def report(jax, alone):
        rows = [
            Row("C-1024", "planes", 600.0, "CPU ns a seed-step", [500.0, 600.0, 700.0], 50.0),
            Row("C-1024", "jax", jax, "CPU ns a seed-step", [jax, jax, None], 300.0),
            Row("C-1024", "torch", 6000.0, "CPU ns a seed-step", [6000.0] * 3, 300.0),
            Row("C-1024", bench.ALONE, alone, "CPU ns a seed-step", [alone] * 3),
        ]
        return {
            "machine": {"date": "2026-01-01", "cpu": "Z80"},
            "missing": ["jax"],
            "left_out": {"D, torch": "it is ill"},
            "primitives_ns": {"exp2": 0.2},
            "rows": [vars(row) for row in rows],
        }

    first, second = report(300.0, 450.0), report(900.0, 300.0)
    text = pages["page"]({"speed.json": first, "speed-2.json": second})
    assert "from [speed.json](speed.json) and [speed-2.json](speed-2.json)" in text
    assert f"## C-1024: {CASES['C-1024'].title}\n" in text
    assert (
        "| jax | 300 (1 thrown away) | 0.50 (0.50 to 0.60) | 900 (1 thrown away) | 1.50 (1.50 to 1.80) | 300 |"
        in text
    )
    assert "- C-1024, jax: 0.50 and 1.50 of our time\n" in text
    assert "C-1024, torch:" not in text
    assert "the fused kernel is 75% and 50%." in text
    assert "| cpu | Z80 | Z80 |" in text
    assert "- speed.json: D, torch did not take part: it is ill\n" in text
    assert "Where others are faster" not in pages["page"]({"speed.json": second})
    shorter = {**second, "rows": second["rows"][:1]}
    assert "| jax | 300 (1 thrown away) | 0.50 (0.50 to 0.60) |  |  | 300 |" in pages["page"](
        {"a.json": first, "b.json": shorter}
    )


# --- with the libraries -----------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", [name for contenders in peers.PEERS.values() for name in contenders])
@pytest.mark.parametrize("case", SMALL)
def test_peers_compute_the_same(name, case):
    if name == "jax by hand" and case != "C":
        pytest.skip("it knows one NALU with one output")
    pytest.importorskip(peers.library(name))
    training = replace(SMALL[case], fresh=False)
    if name == "jax by hand":
        training = replace(training, replicas=256)  # two chunks
    expected = Ours(training, "readable").losses(AGREE)
    np.testing.assert_allclose(Peer(training, name).losses(AGREE), expected, rtol=1e-3)
    if name not in ("torch.compile", "jax a step") and training.model.out_features == 1:
        fresh = Peer(replace(training, fresh=True), name).losses(AGREE)
        assert fresh.shape == expected.shape
        assert np.isfinite(fresh).all()
        assert not np.isclose(fresh[0], expected[0]).all()


@pytest.mark.peers
@pytest.mark.parametrize("by", peers.PEERS)
def test_peers_learn_the_sum_from_nothing(by):
    pytest.importorskip(by)
    assert Cold(by, by).start()() > 0.1
