"""The generated parts of the reference pages: lists of names, messages, options, samples of files, tests, papers.

`PARTS` maps the name of a part to a function of its argument. On a page, a part stands between two comments:

    <!-- write: NAME ARGUMENT -->
    <!-- end -->

Nothing here depends on the machine, the terminal or the version of Python: what does is cut or rounded.
"""

import argparse
import ast
import contextlib
import inspect
import io
import json
import math
import re
import sys
import tempfile
import textwrap
import types
from concurrent.futures import BrokenExecutor, Future
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np

import nalu_np as nn
from nalu_np import checkpoint, cli, errors, store, sweeps, vjps
from nalu_np.checks import registered_layers
from nalu_np.experiments import find, runs
from nalu_np.kernels import planes
from nalu_np.layer import REGISTRY
from nalu_np.tasks.tables import read_table

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGE = Path(nn.__file__).parent

TAG = re.compile(r"\[([a-z]+)\.(\d+)(\*?)\]")


# --- names -------------------------------------------------------------------------------------------------------

#: What one does with the public names, in the order of the page.
GROUPS = {
    "units": ["NAC", "LogNAC", "NALU", "SumPath", "ProductPath"],
    "layers": ["Dense", "chain", "Layer"],
    "recurrence": ["scan", "Accumulator", "Recurrent", "RNN", "GRU", "LSTM", "Last", "Cell"],
    "training": ["fit", "Result", "Segment", "replica", "Adam", "RMSprop", "SGD"],
    "formulas": ["formula", "Formula", "NALURegressor"],
    "checking": ["gradcheck", "check_layer", "Report"],
    "files": ["save", "load"],
    "sweeps": ["sweep", "read_results"],
    "statistics": [
        *(f"statistics.{name}" for name in ("success_rate", "solved_at", "sparsity_error", "sparsity")),
        *(f"statistics.{name}" for name in ("bootstrap", "Interval")),
    ],
    "backends": ["use_backend", "get_backend", "to_numpy"],
}

#: Methods that a user calls or defines; all others are how a class keeps its promises.
MEMBERS = {
    "Layer": "init __call__ values shapes draw forward surrogate penalty project rank",
    "Cell": "start step",
    "Adam": "init update",
    "RMSprop": "init update",
    "SGD": "init update",
    "Formula": "__call__",
    "NALURegressor": "fit partial_fit predict",
}


@cache
def public_names():
    """Everything that the page of the API documents."""
    return frozenset(name for names in GROUPS.values() for name in names)


@cache
def docstring(name):
    """The docstring of a public name; that of NALURegressor is read from its file, which needs scikit-learn."""
    if name == "NALURegressor":
        tree = ast.parse((PACKAGE / "estimator.py").read_text(encoding="utf-8"))
        return next(ast.get_docstring(node) for node in tree.body if getattr(node, "name", None) == name)
    thing = nn
    for part in name.split("."):
        thing = getattr(thing, part)
    return inspect.getdoc(thing)


def api(group):
    """The names of a group, each with the first sentence of its docstring."""
    return "\n".join(f"- `{name}`: {_summary(name)}" for name in GROUPS[group])


def _summary(name):
    """The first sentence of a docstring, as Markdown."""
    return _markdown(docstring(name).partition("\n\n")[0])


def _markdown(text):
    """Plain text as Markdown: code between backticks stays, and nothing else is marked up."""
    parts = re.split("(`[^`]*`)", " ".join(text.split()))
    return "".join(part if i % 2 else re.sub(r"([*<])", r"\\\1", part) for i, part in enumerate(parts))


def blocks(kind):
    """The functions of `vjps` of a kind, with the first paragraph of each docstring and where they are derived."""
    named = {f.__name__ for f in (*vjps.ACTIVATIONS.values(), vjps.prelu, vjps.crelu)}
    losses = {f.__name__ for f in vjps.LOSSES.values()}
    lines = []
    for name, function in vars(vjps).items():
        theirs = "activations" if name in named else "losses" if name in losses else "blocks"
        if (
            inspect.isfunction(function)
            and function.__module__ == vjps.__name__
            and name[0] != "_"
            and theirs == kind
        ):
            tags = equations(inspect.getsource(function))
            doc = inspect.getdoc(function).partition("\n\n")[0]
            lines.append(f"- `{name}`: {_markdown(doc)}" + f" {tags}" * bool(tags))
    return "\n".join(lines)


