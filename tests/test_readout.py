"""The read-out: normal form, text, values, and what may be called exact."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np.errors import OptionError, ParameterError, ShapeError
from nalu_np.readout import (
    STABLE,
    ZERO,
    _collect,
    _magnitude,
    _text,
    _value,
    constant,
    evaluate,
    families,
    leaves,
    path,
    relative_error,
)

NAMES = ("a", "b", "c")
ROWS = np.random.default_rng(0).uniform(0.5, 2.0, (50, 3))


def text(node):
    return _text(node, NAMES)


def total(*terms):
    return _collect("sum", terms)


def product(*terms):
    return _collect("product", terms)


def saturated(weights, **more):
    """Parameters of a unit whose W is as given, to rounding: halves through M_hat = 0, the rest saturated."""
    W = np.asarray(weights, dtype=np.float64)
    M_hat = np.where(np.abs(W) == 0.5, 0.0, np.where(W == 0, -40.0, 40.0))
    return {"W_hat": 30.0 * np.sign(W), "M_hat": M_hat, **more}


def nalu(weights, adds, **options):
    W = np.asarray(weights, dtype=np.float64)
    layer = nn.NALU(*W.shape, gate="independent", **options)
    return layer, saturated(W, G=np.where(np.broadcast_to(adds, W.shape[1]), 40.0, -40.0))


numbers = st.sampled_from(STABLE)
weights = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=2)


@given(st.lists(numbers, min_size=3, max_size=3), st.booleans())
def test_a_settled_nalu_is_read_as_what_it_computes(row, adds):
    layer, params = nalu(np.array([row]).T, adds, eps=1e-12)
    found = nn.formula(layer, params, ROWS, names=NAMES)
    expected = ROWS @ row if adds else np.prod(ROWS ** np.array(row), axis=1)
    np.testing.assert_allclose(found(ROWS)[:, 0], expected, rtol=1e-12, atol=1e-12)
    assert found.resolved
    spread = expected.std()
    assert found.exact == (found.error <= 1e-6)
    if spread > 0.1:
        assert found.exact


def python(expression):
    return re.sub(r"(?<![\w.])(\d[\d.]*(?:e[+-]\d+)?)", r"np.float64(\1)", expression).replace("^", "**")


def read_as_python(expression, x):
    with np.errstate(all="ignore"):
        value = eval(python(expression), {"abs": np.abs, "np": np, **dict(zip(NAMES, x.T, strict=True))})
    return np.broadcast_to(value, len(x))


@given(
    weights,
    st.lists(st.booleans(), min_size=2, max_size=2),
    st.lists(numbers, min_size=2, max_size=2),
    st.booleans(),
)
def test_the_text_of_two_layers_evaluates_to_the_formula_and_uses_stable_constants(W, adds, V, adds_out):
    first, first_params = nalu(np.array(W).T, np.array(adds))
    second, second_params = nalu(np.array([V]).T, adds_out)
    params = {f"0.{k}": v for k, v in first_params.items()} | {f"1.{k}": v for k, v in second_params.items()}
    found = nn.formula(nn.chain(first, second), params, ROWS, names=NAMES)
    with np.errstate(all="ignore"):
        expected = found(ROWS)[:, 0]
    np.testing.assert_allclose(read_as_python(str(found), ROWS), expected, rtol=1e-9, atol=1e-12)
    words = str(found).replace("(", " ").replace(")", " ").replace("^", " ").replace("-", " ").split()
    assert {word for word in words if word[0].isdigit()} <= {"0", "0.5", "1", "1.5", "2"}


def test_two_halves_of_a_sum_are_the_sum():
    part = total((-1.0, "a"), (-0.5, "b"), (-1.0, "c"))
    whole = total((-0.5, part), (-0.5, part))
    assert text(whole) == "a + 0.5 * b + c"
    assert total((0.5, part), (0.5, part)) == part


def test_the_same_law_from_permuted_hidden_units_has_the_same_text():
    """(a + b) * c, its hidden units in either order, and with a sign that the product path does not see."""
    texts = set()
    for columns, sign in itertools.product(([0, 1], [1, 0]), (1.0, -1.0)):
        W = np.array([[sign, 0.0], [sign, 0.0], [0.0, 1.0]])[:, columns]
        first, first_params = nalu(W, True)
        second, second_params = nalu([[1.0], [1.0]], False)
        params = {f"0.{k}": v for k, v in first_params.items()} | {f"1.{k}": v for k, v in second_params.items()}
        texts.add(str(nn.formula(nn.chain(first, second), params, ROWS, names=NAMES)))
    assert texts == {"c * (a + b)"}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (total((1.0, "a"), (-1.0, "b")), "a - b"),
        (total((-1.0, "a"), (1.0, "b")), "b - a"),
        (total((-1.0, "a"), (-0.5, "b")), "-a - 0.5 * b"),
        (total(), "0"),
        (total((1.0, "a"), (-1.0, "a")), "0"),
        (total((1.0, "a"), (1.0, "a"), (0.5, "a")), "2.5 * a"),
        (total((0.5, total((0.5, "a")))), "0.5 * (0.5 * a)"),
        (total((-0.5, product((1.0, "a"), (-1.0, "b"))), (1.0, "c")), "c - 0.5 * a / b"),
        (total((0.731, "a")), "0.731 * a"),
        (product(), "1"),
        (product((0.5, product()), (1.0, "a")), "a"),
        (product((0.5, total()), (1.0, "a")), "0"),
        (product((-0.5, total())), "(0)^-0.5"),
        (total((0.5, total()), (1.0, "a")), "a"),
        (product((-1.0, "a")), "1 / a"),
        (product((1.0, "a"), (-1.0, "b"), (-1.0, "c")), "a / b / c"),
        (product((1.0, "a"), (1.0, "a")), "a^2"),
        (product((1.0, "a"), (0.5, "a"), (-0.5, "b"), (-1.0, "c")), "a^1.5 * b^-0.5 / c"),
        (product((0.5, product((0.5, "a")))), "(a^0.5)^0.5"),
        (product((0.5, product((1.0, "a"), (-1.0, "b")))), "a^0.5 * b^-0.5"),
        (product((0.492, "a"), (-0.479, "b")), "a^0.492 * b^-0.479"),
        (product((-1.0, total((1.0, "a"), (-1.0, "b")))), "1 / (a - b)"),
        (("abs", "a"), "abs(a)"),
        (product((2.0, "a")), "a^2"),
        (product((-2.0, "a")), "1 / a^2"),
        (product((1.0, "a"), (-3.0, "b"), (2.5, "c")), "a * c^2.5 / b^3"),
        (product((2.0, ("abs", "a"))), "a^2"),
        (product((-4.0, ("abs", "a")), (3.0, ("abs", "b"))), "abs(b)^3 / a^4"),
        (product((2.0, total((-1.0, "a")))), "(-a)^2"),
        (total((-1.0, product((2.0, "a")))), "-a^2"),
        (total((3.7, product((1.0, "a"), (-1.0, "b")))), "3.7 * a / b"),
        (total((-3.7, product((-1.0, "b")))), "-3.7 / b"),
        (total((1e-7, product((0.5, "a")))), "1e-07 * a^0.5"),
        (total((42.0, product())), "42"),
        (total((-1.0, product()), (1.0, "a")), "a - 1"),
        (total((2.0, total((1.0, "a"), (1.0, "b")))), "2 * (a + b)"),
        (total((-3.7, total((1.0, "a"), (-1.0, "b")))), "-3.7 * (a - b)"),
        (total((1.23456789, "a")), "1.23457 * a"),
        (total((4.0, "a"), (-2.5, "b")), "4 * a - 2.5 * b"),
    ],
)
def test_text(node, expected):
    assert text(node) == expected


def test_names_that_are_no_words_stand_in_brackets():
    layer, params = nalu([[0.5], [1.0], [0.0]], False)
    found = nn.formula(layer, params, ROWS, names=["mass (kg)", "höhe", "c"])
    assert str(found) == "[mass (kg)]^0.5 * höhe"


def test_default_names():
    layer, params = nalu([[1.0], [-1.0]], True)
    assert str(nn.formula(layer, params, ROWS[:, :2])) == "x1 - x2"


def test_bars_stand_only_where_a_factor_can_be_negative():
    signed = ROWS * np.where(np.arange(50) % 2, 1, -1)[:, None]
    layer, params = nalu([[1.0], [0.5], [0.0]], False)
    assert str(nn.formula(layer, params, ROWS, names=NAMES)) == "a * b^0.5"
    assert str(nn.formula(layer, params, signed, names=NAMES)) == "abs(a) * abs(b)^0.5"
    assert str(nn.formula(layer, params, -ROWS, names=NAMES)) == "abs(a) * abs(b)^0.5"
    columns = dict(zip(NAMES, signed.T, strict=True))
    a_minus_b = total((1.0, "a"), (-1.0, "b"))
    b_minus_a = total((-1.0, "a"), (1.0, "b"))
    assert _magnitude(a_minus_b, columns) == _magnitude(b_minus_a, columns) == ("abs", a_minus_b)
    positive = dict(zip(NAMES, ROWS.T, strict=True))
    minus_both = total((-1.0, "a"), (-1.0, "b"))
    assert text(_magnitude(minus_both, positive)) == "a + b"


def test_every_unit_is_read_on_its_own_path():
    W = [[1.0], [-0.5], [0.0]]
    assert str(nn.formula(nn.NAC(3, 1), saturated(W), ROWS, names=NAMES)) == "a - 0.5 * b"
    assert str(nn.formula(nn.LogNAC(3, 1), saturated(W), ROWS, names=NAMES)) == "a * b^-0.5"
    layer = nn.NALU(3, 2, tied=False, gate="matrix")
    both = {f"{k}_a": v for k, v in saturated(np.repeat(W, 2, axis=1)).items()}
    both |= {f"{k}_m": v for k, v in saturated(np.repeat([[0.0], [1.0], [1.0]], 2, axis=1)).items()}
    G = np.array([[50.0, -50.0]] * 3)
    assert str(nn.formula(layer, {**both, "G": G}, ROWS, names=NAMES)) == "a - 0.5 * b; b * c"
    scalar = nn.NALU(3, 2, gate="scalar")
    params = saturated(np.repeat(W, 2, axis=1), G=np.full((3, 1), -50.0))
    assert str(nn.formula(scalar, params, ROWS, names=NAMES)) == "a * b^-0.5; a * b^-0.5"


def test_a_gate_on_both_sides_is_not_resolved_and_never_exact():
    layer = nn.NALU(1, 1)
    params = saturated([[1.0]], G=np.array([[50.0]]))
    rows = np.array([[-1.0], [-2.0], [3.0], [-4.0]])
    found = nn.formula(layer, params, rows, rows)
    assert not found.resolved
    assert not found.exact
    # The identity is right for the majority's path, |x|, only where x > 0.
    assert str(found) == "abs(x1)"


def test_exact_is_judged_on_the_targets_given():
    layer, params = nalu([[1.0], [1.0], [0.0]], False)
    y = ROWS[:, :1] * ROWS[:, 1:2]
    assert nn.formula(layer, params, ROWS, y).exact
    spread = y.std()
    assert nn.formula(layer, params, ROWS, y + 0.9e-6 * spread).exact
    assert not nn.formula(layer, params, ROWS, y + 1.1e-6 * spread).exact
    wrong = nn.formula(layer, params, ROWS, ROWS[:, :1] + ROWS[:, 1:2])
    assert not wrong.exact
    assert wrong.error > 0.1
    # Without targets: is it what the layer computes? Weights of .9 are read as 1, which is not what it computes.
    loose = {**params, "W_hat": np.arctanh(0.9) * np.sign(params["W_hat"])}
    assert nn.formula(layer, params, ROWS).error < 1e-6
    assert not nn.formula(layer, loose, ROWS).exact
    assert str(nn.formula(layer, loose, ROWS, snap=False)) == "x1^0.9 * x2^0.9"
    assert not nn.formula(layer, params, ROWS, y, snap=False).exact


def test_a_constant_target_can_be_met_by_chance():
    layer, params = nalu([[0.0], [0.0], [0.0]], False)
    assert nn.formula(layer, params, ROWS).exact
    assert nn.formula(layer, params, ROWS, np.ones((50, 1))).error == 0
    assert not nn.formula(layer, params, ROWS, np.ones((50, 1))).exact
    assert not nn.formula(layer, params, ROWS, np.full((50, 1), 1.0 + 1e-12)).exact
    assert str(nn.formula(layer, params, ROWS)) == "1"


def test_where_it_is_undefined_the_error_is_infinite():
    layer, params = nalu([[-1.0], [0.0], [0.0]], False)
    rows = ROWS.copy()
    rows[3, 0] = 0.0
    found = nn.formula(layer, params, rows, ROWS[:, :1])
    assert found.error == np.inf
    assert not found.exact
    assert found(rows)[3, 0] == np.inf


def test_relative_error():
    y = np.array([[1.0], [3.0]])
    assert relative_error(y + 0.5, y, 2.0) == 0.25
    assert relative_error(y, y, 0.0) == 0.0
    assert relative_error(y + 1, y, 0.0) == np.inf
    assert relative_error(y * np.nan, y, 1.0) == np.inf


def formula(layer, names=NAMES):
    return nn.formula(layer, layer.init(), ROWS[:, : layer.in_features].astype("float32"), names=names)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nn.formula(nn.Dense(3, 1), nn.Dense(3, 1).init(), ROWS), "has no read-out"),
        (lambda: nn.formula(nn.NAC(3, 1), nn.NAC(3, 1).init(replicas=2), ROWS), "use nn.replica"),
        (lambda: nn.formula(nn.NAC(3, 1), nn.NAC(3, 1).init(), ROWS, names=["a", "a", "b"]), "3 different names"),
        (lambda: nn.formula(nn.NAC(3, 1), nn.NAC(3, 1).init(), ROWS, names=["a"]), "3 different names"),
        (lambda: nn.formula(nn.NAC(3, 1), nn.NAC(3, 1).init(), ROWS[:0]), "x has no rows"),
        (lambda: nn.formula(nn.NAC(3, 1), nn.NAC(3, 1).init(), ROWS[:, :2]), "x has shape (50, 2)"),
        (lambda: nn.formula(nn.NAC(3, 1), nn.NAC(3, 1).init(), ROWS, ROWS[:, 0]), "y has shape (50,)"),
        (lambda: evaluate(["a"], ["a"], ROWS), "x has shape (50, 3), expected (N, I=1): a"),
        (
            lambda: formula(nn.NAC(3, 1))([100, 8, 1]),
            "x has shape (3,), expected (N, I=3): a, b, c; one row is [[...]]",
        ),
        (lambda: formula(nn.NAC(3, 1))(100), "x has shape (), expected (N, I=3): a, b, c; one row is [[...]]"),
        (lambda: formula(nn.NAC(3, 1), names="abc"), "formula: expected a list of 3 different names, got 'abc'"),
        (lambda: formula(nn.NAC(1, 1), names="a"), "formula: expected a list of 1 different names, got 'a'"),
        (lambda: formula(nn.NAC(3, 1), names="ab"), "formula: expected a list of 3 different names, got 'ab'"),
        (lambda: nn.formula(nn.NAC, {}, ROWS), "formula: expected a layer, got the class NAC; build it"),
        (lambda: nn.formula(nn.NAC(3, 1), ROWS, {}), "NAC(3, 1): params must be a mapping of names to arrays"),
    ],
)
def test_errors(call, words):
    with pytest.raises((OptionError, ParameterError, ShapeError)) as caught:
        call()
    assert words in str(caught.value)


class Doubled(nn.NAC):
    """Twice the sum."""

    def forward(self, params, x, **options):
        y, vjp = super().forward(params, x, **options)
        return 2 * y, lambda dy, need_dx=True: vjp(2 * dy, need_dx)


class Rooted(nn.LogNAC):
    """Another path."""

    def _path(self, x, W):
        return super()._path(abs(x) ** 0.5, W)


class Shared(nn.NALU):
    """One weight for all."""

    def shapes(self):
        return {**super().shapes(), "G": (1,)}


class Halved(nn.ProductPath):
    """Another constant."""

    def _scaled(self, params, p, path_vjp, keep):
        return super()._scaled(params, p / 2, path_vjp, keep)


class Renamed(nn.LogNAC):
    """The path of its grandparent under its parent's symbol."""

    _path = nn.NAC._path


