"""Statistics over seeds: how often a task was solved, how soon, how sharply, each with its interval.

Metrics and intervals are those of Madsen & Johansen (2020), so that rows can be compared with the published ones.
An array holds one entry per run, NaN where a run has none: what failed is counted, never forgotten.

With n runs and z the normal quantile (1.96 for 95 %), a profile likelihood interval holds the means mu with

    2 n (p(mu^) - p(mu)) <= z^2,      p(mu) = max over v of l(mu, v),

l the log-likelihood of a run on average, v the other parameter, mu^ the mean of the highest p. Gamma and beta are
both written in the excess e(r) = r - 1 - ln r >= 0, in Binet's function R and in the derivative L of what is left:

    ln Gamma(a) = (a - 1/2) ln a - a + ln(2 pi)/2 + R(a),      L(a) = ln a - digamma(a).

Nothing large is then left that would have to cancel, however closely the runs agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import OptionError, ShapeError

Host = NDArray[np.float64]

#: How far a sparsity error stays from 0 and 1/2, where a beta density may be infinite.
EDGE = 1e-16

#: Numbers that a bootstrap draws at once.
DRAWN = 2**20


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Parameters
    ----------
    mean : float
        The estimate.
    low, high : float
        The ends of the interval.
    n : int
        How many runs it comes from. With 0 the rest is NaN.

    Examples
    --------
    >>> from nalu_np.statistics import Interval
    >>> print(Interval(0.31, 0.2278, 0.4063, 100))
    0.31 [0.228, 0.406] (n=100)
    >>> print(Interval(float("nan"), float("nan"), float("nan"), 0))
    - (n=0)
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Three digits of each."""
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}] (n={self.n})" if self.n else "- (n=0)"


