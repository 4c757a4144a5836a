"""The doctor: what is wrong with a table before training, and with a result after it, and what to do.

Each diagnosis is one sentence for a reader who knows the table, not the mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import printable
from .judge import GOOD
from .lattice import POINTS, Host, least_squares
from .race import DECISIVE, ENOUGH, PATHS, run, with_offset
from .readout import Formula, constant

#: Up to this share of a column's variance left, others determine it, but for rounding; and nearly.
DETERMINED, NEARLY = 1e-18, 1e-4

#: Terms of a relation that are written out.
MOST_TERMS = 4

#: Largest exponent of a product that is told: others are growth, seen through a narrow window.
MOST_POWER = 10

#: Standard errors from which residuals are said to be alike, or off on average.
ALIKE = 6.0


@dataclass(frozen=True)
class Relation:
    """A column that others determine, by a "sum" of them and a constant, a "product" of them, or "both"."""

    kind: str
    columns: tuple[str, ...]
    text: str
    nearly: bool


# --- before -----------------------------------------------------------------------------------------------------


def relations(x: Host, names: Sequence[str]) -> list[Relation]:
    """Columns that those before them determine, constant ones included. x (N, I)."""
    sums = list(_determined("sum", x, names))
    constant = {relation.columns[0] for relation in sums if len(relation.columns) == 1}
    signed = np.asarray((x > 0).all(axis=0) | (x < 0).all(axis=0))
    inside = [j for j, name in enumerate(names) if signed[j] and name not in constant]
    products = list(_determined("product", np.log(np.abs(x[:, inside])), [names[j] for j in inside]))
    known = {relation.columns for relation in sums}
    return sums + [relation for relation in products if relation.columns not in known]


def _determined(kind: str, A: Host, names: Sequence[str]) -> Iterator[Relation]:
    if len(A) < 3:
        return
    size, middle = np.sqrt(np.mean(A * A, axis=0)), A.mean(axis=0)
    R: Host = np.asarray(np.linalg.qr(A - middle, mode="r")) / math.sqrt(len(A))  # as many rows as columns say it
    spread = np.sqrt((R * R).sum(axis=0))
    basis: list[int] = []
    Q = np.zeros((len(R), 0))
    for j, name in enumerate(names):
        if spread[j] <= 1e-14 * size[j]:
            if kind == "sum":
                yield Relation("both", (name,), f"{printable(name)} is {A[0, j]:.6g} in every row", False)
            continue
        if len(A) < len(basis) + 3:  # any column is determined by as many others as there are rows
            return
        beside = R[:, j] - Q @ (Q.T @ R[:, j])
        beside -= Q @ (Q.T @ beside)
        left = float(beside @ beside) / spread[j] ** 2
        if left > NEARLY:
            basis.append(j)
            Q = np.column_stack([Q, beside / math.sqrt(float(beside @ beside))])
            continue
        W = least_squares(R[:, basis], R[:, j])
        nearly = bool(left > DETERMINED)
        part = np.abs(W) * spread[basis]
        used = [i for i in range(len(basis)) if part[i] > (0.01 if nearly else 1e-8) * part.max()]
        terms = [(float(W[i]), printable(names[basis[i]])) for i in used]
        offset = float(middle[j] - middle[basis] @ W)
        columns = (*(names[basis[i]] for i in used), name)
        if kind == "sum":
            offset = offset if abs(offset) > 1e-9 * float(np.abs(W) @ size[basis]) else 0.0
            both = len(used) == 1 and not offset  # b = 2 * a is a product too
            yield Relation(
                "both" if both else kind, columns, f"{printable(name)} = {_affine(terms, offset)}", nearly
            )
        elif max(abs(k) for k, _ in terms) <= MOST_POWER:
            text = _power_law(terms, offset if abs(offset) > 1e-9 else 0.0)
            yield Relation(kind, columns, f"{printable(name)} = {text}", nearly)


def _affine(terms: list[tuple[float, str]], offset: float) -> str:
    parts = [(k, name if f"{abs(k):.3g}" == "1" else f"{abs(k):.3g} * {name}") for k, name in terms[:MOST_TERMS]]
    parts += [(1.0, "...")] if len(terms) > MOST_TERMS else []
    parts += [(offset, f"{abs(offset):.3g}")] if offset else []
    (first, text), *others = parts
    return ("-" if first < 0 else "") + text + "".join(f" {'+' if k > 0 else '-'} {part}" for k, part in others)


def _power_law(terms: list[tuple[float, str]], offset: float) -> str:
    c = math.exp(offset) if abs(offset) < 700 else 0.0
    size = f"{c:.3g}" if c else f"exp({offset:.3g})"
    factors = [name if f"{k:.3g}" == "1" else f"{name}^{k:.3g}" for k, name in terms[:MOST_TERMS]]
    more = ["..."] if len(terms) > MOST_TERMS else []
    return " * ".join([*([size] if size != "1" else []), *factors, *more])


def before(
    x: Host,
    y: Host,
    found: Sequence[Relation],
    inside: NDArray[np.bool_] | None,
    units: Sequence[str],
) -> Iterator[str]:
    """What a reader should know about a table, whatever is learned from it.

    x (N, I), y (N); `found` are the relations of its columns; `inside` (M) says which test rows lie within the
    range of x; `units` are those to be trained, if their weights have bounds.
    """
    for relation in found:
        if len(relation.columns) == 1:
            yield f"{relation.text}: the rows cannot show what it does; leave it out (--features)"
            continue
        which, cure = (", nearly", "") if relation.nearly else ("", ", or add rows that break it")
        yield (
            f"{relation.text} in every row{which}: formulas with one or the other fit alike; leave one of them "
            f"out (--features){cure}"
        )
    if len(x) <= x.shape[1]:
        yield (
            f"{len(x)} rows for {x.shape[1]} columns: as many constants can be fitted to any target; give more "
            f"rows, or fewer columns (--features)"
        )
    if inside is not None and len(inside) and inside.mean() > 0.5:
        yield (
            f"{inside.sum():,} of {len(inside):,} test rows lie inside the range of the table: they do not show "
            f"what happens outside; give rows from beyond it"
        )
    if units and float(np.std(y)) > 0:
        yield from _reach(x, y, units)


def _reach(x: Host, y: Host, units: Sequence[str]) -> Iterator[str]:
    """Targets that no weights of any of these units reach: by their sign, or their size."""
    with np.errstate(all="ignore"):
        total = np.abs(x).sum(axis=1)
        size = np.abs(np.log(np.abs(x)))
        growth = np.where(np.isfinite(size), size, 0.0).sum(axis=1)
        log_y = np.log(np.abs(y))
    most = float(POINTS.max())
    reached = np.zeros(len(y), np.bool_)
    for unit in units:
        bound = most if unit in ("sum", "product") else 1.0
        if unit in ("sum", "nac", "nalu"):
            reached |= np.abs(y) <= bound * total * (1 + 1e-9)
        if unit in ("product", "lognac", "nalu"):
            sign = y >= 0 if unit != "product" or (x >= 0).all() else np.ones(len(y), np.bool_)
            if unit == "product" and (x >= 0).all():
                sign |= bool((y <= 0).all())
            reached |= sign & (log_y <= bound * growth + 1e-9)
    missed = int((~reached).sum())
    if missed > len(y) / 20:  # fewer are outliers
        i = int(np.flatnonzero(~reached)[0])
        cure = "" if {"sum", "product"} <= set(units) else "; try --unit auto, whose paths reach further"
        yield (
            f"{missed:,} of {len(y):,} targets, the first {y[i]:.4g}, are of a sign or a size that no weights of "
            f"{' or '.join(units)} reach: rescale, or add the column that is missing{cure}"
        )


# --- after ------------------------------------------------------------------------------------------------------


def guessed(used: set[str], found: Sequence[Relation], kind: str | None) -> list[str]:
    """Columns in a formula that others determine in the formula's own terms; kind None is a formula of both."""
    found = [
        relation for relation in found if not relation.nearly and (kind is None or relation.kind in (kind, "both"))
    ]
    return [name for name in sorted(used) if any(name in relation.columns for relation in found)]


