"""Statistics over seeds, held against closed forms, SciPy, mpmath and simulated experiments of known truth."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from nalu_np import statistics
from nalu_np.errors import OptionError, ShapeError
from nalu_np.statistics import Interval, bootstrap, solved_at, sparsity, sparsity_error, success_rate

NAN, INF = math.nan, math.inf
few = settings(max_examples=30, deadline=None, derandomize=True)

#: For each statistic, what draws n runs.
SAMPLES = {
    success_rate: lambda rng, n: rng.random(n) < rng.random(),
    solved_at: lambda rng, n: np.ceil(rng.gamma(10 ** rng.uniform(-1, 4), 1e5, n)),
    sparsity_error: lambda rng, n: rng.beta(*10 ** rng.uniform(-1, 4, 2), n) / 2,
    bootstrap: lambda rng, n: rng.normal(size=n),
}
LIKELIHOODS = [solved_at, sparsity_error]
RANGE = {success_rate: (0, 1), solved_at: (0, INF), sparsity_error: (0, 0.5), bootstrap: (-INF, INF)}


def ends(interval):
    return [interval.mean, interval.low, interval.high]


# What holds for all of them.


@pytest.mark.parametrize("function", SAMPLES)
@few
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), confidence=st.floats(0.8, 0.99999))
def test_the_estimate_lies_in_the_interval_and_the_interval_in_the_range(function, seed, n, confidence):
    rng = np.random.default_rng(seed)
    x = SAMPLES[function](rng, n)
    found = function(x, confidence=confidence)
    least, most = RANGE[function]
    assert least <= found.low <= found.mean <= found.high <= most
    assert found.n == n
    assert function(rng.permutation(x), confidence=confidence) == found
    assert function(list(x), confidence=confidence) == found


@pytest.mark.parametrize("function", [success_rate, *LIKELIHOODS])
@few
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 20), confidence=st.floats(0.01, 0.99))
def test_more_confidence_widens_and_more_runs_narrow(function, seed, n, confidence):
    x = SAMPLES[function](np.random.default_rng(seed), n)
    assume(np.std(x) > 1e-3 or function is success_rate)
    found = function(x, confidence=confidence)
    wider = function(x, confidence=confidence + 0.009)
    # Where all succeeded, or none, one end is the end of the range.
    assert wider.low < found.low or found.low == found.mean == 0
    assert wider.high > found.high or found.high == found.mean == 1
    # The same runs three times over: the same estimate, known better.
    narrower = function(np.tile(x, 3), confidence=confidence)
    assert narrower.mean == pytest.approx(found.mean, rel=1e-9)
    assert found.low < narrower.low or found.low == 0
    assert narrower.high < found.high or found.high == 1


@pytest.mark.parametrize("function", LIKELIHOODS)
def test_a_run_that_did_not_solve_the_task_is_left_out_and_not_counted(function):
    x = SAMPLES[function](np.random.default_rng(0), 12)
    assert function([NAN, *x, None, NAN]) == function(x)
    nothing = function([NAN, None])
    assert nothing.n == 0
    assert np.isnan(ends(nothing)).all()
    assert str(nothing) == "- (n=0)"


@pytest.mark.parametrize("function", LIKELIHOODS)
def test_one_run_tells_nothing_but_itself(function):
    assert function([0.25]) == Interval(0.25, *RANGE[function], 1)


def test_an_interval_prints_short_and_cannot_be_changed():
    assert str(Interval(1.5e6, 1.43e6, 1.55e6, 98)) == "1.5e+06 [1.43e+06, 1.55e+06] (n=98)"
    with pytest.raises(AttributeError):
        Interval(0, 0, 0, 0).mean = 1


# Success rates.


@pytest.mark.parametrize(
    ("k", "minus", "plus"),
    # From tables of the article, in percent: NAC+ and NAU, NMU, NAC., NAC.NMU, ReLU, NALU.
    [(100, 4, 0), (98, 5, 1), (31, 8, 10), (93, 7, 3), (62, 10, 9), (14, 5, 8), (0, 0, 4)],
)
def test_success_rates_of_published_tables(k, minus, plus):
    found = success_rate([1] * k + [0] * (100 - k))
    assert found.mean == k / 100
    assert 100 * found.low == pytest.approx(k - minus, abs=0.75)
    assert 100 * found.high == pytest.approx(k + plus, abs=0.75)


def test_all_or_none():
    z = 1.959963984540054
    assert ends(success_rate([False] * 100)) == pytest.approx([0, 0, z * z / (100 + z * z)], rel=1e-12)
    assert ends(success_rate([True] * 100)) == pytest.approx([1, 100 / (100 + z * z), 1], rel=1e-12)
    assert success_rate([False] * 7).low == 0
    assert success_rate([True] * 7).high == 1


@pytest.mark.parametrize("value", [NAN, INF, -INF, None])
def test_a_run_that_is_not_finite_failed(value):
    assert success_rate([1, value, 1, 0]) == success_rate([True, False, True, False])
    assert success_rate([value]).mean == 0


@few
@given(n=st.integers(1, 200), share=st.floats(0, 1), confidence=st.floats(0.001, 0.999999))
def test_the_ends_are_z_standard_deviations_from_the_rate(n, share, confidence):
    k = round(n * share)
    found = success_rate([True] * k + [False] * (n - k), confidence=confidence)
    z = float(mpmath.sqrt(2) * mpmath.erfinv(confidence))
    for end in (found.low, found.high):
        assert (end - k / n) ** 2 == pytest.approx(z * z * end * (1 - end) / n, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("n", [10, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_of_the_rate_summed_over_the_binomial_distribution(n, confidence):
    rates = (np.arange(400) + 0.5) / 400
    covered = np.zeros(400)
    for k in range(n + 1):
        found = success_rate([True] * k + [False] * (n - k), confidence=confidence)
        chance = math.comb(n, k) * rates**k * (1 - rates) ** (n - k)
        covered += np.where((found.low <= rates) & (rates <= found.high), chance, 0)
    assert covered.mean() == pytest.approx(confidence, abs=0.02)
    within = (rates > 0.1) & (rates < 0.9)
    assert covered[within].min() > confidence - 0.6 / math.sqrt(n)


# Profile likelihoods, against SciPy's densities and searches.


@pytest.fixture(scope="module")
def scipy():
    scipy = pytest.importorskip("scipy")
    pytest.importorskip("scipy.stats")
    pytest.importorskip("scipy.optimize")
    return scipy


def by_search(scipy, density, start, confidence):
    """The best mean and the ends of its profile likelihood interval; `density` is minus the log likelihood."""

    def search(f, low, high):
        return scipy.optimize.minimize_scalar(f, bounds=(low, high), method="bounded", options={"xatol": 1e-8})

    def profile(t):
        return search(lambda s: density(t, math.exp(s)), -8, 16).fun

    best = search(profile, start - 3, start + 3)
    limit = best.fun + scipy.stats.chi2.ppf(confidence, 1) / 2
    return [
        best.x,
        scipy.optimize.brentq(lambda t: profile(t) - limit, best.x - 12, best.x),
        scipy.optimize.brentq(lambda t: profile(t) - limit, best.x, best.x + 12),
    ]


@pytest.mark.parametrize(("n", "shape", "confidence"), [(3, 5, 0.95), (20, 0.5, 0.95), (100, 30, 0.9)])
def test_the_gamma_interval_is_that_of_a_search(scipy, n, shape, confidence):
    x = np.random.default_rng(n).gamma(shape, 1e5 / shape, n)

    def density(t, a):
        return -np.sum(scipy.stats.gamma.logpdf(x, a, scale=math.exp(t) / a))

    expected = np.exp(by_search(scipy, density, math.log(x.mean()), confidence))
    found = solved_at(x, confidence=confidence)
    assert ends(found) == pytest.approx(expected, rel=1e-6)
    assert found.mean == pytest.approx(x.mean(), rel=1e-15)


BETAS = {
    "skewed": (20, 0.8, 30.0),
    "at both ends": (40, 0.1, 0.1),
    "high": (100, 50.0, 20.0),
    "few": (4, 2.0, 3.0),
    "tiny": (30, 2.0, 2e5),
    "exact": (30, 0.2, 0.8),
}


@pytest.mark.parametrize("name", BETAS)
def test_the_beta_interval_is_that_of_a_search(scipy, name):
    n, alpha, beta = BETAS[name]
    x = np.random.default_rng(n).beta(alpha, beta, n) / 2
    if name == "exact":
        x = np.round(2 * x) / 2
        assert sparsity_error(x).mean > 1.2 * x.mean()
    y = 2 * np.clip(x, 1e-16, 0.5 - 1e-16)

    def density(t, v):
        m, k = scipy.special.expit([t, -t])
        return -np.sum(scipy.stats.beta.logpdf(y, m * v, k * v))

    start = scipy.special.logit(y.mean())
    expected = scipy.special.expit(by_search(scipy, density, start, 0.95)) / 2
    assert ends(sparsity_error(x)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("m", [0.02, 0.3, 0.9])
def test_the_published_script_reports_half_the_mean(scipy, m):
    """Its density is taken at x, that of a distribution whose mean is called 2 mu."""
    x = np.random.default_rng(0).beta(20 * m, 20 * (1 - m), 300) / 2

    def published(parameters):
        mu, v = parameters
        return -np.sum(scipy.stats.beta.logpdf(x, 2 * mu * v, (1 - 2 * mu) * v))

    start = [x.mean() / 2, x.mean() * (0.5 - x.mean()) / x.var(ddof=1) - 1]
    mu = scipy.optimize.minimize(published, start, method="L-BFGS-B", bounds=[(1e-5, 0.49), (1e-5, None)]).x[0]
    assert mu / x.mean() == pytest.approx(0.5, rel=0.02)
    assert sparsity_error(x).mean / x.mean() == pytest.approx(1, rel=0.02)


@few
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1e-3, 1e3))
def test_solved_at_has_no_unit(seed, factor):
    x = np.random.default_rng(seed).gamma(3, 1e4, 10)
    assert ends(solved_at(factor * x)) == pytest.approx(factor * np.array(ends(solved_at(x))), rel=1e-9)


@few
@given(seed=st.integers(0, 2**32 - 1))
def test_sparsity_errors_have_no_preferred_end(seed):
    x = np.random.default_rng(seed).beta(*10 ** np.random.default_rng(seed).uniform(0, 2, 2), 10) / 2
    found, mirrored = sparsity_error(x), sparsity_error(0.5 - x)
    assert [mirrored.mean, mirrored.low, mirrored.high] == pytest.approx(
        [0.5 - found.mean, 0.5 - found.high, 0.5 - found.low], rel=1e-7
    )


def normal_profile(n, z=1.959963984540054):
    """How many standard errors a normal distribution's profile likelihood interval goes: n ln(1 + t^2 / (n-1))."""
    return math.sqrt((n - 1) * math.expm1(z * z / n))


