"""What may be called exact, and what the rows cannot tell."""

import numpy as np
import pytest

import nalu_np as nn
from nalu_np.judge import Rows, is_exact, missed_rows, rival
from nalu_np.learn import Plan, learn
from nalu_np.readout import Formula, neighbours
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


def test_neighbours_are_other_formulas_and_include_every_change_of_two_constants():
    x = RNG.uniform(1, 2, (20, 2))
    found = list(neighbours(("product", ((1.0, "a"), (-1.0, "b"))), ("a", "b"), x))
    assert len(found) == len(set(found)) == 24 + 25 - 2  # products and sums, of which a and b are both
    assert ("sum", ((1.0, "a"), (-1.0, "b"))) in found
    assert "a" in found
    assert ("product", ()) in found
    assert ("product", ((1.0, "a"), (-1.0, "b"))) not in found
    of_a = set(neighbours("a", ("a", "b"), x))
    assert {("sum", ((1.0, "a"), (1.0, "b"))), ("product", ((1.0, "a"), (1.0, "b"))), "b"} <= of_a
    assert "a" not in of_a
    assert {"a", "b"} <= set(neighbours(("product", ()), ("a", "b"), x))
    nested = ("product", ((1.0, "a"), (1.0, ("sum", ((1.0, "a"), (1.0, "b"))))))
    assert ("product", ((1.0, "a"), (0.5, ("sum", ((1.0, "a"), (1.0, "b")))))) in set(
        neighbours(nested, ("a", "b"), x)
    )


def test_with_many_columns_constants_change_one_at_a_time():
    names = tuple(f"x{i}" for i in range(100))
    everything = ("sum", tuple((1.0, name) for name in sorted(names)))
    assert len(list(neighbours(everything, names, np.ones((3, 100))))) == 400 + 401


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
    assert str(rival(read("a"), twins, a + RNG.normal(0, 0.01, 60))) == "b"


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
