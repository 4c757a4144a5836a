"""Bad input to the command line: one clear line, exit status 2 (130 for Ctrl-C), and every file as it was."""

import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_cli import NOTES, by_hand, call, contents, program

import nalu_np as nn
from nalu_np import cli, store
from nalu_np.backend import VARIABLE
from nalu_np.cli import main

__all__ = ["call"]  # a fixture

#: No training ends within the time that a test waits: whatever is refused is refused before.
ENDLESS = ("--unit", "nalu", "--steps", 10**9)
GOOD = b"a,b,y\n1,2,3\n2,3,5\n3,5,8\n"


def check_refused(ran, words, status=2):
    """One clear line on stderr, nothing on stdout."""
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.endswith("\n")
    assert len(ran.err.splitlines()) == 1, ran.err
    assert ran.err.startswith("nalu-np")
    assert "Traceback" not in ran.err
    assert ran.err.rstrip("\n").isprintable()
    for word in words:
        assert word in ran.err


@pytest.fixture
def refuse(call, tmp_path):
    """Run a command both ways, and check that it is refused and leaves the folder alone."""

    def run(*arguments, words):
        before = contents(tmp_path)
        there = program(*arguments, cwd=tmp_path)
        check_refused(there, words)
        assert contents(tmp_path) == before
        assert call(*arguments) == there
        assert contents(tmp_path) == before

    return run


# --- tables -----------------------------------------------------------------------------------------------------

WIDE = "\n".join(",".join(cells) for cells in ([f"c{i}" for i in range(1001)], ["1"] * 1001, ["2"] * 1001))
TABLES = {
    "missing": (None, ["t.csv: ", "No such file or directory"]),
    "a folder": ("folder", ["t.csv: ", "Is a directory"]),
    "empty": (b"", ["the file is empty"]),
    "blank": (b"\n  \n,,\n", ["the file is empty"]),
    "binary": (bytes(range(256)), ["binary data", "UTF-8"]),
    "not UTF-8": (b"a,b,y\n1,2,3\n4,5,\xe9\n", ["UTF-8", "line 3"]),
    "UTF-16": ("a,y\n1,2\n".encode("utf-16"), ["UTF-16", "UTF-8"]),
    "no header": (b"1,2,3\n4,5,6\n", ["no header", "column names"]),
    "only a header": (b"a,b,y\n", ["only a header"]),
    "duplicate headers": (b"a,a,y\n1,2,3\n", ["repeats 'a'"]),
    "no target": (b"a,b,z\n1,2,3\n", ["there is no column 'y'", "'a', 'b', 'z'"]),
    "text for a target": (b"a,b,y\n1,2,x\n2,3,z\n", ["'y' was left out", "'a', 'b'"]),
    "nothing but the target": (b"y\n1\n2\n", ["no column of numbers besides 'y'"]),
    "text in a numeric column": (b"a,b,y\n1,2,3\n4,five,6\n", ["line 3", "'b'", "'five' is not a number"]),
    "a blank cell": (b"a,b,y\n1,2,3\n,5,6\n", ["line 3", "'a'", "blank"]),
    "a short row": (b"a,b,y\n1,2,3\n4,5\n", ["line 3", "3 cells expected", "2 found"]),
    "a long row": (b"a,b,y\n1,2,3,4\n", ["line 2", "3 cells expected", "4 found"]),
    "NaN": (b"a,b,y\n1,2,3\n4,nan,6\n1,2,3\n1,NaN,3\n", ["line 3", "'b'", "'nan'", "line 5"]),
    "infinity": (b"a,b,y\n1,2,3\n4,5,-inf\n", ["line 3", "'y'", "'-inf'", "finite"]),
    "a decimal comma": (b'a,b,y\n"1,5",2,3\n"2,5",5,6\n', ["line 2", "'a'", "'1,5' holds a comma", "1.5"]),
    "semicolons": (b"a;b;y\n1;2;3\n", ["';'", "','"]),
    "an open quote": (b'a,b,y\n1,"2,3\n4,5,6\n', ["line 2", "quote"]),
    "one row": (b"a,b,y\n1,2,3\n", ["one row"]),
    "1e300": (b"a,b,y\n1,2,3\n2,1e300,5\n", ["line 3", "'b'", "1e+300", "float32", "float64"]),
    "1e400": (b"a,b,y\n1,2,3\n2,1e400,5\n", ["line 3", "'b'", "finite"]),
    "1,001 columns": (WIDE.encode(), ["1,001", "1,000"]),
}