@pytest.mark.parametrize("relative", [1e-3, 1e-5, 3e-9])
@pytest.mark.parametrize("n", [2, 9, 200])
def test_what_varies_little_is_as_if_normal(relative, n):
    """The closed form, where formulas in the logarithm of gamma would have lost all digits."""
    x = 1 + relative * np.tile([-1.0, 1.0], n)[:n]
    half = normal_profile(n) * x.std(ddof=1) / math.sqrt(n)
    rel = 20 * relative + 1e-6
    found = solved_at(x * 2e6)
    assert [found.high - found.mean, found.mean - found.low] == pytest.approx([2e6 * half] * 2, rel=rel)
    found = sparsity_error(x / 5)
    assert [found.high - found.mean, found.mean - found.low] == pytest.approx([half / 5] * 2, rel=rel)


def test_an_end_beyond_all_numbers_is_infinite():
    found = solved_at([1e-300, 1e6], confidence=1 - 1e-15)
    assert 0 < found.low < found.mean == 5e5
    assert found.high == INF


@pytest.mark.parametrize("confidence", [0.01, 0.95, 1 - 1e-15])
@pytest.mark.parametrize("x", [[0, 0.5], [0] * 99 + [1e-9], [0.5] * 99 + [0.5 - 1e-8], [0.25, 0.25 + 1e-9]])
def test_sparsity_errors_at_the_ends_of_their_range(x, confidence):
    found = sparsity_error(x, confidence=confidence)
    assert 0 < found.low < found.mean < found.high <= 0.5
    assert found.mean == pytest.approx(np.mean(x), rel=0.05)


