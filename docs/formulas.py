"""The formulas of the library: read from its docstrings, set in TeX, evaluated, and their adjoints proven.

A formula is written once, in the docstring above the code that computes it, entry by entry and in Python's syntax,
with its tag at the end of the line:

    r_bi = abs(x_bi) + eps,  l_bi = log(r_bi)                                             [product.1]
    dW_io = sum_b(l_bi * dp_bo)                                                           [product.2*]

The letters after a name's last underscore are its indices. The same text is evaluated with numbers, to be compared
with the code, and with SymPy's symbols, to be compared with what SymPy derives.
"""

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp

import nalu_np
from nalu_np import vjps

PACKAGE = Path(nalu_np.__file__).parent
INDICES = "sptbiojkq"  # replica, parameter, time, batch, input, output, unit, unit, column
SIZES = {"B": "b", "O": "o", "I": "i"}
CONSTANT = {"eps", "target", "s"}  # inputs without a gradient; s is the sign of a product

TAG = re.compile(r"\[([a-z]\w*\.\d+\*?)\]")
LINE = re.compile(rf"^ *(\S.* = .*?) +{TAG.pattern}$", re.MULTILINE)
OVER = re.compile(rf"(sum|prod)_([{INDICES}])")


@dataclass(frozen=True)
class Equation:
    """`name` with the indices `indices` is `right`."""

    name: str
    indices: str
    right: ast.expr

    @property
    def text(self) -> str:
        """As it is written."""
        return f"{_written(self.name, self.indices)} = {ast.unparse(self.right)}"


@dataclass
class System:
    """The equations of one docstring, in its order, and the lines of code under it that compute them."""

    where: str
    forward: list[tuple[str, Equation]] = field(default_factory=list)
    adjoint: list[tuple[str, Equation]] = field(default_factory=list)
    code: dict[str, list[str]] = field(default_factory=dict)

    @property
    def equations(self) -> list[tuple[str, Equation]]:
        """All of them."""
        return self.forward + self.adjoint


def _written(name: str, indices: str) -> str:
    return f"{name}_{indices}" if indices else name


def split(written: str) -> tuple[str, str]:
    """A name and its indices: W_hat_io is W_hat with i and o, and W_hat is W_hat."""
    name, _, last = written.rpartition("_")
    return (name, last) if name and set(last) <= set(INDICES) else (written, "")


def equations(line: str) -> Iterator[Equation]:
    """The equations of a line, which are separated by a comma and two spaces."""
    for text in line.split(",  "):
        try:
            statement = ast.parse(text).body[0]
            assert isinstance(statement, ast.Assign)
            (target,) = statement.targets
            assert isinstance(target, ast.Name)
        except (SyntaxError, AssertionError, ValueError):
            raise ValueError(f"{text!r} is no equation; write it as in a_bo = sum_i(x_bi * W_io)") from None
        yield Equation(*split(target.id), statement.value)


# --- reading the source ---------------------------------------------------------------------------------------


@cache
def systems() -> dict[str, System]:
    """Of each docstring with equations, by file and name: "vjps.py: linear"."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for name, node in _documented(ast.parse(source)):
            text = ast.get_docstring(node) or ""
            lines = LINE.findall(text)
            if len(lines) != len(re.findall(r" = .* \[[a-z]\w*\.\d[^ ]*\W*$", text, re.MULTILINE)):
                raise ValueError(
                    f"{path.name}, {name}: a line is no equation with one tag at its end, as [sum.1*]"
                )
            if not lines:
                continue
            system = System(f"{path.relative_to(PACKAGE)}: {name}")
            for line, tag in lines:
                side = system.adjoint if tag.endswith("*") else system.forward
                side += [(tag, equation) for equation in equations(line)]
            system.code = _code(source, node)
            found[system.where] = system
    return found


def _documented(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from _documented(child, f"{prefix}{child.name}.")


def _code(source: str, node: ast.AST) -> dict[str, list[str]]:
    """The statements beside whose last line a tag stands in a comment, by tag, in the order of the source."""
    lines, found = source.splitlines(), dict[str, list[str]]()
    simple = (ast.Assign, ast.AugAssign, ast.Return, ast.Expr, ast.AnnAssign)
    for statement in ast.walk(node):
        if isinstance(statement, simple) and statement.end_lineno is not None:
            _, _, comment = lines[statement.end_lineno - 1].partition("  # ")
            for tag in TAG.findall(comment):
                found.setdefault(tag, []).append((statement.lineno, ast.get_source_segment(source, statement)))
    return {tag: [text for _, text in sorted(statements)] for tag, statements in found.items()}


def code(tag: str) -> list[str]:
    """The statements that compute a tag's equations, under its docstring or else anywhere."""
    found = stated()[tag].code.get(tag) or [c for system in systems().values() for c in system.code.get(tag, [])]
    if not found:
        raise ValueError(f"[{tag}] stands beside no statement")
    return list(dict.fromkeys(found))