class Own(nn.Layer):
    """What a unit leaves in `keep`, by a layer of another kind."""

    def shapes(self):
        return {"W": (3, 1)}

    def forward(self, params, x, *, keep=None, **options):
        keep.update(params, a=x @ params["W"])
        return keep["a"] + 1, None


@pytest.mark.parametrize("layer", [Doubled(3, 1), Rooted(3, 1), Halved(3, 1), Renamed(3, 1), Own(3, 1)], ids=repr)
def test_a_forward_pass_of_ones_own_is_not_read_as_that_of_the_parent(layer):
    params = {name: np.ones(shape) for name, shape in layer.shapes().items()}
    words = (
        f"formula: {layer!r} has no read-out; use NAC, LogNAC, NALU, the two paths, or subclasses without a forw"
    )
    with pytest.raises(OptionError, match=f"^{re.escape(words)}"):
        nn.formula(layer, params, ROWS)
    model = nn.chain(nn.NAC(3, 3), layer)
    params = {name: np.ones(shape) for name, shape in model.shapes().items()}
    with pytest.raises(OptionError, match=f"^{re.escape(words)}"):
        nn.formula(model, params, ROWS)


def test_other_shapes_are_not_read_either():
    layer = Shared(3, 1, gate="independent")
    with pytest.raises(OptionError, match="has no read-out"):
        nn.formula(layer, saturated([[1.0], [0.0], [0.0]], G=np.array([40.0])), ROWS)


