"""Docstrings as pages: numpydoc sections in plain text become valid reStructuredText.

The docstrings are written to be read in a terminal: `|x|`, `W_hat`, `2**n` and `formula_` mean what they say, and
equations stand in columns with their tags at the end of the line. So prose is escaped, equations become literal
blocks whose tags lead to the page that derives them, and doctest blocks are left alone.
"""

import re
from functools import cache
from pathlib import Path

import reference_parts

HERE = Path(__file__).parent

#: Sections whose entries are a name and a type, with a description below.
FIELDS = ("Parameters", "Attributes", "Returns", "Raises", "Warns")
TEXTS = ("Notes", "References", "Examples")

TAG = re.compile(r"\[([a-z]+\.\d+\*?)\]")


def rest(lines):
    """A docstring's lines, without their common indentation, as those of reStructuredText."""
    title, rows, found = "", [], []
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line in (*FIELDS, *TEXTS) and below == "-" * len(line):
            found += _section(title, rows)
            title, rows = line, []
        elif not (title and not rows and line == "-" * len(title)):
            rows.append(line)
    return [*found, *_section(title, rows)]


def _section(title, rows):
    if title in FIELDS:
        return [f":{title}:", *_indented(_entries(title, rows), 4), ""]
    return [*([f".. rubric:: {title}", ""] if title else []), *_blocks(rows)]


def _entries(title, rows):
    """A definition list of the entries: a line without indentation, and what stands below it."""
    found = []
    for line in rows:
        if line and not line.startswith(" "):
            found.append((line, []))
        elif found:
            found[-1][1].append(line[4:])
    lines = []
    for head, text in found:
        names, _, kind = head.partition(" : ")
        if title == "Raises":
            head = ", ".join(map(_error, head.split(", ")))
        elif title == "Returns" and not kind:
            head = _named(head)
        else:
            head = f"**{_escaped(names)}**" + (f" : {_named(kind)}" if kind else "")
        lines += [head, *_indented(_blocks(text) or ["\\ "], 4), ""]
    return lines


def _error(name):
    ours = name in reference_parts.error_names()
    return f"`{name} <errors.html#{name.lower()}>`__" if ours else _escaped(name)


def _blocks(rows):
    """Paragraphs, equations and examples."""
    found = []
    for block in re.split(r"\n(?:[ ]*\n)+", "\n".join(rows).strip("\n")):
        lines = block.split("\n")
        if not block:
            continue
        if block.startswith(">>>"):
            found += [*lines, ""]
        elif is_formula(block):
            found += [
                ".. parsed-literal::",
                "",
                *_indented(_linked(_escaped(_unfolded(lines))).split("\n"), 4),
                "",
            ]
        else:
            found += [*prose(block).split("\n"), ""]
    return found


def is_formula(block):
    """Whether a paragraph is equations: indented, tagged, or an equality that does not end as a sentence does."""
    lines = block.split("\n")
    tagged = all(re.search(r"\S {2,}(\[[a-z]+\.\d+\*?\] ?)+$| (\[[a-z]+\.\d+\*?\] ?)+$", line) for line in lines)
    return block.startswith("    ") or tagged or (" = " in block and block[-1] not in ".:;?")


def _unfolded(lines):
    """Equations without indentation: tags before them, where no page is too narrow; without tags, one a line."""
    depth = min(len(line) - len(line.lstrip()) for line in lines)
    parts = [re.fullmatch(rf"(.*?)((?: *{TAG.pattern})*)", line[depth:]) for line in lines]
    width = max(len(part[2].strip()) for part in parts)
    if width:
        return "\n".join(f"{part[2].strip():{width}}  {part[1]}" for part in parts)
    text = "\n".join(part[1] for part in parts)
    return text if len(text) < 72 else re.sub(r"([,;]) {2,}", r"\1\n", text)


def prose(text):
    """A paragraph, in which only code between backticks, and words between quotes, are marked up."""
    parts = re.split(r"""(``[^`]+``|`[^`]+`|"[\w.]+")""", text)
    found = "".join(_code(part.strip("`")) if i % 2 else _escaped(part) for i, part in enumerate(parts))
    # What begins like a list, an option or a field is none.
    return found if re.match(r"[A-Za-z]{2,}(?!\.\s)|A ", found) else f"\\ {found}"


def _code(code):
    """Code as such, and as a link where it is a public name."""
    name = code.removesuffix("()")
    if name in reference_parts.public_names():
        return f":py:obj:`{code} <nalu_np.{name}>`"
    return f"``{code}``"


def _named(kind):
    """A type, with the classes of the library as links."""
    return re.sub(r"[A-Z]\w+", lambda m: _class(m[0]), _escaped(kind))


def _class(name):
    return f":py:obj:`{name} <nalu_np.{name}>`" if name in reference_parts.public_names() else name


def _escaped(text):
    return re.sub(r"([\\*|`]|_(?!\w))", r"\\\1", text)


def _linked(text):
    """Escaped text, its tags as links."""

    def link(match):
        page = derivations().get(match[1].replace("\\", ""))
        return match[0] if page is None else f"`{match[0]} <../derivations/{page}>`__"

    return re.sub(r"\[([a-z]+\.\d+(?:\\\*)?)\]", link, text)


@cache
def derivations():
    """Where each equation is derived: its page and anchor."""
    return {
        tag: f"{path.stem}.html#{tag}"
        for path in sorted((HERE / "derivations").glob("*.md"))
        for tag in re.findall(r'<a id="([a-z]+\.\d+\*?)">', path.read_text(encoding="utf-8"))
    }


def _indented(lines, by):
    return [" " * by + line if line else line for line in lines]


def process(app, what, name, obj, options, lines):
    """Sphinx' hook: a docstring in place."""
    lines[:] = rest(lines)


def expand(app, page, source):
    """On the page of the API, put the documentation of each group below the list of its names."""
    if page == "reference/api":
        source[0] = re.sub(r"<!-- write: api (\w+) -->\n(.*?)<!-- end -->", _group, source[0], flags=re.DOTALL)


def _group(region):
    names = re.sub(r"^- `([\w.]+)`", r"- {py:obj}`\1 <nalu_np.\1>`", region[2], flags=re.MULTILINE)
    directives = "\n".join(reference_parts.directives(region[1]))
    return f"{names}\n```{{eval-rst}}\n{directives}\n```\n"


def configure(app, config):
    """Short signatures: types and shapes are in the text."""
    config.add_module_names = False
    config.autodoc_typehints = "none"
    config.autodoc_preserve_defaults = True
    config.autodoc_member_order = "bysource"
    config.toc_object_entries_show_parents = "hide"


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.viewcode")
    app.connect("config-inited", configure)
    app.connect("autodoc-process-docstring", process)
    app.connect("source-read", expand)
    return {"parallel_read_safe": True}