def directives(group):
    """What documents the names of a group on the site."""
    for name in GROUPS[group]:
        is_class = name.rpartition(".")[2][0].isupper()
        yield f".. auto{'class' if is_class else 'function'}:: nalu_np.{name}"
        members = MEMBERS.get(name, "").split()
        plain = [member for member in members if not member.startswith("_")]
        if plain:
            yield f"   :members: {', '.join(plain)}"
        if len(plain) < len(members):
            yield "   :special-members: __call__"
        yield ""


# --- errors ------------------------------------------------------------------------------------------------------


@cache
def error_names():
    """Every class of the tree."""
    return frozenset(name for name, thing in vars(errors).items() if inspect.isclass(thing))


def _children(error):
    return [child for child in error.__subclasses__() if child.__module__ == errors.__name__]


def _builtin(error):
    """The built-in error that it is besides, as in its own bases."""
    return next((base.__name__ for base in error.__bases__ if base.__module__ == "builtins"), None)


def tree(_):
    """The errors as a tree, each with the built-in error that it is too."""

    def below(error, indent):
        children = _children(error)
        for child in children:
            last = child is children[-1]
            besides = _builtin(child)
            yield f"{indent}{'└── ' if last else '├── '}{child.__name__}{f' ({besides})' if besides else ''}"
            yield from below(child, indent + ("    " if last else "│   "))

    return "\n".join(["```text", "NaluError (Exception)", *below(errors.NaluError, ""), "```"])


