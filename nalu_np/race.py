"""The race: a sum path and a product path, each brought to the lowest loss of its own.

The sum path is fitted to y, the product path to log|y|. Both losses are convex quadratics in the weights: there is
no gate to trap them and nothing to tune, and their lowest points are computed instead of approached. The first
replica gives every row its due; for every other one rows weigh more or less by chance, so that the share of
replicas with the same rounded weights says how much of the result is luck.

With the paths apart, one layer is linear regression in x or in log|x|, and this module does not pretend otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import DATA, Streams
from .lattice import Host, least_squares, nearest, rounded, within
from .layer import Layer
from .readout import EXACT, Formula, evaluate, path, relative_error
from .units import ProductPath, SumPath

PATHS: dict[str, type[SumPath] | type[ProductPath]] = {"sum": SumPath, "product": ProductPath}

#: Points of the lattice that are looked at in search of the simplest.
MOST_POINTS = 1000

#: Evidence, in units of the Bayesian information criterion, up to which constants fit about as well as the best,
#: and from which rows are said to prefer others.
CLOSE, DECISIVE = 6.0, 20.0

#: Rows below which noise is not told from anything else.
ENOUGH = 30


@dataclass(frozen=True)
class Path:
    """One path after training.

    Attributes
    ----------
    layer, params
        The path and its S replicas, in float64; for the first, no row weighs more by chance.
    formula : Formula
        Its weights rounded to multiples of 1/2: the simplest that fits about as well as any.
    agree : array of bool
        (S): whose weights round to the same.
    elsewhere : bool
        Whether rows clearly prefer weights that are not multiples of 1/2, or are beyond 4.
    left_out : int
        Rows that it could not learn from: where the target or a factor is 0, a product has no logarithm.
    """

    layer: Layer
    params: dict[str, Any]
    formula: Formula
    agree: NDArray[np.bool_]
    elsewhere: bool
    left_out: int


def run(
    kind: str, x: Host, y: Host, names: Sequence[str], *, scale: bool = False, seeds: int = 1, seed: int = 0
) -> Path | None:
    """Bring one path to the lowest loss of its own; None where no row can teach it anything.

    Parameters
    ----------
    kind : str
        "sum" or "product".
    x, y : array
        (N, I) and (N), in float64.
    names : sequence of str
        Of the columns of x, for the formula.
    scale : bool
        Whether a constant may multiply the whole; it is 1 where the rows do not ask for another.
    seeds, seed : int
        Replicas, and the seed of their rows.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).uniform(-2, 2, (100, 2))
    >>> found = run("product", x, 3.7 * x[:, 0] / x[:, 1], ["a", "b"], scale=True, seeds=8)
    >>> print(found.formula, found.agree.mean())
    3.7 * a / b 1.0
    """
    product = kind == "product"
    taken = np.isfinite(y) if not product else (y != 0) & (x != 0).all(axis=1)
    if not taken.any():
        return None
    A, t = (np.log(np.abs(x[taken])), np.log(np.abs(y[taken]))) if product else (x[taken], y[taken])
    w = _weights(A, t, product and scale)
    k, c = _constants(A, t, w, product=product, scale=scale)
    free_scale = c != 1
    if product:
        c *= 1.0 if np.sum(np.sign(y[taken]) * _sign(x[taken], k)) >= 0 else -1.0
    term = path(kind, k, list(names), dict(zip(names, x.T, strict=True)), c=c)

    W = _replicas(A, t, w, product and free_scale, seeds, seed)
    params = {"W": W[:, : len(k), None] / (1.0 if product else c)}
    if c != 1:
        with np.errstate(over="ignore"):  # of a replica that few rows have led astray
            size = np.exp(W[:, -1:]) if product and free_scale else np.full((len(W), 1), abs(c))
        params["c"] = math.copysign(1.0, c) * size

    B, u = _weighted(A, t, w, product and free_scale)
    reached = _loss(B, u, k * (1.0 if product else c))
    prediction = evaluate([term], names, x)[:, 0]
    error = relative_error(prediction, y, float(np.std(y)))
    return Path(
        layer=PATHS[kind](x.shape[1], 1, scale=c != 1),
        params=params,
        formula=Formula((term,), tuple(names), True, error, error <= EXACT),
        agree=np.asarray((rounded(params["W"][..., 0]) == k).all(axis=1)),
        elsewhere=len(B) > B.shape[1] and reached > _limit(B, u, DECISIVE),
        left_out=int((~taken).sum()),
    )


def with_offset(x: Host, y: Host, names: Sequence[str]) -> tuple[Formula, float]:
    """The sum path with a constant added: no unit has one, but a diagnosis may."""
    A, t = x - x.mean(axis=0), y - y.mean()
    k = _simplest(A, t)
    columns = dict(zip(names, x.T, strict=True))
    error = relative_error(A @ k, t, float(np.std(y)))
    return Formula((path("sum", k, list(names), columns),), tuple(names), True, error, False), float(
        np.mean(y - x @ k)
    )


def _sign(x: Host, k: Host) -> Host:
    """The sign of a product with these exponents, as [parity.2] has it."""
    return np.asarray(1.0 - 2.0 * (((x < 0) @ (k % 2 == 1).astype(np.float64)) % 2))


def _loss(A: Host, t: Host, W: Host) -> float:
    e = A @ W - t
    return float(e @ e)


def _limit(A: Host, t: Host, evidence: float) -> float:
    """The loss up to which weights fit about as well as the best: log(N) for each of them, and some evidence."""
    n, size = A.shape
    lowest = max(_loss(A, t, least_squares(A, t)), _rounding(A, t))
    return lowest * math.exp(min((size * math.log(n) + evidence) / n, 500.0))


def _rounding(A: Host, t: Host) -> float:
    """A loss that rounding may leave where there should be none."""
    W = least_squares(A, t)
    return 1e-20 * (float(t @ t) + float((A * A).sum(axis=0) @ (W * W)))


# --- rows that count less ---------------------------------------------------------------------------------------


def _weights(A: Host, t: Host, intercept: bool) -> Host:
    """A weight for each row: about 1, and 0 where it is far from what all others say (Beaton & Tukey 1974).

    One wrong row would otherwise move all weights, and logarithms make outliers of what is near 0.
    """
    n, size = A.shape
    w = np.ones(n)
    if n < ENOUGH or n < 5 * size:
        return w
    if intercept:
        A = np.column_stack([A, w])
    floor = math.sqrt(_rounding(A, t)) + 1e-9 * float(np.sqrt(np.mean(t * t))) + 1e-300
    for i in range(12):
        r = np.abs(A @ least_squares(A * w[:, None], t * w) - t)
        sigma = max(1.4826 * float(np.median(r)), floor)
        # Huber's weights first, which no outlier can turn; then Tukey's, which forget them.
        w = np.sqrt(np.minimum(1.0, 1.5 * sigma / np.maximum(r, sigma))) if i < 6 else _bisquare(r / sigma)
    return w


def _bisquare(u: Host) -> Host:
    """The square root of Tukey's weight: 0 from 6 standard deviations on."""
    return np.asarray(np.where(u < 6, 1 - (u / 6) ** 2, 0.0))