# Coverage: simulated experiments whose truth is known.

EXPERIMENTS = 1000


def covered(function, draw, truth):
    """How often the interval held the truth, and the error of that."""
    rng = np.random.default_rng(2020)
    hits = 0
    for _ in range(EXPERIMENTS):
        found = function(draw(rng))
        hits += found.low <= truth <= found.high
    return hits / EXPERIMENTS


#: Three standard deviations of what that many experiments say.
ERROR = 3 * math.sqrt(0.05 * 0.95 / EXPERIMENTS)


@pytest.mark.parametrize(("n", "shape"), [(20, 8.0), (100, 0.7)])
def test_coverage_of_solved_at(n, shape):
    share = covered(solved_at, lambda rng: rng.gamma(shape, 1e6 / shape, n), 1e6)
    assert share == pytest.approx(0.945, abs=0.005 + ERROR)


@pytest.mark.parametrize(("n", "alpha", "beta"), [(20, 4.0, 6.0), (100, 0.5, 8.0)])
def test_coverage_of_the_sparsity_error(n, alpha, beta):
    share = covered(sparsity_error, lambda rng: rng.beta(alpha, beta, n) / 2, alpha / (alpha + beta) / 2)
    assert share == pytest.approx(0.945, abs=0.005 + ERROR)


