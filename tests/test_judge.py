"""What may be called exact, and what the rows cannot tell."""

from dataclasses import replace

import numpy as np
import pytest

import nalu_np as nn
from nalu_np.judge import Rows, _blocks, is_exact, missed_rows, rival
from nalu_np.learn import Plan, _warnings, learn
from nalu_np.readout import ZERO, Formula, families, member
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


def members(term, names, x):
    """Every formula that is tried as a rival of a term."""
    return {
        member(kind, parts, constants)
        for kind, parts, own in families(term, names, x)
        for block in _blocks(own)
        for constants in block
    }


def test_with_few_columns_all_sums_and_products_are_tried():
    x = RNG.uniform(1, 2, (20, 2))
    product = ("product", ((1.0, "a"), (-1.0, "b")))
    total = ("sum", ((0.5, "a"), (-1.0, "b")))
    tried = members(product, ("a", "b"), x)
    assert len(tried) == 25 + 25 - 2  # a and b are both
    assert tried == members(total, ("a", "b"), x) == members("a", ("a", "b"), x) == members(ZERO, ("a", "b"), x)
    assert {product, total, "a", "b", ("product", ()), ZERO} <= tried
    signed = members(("product", ((1.0, ("abs", "a")),)), ("a", "b"), -x)
    assert ("product", ((0.5, ("abs", "a")), (1.0, ("abs", "b")))) in signed


def test_of_two_layers_the_top_changes():
    x = RNG.uniform(1, 2, (20, 2))
    inner = ("sum", ((1.0, "a"), (1.0, "b")))
    tried = members(("product", ((1.0, "a"), (1.0, inner))), ("a", "b"), x)
    assert ("product", ((1.0, "b"), (0.5, inner))) in tried
    assert inner in tried
    assert len(tried) == 125


@pytest.mark.parametrize("columns", [7, 40])
def test_with_many_columns_those_in_use_and_one_more(columns):
    names = tuple(f"x{i}" for i in range(columns))
    x = RNG.uniform(1, 2, (20, columns))
    pair = ("product", ((1.0, "x0"), (-1.0, "x1")))
    tried = members(pair, names, x)
    assert {("product", ((0.5, "x0"), (1.0, "x6"))), "x5"} <= tried
    assert len(tried) == 2 * 25 * (1 + 4 * (columns - 2)) - columns
    everything = ("sum", tuple((1.0, name) for name in sorted(names)))
    assert len(members(everything, names, x)) == 2 * (1 + 4 * columns)


def test_a_very_wide_table_is_tried_in_little(monkeypatch):
    monkeypatch.setattr("nalu_np.judge.MOST_NUMBERS", 10)
    names = tuple(f"x{i}" for i in range(8))
    tried = members("x0", names, RNG.uniform(1, 2, (20, 8)))
    assert ("sum", ((1.0, "x0"), (-1.0, "x3"))) in tried
    assert ("sum", ((0.5, "x0"), (-1.0, "x3"))) not in tried


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
    many = np.column_stack([x, np.ones((4, 48)) + x[:, :1]])
    names = tuple(f"x{i}" for i in range(50))
    crowd = rival(read(("product", ((1.0, "x0"), (1.0, "x1"))), names), many, x.prod(axis=1))
    assert crowd is None


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
    assert any(warning.endswith(f"is a guess: {guessed}") for warning in learned.warnings)


def test_a_better_rival_asks_for_more_training():
    x = np.column_stack([RNG.uniform(1, 2, (200, 2)), RNG.uniform(-1e-3, 1e-3, 200)])
    learned = learn(table(x, x.sum(axis=1)), "y", plan=Plan(seeds=2, steps=5, unit="nac"))
    short = replace(learned.trained, formula=learned.trained.x[:, :2].sum(axis=1))
    learned = replace(learned, errors=(1e-3,), usable=True)
    found, other = (read(("sum", tuple((1.0, c) for c in names)), ("a", "b", "c")) for names in ("ab", "abc"))
    warnings = list(_warnings(learned, found, other, [], short))
    assert "a + b + c fits these rows better than a + b: train longer (--steps)" in warnings
    close = replace(short, y=short.formula + RNG.normal(0, 1, len(short.y)))
    assert any("cannot tell a + b from a + b + c" in w for w in _warnings(learned, found, other, [], close))


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


def test_rows():
    rows = Rows("r", ("p", "q"), np.ones((2, 1)), np.array([1.0, 3.0]), np.array([1.0, 3.2]), np.array([1.0, 3.1]))
    assert rows.error(rows.formula, 0.5) == pytest.approx(0.1 / np.sqrt(2))
    assert not rows.formula_is_worse()
    picked = rows.pick("one", np.array([False, True]))
    assert (picked.name, picked.labels, picked.y.tolist()) == ("one", ("q",), [3.0])
    worse = Rows("r", ("p",), np.ones((1, 1)), np.array([1.0]), np.array([1.1]), np.array([1.12]))
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
