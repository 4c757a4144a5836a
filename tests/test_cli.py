"""The command line as people use it: the installed program, and the same in this process."""

import csv
import io
import json
import math
import os
import pty
import re
import resource
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import nalu_np as nn
from nalu_np import checks, cli, learn
from nalu_np.backend import VARIABLE
from nalu_np.cli import main

SCRIPT = Path(sys.executable).with_name("nalu-np")
PROGRAM = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "nalu_np"]
QUICK = ("--seeds", 8)
NALU = ("--unit", "nalu", "--seeds", 8, "--steps", 3000)
KEYS = {
    *("formula", "exact", "train_mse", "valid_mse", "test_mse", "formula_test_mse"),
    *("seeds", "agree", "warnings", "model", "seconds"),
}


def environment(**more):
    """As a user has it: no variable of this test run decides how the output is buffered or encoded."""
    drop = {"PYTHONUNBUFFERED", "PYTHONWARNINGS", VARIABLE}
    return {n: v for n, v in os.environ.items() if n not in drop} | {"PYTHONIOENCODING": "utf-8"} | more


@dataclass
class Ran:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


def program(*arguments, cwd, env=None, prefix=(), **more):
    """The installed program, in a process of its own."""
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **more}
    command = [*prefix, *PROGRAM, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env=environment(**env or {}), encoding="utf-8", timeout=120, check=False, **more
    )
    return Ran(done.returncode, done.stdout or "", done.stderr or "")