def error(name):
    """How an error can come about, and the message that it has then."""
    provocation = PROVOCATIONS[name]
    try:
        _provoke(provocation)
    except getattr(errors, name) as caught:
        message = str(caught)
    wrapped = textwrap.wrap(message, 86, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join([provocation.__doc__, "", "```text", *wrapped, "```"])


def _provoke(provocation):
    """Run in an empty folder, on NumPy, with what it prints and warns left unsaid."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), on_numpy():
        provocation()


@contextlib.contextmanager
def on_numpy():
    """New arrays are born on NumPy, whatever the environment says."""
    with patch("nalu_np.backend._chosen", "numpy"):
        yield


def _shape():
    """Rows with three columns, given to a unit that has two inputs:"""
    layer = nn.NAC(2, 1)
    layer(layer.init(), np.ones((64, 3), "float32"))


def _dtype():
    """Rows in float64, NumPy's default, beside parameters in float32, the default of `init`:"""
    layer = nn.NAC(2, 1)
    layer(layer.init(), np.ones((64, 2)))


def _parameter():
    """A parameter is missing:"""
    nn.NAC(2, 1)({"W_hat": np.ones((2, 1))}, np.ones((64, 2)))


def _option():
    """A gate that does not exist:"""
    nn.NALU(2, 1, gate="vector")


def _gradient():
    """A layer `y = x * x` of one's own, in whose vjp the factor 2 is missing, seen by `gradcheck`:"""

    class Square(nn.Layer):
        def shapes(self):
            return {}

        def draw(self, name, rng):
            raise KeyError(name)

        def forward(self, params, x, **options):
            return x * x, lambda dy, need_dx=True: (dy * x, {})  # the 2 is missing

    nn.gradcheck(Square(2, 2))


def _file():
    """`read_results`, given a file that holds something else:"""
    Path("results.jsonl").write_text("a, b\n1, 2\n")
    nn.read_results("results.jsonl")


def _model_file():
    """`load`, given a table instead of a model:"""
    Path("law.npz").write_text("a, b\n1, 2\n")
    nn.load("law.npz")


def _checkpoint():
    """`fit(..., seed=1, checkpoint='run.npz')`, where the file is of a run with seed 0:"""
    x = np.arange(1, 9, dtype="float32").reshape(4, 2)
    for seed in (0, 1):
        nn.fit(nn.NAC(2, 1), x, x[:, :1], steps=10, seed=seed, checkpoint="run.npz")


def _table():
    """A column that was asked for has a cell that is no number:"""
    Path("laws.csv").write_text("a,b\n1,2\n3,four\n")
    read_table("laws.csv", only=["a", "b"])


def _sweep():
    """A worker process was killed:"""

    class Dying:
        def submit(self, function, *arguments):
            future = Future()
            future.set_exception(BrokenExecutor("a worker died"))
            return future

    nn.sweep(abs, [1, 2], executor=Dying())


def _backend():
    """`use_backend('cupy')`, where CuPy is not installed:"""
    missing = ModuleNotFoundError("No module named 'cupy'")
    with patch("nalu_np.backend.importlib.import_module", side_effect=missing):
        nn.use_backend("cupy")


def _mixed():
    """Parameters on the host, rows on the device:"""
    cupy = types.SimpleNamespace(ndarray=type("ndarray", (), {}))
    with patch.dict(sys.modules, {"cupy": cupy}):
        nn.NAC(2, 1)(nn.NAC(2, 1).init(), cupy.ndarray())


PROVOCATIONS = {
    "ShapeError": _shape,
    "DTypeError": _dtype,
    "ParameterError": _parameter,
    "OptionError": _option,
    "GradientError": _gradient,
    "FileError": _file,
    "ModelFileError": _model_file,
    "CheckpointError": _checkpoint,
    "TableError": _table,
    "SweepError": _sweep,
    "BackendError": _backend,
    "MixedBackendError": _mixed,
}


# --- the command line --------------------------------------------------------------------------------------------


@cache
def commands():
    """The parser of each command, by name; "all" is the one above them."""
    top = cli.parser()
    below = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return {"all": top, **below.choices}


def command(name):
    """A command: what it does, how it is called, its arguments."""
    parser = commands()[name]
    prog = "nalu-np" if name == "all" else f"nalu-np {name}"
    lines = ["```text", *_wrapped([prog, *_usage(parser)]), "```", ""]
    if name == "all":
        below = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        named = [choice for action in below for choice in action._choices_actions]
        rows = [f"| [`nalu-np {one.dest}`](#nalu-np-{one.dest}) | {_cell(one.help)} |" for one in named]
        lines += ["| command | |", "| --- | --- |", *rows, ""]
    else:
        lines = [parser.description, "", *lines]
    for title, actions in _groups(parser):
        rows = [f"| {_spelled(action)} | {_cell(_help(action, prog))} |" for action in actions]
        lines += [f"| {_cell(title)} | |", "| --- | --- |", *rows, ""]
    return "\n".join(lines).rstrip()


def _arguments(actions):
    """All but what every command has, and the commands themselves."""
    others = argparse._HelpAction | argparse._SubParsersAction
    return [action for action in actions if not isinstance(action, others)]


def _groups(parser):
    """The arguments by groups: Python's own two, whose titles are its own, as one, then those with a title."""
    found = {}
    for group in parser._action_groups:
        own = group in (parser._positionals, parser._optionals)
        found.setdefault("argument" if own else group.title, []).extend(_arguments(group._group_actions))
    return [(title, actions) for title, actions in found.items() if actions]


def _usage(parser):
    """The arguments as a line of usage has them; those that exclude each other together."""
    groups = [group._group_actions for group in parser._mutually_exclusive_groups]
    exclusive = {id(action): group for group in groups for action in group}
    for action in _arguments(parser._actions):
        together = exclusive.get(id(action), [action])
        words = " | ".join(" ".join(filter(None, [*a.option_strings[:1], _value(a)])) for a in together)
        if action is together[0]:
            yield words if action.required else f"[{words}]"
    if parser._subparsers is not None:
        yield "COMMAND ..."


def _value(action):
    """What follows an option, or stands for an argument."""
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return f"{{{','.join(map(str, action.choices))}}}"
    return action.metavar


def _spelled(action):
    value = "" if action.choices is not None else _value(action)
    return f"`{' '.join(filter(None, [', '.join(action.option_strings), value]))}`"


def _help(action, prog):
    if isinstance(action, argparse._VersionAction):
        return "print the version and stop"
    text, opening, default = ((action.help or "") % {**vars(action), "prog": prog}).partition("(default")
    if action.choices is not None:
        text = f"{text.strip()}: ".lstrip(": ") + f"one of {', '.join(map(str, action.choices))} "
    return f"{text}{opening}{default}".strip()


def _cell(text):
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _wrapped(words, width=86):
    """Words in lines, those after the first indented; none is split at a space of its own."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("   ")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


def exit_codes(_):
    """The exit statuses, as the module of the command line states them."""
    found = re.search(r"Exit status: (.*)\.", cli.__doc__)[1]
    rows = [re.match(r"(\d+) (.*)", part) for part in found.split("; ")]
    return "\n".join(["| status | |", "| ---: | --- |", *(f"| {row[1]} | {row[2]} |" for row in rows)])


# --- files -------------------------------------------------------------------------------------------------------


def file(kind):
    """A sample of a kind of file, from a real call."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), on_numpy():
        return FILES[kind]()


def _archive(path, kind):
    """The members of an archive, and its header."""
    header, arrays = store.read(path, kind)
    rows = [f"| `{name}.npy` | {array.dtype} | {array.shape} |" for name, array in arrays.items()]
    text = re.sub(r"(?<=sha256:)([0-9a-f]{8})[0-9a-f]{56}", r"\1...", json.dumps(header))
    lines = ["| member | dtype | shape |", "| --- | --- | --- |", f"| `{store.HEADER}` | JSON, UTF-8 | |", *rows]
    return "\n".join(
        [f"Format version {kind.version}.", "", *lines, "", "The header:", "", *_json(json.loads(text))]
    )


def _json(value):
    """JSON, with short lists and objects in one line."""
    return ["```json", *_pretty(value), "```"]


def _pretty(value, indent="", before="", after=""):
    flat = json.dumps(value)
    if not isinstance(value, dict | list) or not value or len(indent + before + flat + after) <= 86:
        return [f"{indent}{before}{flat}{after}"]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    parts = value.items() if isinstance(value, dict) else ((None, part) for part in value)
    lines = []
    for i, (key, part) in enumerate(parts):
        name = "" if key is None else f"{json.dumps(key)}: "
        lines += _pretty(part, indent + "  ", name, "," if i < len(value) - 1 else "")
    return [f"{indent}{before}{opening}", *lines, f"{indent}{closing}{after}"]


def _model():
    layer = nn.chain(nn.NAC(3, 2), nn.NALU(2, 1, eps=1e-5))
    nn.save("model.npz", layer, layer.init(seed=0, replicas=8), meta={"learned from": "laws.csv"})
    return _archive("model.npz", store.MODEL)


def _run_checkpoint():
    x = np.arange(1, 9, dtype="float32").reshape(4, 2)
    options = {"steps": 20, "every": 10, "batch": 2, "replicas": 3, "checkpoint": "run.npz"}
    nn.fit(nn.NAC(2, 1), x, x[:, :1], **options)
    return _archive("run.npz", checkpoint.CHECKPOINT)


def _results():
    nn.sweep(math.sqrt, [4.0, -1.0], out="roots.jsonl")
    text = Path("roots.jsonl").read_text(encoding="utf-8")
    text = re.sub(r'("seconds": )[^,}]+', r"\1...", text)
    text = re.sub(r'("traceback": )\[.*?\](?=\})', r"\1...", text)
    note = f"Format version {sweeps.VERSION}. `seconds` and `traceback`, a list of lines, are cut here."
    return "\n".join([note, "", "```text", *text.splitlines(), "```"])


def _run():
    run = runs.start(find("identity"), "quick", 2, Path("identity"), resume=False)
    config = json.loads(Path("identity", "config.json").read_text(encoding="utf-8"))
    config["sessions"] = [dict.fromkeys(session, "...") for session in config["sessions"]]
    shown = {**config, "configs": [config["configs"][0]]}
    note = f"Format version {runs.VERSION}. Cut here are what the machine says of itself, and all configs but"
    return "\n".join([f"{note} the first of {len(run.configs)}.", "", *_json(shown)])


def _bench():
    path = min(HERE.glob("speed-*.json"))
    found = json.loads(path.read_text(encoding="utf-8"))
    shown = {**found, "rows": found["rows"][:2]}
    note = f"From [{path.name}](../{path.name}), of whose {len(found['rows'])} rows two are shown."
    return "\n".join([note, "", *_json(shown)])


def _fit():
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        cli.main(["fit", "--json"])
    found = _rounded(json.loads(out.getvalue()))
    shown = {**found, "seconds": "..."}
    return "\n".join(["Numbers are rounded here to two digits, and `seconds` is cut.", "", *_json(shown)])


def _rounded(value):
    """Numbers to two digits, in lists and objects too."""
    if isinstance(value, float):
        return float(f"{value:.2g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


FILES = {
    "model": _model,
    "checkpoint": _run_checkpoint,
    "results": _results,
    "run": _run,
    "bench": _bench,
    "fit": _fit,
}


# --- backends ----------------------------------------------------------------------------------------------------


def _records():
    """The files that a run on a card has written."""
    found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("*.json"))}
    return [name for name, text in found.items() if isinstance(text, dict) and "cupy" in text.get("machine", ())]


