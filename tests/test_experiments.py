"""The frame of the published experiments, the experiments themselves at a tiny size, and their three commands."""

import csv
import importlib
import json
import math
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import toy_experiment
from hypothesis import given
from hypothesis import strategies as st

from nalu_np import cli, report
from nalu_np.errors import FileError, OptionError
from nalu_np.experiments import EXPERIMENTS, article, base, find, identity, runs, tutorial
from nalu_np.sweeps import read_results

VERDICTS = {"inside", "outside", "not comparable", "none published"}
HEADER = "row,ours,low,high,published,verdict,note"


def records(experiment, configs):
    """What sweep would write about the configs."""
    made = ({"config": c, "status": "done", "result": experiment.run(c), "seconds": 0.5} for c in configs)
    return json.loads(json.dumps(list(made), default=float))


def cell(seeds, op="add", model="NAC", **config):
    """A cell of these results."""
    count = len(next(iter(seeds.values())))
    return base.Cell({"experiment": "toy", "op": op, "model": model, "count": count, **config}, seeds, {}, 1.0)


# --- verdicts and rows ----------------------------------------------------------------------------------------


@given(st.floats(-1e6, 1e6), st.floats(0, 10), st.integers(0, 4))
def test_a_number_printed_from_within_the_interval_is_inside(low, width, digits):
    for value in (low, low + width / 2, low + width):
        assert base.verdict(low, low + width, f"{value:.{digits}f}") == "inside"


@pytest.mark.parametrize(
    ("low", "high", "published", "expected"),
    [
        (0.06, 0.07, "0.0", "outside"),
        (0.05, 0.07, "0.0", "inside"),
        (495.1, 495.4, "495.47", "outside"),
        (99.6, 110, "100", "inside"),
        (101, 110, "100", "outside"),
        (1.5e-8, 2e-8, "1.4786e-8", "outside"),
        (1.47e-8, 2e-8, "1.4786e-8", "inside"),
        (0, 0.5, "<.0001", "inside"),
        (0.001, 0.5, "<.0001", "outside"),
        (5, 2000, ">999.9", "inside"),
        (5, 900, ">999.9", "outside"),
        (1, math.inf, "7", "inside"),
        (math.inf, math.inf, "7", "outside"),
        (0, 1, "", "none published"),
    ],
)
def test_verdicts(low, high, published, expected):
    assert base.verdict(low, high, published) == expected


def test_a_seed_that_is_not_finite_is_a_failure_and_said():
    row = base.error("toy/add/NAC/error", [1.0, 2.0, math.nan, math.inf, 3.0], "2", "of five")
    assert (row.ours, row.high) == (3.0, math.inf)
    assert row.note == "of five; 2 of 5 seeds not finite, counted as infinite"
    assert base.rate("toy/add/NAC/success", [1.0, math.nan, 1.0, 1.0]).ours == 0.75


def test_one_run_is_compared_with_runs_and_not_with_their_median():
    values = np.arange(1.0, 101)
    assert base.error("toy/add/NAC/error", values, "80").verdict == "outside"
    row = base.among("toy/add/NAC/error", values, "80", "a note")
    assert (row.ours, row.low, row.high, row.verdict, row.note) == (50, 3, 98, "inside", "a note")
    row = base.among("toy/add/NAC/error", [1.0, math.nan], "80")
    assert (row.high, row.note) == (math.inf, "1 of 2 seeds not finite, counted as infinite")


def test_a_mean_with_a_seed_that_is_not_finite_is_infinite():
    row = base.error("toy/add/NAC/error", [1.0, 2.0, math.nan], statistic=np.mean)
    assert (row.ours, row.high) == (math.inf, math.inf)


def test_what_cannot_be_compared_says_why():
    row = base.error("toy/add/NAC/error", [1.0, 2.0], "9", "a note", incomparable="another unit")
    assert (row.verdict, row.published, row.note) == ("not comparable", "9", "another unit; a note")


