"""The race: each path at its lowest loss, its constants on the lattice, and what its replicas say."""

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np import race
from nalu_np.backend import DATA
from nalu_np.lattice import POINTS, rounded
from nalu_np.layer import replica
from nalu_np.learn import predict
from nalu_np.race import _limit, cost, run, with_offset

NAMES = ("a", "b", "c")
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["sum", "product"])
constants = st.sampled_from([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 4.0])
triples = st.lists(constants, min_size=3, max_size=3).map(np.array)
uniform = np.random.default_rng(0).uniform


def signed_rows(rng, n=60, columns=3, low=0.5, high=3.0):
    return rng.uniform(low, high, (n, columns)) * rng.choice([-1.0, 1.0], (n, columns))


def power(x, k):
    """A product with its sign, by its definition: whole powers have one, roots are of magnitudes."""
    whole = k % 1 == 0
    return np.prod(x[:, whole] ** k[whole], axis=1) * np.prod(np.abs(x[:, ~whole]) ** k[~whole], axis=1)


def losses(found, kind, x, y):
    """Of every replica, in the domain in which its path is fitted."""
    domain = (lambda q: np.log(np.abs(q))) if kind == "product" else (lambda q: q)
    replicas = len(found.params["W"])
    predictions = [predict(found.layer, replica(found.params, r), x) for r in range(replicas)]
    return np.array([np.sum((domain(p) - domain(y)) ** 2) for p in predictions])


# --- the lowest loss ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(kind=kinds, scale=st.booleans(), seed=seeds)
def test_any_step_from_the_first_replica_raises_its_loss(kind, scale, seed):
    rng = np.random.default_rng(seed)
    x, y = signed_rows(rng)[:25], signed_rows(rng, columns=1)[:25, 0]  # so few that none weighs less
    found = run(kind, x, y, NAMES, scale=scale, seeds=3, seed=seed)
    lowest, *others = losses(found, kind, x, y)
    assert min(others) >= lowest * (1 - 1e-12)
    first = replica(found.params, 0)
    moving = ["W"]
    if kind == "product" and found.formula.terms[0] != run(kind, x, y, NAMES).formula.terms[0]:
        moving = [name for name in first if name != "c" or abs(first["c"][0]) != 1]
    for name in moving:
        for step in (1e-3, -1e-3):
            for i in range(first[name].size):
                moved = {key: np.array(value) for key, value in first.items()}
                moved[name].flat[i] += step
                prediction = predict(found.layer, moved, x)
                domain = (lambda q: np.log(np.abs(q))) if kind == "product" else (lambda q: q)
                assert np.sum((domain(prediction) - domain(y)) ** 2) > lowest


def test_the_first_replica_is_the_closed_form_on_all_rows():
    x, y = uniform(1, 2, (25, 3)), uniform(1, 2, 25)
    total, product = (run(kind, x, y, NAMES, seeds=2) for kind in ("sum", "product"))
    np.testing.assert_allclose(total.params["W"][0, :, 0], np.linalg.lstsq(x, y)[0], rtol=1e-9)
    np.testing.assert_allclose(product.params["W"][0, :, 0], np.linalg.lstsq(np.log(x), np.log(y))[0], rtol=1e-9)
    assert total.params.keys() == product.params.keys() == {"W"}
    assert (type(total.layer), type(product.layer)) == (nn.SumPath, nn.ProductPath)
    assert not total.layer.scale
    scaled = run("product", x, 37 * y, NAMES, scale=True)
    with_ones = np.column_stack([np.log(x), np.ones(25)])
    *W, log_c = np.linalg.lstsq(with_ones, np.log(37 * y))[0]
    np.testing.assert_allclose(scaled.params["W"][0, :, 0], W, rtol=1e-9)
    np.testing.assert_allclose(scaled.params["c"], [[np.exp(log_c)]], rtol=1e-9)
    assert scaled.layer == nn.ProductPath(3, 1, scale=True)