#: There is a test, and whether it is known to have run.
CARD = "yes" if _records() else "not run"

#: What a test that asks for a fixture runs on: NumPy, the fake device, a card.
FIXTURES = {
    "device": ("yes", "yes", CARD),
    "fake_cupy": ("", "yes", ""),
    "fake_cupy_float32": ("", "yes, without float64", ""),
}


#: The test that takes every registered layer through the whole contract.
CONTRACT = "test_every_registered_layer_keeps_the_contract"


@cache
def device_tests():
    """For each file of tests its title, and the tests that run on a device: name, and on what."""
    found = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text if any(word in text for word in (*FIXTURES, "mark.gpu")) else "")
        tests = [row for node in tree.body if (row := _device_test(node))]
        if tests:
            found[path.name] = ast.get_docstring(tree).partition("\n")[0], tests
    return found


def _device_test(node):
    if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
        return None
    marked = any("pytest.mark.gpu" in ast.unparse(decorator) for decorator in node.decorator_list)
    on = [FIXTURES[argument.arg] for argument in node.args.args if argument.arg in FIXTURES]
    if marked:
        on.append(("", "", CARD))
    return (node.name, on[0]) if on else None


def backends(what):
    """Which layers compute where, which tests run on what, and what is recorded of a card."""
    return {"layers": _layers, "tests": _tests, "recorded": _recorded}[what]()