def success_rate(successes: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The share of runs that succeeded, k/n, with Wilson's interval.

    The interval holds every rate p of which k/n is within z standard deviations: (k/n - p)^2 <= z^2 p (1 - p) / n.

    Parameters
    ----------
    successes : array
        (N): for each run true or false, or 1 or 0; a run that is not finite is a failure.
    confidence : float
        Of the interval, between 0 and 1.

    Returns
    -------
    Interval
        ``n`` is the number of all runs.

    Raises
    ------
    OptionError
        No runs, an entry that is neither true nor false, or a confidence that is not between 0 and 1.

    Notes
    -----
    Averaged over p it covers what it should; for one p and n it may be a little more or less, as any must (Brown,
    Cai & DasGupta 2001).

    References
    ----------
    E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22, 209-212.

    Examples
    --------
    >>> from nalu_np.statistics import success_rate
    >>> print(success_rate([True] * 31 + [False] * 69))
    0.31 [0.228, 0.406] (n=100)
    >>> print(success_rate([1.0, 0.0, float("nan"), 1.0]))
    0.5 [0.15, 0.85] (n=4)
    """
    z = _normal_quantile("success_rate", confidence)
    runs = _numbers("success_rate", "successes", successes)
    runs = np.where(np.isfinite(runs), runs, 0.0)
    bad = (runs != 0) & (runs != 1)
    _refuse("success_rate", "successes", runs, bad, "true or false", "compare errors with a threshold first")
    n = len(runs)
    p = float(np.sum(runs)) / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    size = 1 + z * z / n
    return Interval(p, min(max((centre - half) / size, 0.0), p), max(min((centre + half) / size, 1.0), p), n)


def solved_at(steps: ArrayLike, *, confidence: float = 0.95) -> Interval:
    r"""The mean of the steps at which runs first solved the task, with the gamma likelihood's interval.

    The density is that of a gamma distribution of mean mu and shape a (variance mu^2 / a),

        (a / mu)^a x^(a-1) exp(-a x / mu) / Gamma(a),

    so that mu^ is the sample's mean, and with s = mean e(x / mu^) + e(mu^ / mu)

        p(mu) = max over a of  ln(a) / 2 - R(a) - a s,      where L(a) = s.

    Parameters
    ----------
    steps : array
        (N): for each run the step at which it first solved the task, NaN where it never did.
    confidence : float
        Of the interval, between 0 and 1.

    Returns
    -------
    Interval
        Of the runs that solved the task; their number is ``n``.

    Raises
    ------
    OptionError
        No runs, a step that is not above 0, or a confidence that is not between 0 and 1.

    Notes
    -----
    Where the steps are all but equal (standard deviation at most 1e-5, or 1e-9 of the mean), Student's interval
    stands in, cut at 0. One run tells nothing: its interval is [0, inf].

    Being asymptotic, an interval of few runs covers too little: one of 95 % really about 90 % for 5 runs, 93 % for
    10, 94.5 % for 50.

    References
    ----------
    A. Madsen, A. R. Johansen (2020), Neural Arithmetic Units, ICLR, arXiv:2001.05016.

    Examples
    --------
    >>> from nalu_np.statistics import solved_at
    >>> print(solved_at([12000, 14000, 9000, float("nan"), 31000]))
    1.65e+04 [9.7e+03, 3.14e+04] (n=4)
    """
    z = _normal_quantile("solved_at", confidence)
    x = _solved("solved_at", "steps", steps)
    bad = ~((x > 0) & (x <= 2.0**53))
    _refuse("solved_at", "steps", x, bad, "above 0 and at most 2**53", "a run that never solved the task is NaN")
    n = len(x)
    mean, sd = _mean(x), _deviation(x)
    if not sd > max(1e-5, 1e-9 * mean):
        return _student(x, confidence, math.inf)
    own = _mean_excess(x, mean)

    def profile(t: float) -> float:
        s = own + (math.expm1(-t) + t)  # e(mu^ / mu), t = ln(mu / mu^)
        a = _shape(_log_minus_digamma, s)
        return math.log(a) / 2 - _binet(a) - a * s

    low, high = _ends(profile, 0.0, z * sd / mean / math.sqrt(n), z, n)
    return Interval(mean, mean * math.exp(low), mean * math.exp(high) if high < 700 else math.inf, n)


def sparsity_error(errors: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean sparsity error of the runs that solved the task, with the beta likelihood's interval.

    Twice the error, y = 2 x, lies between 0 and 1. Its density is that of a beta distribution of mean m and
    precision v,

        y^(m v - 1) (1 - y)^((1-m) v - 1) Gamma(v) / (Gamma(m v) Gamma((1-m) v)),

    so that with s = m (mean e(y / Y) + e(Y / m)) + (1-m) (mean e((1-y) / (1-Y)) + e((1-Y) / (1-m))), Y = mean y,

        p(m) = max over v of  ln(m (1-m) v) / 2 + R(v) - R(m v) - R((1-m) v) - v s.

    What is returned is m^ / 2 and its interval.

    Parameters
    ----------
    errors : array
        (N): for each run its sparsity error, from 0 to 1/2, NaN where it did not solve the task.
    confidence : float
        Of the interval, between 0 and 1.

    Returns
    -------
    Interval
        Of the runs that solved the task; their number is ``n``.

    Raises
    ------
    OptionError
        No runs, an error that is not from 0 to 1/2, or a confidence that is not between 0 and 1.

    Notes
    -----
    **Published means are half of these.** The article's script evaluates the density at x instead of 2 x, while it
    takes the mean to be 2 mu: what it reports is near half the sample's mean. Halve before you compare with its
    tables, but for entries of 0.5: they come from its fallback, which does not halve.

    The mean is the likelihood's, near the sample's mean where the errors are about beta distributed, but not where
    many are exactly 0 and some are not: an error within 1e-16 of 0 or 1/2 counts as that far from it.

    Where the errors are all but equal (standard deviation at most 1e-10), Student's interval stands in, cut at 0
    and 1/2. One run tells nothing: its interval is [0, 0.5]. Of few runs an interval covers too little, as that of
    `solved_at` does.

    References
    ----------
    A. Madsen, A. R. Johansen (2020), Neural Arithmetic Units, ICLR, arXiv:2001.05016; the script is
    export/_compute_summary.r of its code.

    Examples
    --------
    >>> from nalu_np.statistics import sparsity_error
    >>> print(sparsity_error([0.02, 0.03, float("nan"), 0.01, 0.05]))
    0.0275 [0.0149, 0.0566] (n=4)
    """
    z = _normal_quantile("sparsity_error", confidence)
    x = _solved("sparsity_error", "errors", errors)
    advice = "only runs that solved the task have one, the others are NaN"
    _refuse("sparsity_error", "errors", x, ~((x >= 0) & (x <= 0.5)), "from 0 to 0.5", advice)
    n = len(x)
    sd = 2 * _deviation(x)
    if not sd > 2e-10:
        return _student(x, confidence, 0.5)
    y = 2 * np.clip(x, EDGE, 0.5 - EDGE)
    Y, rest = float(np.mean(y)), float(np.mean(1 - y))
    own, own_rest = _mean_excess(y, Y), _mean_excess(1 - y, rest)

    def split(t: float) -> tuple[float, float, float, float]:
        """The mean m = 1 / (1 + exp(-t)), 1 - m, s, and the best v."""
        m, k = 1 / (1 + math.exp(-t)), 1 / (1 + math.exp(t))
        s = m * (own + _excess(Y / m)) + k * (own_rest + _excess(rest / k))

        def slope(v: float) -> float:
            return m * _log_minus_digamma(m * v) + k * _log_minus_digamma(k * v) - _log_minus_digamma(v)

        return m, k, s, _shape(slope, s)

    def profile(t: float) -> float:
        m, k, s, v = split(t)
        return math.log(m * k * v) / 2 + _binet(v) - _binet(m * v) - _binet(k * v) - v * s

    def score(t: float) -> float:
        """The derivative of p by m, over v: above 0 where m is too low."""
        m, k, _, v = split(t)
        up = math.log(Y / m) - own + _log_minus_digamma(m * v)
        return up - (math.log(rest / k) - own_rest + _log_minus_digamma(k * v))

    start, scale, reach = math.log(Y / rest), z * sd / (Y * rest) / math.sqrt(n), 1.0
    while score(start - reach * scale) <= 0 or score(start + reach * scale) >= 0:
        reach *= 2
    best = start + scale * _root(lambda u: score(start + u * scale) / scale, -reach, reach)
    m = split(best)[0]
    low, high = (split(t)[0] for t in _ends(profile, best, scale, z, n))
    return Interval(m / 2, low / 2, high / 2, n)


def sparsity(*weights: ArrayLike) -> Host:
    """The sparsity error of weights: how far the worst of them is from -1, 0 and 1, max of min(|W|, |1 - |W||).

    Parameters
    ----------
    *weights : array
        Those of all layers, each (I, O), or (S, I, O) for S replicas.

    Returns
    -------
    Host
        Shape (), or (S,); at most 1/2, as much as a weight within [-1, 1] can have; NaN where a weight is not
        finite.

    Raises
    ------
    ShapeError
        Weights that are not of these shapes.
    OptionError
        Weights that are not numbers, or not on the host.

    Notes
    -----
    The weights of a linear layer may lie beyond 3/2; they count as 1/2, as the published analysis has it.

    References
    ----------
    A. Madsen, A. R. Johansen (2020), Neural Arithmetic Units, ICLR, arXiv:2001.05016.

    Examples
    --------
    >>> from nalu_np.statistics import sparsity
    >>> print(sparsity([[1.0, 0.0], [-0.75, 0.125]]))
    0.25
    """
    sizes = [np.abs(_host("sparsity", "weights", W)) for W in weights]
    shapes = [W.shape for W in sizes]
    if not sizes or any(len(s) not in (2, 3) or 0 in s or s[:-2] != shapes[0][:-2] for s in shapes):
        raise ShapeError(
            f"sparsity: expected weights (I, O), or (S, I, O) of one number of replicas, got shapes {shapes}"
        )
    worst = [np.max(np.minimum(W, np.abs(1 - W)), axis=(-2, -1)) for W in sizes]
    finite = np.all([np.isfinite(W).all(axis=(-2, -1)) for W in sizes], axis=0)
    return np.asarray(np.where(finite, np.minimum(np.max(worst, axis=0), 0.5), math.nan))


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., Host] = np.median,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """A statistic of errors over seeds, with the bootstrap's percentile interval.

    The interval is what lies between the quantiles of the statistic over samples of n drawn with replacement.

    Parameters
    ----------
    values : array
        (N): for each run a number, the lower the better; NaN, of a run that failed, counts as infinite.
    statistic : function
        ``np.median``, ``np.mean`` or another function of an array and its ``axis``.
    confidence : float
        Of the interval, between 0 and 1.
    resamples : int
        How many samples are drawn.
    seed : int
        Of the draws; the same seed gives the same interval.

    Returns
    -------
    Interval
        ``n`` is the number of all runs.

    Raises
    ------
    OptionError
        No runs, resamples or a seed that is not such an integer, a confidence that is not between 0 and 1.

    References
    ----------
    B. Efron (1979), Bootstrap methods: another look at the jackknife, Annals of Statistics 7, 1-26.

    Examples
    --------
    >>> import numpy as np
    >>> from nalu_np.statistics import bootstrap
    >>> print(bootstrap(np.arange(1, 102)))
    51 [41, 61] (n=101)
    """
    _normal_quantile("bootstrap", confidence)
    for name, value, least in (("resamples", resamples, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise OptionError(f"bootstrap: {name} must be an integer >= {least}, got {value!r:.60}")
    x = _numbers("bootstrap", "values", values)
    x = np.sort(np.where(np.isnan(x), math.inf, x))
    rng, n = np.random.default_rng(int(seed)), len(x)
    rows = max(1, DRAWN // n)
    drawn = np.concatenate(
        [
            statistic(x[rng.integers(n, size=(min(rows, resamples - done), n))], axis=1)
            for done in range(0, resamples, rows)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], method="inverted_cdf").tolist()
    return Interval(float(statistic(x, axis=0)), low, high, n)


def _normal_quantile(who: str, confidence: float) -> float:
    """The z with P(|Z| <= z) = confidence."""
    if not isinstance(confidence, Real) or isinstance(confidence, bool) or not 0 < confidence < 1:
        raise OptionError(
            f"{who}: confidence must be a number between 0 and 1, got {confidence!r:.60}; 95 % is 0.95"
        )
    return -NormalDist().inv_cdf((1 - confidence) / 2)


def _host(who: str, name: str, values: ArrayLike) -> Host:
    """An array of numbers; what is not there (None) is NaN."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biufO":
            return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):
        pass  # of another library, ragged, or of other things than numbers
    raise OptionError(f"{who}: {name} must be numbers in lists or NumPy arrays, got {values!r:.60}")


def _numbers(who: str, name: str, values: ArrayLike) -> Host:
    """One number per run."""
    numbers = _host(who, name, values)
    if numbers.ndim != 1 or not len(numbers):
        raise OptionError(f"{who}: {name} must be one number per run, at least one, got shape {numbers.shape}")
    return numbers


def _solved(who: str, name: str, values: ArrayLike) -> Host:
    """The numbers that are there, in order: sums are the same bits however the runs are ordered."""
    numbers = _numbers(who, name, values)
    return np.sort(numbers[~np.isnan(numbers)])


def _refuse(who: str, name: str, runs: Host, bad: NDArray[np.bool_], expected: str, advice: str) -> None:
    if bad.any():
        found = f"{runs[bad][0]:g} in {int(bad.sum())} of {len(runs)} runs"
        raise OptionError(f"{who}: {name} must be {expected}, got {found}; {advice}")


def _mean(x: Host) -> float:
    """NaN of none; between the least and the most, whatever rounding does."""
    return min(max(float(np.mean(x)), float(x[0])), float(x[-1])) if len(x) else math.nan


def _deviation(x: Host) -> float:
    """The sample's standard deviation; NaN of less than two."""
    return float(np.std(x, ddof=1)) if len(x) > 1 else math.nan


def _student(x: Host, confidence: float, most: float) -> Interval:
    """Mean and Student's interval, cut to [0, most]; of one run all that, of none NaN."""
    n = len(x)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = _mean(x)
    half = _student_quantile(n - 1, confidence) * _deviation(x) / math.sqrt(n) if n > 1 else math.inf
    return Interval(mean, max(mean - half, 0.0), min(mean + half, most), n)


def _student_quantile(df: int, confidence: float) -> float:
    """The t with P(|T| <= t) = confidence, of a whole number of degrees of freedom.

    With t = sqrt(df) tan(h), the probability is a finite sum (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4)::

        df even:  sin h (1 + 1/2 cos^2 h + 1*3/(2*4) cos^4 h + ... + cos^(df-2) h)
        df odd:   2/pi (h + sin h (cos h + 2/3 cos^3 h + 2*4/(3*5) cos^5 h + ... + cos^(df-2) h))
    """
    odd = df % 2
    k = np.arange(1 + odd, df - 1, 2)

    def missing(h: float) -> float:
        c = math.cos(h)
        terms = 1 + float(np.sum(np.cumprod(k / (k + 1) * c * c)))
        if odd:
            return 2 / math.pi * (h + math.sin(h) * c * terms * (df > 1)) - confidence
        return math.sin(h) * terms - confidence

    return math.sqrt(df) * math.tan(_root(missing, 0.0, math.pi / 2))


def _ends(profile: Callable[[float], float], best: float, scale: float, z: float, n: int) -> tuple[float, float]:
    """Where 2 n (p(best) - p(t)) is z^2, below and above; its root is nearly linear in t, z about at one scale."""
    top = profile(best)

    def end(step: float) -> float:
        def beyond(u: float) -> float:
            return math.sqrt(max(0.0, 2 * n * (top - profile(best + u * step)))) - z

        reach = 1.0
        while beyond(reach) <= 0:
            reach *= 2
        return best + step * _root(beyond, 0.0, reach)

    return end(-scale), end(scale)


def _shape(slope: Callable[[float], float], s: float) -> float:
    """The v where slope(v) = s; slope falls, and v slope(v) lies between 1/2 and 1."""
    return math.exp(_root(lambda t: math.log(slope(math.exp(t)) / s), math.log(0.49 / s), math.log(1.01 / s)))


def _root(f: Callable[[float], float], a: float, b: float) -> float:
    """Where f is 0, between a and b, where its signs differ: the Illinois method (Dowell & Jarratt 1971)."""
    fa, fb = f(a), f(b)
    for _ in range(60):
        c = b - fb * (b - a) / (fb - fa)
        fc = f(c)
        if fc * fb > 0:
            fa /= 2  # the far end has stayed: it counts for less, so that the next step passes the root
        else:
            a, fa = b, fb
        b, fb = c, fc
        if abs(fb) <= 1e-12:
            break
    return b


def _excess(ratio: float) -> float:
    """e(r) = r - 1 - ln r: about half the square of what r deviates from 1 by."""
    return ratio - 1 - math.log(ratio)


def _mean_excess(x: Host, mean: float) -> float:
    """Mean of e(x / mean)."""
    ratio = x / mean
    return float(np.mean(ratio - 1 - np.log(ratio)))


def _binet(a: float) -> float:
    """R(a), a > 0: what Stirling's formula leaves of ln Gamma(a)."""
    if a < 10:
        return math.lgamma(a) - (a - 0.5) * math.log(a) + a - math.log(2 * math.pi) / 2
    q = 1 / (a * a)
    return (1 / 12 - q * (1 / 360 - q * (1 / 1260 - q * (1 / 1680 - q / 1188)))) / a


def _log_minus_digamma(a: float) -> float:
    """L(a), a > 0: from digamma(a) = digamma(a + 1) - 1/a to where the asymptotic series holds."""
    shift, b = 0.0, a
    while b < 10:
        shift += 1 / b
        b += 1
    q = 1 / (b * b)
    series = 1 / (2 * b) + q * (1 / 12 - q * (1 / 120 - q * (1 / 252 - q * (1 / 240 - q / 132))))
    return series + (shift - math.log(b / a) if b > a else 0.0)
