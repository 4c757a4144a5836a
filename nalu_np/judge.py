"""Judging a formula: how far it is off, whether it may be called exact, whether the rows tell it from others.

A wrong formula called exact is the worst that this library can do. So exactness is asked of every row that is
known, at a scale that neither a few huge targets nor a wide test can stretch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .readout import EXACT, Formula, Host, evaluate, neighbours, relative_error

#: Above this error, relative to the target's standard deviation, a formula comes with a warning.
GOOD = 0.01

#: Rows on which rivals are tried first.
FEW = 32


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
        """Whether the formula's RMS error is more than 10 % above the network's, or is none at all."""
        formula, network = rms(self.formula - self.y), rms(self.network - self.y)
        return not math.isfinite(formula) or formula > 1.1 * network


def rms(values: Host) -> float:
    """Root of the mean square."""
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.mean(np.square(values))))


def is_exact(prediction: Host, y: Host, known: Host) -> bool:
    """Whether a prediction is the target to a millionth of the spread of the known targets, in RMS.

    The spread is the smaller of their standard deviation and of its robust estimate from the median deviation: one
    huge target would otherwise hide what is wrong with all others. Beyond a million times that spread, where a
    float64 of a table has no more digits, an error counts relative to the target itself.
    """
    return rms(_scaled(prediction, y, known)) <= EXACT


def missed_rows(prediction: Host, y: Host, known: Host) -> NDArray[np.bool_]:
    """Which rows by themselves are off by more than `is_exact` allows."""
    return np.asarray(~(_scaled(prediction, y, known) <= EXACT))


def _scaled(prediction: Host, y: Host, known: Host) -> Host:
    with np.errstate(all="ignore"):
        deviation = 1.4826 * float(np.median(np.abs(known - np.median(known))))
        scale = np.maximum(min(float(np.std(known)), deviation), EXACT * np.abs(y))
        error = np.abs(prediction - y)
        return np.where(error == 0, 0.0, error / scale)


def rival(found: Formula, x: Host, y: Host) -> Formula | None:
    """Another formula, different in one or two constants, that fits all rows as well; None if there is none.

    x (N, I), y (N). Where there is one, the rows cannot tell which is the law.
    """
    own = rms(found(x)[:, 0] - y)
    exact = is_exact(found(x)[:, 0], y, y)

    def fits(terms: Sequence[object], rows: NDArray[np.intp]) -> bool:
        prediction = evaluate(terms, found.names, x[rows])[:, 0]
        if exact:
            return is_exact(prediction, y[rows], y)
        return rms(prediction - y[rows]) <= own * (1 + 1e-9) * math.sqrt(len(y) / len(rows))

    everywhere = np.arange(len(y))
    few = np.argsort(y, kind="stable")[np.linspace(0, len(y) - 1, min(FEW, len(y))).astype(np.intp)]
    for node in neighbours(found.terms[0], found.names, x):
        if fits([node], few) and fits([node], everywhere):
            return Formula((node,), found.names, found.resolved, found.error, False)
    return None
