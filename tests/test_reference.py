"""The reference: every public name is documented by one rule, and the generated pages say what the code does."""

import ast
import doctest
import functools
import importlib.util
import inspect
import re
import sys
import textwrap
from pathlib import Path

import pytest

import nalu_np as nn
from nalu_np import errors, vjps

DOCS = Path(__file__).parent.parent / "docs"


def module(name):
    """A file of docs/, which is no package."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    return importlib.import_module(name)


parts = module("reference_parts")
write = module("write")
apidoc = module("apidoc")


# --- what every docstring states ---------------------------------------------------------------------------------


def thing(name):
    """A public name's object, or a method's."""
    return functools.reduce(getattr, name.split("."), nn)


#: What nobody calls: fit, gradcheck or formula makes it, and its fields are described as attributes.
MADE = {"Formula", "Report", "Result", "Segment"}
METHODS = [f"{name}.{method}" for name, methods in parts.MEMBERS.items() for method in methods.split()]
NAMES = sorted(parts.public_names())
CALLED = [*NAMES, *(name for name in METHODS if callable(thing(name)))]


def sections(doc):
    """The sections of a docstring by title; the text before the first under ""."""
    found, title = {"": []}, ""
    lines = inspect.cleandoc(doc).split("\n")
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line and below == "-" * len(line):
            title, found[line] = line, []
        elif not (title and not found[title] and set(line) == {"-"}):
            found[title].append(line)
    return found


def entries(lines):
    """The entries of a section: for each name its type and its description."""
    found, names = {}, []
    for line in lines:
        if line and not line.startswith(" "):
            head, _, kind = line.partition(" : ")
            names = head.split(", ")
            found.update({name.lstrip("*"): [kind] for name in names})
        else:
            for name in names:
                found[name.lstrip("*")].append(line)
    return {name: (text[0], " ".join(" ".join(text[1:]).split())) for name, text in found.items()}


def described(name):
    """What a docstring says of the parameters, or of the attributes of what nobody makes."""
    found = sections(thing(name).__doc__)
    return entries(found.get("Attributes" if name in MADE else "Parameters", []))


def arguments(name):
    """The names in the signature, but for those that only pass on."""
    signature = inspect.signature(thing(name)).parameters.values()
    return [p.name for p in signature if p.name not in ("self", "_", "options") and p.kind is not p.VAR_KEYWORD]


def short(name):
    """Methods whose one line says it all: how a layer is defined is told by the class."""
    return "." in name and not name.startswith("statistics.") and "Parameters" not in sections(thing(name).__doc__)


@pytest.mark.parametrize("name", [name for name in CALLED if not short(name)])
def test_every_parameter_is_described_and_no_other(name):
    found = described(name)
    assert sorted(found) == sorted(arguments(name))
    assert [(parameter, "type", "text") for parameter, (kind, text) in found.items() if not (kind and text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_arrays_have_shapes(name):
    without = [
        parameter
        for parameter, (kind, text) in described(name).items()
        if re.search(r"\barrays?\b|\bparams\b|^dict$", f"{parameter} {kind}")
        and not re.search(r"\([SNBTIOK.][\w, .]*\)", f"{kind} {text}")
        and not re.search(r"errors|meta|how", parameter)
    ]
    assert without == []


@pytest.mark.parametrize("name", NAMES)
def test_there_is_an_example(name):
    assert doctest.DocTestParser().get_examples(thing(name).__doc__)


@pytest.mark.parametrize("name", [name for name in NAMES if inspect.isfunction(thing(name))])
def test_what_is_returned_is_described(name):
    nothing = inspect.signature(thing(name)).return_annotation in ("None", None)
    assert nothing or any(map(str.strip, sections(thing(name).__doc__).get("Returns", [])))


def run_by(found):
    """The functions that a call of this runs: of a class those that make an object."""
    if inspect.isclass(found):
        made_by = (vars(cls).get(maker) for cls in found.__mro__ for maker in ("__init__", "__post_init__"))
        return [function for function in made_by if inspect.isfunction(function)]
    return [found] if inspect.isfunction(found) else []


@functools.cache
def raised(function, near=True):
    """Names of our errors that a function raises, or one it calls: of its module, or of another if it is near."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):  # a dataclass has written it
        return frozenset()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            for called in run_by(function.__globals__.get(node.func.id)):
                inside = called.__module__ == function.__module__
                if called is not function and (inside or near):
                    found |= raised(called, near and inside)
    return frozenset(found & parts.error_names())


#: What makes new arrays may find no backend, and what takes several, two libraries; the page says so once.
EVERYWHERE = {"BackendError", "MixedBackendError"}

