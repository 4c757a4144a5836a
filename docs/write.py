"""Write the generated parts of the committed pages: equations, code, checks, outputs of examples, tables.

Run from the project's root:  python docs/write.py [PAGE ...]      (all pages without arguments)

A page has regions, which are replaced by what PARTS makes of the argument:

    <!-- write: code nalu -->
    <!-- end -->

and examples in fences of ```python, whose outputs are replaced by what they print. A test does the same and fails
where a committed page differs.
"""

import ast
import contextlib
import doctest
import functools
import io
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nalu_np as nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import formulas as f  # noqa: E402  (the folder of this file is no package)
import reference_parts  # noqa: E402

REGION = re.compile(r"(<!-- write: ([\w-]+)([^\n]*) -->\n)((?:(?!<!-- write:).)*?)(<!-- end -->)", re.DOTALL)
FENCE = re.compile(r"(?<=^```python\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """The committed pages."""
    built = {HERE.parent / "site", HERE / "_figures"}
    return [HERE.parent / "README.md", *sorted(p for p in HERE.rglob("*.md") if not built & set(p.parents))]


def written(text: str) -> str:
    """A page with its regions and the outputs of its examples made anew."""
    text, count = REGION.subn(lambda m: f"{m[1]}\n{PARTS[m[2]](m[3].strip()).strip()}\n\n{m[5]}", text)
    if count != text.count("<!-- write"):
        raise ValueError(
            "a region is not opened as <!-- write: NAME --> or closed with <!-- end --> before the next"
        )
    return _examples(text) if ">>> " in text else text


# --- equations ------------------------------------------------------------------------------------------------


def _tags(argument: str, adjoint: bool) -> Iterator[tuple[str, list[f.Equation]]]:
    """The tags of a group such as `nalu`, or the tags named, with their equations."""
    wanted = argument.split()
    if unknown := {w for w in wanted if not any(w in (tag, tag.partition(".")[0]) for tag in f.stated())}:
        raise ValueError(f"no equation has a tag like {', '.join(sorted(unknown))}")
    for tag, system in f.stated().items():
        if (tag in wanted or tag.partition(".")[0] in wanted) and tag.endswith("*") == adjoint:
            yield tag, [q for t, q in system.equations if t == tag]


def _displayed(argument: str, adjoint: bool, form: type[f.Entries]) -> str:
    parts = []
    for tag, equations in _tags(argument, adjoint):
        lines = [_tex(q, form).replace(" = ", " &= ", 1) for q in equations]
        body = " \\\\\n".join(lines)
        body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}" if len(lines) > 1 else body.replace("&=", "=")
        anchor = f'<a id="{tag}"></a>\n\n' if form is f.Matrices else ""
        parts.append(f"{anchor}$$\n{body}\n\\tag{{{tag}}}\n$$")
    return "\n\n".join(parts)


def _tex(equation: f.Equation, form: type[f.Entries]) -> str:
    """In matrices where the formula has that form, else entry by entry."""
    try:
        return f.tex(equation, form)
    except LookupError:
        return f.tex(equation, f.Entries)


def entries(argument: str) -> str:
    """Forward equations and adjoints, entry by entry."""
    return "\n\n".join(_displayed(argument, adjoint, f.Entries) for adjoint in (False, True))


def code(argument: str) -> str:
    """Two columns: each formula beside the statements that compute it."""
    both = [*_tags(argument, False), *_tags(argument, True)]
    lines = ["| formula | code |", "|---|---|"]
    for tag, equations in both:
        # In a line some code hosts take a backslash before punctuation for Markdown's.
        left = "<br>".join(f"${_tex(q, f.Matrices)}$".replace(r"\,", r"\thinspace ") for q in equations)
        found = f.code(tag)
        right = "<br>".join(f"`{' '.join(s.split())}`".replace("|", "\\|") for s in found)
        lines.append(f"| [{tag}] {left} | {right} |")
    files = sorted({f.stated()[tag].where.partition(":")[0] for tag, _ in both})
    return "\n".join(lines) + f"\n\nThe code is in {' and '.join(f'`nalu_np/{file}`' for file in files)}."


# --- numbers --------------------------------------------------------------------------------------------------


def check(argument: str) -> str:
    """The first entry of each gradient by formula, by the library and by differences of the library's values."""
    system = _system(argument)
    given = f.point(system, np.random.default_rng(1), dict.fromkeys(f.INDICES, 2))
    formula, library = f.by_formula(system, given), f.by_library(system, given)
    lines = ["| | by the formula | by the library | by differences |", "|---|---:|---:|---:|"]
    for name, value in library.items():
        differences = _differences(system, given, name[1:]) if name not in _outputs(system, given) else None
        for other, tolerance in [(formula[name], 1e-12), (differences, 1e-6)]:
            if other is not None and not np.allclose(value, other, rtol=tolerance, atol=tolerance):
                raise ValueError(f"{system.where}: {name} of the library is {value}, not {other}")
        shown = (formula[name], value, differences)
        row = ["" if q is None else f"{np.asarray(q).ravel()[0]:.6f}" for q in shown]
        index = "0" * np.ndim(value)
        lines.append(f"| ${_entry(name, index)}$ | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _entry(name: str, index: str) -> str:
    return f"{f.symbol(name)}_{{{index}}}" if index else f.symbol(name)


def _system(argument: str) -> f.System:
    (found,) = [s for s in f.compared() if s.where.split(": ")[1] == argument]
    return found


def _outputs(system: f.System, given: dict[str, Any]) -> list[str]:
    return [q.name for _, q in system.forward if f"d{q.name}" in given]


def _differences(system: f.System, given: dict[str, Any], name: str) -> Any:
    """Central differences of L = sum of douput times output, entry by entry."""
    outputs, h = _outputs(system, given), 1e-6

    def loss(moved: Any) -> float:
        values = f.by_formula(system, {**given, name: moved}) | f.by_library(system, {**given, name: moved})
        return sum(float(np.sum(given[f"d{q}"] * values[q])) for q in outputs)

    found = np.empty_like(given[name])
    for index in np.ndindex(found.shape):
        step = np.zeros_like(found)
        step[index] = h
        found[index] = (loss(given[name] + step) - loss(given[name] - step)) / (2 * h)
    return found


def stored(argument: str) -> str:
    """What a vjp keeps for the backward pass: the arrays in its closure, with their bytes."""
    vjp, values, owners = _path(argument) if argument in ("SumPath", "ProductPath") else _stated(argument)
    letters = {128: "B", 8: "I", 4: "H" if "h_new" in owners else "O"}
    kept: dict[int, tuple[str, Any]] = {}
    for name, array in _kept(vjp, set()):
        if array.size > 1:  # else it stands in for an input that has no part in the formula
            address = array.__array_interface__["data"][0]
            kept.setdefault(address, (_named(array, values) or name, array))
    lines = ["| kept | shape | bytes, float32 |", "|---|---|---:|"]
    total = 0
    for name, array in sorted(kept.values(), key=lambda pair: pair[0].lower() + pair[0]):
        shape = ", ".join(letters.get(n) or f"{n // 4} H" for n in array.shape if n > 1)
        total += 0 if name in owners else array.nbytes
        lines.append(f"| ${f.symbol(name)}$ | ({shape}) | {owners.get(name, f'{array.nbytes:,}')} |")
    example = ", ".join(f"{letter} = {n}" for n, letter in letters.items())
    return "\n".join(lines) + f"\n\nTogether {total:,} bytes beside arguments and output, for {example}."


#: A vjp, values by name, and which of them are arguments or the output.
Run = tuple[Callable[..., Any], dict[str, Any], dict[str, str]]


def _stated(argument: str) -> Run:
    """Of what a docstring states."""
    system = _system(argument)
    sizes = {**dict.fromkeys(f.INDICES, 4), "b": 128, "i": 8}
    given = f.point(system, np.random.default_rng(1), sizes, "float32")
    owners = dict.fromkeys(given, "an argument") | dict.fromkeys(_outputs(system, given), "the output")
    return f.run(system, given)[1], {**given, **f.by_formula(system, given)}, owners


def _path(argument: str) -> Run:
    """Of a path with a constant, whose equations stand in several docstrings."""
    layer = getattr(nn, argument)(8, 4, scale=True)
    rng = np.random.default_rng(1)
    given = {
        name: rng.normal(size=shape).astype("float32")
        for name, shape in [*layer.shapes().items(), ("x", (128, 8))]
    }
    y, vjp = layer.forward({name: given[name] for name in layer.shapes()}, given["x"])
    p = y / given["c"]
    values = {**given, "y": y, "p": p, "r": np.abs(p), "s": np.sign(p), r"\lvert x \rvert": np.abs(given["x"])}
    return vjp, values, dict.fromkeys(given, "an argument") | {"y": "the output"}


def _named(array: Any, values: dict[str, Any]) -> str | None:
    """The formula's name of an array, which another block may know by another: |x| is the x of a gate's sum."""
    array = np.squeeze(array)
    for name, value in values.items():
        if any(np.shape(q) == array.shape and np.allclose(q, array) for q in (value, np.transpose(value))):
            return name
    return None


def _kept(function: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The arrays in a function's closure and in those of the functions in it, by the names they have there."""
    if id(function) in seen or not hasattr(function, "__closure__"):
        return
    seen.add(id(function))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = cell.cell_contents
        if isinstance(value, np.ndarray):
            yield name, value
        elif callable(value):
            yield from _kept(value, seen)


# --- examples -------------------------------------------------------------------------------------------------


def _examples(text: str) -> str:
    """Run a page's examples one after the other in an empty folder, and put what they print in its place."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    checker = doctest.OutputChecker()

    def run(fence: re.Match[str]) -> str:
        lines, after_block = [], False
        for part in doctest.DocTestParser().parse(fence[0]):
            if isinstance(part, str):
                # At a prompt a block ends with an empty line, and what a page shows can be pasted there.
                lines.append("\n" if after_block and not part else part)
                continue
            after_block = isinstance(getattr(ast.parse(part.source).body[0], "body", None), list)
            source = part.source.splitlines(keepends=True)
            lines += [
                (">>> " if n == 0 else "... " if line.strip() else "...") + line for n, line in enumerate(source)
            ]
            got = _printed(part.source, namespace)
            if got.startswith("Traceback") and not part.want.startswith("Traceback"):
                raise RuntimeError(f"an example fails:\n{part.source}{got}")
            same = bool(part.want) and checker.check_output(part.want, got, sum(part.options))
            lines.append(part.want if same else got)
        return "".join(lines)

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return FENCE.sub(run, text)


def _printed(source: str, namespace: dict[str, Any]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        shown, sys.displayhook = sys.displayhook, sys.__displayhook__
        try:
            exec(compile(source, "<example>", "single"), namespace)
        except Exception as error:
            last = "".join(traceback.format_exception_only(error))
            out.write(f"Traceback (most recent call last):\n    ...\n{last}")
        finally:
            sys.displayhook = shown
    return out.getvalue()


PARTS: dict[str, Callable[[str], str]] = {
    "forward": functools.partial(_displayed, adjoint=False, form=f.Matrices),
    "adjoint": functools.partial(_displayed, adjoint=True, form=f.Matrices),
    "entries": entries,
    "code": code,
    "check": check,
    "stored": stored,
    **reference_parts.PARTS,
}


def main(arguments: list[str]) -> None:
    """Write the pages that differ, and name them."""
    for path in [Path(a) for a in arguments] or pages():
        text = path.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