@pytest.mark.parametrize(
    "base", [nn.NAC, nn.LogNAC, nn.NALU, nn.SumPath, nn.ProductPath], ids=lambda base: base.__name__
)
def test_a_subclass_that_computes_the_same_is_read_as_its_parent(base):
    def penalty(self, params, x, step):
        return None

    mine = type("Mine", (base,), {"draw": lambda self, *_: None, "penalty": penalty, "project": lambda self, p: p})
    params = base(3, 1).init(dtype="float64")
    assert nn.formula(mine(3, 1), params, ROWS) == nn.formula(base(3, 1), params, ROWS)


def test_the_tree_is_plain_and_evaluates_alone():
    layer, params = nalu([[1.0], [-0.5], [0.0]], False)
    found = nn.formula(layer, params, ROWS, names=NAMES)
    assert found.terms == (("product", ((1.0, "a"), (-0.5, "b"))),)
    np.testing.assert_array_equal(evaluate(found.terms, NAMES, ROWS), found(ROWS))
    assert _value(("abs", "a"), {"a": np.array([-2.0])}) == 2.0


# --- the paths ------------------------------------------------------------------------------------------------

SIGNED = ROWS * np.where(np.random.default_rng(1).random(ROWS.shape) < 0.5, -1, 1)
halves = st.sampled_from((np.arange(-8, 9) / 2).tolist())
lattice_rows = st.lists(halves, min_size=3, max_size=3)