@pytest.mark.parametrize(("content", "words"), TABLES.values(), ids=TABLES)
def test_a_bad_table_is_refused(content, words, refuse, tmp_path):
    if content == "folder":
        (tmp_path / "t.csv").mkdir()
    elif content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    refuse("fit", "t.csv", "--target", "y", *ENDLESS, words=["t.csv: ", *words])


@pytest.mark.parametrize("name", ["missing", "binary", "text in a numeric column", "no target", "infinity"])
def test_a_bad_table_for_the_test_is_refused_before_training(name, refuse, tmp_path):
    (tmp_path / "train.csv").write_bytes(GOOD)
    content, words = TABLES[name]
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    refuse("fit", "train.csv", "--target", "y", "--test", "t.csv", *ENDLESS, words=["t.csv: ", *words])


def test_a_value_too_large_for_float64_too(refuse, tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b,y\n1,2,3\n2,1e300,5\n")
    refuse("fit", "t.csv", "--target", "y", words=["line 3", "'b'", "rescale the column"])
    slow = ("--unit", "nalu", "--dtype", "float64")
    refuse("fit", "t.csv", "--target", "y", *slow, words=["line 3", "'b'", "rescale the column"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--target is missing", "a, b, y"]),
        (["--target", "z"], ["'z'", "choose among"]),
        (["--target", ""], ["''", "choose among"]),
        (["--target", "y", "--features", "a,c"], ["'c'", "choose among"]),
        (["--target", "y", "--features", "a,,b"], ["''", "choose among"]),
        (["--target", "y", "--features", "a,y"], ["differ from each other and from the target"]),
        (["--target", "y", "--features", "a,a"], ["differ from each other and from the target"]),
    ],
    ids=str,
)
def test_a_column_that_is_not_there_is_refused(options, words, refuse, tmp_path):
    (tmp_path / "t.csv").write_bytes(GOOD)
    refuse("fit", "t.csv", *options, *ENDLESS, words=words)


def test_a_column_for_the_demonstration_is_refused(refuse):
    for option in ("--target", "--features", "--test"):
        refuse("fit", option, "mass", *ENDLESS, words=["need a table"])
    refuse("fit", "--features", "", *ENDLESS, words=["need a table"])


# --- options ----------------------------------------------------------------------------------------------------

OPTIONS = [
    *((name, value, "whole number >= 1") for name in ("seeds", "steps", "batch") for value in ("0", "-1", "x")),
    *(("steps", value, "whole number >= 1") for value in ("1.5", "1e3", "", "nan", "²", "٣", "9" * 5000)),
    *(("seed", value, "whole number >= 0") for value in ("-1", "x")),
    *(("layers", value, "whole number from 1 to 8") for value in ("0", "-1", "two", "9")),
    *(("lr", value, "number > 0") for value in ("0", "-1", "x", "nan", "inf", "1e999", "")),
    *((name, "float16", "float16") for name in ("dtype", "unit")),
    *((name, "", "expected a path") for name in ("test", "out")),
]


@pytest.mark.parametrize(("name", "value", "word"), OPTIONS, ids=lambda value: value[:20])
def test_a_bad_value_of_an_option_is_refused(name, value, word, call, tmp_path):
    ran = call("fit", *ENDLESS, f"--{name}", value)
    check_refused(ran, [f"nalu-np fit: argument --{name}: ", word, "; see nalu-np fit --help"])
    assert len(ran.err) < 200


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["fit", "--nonsense"],
        ["fit", "t.csv", "more.csv"],
        ["fit", "", "--target", "y"],
        ["fit", "--steps"],
        ["fit", "--steps", "0"],
        ["fit", "--steps", "a\n\x1b[31m"],
        ["predict"],
        ["predict", "model.npz"],
        ["predict", "", ""],
        ["check", "--examples", "0"],
        ["info", "more"],
    ],
    ids=str,
)
def test_a_bad_command_is_refused(arguments, refuse):
    refuse(*arguments, words=["nalu-np", "--help"])