def test_the_seed_in_the_middle():
    assert cell({"error": [5.0, None, 1.0, 3.0, math.nan]}).median("error") == 0
    assert cell({"error": [4.0, 2.0]}).median("error") == 1


@pytest.mark.parametrize("own", [True, False])
def test_seeds_that_diverged_have_no_numbers_but_their_loss(own):
    loss = np.float32([[1.0, 2.0, 3.0], [0.5, 1.0, np.nan]])  # two segments
    diverged = np.array([False, True, True])
    nothing = np.zeros(3, bool)
    result = types.SimpleNamespace(history={"loss": loss}, diverged=nothing if own else diverged)
    given = {"loss": base.rounded(loss.T, 4), "diverged": diverged} if own else {}
    flat, deep = np.float32([1, 2, 3]), np.arange(12.0).reshape(3, 2, 2)
    other = {"steps": [7, 8, 9], "formula": ["a", "b", "c"], "listed": [0.5, 0.25, 0.125]}
    made = base.outcome(result, {"spread": 2.0}, flat=flat, deep=deep, **given, **other)
    kept = made["seeds"]
    assert np.array_equal(kept["loss"], loss.T, equal_nan=True)
    assert kept["diverged"] == [False, True, True]
    assert np.array_equal(kept["flat"], [1, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(kept["listed"], [0.5, np.nan, np.nan], equal_nan=True)
    assert kept["deep"][0] == [[0, 1], [2, 3]]
    assert np.isnan(kept["deep"][1:]).all()
    assert np.isnan(flat).sum() == np.isnan(deep).sum() == 0  # copies were changed
    assert (kept["steps"], kept["formula"], made["shared"]) == ([7, 8, 9], ["a", "b", "c"], {"spread": 2.0})
    assert base.error("toy/add/NAC/error", kept["flat"]).note == "2 of 3 seeds not finite, counted as infinite"


def test_seeds_that_did_not_diverge_keep_all():
    result = types.SimpleNamespace(history={"loss": np.ones((1, 2))}, diverged=np.zeros(2, bool))
    assert base.outcome(result, error=np.array([1.0, np.inf]))["seeds"]["error"] == [1.0, np.inf]


# --- configs and cells ----------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 120))
def test_parts_are_every_seed_once(seeds, most):
    made = base.parts([{"op": "add"}, {"op": "mul"}], seeds, most)
    for op in ("add", "mul"):
        assert [r for c in made if c["op"] == op for r in base.replicas(c)] == list(range(seeds))
    assert all(c["count"] <= most for c in made)


def test_numbers_are_kept_to_nine_digits():
    values = np.float32([1 / 3, 1e20, math.nan])
    kept = base.rounded({"a": 1}.keys() and values)
    assert np.array_equal(np.float32(kept), values, equal_nan=True)
    assert base.rounded([1, "x", None, (0.123456789012, True)]) == [1, "x", None, [0.123456789, True]]


def test_cells_do_not_depend_on_the_order_of_records_nor_on_how_they_were_cut():
    toy = toy_experiment.toy()
    configs = toy.cells("default", None)
    whole = [{**c, "count": 6} for c in configs if c["first"] == 0]
    cut = base.gather(configs, records(toy, configs)[::-1])
    assert [(c.name, c.seeds) for c in cut] == [(c.name, c.seeds) for c in base.gather(whole, records(toy, whole))]
    assert [c.op for c in cut] == ["-", "add"]
    assert (cut[0].count, cut[0].seconds, cut[0].shared) == (6, 1.5, {"worst": 1.0})


def test_what_failed_or_is_missing_is_not_in_a_cell():
    toy = toy_experiment.toy()
    configs = toy.cells("default", None)
    found = records(toy, configs)
    found[0]["status"] = "failed"
    first, second = base.gather(configs, found[:-1])
    assert (first.count, second.count) == (4, 4)
    assert first["error"].tolist() == [0.02, 0.03, 0.04, 0.05]


def test_a_record_with_a_seed_too_few_is_refused():
    toy = toy_experiment.toy()
    configs = toy.cells("quick", None)
    found = records(toy, configs)
    found[0]["result"]["seeds"]["error"].pop()
    with pytest.raises(ValueError, match="'error' has 1 entries for 2 seeds"):
        base.gather(configs, found)


# --- the experiments, at a size that shows only that they are whole -------------------------------------------


@pytest.fixture(scope="module", params=["tutorial-add", "tutorial-multiply", "article-add", "article-multiply"])
def simple(request):
    return whole(request.param)


def whole(name, steps=40):
    """An experiment's cells, of two seeds and few steps."""
    experiment = EXPERIMENTS[name]
    configs = [{**config, "steps": steps} for config in experiment.cells("quick", 2)]
    return experiment, base.gather(configs, records(experiment, configs))


def check(experiment, cells):
    """What every experiment must keep to."""
    rows = experiment.rows(cells)
    names = [row.row for row in rows]
    assert len(set(names)) == len(names)
    for row in rows:
        name, _, _, metric = row.row.split("/")
        assert name == experiment.name
        assert metric in experiment.metrics
        assert row.verdict in VERDICTS
        assert row.low <= row.ours <= row.high
        assert row.verdict == "none published" or row.published
    assert {f"{experiment.name}/{key}" for key in experiment.key} <= set(names)
    assert {name.split("/")[3] for name in names} == set(experiment.metrics)
    pictures = experiment.pictures(cells)
    assert len({p.name for p in pictures}) == len(pictures) >= 1
    figure = pytest.importorskip("matplotlib.figure").Figure
    for picture in pictures:
        assert min(len(picture.title), len(picture.alt), len(picture.caption)) > 5
        drawn = figure()
        picture.draw(drawn)
        assert all(axes.get_xlabel() for axes in drawn.axes)
    for section in experiment.sections(cells):
        assert section.title
        assert all(len(row) == len(section.header) for row in section.rows)
    return {row.row.partition("/")[2]: row for row in rows}


def test_the_simple_ones_are_whole(simple):
    experiment, cells = simple
    check(experiment, cells)


def test_every_config_can_be_swept():
    for experiment in EXPERIMENTS.values():
        module = importlib.import_module(experiment.run.__module__)
        assert getattr(module, experiment.run.__name__) is experiment.run
        for scale in base.SCALES:
            configs = experiment.cells(scale, None)
            assert json.loads(json.dumps(configs)) == configs
            keys = {json.dumps(config, sort_keys=True) for config in configs}
            assert len(keys) == len(configs)
            for config in configs:
                assert config["experiment"] == experiment.name
                assert {"op", "model", "seed", "first", "count", "steps"} <= config.keys()
                assert experiment.seconds(config) > 0
        assert set(experiment.deviations) <= {"always", *base.SCALES}


def test_the_rows_of_the_tutorial():
    assert tutorial.training_rows()[[0, 1, -1]].tolist() == [[0, 5], [5, 10], [9995, 10000]]
    assert tutorial.training_rows().shape == (2000, 2)
    x = tutorial.test_rows()
    assert x.shape == (125, 2)
    assert tutorial.OPS["add"](x)[:3].tolist() == [2000, 2012, 2024]
    assert tutorial.OPS["mul"](x)[:2].tolist() == [1000000, 1012032]
    for op, text in tutorial.PRINTED.items():  # what is printed is near to what is true
        assert np.allclose([float(t) for t in text.split()], tutorial.OPS[op](x)[:10], rtol=1e-4)


def test_a_nac_learns_the_tutorials_sum_and_replicas_do_not_depend_on_parts():
    configs = [c for c in EXPERIMENTS["tutorial-add"].cells("default", 3) if c["model"] == "NAC"]
    short = [{**c, "steps": 4000, "lr": 0.5} for c in configs]
    [together] = base.gather(short, records(EXPERIMENTS["tutorial-add"], short))
    parts = [{**short[0], "first": first, "count": count} for first, count in ((0, 1), (1, 2))]
    [apart] = base.gather(parts, records(EXPERIMENTS["tutorial-add"], parts))
    assert together.seeds == apart.seeds
    measured = {row.row.rpartition("/")[2]: row for row in tutorial.measured(together, published=True)}
    assert measured["success"].ours == measured["beyond_success"].ours == measured["formula"].ours == 1.0
    assert measured["test"].ours < 1e-3
    assert measured["ten_mae"].published == "0.101"
    assert measured["ten_mae"].note.startswith("published: one run without a seed")


def test_measures_of_a_cell_that_is_known():
    ten = [[2000.0] * 10, [0.0] * 10]
    known = {"test": [1e-4, 0.5], "apart": [0.0, 1.0], "beyond": [2e-3, 1.0], "ten_mae": [0.1, 50.0], "ten": ten}
    rows = {row.row.rpartition("/")[2]: row for row in tutorial.measured(cell(known), published=False)}
    assert "formula" not in rows
    assert (rows["success"].ours, rows["beyond_success"].ours) == (0.5, 0.0)
    assert (rows["ten_mae"].ours, rows["ten_mae"].published) == (0.1, "")


def test_full_is_the_published_scale_and_seeds_are_as_asked_for():
    for name, steps in (("tutorial-add", 22_000), ("article-multiply", 36_000), ("article-nalu", 30_000)):
        for scale in ("default", "full"):
            configs = EXPERIMENTS[name].cells(scale, 7)
            assert {config["steps"] for config in configs} == {steps}
            assert {config["count"] for config in configs} == {7}


def test_article_nalu_is_whole_and_its_rows_are_those_of_the_article():
    experiment, cells = whole("article-nalu", 60)
    rows = check(experiment, cells)
    assert rows["line/NALU/success"].ours == 0.0
    x = article.training_rows("line")
    assert x[[0, -1]].tolist() == [[1000, 500, 0], [10995, 6497, 1999]]
    i = x[:, 2]  # the line on which the law cannot be told
    assert np.array_equal(article.target(x), i**2 + 2.75 * i + 500)
    apart = article.training_rows("apart")
    assert np.linalg.matrix_rank(np.corrcoef(article.squared(apart).T), tol=0.1) == 3
    test = article.test_rows()
    assert test.shape == (200, 3)
    assert (test.max(axis=0) < [1000, 500, 150]).all()
    assert (test.min(axis=0) >= [0, 0, 50]).all()


def test_the_nalu_of_the_article_starts_with_uniform_weights_and_a_normal_gate():
    wanted = next(c for c in EXPERIMENTS["article-nalu"].cells("quick", 30) if c["model"] == "NALU")
    found = article.run({**wanted, "steps": 1, "lr": 1e-9})["seeds"]
    layer, start = article.nalu(), article.nalu().init(0, 30)
    start["G"] = article.nalu(initializer="normal").init(0, 30)["G"]
    values = layer.values(start, article.test_rows().astype("float32"))
    for name in ("W_a", "W_m"):
        assert np.allclose(found[name], values[name][..., 0], atol=1e-6)
    assert np.allclose(found["gate"], values["g"][..., 0].mean(axis=1), atol=1e-3)
    assert np.abs(start["W_hat_a"]).max() > 1.8
    assert abs(float(start["G"].std()) - 1) < 0.2


def test_identity_is_whole():
    experiment, cells = whole("identity", 30)
    rows = check(experiment, cells)
    assert [c.model for c in cells] == list(identity.TABLE)
    assert rows["-/Tanh/plus20"].verdict == rows["-/Threshold/mae_1000"].verdict == "not comparable"
    assert rows["-/None/plus20"].verdict == rows["-/Hardshrink/mae_1000"].verdict == "none published"


def test_identity_is_learned_by_a_linear_network_and_not_by_tanh():
    configs = [c for c in EXPERIMENTS["identity"].cells("quick", 3) if c["model"] in ("None", "Tanh")]
    short = [{**c, "steps": 2000} for c in configs]
    made = records(EXPERIMENTS["identity"], short)
    assert base.gather(configs, made) == []  # the records are of fewer steps
    found = {c.model: c for c in base.gather(short, made)}
    assert found["None"]["mae_1000"].max() < 0.1
    assert found["Tanh"]["mae_train"].max() < 0.2
    assert (np.abs(found["Tanh"]["mae_1000"] - 494) < 3).all()
    assert found["Tanh"]["curve"].shape == (3, 41)


def test_labels_keep_apart_and_in_order():
    places = identity._apart(np.array([0.0, 0.0, 0.1, 9.0, 19.9, 20.0]), 1.0)
    assert np.diff(places).min() >= 1 - 1e-12
    assert places[-1] <= 20.5
    assert identity._apart(np.array([1.0, 5.0]), 1.0).tolist() == [1.0, 5.0]


# --- runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch):
    """The toy among the experiments; called with a way in which it breaks, that one."""

    def install(broken=""):
        made = toy_experiment.toy(broken)
        monkeypatch.setitem(EXPERIMENTS, "toy", made)
        return made

    install()
    monkeypatch.setattr(report, "draw", lambda _: [])  # figures take time, and have tests of their own
    return install


def run(*arguments):
    return cli.main(["run", "toy", *map(str, arguments)])


def test_unknown_names_are_met_with_near_ones():
    with pytest.raises(OptionError, match="'identiy'; did you mean identity"):
        find("identiy")
    with pytest.raises(OptionError, match=r"'\\x1b'; there are tutorial-add, "):
        find("\x1b")


def test_the_list_names_all_with_size_and_time(capsys):
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out
    assert set(EXPERIMENTS) <= {line.split(" ")[0] for line in text.splitlines()}
    assert re.search(r"tutorial-add +A NAC learns a sum +2 x 100 +\d+ s +\d+ s +\d+ s\n", text)
    assert max(map(len, text.splitlines())) <= 100


def test_a_run_writes_all_and_says_what(toy, tmp_path, capsys):
    folder = tmp_path / "deep" / "out"
    assert run("--out", folder) == 0
    assert {p.name for p in folder.iterdir()} == {"config.json", "results.jsonl", "summary.csv", "report.html"}
    lines = (folder / "summary.csv").read_text("utf-8").splitlines()
    assert lines[0] == HEADER
    table = list(csv.DictReader(lines))
    assert table[0]["row"] == f"toy/-/{toy_experiment.NASTY}/success"
    assert (table[0]["ours"], table[0]["published"], table[0]["verdict"]) == ("0.5", "0.5", "inside")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["configs"] == EXPERIMENTS["toy"].cells("default", None)
    assert {"nalu_np", "python", "numpy", "system", "processor", "cores"} < config["sessions"][0].keys()
    out, err = capsys.readouterr()
    assert "2 cells, 6 seeds, 10 steps; about 6 s, an estimate" in out
    assert f"written: {folder / 'report.html'}" in out
    assert err == ""
    assert max(map(len, out.splitlines()[1:-1])) <= 100


def test_the_default_folder_has_the_name_and_the_scale(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run() == run("--quick") == run("--full") == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"toy", "toy-quick", "toy-full"}


def test_seeds_are_as_many_as_asked_for(toy, tmp_path):
    assert run("--seeds", 5, "--out", tmp_path / "a") == 0
    assert [c.count for c in runs.read(tmp_path / "a").cells()] == [5, 5]
    assert "5 seeds of each cell, as was asked for" in (tmp_path / "a" / "report.html").read_text("utf-8")


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "6 of 6 parts of toy are done; nalu-np report {} draws it again, or choose another --out"),
        (["--quick"], "it holds another run, toy, not toy --quick; choose another --out"),
        (["--resume", "--seeds", "3"], "it holds another run, toy, not toy --seeds 3; choose another --out"),
        (["--resume", "--seeds", "6"], "it holds another run, toy, not toy --seeds 6; choose another --out"),
    ],
)
def test_a_folder_that_holds_a_run_is_left_as_it_is(toy, tmp_path, capsys, arguments, message):
    folder = tmp_path / "out"
    assert run("--out", folder) == 0
    before = contents(folder)
    assert run("--out", folder, *arguments) == 2
    assert message.format(folder) in capsys.readouterr().err
    assert contents(folder) == before