def odd(residual: Host, rounding: float) -> NDArray[np.bool_]:
    """Rows that are not like the others: a twentieth at most, off by 8 times what is usual, or none."""
    size = np.abs(residual)
    with np.errstate(invalid="ignore"):
        far = ~(size <= max(8 * 1.4826 * float(np.median(size)), rounding))
    return far if len(residual) >= ENOUGH and far.sum() <= len(residual) / 20 else np.zeros(len(far), np.bool_)


def misfit(x: Host, residual: Host) -> bool:
    """Whether what a formula leaves over is no noise: it depends on the columns x (N, I), or is off on average.

    Asked of ranks, which outliers cannot fool: are rows that are neighbours in a column off to the same side? And
    do squares and products of columns tell what is left (Ramsey 1969)?
    """
    n = len(residual)
    if n < ENOUGH or not np.isfinite(residual).all():
        return False
    order = np.random.default_rng(0).permutation(n)  # so that rows that are alike have no order
    x, residual = x[order], residual[order]
    if abs(float(residual.mean())) * math.sqrt(n) > ALIKE * float(residual.std()):
        return True
    ranks = residual.argsort(kind="stable").argsort(kind="stable") + 0.5
    r = (ranks - ranks.mean()) / ranks.std()
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    for column in z.T:
        ordered = r[column.argsort(kind="stable")]
        if float(ordered[1:] @ ordered[:-1]) > ALIKE * math.sqrt(n):
            return True
    features = np.column_stack(
        [np.ones(n), z, *(z[:, i] * z[:, j] for i in range(z.shape[1]) for j in range(i + 1))]
    )
    if features.shape[1] > n // 3:
        return False
    e = r - features @ least_squares(features, r)
    evidence = n * math.log(n / max(float(e @ e), 1e-9)) - features.shape[1] * math.log(n)
    return bool(evidence > DECISIVE)