def used() -> dict[str, set[str]]:
    """Of each file, the tags in its comments."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        comments = re.findall(r"  # (.*)", path.read_text(encoding="utf-8"))
        if tags := {tag for comment in comments for tag in TAG.findall(comment)}:
            found[str(path.relative_to(PACKAGE))] = tags
    return found


def stated() -> dict[str, System]:
    """Of each tag the docstring that states it; a tag is stated in one docstring only."""
    found: dict[str, System] = {}
    for system in systems().values():
        for tag in dict.fromkeys(tag for tag, _ in system.equations):
            if tag in found:
                raise ValueError(f"[{tag}] is stated in {found[tag].where} and in {system.where}")
            found[tag] = system
    return found


# --- evaluating, with numbers or with symbols -----------------------------------------------------------------

NUMERIC: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "sigma": lambda z: 1 / (1 + np.exp(-z)),
}


def _entrywise(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return np.vectorize(function, otypes=[object])


SYMBOLIC = {name: _entrywise(getattr(sp, name)) for name in ("exp", "log", "tanh", "sqrt", "sign", "floor")}
SYMBOLIC |= {"abs": _entrywise(sp.Abs), "sigma": _entrywise(lambda z: (1 + sp.tanh(z / 2)) / 2)}


def names(node: ast.AST) -> set[str]:
    """The names that an expression reads, as they are written."""
    called = {
        call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - called


def evaluate(equation: Equation, values: dict[str, Any], functions: dict[str, Any]) -> Any:
    """The right side from arrays of its names, with the axes `equation.indices`, of size 1 if no name has one.

    While it is evaluated every array has all axes, of size 1 where it has no such index.
    """

    def spread(written: str) -> Any:
        name, indices = split(written)
        array = np.asarray(values[name])
        order = sorted(range(len(indices)), key=lambda axis: INDICES.index(indices[axis]))
        shape = [1] * len(INDICES)
        for axis in order:
            shape[INDICES.index(indices[axis])] = array.shape[axis]
        return array.transpose(order).reshape(shape)

    over = {"sum": np.sum, "prod": np.prod}
    sums = {f"{name}_{k}": _reduce(over[name], axis) for name in over for axis, k in enumerate(INDICES)}
    read = {name: spread(name) for name in names(equation.right)}
    code = compile(ast.Expression(ast.fix_missing_locations(equation.right)), equation.text, "eval")
    result = np.asarray(eval(code, {"__builtins__": {}, **functions, **sums, **read}))
    result = result.reshape(result.shape or (1,) * len(INDICES))
    kept = sorted(equation.indices, key=INDICES.index)
    others = tuple(axis for axis, k in enumerate(INDICES) if k not in equation.indices)
    return np.squeeze(result, axis=others).transpose([kept.index(k) for k in equation.indices])


def _reduce(function: Any, axis: int) -> Callable[[Any], Any]:
    def reduce(e: Any) -> Any:
        if np.ndim(e) == 0 or e.shape[axis] == 1:
            raise ValueError(f"a sum over {INDICES[axis]} of what has no such index")
        return function(e, axis=axis, keepdims=True)

    return reduce


# --- the same from the library ---------------------------------------------------------------------------------

#: Values that the code cuts into the gates' parts, in the order of the columns.
PARTS = {
    "layers/cells.py: GRU": {"u": ("u_r", "u_z", "u_n"), "v": ("v_r", "v_z", "v_n")},
    "layers/cells.py: LSTM": {"a": ("a_i", "a_f", "a_g", "a_o")},
}


def by_formula(system: System, given: dict[str, Any]) -> dict[str, Any]:
    """Every value and gradient by a docstring's equations, from its inputs and the gradients of its outputs."""
    values, parts = dict(given), PARTS.get(system.where, {})
    for equation in _in_order(system):
        for whole, cut in parts.items():
            if f"d{whole}" not in values and all(f"d{part}" in values for part in cut):
                values[f"d{whole}"] = np.concatenate([values[f"d{part}"] for part in cut], axis=-1)
        values[equation.name] = evaluate(equation, values, NUMERIC)
        if equation.name in parts:
            cut = parts[equation.name]
            values |= zip(cut, np.split(values[equation.name], len(cut), axis=-1), strict=True)
    return {name: value for name, value in values.items() if name not in given}