@st.composite
def trees(draw, depth=3):
    """Any tree that could be met, and some that could not."""
    kind = draw(st.sampled_from(["column", "abs", "sum", "product"] if depth else ["column"]))
    if kind == "column":
        return draw(st.sampled_from(NAMES))
    if kind == "abs":
        return ("abs", draw(trees(depth=depth - 1)))
    numbers = st.one_of(halves, st.sampled_from([0.731, -2.25, 100.5])) if kind == "sum" else halves
    return _collect(kind, draw(st.lists(st.tuples(numbers, trees(depth=depth - 1)), max_size=3)))


@given(trees(), st.booleans())
def test_the_text_of_any_tree_is_its_value(tree, positive):
    x = ROWS if positive else SIGNED
    expected = evaluate([tree], NAMES, x)[:, 0]
    read = read_as_python(text(tree), x)
    sizes = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(read, expected, rtol=1e-8, atol=1e-11 * sizes.max(initial=1.0))
    assert leaves(tree) == {name for name in NAMES if re.search(rf"\b{name}\b", text(tree).replace("abs", ""))}


@given(lattice_rows, st.booleans(), st.sampled_from([1.0, -1.0, 3.7, -1e-7, 1e7 + 0.5]))
def test_paths_are_read_as_what_they_compute(row, adds, c):
    layer = (nn.SumPath if adds else nn.ProductPath)(3, 1, scale=True)
    params = {"W": np.array([row]).T, "c": np.array([c])}
    for x in (ROWS, SIGNED, -ROWS):
        found = nn.formula(layer, params, x, names=NAMES)
        np.testing.assert_allclose(found(x)[:, 0], layer(params, x)[0][:, 0], rtol=1e-10, atol=1e-12)
        assert found.resolved
        assert found.exact
        rounded_c = read_as_python(str(found), x)
        np.testing.assert_allclose(rounded_c, found(x)[:, 0], rtol=1e-5, atol=1e-12)
    bars = str(nn.formula(layer, params, -ROWS, names=NAMES)).count("abs")
    assert bars == (0 if adds else sum(k % 1 != 0 for k in row))
    assert leaves(found.terms[0]) == {name for name, k in zip(NAMES, row, strict=True) if k}