#: What is caught on the way, and becomes the error that is stated.
CAUGHT = {
    "check_layer": {"DTypeError", "ModelFileError", "OptionError"},
    "gradcheck": {"OptionError"},
    "load": {"DTypeError", "OptionError", "ParameterError", "ShapeError"},
    "read_results": {"OptionError"},
}


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_stated(name):
    stated = set(re.findall(r"\w+Error", " ".join(sections(thing(name).__doc__).get("Raises", []))))
    ours = frozenset().union(*map(raised, run_by(thing(name))))
    ours -= CAUGHT.get(name, set()) | (set() if name in ("get_backend", "use_backend") else EVERYWHERE)
    missing = [e for e in sorted(ours) if not stated & {base.__name__ for base in getattr(errors, e).__mro__}]
    assert missing == []


#: What follows a paper; the rest is ours, or everybody's.
PUBLISHED = [*parts.GROUPS["units"], "RNN", "GRU", "LSTM", "Adam", "RMSprop"]


@pytest.mark.parametrize("name", [*PUBLISHED, *parts.GROUPS["statistics"][:-1]])
def test_what_follows_a_paper_names_it(name):
    assert re.search(r"\d{4}", " ".join(sections(thing(name).__doc__).get("References", [])))


# --- docstrings as pages -----------------------------------------------------------------------------------------


def test_a_docstring_becomes_restructured_text():
    doc = """One line about |x|, W_hat and formula_.

    y_bo = g_bo * a_bo                                    [nalu.5]
    dg_bo = dy_bo * a_bo                                  [nalu.5*]

    Parameters
    ----------
    x, y : array
        (B, I), as from `fit` or "uniform"; **not** `unknown`.

    Raises
    ------
    OptionError, OSError
        If 2 * 2 = 5.

    References
    ----------
    A. Trask, F. Hill, and
    others 2018.

    Examples
    --------
    >>> print("|x|", `1`)  # doctest: +SKIP
    |x| *

    >>> 1
    1
    """
    assert list(filter(None, apidoc.rest(inspect.cleandoc(doc).split("\n")))) == [
        "One line about \\|x\\|, W_hat and formula\\_.",
        ".. parsed-literal::",
        f"    {link('nalu.5')}   y_bo = g_bo \\* a_bo",
        f"    {link('nalu.5*')}  dg_bo = dy_bo \\* a_bo",
        ":Parameters:",
        "    **x, y** : array",
        '        \\ (B, I), as from :py:obj:`fit <nalu_np.fit>` or ``"uniform"``; \\*\\*not\\*\\* ``unknown``.',
        ":Raises:",
        "    `OptionError <errors.html#optionerror>`__, OSError",
        "        If 2 \\* 2 = 5.",
        ".. rubric:: References",
        "\\ A. Trask, F. Hill, and",
        "others 2018.",
        ".. rubric:: Examples",
        '>>> print("|x|", `1`)  # doctest: +SKIP',
        "|x| *",
        ">>> 1",
        "1",
    ]


def link(tag):
    """An equation's tag, as a link where a page derives it."""
    page = apidoc.derivations().get(tag)
    text = f"[{tag}]".replace("*", "\\*")
    return f"`{text} <../derivations/{page}>`__" if page else text


@pytest.mark.parametrize(
    ("block", "formula"),
    [
        ("y = x W", True),
        ("y = x W,  W = tanh(W_hat)", True),
        ("a = 1                    [sum.1]\nand b      [sum.2] [sum.2*]", True),
        ("        2 n (p - q) <= z^2,", True),
        ("h = 0 before the first step.", False),
        ("What it computes, where a = 1:", False),
        ("[sum.1] is the tag of an equation", False),
        ("A sum of weighted inputs", False),
    ],
)
def test_what_is_a_formula(block, formula):
    assert apidoc.is_formula(block) == formula


def test_equations_in_one_wide_line_get_one_each():
    long = "y = g * a + (1 - g) * m,  a = x W,  m = exp(log(|x| + eps) W);  g = sigma(x G)"
    found = apidoc.rest([long])
    assert [line.strip() for line in found[2:-1]] == [
        "y = g \\* a + (1 - g) \\* m,",
        "a = x W,",
        "m = exp(log(\\|x\\| + eps) W);",
        "g = sigma(x G)",
    ]


@pytest.mark.parametrize("name", [*NAMES, *METHODS])
def test_nothing_of_a_docstring_is_lost(name):
    """All words stand on the page, in their order but for tags; examples as they are."""
    doc = inspect.cleandoc(thing(name).__doc__)
    page = "\n".join(apidoc.rest(doc.split("\n")))
    page = re.sub(r"\.\. parsed-literal::|\.\. rubric::|:py:obj:|`__| <[^>\n]*>(?=`)", " ", page)

    def words(text):
        text = re.sub(r"\\(?=[*|`_\\])|\\ ", "", text)
        return re.findall(r"[\w.]*\w", apidoc.TAG.sub("", text)), sorted(apidoc.TAG.findall(text))

    assert words(page) == words(doc)
    for example in doctest.DocTestParser().get_examples(doc):
        first, *rest = textwrap.indent(example.source, "... ").splitlines()
        assert re.search(rf"^ *{re.escape('>>> ' + first[4:])}$", page, re.MULTILINE)
        assert all(re.search(rf"^ *{re.escape(line)}$", page, re.MULTILINE) for line in rest)