def _in_order(system: System) -> Iterator[Equation]:
    """Each equation after those whose names it reads."""
    waiting = [q for _, q in system.equations]
    made = {q.name: q for q in waiting}
    parts = {p: w for w, cut in PARTS.get(system.where, {}).items() for p in cut}
    parts |= {f"d{w}": f"d{p}" for p, w in parts.items()}
    done: set[str] = set()
    while waiting:
        ready = [
            q
            for q in waiting
            if all(n in done or n not in made for n in (parts.get(n, n) for n, _ in map(split, names(q.right))))
        ]
        if not ready:
            raise ValueError(f"{system.where}: {waiting[0].text} reads what no equation makes")
        yield ready[0]
        done.add(ready[0].name)
        waiting.remove(ready[0])


def by_library(system: System, given: dict[str, Any]) -> dict[str, Any]:
    """The values and gradients that the library returns for them, by the same names."""
    value, _, gradients = run(system, given)
    return {**value, **gradients()}


Run = tuple[dict[str, Any], Callable[..., Any], Callable[[], dict[str, Any]]]


def run(system: System, given: dict[str, Any]) -> Run:
    """The library's value, its vjp, and a function that calls it and names the gradients."""
    file, name = system.where.split(": ")
    outputs = [q.name for _, q in system.forward if f"d{q.name}" in given]
    if file == "layers/cells.py":
        return _cell(getattr(nalu_np, name), given)
    if file == "vjps.py" or name == "LogNAC._path":
        return _block(getattr(vjps, name.replace("LogNAC._path", "log_product")), outputs[0], given)
    unit = getattr(nalu_np, name.partition(".")[0])
    options = {option.name: given[option.name] for option in dataclasses.fields(unit) if option.name in given}
    layer = unit(given["x"].shape[-1], given[f"d{outputs[0]}"].shape[-1], **options)
    value, vjp = layer({n: given[n] for n in layer.shapes()}, given["x"])

    def gradients() -> dict[str, Any]:
        dx, dparams = vjp(given[f"d{outputs[0]}"])
        return {"dx": dx, **{f"d{n}": q for n, q in dparams.items()}}

    return {outputs[0]: value}, vjp, gradients


