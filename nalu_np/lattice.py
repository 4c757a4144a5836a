"""Least squares whose constants are multiples of 1/2.

The weights of a path, and the constants of a formula, are points of a lattice. Which of them fit some rows about
as well as the best is found without trying all: with A = Q R, the error |A k - t|^2 is a sum over the rows of R,
from the last, which has one unknown, to the first, and a branch ends where its sum is already too large. This is
the sphere decoder of communication theory (Fincke & Pohst 1985, Schnorr & Euchner 1994).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Host = NDArray[np.float64]

#: The points on each axis, simplest first.
POINTS = np.array(sorted(np.arange(-8, 9) / 2, key=lambda k: (abs(k), -k)))

#: Steps before a search gives up: less than a tenth of a second.
MOST_TRIES = 5_000


def least_squares(A: Host, t: Host) -> Host:
    """The W of the lowest |A W - t|^2, (N, P) and (N); of many the shortest, in units of the columns' sizes."""
    size = np.sqrt(np.mean(A * A, axis=0))
    size[size == 0] = 1.0
    return np.asarray(np.linalg.lstsq(A / size, t, rcond=None)[0] / size)


def rounded(W: Host) -> Host:
    """The nearest point of the lattice, axis by axis; halfway, the one away from 0; beyond all, the last."""
    return np.asarray(np.sign(W) * np.minimum(np.floor(2 * np.abs(W) + 0.5) / 2, POINTS.max()))


def within(A: Host, t: Host, most: float, *, narrowing: bool = False) -> Iterator[Host]:
    """Every point k of the lattice with |A k - t|^2 <= most, the likely ones early; ends after MOST_TRIES.

    With `narrowing` each point must be better than the one before, so that the last is the nearest.
    """
    columns = A.shape[1]
    Q, R = np.linalg.qr(A)
    b = Q.T @ t
    missing = columns - len(b)  # fewer rows than columns: the last constants are free
    R, b, beside = np.pad(R, ((0, missing), (0, 0))), np.pad(b, (0, missing)), t - Q @ b
    k, spent = np.zeros(columns), np.zeros(columns + 1)  # what the constants from i on cost
    bound = most - float(beside @ beside)

    def choices(i: int) -> Iterator[tuple[float, float]]:
        with np.errstate(over="ignore"):
            cost = (b[i] - R[i, i + 1 :] @ k[i + 1 :] - R[i, i] * POINTS) ** 2 + spent[i + 1]
        near = np.argsort(cost, kind="stable")
        return zip(POINTS[near].tolist(), cost[near].tolist(), strict=True)

    i, found = columns - 1, False
    waiting = {i: choices(i)}
    for _ in range(MOST_TRIES):
        point, cost = next(waiting[i], (0.0, np.inf))
        if cost > bound or (found and narrowing and cost == bound) or cost == np.inf:
            k[i] = 0.0
            i += 1
            if i == columns:
                return
            continue
        k[i], spent[i] = point, cost
        if i:
            i -= 1
            waiting[i] = choices(i)
        else:
            yield k.copy()
            found = True
            if narrowing:
                bound = cost


def nearest(A: Host, t: Host) -> Host:
    """The point of the lattice with the lowest |A k - t|^2, or one near it where MOST_TRIES end the search."""
    best = rounded(least_squares(A, t))
    for point in within(A, t, np.inf, narrowing=True):
        best = point
    return best