def test_groups_stand_on_the_page_as_lists_and_on_the_site_with_all_they_say():
    source = ["<!-- write: api backends -->\n\n- `use_backend`: Choose.\n\n<!-- end -->\n"]
    apidoc.expand(None, "reference/errors", source)
    assert "autofunction" not in source[0]
    apidoc.expand(None, "reference/api", source)
    assert "- {py:obj}`use_backend <nalu_np.use_backend>`: Choose." in source[0]
    assert ".. autofunction:: nalu_np.use_backend" in source[0]
    assert list(parts.directives("layers"))[-5:-1] == [
        "",
        ".. autoclass:: nalu_np.Layer",
        "   :members: init, values, shapes, draw, forward, surrogate, penalty, project, rank",
        "   :special-members: __call__",
    ]


# --- what the pages say ------------------------------------------------------------------------------------------

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference").glob("*.md"))}


def regions(page, part):
    """The arguments of a part on a page, in order."""
    return [argument.strip() for _, name, argument, *_ in write.REGION.findall(PAGES[page]) if name == part]


def test_every_public_name_is_on_the_page():
    assert {*nn.__all__, "NALURegressor"} <= parts.public_names()
    assert {name.removeprefix("statistics.") for name in parts.GROUPS["statistics"]} == {
        name
        for name, value in vars(nn.statistics).items()
        if getattr(value, "__module__", None) == "nalu_np.statistics" and not name.startswith("_")
    }
    assert regions("api", "api") == list(parts.GROUPS)
    listed = re.findall(r"^- `([\w.]+)`: \S", "\n".join(map(parts.api, parts.GROUPS)), re.MULTILINE)
    assert sorted(listed) == NAMES


def test_every_block_is_on_the_page_once():
    kinds = regions("api", "blocks")
    listed = re.findall(r"^- `(\w+)`: \S", "\n".join(map(parts.blocks, kinds)), re.MULTILINE)
    functions = (name for name, value in vars(vjps).items() if inspect.isfunction(value) and name[0] != "_")
    assert sorted(listed) == sorted(name for name in functions if vars(vjps)[name].__module__ == vjps.__name__)
    assert "- `relu`: y = max(z, 0)" in parts.blocks("activations")
    assert "- `mse`: " in parts.blocks("losses")
    assert "`[mix.1]`, `[mix.1*]`" in parts.blocks("blocks")


def test_every_error_has_a_section_with_a_message_of_its_own():
    assert regions("errors", "error") == re.findall(r"^## (.*)", PAGES["errors"], re.MULTILINE)
    assert {*regions("errors", "error")} == parts.error_names() - {"NaluError"} == {*parts.PROVOCATIONS}
    for name in parts.PROVOCATIONS:
        with pytest.raises(getattr(errors, name)) as caught:
            parts._provoke(parts.PROVOCATIONS[name])
        assert type(caught.value) is getattr(errors, name)


def test_provoking_errors_leaves_nothing_behind(monkeypatch):
    before = dict(sys.modules), Path.cwd()
    monkeypatch.setenv("NALU_NP_BACKEND", "cupy")  # of no effect here
    assert "use_backend=cupy: CuPy cannot be imported" in parts.error("BackendError")
    assert "arrays of numpy and cupy" in parts.error("MixedBackendError")
    assert before == (dict(sys.modules), Path.cwd())


def test_the_tree_is_that_of_the_docstring():
    drawn = re.findall(r"[├└│].*?(\w+Error(?: \(\w+\))?)", parts.tree(""))
    assert drawn == re.findall(r"[├└│].*?(\w+Error(?: \(\w+\))?) ", errors.__doc__)


def test_every_command_has_a_section():
    commands = [name for name in parts.commands() if name != "all"]
    headings = re.findall(r"^## nalu-np (\w+)", PAGES["command-line"], re.MULTILINE)
    assert regions("command-line", "command") == ["all", *commands]
    assert headings == commands


@pytest.mark.parametrize("name", list(parts.commands()))
def test_every_option_is_on_the_page(name, monkeypatch):
    text = parts.command(name)
    helped = parts.commands()[name].format_help()
    options = {*re.findall(r"(?<![\w-])--[a-z]+", helped)} - {"--help"}
    assert {*re.findall(r"(?<![\w-])--[a-z]+", text)} >= options
    assert all(f"`{option}" in text for option in options)
    assert "%(" not in text
    monkeypatch.setenv("COLUMNS", "30")
    parts.commands.cache_clear()
    assert parts.command(name) == text