def test_an_unknown_backend_is_refused(fitted_files, monkeypatch, call):
    for arguments in (["fit"], ["check"], ["info"], ["predict", "model.npz", "t.csv"]):
        words = [VARIABLE, "numpy, cupy, auto", "'nonsense'"]
        check_refused(program(*arguments, cwd=fitted_files, env={VARIABLE: "nonsense"}), words)
        monkeypatch.setenv(VARIABLE, "nonsense")
        check_refused(call(*arguments), words)


# --- models -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fitted_files(tmp_path):
    """A folder with a model made by hand, and a table for it."""
    by_hand(tmp_path / "model.npz")
    (tmp_path / "t.csv").write_bytes(GOOD)
    return tmp_path


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "of somebody")


def arrays(path):
    np.savez(path, W_hat=np.ones((2, 1)))


def half(path):
    by_hand(path)
    path.write_bytes(path.read_bytes()[:-200])


FOREIGN = {
    "text": lambda path: path.write_text("some notes\n", encoding="utf-8"),
    "empty": lambda path: path.write_bytes(b""),
    "an archive": archive,
    "arrays": arrays,
    "half a model": half,
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_no_model_is_neither_read_nor_overwritten(make, refuse, tmp_path):
    (tmp_path / "t.csv").write_bytes(GOOD)
    make(tmp_path / "model.npz")
    refuse("predict", "model.npz", "t.csv", words=["model.npz: not a model file"])
    refuse(
        *("fit", "t.csv", "--target", "y", "--out", "model.npz", *ENDLESS),
        words=["model.npz: cannot be written: it is there already, and is not a model file"],
    )


def test_a_model_that_cannot_be_read(refuse, tmp_path):
    (tmp_path / "t.csv").write_bytes(GOOD)
    refuse("predict", "model.npz", "t.csv", words=["model.npz: cannot be read: No such file"])
    (tmp_path / "model.npz").mkdir()
    refuse("predict", "model.npz", "t.csv", words=["model.npz: cannot be read: it is a folder"])


def test_a_model_without_the_notes_of_fit(refuse, tmp_path):
    (tmp_path / "t.csv").write_bytes(GOOD)
    layer = nn.NAC(2, 1)
    nn.save(tmp_path / "model.npz", layer, layer.init())
    refuse("predict", "model.npz", "t.csv", words=["model.npz: its columns have no names", "nalu-np fit"])


def test_a_model_without_a_formula(refuse, fitted_files):
    by_hand(fitted_files / "model.npz", formula=None)
    refuse("predict", "model.npz", "t.csv", "--formula", words=["model.npz: it holds no formula", "--formula"])


def test_a_table_that_does_not_suit_the_model(refuse, fitted_files):
    (fitted_files / "t.csv").write_bytes(b"a,c\n1,2\n")
    refuse("predict", "model.npz", "t.csv", words=["t.csv: there is no column 'b'", "'a', 'c'"])
    (fitted_files / "t.csv").write_bytes(b"a,b\n1,2\n1,x\n")
    refuse("predict", "model.npz", "t.csv", "--out", "p.csv", words=["t.csv: line 3", "'b'", "'x'"])
    refuse("predict", "model.npz", "missing.csv", words=["missing.csv: "])


WRONG_NOTES = {
    "target": [None, 1, ["y"]],
    "features": [
        None,
        "ab",
        {"a": 1, "b": 2},
        [],
        ["a"],
        ["a", "b", "c"],
        ["a", "a"],
        ["a", "b", "b"],
        ["a", 2],
        ["a", ["b"]],
        7,
    ],
    "branch": [None, 0, "0", [], [0.0, 0.0], [0.5], [[0.0]], ["left"], [None], [10**400], {"0": 0.0}],
    "formula": [
        *(7, "a", {}, [], ["a", "b"], [None], [1.0], ["c"], [[]], [["abs"]], [["abs", "c"]], [["abs", "a", "b"]]),
        *(
            [["root", "a"]],
            [["sum", "a"]],
            [["sum", ["a"]]],
            [["sum", [[1.0, "a", "b"]]]],
            [["sum", [["a", 1.0]]]],
        ),
        *([["product", [[1.0, "c"]]]], [["product", [["1", "a"]]]], [["product", [[None, "a"]]]]),
        *([["product", [[10**400, "a"]]]], [["product", 5]], [[["sum"], [[1.0, "a"]]]], [{"sum": "a"}]),
    ],
}


@pytest.mark.parametrize(
    ("note", "value"), [(note, value) for note, values in WRONG_NOTES.items() for value in values], ids=str
)
@pytest.mark.parametrize("option", [[], ["--formula"]], ids=["network", "formula"])
def test_notes_that_are_not_those_of_fit_are_refused(note, value, option, call, fitted_files):
    by_hand(fitted_files / "model.npz", **{note: value})
    before = contents(fitted_files)
    ran = call("predict", "model.npz", "t.csv", *option, "--out", "p.csv")
    check_refused(ran, ["model.npz: its notes do not fit its network", "nalu-np fit"])
    assert contents(fitted_files) == before


@pytest.mark.parametrize(
    ("layer", "replicas", "branch"),
    [
        *((nn.NALU(2, 1), replicas, [0.0]) for replicas in (1, 3)),
        *((nn.NAC(2, 1), replicas, []) for replicas in (1, 3)),
        *((nn.NALU(3, 1), None, [0.0]), (nn.NALU(2, 2), None, [0.0, 0.0])),
        *((nn.NAC(2, 1), None, [0.0]), (nn.NAC(2, 2), None, [])),
        (nn.scan(nn.Accumulator(nn.NALU(2, 1))), None, [0.0]),
    ],
    ids=str,
)
def test_notes_of_another_network_are_refused(layer, replicas, branch, call, fitted_files):
    params = layer.init() if replicas is None else layer.init(replicas=replicas)
    nn.save(fitted_files / "model.npz", layer, params, {**NOTES, "branch": branch})
    check_refused(call("predict", "model.npz", "t.csv"), ["model.npz: its notes do not fit its network"])


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_a_constant_that_is_no_number_is_refused(number, refuse, fitted_files):
    path = fitted_files / "model.npz"
    by_hand(path, formula=[["product", [[0.125, "a"]]]])
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    assert b"0.125" in members["header.json"]
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content.replace(b"0.125", number.encode()))
    problem = "its notes do not fit its network" if number == "1e999" else f"its header holds {number}"
    refuse("predict", "model.npz", "t.csv", words=["model.npz: ", problem])