def _block(block: Callable[..., Any], output: str, given: dict[str, Any]) -> Run:
    """A block of vjps.py; losses are of stacked replicas, and here there is one."""
    lead = (None,) if block in vjps.LOSSES.values() else ()
    options = [
        n for n, option in inspect.signature(block).parameters.items() if option.kind is option.KEYWORD_ONLY
    ]
    read = [n for n in inspect.signature(block).parameters if n not in options]
    arguments = [given[n][lead or ...] if n in given else np.ones((1, 1)) for n in read]  # independent_gate's x
    value, vjp = block(*arguments, **{n: given[n] for n in options})

    def gradients() -> dict[str, Any]:
        found = vjp(np.reshape(given[f"d{output}"], value.shape))
        found = found if isinstance(found, tuple) else (found,)
        pairs = zip(read, found, strict=False)
        return {f"d{n}": np.reshape(q, np.shape(given[n])) for n, q in pairs if n in given}

    return {output: np.reshape(value, np.shape(given[f"d{output}"]))}, vjp, gradients


def _cell(kind: Any, given: dict[str, Any]) -> Run:
    """One step of a cell, whose state and gradients are transposed; an LSTM's holds h and c."""
    cell = kind(given["x"].shape[-1], given["h"].shape[-1])
    two = "c" in given
    state = np.stack([given["h"].T, given["c"].T]) if two else given["h"].T
    (y, _), vjp = cell.step({n: given[n] for n in cell.shapes()}, given["x"], state)
    zero = np.zeros_like(given["h"].T)

    def gradients() -> dict[str, Any]:
        dx, dparams, dstate = vjp(given["dh_new"], np.stack([zero, given["dc_next"].T]) if two else zero)
        dstates = {"dh": dstate[0].T, "dc": dstate[1].T} if two else {"dh": dstate.T}
        return {"dx": dx, **dstates, **{f"d{n}": q for n, q in dparams.items()}}

    return {"h_new": y}, vjp, gradients


#: Docstrings whose equations are a few symbols between other units; each has a test of its own.
BETWEEN = ("Accumulator", "Scan.forward", "_Path._scaled", "ProductPath.forward")


def compared() -> list[System]:
    """The docstrings with adjoints whose code can be run by itself."""
    return [s for s in systems().values() if s.adjoint and s.where.split(": ")[1] not in BETWEEN]


def point(
    system: System, rng: np.random.Generator, sizes: dict[str, int], dtype: str = "float64"
) -> dict[str, Any]:
    """Random inputs of a docstring's equations, and gradients of its outputs."""
    cut = PARTS.get(system.where, {})
    made = {q.name for _, q in system.equations} | {p for parts in cut.values() for p in parts}
    made |= {f"d{name}" for name in cut}
    given: dict[str, Any] = {}
    for name, indices in sorted(split(n) for _, q in system.equations for n in names(q.right)):
        if name in SIZES:
            given[name] = sizes[SIZES[name]]
        elif name == "eps":
            given[name] = 0.25  # so large that a gradient which forgets it is far off
        elif name not in made:
            width = max(map(len, cut.values()), default=1)
            shape = [sizes[k] * (width if k == "q" else 1) for k in indices]
            given[name] = rng.normal(size=shape).astype(dtype)
    return given


# --- proving --------------------------------------------------------------------------------------------------


def _symbols(system: System, size: int) -> dict[str, Any]:
    """An array of symbols for each name, with as many axes as it has indices."""
    written = {_written(q.name, q.indices) for _, q in system.equations}
    written |= {name for _, q in system.equations for name in names(q.right)}
    found: dict[str, Any] = {}
    for name, indices in map(split, sorted(written)):
        if name in SIZES:
            found[name] = np.array(sp.Symbol(name, positive=True), dtype=object)
        elif name not in found:
            flat = [
                sp.Symbol(f"{name}_{n}", real=True, positive=name == "eps" or None)
                for n in range(size ** len(indices))
            ]
            found[name] = np.array(flat, dtype=object).reshape((size,) * len(indices))
    return found