@pytest.mark.parametrize(("n", "expected"), [(5, 0.90), (10, 0.93), (50, 0.945)])
def test_few_runs_cover_as_much_as_the_documentation_says(n, expected):
    """For steps that vary little, what covers is known: Student's t, below what the normal profile allows."""
    t = normal_profile(n)
    exact = float(1 - mpmath.betainc((n - 1) / 2, 0.5, 0, (n - 1) / (n - 1 + t * t), regularized=True))
    assert exact == pytest.approx(expected, abs=0.005)
    if n < 50:
        share = covered(solved_at, lambda rng: rng.gamma(1e4, 100, n), 1e6)
        assert share == pytest.approx(exact, abs=1.5 * ERROR)


# Student's interval, which stands in.


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 30, 99, 2000])
@pytest.mark.parametrize("confidence", [1e-3, 0.5, 0.95, 0.999999])
def test_students_quantile(df, confidence):
    t = statistics._student_quantile(df, confidence)
    missed = float(mpmath.betainc(df / 2, 0.5, 0, df / (df + mpmath.mpf(t) ** 2), regularized=True))
    assert missed == pytest.approx(1 - confidence, rel=1e-5)


@pytest.mark.parametrize(("df", "t"), [(1, 12.7062047), (2, 4.3026527), (9, 2.2621572), (99, 1.9842170)])
def test_students_table(df, t):
    assert statistics._student_quantile(df, 0.95) == pytest.approx(t, abs=1e-7)


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (solved_at, np.array([1000.0, 1000.000001, 1000.000002])),
        (solved_at, np.array([1e15, 1e15 + 1000, 1e15 + 2000])),
        (sparsity_error, np.array([1e-11, 2e-11, 6e-11])),
        (sparsity_error, np.array([0.3, 0.3 + 1e-11, 0.3])),
    ],
)
def test_all_but_equal_runs_have_students_interval(function, x):
    half = 4.302652729911275 * x.std(ddof=1) / math.sqrt(3)
    found = function(x)
    expected = [x.mean(), max(x.mean() - half, 0), x.mean() + half]
    assert ends(found) == pytest.approx(expected, rel=1e-15, abs=1e-6 * half)


@pytest.mark.parametrize(("function", "x"), [(solved_at, 3000), (sparsity_error, 0.1), (sparsity_error, 0.5)])
def test_equal_runs(function, x):
    found = function([x] * 7)
    assert found.mean == x
    assert ends(found) == pytest.approx([x, x, x], rel=1e-15)


def test_students_interval_is_cut_to_the_range():
    assert sparsity_error([0, 1e-11]).low == 0
    assert sparsity_error([0.5, 0.5 - 1e-11]).high == 0.5
    assert solved_at([1e-6, 2e-6]).low == 0


