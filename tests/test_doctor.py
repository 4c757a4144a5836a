"""What the doctor says of a table and of what a formula leaves over, and when it says nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np.doctor import ENOUGH, Advice, advice, before, guessed, misfit, relations
from nalu_np.lattice import POINTS
from nalu_np.learn import Plan, learn
from nalu_np.readout import Formula
from nalu_np.tasks.tables import Table

seeds = st.integers(0, 2**32 - 1)
NAMES = ("a", "b", "c")


def rows(seed=0, n=50, columns=2):
    return np.random.default_rng(seed).uniform(1, 2, (n, columns))


def texts(*columns, names=None):
    found = relations(np.column_stack(columns), names or "abcdefg"[: len(columns)])
    return [("nearly " if r.nearly else "") + r.text for r in found]


# --- relations ------------------------------------------------------------------------------------------------

A, B = rows().T


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ((A, B), []),
        ((A, A), ["b = a"]),
        ((A, 2 * A), ["b = 2 * a"]),
        ((A, A + 5), ["b = a + 5"]),
        ((A, A / 3 - 5), ["b = 0.333 * a - 5"]),
        ((A, B, A + B), ["c = a + b"]),
        ((A, B, A - B), ["c = a - b"]),
        ((A, B, 3 * A - B / 2 + 7), ["c = 3 * a - 0.5 * b + 7"]),
        ((A, B, A * B), ["c = a * b"]),
        ((A, B, 2.5 * A / B), ["c = 2.5 * a * b^-1"]),
        ((A, np.sqrt(A)), ["b = a^0.5"]),
        ((-A, A**2), ["b = a^2"]),
        ((A, np.full(50, 4.0)), ["b is 4 in every row"]),
        ((0 * A, A), ["a is 0 in every row"]),
        ((A, B, A + B, A * B), ["c = a + b", "d = a * b"]),
        ((A, A, A), ["b = a", "c = a"]),
        ((A, 0.01 + 2 * A), ["b = 2 * a + 0.01"]),
        ((A, A + 0.1 * B), []),
    ],
)
def test_relations(columns, expected):
    assert texts(*columns) == expected


@pytest.mark.parametrize(("noise", "nearly"), [(1e-8, True), (3e-3, True), (0.03, False)])
def test_nearly_is_up_to_a_hundredth(noise, nearly):
    found = relations(np.column_stack([A, A + noise * (B - 1.5)]), "ab")
    assert bool(found) is nearly
    assert all(r.nearly for r in found)


def test_a_relation_names_its_columns_and_its_kind():
    x = np.column_stack([A, B, A + B, A * B, A])
    total, twin, product = relations(x, "abcde")
    assert (total.kind, total.columns, total.nearly) == ("sum", ("a", "b", "c"), False)
    assert (twin.kind, twin.columns) == ("both", ("a", "e"))
    assert (product.kind, product.columns) == ("product", ("a", "b", "d"))
    [constant] = relations(np.ones((5, 1)), "a")
    assert (constant.kind, constant.columns, constant.nearly) == ("both", ("a",), False)


def test_products_are_looked_for_where_logarithms_are():
    signs = np.where(np.arange(50) % 2, 1.0, -1.0)
    assert texts(A * signs, B, A * B * signs) == []
    assert texts(np.r_[0, A[1:]], A**2) == []
    assert texts(-A, -B, A * B) == ["c = a * b"]
    assert texts(A * signs) == []
    assert texts(A, 1e100 * (1 + 1e-13 * B)) == []  # its logarithm is constant to rounding


def test_few_rows_determine_nothing():
    x = rows(n=50, columns=5)
    for n in range(1, 50):
        assert not any(r.nearly is False for r in relations(x[:n], "abcde") if n > 1)
    assert texts(*x[:2].T) == []
    assert texts(A[:3], 2 * A[:3]) == []
    assert texts(A[:4], 2 * A[:4]) == ["b = 2 * a"]


@settings(max_examples=60, deadline=None)
@given(
    size=st.floats(-15, 15),
    other=st.floats(-15, 15),
    k=st.floats(0.2, 5),
    power=st.floats(-3, 3).filter(lambda p: abs(p) > 0.2),
    seed=seeds,
)
def test_relations_are_found_in_any_unit(size, other, k, power, seed):
    a, b = rows(seed).T * np.array([[10**size], [10**other]])
    [total] = relations(np.column_stack([a, b, k * a]), NAMES)
    assert (total.kind, total.columns, total.nearly) == ("both", ("a", "c"), False)
    [product] = [r for r in relations(np.column_stack([a, b, a**power * b]), NAMES) if not r.nearly]
    assert (product.kind, product.columns) == ("product", NAMES)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(20, 200), columns=st.integers(2, 6), seed=seeds)
def test_independent_columns_have_no_relations(n, columns, seed):
    x = np.random.default_rng(seed).uniform(0.1, 3, (n, columns))
    assert relations(x, "abcdef"[:columns]) == []


def test_names_are_safe_to_print():
    [relation] = relations(np.column_stack([A, A]), ["a\x1b[31m", "b" * 60])
    assert relation.text == "b" * 39 + "… = a\\x1b[31m"


def test_what_is_a_guess_depends_on_the_kind_of_formula():
    near = A + 1e-3 * rows(9)[:, 0]
    x = np.column_stack([A, B, A + B, A * B, np.ones(50), near])
    found = relations(x, "abcdef")
    everything = set("abcdef")
    assert guessed(everything, found, "sum") == ["a", "b", "c", "e"]
    assert guessed(everything, found, "product") == ["a", "b", "d", "e"]
    assert guessed(everything, found, None) == ["a", "b", "c", "d", "e"]
    assert guessed({"f", "x"}, found, None) == []
    assert guessed({"d", "a"}, found, "sum") == ["a"]


# --- before ---------------------------------------------------------------------------------------------------


def said(x, y, *, inside=None, units=("sum", "product"), names="abcdefgh"):
    x = np.asarray(x, float)
    return list(before(x, np.asarray(y, float), relations(x, names[: x.shape[1]]), inside, units))


def test_nothing_is_said_of_a_sound_table():
    assert said(rows(), rows()[:, 0], inside=np.array([False, True])) == []
    assert said(rows(), rows()[:, 0], inside=np.zeros(0, bool)) == []


def test_relations_are_said_with_what_to_do():
    x = np.column_stack([A, A + 5])
    assert said(x, A) == [
        "b = a + 5 in every row: formulas with one or the other fit alike; leave one of them out (--features), "
        "or add rows that break it"
    ]
    x = np.column_stack([A, np.full(50, 2.0)])
    assert said(x, A) == [
        "b is 2 in every row: the rows cannot show what it does; leave it out (--features)",
    ]
    x = np.column_stack([A, A + 1e-3 * B])
    assert [text for text in said(x, A) if not text.startswith("b = a + ")] == []
    assert not any("add rows" in text for text in said(x, A))


def test_as_many_columns_as_rows_are_said():
    x = rows(n=3, columns=3)
    assert said(x, x[:, 0]) == [
        "3 rows for 3 columns: as many constants can be fitted to any target; give more rows, or fewer columns "
        "(--features)"
    ]
    assert said(rows(n=4, columns=3), rows(n=4)[:, 0]) == []


def test_a_test_inside_the_table_is_said():
    inside = np.arange(2000) % 3 > 0
    assert said(rows(), A, inside=inside) == [
        "1,333 of 2,000 test rows lie inside the range of the table: they do not show what happens outside; give "
        "rows from beyond it"
    ]
    assert said(rows(), A, inside=~inside) == []


# --- what units reach -----------------------------------------------------------------------------------------


def test_targets_that_nothing_reaches_are_said():
    x = np.ones((50, 2)) + rows() / 10
    assert said(x, 1000 * A + 1000) == [
        f"50 of 50 targets, the first {1000 * A[0] + 1000:.4g}, are of a sign or a size that no weights of sum or "
        "product reach: rescale, or add the column that is missing"
    ]
    assert said(rows(), np.r_[-A[:2], A[2:]], units=("product",)) == []  # they may be outliers
    y = np.r_[-A[:5], A[5:]]
    assert said(rows(), y, units=("product",)) == [
        f"5 of 50 targets, the first {y[0]:.4g}, are of a sign or a size that no weights of product reach: "
        "rescale, or add the column that is missing; try --unit auto, whose paths reach further"
    ]
    assert said(rows(), -A, units=("product",)) == []  # a constant of -1
    assert said(rows(), y, units=("sum",)) == []
    assert len(said(rows(), y, units=("lognac",))) == 1
    assert len(said(rows(), -A, units=("lognac",))) == 1
    assert said(rows(), -A, units=("nalu",)) == []
    assert len(said(rows(), 3 * rows().sum(axis=1), units=("nac",))) == 1
    assert said(rows(), 3 * rows().sum(axis=1), units=("sum",)) == []
    assert len(said(rows(), 10 * rows().prod(axis=1), units=("nalu",))) == 1
    assert len(said(rows(), (10 * rows()).prod(axis=1) ** 1.1, units=("lognac",))) == 1
    assert said(rows(), np.full(50, 1e9)) == []  # the target is constant: another says so
    zeros = np.zeros((50, 2))
    assert "50 of 50" not in "".join(said(zeros, A * 0 + 1))


@settings(max_examples=150, deadline=None)
@given(
    unit=st.sampled_from([nn.NAC, nn.LogNAC, nn.NALU]),
    columns=st.integers(1, 4),
    size=st.floats(-3, 3),
    signs=st.booleans(),
    extreme=st.booleans(),
    seed=seeds,
)
def test_what_weights_below_1_reach_is_never_complained_about(unit, columns, size, signs, extreme, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 2, (30, columns)) * 10**size
    if signs:
        x *= rng.choice([-1.0, 1.0], x.shape)
    layer = unit(columns, 1) if unit is nn.NAC else unit(columns, 1, eps=1e-15)
    reach = 30 if extreme else 3
    params = {name: rng.uniform(-reach, reach, shape) for name, shape in layer.shapes().items()}
    y = layer(params, x)[0][:, 0]
    assert not [text for text in said(x, y, units=(unit.__name__.lower(),)) if "reach" in text]


@settings(max_examples=150, deadline=None)
@given(
    unit=st.sampled_from([nn.SumPath, nn.ProductPath]),
    columns=st.integers(1, 4),
    size=st.floats(-3, 3),
    signs=st.booleans(),
    negative=st.booleans(),
    extreme=st.booleans(),
    seed=seeds,
)
def test_what_weights_up_to_4_reach_is_never_complained_about(unit, columns, size, signs, negative, extreme, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 2, (30, columns)) * 10**size
    if signs:
        x *= rng.choice([-1.0, 1.0], x.shape)
    W = rng.choice([-4.0, 4.0], (columns, 1)) if extreme else rng.choice(POINTS, (columns, 1))
    y = unit(columns, 1)({"W": W}, x)[0][:, 0] * (-1.0 if negative else 1.0)
    units = {"SumPath": "sum", "ProductPath": "product"}[unit.__name__]
    for asked in ((units,), ("sum", "product")):
        assert not [text for text in said(x, y, units=asked) if "reach" in text]


# --- misfit ---------------------------------------------------------------------------------------------------

NOISES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_t(2, n),
    "cauchy": lambda rng, n: np.clip(rng.standard_cauchy(n), -1e4, 1e4),
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
    "digits": lambda rng, n: rng.integers(-3, 4, n) / 3,
    "skewed": lambda rng, n: rng.exponential(size=n) - 1,
    "outliers": lambda rng, n: rng.normal(size=n) + 100 * (rng.random(n) < 0.02) * rng.choice([-1, 1], n),
}


@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_no_misfit(noise):
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, columns = rng.integers(30, 300), rng.integers(1, 5)
        x = np.exp(rng.normal(size=(n, columns))) if seed % 2 else rng.uniform(1, 2, (n, columns))
        hits += misfit(x, NOISES[noise](rng, n))
    assert hits <= 1


def test_relative_noise_is_no_misfit_of_the_ratio():
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.uniform(1, 5, (100, 2))
        y = x.prod(axis=1) * np.exp(rng.normal(0, 0.05, 100))
        hits += misfit(x, np.log(y / x.prod(axis=1)))
    assert hits <= 1


@pytest.mark.parametrize(
    ("left", "strength"),
    [
        ("sine", lambda a, b: np.sin(6 * a)),
        ("square", lambda a, b: (a - 1.5) ** 2 * 4),
        ("interaction", lambda a, b: 4 * (a - 1.5) * (b - 1.5)),
        ("offset", lambda a, b: 0 * a + 1),
        ("slope", lambda a, b: a - 1.5),
        ("step", lambda a, b: np.sign(a - 1.3)),
        ("power", lambda a, b: a**3 - 4),
    ],
)
def test_what_depends_on_the_columns_is_a_misfit(left, strength):
    hits = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = rng.uniform(1, 2, (150, 2))
        hits += misfit(x, strength(*x.T) + rng.normal(0, 0.2, 150))
    assert hits == 30, left


def test_a_missing_column_that_others_tell_is_a_misfit():
    rng = np.random.default_rng(1)
    x = rng.uniform(1, 2, (200, 2))
    hidden = np.sin(5 * x[:, 1])
    assert misfit(x, hidden - hidden.mean() + rng.normal(0, 0.3, 200))
    assert not misfit(x[:, :1], rng.permutation(hidden) - hidden.mean())


def test_outliers_hide_no_misfit():
    rng = np.random.default_rng(2)
    x = rng.uniform(1, 2, (150, 2))
    residual = np.sin(6 * x[:, 0]) + rng.normal(0, 0.1, 150)
    residual[[3, 50]] = [1e9, -1e9]
    assert misfit(x, residual)


def test_few_rows_and_undefined_ones_are_not_judged():
    a = np.linspace(1, 2, ENOUGH)[:, None]
    curve = np.sin(6 * a[:, 0])
    assert misfit(a, curve)
    assert not misfit(a[1:], curve[1:])
    assert not misfit(a, np.where(np.arange(ENOUGH) == 4, np.nan, curve))
    assert not misfit(np.random.default_rng(0).normal(size=(60, 20)), np.random.default_rng(1).normal(size=60))


def test_a_constant_column_has_no_say():
    x = np.column_stack([A, np.full(50, 3.0)])
    rng = np.random.default_rng(3)
    assert not misfit(x, rng.normal(size=50))
    assert misfit(x, np.sin(9 * A) + rng.normal(0, 0.05, 50))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_units_do_not_matter_to_a_misfit(size):
    rng = np.random.default_rng(4)
    x = rng.uniform(1, 2, (100, 2))
    for residual in (np.sin(6 * x[:, 0]), rng.normal(size=100)):
        assert misfit(x, residual) == misfit(x * size, residual) == misfit(x, residual * size)


# --- advice ---------------------------------------------------------------------------------------------------


BOTH = ("sum", "product")


def advised(y, *, error=1.0, units=BOTH, scale=False, x=None):
    x = rows(5) if x is None else x
    return [str(one) for one in advice(x, y(*x.T), "ab", error, units=units, scale=scale)]


def test_a_constant_is_advised():
    first, *_ = advised(lambda a, b: 3.7 * a / b)
    assert first == "3.7 * a / b fits them; try --scale"
    assert "7.3 * (a + b) fits them; try --scale" in advised(lambda a, b: 7.3 * (a + b))
    assert advised(lambda a, b: 7.3 * (a + b), scale=True) == []


def test_the_other_path_is_advised():
    assert advised(lambda a, b: a / b, units=("sum",)) == ["a / b fits them; try --unit auto"]
    assert advised(lambda a, b: a - b, units=("product",)) == ["a - b fits them; try --unit auto"]
    assert advised(lambda a, b: a / b, units=("sum",), scale=True) == ["a / b fits them; try --unit auto"]
    assert advised(lambda a, b: 3.7 * a / b, units=("sum",)) == ["3.7 * a / b fits them; try --unit auto --scale"]
    assert advised(lambda a, b: -a / b, units=("sum",)) == ["-a / b fits them; try --unit auto"]
    assert advised(lambda a, b: a / b) == []


def test_an_offset_is_advised():
    text = "fits them, but no unit adds a constant: subtract it from the target"
    assert advised(lambda a, b: a + b + 32) == [f"a + b + 32 {text}"]
    assert advised(lambda a, b: a - b / 2 - 3, scale=True) == [f"a - 0.5 * b - 3 {text}"]
    assert f"a + b + 3.14159 {text}" in advised(lambda a, b: a + b + np.pi, error=1e-3)


def test_nothing_is_advised_where_nothing_helps():
    rng = np.random.default_rng(6)
    assert advised(lambda a, b: np.sin(9 * a) * b) == []
    assert advised(lambda a, b: rng.normal(size=50)) == []
    # What is there already is no advice: it must be far better.
    assert advised(lambda a, b: a + b + rng.normal(0, 1e-3, 50), error=1e-3) == []
    assert advised(lambda a, b: a + b, error=0.0) == []
    assert advised(lambda a, b: a + b, error=1.0) == []


def test_the_better_of_two_comes_first():
    x = rows(7)
    y = 5 * x[:, 0] ** 2  # nearly 15 a - 11
    first, *others = advice(x, y, "ab", 10.0, units=BOTH, scale=False)
    assert str(first).startswith("5 * a^2 fits them")
    assert [one.formula.error for one in others] == sorted(one.formula.error for one in others)


def test_no_advice_without_a_product():
    x = rows(8)
    x[:, 0] = 0
    assert advised(lambda a, b: 3.7 * b, x=x)[0] == "3.7 * b fits them; try --scale"


def test_advice_is_safe_to_print():
    found = Formula((("sum", ((1.0, "a\x1b"),)),), ("a\x1b",), True, 0.0, False)
    assert str(Advice(found, "; try x")) == "[a\\x1b] fits them; try x"
    assert str(Advice(found, ", but", -0.5)) == "[a\\x1b] - 0.5 fits them, but"


# --- once wrong --------------------------------------------------------------------------------------------------

YEAR = np.arange(1990.0, 2030.0)


def test_growth_is_no_power_of_the_year():
    """A column of years, and one that shrinks by half each year: nearly year^-1000 times 1e3300."""
    assert relations(np.column_stack([YEAR, np.exp(-0.5 * (YEAR - 1990))]), ["year", "price"]) == []


def test_a_power_law_with_a_constant_beyond_floats_is_said():
    a = np.exp(np.linspace(160.0, 161.0, 40))
    [relation] = relations(np.column_stack([a, np.exp(-5.0 * (np.log(a) - 160.5))]), ["a", "b"])
    assert relation.text == "b = exp(802) * a^-5"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ((1e-10 * A, 1e-10 * A + 5e-10), ["b = a + 5e-10"]),
        ((1e12 * A, 2e12 * A), ["b = 2 * a"]),
        ((A, 5 - 2 * A), ["b = -2 * a + 5"]),
        ((A, B, A + 1e-3 * B), ["c = a + 0.001 * b"]),
    ],
)
def test_relations_in_any_unit_are_said_in_full(columns, expected):
    assert [text for text in texts(*columns) if not text.startswith("nearly")] == expected


def test_a_mean_of_many_columns_that_are_alike_names_them():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 1)) + 0.05 * rng.normal(size=(600, 150))
    names = [f"x{i}" for i in range(150)]
    [relation] = relations(np.column_stack([x, x.mean(axis=1)]), [*names, "mean"])
    assert set(relation.columns) == {*names, "mean"}
    assert relation.text == "mean = 0.00667 * x0 + 0.00667 * x1 + 0.00667 * x2 + 0.00667 * x3 + ..."


def test_a_mean_of_many_columns_but_for_noise_is_no_constant():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 1)) + 0.05 * rng.normal(size=(600, 150))
    mean = x.mean(axis=1) + 1e-4 * rng.normal(size=600)
    [relation] = relations(np.column_stack([x, mean]), [*(f"x{i}" for i in range(150)), "mean"])
    assert len(relation.columns) > 1


def test_twins_and_multiples_are_a_guess_in_products_too():
    found = relations(np.column_stack([A, 2 * A, B]), NAMES)
    assert guessed({"a", "b"}, found, "product") == guessed({"a", "b"}, found, "sum") == ["a", "b"]


def test_two_columns_are_not_said_to_be_nearly_alike_twice():
    assert len([text for text in said(np.column_stack([A, A + 1e-3 * B]), B) if ", nearly: " in text]) == 1


def test_the_order_of_the_rows_does_not_matter_to_a_misfit():
    typos = np.zeros(100)
    typos[[3, 50, 80]] = [1, -2, 3]
    assert not misfit(np.arange(100.0)[:, None], typos)
    rng = np.random.default_rng(0)
    group, noise = rng.integers(0, 2, 200).astype(float), rng.normal(0, 0.3, 200)
    by_target = (group + noise).argsort()
    assert not misfit(group[:, None], noise)
    assert not misfit(group[by_target, None], noise[by_target])


def test_what_explains_nothing_is_no_advice():
    y = np.random.default_rng(0).normal(size=50) + 3
    assert advised(lambda a, b: y, error=30.0) == []


def test_a_constant_reaches_any_target():
    x = rows()
    table = Table("t.csv", ("a", "b", "y"), np.column_stack([x, 1e6 * x.prod(axis=1)]), (), (0,) * 50, ("",) * 50)
    assert learn(table, "y", plan=Plan(scale=True)).warnings == ()
