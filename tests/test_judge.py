"""What may be called exact, and what the rows cannot tell."""

import time
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np import lattice
from nalu_np.judge import Rows, _others, _scale, is_exact, missed_rows, rival
from nalu_np.learn import Plan, _warnings, learn
from nalu_np.readout import ZERO, Formula, evaluate, path
from nalu_np.tasks.tables import Table

RNG = np.random.default_rng(0)


def read(term, names=("a", "b")):
    return Formula((term,), names, True, 0.0, True)


def table(x, y):
    values = np.column_stack([x, y])
    lines = tuple(range(2, len(values) + 2))
    return Table("made.csv", (*"abcdefgh"[: values.shape[1] - 1], "y"), values, (), lines, tuple(map(str, lines)))


def test_an_error_counts_beside_the_spread_of_most_targets():
    y = RNG.uniform(1, 2, 101)
    scale = min(y.std(), 1.4826 * np.median(np.abs(y - np.median(y))))
    assert is_exact(y + 0.99e-6 * scale, y, y)
    assert not is_exact(y + 1.01e-6 * scale, y, y)
    assert missed_rows(y + np.eye(101)[7] * 1e-5, y, y).sum() == 1


def test_a_few_huge_targets_hide_nothing():
    """The standard deviation of y is 1e7: beside it, an error of .01 in every row is nothing."""
    y = RNG.uniform(1, 2, 100)
    y[0] = 1e8
    wrong = y + 0.01
    assert np.sqrt(np.mean((wrong - y) ** 2)) < 1e-6 * y.std()
    assert not is_exact(wrong, y, y)
    assert is_exact(y * (1 + 1e-16), y, y)


def test_a_wide_test_hides_nothing_and_rounding_far_out_is_forgiven():
    known = RNG.uniform(1, 2, 100)
    far = np.array([1e12, 1e12, 3.0])
    assert is_exact(far * (1 + 1e-16), far, known)
    assert not is_exact(far + np.array([0, 0, 0.3]), far, known)


def test_what_is_undefined_or_off_a_constant_is_not_exact():
    y = RNG.uniform(1, 2, 10)
    assert not is_exact(y * np.nan, y, y)
    assert is_exact(np.ones(10), np.ones(10), np.ones(10))
    assert not is_exact(np.ones(10) + 1e-9, np.ones(10), np.ones(10))


