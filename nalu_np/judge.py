"""Judging a formula: how far it is off, whether it may be called exact, whether the rows tell it from others.

A wrong formula called exact is the worst that this library can do. So exactness is asked of every row that is
known, at a scale that neither a few huge targets nor a wide test can stretch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .lattice import within
from .readout import EXACT, Formula, Host, Node, complexity, constant, evaluate, families, path, relative_error

#: Above this error, relative to the target's standard deviation, a formula comes with a warning.
GOOD = 0.01

#: Rivals that are looked at.
MOST_RIVALS = 50


@dataclass(frozen=True)
class Rows:
    """Some rows, and what was predicted for them: x (N, I), the others (N)."""

    name: str
    labels: tuple[str, ...]
    x: Host
    y: Host
    network: Host
    formula: Host

    def pick(self, name: str, chosen: NDArray[np.bool_]) -> Rows:
        """Only some of them."""
        labels = tuple(label for label, yes in zip(self.labels, chosen, strict=True) if yes)
        return Rows(name, labels, *(array[chosen] for array in (self.x, self.y, self.network, self.formula)))

    def error(self, prediction: Host, spread: float) -> float:
        """RMS error relative to the target's standard deviation: the table's, or that of these rows if larger."""
        with np.errstate(all="ignore"):
            return relative_error(prediction, self.y, max(spread, float(np.std(self.y))))

    def formula_is_worse(self) -> bool:
        """Whether the formula's RMS error is well above the network's, by 10 % or what chance does, or is none."""
        formula, network = rms(self.formula - self.y), rms(self.network - self.y)
        return not math.isfinite(formula) or formula > (1 + max(0.1, 0.5 / math.sqrt(len(self.y)))) * network


def rms(values: Host) -> float:
    """Root of the mean square."""
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.mean(np.square(values))))


def is_exact(prediction: Host, y: Host, known: Host) -> bool:
    """Whether a prediction is the target to a millionth of the spread of the known targets, in RMS.

    The spread is the smaller of their standard deviation and of its robust estimate, from the median of what
    deviates: one huge target would otherwise hide what is wrong with all others. Far out, where a table has no
    more digits, an error may be a billionth of the target's distance from the middle.
    """
    return rms(_scaled(prediction, y, known)) <= EXACT


def missed_rows(prediction: Host, y: Host, known: Host) -> NDArray[np.bool_]:
    """Which rows by themselves are off by more than `is_exact` allows."""
    return np.asarray(~(_scaled(prediction, y, known) <= EXACT))


def _scaled(prediction: Host, y: Host, known: Host) -> Host:
    with np.errstate(all="ignore"):
        error = np.abs(prediction - y)
        return np.where(error == 0, 0.0, error / _scale(y, known))


def _scale(y: Host, known: Host) -> Host:
    """What errors are measured by, in each row."""
    return np.asarray(np.maximum(robust_spread(known), 1e-3 * np.abs(y - np.median(known))))


def robust_spread(y: Host) -> float:
    """The smaller of the standard deviation and of its estimate from the median of what deviates."""
    off = np.abs(y - np.median(y))
    deviation = 1.4826 * float(np.median(off[off > 0])) if (off > 0).any() else 0.0
    return min(float(np.std(y)), deviation)


def rival(found: Formula, x: Host, y: Host) -> Formula | None:
    """The simplest of the other formulas of the same family that fit all rows as well; None if there is none.

    x (N, I), y (N). Where there is one, the rows cannot tell which is the law. Tried are all sums and all products
    of the columns with constants that are multiples of 1/2, and with a constant before the whole where the
    formula has one; in a wide table that tells little, as many as `lattice.within` comes to.
    """
    own = rms(found(x)[:, 0] - y)
    exact = is_exact(found(x)[:, 0], y, y)
    # Errors count as in the judgement: each in units of what `is_exact` allows there, or all alike.
    scale = _scale(y, y) if exact else np.ones(len(y))
    weights, most = 1 / np.where(scale > 0, scale, 1.0), EXACT if exact else own
    fitting: list[tuple[float, Node]] = []
    core = _bare(constant(found.terms[0])[1])
    for node in itertools.islice(_others(found, x, y, weights, len(y) * most**2), MOST_RIVALS):
        prediction = evaluate([node], found.names, x)[:, 0]
        score = rms(prediction - y)
        fits = is_exact(prediction, y, y) if exact else score <= own * (1 + 1e-9)
        if _bare(constant(node)[1]) != core and fits:
            fitting.append((score, node))
    if not fitting:
        return None
    enough = math.inf if exact else min(score for score, _ in fitting) * (1 + 1e-6)
    simplest = min((node for score, node in fitting if score <= enough), key=complexity)
    return Formula((simplest,), found.names, found.resolved, found.error, False)


def _bare(node: Node) -> Node:
    """A formula without its bars: where a column is negative in every row, they are but a sign."""
    if isinstance(node, str):
        return node
    kind, inner = node
    return _bare(inner) if kind == "abs" else (kind, tuple(sorted(((k, _bare(n)) for k, n in inner), key=repr)))


def _others(found: Formula, x: Host, y: Host, weights: Host, most: float) -> Iterator[Node]:
    """Formulas of the same family whose weighted squared error is at most about `most`."""
    columns = dict(zip(found.names, x.T, strict=True))
    c, core = constant(found.terms[0])
    for kind, parts in families(core, found.names, x):
        values = evaluate(parts, found.names, x)
        if kind == "sum":
            for k in within(values * (c * weights)[:, None], y * weights, most * 1.01):
                yield path("sum", k, parts, columns, c=c)
            continue
        # An error of a logarithm is a relative one: with y as a weight it is that of y, where both are small.
        taken = (y != 0) & (values != 0).all(axis=1) & np.isfinite(values).all(axis=1)
        if not taken.any():
            continue
        A, t, w = np.log(np.abs(values[taken])), np.log(np.abs(y[taken])), (weights * np.abs(y))[taken]
        if abs(c) != 1:
            A, t = A - np.average(A, axis=0, weights=w * w), t - np.average(t, weights=w * w)
        for k in within(A * w[:, None], t * w, most * 1.5):
            node = path("product", k, parts, columns)
            with np.errstate(all="ignore"):
                ratio = y / evaluate([node], found.names, x)[:, 0]
            size = 1.0 if abs(c) == 1 else float(np.exp(np.average(np.log(np.abs(ratio[taken])), weights=w * w)))
            yield path("product", k, parts, columns, c=math.copysign(size, np.median(ratio[taken])))