def _layers():
    rows = []
    examples = registered_layers()
    contract = next(on for name, on in device_tests()["test_checks.py"][1] if name == CONTRACT)
    for name, cls in sorted(REGISTRY.items(), key=lambda item: item[0].lower()):
        mine = [layer for layer in examples if type(layer) is cls or name in _parts(layer)]
        fused = any(planes.supports(layer, "mse", nn.Adam()) for layer in mine if type(layer) is cls)
        shown = {"Chain": "chain", "Scan": "scan"}.get(name, name)
        cells = f"`{shown}`", "yes" if fused else "", str(len(mine)), *contract
        rows.append(f"| {' | '.join(cells)} |")
    head = "| layer | fused kernel | instances | NumPy | fake device | card |"
    return "\n".join([head, "| --- | --- | ---: | --- | --- | --- |", *rows])


def _parts(layer):
    """The names of the classes of which a layer is made."""
    return {name for part in layer.parts for name in (type(part).__name__, *_parts(part))}


def _tests():
    lines = []
    for name, (title, tests) in device_tests().items():
        lines += [
            f"`tests/{name}`: {title}",
            "",
            "| test | NumPy | fake device | card |",
            "| --- | --- | --- | --- |",
        ]
        for test, on in tests:
            sentence = test.removeprefix("test_").replace("_", " ")
            lines.append(f"| {sentence} | {' | '.join(on)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _recorded():
    if files := [f"[{name}](../{name})" for name in _records()]:
        return f"Recorded on a card: {', '.join(files)}."
    return "No run on a card is recorded in this repository yet."


# --- papers ------------------------------------------------------------------------------------------------------


def cited(paper):
    """What refers to a paper (NAME YEAR, and its number at arXiv if it has one), with the equations there."""
    name, _, *numbers = paper.split()
    cites = pattern(paper)
    paths = [
        path
        for path, text in sources().items()
        if any(word in text for word in (name, *numbers)) and cites.search(text)  # first what is quick
    ]
    modules = [f"- {_module(path, cites)}" for path in paths if path.suffix == ".py"]
    pages = ", ".join(_page(path) for path in paths if path.suffix == ".md")
    return "\n".join([*modules, f"- {pages}"] if pages else modules)


def _page(path):
    """A link to a page by its title; what lies outside the pages has no link."""
    if path.parent == ROOT:
        return f"`{path.name}`"
    title = re.search(r"^# (.+)", sources()[path], re.MULTILINE)[1]
    return f"[{title}](../{path.relative_to(HERE).as_posix()})".replace("(../reference/", "(")


def pattern(paper):
    """What refers to a paper: the first author's name and, soon after, the year; or its number at arXiv."""
    name, year, *numbers = paper.split()
    number = "".join(rf"|{re.escape(number)}\b" for number in numbers)
    return re.compile(rf"\b{name}\b[^;]{{0,40}}?\b{year}\b{number}")


@cache
def sources():
    """Files that may refer to papers: of the package and of the documentation, with their text."""
    pages = [path for path in [ROOT / "README.md", *HERE.rglob("*.md")] if path.name != "bibliography.md"]
    return {path: path.read_text(encoding="utf-8") for path in [*sorted(PACKAGE.rglob("*.py")), *sorted(pages)]}


def _module(path, cites):
    """A module with the functions and classes that refer to a paper, and the equations in them."""
    text, owners = sources()[path], {}
    for match in cites.finditer(text):
        name, segment = _owner(text, text.count("\n", 0, match.start()) + 1)
        owners[name] = segment
    names = ", ".join(f"`{name}`" for name in owners if name)
    tags = equations("\n".join(owners.values()))
    return (
        f"`nalu_np/{path.relative_to(PACKAGE).as_posix()}`"
        + (f": {names}" if names else "")
        + f"; {tags}" * bool(tags)
    )


@cache
def _spans(text):
    """Functions and classes of a module: first line, last line, name; inner ones after outer ones."""
    nodes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [
        (min([node.lineno, *(d.lineno for d in node.decorator_list)]), node.end_lineno, node.name)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, nodes)
    ]
    return sorted(found)