@pytest.mark.parametrize(
    ("law", "wrong"),
    [
        ("a tail", lambda: ((x := 10 ** RNG.uniform(0, 9, 200))[:, None], x + 1.5)),
        ("an outlier", lambda: ((x := np.r_[1e8, RNG.uniform(1, 2, 199)])[:, None], x + RNG.normal(0, 0.01, 200))),
        ("one row off", lambda: ((x := np.arange(1.0, 41.0))[:, None], x + 0.5 * (x == 4))),
        ("rows of 0 and 1", lambda: ((x := RNG.integers(0, 2, (200, 2))), x.prod(axis=1))),
        ("or, without a row", lambda: (np.array([[0, 0], [0, 1], [1, 0]]), [0, 1, 1])),
        ("a column and its square", lambda: ((x := np.arange(1, 60) / 20), x**2)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tables_that_invite_a_wrong_formula(law, wrong):
    x, y = wrong()
    if law == "a column and its square":
        x = np.column_stack([x, y])
    learned = learn(table(x, y), "y", plan=Plan(seeds=32, steps=2000))
    assert not learned.exact
    assert learned.warnings


def members(term, names, x, most=np.inf):
    """Every formula that is tried as a rival of a term, for a target that any of them may miss by `most`."""
    return list(_others(read(term, names), x, np.ones(len(x)), np.ones(len(x)), most))


def test_with_two_columns_all_sums_and_products_are_tried():
    x = RNG.uniform(1, 2, (20, 2))
    product = ("product", ((1.0, "a"), (-1.0, "b")))
    total = ("sum", ((0.5, "a"), (-1.0, "b")))
    tried = set(members(product, ("a", "b"), x))
    assert len(tried) == 2 * 17 * 17 - 2  # a and b are both
    assert tried == set(members(total, ("a", "b"), x)) == set(members("a", ("a", "b"), x))
    assert {product, total, "a", "b", ("product", ()), ZERO} <= tried
    signed = set(members(("product", ((1.0, ("abs", "a")),)), ("a", "b"), -x))
    assert ("product", ((0.5, ("abs", "a")), (1.0, ("abs", "b")))) in signed
    # The sign is the one that most rows ask for.
    assert ("sum", ((-1.0, ("product", ((1.0, "a"), (2.0, "b")))),)) in signed


def test_of_two_layers_the_top_changes():
    x = RNG.uniform(1, 2, (20, 2))
    inner = ("sum", ((1.0, "a"), (1.0, "b")))
    with mock.patch.object(lattice, "MOST_TRIES", 10**4):
        tried = set(members(("product", ((1.0, "a"), (1.0, inner))), ("a", "b"), x))
    assert ("product", ((1.0, "b"), (0.5, inner))) in tried
    assert inner in tried
    assert len(tried) == 17**3


def test_only_what_fits_is_tried():
    x, names = RNG.uniform(1, 2, (40, 3)), ("a", "b", "c")
    y = x[:, 0] * x[:, 1]
    product = ("product", ((1.0, "a"), (1.0, "b")))
    found = read(product, names)
    for most in (1e-9, 0.5, 2.0):
        tried = list(_others(found, x, y, np.ones(40), most))
        off = np.sum((evaluate(tried, names, x) - y[:, None]) ** 2, axis=0)
        assert product in tried
        assert off.max() < 6 * most + 1e-20
    weights = 1 / (1e-6 * _scale(y, y))
    assert list(_others(found, x, y, weights, 40.0)) == [product]


def test_a_constant_stays_in_sums_and_is_found_anew_for_products():
    x = RNG.uniform(1, 2, (30, 2))
    core = ("product", ((1.0, "a"), (-1.0, "b")))
    y = evaluate([core], ("a", "b"), x)[:, 0]
    tried = list(_others(read(("sum", ((3.7, core),))), x, 3.7 * y, np.ones(30), 0.01))
    [(size, node)] = [one[1][0] for one in tried if one[0] == "sum" and one[1][0][1] == core]
    assert size == pytest.approx(3.7)
    assert node == core
    assert all(one[0] == "sum" for one in tried)


def test_rivals_that_differ_in_three_constants():
    a, b = RNG.uniform(1, 2, (2, 100))
    leak = np.column_stack([a, b, a * b])
    root = read(("product", ((0.5, "a"), (0.5, "b"), (0.5, "c"))), ("a", "b", "c"))
    assert rival(root, leak, a * b) is not None


def test_the_best_rival_is_named():
    x = np.column_stack([RNG.uniform(1, 2, (100, 2)), RNG.uniform(-1e-3, 1e-3, 100)])
    short = read(("sum", ((1.0, "a"), (1.0, "b"))), ("a", "b", "c"))
    assert str(rival(short, x, x.sum(axis=1))) == "a + b + c"


def test_a_rival_whose_errors_lie_in_the_few_rows_tried_first_is_found():
    """Both formulas miss the same few rows by more than the rest, within what exactness allows on the whole."""
    a = np.linspace(1, 2, 4000)
    y = a.copy()
    y[[0, -1]] += 4.3e-5 * a.std()
    assert is_exact(a, y, y)
    assert rival(read("a"), np.column_stack([a, a]), y) is not None


def test_zeros_in_a_product():
    x = np.array([[0.0, 2.0], [3.0, 0.0], [2.0, 5.0], [4.0, 3.0]])
    product = read(("product", ((1.0, "a"), (1.0, "b"))))
    assert rival(product, x, x.prod(axis=1)) is None
    # Columns that are one and the same divide each other out.
    many = np.column_stack([x, np.ones((4, 48)) + x[:, :1]])
    names = tuple(f"x{i}" for i in range(50))
    other = rival(read(("product", ((1.0, "x0"), (1.0, "x1"))), names), many, x.prod(axis=1))
    np.testing.assert_allclose(other(many)[:, 0], x.prod(axis=1), atol=1e-12)


def test_when_very_many_fit_some_are_compared():
    x = np.full((5, 6), 1.0)
    assert rival(read("x0", tuple(f"x{i}" for i in range(6))), x, np.ones(5)) is not None


@pytest.mark.parametrize(
    ("law", "low", "high", "digits"),
    [
        (lambda a, b: a * b, 50, 200, 10),
        (lambda a, b: a / b, 1e-3, 1e3, 10),
        (lambda a, b: a - b, 1000, 2000, 10),
        (lambda a, b: a * b, 1, 2, 17),
    ],
)
def test_a_right_law_in_ten_digits_is_exact(law, low, high, digits):
    a, b = np.exp(RNG.uniform(np.log(low), np.log(high), (2, 300)))
    y = np.array([float(f"{v:.{digits}g}") for v in law(a, b)])
    assert is_exact(law(a, b), y, law(*RNG.uniform(1, 2, (2, 200))) if low == 50 else y)


def test_half_of_the_targets_may_be_one_value():
    y = np.r_[np.full(60, 2.0), RNG.uniform(1, 3, 40)]
    assert is_exact(y + 1e-9, y, y)
    assert not is_exact(y + 1e-5, y, y)


@pytest.mark.parametrize(
    ("x", "y", "guessed"),
    [
        ((a := RNG.uniform(1, 2, 100), np.full(100, 4.0)), 2 * a, "b"),
        ((a, a), a * a, "a, b"),
    ],
    ids=["constant", "twins"],
)
def test_what_the_rows_say_nothing_about_is_a_guess(x, y, guessed):
    learned = learn(table(np.column_stack(x), y), "y", plan=Plan(seeds=16, steps=3000, unit="lognac"))
    assert learned.snapped in ("a * b^0.5", "a * b")
    assert not learned.exact
    assert any(warning.startswith(f"the part of {guessed} in ") for warning in learned.warnings)


def test_a_better_rival_asks_for_more_training():
    x = np.column_stack([RNG.uniform(1, 2, (200, 2)), RNG.uniform(-1e-3, 1e-3, 200)])
    learned = learn(table(x, x.sum(axis=1)), "y", plan=Plan(seeds=2, steps=5, unit="nac"))
    found, other = (read(("sum", tuple((1.0, c) for c in names)), ("a", "b", "c")) for names in ("ab", "abc"))
    short = replace(learned.trained, formula=learned.trained.x[:, :2].sum(axis=1))
    learned = replace(learned, errors=(1e-3,), chosen=replace(learned.chosen, formula=found, usable=True))
    warnings = list(_warnings(learned, other, [], [], short))
    assert "a + b + c fits these rows better than a + b: train longer (--steps)" in warnings
    raced = replace(learned, chosen=replace(learned.chosen, unit="sum"))
    assert "a + b + c fits these rows better than a + b" in list(_warnings(raced, other, [], [], short))
    close = replace(short, y=short.formula + RNG.normal(0, 1, len(short.y)))
    assert any("cannot tell a + b from a + b + c" in w for w in _warnings(learned, other, [], [], close))


def test_a_rival_is_found_where_rows_cannot_tell():
    a = RNG.uniform(1, 2, 60)
    bits = RNG.integers(0, 2, 60).astype(float)
    x = np.column_stack([a, bits])
    product = read(("product", ((1.0, "a"), (1.0, "b"))))
    other = rival(product, x, a * bits)
    assert str(other) == "a * b^0.5"
    clear = RNG.uniform(1, 2, (60, 2))
    assert rival(product, clear, clear.prod(axis=1)) is None
    # With noise, another as good to the last digit is a rival; one that is a little worse is not.
    noisy = clear.prod(axis=1) + RNG.normal(0, 0.01, 60)
    assert rival(product, clear, noisy) is None
    twins = np.column_stack([a, a])
    assert "b" in str(rival(read("a"), twins, a + RNG.normal(0, 0.01, 60)))


def test_a_sum_can_be_the_rival_of_a_product():
    x = np.array([[2.0, 2.0], [0.0, 0.0], [3.0, 1.5]])
    total = read(("sum", ((1.0, "a"), (1.0, "b"))))
    assert str(rival(total, x, x.sum(axis=1))) == "a * b"
    assert rival(total, x + np.array([0, 1]), x.sum(axis=1) + 1) is None


def power(x, k):
    """A product with its sign, by its definition."""
    whole = k % 1 == 0
    return np.prod(x[:, whole] ** k[whole], axis=1) * np.prod(np.abs(x[:, ~whole]) ** k[~whole], axis=1)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["sum", "product"]),
    k=st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=3, max_size=3).map(np.array),
    c=st.sampled_from([1.0, -1.0, 3.7, -0.01]),
    noise=st.sampled_from([0.0, 0.01]),
    signs=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_of_generic_numbers_tell_a_law_from_all_others(kind, k, c, noise, signs, seed):
    assume(k.any() and (kind == "product" or np.count_nonzero(k) > 1))
    rng = np.random.default_rng(seed)
    x, names = rng.uniform(0.5, 3, (60, 3)), ("a", "b", "c")
    if signs:
        x *= rng.choice([-1.0, 1.0], x.shape)
    y = c * (x @ k if kind == "sum" else power(x, k))
    law = read(path(kind, k, names, dict(zip(names, x.T, strict=True)), c=c), names)
    np.testing.assert_allclose(law(x)[:, 0], y)
    y *= 1 + noise * rng.normal(size=60)
    other = rival(law, x, y)
    if noise:  # then another may be nearer by chance, but not by much
        assert other is None or np.std(other(x)[:, 0] - law(x)[:, 0]) < 0.1 * np.std(y)
    else:
        assert other is None


def test_a_rival_may_use_all_that_exactness_allows():
    a, b, d = RNG.uniform(1, 2, (3, 400))
    y = a * b
    for share, found in ((1.9, True), (2.1, False)):
        off = share * 1e-6 * np.minimum(np.std(y), 1.4826 * np.median(np.abs(y - np.median(y))))
        x = np.column_stack([a, b, y * np.exp(off * np.where(d > 1.5, 1, -1) / y)])
        product = read(("product", ((1.0, "a"), (1.0, "b"))), ("a", "b", "c"))
        # With half of the third column, half of its error.
        assert (rival(product, x, y) is not None) is found


def test_beside_noise_a_rival_must_be_as_good():
    a, noise, off = RNG.uniform(1, 2, 300), *np.linalg.qr(RNG.normal(size=(300, 2)))[0].T
    x = np.column_stack([a, a + 0.0775 * off, a])
    assert rival(read("a", ("a", "b")), x[:, :2], a + noise) is None
    assert "c" in str(rival(read("a", ("a", "b", "c")), x, a + noise))


NAMES = ("a", "b", "c")
P, Q = RNG.uniform(1, 2, (2, 80))
SIGN = np.where(np.arange(80) % 3, 1.0, -1.0)


@pytest.mark.parametrize(
    ("columns", "term", "other"),
    [
        ((P, Q, P), "a", "c"),
        ((P, Q, P), ("product", ((1.0, "a"), (1.0, "b"))), "b * c"),
        ((P, Q, P), ("product", ((2.0, "a"),)), "a * c|c^2"),
        ((P, Q, P * Q), ("product", ((1.0, "a"), (1.0, "b"))), "c"),
        ((P, Q, P * Q), "c", "a * b"),
        ((P * SIGN, Q, P * Q * SIGN), ("product", ((1.0, "a"), (1.0, "b"))), "c"),
        ((P * SIGN, Q, -P * Q * SIGN), ("product", ((1.0, "a"), (1.0, "b"))), "-c"),
        ((P, Q, 2 * P), "a", "0.5 * c"),
        ((P, Q, P - Q), ("sum", ((1.0, "a"), (-1.0, "b"))), "c"),
        ((P, Q, 5 * P / Q), ("sum", ((3.7, ("product", ((1.0, "a"), (-1.0, "b")))),)), "0.74 * c"),
        ((P, Q, 2 * P), ("sum", ((3.7, ("product", ((1.0, "a"), (1.0, "b")))),)), "1.85 * b * c"),
        ((P, Q, P), ("sum", ((3.7, ("sum", ((1.0, "a"), (1.0, "b")))),)), "3.7 * (b + c)"),
        ((P, Q, 4 + 0 * P), ("product", ((1.0, "a"), (0.5, "c"))), "2 * a"),
        ((P, Q, np.cos(P * Q)), ("product", ((1.0, "b"), (1.0, ("sum", ((1.0, "a"), (1.0, "b")))))), None),
        ((P, Q, P + Q), ("product", ((1.0, "b"), (1.0, ("sum", ((1.0, "a"), (1.0, "b")))))), "b * c"),
    ],
)
def test_a_rival_is_named_where_columns_determine_each_other(columns, term, other):
    x, found = np.column_stack(columns), read(term, NAMES)
    y = found(x)[:, 0]
    rivals = rival(found, x, y)
    assert str(rivals) in (str(other).split("|"))
    if rivals is not None:
        np.testing.assert_allclose(rivals(x)[:, 0], y, rtol=1e-9)
        assert rivals.names == NAMES
        assert not rivals.exact


def test_a_sum_times_five_is_no_rival_of_itself():
    five = read(("sum", ((5.0, ("sum", ((1.0, "a"), (1.0, "b")))),)))
    x = np.column_stack([P, Q])
    assert rival(five, x, 5 * (P + Q)) is None


def test_rows_in_which_every_product_is_0_give_no_warning():
    x = np.eye(3)[RNG.integers(0, 3, 40)]
    assert rival(read(("sum", ((1.0, "a"), (2.0, "b"))), NAMES), x, x @ [1.0, 2.0, 0.0]) is None


@pytest.mark.parametrize(("rows", "columns"), [(30, 60), (300, 40), (20_000, 8)])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_rivals_take_seconds_at_most(rows, columns, noise):
    x = RNG.uniform(1, 2, (rows, columns))
    names = tuple(f"x{i}" for i in range(columns))
    pair = read(("product", ((1.0, "x0"), (1.0, "x1"))), names)
    y = x[:, 0] * x[:, 1] * (1 + noise * RNG.normal(size=rows))
    started = time.perf_counter()
    other = rival(pair, x, y)
    assert time.perf_counter() - started < 4
    assert other is None or noise or rows <= columns


def test_rows():
    rows = Rows("r", ("p", "q"), np.ones((2, 1)), np.array([1.0, 3.0]), np.array([1.0, 3.2]), np.array([1.0, 3.1]))
    assert rows.error(rows.formula, 0.5) == pytest.approx(0.1 / np.sqrt(2))
    assert not rows.formula_is_worse()
    picked = rows.pick("one", np.array([False, True]))
    assert (picked.name, picked.labels, picked.y.tolist()) == ("one", ("q",), [3.0])
    worse = Rows("r", ("p",), np.ones((1, 1)), np.array([1.0]), np.array([1.1]), np.array([1.16]))
    assert not replace(worse, formula=np.array([1.14])).formula_is_worse()  # of one row chance says as much
    assert worse.formula_is_worse()
    undefined = Rows("r", ("p",), np.ones((1, 1)), np.array([1.0]), np.array([np.inf]), np.array([np.nan]))
    assert undefined.formula_is_worse()


def test_one_output_cannot_hide_another():
    x = RNG.uniform(1, 2, (50, 2))
    W = np.array([[1.0, 1.0], [1.0, -1.0]])
    params = {"W_hat": 30 * W, "M_hat": np.full((2, 2), 40.0)}
    y = np.column_stack([x.sum(axis=1), x[:, 0] - x[:, 1]])
    assert nn.formula(nn.NAC(2, 2), params, x, y).exact
    y[0, 1] += 0.1
    assert not nn.formula(nn.NAC(2, 2), params, x, y).exact
    big = y + [1e9, 0] * RNG.uniform(0, 1, (50, 1))
    assert not nn.formula(nn.NAC(2, 2), params, x, big).exact
    assert not nn.formula(nn.NAC(2, 2), params, x[:1], y[:1]).exact