def refuted(system: System, size: int = 2) -> list[str]:
    """The adjoints of a docstring that are not what SymPy derives from its forward equations, and why.

    The gradient with respect to q is the sum, over all r that q enters, of dr times SymPy's derivative of r by q,
    with dr a symbol where an equation states it: each step is compared by itself, and together they are the chain
    rule.
    """
    problems = _unsound(system)
    if problems:
        return problems
    symbols, under = _symbols(system, size), {q.name: tag for tag, q in system.forward}
    right = {
        q.name: np.broadcast_to(evaluate(q, symbols, SYMBOLIC), symbols[q.name].shape) for _, q in system.forward
    }
    known = {s: e for name in right for s, e in zip(symbols[name].ravel(), right[name].ravel(), strict=True)}
    values = dict(symbols)  # a part of a gradient is what it was proven to be, all else a symbol
    for tag, equation in system.adjoint:
        given = np.broadcast_to(evaluate(equation, values, SYMBOLIC), symbols[equation.name].shape)
        of, through = equation.name[1:], right
        if equation.name[0] != "d" or of not in _read(system.forward) | set(right):
            # A part of a gradient, as dW_a of dW = dW_a + dW_m: what comes through the equations of its own tag.
            of, through = of.rpartition("_")[0], {n: e for n, e in right.items() if under[n] == tag[:-1]}
            if of not in symbols or equation.name[0] != "d":
                problems.append(
                    f"{system.where}: {equation.name} is neither a gradient of a value nor a part of one"
                )
                continue
            values[equation.name] = given
        expected = _gradient(of, through, symbols)
        for index in np.ndindex(given.shape):
            difference = _plain(expected[index] - given[index], known)
            if difference != 0:
                at = f"entry {index} of {_written(equation.name, equation.indices)}"
                problems.append(f"[{tag}] {equation.text}: {at} differs from SymPy's derivative by {difference}")
                break
        known |= zip(symbols[equation.name].ravel(), given.ravel(), strict=True)
    return problems


def _read(side: list[tuple[str, Equation]]) -> set[str]:
    return {split(name)[0] for _, q in side for name in names(q.right)}


def _unsound(system: System) -> list[str]:
    """What would let a wrong adjoint pass: a name stated twice, a gradient needed or read but not stated."""
    made = [q.name for _, q in system.equations]
    values, read = {q.name for _, q in system.forward}, _read(system.forward)
    needed = {f"d{name}" for name in read - values - CONSTANT - SIZES.keys()}
    given = {f"d{name}" for name in values - read} | values | read | CONSTANT | SIZES.keys()
    problems = [f"{name} is stated twice" for name in {n for n in made if made.count(n) > 1}]
    problems += [f"{name} is not stated" for name in needed | (_read(system.adjoint) - given) if name not in made]
    list(_in_order(system))  # raises if two equations read each other
    return [f"{system.where}: {problem}" for problem in sorted(problems)]


def _gradient(name: str, right: dict[str, Any], symbols: dict[str, Any]) -> Any:
    """dL by `name`: for each value that it enters, that value's gradient times SymPy's derivative."""
    total = np.zeros(symbols[name].shape, dtype=object)
    entered = False
    for value, expressions in right.items():
        if not any(expression.has(*symbols[name].ravel()) for expression in expressions.ravel()):
            continue
        entered = True
        dvalue = symbols[f"d{value}"] if f"d{value}" in symbols else _gradient(value, right, symbols)
        for index in np.ndindex(total.shape):
            terms = zip(dvalue.ravel(), expressions.ravel(), strict=True)
            total[index] += sum(d * sp.diff(expression, symbols[name][index]) for d, expression in terms)
    if not entered:
        raise ValueError(f"{name} enters no equation, so d{name} cannot be a gradient")
    return total


def _plain(difference: Any, known: dict[Any, Any]) -> Any:
    """0 where a difference vanishes once values are replaced by what they are made of, else the difference."""
    written = difference
    while (difference := sp.expand(difference)) != 0 and difference.free_symbols & known.keys():
        difference = difference.subs(known)
    symbols = sorted(difference.free_symbols, key=str)
    rng = np.random.default_rng(0)
    # What is not 0 at a point is not 0, and SymPy need not simplify it, which may take it minutes.
    at = dict(zip(symbols, rng.uniform(0.5, 1.5, len(symbols)), strict=True))
    if abs(difference.evalf(subs=at)) > 1e-9 or sp.simplify(difference) != 0:
        return written
    return sp.Integer(0)