def test_options_that_exclude_each_other_stand_together():
    assert "nalu-np run NAME [--quick | --full] [--seeds N] [--workers N]" in parts.command("run")


def test_choices_stand_beside_what_they_are_of():
    text = parts.command("fit")
    assert "| `--unit` | what learns: one of auto, sum, product, nalu, nac, lognac (default: auto) |" in text
    assert "| `--demo` | learn from a shipped table: one of escape, planets, boyle, moons |" in text
    assert "[--dtype {float32,float64}]" in text
    assert "| `--lr R` | of Adam (default: 0.01) |" in text


def test_the_samples_of_files_can_be_had_again():
    for kind in parts.FILES:
        assert parts.file(kind) == parts.file(kind)


def test_samples_say_nothing_of_this_machine():
    samples = "\n".join(map(parts.file, parts.FILES))
    assert str(Path.home()) not in samples
    assert str(DOCS.parent) not in samples
    assert not re.search(r"/tmp|\d{2}:\d{2}", samples)


def test_what_runs_on_a_device_is_read_from_the_tests(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(
        '"""A title.\n\nMore."""\n'
        "def test_one(device): ...\n"
        "def test_two(x, fake_cupy_float32): ...\n"
        "@pytest.mark.gpu\ndef test_three(): ...\n"
        "def test_four(tmp_path): ...\n"
        "def helper(device): ...\n"
    )
    monkeypatch.setattr(parts, "ROOT", tmp_path)
    parts.device_tests.cache_clear()
    assert parts.backends("tests").splitlines() == [
        "`tests/test_a.py`: A title.",
        "",
        "| test | NumPy | fake device | card |",
        "| --- | --- | --- | --- |",
        f"| one | yes | yes | {parts.CARD} |",
        "| two |  | yes, without float64 |  |",
        f"| three |  |  | {parts.CARD} |",
    ]
    parts.device_tests.cache_clear()


def test_every_registered_layer_is_in_the_table():
    table = parts.backends("layers")
    assert re.search(rf"\| `NALU` \| yes \| \d+ \| yes \| yes \| {parts.CARD} \|", table)
    assert re.search(rf"\| `Dense` \|  \| \d+ \| yes \| yes \| {parts.CARD} \|", table)
    assert len(table.splitlines()) == 2 + len(parts.REGISTRY)


def test_a_recorded_run_on_a_card_is_named(tmp_path, monkeypatch):
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "speed-3.json").write_text('{"machine": {"numpy": "2.4"}}')
    monkeypatch.setattr(parts, "HERE", tmp_path)
    assert parts.backends("recorded") == "No run on a card is recorded in this repository yet."
    (tmp_path / "speed-gpu.json").write_text('{"machine": {"cupy": "14.0"}}')
    assert parts.backends("recorded") == "Recorded on a card: [speed-gpu.json](../speed-gpu.json)."


# --- papers ------------------------------------------------------------------------------------------------------

PAPERS = regions("bibliography", "cited")


def known(text):
    return any(parts.pattern(paper).search(text) for paper in PAPERS)


def test_every_paper_has_a_citation_and_something_refers_to_it():
    headings = re.findall(r"^### (.*)\n\n(?:.+\n)+\n<!-- write: cited \1", PAGES["bibliography"], re.MULTILINE)
    assert headings == [" ".join(paper.split()[:2]) for paper in PAPERS]
    assert [paper for paper in PAPERS if not parts.cited(paper)] == []


def test_every_entry_of_references_is_a_paper_of_the_page():
    for path, text in parts.sources().items():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and (doc := ast.get_docstring(node)):
                    reference = " ".join(sections(doc).get("References", []))
                    assert not reference or known(reference), (path.name, node.name, reference)


def test_every_paper_that_is_mentioned_is_on_the_page():
    unknown = {
        (path.name, mention[0])
        for path, text in parts.sources().items()
        for mention in re.finditer(r"[A-Z]\w+(?: et al\.| (?:&|and) [A-Z]\w+),? \(?(?:18|19|20)\d\d\b", text)
        if not known(text[max(0, mention.start() - 40) : mention.end()])
    }
    assert unknown == set()


def test_references_are_found_in_code_with_their_equations():
    found = parts.cited("Elman 1990")
    assert found.startswith("- `nalu_np/layers/cells.py`: `RNN`; `[rnn.1]`, `[rnn.2]`, `[rnn.1*]`, `[rnn.2*]`")
    assert parts.cited("Nobody 1990") == ""