def test_a_name_that_no_file_can_hold_is_escaped(call, fitted_files):
    by_hand(fitted_files / "model.npz", target="\ud800")
    assert call("predict", "model.npz", "t.csv", "--out", "p.csv").status == 0
    assert (fitted_files / "p.csv").read_text(encoding="utf-8").startswith("a,b,predicted \\ud800\n")
    assert call("predict", "model.npz", "t.csv").out.startswith("a,b,predicted \\ud800\n")


# --- where the output goes --------------------------------------------------------------------------------------

COMMANDS = {"fit": ("fit", "t.csv", "--target", "y", *ENDLESS), "predict": ("predict", "model.npz", "t.csv")}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_place_that_cannot_be_written_is_refused(command, refuse, fitted_files):
    (fitted_files / "folder").mkdir()
    refuse(*command, "--out", "none/out", words=["none/out: cannot be written: No such file or directory"])
    refuse(*command, "--out", "t.csv/out", words=["t.csv/out: cannot be written: Not a directory"])
    refuse(*command, "--out", "folder", words=["folder: "])
    refuse(*command, "--out", "t.csv", words=["t.csv: ", "it is there already"])
    refuse(*command, "--out", "o" * 300, words=["File name too long"])


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_read_only_folder_is_refused(command, refuse, fitted_files):
    folder = fitted_files / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):  # for whom no folder is locked
        folder = "/sys"
    refuse(*command, "--out", f"{folder}/out", words=[f"{folder}/out: cannot be written: "])