def table(path, header, *columns):
    """A CSV file of these columns, each number to the last bit."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(np.column_stack(columns).tolist())
    return path


def law(path, f, low=1.0, high=2.0, rows=200, seed=0, header=("a", "b", "y")):
    """A table of y = f(a, b), a and b uniform."""
    a, b = np.random.default_rng(seed).uniform(low, high, (2, rows))
    return table(path, header, a, b, f(a, b))


def product(a, b):
    return a * b


def contents(folder):
    """Every file of a folder, with what is in it."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """The same as `program`, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        try:
            status = main([*map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a model of a * b, tables inside and outside its range, and what fit printed."""
    folder = tmp_path_factory.mktemp("fitted")
    law(folder / "train.csv", product)
    law(folder / "other.csv", product, 2, 6, 40, seed=1)
    ran = program(
        *("fit", "train.csv", "--target", "y", "--test", "other.csv", *QUICK, "--out", "model.npz"), cwd=folder
    )
    assert (ran.status, ran.err) == (0, "")
    return folder, ran


def copy(folder, here, *names):
    for name in names:
        shutil.copy(folder / name, here / name)


def one_json(ran):
    """The one JSON object on stdout; NaN and infinity are refused, as JSON does."""

    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    assert (ran.status, ran.err) == (0, "")
    assert len(ran.lines) == 1
    report = json.loads(ran.out, parse_constant=refuse)
    assert report.keys() >= KEYS
    assert isinstance(report["warnings"], list)
    return report


# --- the default laws -------------------------------------------------------------------------------------------

LAWS = {
    "a + b": np.add,
    "a - b": np.subtract,
    "a * b": np.multiply,
    "a / b": np.divide,
    "a^0.5": lambda a, b: np.sqrt(a),
}


@pytest.mark.parametrize("formula", LAWS)
def test_default_settings_solve_each_law(formula, tmp_path):
    law(tmp_path / "train.csv", LAWS[formula], rows=2000)
    law(tmp_path / "test.csv", LAWS[formula], 2, 6, 500, seed=1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ran = program("fit", "train.csv", "--target", "y", "--test", "test.csv", "--json", cwd=tmp_path)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    report = one_json(ran)
    assert report["formula"] == formula
    assert report["exact"] is True
    assert math.sqrt(report["formula_test_mse"]) <= 1e-14
    assert report["test_mse"] < 1
    assert report["seeds"] == 64
    assert report["agree"] > 0
    assert report["model"] is None
    assert used <= 15  # seconds of two cores; it takes about one, most of it to start


# --- the demonstration ------------------------------------------------------------------------------------------


def test_without_arguments_fit_learns_from_the_small_bodies_and_predicts_the_giants(tmp_path):
    ran = program("fit", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "    escape_velocity = mass^0.5 * radius^-0.5" in ran.lines
    assert "left out, without a number: name, source" in ran.lines
    assert re.search(r"^    about: off by 0\.\d+% of the target's standard deviation", ran.out, re.MULTILINE)
    assert "exact" not in ran.out
    jupiter = next(line for line in ran.lines if line.startswith("  Jupiter")).split()
    assert jupiter[1] == "5.32"
    assert float(jupiter[3]) == pytest.approx(5.32, rel=0.01)
    assert contents(tmp_path) == {}


def test_the_demonstration_as_json(call, tmp_path):
    report = one_json(call("fit", "--json", "--seeds", 16))
    assert report["target"] == "escape_velocity"
    assert report["features"] == ["mass", "radius"]
    assert report["exact"] is False
    assert report["left_one_out"] is True
    assert all(report[key] > 0 for key in ("train_mse", "valid_mse", "test_mse", "seconds"))
    assert report["model"] is None
    assert contents(tmp_path) == {}


# --- exact, about, or no formula --------------------------------------------------------------------------------


def test_the_report_of_an_exact_law(fitted):
    _, ran = fitted
    assert ran.lines[0] == "train.csv: 200 rows, y from a, b"
    assert "    y = a * b" in ran.lines
    assert re.search(
        r"^    exact: off by \S+ of the target's standard deviation on rows not trained on$", ran.out, re.MULTILINE
    )
    assert "    the network computes about a * b" in ran.lines
    assert re.search(r"^  test, outside the range +40 +\S+ +\S+$", ran.out, re.MULTILINE)
    assert "other.csv" in ran.out
    assert "  ... and 35 more" in ran.lines
    assert len(re.findall(r"^  line \d+ ", ran.out, re.MULTILINE)) == 5
    assert re.search(
        r"^100% of 8 seeds agree on a \* b \(product path, each seed .*, [\d.]+ s\)$", ran.out, re.MULTILINE
    )
    assert ran.lines[-1] == "written: model.npz"
    assert "warning" not in ran.out


@pytest.mark.parametrize(
    ("name", "f"),
    {
        "noise of 1e-3": lambda a, b: a * b + np.random.default_rng(5).normal(0, 1e-3, len(a)),
        "noise of 1e-5": lambda a, b: a * b + np.random.default_rng(5).normal(0, 1e-5, len(a)),
        "a factor near 1": lambda a, b: 1.00001 * a * b,
        "one wrong row": lambda a, b: a * b + 1e-3 * (np.arange(len(a)) % 11 == 3),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_law_that_does_not_quite_hold_is_about_and_never_exact(name, f, call, tmp_path):
    law(tmp_path / "train.csv", f)
    ran = call("fit", "train.csv", "--target", "y", *QUICK)
    assert (ran.status, ran.err) == (0, "")
    assert "    y = a * b" in ran.lines
    note = re.search(r"^    about: off by ([\d.e-]+)% of the target's", ran.out, re.MULTILINE)
    assert 0 < float(note[1]) < 1
    assert "exact" not in ran.out


def test_a_formula_that_misses_the_test_alone_is_about_and_says_where(call, tmp_path):
    law(tmp_path / "train.csv", product)
    law(tmp_path / "test.csv", lambda a, b: 1.0001 * a * b, 2, 6)
    ran = call("fit", "train.csv", "--target", "y", "--test", "test.csv", *QUICK)
    assert "    y = a * b" in ran.lines
    assert re.search(r"^    about: off by 0\.\d+% of .* on the test rows$", ran.out, re.MULTILINE)
    law(tmp_path / "test.csv", lambda a, b: a + b, 2, 6)
    report = one_json(call("fit", "train.csv", "--target", "y", "--test", "test.csv", *QUICK, "--json"))
    assert report["exact"] is False
    assert report["warnings"]


def test_a_hopeless_law_ends_well_with_a_warning(call, tmp_path):
    law(tmp_path / "train.csv", lambda a, b: np.sin(3 * a) + b)
    arguments = ("fit", "train.csv", "--target", "y", *QUICK)
    report = one_json(call(*arguments, "--json"))
    assert report["exact"] is False
    assert report["test_mse"] is report["formula_test_mse"] is None
    assert "misses rows not trained on" in report["warnings"][0]
    ran = call(*arguments)
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"^    no formula: ", ran.out, re.MULTILINE)
    assert [f"warning: {warning}" for warning in report["warnings"]] == ran.lines[-len(report["warnings"]) :]


def test_without_a_formula_it_is_null_and_a_dash(call, tmp_path):
    """The network finds these constants; snapped they are far off."""
    law(tmp_path / "train.csv", lambda a, b: 0.3 * a + 0.7 * b)
    arguments = (
        "fit",
        "train.csv",
        "--target",
        "y",
        "--test",
        "train.csv",
        "--unit",
        "nac",
        "--seeds",
        8,
        "--steps",
        3000,
    )
    report = one_json(call(*arguments, "--json"))
    assert report["formula"] is report["formula_valid_mse"] is report["formula_test_mse"] is None
    assert report["exact"] is False
    assert report["test_mse"] < 1e-4
    assert report["warnings"]
    ran = call(*arguments)
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"^    no formula: .* does not hold, see the warnings below$", ran.out, re.MULTILINE)
    assert re.search(r"^  held out +40 +\S+ +-$", ran.out, re.MULTILINE)
    assert re.search(r"^  line 2 +\S+ +\S+ +-$", ran.out, re.MULTILINE)


def test_a_constant_that_no_weight_can_express_comes_with_a_warning(call, tmp_path):
    law(tmp_path / "train.csv", lambda a, b: 3.7 * a * b)
    law(tmp_path / "test.csv", lambda a, b: 3.7 * a * b, 2, 6)
    arguments = ("fit", "train.csv", "--target", "y", "--test", "test.csv", *QUICK)
    report = one_json(call(*arguments, "--json"))
    assert report["exact"] is False
    assert report["warnings"] == [
        f"these rows say more than {report['snapped']}: 3.7 * a * b fits them; try --scale"
    ]
    out = call(*arguments).out
    assert "exact" not in out
    assert re.search(r"^    no formula: ", out, re.MULTILINE)


def test_a_target_that_does_not_vary_has_no_size_to_compare_errors_with(call, tmp_path):
    law(tmp_path / "train.csv", lambda a, b: 0 * a + 5)
    ran = call("fit", "train.csv", "--target", "y", "--seeds", 2)
    assert (ran.status, ran.err) == (0, "")
    assert "inf%" not in ran.out
    assert "nan" not in ran.out.lower().replace("nalu", "")
    assert re.search(r"no formula", ran.out)


def test_seeds_that_all_diverge_leave_nothing_behind(call, tmp_path):
    law(tmp_path / "train.csv", product)
    arguments = (
        "fit",
        "train.csv",
        "--target",
        "y",
        "--unit",
        "nalu",
        "--seeds",
        2,
        "--steps",
        20,
        "--lr",
        "1e39",
        "--out",
        "m.npz",
    )
    before = contents(tmp_path)
    ran = call(*arguments)
    assert ran.status == 0
    assert "no formula" in ran.out
    assert "every seed diverged" in ran.out
    assert ran.lines[-1].startswith("nothing was written")
    report = one_json(call(*arguments, "--json"))
    assert report["formula"] is report["model"] is None
    assert report["diverged"] == 2
    assert contents(tmp_path) == before


# --- the race and its options -----------------------------------------------------------------------------------


def test_options_that_the_race_does_not_heed_are_said(call, tmp_path):
    law(tmp_path / "train.csv", product, rows=30)
    ran = call("fit", "train.csv", "--target", "y", "--steps", 5, "--lr", 0.1)
    assert ran.status == 0
    assert ran.err == (
        "nalu-np: warning: --steps, --lr: only units trained by gradients heed it, such as --unit nalu; "
        "auto needs none\n"
    )
    assert call("fit", "train.csv", "--target", "y", "--steps", 5, "--compare", "nac").err == ""


def test_a_constant_is_found_written_and_used(call, tmp_path):
    law(tmp_path / "train.csv", lambda a, b: 3.7 * a * b)
    law(tmp_path / "test.csv", lambda a, b: 3.7 * a * b, 2, 6)
    arguments = ("fit", "train.csv", "--target", "y", "--test", "test.csv", "--scale", "--out", "m.npz", *QUICK)
    ran = call(*arguments)
    assert (ran.status, ran.err) == (0, "")
    assert "    y = 3.7 * a * b" in ran.lines
    assert re.search(r"^    exact: off by ", ran.out, re.MULTILINE)
    assert "    the network computes about 3.7 * a * b" in ran.lines
    for flags in ((), ("--formula",)):
        used = call("predict", "m.npz", "test.csv", *flags)
        rows = np.array([[float(cell) for cell in line.split(",")] for line in used.lines[1:]])
        np.testing.assert_allclose(rows[:, 2], 3.7 * rows[:, 0] * rows[:, 1], rtol=1e-9)


def test_units_of_the_paper_stand_beside(call, tmp_path):
    law(tmp_path / "train.csv", product, rows=60)
    arguments = ("fit", "train.csv", "--target", "y", "--compare", "nalu, nac", "--steps", 20, *QUICK)
    report = one_json(call(*arguments, "--json"))
    assert [candidate["unit"] for candidate in report["candidates"]] == ["sum", "product", "nalu", "nac"]
    assert report["unit"] == "product"
    ran = call(*arguments)
    for start in ("  sum path", "* product path", "  nalu", "  nac"):
        assert len([line for line in ran.lines if line.startswith(start + " ")]) == 1
    assert "  the product path was taken: of the two paths, only its formula holds" in ran.lines


@pytest.mark.parametrize("name", cli.DEMOS)
def test_every_demonstration(name, call, tmp_path):
    ran = call("fit", "--demo", name, "--scale")
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"^    \w+ = ", ran.out, re.MULTILINE)
    assert "test, outside the range" in ran.out
    assert "test, inside the range" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--demo", "boyle", "--target", "y"), "--target, --features and --test need a table"),
        (("train.csv", "--demo", "boyle"), "--demo brings its own table; leave one of them out"),
        (("--unit", "nalu", "--scale"), "nalu has no constant; choose auto, sum or product"),
        (("--layers", 2), "auto has one layer; choose nalu, nac or lognac for more"),
        (("--compare", "sum"), "what it is compared with is one of nalu, nac, lognac, got 'sum'"),
        (("--plot", "fit.txt"), "fit.txt"),
        (("--plot", "nowhere/fit.png"), "nowhere/fit.png"),
    ],
)
def test_options_that_do_not_go_together(arguments, words, call, tmp_path):
    law(tmp_path / "train.csv", product, rows=30)
    before = contents(tmp_path)
    ran = call("fit", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert words in ran.err
    assert contents(tmp_path) == before


def test_the_picture(call, tmp_path):
    ran = call("fit", "--plot", "fit.png", "--seeds", 4)
    assert (ran.status, ran.err) == (0, "")
    assert ran.lines[-1] == "drawn: fit.png"
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
    again = call("fit", "--plot", "fit.png", "--seeds", 4)
    assert again.status == 2
    assert "it is there already" in again.err
    report = one_json(call("fit", "--plot", "fit.svg", "--seeds", 4, "--json"))
    assert report["formula"] == "mass^0.5 * radius^-0.5"
    assert (tmp_path / "fit.svg").read_text(encoding="utf-8").startswith("<?xml")


# --- options of fit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layers", 2], "2 layers of NALU"),
        (["--unit", "nac"], "NAC"),
        (["--unit", "lognac"], "LogNAC"),
        (["--dtype", "float64"], "NALU"),
        (["--batch", 7], "NALU"),
        (["--lr", "0.5"], "NALU"),
        (["--seed", 12], "NALU"),
        (["--seeds", 70], "of 70 seeds"),
        (["--features", " b , a "], "y from b, a"),
        (["--features", "a"], "y from a"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_an_option_does_its_work(options, said, call, tmp_path):
    law(tmp_path / "train.csv", product, rows=60)
    base = {"--unit": "nalu", "--seeds": 2, "--steps": 30} | dict([options])
    flat = [str(part) for pair in base.items() for part in pair]
    ran = call("fit", "train.csv", "--target", "y", *flat, "--out", "model.npz")
    assert (ran.status, ran.err) == (0, "")
    assert said in ran.out
    layer, params, meta = nn.load(tmp_path / "model.npz")
    assert layer.in_features == len(meta["features"])
    assert {value.dtype.name for value in params.values()} == {"float64" if "float64" in options else "float32"}
    assert isinstance(layer, nn.layer.Chain) == ("--layers" in options)
    assert call("predict", "model.npz", "train.csv").status == 0


def test_equal_options_give_equal_files_and_others_do_not(call, tmp_path):
    law(tmp_path / "train.csv", product, rows=60)
    files = []
    for more in ([], [], ["--seed", 1], ["--batch", 7], ["--lr", 0.1], ["--steps", 31]):
        arguments = (
            "fit",
            "train.csv",
            "--target",
            "y",
            "--unit",
            "nalu",
            "--seeds",
            2,
            "--steps",
            30,
            *more,
            "--out",
            "model.npz",
        )
        assert call(*arguments).status == 0
        files.append((tmp_path / "model.npz").read_bytes())
    assert files[0] == files[1]
    assert len(set(files)) == len(files) - 1


def test_the_file_as_people_have_it(call, tmp_path):
    """A byte order mark, quotes, blank lines, spaces, and columns that are no numbers."""
    rows = "".join(f'"{i / 10 + 1}", text ,{i},"{(i / 10 + 1) * i}"\r\n\r\n' for i in range(1, 25))
    text = '\r\n"mass"," my, note ",b,"y"\r\n' + rows
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    ran = call("fit", "train.csv", "--target", "y", *QUICK)
    assert ran.status == 0
    assert ran.lines[:2] == ["train.csv: 24 rows, y from mass, b", "left out, without a number: my, note"]


def test_few_rows_are_left_out_one_at_a_time(call, tmp_path):
    law(tmp_path / "train.csv", product, rows=6)
    ran = call("fit", "train.csv", "--target", "y", "--seeds", 4)
    assert (ran.status, ran.err) == (0, "")
    assert ran.lines[0] == "train.csv: 6 rows, y from a, b"
    assert ran.lines[1].startswith("too few rows to hold any out")
    assert re.search(r"^  left out one at a time +6 ", ran.out, re.MULTILINE)


def test_a_wide_table_does_not_flood_the_report(call, tmp_path):
    names = [f"column_{i}" for i in range(999)]
    table(tmp_path / "wide.csv", [*names, "y"], *np.random.default_rng(0).uniform(1, 2, (1000, 25)))
    ran = call("fit", "wide.csv", "--target", "y", "--seeds", 2)
    assert (ran.status, ran.err) == (0, "")
    lines = [line for line in ran.lines if not line.startswith("warning")]
    assert max(map(len, lines)) < 600
    assert ran.lines[0].endswith("…")
    missing = call("fit", "wide.csv").err
    assert "column_0, column_1" in missing
    assert len(missing) < 300


def test_an_unusual_target_name_and_a_test_of_many_kinds_of_rows(call, tmp_path):
    law(tmp_path / "train.csv", product, header=("a", "b", "größe"))
    (tmp_path / "test.csv").write_text(
        "name,a,b,größe,left\ninner,1.5,1.5,2.25,1\nzero,0,3,0,?\nouter,4,5,20,\n", encoding="utf-8"
    )
    ran = call("fit", "train.csv", "--target", "größe", "--test", "test.csv", *QUICK)
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"^  test, inside the range +1 ", ran.out, re.MULTILINE)
    assert re.search(r"^  test, outside the range +2 ", ran.out, re.MULTILINE)
    assert re.search(r"^test.csv +größe +network +formula$", ran.out, re.MULTILINE)
    assert [line.split()[0] for line in ran.lines if re.match("  (inner|zero|outer) ", line)] == [
        *("inner", "zero", "outer")
    ]


def test_what_is_undefined_is_said_and_is_null(call, tmp_path):
    law(tmp_path / "train.csv", np.divide)
    (tmp_path / "test.csv").write_text("a,b,y\n4,0,1\n", encoding="utf-8")
    arguments = ("fit", "train.csv", "--target", "y", "--test", "test.csv", *QUICK)
    report = one_json(call(*arguments, "--json"))
    assert report["snapped"] == "a / b"
    assert report["exact"] is False
    assert report["formula_test_mse"] is None
    assert "no finite value" in " ".join(report["warnings"])
    ran = call(*arguments)
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"no formula|undefined", ran.out)
    assert " inf" not in ran.out


def test_what_overflows_is_undefined_and_null(call, tmp_path):
    law(tmp_path / "train.csv", product)
    (tmp_path / "test.csv").write_text("a,b,y\n1e300,1e300,1\n", encoding="utf-8")
    arguments = ("fit", "train.csv", "--target", "y", "--test", "test.csv", *QUICK)
    report = one_json(call(*arguments, "--json"))
    assert report["exact"] is False
    assert report["test_mse"] is report["formula_test_mse"] is None
    assert report["warnings"]
    ran = call(*arguments)
    assert re.search(r"^  line 2 +1 +undefined ", ran.out, re.MULTILINE)
    assert " inf" not in ran.out


# --- the terminal -----------------------------------------------------------------------------------------------


def on_terminal(*arguments, cwd, stream="stderr", interrupt=None):
    """Run with one stream on a terminal: the status, what the terminal shows, and what the other stream says.

    With `interrupt`, Ctrl-C is pressed once that has been shown.
    """
    ours, theirs = pty.openpty()
    other = {"stderr": "stdout", "stdout": "stderr"}[stream]
    # A shell's background job ignores Ctrl-C, and so would the program that it starts.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            **{stream: theirs, other: subprocess.PIPE},
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env=environment(),
        )
    finally:
        signal.signal(signal.SIGINT, handler)
        os.close(theirs)
    shown = b""
    with process, os.fdopen(ours, "rb", buffering=0) as screen:
        deadline = time.monotonic() + 60
        while select.select([screen], [], [], max(deadline - time.monotonic(), 0))[0]:
            try:
                part = screen.read(4096)
            except OSError:  # how Linux says that the other side has closed
                part = b""
            if not part:
                break
            shown += part
            if interrupt is not None and interrupt in shown:
                process.send_signal(signal.SIGINT)
                interrupt = None
        else:
            process.kill()
        rest = getattr(process, other).read()
    return process.returncode, shown.decode(), rest.decode()


def test_progress_on_a_terminal_leaves_an_empty_line(tmp_path):
    law(tmp_path / "train.csv", product)
    arguments = ("fit", "train.csv", "--target", "y", "--unit", "nalu", "--seeds", 2, "--steps", 2500)
    status, shown, report = on_terminal(*arguments, cwd=tmp_path)
    assert status == 0
    steps = [part.strip() for part in shown.split("\r") if part.strip()]
    assert steps == [f"training: step {step} of 2,500" for step in ("1,000", "2,000", "2,500")]
    assert re.search(r"\r +\r$", shown)
    assert report.startswith("train.csv: 200 rows")
    status, shown, report = on_terminal(*arguments, "--json", cwd=tmp_path)
    assert (status, shown) == (0, "")
    assert json.loads(report)["seeds"] == 2


def test_ctrl_c_while_training_stops_with_one_line_and_no_file(tmp_path):
    law(tmp_path / "train.csv", product)
    before = contents(tmp_path)
    status, shown, report = on_terminal(
        *(
            "fit",
            "train.csv",
            "--target",
            "y",
            "--unit",
            "nalu",
            "--seeds",
            2,
            "--steps",
            10**9,
            "--out",
            "model.npz",
        ),
        cwd=tmp_path,
        interrupt=b"training: step 2,000",
    )
    assert status == 130
    assert shown.rpartition("\r ")[2].strip().rpartition("\r")[2] == "nalu-np: interrupted; nothing was written"
    assert report == ""
    assert contents(tmp_path) == before


HOSTILE = ["red\x1b[31m", "two\nlines", "a,b]", "\u202egnp", "y\x07"]


def test_hostile_column_names_do_nothing_to_the_terminal(tmp_path, call):
    a, b, c, d = np.random.default_rng(0).uniform(1, 2, (4, 60))
    table(tmp_path / "train.csv", HOSTILE, a, b, c, d, np.sin(3 * a) + b)
    fit = ("fit", "train.csv", "--target", HOSTILE[-1], "--seeds", 4)
    ran = call(*fit, "--test", "train.csv", "--out", "model.npz")
    assert ran.status == 0
    assert "warning" in ran.out
    assert all(character.isprintable() for character in ran.out.replace("\n", ""))
    assert r"red\x1b[31m, two\nlines, a,b], \u202egnp" in ran.lines[0]
    assert all(re.match(r"[ \w.%*]|$", line) for line in ran.lines)
    report = one_json(call(*fit, "--json"))
    assert report["features"] == HOSTILE[:-1]

    for arguments in (
        ("fit", "train.csv"),
        ("fit", "train.csv", "--target", "z"),
        ("predict", "model.npz", "x\x1b"),
    ):
        err = call(*arguments).err
        assert len(err.splitlines()) == 1
        assert err.rstrip("\n").isprintable()

    piped = program("predict", "model.npz", "train.csv", cwd=tmp_path).out
    assert next(csv.reader(io.StringIO(piped, newline=""))) == [*HOSTILE[:-1], "predicted y\x07"]
    status, shown, _ = on_terminal("predict", "model.npz", "train.csv", cwd=tmp_path, stream="stdout")
    assert status == 0
    assert r'red\x1b[31m,two\nlines,"a,b]",\u202egnp,predicted y\x07' in shown
    assert re.sub(r"[\r\n]", "", shown).isprintable()


def test_a_name_that_the_output_cannot_encode_is_escaped(tmp_path):
    law(tmp_path / "train.csv", product, rows=30, header=("Δ", "b", "y"))
    arguments = ("fit", "train.csv", "--target", "y", "--seeds", 1)
    ran = program(*arguments, cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert (ran.status, ran.err) == (0, "")
    assert ran.lines[0] == r"train.csv: 30 rows, y from \u0394, b"


# --- where the output goes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["info"], ["check", "--examples", 1]], ids=str)
def test_a_reader_that_leaves_is_not_an_error(arguments, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = program(*arguments, cwd=tmp_path, stdout=writing)
    finally:
        os.close(writing)
    assert (ran.status, ran.err) == (0, "")


def test_the_first_line_alone(fitted):
    folder, _ = fitted
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -1', "sh", *PROGRAM, "predict", "model.npz", "train.csv"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("a,b,predicted y\n", "")


def test_a_reader_that_leaves_in_this_process(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["info"]) == 0


@pytest.mark.parametrize(
    "arguments", [["--help"], ["info"], ["predict", "model.npz", "other.csv"]], ids=lambda a: a[0]
)
def test_a_full_disk_behind_stdout(arguments, fitted, capsys, monkeypatch):
    folder, _ = fitted
    with open("/dev/full", "w") as full:
        ran = program(*arguments, cwd=folder, stdout=full)
    outcomes = [ran]
    monkeypatch.chdir(folder)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        outcomes.append(Ran(main(arguments), "", capsys.readouterr().err))
    for ran in outcomes:
        assert ran.status == 2
        assert ran.err == "nalu-np: the output cannot be written: No space left on device\n"


def test_without_any_stdout_or_stderr(fitted, monkeypatch):
    folder, _ = fitted
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "predict", "model.npz", "other.csv"],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["info"]) == 0
    sys.stdout.close()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["info"]) == 0
    assert sys.stdout.getvalue().startswith("nalu_np ")


# --- predict ----------------------------------------------------------------------------------------------------


def read_csv(text):
    header, *rows = csv.reader(io.StringIO(text))
    return header, np.array(rows, np.float64)


def test_what_predict_prints_is_what_the_library_computes(fitted, call, tmp_path):
    folder, _ = fitted
    copy(folder, tmp_path, "model.npz", "other.csv")
    layer, params, meta = nn.load(tmp_path / "model.npz")
    assert (meta["target"], meta["features"], meta["exact"]) == ("y", ["a", "b"], True)
    network = program("predict", "model.npz", "other.csv", cwd=tmp_path)
    assert (network.status, network.err) == (0, "")
    assert call("predict", "model.npz", "other.csv") == network
    header, rows = read_csv(network.out)
    assert header == ["a", "b", "predicted y"]
    _, given = read_csv((tmp_path / "other.csv").read_text(encoding="utf-8"))
    assert np.array_equal(rows[:, :2], given[:, :2])
    assert np.array_equal(rows[:, 2], learn.predict(layer, params, rows[:, :2]))
    double = {name: value.astype(np.float64) for name, value in params.items()}
    assert np.array_equal(rows[:, 2], layer(double, rows[:, :2])[0][:, 0])

    before = contents(tmp_path)
    ran = call("predict", "model.npz", "other.csv", "--formula", "--out", "predictions.csv")
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert contents(tmp_path).keys() - before.keys() == {tmp_path / "predictions.csv"}
    header, rows = read_csv((tmp_path / "predictions.csv").read_text(encoding="utf-8"))
    assert header == ["a", "b", "predicted y"]
    assert np.array_equal(rows[:, 2], given[:, 0] * given[:, 1])
    formula = nn.formula(layer, params, given[:, :2], names=meta["features"])
    assert np.array_equal(rows[:, 2], formula(given[:, :2])[:, 0])


def test_predict_needs_only_the_features(fitted, call, tmp_path):
    copy(fitted[0], tmp_path, "model.npz")
    (tmp_path / "t.csv").write_text("note,b,,a,y\nx,2,,3,1\ny,4,,5,?\n", encoding="utf-8")
    ran = call("predict", "model.npz", "t.csv", "--formula")
    assert (ran.status, ran.err) == (0, "")
    assert ran.lines == ["a,b,predicted y", "3.0,2.0,6.0", "5.0,4.0,20.0"]


def test_a_model_is_replaced_by_a_model(fitted, tmp_path):
    copy(fitted[0], tmp_path, "model.npz", "train.csv")
    before = (tmp_path / "model.npz").read_bytes()
    arguments = ("fit", "train.csv", "--target", "y", "--unit", "sum", "--json", "--out", "model.npz")
    report = one_json(program(*arguments, cwd=tmp_path))
    assert report["model"] == "model.npz"
    assert (tmp_path / "model.npz").read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"model.npz", "train.csv"}
    assert program("predict", report["model"], "train.csv", cwd=tmp_path).status == 0


NOTES = {
    "target": "y",
    "features": ["a", "b"],
    "formula": [["product", [[1.0, "a"], [-1.0, "b"]]]],
    "exact": False,
    "branch": [0.0],
}


def by_hand(path, gate=(-50.0, 0.0), **notes):
    """A model of a / b whose gate is made by hand."""
    params = {"W_hat": np.array([[9.0], [-9.0]]), "M_hat": np.full((2, 1), 30.0), "G": np.array([gate]).T}
    nn.save(path, nn.NALU(2, 1), params, {**NOTES, **notes})


def test_rows_without_a_finite_prediction_have_an_empty_cell(call, tmp_path):
    by_hand(tmp_path / "model.npz")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,0\n", encoding="utf-8")
    ran = call("predict", "model.npz", "t.csv", "--formula")
    assert ran.status == 0
    assert ran.lines == ["a,b,predicted y", "1.0,2.0,0.5", "1.0,0.0,"]
    assert ran.err == "nalu-np: warning: 1 rows have no finite prediction; their cells are empty\n"


def test_predict_warns_where_the_gate_drifts(call, tmp_path):
    by_hand(tmp_path / "model.npz")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n-1,2\n-2,2\n", encoding="utf-8")
    ran = call("predict", "model.npz", "t.csv")
    assert ran.status == 0
    assert len(ran.lines) == 4
    assert ran.err == "nalu-np: warning: the network's gate drifts in 2 of 3 rows; do not trust it there\n"
    (tmp_path / "t.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert call("predict", "model.npz", "t.csv").err == ""


def test_a_formula_of_every_kind_of_node_survives_the_file(call, tmp_path):
    tree = ["sum", [[-0.5, ["abs", ["sum", [[1.0, "a"], [-1.0, "b"]]]]], [1, ["product", [[0.5, "a"], [2, "b"]]]]]]
    by_hand(tmp_path / "model.npz", formula=[tree])
    (tmp_path / "t.csv").write_text("a,b\n4,6\n", encoding="utf-8")
    ran = call("predict", "model.npz", "t.csv", "--formula")
    assert (ran.status, ran.lines[1:]) == (0, ["4.0,6.0,71.0"])


# --- check and info ---------------------------------------------------------------------------------------------


def test_check_prints_a_line_for_each_layer(call):
    ran = call("check", "--examples", 2)
    assert (ran.status, ran.err) == (0, "")
    layers = checks.registered_layers()
    assert len(ran.lines) == len(layers) + 1
    for layer, line in zip(layers, ran.lines, strict=False):
        assert re.fullmatch(rf"ok    {re.escape(repr(layer))}: 2 examples, largest error \S+ in d\S+", line)
    assert ran.lines[-1] == f"{len(layers)} of {len(layers)} layers pass on numpy"


class Wrong(nn.NAC):
    """A NAC whose gradient is off by a thousandth."""

    def forward(self, params, x, **more):
        y, vjp = super().forward(params, x, **more)
        return y, lambda dy, need_dx=True: vjp(1.001 * dy, need_dx)


def test_check_tells_a_wrong_layer(call, monkeypatch):
    monkeypatch.setattr(checks, "REGISTRY", {"NAC": nn.NAC, "Wrong": Wrong})
    ran = call("check", "--examples", 2)
    assert (ran.status, ran.err) == (1, "")
    marks = [line[:4] for line in ran.lines[:-1]]
    assert (marks.count("ok  "), marks.count("FAIL")) == (3, 3)
    assert any(re.match(r"FAIL  Wrong\(2, 1\): d\w+ is not the derivative", line) for line in ran.lines)
    assert ran.lines[-1] == "3 of 6 layers pass on numpy"


def test_info(call, tmp_path):
    ran = program("info", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert call("info") == ran
    assert [line.split()[0] for line in ran.lines] == [
        "nalu_np",
        "python",
        "numpy",
        "backend",
        "device",
        "threads",
    ]
    assert ran.lines[0].split() == ["nalu_np", nn.__version__]
    assert ran.lines[2].split() == ["numpy", np.__version__]
    assert f"backend  numpy ({VARIABLE} is not set)" in ran.lines
    assert re.fullmatch(r"threads  \d+ cores usable; for BLAS 1", ran.lines[-1])
    free = program(
        "info", cwd=tmp_path, env={"OMP_NUM_THREADS": "", "OPENBLAS_NUM_THREADS": "", VARIABLE: "numpy"}
    )
    assert "for BLAS as many as it likes" in free.out
    assert f"({VARIABLE} is numpy)" in free.out


def test_info_on_a_gpu(call, monkeypatch):
    runtime = types.SimpleNamespace(getDeviceProperties=lambda number: {"name": f"Device {number}".encode()})
    cuda = types.SimpleNamespace(runtime=runtime, Device=lambda: types.SimpleNamespace(id=3))
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(__version__="99.0", cuda=cuda))
    monkeypatch.setattr(cli, "get_backend", lambda: "cupy")
    ran = call("info")
    assert "cupy     99.0" in ran.lines
    assert "device   Device 3" in ran.lines


# --- help and other ways in -------------------------------------------------------------------------------------

OPTIONS = {
    (): ["fit", "predict", "list", "run", "report", "check", "bench", "info", "--version"],
    ("list",): [],
    ("run",): ["NAME", "--quick", "--full", "--seeds", "--workers", "--dask", "--out", "--resume"],
    ("report",): ["DIR"],
    ("bench",): ["--case", "--peers", "--backend", "--rounds", "--json", "A-nac", "jax", "(default: 5)"],
    ("fit",): [
        *("TRAIN.csv", "--target", "--features", "--test", "--unit", "--layers", "--seeds", "--steps", "--lr"),
        *("--scale", "--compare", "--plot", "--demo", "planets", "boyle", "moons", "sum", "product"),
        *("--batch", "--dtype", "--seed", "--out", "--json", "lognac", "float64"),
        *("(default: auto)", "(default: 64)", "(default: 20000)", "(default: 0.01)", "(default: float32)"),
    ],
    ("predict",): ["model.npz", "OTHER.csv", "--formula", "--out"],
    ("check",): ["--examples", "(default: 20)"],
    ("info",): [],
}


@pytest.mark.parametrize("command", OPTIONS, ids=str)
def test_help_lists_every_option(command, call, tmp_path):
    ran = call(*command, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(" ".join(["usage: nalu-np", *command]))
    text = " ".join(ran.out.split())
    for word in [*OPTIONS[command], "--help"]:
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text), word
    known = {option for action in actions(command) for option in action.option_strings}
    assert known <= {*re.findall(r"-[-\w]+", text)}


def actions(command):
    """What the parser of a command takes."""
    parser = cli.parser()
    for name in command:
        parser = next(a for a in parser._actions if isinstance(a.choices, dict)).choices[name]
    return parser._actions


def test_the_version(call):
    ran = call("--version")
    assert (ran.status, ran.lines) == (0, [f"nalu_np {nn.__version__}"])


def test_as_a_module(tmp_path, monkeypatch, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "nalu_np", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"nalu_np {nn.__version__}\n"
    monkeypatch.setattr(sys, "argv", ["nalu_np", "info"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("nalu_np", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("nalu_np ")


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_a_warning_of_the_library_is_one_line(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    monkeypatch.setenv(VARIABLE, "auto")
    here = call("info")
    (tmp_path / "cupy.py").write_text("raise ImportError('there is none')", encoding="utf-8")
    there = program("info", cwd=tmp_path, env={VARIABLE: "auto", "PYTHONPATH": str(tmp_path)})
    for ran in (here, there):
        assert ran.status == 0
        assert f"backend  numpy ({VARIABLE} is auto)" in ran.lines
        assert len(ran.err.splitlines()) == 1
        assert ran.err.startswith("nalu-np: warning: NALU_NP_BACKEND=auto: computing with NumPy, because CuPy")


def test_a_feature_whose_name_holds_a_comma_stands_in_quotes():
    assert cli._split('a, "mass, kg",b') == ["a", "mass, kg", "b"]
    assert cli._split("") == []