def _weighted(A: Host, t: Host, w: Host, centred: bool) -> tuple[Host, Host]:
    """The rows times their weights; centred where a constant takes care of the means."""
    if centred:
        A, t = A - np.average(A, axis=0, weights=w * w), t - np.average(t, weights=w * w)
    return A * w[:, None], t * w


# --- from losses to constants -----------------------------------------------------------------------------------


def _constants(A: Host, t: Host, w: Host, *, product: bool, scale: bool) -> tuple[Host, float]:
    """The rounded weights, and the constant before them, which is 1 without `scale` and where 1 does."""
    B, u = _weighted(A, t, w, False)
    k = _simplest(B, u)
    if not scale:
        return k, 1.0
    C, v = _weighted(A, t, w, product)
    if _loss(B, u, k) <= _limit(C, v, CLOSE):
        return k, 1.0
    if product:
        free = _simplest(C, v)
        return free, math.exp(float(np.clip(np.average(t - A @ free, weights=w * w), -700, 700)))
    multiples = [(_loss(B, u, size * found), found, size) for found, size in _multiples(B, u)]
    enough = min((loss for loss, *_ in multiples), default=0.0) * (1 + 1e-6) + _rounding(B, u)
    simplest = min(
        (one for one in multiples if one[0] <= enough), key=lambda one: cost(one[1]), default=(0.0, k, 1.0)
    )
    return simplest[1:]


def _simplest(A: Host, t: Host) -> Host:
    """The simplest point of the lattice that fits about as well as the best weights, else the best point."""
    if len(A) < A.shape[1]:  # any target can be fitted: there is nothing to search for
        return rounded(least_squares(A, t))
    best = nearest(A, t)
    limit = _limit(A, t, CLOSE)
    reached = _loss(A, t, best)
    if reached > limit:
        return best
    points = [best, *itertools.islice(within(A, t, limit), MOST_POINTS)]
    return min(points, key=lambda k: (cost(k), _loss(A, t, k)))


def cost(k: Host) -> tuple[int, float, int]:
    """How complicated constants are: how many there are, how far they are from 1, and how many are no integers."""
    used = np.abs(k[k != 0])
    return len(used), float((np.maximum(used, 1 / used) - 1).sum()), int((used % 1 != 0).sum())


def _multiples(A: Host, t: Host) -> Iterator[tuple[Host, float]]:
    """Rounded weights times a constant: each of the larger weights is taken for the constant in turn."""
    W = least_squares(A, t)
    part = np.abs(W) * np.sqrt(np.mean(A * A, axis=0))
    for j in np.argsort(-part, kind="stable")[:8]:
        if W[j] != 0:
            k = rounded(W / W[j])
            k *= 1.0 if np.sum(k > 0) >= np.sum(k < 0) else -1.0
            k *= 1.0 if np.sum(k > 0) > np.sum(k < 0) or k[k != 0][0] > 0 else -1.0
            a = A @ k
            if a @ a > 0:
                yield k, float(a @ t) / float(a @ a)


# --- replicas ---------------------------------------------------------------------------------------------------


def _replicas(A: Host, t: Host, w: Host, intercept: bool, seeds: int, seed: int) -> Host:
    """Free weights of each replica (S, P): of all rows, then of rows that weigh more or less by chance."""
    if intercept:
        A = np.column_stack([A, np.ones(len(A))])
    size = np.sqrt(np.mean(A * A, axis=0))
    size[size == 0] = 1.0
    Q, R = np.linalg.qr(A / size * w[:, None])
    weights = [least_squares(A * w[:, None], t * w)]
    for rng in Streams(seed, list(range(1, seeds)), DATA).generators if seeds > 1 else ():
        times = rng.exponential(size=len(t))  # no row is lost altogether, as with rows drawn again (Rubin 1981)
        gram = (Q * times[:, None]).T @ Q  # near the identity, so that its square costs no digits
        u = np.linalg.lstsq(gram, Q.T @ (times * w * t), rcond=1e-10)[0]
        weights.append(np.linalg.lstsq(R, u, rcond=1e-12)[0] / size)
    return np.stack(weights)