# --- laws -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(kind=kinds, k=triples, seed=seeds)
def test_every_law_of_the_lattice_is_recovered(kind, k, seed):
    rng = np.random.default_rng(seed)
    x = signed_rows(rng)
    y = x @ k if kind == "sum" else power(x, k)
    assume(y.any())
    found = run(kind, x, y, NAMES, seeds=4, seed=seed)
    np.testing.assert_allclose(found.params["W"][..., 0], np.tile(k, (4, 1)), atol=1e-9)
    np.testing.assert_allclose(found.formula(x)[:, 0], y, rtol=1e-9, atol=1e-12)
    assert found.formula.error <= 1e-9
    assert found.formula.exact == (np.std(y) > 0 or found.formula.error == 0)
    assert found.agree.all()
    assert not found.elsewhere
    assert found.left_out == 0
    assert (found.formula.names, found.formula.resolved) == (NAMES, True)


@settings(max_examples=60, deadline=None)
@given(k=triples, c=st.floats(1e-6, 1e6), sign=st.sampled_from([-1, 1]), seed=seeds)
def test_a_constant_before_a_product_is_recovered(k, c, sign, seed):
    rng = np.random.default_rng(seed)
    x = signed_rows(rng)
    y = sign * c * power(x, k)
    found = run("product", x, y, NAMES, scale=True, seeds=4)
    np.testing.assert_allclose(found.params["W"][..., 0], np.tile(k, (4, 1)), atol=1e-8)
    np.testing.assert_allclose(predict(found.layer, replica(found.params, 0), x), y, rtol=1e-7)
    np.testing.assert_allclose(found.formula(x)[:, 0], y, rtol=1e-8)
    assert found.agree.all()
    assert not found.elsewhere
    constant = found.params["c"][0, 0] if "c" in found.params else 1.0
    assert constant == pytest.approx(sign * c, rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(
    k=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=3, max_size=3).map(np.array),
    c=st.one_of(st.floats(5, 1e6), st.floats(1e-6, 0.04)),
    sign=st.sampled_from([-1, 1]),
    seed=seeds,
)
def test_a_constant_before_a_sum_is_recovered(k, c, sign, seed):
    assume(1 in np.abs(k))
    x = signed_rows(np.random.default_rng(seed))
    y = sign * c * (x @ k)
    found = run("sum", x, y, NAMES, scale=True, seeds=4)
    np.testing.assert_allclose(found.formula(x)[:, 0], y, rtol=1e-9, atol=1e-9 * c)
    for r in range(4):
        prediction = predict(found.layer, replica(found.params, r), x)
        np.testing.assert_allclose(prediction, y, rtol=1e-9, atol=1e-9 * c)
    assert found.agree.all()
    assert not found.elsewhere
    # Of c and -c the one that leaves more pluses.
    K = rounded(found.params["W"][0, :, 0])
    assert np.sum(K > 0) >= np.sum(K < 0)


@pytest.mark.parametrize(
    ("kind", "law", "options", "text"),
    [
        ("sum", lambda a, b, c: a + b, {}, "a + b"),
        ("sum", lambda a, b, c: 4 * a - 2.5 * b, {}, "4 * a - 2.5 * b"),
        ("sum", lambda a, b, c: 7.3 * (a - b), {"scale": True}, "7.3 * (a - b)"),
        ("sum", lambda a, b, c: -7.3 * (a + b), {"scale": True}, "-7.3 * (a + b)"),
        ("sum", lambda a, b, c: 7.3 * (a - b - c), {"scale": True}, "-7.3 * (b + c - a)"),
        ("sum", lambda a, b, c: 0.01 * b, {"scale": True}, "0.01 * b"),
        ("sum", lambda a, b, c: a - 2 * b, {"scale": True}, "a - 2 * b"),
        ("sum", lambda a, b, c: 0 * a, {"scale": True}, "0"),
        ("product", lambda a, b, c: a * b / c**2, {}, "a * b / c^2"),
        ("product", lambda a, b, c: -a * b, {}, "-a * b"),
        ("product", lambda a, b, c: a**1.5, {"scale": True}, "a^1.5"),
        ("product", lambda a, b, c: -3.7 * a / b, {"scale": True}, "-3.7 * a / b"),
        ("product", lambda a, b, c: 6.5 * np.sqrt(c), {"scale": True}, "6.5 * c^0.5"),
        ("product", lambda a, b, c: 0 * a + 42, {"scale": True}, "42"),
        ("product", lambda a, b, c: 0 * a + 1, {"scale": True}, "1"),
    ],
)
def test_formulas(kind, law, options, text):
    x = uniform(1, 3, (50, 3))
    assert str(run(kind, x, law(*x.T), NAMES, **options).formula) == text