@pytest.mark.parametrize(
    ("function", "spread", "taken"),
    [
        (solved_at, 0.99e-5, False),
        (solved_at, 1.01e-5, True),
        (sparsity_error, 0.99e-10, False),
        (sparsity_error, 1.01e-10, True),
    ],
)
def test_where_the_likelihood_takes_over(function, spread, taken):
    """Two runs: Student's t is 12.7 there, the likelihood goes 2.4 standard errors."""
    x = 0.1 + spread / math.sqrt(2) * np.array([-1, 1])
    found = function(x)
    t = (found.high - found.mean) / (spread / math.sqrt(2))
    assert t == pytest.approx(normal_profile(2) if taken else 12.706, rel=1e-2)


# The functions underneath.


@few
@given(exponent=st.floats(-12, 15))
@example(1.0)
def test_what_stirling_leaves(exponent):
    a = 10**exponent
    with mpmath.workdps(50):
        A = mpmath.mpf(a)
        binet = mpmath.loggamma(A) - (A - 0.5) * mpmath.log(A) + A - mpmath.log(2 * mpmath.pi) / 2
        slope = mpmath.log(A) - mpmath.digamma(A)
    assert statistics._binet(a) == pytest.approx(float(binet), rel=1e-13, abs=1e-13)
    assert statistics._log_minus_digamma(a) == pytest.approx(float(slope), rel=1e-12)


# Sparsity.


def test_sparsity_is_that_of_the_worst_weight():
    W = np.array([[1.0, 0.0], [-0.9, -1.0]])
    assert sparsity(W) == pytest.approx(0.1)
    assert sparsity(W, [[0.3]]) == pytest.approx(0.3)
    assert sparsity([[-1.25]]) == 0.25
    assert sparsity([[-1, 0, 1]]) == 0
    assert sparsity(W).shape == ()


def test_sparsity_of_replicas_one_by_one():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(-1, 1, (5, 3, 2)).astype("float32"), rng.uniform(-1, 1, (5, 2, 1))
    second[3] = 0
    found = sparsity(first, second)
    assert found.shape == (5,)
    assert found.tolist() == [float(sparsity(a, b)) for a, b in zip(first, second, strict=True)]
    everything = [np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(first, second, strict=True)]
    expected = [max(min(abs(w), abs(w - 1), abs(w + 1)) for w in each) for each in everything]
    assert found == pytest.approx(expected)
    assert found.dtype == np.float64


def test_weights_beyond_the_units_count_as_half_and_lost_ones_as_nan():
    found = sparsity([[[3.0]], [[NAN]], [[INF]], [[0.5]]], [[[1.0]], [[0.2]], [[0.2]], [[NAN]]])
    assert found.tolist() == pytest.approx([0.5, NAN, NAN, NAN], nan_ok=True)
    assert sparsity_error(found) == Interval(0.5, 0, 0.5, 1)


@pytest.mark.parametrize(
    "weights",
    [(), ([1.0, 0.0],), (0.5,), ([[]],), ([[[1.0]]], [[1.0]]), ([[[1.0]]], [[[1.0]]] * 2), ([[[[1.0]]]],)],
)
def test_weights_of_other_shapes(weights):
    with pytest.raises(ShapeError, match=r"^sparsity: expected weights \(I, O\), or \(S, I, O\)"):
        sparsity(*weights)


# The bootstrap.


@pytest.mark.parametrize("n", [30, 200])
def test_the_bootstrap_of_a_mean_is_near_its_standard_error(n):
    x = np.random.default_rng(n).normal(3, 2, n)
    found = bootstrap(x, np.mean)
    half = 1.96 * x.std() / math.sqrt(n)
    assert ends(found) == pytest.approx([x.mean(), x.mean() - half, x.mean() + half], abs=0.06 * half)


def test_the_bootstrap_of_a_median_is_near_its_binomial_interval():
    """The ends are order statistics; their ranks are quantiles of the binomial distribution, of 101 halves."""
    found = bootstrap(np.arange(101))
    assert found.mean == 50
    assert [found.low, found.high] == pytest.approx([40, 60], abs=1)