@given(
    st.lists(lattice_rows, min_size=2, max_size=2),
    st.tuples(halves, halves),
    st.tuples(st.booleans(), st.booleans()),
)
def test_chains_of_paths_are_read_as_what_they_compute(W, V, adds):
    first, second = (nn.SumPath if a else nn.ProductPath for a in adds)
    layer = nn.chain(first(3, 2), second(2, 1))
    params = {"0.W": np.array(W).T, "1.W": np.array([V]).T}
    x = ROWS if adds == (False, False) else SIGNED
    y = layer(params, x)[0][:, 0]
    found = nn.formula(layer, params, x, names=NAMES)
    good = np.isfinite(found(x)[:, 0]) & (np.abs(y) < 1e20) & (np.abs(y) > 1e-20)
    np.testing.assert_allclose(found(x)[good, 0], y[good], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("W", "expected"),
    [
        ([2.0, 0, 0], "abs(a)"),
        ([1.0, 1, 0], "abs(a)^0.5 * abs(b)^0.5"),
    ],
)
def test_a_root_of_a_product_is_one_of_magnitudes(W, expected):
    layer = nn.chain(nn.ProductPath(3, 1), nn.ProductPath(1, 1))
    found = nn.formula(layer, {"0.W": np.array([W]).T, "1.W": np.array([[0.5]])}, -ROWS, names=NAMES)
    assert str(found) == expected
    assert found.exact


