"""A formula from trained weights: every weight snapped to 0, +-1/2 or +-1, every gate resolved to one path.

Weights of `SumPath` and `ProductPath` have no bounds, and are snapped to any multiple of 1/2 up to 4.

The formula is a tree of plain tuples, a node for each output:

    "mass"                                   a column
    ("sum", ((1, node), (-0.5, node)))       1 * node - 0.5 * node
    ("product", ((0.5, node), (-1, node)))   node^0.5 / node
    ("abs", node)

It is kept in one normal form, so that two networks that compute the same thing print the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .backend import from_numpy, library, to_numpy
from .errors import OptionError, ShapeError
from .kernels.planes import EQUATIONS
from .lattice import POINTS, rounded
from .layer import Chain, Layer, Params, check_built, check_names
from .units import NAC, NALU, LogNAC, ProductPath, SumPath

Host = NDArray[np.float64]
Node = Any  # str | ("sum" | "product", ((number, Node), ...)) | ("abs", Node): mypy has no recursive tuples here
Columns = Mapping[str, Host]

#: The constants to which weights are snapped: the stable points of a NAC, and the roots between them.
STABLE = (-1.0, -0.5, 0.0, 0.5, 1.0)

#: The sum of nothing.
ZERO = ("sum", ())

#: Largest RMS error of an exact formula, relative to the target's standard deviation.
EXACT = 1e-6

#: What can be read, where a subclass has left alone what makes it that.
READ = (NAC, LogNAC, NALU, SumPath, ProductPath)
READ_BY = (*EQUATIONS, "_scaled", "_symbol")


@dataclass(frozen=True)
class Formula:
    """What a layer computes, as an expression of its inputs.

    Attributes
    ----------
    terms : tuple
        A tree for each output.
    names : tuple of str
        The inputs' names, in the order of the columns of x.
    resolved : bool
        Whether every gate is on one side for all rows.
    error : float
        RMS error relative to the target's standard deviation, on the rows that were given; the worst output's.
    exact : bool
        Whether weights were snapped, `resolved` holds, and `error` is at most 1e-6.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> law = nn.formula(nn.SumPath(2, 1), {"W": np.array([[1.0], [-0.5]])}, np.ones((1, 2)), names=["a", "b"])
    >>> print(law, law.exact, law([[3.0, 4.0]]))
    a - 0.5 * b True [[1.]]
    """

    terms: tuple[Node, ...]
    names: tuple[str, ...]
    resolved: bool
    error: float
    exact: bool

    def __str__(self) -> str:
        return "; ".join(_text(term, self.names) for term in self.terms)

    def __call__(self, x: ArrayLike) -> Host:
        """Value of the formula for rows.

        Parameters
        ----------
        x : array
            (N, I), numbers on the host.

        Returns
        -------
        array
            (N, O) in float64; NaN or infinity where it is undefined.

        Raises
        ------
        ShapeError
            If there is not a column for each name.
        """
        return evaluate(self.terms, self.names, np.asarray(x, dtype=np.float64))


def formula(
    layer: Layer,
    params: Params,
    x: Any,
    y: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    snap: bool = True,
) -> Formula:
    """Read a formula out of one replica's weights.

    Parameters
    ----------
    layer : Layer
        A NAC, LogNAC, NALU, SumPath or ProductPath, or a chain of them. A subclass may have a penalty, a
        projection or initial values of its own, but no forward pass.
    params : mapping of str to array
        Of one replica, (...): `nn.replica(params, r)`.
    x : array
        (N, I): rows on which the gates are read; where a factor is positive in all of them, its bars are left out.
    y : array, optional
        (N, O): what the formula is held against, targets of rows that training has not used. Without it, the
        layer's own output: then `exact` says whether the formula is what the layer computes, not whether it is a
        law.
    names : sequence of str, optional
        The inputs' names; x1, x2 ... if left out.
    snap : bool
        False leaves the weights as they are, to three decimals: what the network computes, not what it means.

    Returns
    -------
    Formula

    Raises
    ------
    OptionError
        If the layer has no read-out, or there is not a list of a name for each input.
    ParameterError, ShapeError, DTypeError
        If parameters or rows do not fit the layer, or are those of several replicas.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> weights = np.array([[1.0], [-1.0]])
    >>> params = {"W_hat": 9 * weights, "M_hat": 30 * np.abs(weights), "G": np.array([[-50.0], [-50.0]])}
    >>> x = np.random.default_rng(0).uniform(1, 2, (10, 2))
    >>> f = nn.formula(nn.NALU(2, 1), params, x, names=["distance", "time"])
    >>> print(f, f([[6.0, 3.0]]))
    distance / time [[2.]]
    """
    check_built("formula", layer)
    check_names(layer, params)
    units = layer.layers if isinstance(layer, Chain) else (layer,)
    rows = (to_numpy(x) if library(x) else np.asarray(x)).astype(np.float64)
    given = [f"x{i + 1}" for i in range(layer.in_features)] if names is None else names
    names = list(given)
    if isinstance(given, str) or not len(names) == len(set(names)) == layer.in_features:
        raise OptionError(f"formula: expected a list of {layer.in_features} different names, got {given!r:.200}")
    device = {name: from_numpy(to_numpy(value), "float64") for name, value in params.items()}
    with np.errstate(all="ignore"):
        kept = {name: to_numpy(value) for name, value in layer.values(device, from_numpy(rows, "float64")).items()}
    if kept["y"].ndim != 2:
        raise ShapeError(f"formula: expected the parameters of one replica, got {len(kept['y'])}; use nn.replica")

    if not len(rows):
        raise ShapeError("formula: x has no rows; give some on which the gates can be read")

    columns = dict(zip(names, rows.T, strict=True))
    nodes: list[Node] = list(names)
    resolved = True
    for i, unit in enumerate(units):
        prefix = f"{i}." if isinstance(layer, Chain) else ""
        values = {name[len(prefix) :]: value for name, value in kept.items() if name.startswith(prefix)}
        with np.errstate(all="ignore"):
            nodes, settled = _read_unit(unit, values, nodes, columns, snap)
        resolved = resolved and settled

    target = kept["y"] if y is None else np.asarray(y, dtype=np.float64)
    terms = tuple(nodes)
    prediction = evaluate(terms, names, rows)
    if prediction.shape != target.shape:
        raise ShapeError(f"formula: y has shape {target.shape}, but the formula gives {prediction.shape}")
    spreads = np.std(target, axis=0)
    error = max(relative_error(p, t, s) for p, t, s in zip(prediction.T, target.T, spreads.tolist(), strict=True))
    # Targets that do not vary can be met by chance.
    varied = y is None or bool((spreads > 0).all())
    return Formula(terms, tuple(names), resolved, error, snap and resolved and varied and error <= EXACT)


def relative_error(prediction: Host, target: Host, spread: float) -> float:
    """RMS error relative to a standard deviation; where that is 0, 0 without any error and infinite with one."""
    with np.errstate(all="ignore"):
        rms = float(np.sqrt(np.mean((prediction - target) ** 2)))
    if not np.isfinite(rms):
        return np.inf
    return rms / spread if spread > 0 else (0.0 if rms == 0 else np.inf)


def evaluate(terms: Iterable[Node], names: Sequence[str], x: Host) -> Host:
    """Value of each term for rows x (N, I): (N, O)."""
    if x.ndim != 2 or x.shape[1] != len(names):
        cure = "" if x.ndim > 1 else "; one row is [[...]], with two pairs of brackets"
        raise ShapeError(f"formula: x has shape {x.shape}, expected (N, I={len(names)}): {', '.join(names)}{cure}")
    columns = dict(zip(names, x.T, strict=True))
    with np.errstate(all="ignore"):
        return np.stack([np.broadcast_to(_value(term, columns), len(x)) for term in terms], axis=1)


# --- from weights to nodes --------------------------------------------------------------------------------------


def _read_unit(
    unit: Layer,
    values: Mapping[str, Host],
    inputs: list[Node],
    columns: Columns,
    snap: bool,
) -> tuple[list[Node], bool]:
    """The node of each output of one unit, and whether its gate is on one side for all rows."""
    if not any(_same(type(unit), known) for known in READ):
        raise OptionError(
            f"formula: {unit!r} has no read-out; use NAC, LogNAC, NALU, the two paths, or subclasses without a "
            "forward pass of their own"
        )
    g = values.get("g", np.ones(1) if "a" in values else np.zeros(1))
    sums = np.broadcast_to(g > 0.5, values["y"].shape)
    free = isinstance(unit, SumPath | ProductPath)
    nodes = []
    for o in range(unit.out_features):
        adds = bool(np.mean(sums[:, o]) > 0.5)
        W = values["W"] if "W" in values else values["W_a" if adds else "W_m"]
        W = W.round(3) if not snap else rounded(W) if free else _snap(W)
        c = float(values["c"][o]) if "c" in values else 1.0
        nodes.append(path("sum" if adds else "product", W[:, o], inputs, columns, signed=free, c=c))
    return nodes, bool(np.all(sums == sums[:1]))


def _same(cls: type[Layer], known: type[Layer]) -> bool:
    """Whether a class computes what one that can be read does."""
    return all(getattr(cls, name, None) is getattr(known, name, None) for name in READ_BY)


def path(
    kind: str, constants: Host, inputs: Sequence[Node], columns: Columns, *, signed: bool = True, c: float = 1.0
) -> Node:
    """c times the sum, or the product, of inputs with these constants, in normal form.

    `columns` are the rows that tell where the factors of a product need bars. Where it is `signed`, whole powers
    need none.
    """
    pairs = [(k, node) for k, node in zip(constants.tolist(), inputs, strict=True) if k]
    if kind == "sum":
        node = _collect("sum", pairs)
    else:  # (a b)^(1/2) may be opened: its factors are magnitudes
        bars = [(k, n if signed and k.is_integer() else _magnitude(n, columns)) for k, n in pairs]
        node = _collect("product", bars)
    return node if c == 1 else _collect("sum", [(c, node)])


def _snap(W: Host) -> Host:
    points = np.array(STABLE)
    return cast(Host, points[np.abs(W[..., None] - points).argmin(axis=-1)])


def _magnitude(node: Node, columns: Columns) -> Node:
    """|node| as simply as the rows allow: node itself where it is never negative."""
    value = _value(node, columns)
    if _is(node, "product"):  # its root is that of its factors' magnitudes
        return "product", tuple((k, _magnitude(part, columns)) for k, part in node[1])
    if np.all(value >= 0):
        return node
    if isinstance(node, tuple) and node[0] == "sum":
        flipped = _collect("sum", [(-1.0, node)])
        if np.all(value <= 0):
            return flipped
        if node[1][0][0] < 0:  # |-a + b| and |a - b| are one thing
            node = flipped
    return ("abs", node)


def _collect(kind: str, pairs: Iterable[tuple[float, Node]]) -> Node:
    """The normal form: nested sums (products) opened, equal terms collected, zeros dropped, terms in order."""
    totals: dict[Node, float] = {}
    for number, node in pairs:
        same = isinstance(node, tuple) and node[0] == kind
        if kind == "product" and _is(node, "abs") and number % 2 == 0:  # an even power needs no bars
            node = node[1]
        opens = same and (abs(number) == 1 or all(number * k in STABLE for k, _ in node[1]))
        for k, part in node[1] if opens else [(1.0, node)]:
            totals[part] = totals.get(part, 0.0) + number * k
    if any(abs(k) == 1 and _is(part, kind) for part, k in totals.items()):
        return _collect(kind, [(k, part) for part, k in totals.items()])
    terms = tuple(sorted(((k, part) for part, k in totals.items() if k), key=lambda term: repr(term[1])))
    if kind == "product" and any(k > 0 and part == ZERO for k, part in terms):
        return ZERO
    return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else (kind, terms)


def leaves(node: Node) -> set[str]:
    """Names of the columns in a formula."""
    if isinstance(node, str):
        return {node}
    kind, inner = node
    return leaves(inner) if kind == "abs" else {name for _, part in inner for name in leaves(part)}


def complexity(node: Node) -> tuple[int, int, float]:
    """How complicated a formula is: its columns, its constants besides 1, and how far those are from 1."""
    if isinstance(node, str):
        return 1, 0, 0.0
    kind, inner = node
    if kind == "abs":
        return complexity(inner)
    parts = [complexity(part) for _, part in inner]
    others = [abs(abs(k) - 1) for k, _ in inner if abs(k) != 1]
    return sum(p[0] for p in parts), len(others) + sum(p[1] for p in parts), sum(others) + sum(p[2] for p in parts)


def constant(node: Node) -> tuple[float, Node]:
    """A formula as a constant and what it multiplies: a sum or a product of parts."""
    if _is(node, "sum") and len(node[1]) == 1:
        [(k, part)] = node[1]
        if not isinstance(part, str) or abs(k) not in POINTS:
            return float(k), part
    return 1.0, node


def families(node: Node, names: Sequence[str], x: Host) -> Iterator[tuple[str, list[Node]]]:
    """What a formula is a member of: a kind, "sum" or "product", and its parts.

    The parts are all columns, and whatever else stands at the top of the formula. A sum of columns belongs to the
    products of columns too, and the other way round. x (N, I): where it has negative columns, products come with
    their signs, and as products of magnitudes.
    """
    columns = dict(zip(names, x.T, strict=True))
    whole = isinstance(node, tuple) and node[0] != "abs"
    top = [part for _, part in node[1]] if whole else [node]
    bare = {part[1] if part[0] == "abs" else part for part in top}
    for kind in ("sum", "product"):
        if bare <= set(names):
            yield kind, list(names)
        elif whole and node[0] == kind:
            yield kind, list(dict.fromkeys([*top, *names]))
    magnitudes = [_magnitude(name, columns) for name in names]
    if magnitudes != list(names) and (bare <= set(names) or (whole and node[0] == "product")):
        yield "product", list(dict.fromkeys([*(part for part in top if part not in names), *magnitudes]))


# --- values and text --------------------------------------------------------------------------------------------


def _value(node: Node, columns: Columns) -> Any:
    if isinstance(node, str):
        return columns[node]
    kind, inner = node
    if kind == "abs":
        return np.abs(_value(inner, columns))
    if kind == "sum":
        return sum((k * _value(part, columns) for k, part in inner), start=np.float64(0))
    value: Any = np.float64(1)
    for k, part in inner:
        value = value * _value(part, columns) ** k
    return value


def _text(node: Node, names: Sequence[str]) -> str:
    """The expression as plain text."""
    if isinstance(node, str):
        return node if node.isidentifier() else f"[{node}]"
    kind, inner = node
    if kind == "abs":
        return f"abs({_text(inner, names)})"
    if kind == "product":
        return _quotient(*_factors(node, names))
    added: list[str] = []
    subtracted: list[str] = []
    for k, part in _ordered(inner, names):
        over, under = _factors(part, names) if _is(part, "product") else ([_text(part, names)], [])
        if abs(k) != 1:
            over = [f"{abs(k):.6g}", *(f"({text})" if _is(part, "sum") else text for text in over)]
        (added if k > 0 else subtracted).append(_quotient(over, under))
    return " + ".join(added) + "".join(f" - {text}" for text in subtracted) if added else _negated(subtracted)


def _is(node: Node, kind: str) -> bool:
    return isinstance(node, tuple) and node[0] == kind


def _ordered(inner: Any, names: Sequence[str]) -> list[tuple[float, Node]]:
    """Terms in the order of the columns."""
    place: dict[Node, int] = {name: i for i, name in enumerate(names)}
    place |= {("abs", name): i for name, i in place.items()}
    return sorted(inner, key=lambda term: (place.get(term[1], len(names)), _text(term[1], names)))


def _factors(node: Node, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands above and below the line of a product."""
    over: list[str] = []
    under: list[str] = []
    for k, part in _ordered(node[1], names):
        text = f"({_text(part, names)})" if _is(part, "sum") or _is(part, "product") else _text(part, names)
        if abs(k) == 1:
            (over if k > 0 else under).append(text)
        elif k < 0 and k.is_integer():
            under.append(f"{text}^{-k:.6g}")
        else:
            over.append(f"{text}^{k:.6g}")
    return over, under


def _quotient(over: Sequence[str], under: Sequence[str]) -> str:
    return " / ".join([" * ".join(over) or "1", *under])


def _negated(texts: list[str]) -> str:
    return "-" + " - ".join(texts) if texts else "0"