def test_the_bootstrap_repeats_and_its_seed_matters():
    x = np.random.default_rng(0).normal(size=50)
    assert bootstrap(x, np.mean) == bootstrap(x, np.mean)
    assert bootstrap(x, np.mean) != bootstrap(x, np.mean, seed=1)
    assert bootstrap(x, np.mean, resamples=100) != bootstrap(x, np.mean)
    wide, narrow = bootstrap(x, confidence=0.99), bootstrap(x, confidence=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_failed_run_is_never_left_out_of_the_bootstrap():
    x = np.arange(20.0)
    assert bootstrap([*x, NAN, INF], np.mean).mean == INF
    found = bootstrap([*x, NAN, None])
    assert found.n == 22
    assert found.mean == 10.5
    assert found.high < INF
    assert bootstrap([1, NAN, NAN]).mean == INF


def test_many_runs_are_drawn_in_turns(monkeypatch):
    monkeypatch.setattr(statistics, "DRAWN", 7)
    sizes = []

    def mean(x, axis):
        sizes.append(x.shape)
        return np.mean(x, axis=axis)

    bootstrap([1, 2, 3], mean, resamples=5)
    assert sizes == [(2, 3), (2, 3), (1, 3), (3,)]
    sizes.clear()
    bootstrap(np.arange(9), mean, resamples=2)
    assert sizes == [(1, 9), (1, 9), (9,)]


# Bad input.


@pytest.mark.parametrize("function", SAMPLES)
@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, NAN, True, "0.95", None, 0.5j])
def test_confidence_is_between_0_and_1(function, confidence):
    with pytest.raises(OptionError, match=rf"^{function.__name__}: confidence must be a .*; 95 % is 0.95$"):
        function([0.25, 0.5], confidence=confidence)


@pytest.mark.parametrize("function", SAMPLES)
@pytest.mark.parametrize("values", [[], 0.25, [[0.25, 0.5]], np.zeros((0, 2)), None])
def test_one_number_per_run(function, values):
    with pytest.raises(
        OptionError, match=rf"^{function.__name__}: \w+ must be one number per run, at least one, got"
    ):
        function(values)


@pytest.mark.parametrize("function", SAMPLES)
@pytest.mark.parametrize("values", [["a"], ["1"], [1j], [[1], [1, 2]], [{}], "ab", {1: 2}, [object()]])
def test_what_is_not_a_number(function, values):
    with pytest.raises(OptionError, match=rf"^{function.__name__}: \w+ must be numbers in lists or NumPy arrays"):
        function(values)


@pytest.mark.parametrize("function", [*SAMPLES, sparsity])
def test_arrays_of_another_library(function, fake_cupy):
    with pytest.raises(OptionError, match=rf"^{function.__name__}: \w+ must be numbers in lists or NumPy arrays"):
        function(fake_cupy.asarray([0.25, 0.5]))


@pytest.mark.parametrize(
    ("function", "values", "message"),
    [
        (
            success_rate,
            [1, 0.5, NAN, -1],
            "successes must be true or false, got 0.5 in 2 of 4 runs; compare",
        ),
        (solved_at, [1000, 0], "steps must be above 0 and at most 2**53, got 0 in 1 of 2 runs; a run that never"),
        (solved_at, [1000, NAN, -1000], "steps must be above 0 and at most 2**53, got -1000 in 1 of 2 runs"),
        (solved_at, [INF, 1000], "steps must be above 0 and at most 2**53, got inf in 1 of 2 runs"),
        (sparsity_error, [0.2, 0.51], "errors must be from 0 to 0.5, got 0.51 in 1 of 2 runs; only runs that"),
        (sparsity_error, [-1e-9, 0.2], "errors must be from 0 to 0.5, got -1e-09 in 1 of 2 runs"),
        (sparsity_error, [INF], "errors must be from 0 to 0.5, got inf in 1 of 1 runs"),
    ],
)
def test_values_outside_their_range(function, values, message):
    with pytest.raises(OptionError) as error:
        function(values)
    assert str(error.value).startswith(f"{function.__name__}: {message}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "resamples must be an integer >= 1, got 0"),
        ({"resamples": 1.5}, "resamples must be an integer >= 1, got 1.5"),
        ({"resamples": True}, "resamples must be an integer >= 1, got True"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": None}, "seed must be an integer >= 0, got None"),
    ],
)
def test_options_of_the_bootstrap(options, message):
    with pytest.raises(OptionError) as error:
        bootstrap([1, 2], **options)
    assert str(error.value) == f"bootstrap: {message}"
