"""Judging a formula: how far it is off, whether it may be called exact, whether the rows tell it from others.

A wrong formula called exact is the worst that this library can do. So exactness is asked of every row that is
known, at a scale that neither a few huge targets nor a wide test can stretch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .readout import EXACT, STABLE, Formula, Host, evaluate, families, member, relative_error

#: Above this error, relative to the target's standard deviation, a formula comes with a warning.
GOOD = 0.01

#: Rows on which rivals are tried first, how many go on to all rows, and up to how many columns all are tried.
FEW, MOST_RIVALS, ALL_UP_TO = 32, 50, 6

#: Numbers that trying rivals of wide tables may take.
MOST_NUMBERS = 30_000_000


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
        middle = np.median(known)
        off = np.abs(known - middle)
        deviation = 1.4826 * float(np.median(off[off > 0])) if (off > 0).any() else 0.0
        scale = np.maximum(min(float(np.std(known)), deviation), 1e-3 * np.abs(y - middle))
        error = np.abs(prediction - y)
        return np.where(error == 0, 0.0, error / scale)


def rival(found: Formula, x: Host, y: Host) -> Formula | None:
    """The best of the other formulas of the same family that fit all rows as well; None if there is none.

    x (N, I), y (N). Where there is one, the rows cannot tell which is the law. With up to six columns these are
    all sums and all products of them. With more, they are those that differ in the constants in use, all of them
    up to three and else one, and in one constant besides.
    """
    own = rms(found(x)[:, 0] - y)
    exact = is_exact(found(x)[:, 0], y, y)
    few = np.argsort(y, kind="stable")[np.linspace(0, len(y) - 1, min(FEW, len(y))).astype(np.intp)]
    # What is near enough on a few rows to be held against all: errors there may be larger than on the whole.
    allowed = (10 * EXACT if exact else own * (1 + 1e-6)) * math.sqrt(len(y) / len(few))
    best: tuple[float, Formula] | None = None
    for kind, parts, constants in families(found.terms[0], found.names, x):
        values = evaluate(parts, found.names, x[few])
        tried = 0
        for block in _blocks(constants):
            with np.errstate(all="ignore"):
                terms = block @ values.T if kind == "sum" else np.exp(_powers(block, values))
                gaps = _scaled(terms, y[few], y) if exact else terms - y[few]
                error = np.sqrt(np.mean(np.square(gaps), axis=1))
            likely = np.flatnonzero(error <= allowed)
            for candidate in block[likely[np.argsort(error[likely], kind="stable")][:MOST_RIVALS]]:
                node = member(kind, parts, candidate)
                prediction = evaluate([node], found.names, x)[:, 0]
                score = rms(prediction - y)
                fits = is_exact(prediction, y, y) if exact else score <= own * (1 + 1e-9)
                if node != found.terms[0] and fits and (best is None or score < best[0]):
                    best = score, Formula((node,), found.names, found.resolved, found.error, False)
                tried += 1
            if tried >= MOST_RIVALS:
                break
    return None if best is None else best[1]


def _powers(constants: Host, values: Host) -> Host:
    """Exponents times logarithms, (C, P) and (N, P) to (C, N); 0 to the power of 0 is 1."""
    logs = np.log(values)
    if np.isfinite(logs).all():
        return np.asarray(constants @ logs.T)
    return np.asarray(np.where(constants[:, None] == 0, 0.0, constants[:, None] * logs).sum(axis=2))


def _blocks(constants: Host) -> Iterator[Host]:
    """Other constants to try, some thousands at a time: (C, P)."""
    stable, (used,) = np.array(STABLE), np.nonzero(constants)
    if len(constants) <= ALL_UP_TO:
        yield np.stack(np.meshgrid(*[stable] * len(constants), indexing="ij"), axis=-1).reshape(-1, len(constants))
        return
    if len(used) <= 3:
        grid = np.stack(np.meshgrid(*[stable] * len(used), indexing="ij"), axis=-1).reshape(-1, len(used))
        bases = np.tile(constants, (len(grid), 1))
        bases[:, used] = grid
    else:
        bases = np.tile(constants, (len(used) * len(stable), 1))
        bases[np.arange(len(bases)), used.repeat(len(stable))] = np.tile(stable, len(used))
    yield bases
    if len(bases) * len(constants) ** 2 > MOST_NUMBERS:  # too many: no second constant
        bases = constants[None]
    for other in np.setdiff1d(np.arange(len(constants)), used):
        block = bases.repeat(4, axis=0)
        block[:, other] = np.tile(stable[stable != 0], len(bases))
        yield block