def test_signs_come_from_the_rows():
    x = signed_rows(np.random.default_rng(1))
    a, b, _ = x.T
    assert str(run("product", x, a * b, NAMES).formula) == "a * b"
    assert str(run("product", x, -a / b, NAMES).formula) == "-a / b"
    assert str(run("product", x, a * a, NAMES).formula) == "a^2"
    assert str(run("product", x, np.sqrt(np.abs(a)) * b**3, NAMES).formula) in (
        "b^3 * abs(a)^0.5",
        "abs(a)^0.5 * b^3",
    )
    negative = run("product", x, -np.sqrt(np.abs(a)), NAMES)
    assert str(negative.formula) == "-abs(a)^0.5"
    assert negative.params["c"].tolist() == [[-1.0]]
    assert run("product", x, a, NAMES).params.keys() == {"W"}


@settings(max_examples=30, deadline=None)
@given(k=triples, kind=kinds, scale=st.booleans(), seed=seeds)
def test_with_rounded_weights_the_layer_is_the_formula(k, kind, scale, seed):
    rng = np.random.default_rng(seed)
    x = signed_rows(rng)
    noise = 1 + 1e-4 * rng.normal(size=60)
    y = 2.7**scale * (x @ k if kind == "sum" else power(x, k)) * noise
    assume(np.ptp(y) > 0.1)
    found = run(kind, x, y, NAMES, scale=scale)
    assume(found.agree[0])
    params = replica(found.params, 0)
    params["W"] = rounded(params["W"])
    if kind == "product" and scale and "c" in params:
        # The constant of the formula goes with the rounded weights.
        ratio = found.formula(x)[:, 0] / predict(found.layer, params, x)
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
        assert ratio[0] == pytest.approx(1, rel=0.05)
    else:
        prediction = predict(found.layer, params, x)
        np.testing.assert_allclose(found.formula(x)[:, 0], prediction, rtol=1e-9, atol=1e-9)