def test_path_weights_are_rounded_and_constants_are_not():
    params = {"W": np.array([[0.9], [-2.2], [0.1]]), "c": np.array([3.7])}
    layer = nn.ProductPath(3, 1, scale=True)
    assert str(nn.formula(layer, params, SIGNED, names=NAMES)) == "3.7 * a / b^2"
    assert str(nn.formula(layer, params, ROWS, names=NAMES, snap=False)) == "3.7 * a^0.9 * b^-2.2 * c^0.1"
    negative = {**params, "c": np.array([-1.0])}
    assert str(nn.formula(layer, negative, ROWS, names=NAMES)) == "-a / b^2"
    total = nn.SumPath(3, 1, scale=True)
    assert str(nn.formula(total, params, ROWS, names=NAMES)) == "3.7 * (a - 2 * b)"
    assert str(nn.formula(total, params, ROWS, names=NAMES, snap=False)) == "3.7 * (0.9 * a + 0.1 * c - 2.2 * b)"
    assert str(nn.formula(nn.SumPath(3, 1), {"W": 9 * params["W"]}, ROWS, names=NAMES)) == "4 * a + c - 4 * b"


@pytest.mark.parametrize(
    ("kind", "constants", "options", "expected"),
    [
        ("sum", [1.0, -2.0, 0.0], {}, "a - 2 * b"),
        ("sum", [1.0, 0.0, 0.0], {}, "a"),
        ("sum", [0.0, 0.0, 0.0], {"c": 3.0}, "0"),
        ("sum", [1.0, 1.0, 0.0], {"c": -1.0}, "-a - b"),
        ("product", [0.0, 0.0, 0.0], {"c": 3.0}, "3"),
        ("product", [1.0, 2.0, 0.5], {}, "a * b^2 * abs(c)^0.5"),
        ("product", [1.0, 2.0, 0.5], {"signed": False}, "abs(a) * b^2 * abs(c)^0.5"),
        ("product", [-1.0, 0.0, 0.0], {"c": -2.0}, "-2 / a"),
    ],
)
def test_path(kind, constants, options, expected):
    columns = dict(zip(NAMES, SIGNED.T, strict=True))
    assert text(path(kind, np.array(constants), NAMES, columns, **options)) == expected


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("a", (1.0, "a")),
        (total((0.5, "a")), (1.0, total((0.5, "a")))),
        (total((3.7, "a")), (3.7, "a")),
        (total((3.7, product((1.0, "a"), (1.0, "b")))), (3.7, product((1.0, "a"), (1.0, "b")))),
        (total((-2.0, product((2.0, "a")))), (-2.0, product((2.0, "a")))),
        (total((3.7, total((1.0, "a"), (1.0, "b")))), (3.7, total((1.0, "a"), (1.0, "b")))),
        (total((42.0, product())), (42.0, product())),
        (total((3.7, "a"), (1.0, "b")), (1.0, total((3.7, "a"), (1.0, "b")))),
        (("abs", "a"), (1.0, ("abs", "a"))),
        (ZERO, (1.0, ZERO)),
    ],
    ids=str,
)
def test_constant(node, expected):
    assert constant(node) == expected