@dataclass(frozen=True)
class Advice:
    """A formula just outside of what was asked for, and how to get it."""

    formula: Formula
    cure: str
    offset: float = 0.0

    def __str__(self) -> str:
        added = f" {'+' if self.offset > 0 else '-'} {abs(self.offset):.6g}" if self.offset else ""
        return f"{printable(str(self.formula), 200)}{added} fits them{self.cure}"


def advice(
    x: Host, y: Host, names: Sequence[str], error: float, *, units: Sequence[str], scale: bool
) -> Iterator[Advice]:
    """Formulas that these units were not asked for, and that fit far better than one that is off by `error`."""
    if len(x) < x.shape[1] + 3:
        return
    noise = min(error / 20, 0.5 if len(x) >= ENOUGH else 2 * GOOD)
    enough = max(GOOD, noise) if error > GOOD else error / 20
    options: list[Advice] = []
    for kind in PATHS:
        path = run(kind, x, y, names, scale=True)
        if path is not None and path.formula.error <= enough:
            asked = [] if kind in units else ["--unit auto"]
            asked += [] if scale or abs(constant(path.formula.terms[0])[0]) == 1 else ["--scale"]
            options += [Advice(path.formula, f"; try {' '.join(asked)}")] if asked else []
    yield from sorted(options, key=lambda option: option.formula.error)
    found, offset = with_offset(x, y, names)
    if found.error <= enough and abs(offset) > 1e-9 * float(np.abs(y).max()):
        yield Advice(found, ", but no unit adds a constant: subtract it from the target", offset)