# --- units of measurement -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(k=triples, exponents=st.lists(st.floats(-15, 15), min_size=4, max_size=4), seed=seeds)
def test_a_product_with_a_constant_is_the_same_in_other_units(k, exponents, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(1, 4, (50, 3))
    y = 7.7 * power(x, k) * np.exp(rng.normal(0, 0.01, 50))
    size = 10 ** np.array(exponents)
    one = run("product", x, y, NAMES, scale=True, seeds=5)
    other = run("product", x * size[:3], y * size[3], NAMES, scale=True, seeds=5)
    np.testing.assert_allclose(other.params["W"], one.params["W"], atol=1e-6)
    assert (other.agree == one.agree).all()
    assert other.elsewhere == one.elsewhere
    assert other.formula.error == pytest.approx(one.formula.error, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(k=triples, size=st.integers(-60, 60), scale=st.booleans(), seed=seeds)
def test_a_sum_is_the_same_where_all_have_one_unit(k, size, scale, seed):
    rng = np.random.default_rng(seed)
    x = signed_rows(rng)
    y = x @ k + rng.normal(0, 0.05, 60)
    one = run("sum", x, y, NAMES, scale=scale, seeds=5)
    other = run("sum", x * 2.0**size, y * 2.0**size, NAMES, scale=scale, seeds=5)
    assert other.formula.terms == one.formula.terms
    np.testing.assert_allclose(other.params["W"], one.params["W"], rtol=1e-9)
    assert (other.agree == one.agree).all()
    assert other.elsewhere == one.elsewhere


# --- replicas -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(kind=kinds, scale=st.booleans(), rows=st.sampled_from([2, 5, 40]), seed=st.integers(0, 1000))
def test_a_replica_does_not_depend_on_how_many_there_are(kind, scale, rows, seed):
    rng = np.random.default_rng(seed)
    x, y = uniform(1, 2, (rows, 3)), uniform(10, 20, rows)
    y[1:] *= 1 + rng.normal(0, 0.1, rows - 1)
    many = run(kind, x, y, NAMES, scale=scale, seeds=9, seed=seed)
    for count in (1, 2, 8):
        few = run(kind, x, y, NAMES, scale=scale, seeds=count, seed=seed)
        assert few.params.keys() == many.params.keys()
        for name, value in few.params.items():
            assert value.shape[0] == count
            assert value.tobytes() == many.params[name][:count].tobytes()
        assert (few.agree == many.agree[:count]).all()
    again = run(kind, x, y, NAMES, scale=scale, seeds=9, seed=seed)
    assert again.params["W"].tobytes() == many.params["W"].tobytes()


@pytest.mark.parametrize("kind", ["sum", "product"])
def test_in_a_replica_rows_weigh_more_or_less_by_chance(kind):
    """Least squares with the weights that the stream of replica r draws."""
    rng = np.random.default_rng(5)
    x, y = rng.uniform(1, 2, (25, 3)), rng.uniform(1, 2, 25)
    found = run(kind, x, y, NAMES, seeds=6, seed=3)
    for r in range(1, 6):
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3, spawn_key=(r, DATA))))
        w = np.sqrt(stream.exponential(size=25))
        A, t = (np.log(x), np.log(y)) if kind == "product" else (x, y)
        W = np.linalg.lstsq(A * w[:, None], t * w)[0]
        np.testing.assert_allclose(found.params["W"][r, :, 0], W, rtol=1e-7, atol=1e-9)
        if kind == "product":
            *W, log_c = np.linalg.lstsq(np.column_stack([A, np.ones(25)]) * w[:, None], (t + 2) * w)[0]
            scaled = run(kind, x, y * np.exp(2), NAMES, scale=True, seeds=6, seed=3)
            np.testing.assert_allclose(scaled.params["W"][r, :, 0], W, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(scaled.params["c"][r], [np.exp(log_c)], rtol=1e-6)
    # Each seed draws other weights; all rows are all rows.
    other = run(kind, x, y, NAMES, seeds=6, seed=4)
    assert (other.params["W"][0] == found.params["W"][0]).all()
    assert (other.params["W"][1:] != found.params["W"][1:]).all()


def test_columns_that_differ_in_size_cost_replicas_no_digits():
    rng = np.random.default_rng(6)
    x = rng.uniform(1, 2, (50, 3)) * [1e-9, 1.0, 1e9]
    found = run("sum", x, 0.5 * x[:, 1], NAMES, seeds=8)
    error = (found.params["W"][..., 0] - [0, 0.5, 0]) * [1e-9, 1.0, 1e9]
    assert np.abs(error).max() < 1e-12


def test_agree_is_the_share_of_rows_drawn_that_say_the_same():
    rng = np.random.default_rng(7)
    x = rng.uniform(1, 2, (40, 2))
    clear = run("sum", x, x @ [1.0, 0.5] + rng.normal(0, 0.01, 40), "ab", seeds=64)
    assert clear.agree.all()
    assert clear.agree.shape == (64,)
    vague = run("sum", x, x @ [0.75, 0.75] + rng.normal(0, 0.1, 40), "ab", seeds=64)
    assert 0.02 < vague.agree.mean() < 0.98
    K = rounded(vague.params["W"][..., 0])
    shown = np.array([k for k, _ in sorted(vague.formula.terms[0][1], key=lambda term: term[1])])
    np.testing.assert_array_equal(vague.agree, np.all(shown == K, axis=1))


# --- elsewhere ------------------------------------------------------------------------------------------------


def test_three_quarters_are_elsewhere_and_noise_is_not():
    hits = {"noise": 0, "halves": 0, "quarters": 0, "roots": 0, "powers": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.uniform(1, 2, (100, 2))
        noise = rng.normal(0, 0.01, 100)
        hits["noise"] += run("sum", rng.normal(size=(100, 2)), rng.normal(size=100), "ab").elsewhere
        hits["halves"] += run("sum", x, x @ [0.5, 1.0] + noise, "ab").elsewhere
        hits["quarters"] += run("sum", x, x @ [0.75, 1.0] + noise, "ab").elsewhere
        hits["roots"] += run("product", x, x[:, 0] ** 0.5 * np.exp(noise), "ab", scale=True).elsewhere
        hits["powers"] += run("product", x, 3 * x[:, 0] ** 0.75 * np.exp(noise), "ab", scale=True).elsewhere
    assert hits == {"noise": 0, "halves": 0, "quarters": 100, "roots": 0, "powers": 100}


def test_a_constant_not_asked_for_is_elsewhere():
    x = uniform(1, 2, (50, 2))
    y = 3.7 * x[:, 0]
    assert run("sum", x, y, "ab").elsewhere
    assert not run("sum", x, y, "ab", scale=True).elsewhere
    assert not run("product", x, y, "ab", scale=True).elsewhere


def test_weights_that_fit_about_as_well_lose_log_n_for_each_of_them_and_some_evidence():
    rng = np.random.default_rng(11)
    A, t = rng.normal(size=(50, 3)), rng.normal(size=50)
    lowest = np.linalg.lstsq(A, t)[1][0]
    assert _limit(A, t, 6.0) == pytest.approx(lowest * np.exp((3 * np.log(50) + 6) / 50))
    assert 0 < _limit(A, A @ [1.0, 2, 3], 6.0) < 1e-18 * np.sum(A * A) * 100
    assert np.isfinite(_limit(A[:1], t[:1], 1e9))


def test_where_rows_are_elsewhere_the_nearest_constants_are_taken():
    """Columns that are nearly alike: rounding one at a time would give a / 2 + b / 2."""
    a = uniform(1, 2, 200)
    x = np.column_stack([a, a + uniform(-0.02, 0.02, 200)])
    found = run("sum", x, x @ [0.74, 0.74], "ab")
    assert found.elsewhere
    assert sorted(k for k, _ in found.formula.terms[0][1]) == [0.5, 1.0]


def test_of_constants_that_fit_alike_the_simplest():
    rng = np.random.default_rng(8)
    x = np.column_stack([rng.uniform(1, 2, (30, 2)), rng.normal(0, 1e-4, 30)])
    y = x @ [1.0, 1.0, 0.0] + rng.normal(0, 0.01, 30)
    found = run("sum", x, y, NAMES, seeds=4)
    assert str(found.formula) == "a + b"  # the third weight is anything
    assert not found.elsewhere
    twins = np.column_stack([x[:, 0], x[:, 0]])
    assert str(run("sum", twins, x[:, 0], "ab").formula) in ("a", "b")


@pytest.mark.parametrize(
    "simplest_first",
    [
        ([0, 0], [1, 0], [1, -1]),
        ([-1, 0], [2, 0], [3, 0], [4, 0], [1, 1], [1, 0.5]),
        ([1, 1], [2, 1], [1, 3], [4, 4], [1, 1, 1]),
    ],
)
def test_cost_counts_constants_then_how_far_they_are_from_1(simplest_first):
    costs = [cost(np.array(k, dtype=float)) for k in simplest_first]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)


# --- few rows, zeros, extremes --------------------------------------------------------------------------------


def test_rows_with_zeros_teach_a_product_nothing():
    x = np.array([[2.0, 3.0], [0.0, 5.0], [4.0, 1.0], [3.0, 3.0], [5.0, 2.0], [7.0, 7.0]])
    y = x.prod(axis=1)
    y[5] = 0
    found = run("product", x, y, "ab")
    assert str(found.formula) == "a * b"
    assert found.left_out == 2
    assert found.formula.error == pytest.approx(49 / np.sqrt(6) / y.std())
    assert not found.formula.exact
    assert run("sum", x, y, "ab").left_out == 0


def test_nothing_to_learn_is_none():
    x = np.ones((3, 2))
    assert run("product", x, np.zeros(3), "ab") is None
    assert run("product", np.eye(2), np.ones(2), "ab") is None
    assert run("sum", np.zeros((0, 2)), np.zeros(0), "ab") is None
    assert run("product", np.zeros((0, 2)), np.zeros(0), "ab") is None
    assert str(run("sum", 0 * x, np.arange(3.0), "ab", scale=True, seeds=3).formula) == "0"


@pytest.mark.parametrize("kind", ["sum", "product"])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_fewer_rows_than_columns(kind, scale, rows):
    x = np.random.default_rng(rows).uniform(1, 9, (rows, 5))
    y = x[:, 0] * 5 if kind == "product" else x.sum(axis=1)
    found = run(kind, x, y, "abcde", scale=scale, seeds=4)
    assert np.isfinite(found.params["W"]).all()
    assert losses(found, kind, x, y)[0] <= 1e-18 * rows * np.abs(y).max() ** 2


@pytest.mark.parametrize("rows", [30, 400])
def test_a_wide_table_is_read_in_seconds(rows):
    rng = np.random.default_rng(9)
    x = rng.uniform(1, 2, (rows, 60))
    started = time.perf_counter()
    for kind in ("sum", "product"):
        run(kind, x, rng.uniform(1, 2, rows), [f"x{i}" for i in range(60)], scale=True)
    assert time.perf_counter() - started < 8


# --- a constant added -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(k=triples, offset=st.floats(-1e3, 1e3), seed=seeds)
def test_a_constant_added_is_found(k, offset, seed):
    x = signed_rows(np.random.default_rng(seed))
    assume(k.any())
    found, constant = with_offset(x, x @ k + offset, NAMES)
    np.testing.assert_allclose(found(x)[:, 0], x @ k, rtol=1e-9, atol=1e-9)
    assert constant == pytest.approx(offset, rel=1e-9, abs=1e-9)
    assert found.error <= 1e-9
    assert not found.exact


def test_weights_that_cancel_each_other_have_no_constant(monkeypatch):
    """Least squares give none, but for rounding."""
    x = uniform(1, 2, (20, 1)).repeat(2, axis=1)
    monkeypatch.setattr(race, "least_squares", lambda A, t: np.array([1.0, -1.0]))
    assert list(race._multiples(x, x[:, 0])) == []


def test_the_points_of_the_lattice_are_the_choices():
    x = uniform(1, 2, (60, 1))
    for k in POINTS[POINTS != 0]:
        one, other = (run("sum", x, k * x[:, 0] + off, "a") for off in (0, 1e-9))
        assert one.formula.terms == other.formula.terms
        assert run("product", x, x[:, 0] ** k, "a").params["W"].item() == pytest.approx(k)
    assert list(race.PATHS.items()) == [("sum", nn.SumPath), ("product", nn.ProductPath)]