def test_predictions_overwrite_nothing_not_even_predictions(refuse, fitted_files):
    assert program("predict", "model.npz", "t.csv", "--out", "p.csv", cwd=fitted_files).status == 0
    refuse("predict", "model.npz", "t.csv", "--out", "p.csv", words=["p.csv: it is there already"])
    refuse("predict", "model.npz", "t.csv", "--out", "model.npz", words=["model.npz: it is there already"])


@pytest.mark.parametrize(
    "command",
    [
        ("fit", "t.csv", "--target", "y", "--seeds", 1, "--out", "out"),
        ("fit", "t.csv", "--target", "y", "--seeds", 1, "--out", "model.npz"),
        ("predict", "model.npz", "t.csv", "--out", "out"),
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_a_full_disk_leaves_no_half_of_a_file(command, fitted_files):
    before = contents(fitted_files)
    no_bytes = ("sh", "-c", 'ulimit -f 0 && exec "$@"', "sh")
    ran = program(*command, cwd=fitted_files, prefix=no_bytes)
    check_refused(ran, [f"{command[-1]}: cannot be written: File too large"])
    assert contents(fitted_files) == before


# --- Ctrl-C and other ends --------------------------------------------------------------------------------------


def test_ctrl_c_clears_the_line_of_progress(call, fitted_files, monkeypatch, capsys):
    def learn(*arguments, progress, **more):
        progress(nn.Segment(1000, 20_000, np.ones(1), None))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "learn", learn)
    check_refused(call("fit", "t.csv", "--target", "y", "--out", "out"), ["nalu-np: interrupted"], status=130)
    capsys.readouterr()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["fit", "t.csv", "--target", "y", "--out", "out"]) == 130
    training, spaces, message = capsys.readouterr().err.removeprefix("\r").split("\r")
    assert training == "training: step 1,000 of 20,000 "
    assert (spaces.strip(), len(spaces) > len(training)) == ("", True)
    assert message == "nalu-np: interrupted; nothing was written\n"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt, 130, ["interrupted"]),
        (OSError(28, "No space left on device"), 2, ["p.csv: cannot be written: No space left on device"]),
        (MemoryError, 2, ["not enough memory"]),
    ],
    ids=["Ctrl-C", "a full disk", "no memory"],
)
def test_predictions_are_written_whole_or_not_at_all(error, status, words, call, fitted_files, monkeypatch):
    class Failing(io.StringIO):
        def write(self, text):
            raise error

    def open_and_fail(path, mode="r", *more, **options):
        if mode != "xb":  # the model is read
            return open(path, mode, *more, **options)
        Path(path).write_text("the first hal", encoding="utf-8")
        return Failing()

    monkeypatch.setattr(store, "open", open_and_fail, raising=False)
    before = contents(fitted_files)
    check_refused(call("predict", "model.npz", "t.csv", "--out", "p.csv"), words, status)
    assert contents(fitted_files) == before


def test_too_little_memory_is_one_line(call, fitted_files, monkeypatch):
    def learn(*_, **__):
        raise MemoryError

    monkeypatch.setattr(cli, "learn", learn)
    check_refused(call("fit", "t.csv", "--target", "y"), ["not enough memory", "--seeds", "--batch"])