def test_a_folder_with_other_things_is_left_as_it_is(toy, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert run("--out", tmp_path) == 2
    assert "it holds other files (thesis.tex); choose another --out" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    assert run("--out", tmp_path / "thesis.tex") == 2
    assert "cannot be used as a folder: File exists" in capsys.readouterr().err
    assert run("--out", "nul\0") == 2
    message = capsys.readouterr().err
    assert "cannot be used as a folder: " in message
    assert "embedded null" in message  # Python's own words, which change


def test_an_interrupted_run_goes_on_where_it_was(toy, tmp_path, capsys):
    flag, folder = tmp_path / "flag", tmp_path / "out"
    toy(str(flag))
    flag.touch()
    assert run("--out", folder) == 130
    assert f"what is finished is kept in {folder}; add --resume to go on" in capsys.readouterr().err
    assert run("--out", folder) == 2
    assert "1 of 6 parts of toy are done; add --resume to go on" in capsys.readouterr().err
    assert cli.main(["report", str(folder)]) == 0  # what there is can be seen
    assert "Not complete: 1 of 6 parts are done" in (folder / "report.html").read_text("utf-8")
    flag.unlink()
    first = (folder / "results.jsonl").read_bytes()
    capsys.readouterr()
    assert run("--out", folder, "--resume") == 0
    assert "about 5 s" in capsys.readouterr().out
    assert (folder / "results.jsonl").read_bytes().startswith(first)
    assert len(read_results(folder / "results.jsonl")) == 6
    assert len(json.loads((folder / "config.json").read_text("utf-8"))["sessions"]) == 2
    assert run("--out", folder, "--resume") == 0  # nothing is left to do


def test_a_run_of_another_scale_with_equal_configs_is_another_run(tmp_path, capsys):
    experiment, folder = EXPERIMENTS["identity"], tmp_path / "out"
    assert experiment.cells("full", None) == experiment.cells("default", None)
    runs.start(experiment, "default", None, folder, resume=False)
    before = contents(folder)
    assert cli.main(["run", "identity", "--full", "--resume", "--out", str(folder)]) == 2
    assert "it holds another run, identity, not identity --full; choose another" in capsys.readouterr().err
    assert contents(folder) == before


def test_ctrl_c_ends_the_workers_where_they_are():
    opened = runs.opened(2, None)
    executor = opened.__enter__()
    assert executor.submit(abs, -1).result() == 1
    sleeping = executor.submit(time.sleep, 60)
    while not sleeping.running():
        time.sleep(0.01)
    processes = list(executor._processes.values())
    assert processes
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        opened.gen.throw(KeyboardInterrupt)
    assert time.monotonic() - began < 10
    assert not any(process.is_alive() for process in processes)


def test_interrupted_workers_end_and_threads_tell_their_errors_again():
    hook, workers = threading.excepthook, []

    def interrupted():
        with runs.opened(2, None) as pool:
            workers.append(pool.submit(os.getpid).result())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.excepthook is hook
    with pytest.raises(ProcessLookupError):
        os.kill(workers[0], 0)


def test_workers_can_be_opened_beside_the_main_thread():
    """Which alone may ignore signals."""

    def work():
        with runs.opened(2, None) as executor:
            return executor.submit(abs, -2).result()

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(work).result() == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


SLOW = """
import toy_experiment
from nalu_np import cli
from nalu_np.experiments import EXPERIMENTS

if __name__ == "__main__":
    EXPERIMENTS["toy"] = toy_experiment.toy("slow")
    raise SystemExit(cli.main(["run", "toy", "--workers", "2", "--out", "out"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent to a group of processes")
def test_ctrl_c_at_a_run_with_workers_keeps_what_is_finished(toy, tmp_path):
    toy("slow")
    (tmp_path / "slow.py").write_text(SLOW, "utf-8")
    paths = [Path(cli.__file__).parents[1], Path(__file__).parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "slow.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    results, deadline = tmp_path / "out" / "results.jsonl", time.monotonic() + 60
    while not (results.exists() and results.read_bytes().count(b"\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)  # until there is the head, and the part that takes no time
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=50)
    assert time.monotonic() - began < 10
    assert process.returncode == 130
    assert error == "nalu-np: interrupted; what is finished is kept in out; add --resume to go on\n"
    assert [record["config"]["first"] for record in runs.read(tmp_path / "out").records()] == [0]


def test_a_part_that_fails_is_told_and_tried_again(toy, tmp_path, capsys):
    toy("raises")
    assert run("--out", tmp_path / "out") == 1
    assert "3 of 6 parts failed, see the page; --resume tries them again" in capsys.readouterr().err
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "seeds 0 to 1 could not be run: ArithmeticError: no more digits &lt;script&gt;" in page
    assert run("--out", tmp_path / "out", "--resume") == 1


def test_seeds_that_diverge_are_counted(toy, tmp_path):
    toy("nan")
    assert run("--out", tmp_path / "out") == 0
    text = (tmp_path / "out" / "summary.csv").read_text("utf-8")
    assert "3 of 6 seeds not finite, counted as infinite" in text
    assert "3 of 6" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_workers_change_nothing_but_the_time(toy, tmp_path):
    assert run("--out", tmp_path / "one") == 0
    assert run("--workers", 2, "--out", tmp_path / "two") == 0
    one, two = ((tmp_path / name / "summary.csv").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_worker_that_dies_is_told(toy, tmp_path, capsys):
    toy("dies")
    assert run("--workers", 2, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "a worker died" in error
    assert "call again with a new executor for the rest, with --resume" in error


def test_progress_is_for_a_terminal(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run("--out", tmp_path / "out") == 0
    assert "\rdone: 6 of 6 parts, the last add/" in capsys.readouterr().err


def test_records_of_another_shape_are_refused(toy, tmp_path, capsys):
    folder = tmp_path / "out"
    assert run("--out", folder) == 0
    results = folder / "results.jsonl"
    results.write_text(results.read_text("utf-8").replace('"error"', '"other"'), "utf-8")
    assert cli.main(["report", str(folder)]) == 2
    assert "not records of toy as this version makes them (KeyError: 'error')" in capsys.readouterr().err
    results.write_text("something else\n", "utf-8")
    with pytest.raises(FileError, match="not a results file"):
        runs.read(folder).cells()


def test_report_needs_a_run(toy, tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "cannot be read: No such file or directory; give a folder that" in capsys.readouterr().err
    good = {"format": "nalu_np run", "version": 1, "experiment": "toy", "scale": "quick", "seeds": None}
    good |= {"sessions": [], "configs": [{"op": "add"}]}
    for text, message in {
        "{": "not the config of a run",
        "[" * 100_000: "not the config of a run",
        json.dumps({**good, "configs": [3]}): "not the config of a run",
        json.dumps({**good, "configs": []}): "not the config of a run",
        json.dumps(good): "not records of toy as this version makes them (KeyError",
        json.dumps({**good, "version": 2}): "a run of a newer version of nalu_np; update it",
        json.dumps(
            {**good, "experiment": "\x1b"}
        ): r"a run of '\x1b', which this version of nalu_np does not have",
    }.items():
        (tmp_path / "config.json").write_text(text, "utf-8")
        assert cli.main(["report", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
    good["configs"] = EXPERIMENTS["toy"].cells("quick", None)
    (tmp_path / "config.json").write_text(json.dumps(good), "utf-8")
    assert cli.main(["report", str(tmp_path)]) == 0  # nothing is done yet, and the page says so


def test_a_disk_that_is_full_is_told_and_nothing_is_half_written(toy, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "out"
    assert run("--out", folder) == 0
    before = contents(folder)

    def full(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert cli.main(["report", str(folder)]) == 2
    assert "summary.csv: cannot be written: No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert contents(folder) == before


def test_the_processor_has_a_name_anywhere(monkeypatch):
    assert runs.processor()

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr("platform.processor", lambda: "")
    assert runs.processor() == "unknown"


def test_cores_are_counted_anywhere(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert runs.session()["cores"] >= 1


# --- dask -----------------------------------------------------------------------------------------------------


class FakeClient:
    """What a run needs of distributed.Client."""

    def __init__(self, address, **options):
        assert options == {"timeout": runs.PATIENCE, "set_as_default": False}
        self.pool = ThreadPoolExecutor(1)

    def get_executor(self, pure):
        assert pure is False
        return self.pool

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown()


def not_a_scheduler(*_, **__):
    raise OSError("it speaks\nanother language")


@pytest.fixture
def somebody():
    """The address of somebody who listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def dask(monkeypatch, client):
    monkeypatch.setitem(sys.modules, "distributed", types.SimpleNamespace(Client=client))


def test_dask_runs_the_parts(toy, tmp_path, monkeypatch, somebody):
    dask(monkeypatch, FakeClient)
    assert run("--dask", somebody, "--out", tmp_path / "out") == 0
    assert len(runs.read(tmp_path / "out").cells()) == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:9", "--dask tcp://127.0.0.1:9: no scheduler answers ([Errno 111] Connection refused)"),
        ("http://127.0.0.1:9", "no scheduler answers (expected one like tcp://host:8786); check the address"),
        ("tcp://127.0.0.1", "expected one like tcp://host:8786"),
        ("here\n", "--dask here\\n: no scheduler answers (expected one like"),
        ("tcp://a:99999", "no scheduler answers (Port out of range 0-65535)"),
    ],
)
def test_dask_that_does_not_answer_is_one_line(toy, tmp_path, capsys, monkeypatch, address, message):
    dask(monkeypatch, not_a_scheduler)
    assert run("--dask", address, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()  # so that the next run is not refused


def test_somebody_who_is_no_scheduler_is_one_line(toy, tmp_path, capsys, monkeypatch, somebody):
    dask(monkeypatch, not_a_scheduler)
    assert run("--dask", somebody, "--out", tmp_path / "out") == 2
    assert f"--dask {somebody}: no scheduler answers (it speaks another language)" in capsys.readouterr().err


def test_workers_here_and_dask_exclude_each_other(toy, tmp_path, capsys):
    assert run("--dask", "tcp://a:1", "--workers", "2", "--out", tmp_path / "out") == 2
    assert "leave one out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dask_that_is_not_installed_is_one_line(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run("--dask", "tcp://here:1", "--out", tmp_path / "out") == 2
    assert "needs dask; python -m pip install '.[sweep]' in the project's folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_page_of_results_is_what_the_script_makes_of_them():
    """docs/experiments.md holds no number that is not in experiments.json, which runs wrote."""
    docs = Path(__file__).parent.parent / "docs"
    script = runpy.run_path(str(docs / "experiments.py"))
    entries = json.loads((docs / "experiments.json").read_text())
    assert set(entries) <= set(EXPERIMENTS)
    assert script["page"](entries) == (docs / "experiments.md").read_text()