# --- TeX ------------------------------------------------------------------------------------------------------

TEX = {
    "eps": r"\varepsilon",
    "delta": r"\delta",
    "theta": r"\theta",
    "alpha": r"\alpha",
    "b1": r"\beta_1",
    "b2": r"\beta_2",
    "lr": r"\eta",
    "target": r"\mathrm{target}",
    "state": r"\mathrm{state}",
}
PRECEDENCE = {ast.Add: 1, ast.Sub: 1, ast.Mult: 2, ast.Div: 2, ast.Mod: 2, ast.USub: 2, ast.Pow: 4}


def symbol(name: str) -> str:
    r"""A name without indices: \hat{W}, d\hat{W}, h', u^{r}."""
    if name.startswith("d") and name not in TEX and len(name) > 1:
        return "d" + symbol(name[1:])
    base, *marks = name.split("_")
    tex = TEX.get(base, base)
    for mark in marks:
        tex = {"hat": rf"\hat{{{tex}}}", "new": f"{tex}'", "next": f"{tex}''"}.get(mark, rf"{tex}^{{{mark}}}")
    return tex


def _braced(tex: str) -> str:
    """TeX that can take a superscript: it has none yet, or is in braces."""
    return f"{{{tex}}}" if re.search(r"['^]", tex) and not tex.startswith(r"\left") else tex


class Entries:
    """TeX of one entry, with all indices; `order` is that of the left side's."""

    def __init__(self, order: str) -> None:
        self.order = order

    def name(self, written: str) -> str:
        name, indices = split(written)
        return f"{symbol(name)}_{{{indices}}}" if indices else symbol(name)

    def product(self, left: str, right: str) -> str:
        return rf"{left}\,{right}"

    def tex(self, node: ast.expr, outer: int = 0) -> str:
        """An expression, in brackets where what is around it binds more tightly."""
        match node:
            case ast.Name(id=written):
                return self.name(written)
            case ast.Constant(value=number):
                return str(number)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                sign = {ast.Lt: "<", ast.Eq: "="}[type(op)]
                return rf"[{self.tex(left)} {sign} {self.tex(right)}]"
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                tex, own = f"-{self.tex(operand, 2)}", 2
            case ast.Call(func=ast.Name(id=function), args=[argument]):
                return self.call(function, argument, outer)
            case ast.BinOp(op=ast.Div(), left=left, right=right):
                return rf"\frac{{{self.tex(left)}}}{{{self.tex(right)}}}"
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                return self.power(left, right)
            case ast.BinOp(left=left, op=op, right=right):
                own = PRECEDENCE[type(op)]
                first, second = self.tex(left, own), self.tex(right, own + isinstance(op, ast.Sub))
                if isinstance(op, ast.Mult):
                    tex = self.multiplied(left, right, first, second)
                else:
                    tex = f"{first} {({ast.Add: '+', ast.Sub: '-', ast.Mod: chr(92) + 'bmod'})[type(op)]} {second}"
            case _:
                raise ValueError(f"{ast.unparse(node)!r} has no TeX")
        return rf"\left({tex}\right)" if own < outer else tex

    def multiplied(self, left: ast.expr, right: ast.expr, first: str, second: str) -> str:
        return self.product(first, second)

    def power(self, base: ast.expr, exponent: ast.expr) -> str:
        if isinstance(base, ast.Call) and isinstance(base.func, ast.Name) and base.func.id == "tanh":
            return rf"\{base.func.id}^{{{self.tex(exponent)}}}\left({self.tex(base.args[0])}\right)"
        tex = _braced(self.tex(base, 5))
        return rf"{tex}^{{{self.tex(exponent)}}}"

    def call(self, function: str, argument: ast.expr, outer: int) -> str:
        if over := OVER.fullmatch(function):
            nested = isinstance(argument, ast.Call) and OVER.match(ast.unparse(argument))
            tex = rf"\{over[1]}_{{{over[2]}}} {self.tex(argument, 1 if nested else 2)}"
            return rf"\left({tex}\right)" if outer > 1 else tex
        inner = self.tex(argument)
        if function == "abs":
            return rf"\lvert {inner} \rvert"
        if function == "sqrt":
            return rf"\sqrt{{{inner}}}"
        if function == "floor":
            return rf"\left\lfloor {inner} \right\rfloor"
        if function not in NUMERIC:
            raise ValueError(f"{function} is no function that formulas know; they are {', '.join(NUMERIC)}")
        known = {"sigma": r"\sigma", "sign": r"\operatorname{sign}"}.get(function, rf"\{function}")
        return rf"{known}\left({inner}\right)"