def _owner(text, line):
    """The innermost function or class around a line, and its text; "" for the module."""
    around = [span for span in _spans(text) if span[0] <= line <= span[1]]
    if not around:
        return "", ""
    first, last, name = around[-1]
    return name, "\n".join(text.split("\n")[first - 1 : last])


def equations(text):
    """The tags in a text, a range for each family, with its derivation."""
    found = {}
    for family, number, adjoint in TAG.findall(text):
        found.setdefault(family, set()).add((bool(adjoint), int(number)))
    parts = []
    for family, tags in sorted(found.items()):
        sides = (sorted(number for star, number in tags if star == adjoint) for adjoint in (False, True))
        shown = ", ".join(
            _range(family, numbers, star) for numbers, star in zip(sides, ["", "*"], strict=True) if numbers
        )
        page = derivation(family)
        parts.append(shown if page is None else f"{shown} ([derived](../derivations/{page}))")
    return "; ".join(parts)


def _range(family, numbers, star):
    """Tags in a row, of many the first and the last."""
    tags = [f"`[{family}.{number}{star}]`" for number in numbers]
    return f"{tags[0]} to {tags[-1]}" if len(tags) > 2 else ", ".join(tags)


@cache
def derivation(family):
    """The page that derives the equations of a family, if one does."""
    for path in sorted((HERE / "derivations").glob("*.md")):
        if f'<a id="{family}.' in path.read_text(encoding="utf-8"):
            return path.name
    return None


# --- all of them -------------------------------------------------------------------------------------------------

PARTS = {
    "api": api,
    "blocks": blocks,
    "tree": tree,
    "error": error,
    "command": command,
    "exit-codes": exit_codes,
    "file": file,
    "backends": backends,
    "cited": cited,
}