def test_families():
    ab = total((1.0, "a"), (1.0, "b"))
    names, positive = list(NAMES), ROWS
    both = [("sum", names), ("product", names)]
    bars = [("abs", name) for name in NAMES]
    for node in ("a", ab, product((1.0, "a"), (-2.0, "b")), ZERO, product()):
        assert list(families(node, NAMES, positive)) == both
        assert list(families(node, NAMES, SIGNED)) == [*both, ("product", bars)]
    assert list(families(product((0.5, ("abs", "a"))), NAMES, SIGNED)) == [*both, ("product", bars)]
    assert list(families(("abs", "a"), NAMES, SIGNED)) == [*both, ("product", bars)]
    half = ROWS * [1, -1, 1]
    assert list(families("a", NAMES, half))[-1] == ("product", ["a", ("abs", "b"), "c"])
    # Of two layers the top changes; what stands there is a part, like a column.
    deep = product((1.0, "c"), (1.0, ab))
    parts = dict(families(deep, NAMES, positive))
    assert parts == {"product": [*(part for _, part in deep[1]), "a", "b"]}
    assert set(parts["product"]) == {ab, *NAMES}
    *_, (kind, magnitudes) = families(deep, NAMES, SIGNED)
    assert (kind, magnitudes) == ("product", [ab, *bars])
    deep_sum = total((1.0, product((1.0, "a"), (1.0, "b"))), (1.0, "c"))
    [(kind, parts)] = families(deep_sum, NAMES, SIGNED)
    assert (kind, set(parts)) == ("sum", {product((1.0, "a"), (1.0, "b")), *NAMES})
    assert list(families(("abs", ab), NAMES, SIGNED)) == []


def test_leaves():
    assert leaves("a") == {"a"}
    assert leaves(("abs", "b")) == {"b"}
    assert leaves(total((1.0, product((0.5, ("abs", "a")), (1.0, "c"))), (2.0, "c"))) == {"a", "c"}
    assert leaves(ZERO) == leaves(product()) == set()