class Matrices(Entries):
    """TeX without indices: sums over products become products of matrices, all else acts entry by entry.

    Raises LookupError where a formula has no such form.
    """

    def name(self, written: str) -> str:
        return symbol(split(written)[0])

    def tex(self, node: ast.expr, outer: int = 0) -> str:
        """As above, where the axes of one side are among those of the other."""
        if isinstance(node, ast.BinOp):
            left, right = free(node.left), free(node.right)
            if not (left <= right or right <= left):
                raise LookupError(ast.unparse(node))
        return super().tex(node, outer)

    def multiplied(self, left: ast.expr, right: ast.expr, first: str, second: str) -> str:
        both = free(left) and free(right)
        return rf"{first} \odot {second}" if both else self.product(first, second)

    def call(self, function: str, argument: ast.expr, outer: int) -> str:
        over = OVER.fullmatch(function)
        if not over:
            return super().call(function, argument, outer)
        if over[1] == "prod":
            raise LookupError(function)
        k, result = function[4:], free(argument) - set(function[4:])
        row, *column = sorted(result, key=(self.order + INDICES).index) or [""]
        sides: list[list[ast.expr]] = [[], []]
        for factor in factors(argument):
            indices = free(factor)
            if k not in indices or len(indices) > 2 or len(column) > 1:
                raise LookupError(ast.unparse(argument))
            sides[bool(column) and column[0] in indices].append(factor)
        if not column:  # a row of ones before the matrix, or a column of ones after it
            tex = self.tex(argument, 2 + (len(sides[0]) > 1))
            after = any(split(name)[1] == row + k for name in names(argument)) and row
            return rf"{tex}\,\mathbf{{1}}" if after else rf"\mathbf{{1}}^\top {tex}"
        if not all(sides):
            raise LookupError(ast.unparse(argument))
        tex = r"\,".join(
            self._side(side, order) for side, order in zip(sides, (row + k, k + column[0]), strict=True)
        )
        return rf"\left({tex}\right)" if outer > 1 else tex

    def _side(self, side: Sequence[ast.expr], order: str) -> str:
        tex = r" \odot ".join(self.tex(factor, 3) for factor in side)
        if len(side) > 1:
            tex = rf"\left({tex}\right)"
        stored = {split(n)[1] for factor in side for n in names(factor)} - {""}
        if all(indices == order for indices in stored):
            return tex
        if all(indices == order[::-1] for indices in stored):
            return rf"{_braced(tex)}^\top"
        raise LookupError(tex)


def free(node: ast.expr) -> set[str]:
    """The indices of an expression's value."""
    found = {k for name in names(node) for k in split(name)[1]}
    return found - {
        call.func.id[-1]
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and OVER.fullmatch(call.func.id)
    }


def factors(node: ast.expr) -> Iterator[ast.expr]:
    """The factors of a product."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from factors(node.left)
        yield from factors(node.right)
    else:
        yield node


def tex(equation: Equation, form: type[Entries]) -> str:
    """left = right."""
    written = form(equation.indices)
    return f"{written.name(_written(equation.name, equation.indices))} = {written.tex(equation.right)}"
