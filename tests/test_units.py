"""What the units compute: values in closed form, exact properties, kinks, and how their weights are drawn."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nalu_np as nn
from nalu_np import vjps
from nalu_np.backend import INIT
from nalu_np.errors import OptionError
from nalu_np.layer import INITIALIZERS, nac_radius
from nalu_np.units.nalu import GATES

SATURATED = 40.0  # tanh and sigma of it are 1 to the bit

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)


def weights(W):
    """W_hat and M_hat that give W to the bit, for entries -1, -1/2, 0, 1/2 and 1."""
    W = np.array(W, dtype=float)
    M_hat = np.where(np.abs(W) == 0.5, 0.0, SATURATED)  # sigma(0) = 1/2
    return {"W_hat": np.sign(W) * SATURATED, "M_hat": M_hat}


def uniform_params(layer, rng, replicas=None, low=-2.0, high=2.0):
    lead = () if replicas is None else (replicas,)
    return {name: rng.uniform(low, high, lead + shape) for name, shape in layer.shapes().items()}


def signed(rng, shape, low=0.5, high=4.0):
    return rng.uniform(low, high, shape) * rng.choice([-1.0, 1.0], shape)


# --- values ---------------------------------------------------------------------------------------------------

INTEGERS = np.array([[7.0, 3.0], [12.0, 4.0], [-9.0, 2.0], [10.0, -5.0], [1.0, 1.0], [144.0, 25.0]])


@pytest.mark.parametrize(
    ("W", "expected"),
    [
        ([1, 1], lambda p, q: p + q),
        ([1, -1], lambda p, q: p - q),
        ([-1, 1], lambda p, q: q - p),
        ([-1, -1], lambda p, q: -p - q),
        ([1, 0], lambda p, q: p),
        ([0, 0], lambda p, q: 0 * p),
        ([0.5, -0.5], lambda p, q: (p - q) / 2),
    ],
)
def test_nac_adds_and_subtracts_integers_exactly(W, expected):
    y, _ = nn.NAC(2, 1)(weights(np.reshape(W, (2, 1))), INTEGERS)
    np.testing.assert_array_equal(y[:, 0], expected(*INTEGERS.T))


@pytest.mark.parametrize(
    ("W", "expected"),
    [
        ([1, 1], lambda p, q: p * q),
        ([1, -1], lambda p, q: p / q),
        ([-1, 1], lambda p, q: q / p),
        ([-1, -1], lambda p, q: 1 / (p * q)),
        ([1, 0], lambda p, q: p),
        ([0, 0], lambda p, q: p**0),
        ([0.5, 0], lambda p, q: np.sqrt(p)),
        ([0.5, 0.5], lambda p, q: np.sqrt(p * q)),
        ([0.5, -1], lambda p, q: np.sqrt(p) / q),
        ([-0.5, 0.5], lambda p, q: np.sqrt(q / p)),
    ],
)
@pytest.mark.parametrize("unit", ["LogNAC", "NALU"])
def test_products_quotients_and_roots_of_integers(unit, W, expected):
    params = weights(np.reshape(W, (2, 1)))
    if unit == "NALU":
        layer = nn.NALU(2, 1, gate="independent", eps=1e-15)
        params["G"] = np.array([-200.0])
    else:
        layer = nn.LogNAC(2, 1, eps=1e-15)
    y, _ = layer(params, INTEGERS)
    np.testing.assert_allclose(y[:, 0], expected(*np.abs(INTEGERS.T)), rtol=1e-13)


def test_products_of_integers_round_to_the_integer():
    factors = np.array(list(itertools.product(range(1, 40), repeat=2)), dtype=float)
    y, _ = nn.LogNAC(2, 1)(weights([[1], [1]]), factors)
    np.testing.assert_array_equal(np.rint(y[:, 0]), factors[:, 0] * factors[:, 1])


def test_several_outputs_and_a_chain_make_a_formula():
    """(p + q) * (p - q) of two layers, exact to rounding."""
    model = nn.chain(nn.NAC(2, 2), nn.LogNAC(2, 1, eps=1e-15))
    params = {f"0.{name}": q for name, q in weights([[1, 1], [1, -1]]).items()}
    params |= {f"1.{name}": q for name, q in weights([[1], [1]]).items()}
    p, q = INTEGERS[:4].T
    np.testing.assert_allclose(model(params, INTEGERS[:4])[0][:, 0], np.abs(p * p - q * q), rtol=1e-12)


def test_eps_bounds_the_quotient_by_zero():
    y, _ = nn.LogNAC(2, 1, eps=1e-3)(weights([[1], [-1]]), np.array([[0.0, 2.0], [2.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(y[:, 0], [1e-3 / 2.001, 2.001 / 1e-3, 1.0], rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_saturated_weights_and_gates_never_warn(dtype):
    """Parameters of any size give finite values and gradients."""
    layer = nn.NALU(3, 3)
    huge = np.array([[-1e30, -750.0, -80.0], [0.0, 1e-30, 80.0], [750.0, 1e30, -1e-30]], dtype=dtype)
    x = np.array([[1.0, -2.0, 0.5], [0.0, 1e-6, 3.0]], dtype=dtype)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        params = {"W_hat": huge, "M_hat": huge.T, "G": -huge}
        y, vjp = layer(params, x)
        dx, dparams = vjp(np.ones_like(y))
    for q in (y, dx, *dparams.values()):
        assert q.dtype == dtype
        assert np.all(np.isfinite(q))


# --- the two paths --------------------------------------------------------------------------------------------

SIGNED = np.array([[6.0, 3.0], [-6.0, 3.0], [6.0, -3.0], [-6.0, -3.0]])


def path_of(unit, W, c=None):
    """A path of one output, and its parameters."""
    params = {"W": np.reshape(np.array(W, dtype=float), (-1, 1))}
    if c is not None:
        params["c"] = np.array([float(c)])
    return unit(len(W), 1, scale=c is not None), params


@pytest.mark.parametrize(
    ("unit", "W", "c", "expected"),
    [
        (nn.SumPath, [1, -1], None, lambda p, q: p - q),
        (nn.SumPath, [2.5, 4], None, lambda p, q: 2.5 * p + 4 * q),
        (nn.SumPath, [0, 0], None, lambda p, q: 0 * p),
        (nn.SumPath, [1, 1], -3, lambda p, q: -3 * p - 3 * q),
        (nn.SumPath, [1, 0.5], 0, lambda p, q: 0 * p),
        (nn.ProductPath, [1, 1], None, lambda p, q: p * q),
        (nn.ProductPath, [1, -1], None, lambda p, q: p / q),
        (nn.ProductPath, [2, 1], None, lambda p, q: p * p * q),
        (nn.ProductPath, [-3, 2], None, lambda p, q: q * q / p**3),
        (nn.ProductPath, [0, 0], None, lambda p, q: 0 * p + 1),
        (nn.ProductPath, [0.5, 1], None, lambda p, q: np.sqrt(np.abs(p)) * q),
        (nn.ProductPath, [1.5, -0.5], None, lambda p, q: np.abs(p) ** 1.5 * np.abs(q) ** -0.5),
        (nn.ProductPath, [1, 1], -2.5, lambda p, q: -2.5 * p * q),
        (nn.ProductPath, [0, 0], 7, lambda p, q: 0 * p + 7),
        (nn.ProductPath, [1, 4], 0, lambda p, q: 0 * p),
    ],
)
def test_paths_compute_sums_and_products_with_their_signs(unit, W, c, expected):
    layer, params = path_of(unit, W, c)
    for x in (INTEGERS, SIGNED):
        np.testing.assert_allclose(layer(params, x)[0][:, 0], expected(*x.T), rtol=1e-13)


def test_values_of_the_paths_are_kept():
    layer, params = path_of(nn.ProductPath, [1, 2], 3)
    kept = layer.values(params, SIGNED)
    assert set(kept) == {"W", "c", "s", "m", "y"}
    np.testing.assert_array_equal(kept["s"][:, 0], [1, -1, 1, -1])
    np.testing.assert_allclose(kept["m"][:, 0], [54, -54, 54, -54])
    np.testing.assert_allclose(kept["y"], 3 * kept["m"])
    layer, params = path_of(nn.SumPath, [1, 2])
    kept = layer.values(params, SIGNED)
    assert set(kept) == {"W", "a", "y"}
    np.testing.assert_array_equal(kept["y"], kept["a"])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_zeros_in_a_product_path(dtype):
    """log|0| counts as that of something tiny, with slope 0: a power is nearly 0, or huge."""
    layer = nn.ProductPath(2, 1)
    x = np.array([[0.0, 2.0], [-0.0, -2.0], [0.0, 0.0]], dtype=dtype)
    W = np.array([[1.0], [1.0]], dtype=dtype)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        y, vjp = layer({"W": W}, x)
        dx, dparams = vjp(np.ones_like(y))
        inverse = layer({"W": -W}, x[:2])[0]
    rtol = 100 * np.finfo(dtype).eps
    assert y.dtype == dx.dtype == dparams["W"].dtype == dtype
    tiny = y[0, 0] / 2
    assert 0 < tiny < 1.01e-30
    np.testing.assert_allclose(y[:, 0], [2 * tiny, -2 * tiny, tiny**2], rtol=10 * rtol)
    np.testing.assert_allclose(inverse[:, 0] * tiny, [0.5, -0.5], rtol=10 * rtol)
    np.testing.assert_allclose(dx, [[0, tiny], [0, tiny], [0, 0]], rtol=10 * rtol, atol=float(tiny**2))


def test_tiny_factors_of_a_product_path_count_in_full():
    """Masses of particles in kilograms, and the constant of Planck."""
    layer, params = path_of(nn.ProductPath, [1, 1])
    x = np.array([[9.1e-31, 2.0], [6.6e-34, 1.0], [1e-20, 3.0]])
    np.testing.assert_allclose(layer(params, x)[0][:, 0], x.prod(axis=1), rtol=1e-12)


@settings(max_examples=80, deadline=None)
@given(inputs=sizes, outputs=sizes, rows=st.integers(1, 4), scale=st.booleans(), seed=seeds)
def test_the_gradients_of_the_product_path_are_the_closed_ones(inputs, outputs, rows, scale, seed):
    """With V = W and m = s |x|^V: dV = x-logs times dy c m, dx = dy c m V / x, dc = sum of dy m."""
    rng = np.random.default_rng(seed)
    layer = nn.ProductPath(inputs, outputs, scale=scale)
    V, x = rng.uniform(-2.2, 2.2, (inputs, outputs)), signed(rng, (rows, inputs))
    c = rng.normal(size=outputs) if scale else np.ones(outputs)
    y, vjp = layer({"W": V, "c": c} if scale else {"W": V}, x)
    dy = rng.normal(size=y.shape)
    odd = np.round(2 * V) % 4 == 2
    s = np.prod(np.where((x[:, :, None] < 0) & odd, -1.0, 1.0), axis=1)
    m = s * np.prod(np.abs(x)[:, :, None] ** V, axis=1)
    np.testing.assert_allclose(y, c * m, rtol=1e-12)
    dx, dparams = vjp(dy)
    dp = dy * c * m
    np.testing.assert_allclose(dparams["W"], np.log(np.abs(x)).T @ dp, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dx, (dp @ V.T) / x, rtol=1e-10, atol=1e-10)
    if scale:
        np.testing.assert_allclose(dparams["c"], np.sum(dy * m, axis=0), rtol=1e-11, atol=1e-11)
    assert dparams.keys() == layer.shapes().keys()


@settings(max_examples=60, deadline=None)
@given(inputs=sizes, outputs=sizes, rows=st.integers(1, 4), scale=st.booleans(), seed=seeds)
def test_the_gradients_of_the_sum_path_are_the_closed_ones(inputs, outputs, rows, scale, seed):
    rng = np.random.default_rng(seed)
    layer = nn.SumPath(inputs, outputs, scale=scale)
    W, x = rng.normal(size=(inputs, outputs)), rng.normal(size=(rows, inputs))
    c = rng.normal(size=outputs) if scale else np.ones(outputs)
    y, vjp = layer({"W": W, "c": c} if scale else {"W": W}, x)
    dy = rng.normal(size=y.shape)
    dx, dparams = vjp(dy)
    np.testing.assert_allclose(y, x @ W * c, rtol=1e-12)
    np.testing.assert_allclose(dx, dy @ (W * c).T, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(dparams["W"], x.T @ dy * c, rtol=1e-11, atol=1e-12)
    if scale:
        np.testing.assert_allclose(dparams["c"], np.sum(dy * (x @ W), axis=0), rtol=1e-11, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(inputs=sizes, outputs=sizes, scale=st.booleans(), seed=seeds)
def test_whole_powers_multiply_with_their_signs(inputs, outputs, scale, seed):
    """y(x x') = y(x) y(x') / c, and y(1/x) = c^2 / y(x), whatever the signs."""
    rng = np.random.default_rng(seed)
    layer = nn.ProductPath(inputs, outputs, scale=scale)
    params = {"W": rng.integers(-8, 9, (inputs, outputs)) / 2}
    c = 1.0
    if scale:
        c = params["c"] = rng.uniform(0.5, 2, outputs) * rng.choice([-1.0, 1.0], outputs)
    p, q = signed(rng, (3, inputs)), signed(rng, (3, inputs))
    y = layer(params, p)[0]
    np.testing.assert_allclose(layer(params, p * q)[0] * c, y * layer(params, q)[0], rtol=1e-11)
    np.testing.assert_allclose(layer(params, 1 / p)[0] * y, np.broadcast_to(c**2, y.shape), rtol=1e-11)


@pytest.mark.parametrize("unit", [nn.SumPath, nn.ProductPath])
@pytest.mark.parametrize(("inputs", "r"), [(2, 0.5), (23, 0.5), (95, 0.25), (599, 0.1)])
def test_paths_start_between_half_and_the_fans_with_a_constant_of_one(unit, inputs, r):
    params = unit(inputs, 4, scale=True).init(seed=3, replicas=9, dtype="float64")
    assert r == pytest.approx(min(0.5, math.sqrt(6 / (inputs + 1))))
    assert np.abs(params["W"]).max() < r
    assert_moments(params["W"], r * r / 3, r**4 / 5)
    np.testing.assert_array_equal(params["c"], np.ones((9, 4)))
    assert unit(inputs, 4).init().keys() == {"W"}


@pytest.mark.parametrize("unit", [nn.SumPath, nn.ProductPath])
def test_a_constant_is_of_each_output_and_each_replica(unit):
    layer = unit(2, 3, scale=True)
    params = {"W": np.full((2, 2, 3), 1.0), "c": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}
    x = np.array([[6.0, 3.0], [2.0, 5.0]])
    y, vjp = layer(params, x)
    one = np.array([9.0, 7.0]) if unit is nn.SumPath else np.array([18.0, 10.0])
    np.testing.assert_allclose(y, params["c"][:, None, :] * one[:, None])
    _, dparams = vjp(np.ones_like(y))
    np.testing.assert_allclose(dparams["c"], np.full((2, 3), one.sum()))
    none, alone = vjp(np.ones_like(y), need_dx=False)
    assert none is None
    assert alone["W"].tobytes() == dparams["W"].tobytes()


# --- the gate -------------------------------------------------------------------------------------------------


def nalu_point(kind, tied, seed=3, rows=5):
    layer, rng = nn.NALU(3, 2, gate=kind, tied=tied), np.random.default_rng(seed)
    return layer, uniform_params(layer, rng), signed(rng, (rows, 3))


def path_params(params, tied, path):
    return {name: params[name if tied else f"{name}_{path}"] for name in ("W_hat", "M_hat")}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", GATES)
def test_open_and_closed_gates_leave_a_nac_and_a_lognac(kind, tied):
    layer, params, x = nalu_point(kind, tied)
    x = np.abs(x)  # so that every z = x G has the sign of G
    a, _ = nn.NAC(3, 2)(path_params(params, tied, "a"), x)
    m, _ = nn.LogNAC(3, 2)(path_params(params, tied, "m"), x)
    params["G"] = np.full_like(params["G"], 1e4)
    np.testing.assert_allclose(layer(params, x)[0], a, rtol=1e-13)
    params["G"] = -params["G"]
    np.testing.assert_allclose(layer(params, x)[0], m, rtol=1e-13)
    params["G"] = np.zeros_like(params["G"])
    np.testing.assert_allclose(layer(params, x)[0], (a + m) / 2, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_open_gate_keeps_a_small_sum_beside_a_huge_product(dtype):
    """The sum of thirty tens is 300, though the product path of the same weights says 1e30."""
    layer = nn.NALU(30, 1, gate="independent")
    params = {**weights(np.ones((30, 1))), "G": np.array([SATURATED])}
    y, _ = layer({name: q.astype(dtype) for name, q in params.items()}, np.full((1, 30), 10, dtype))
    np.testing.assert_allclose(y, 300.0, rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("kind", ["matrix", "scalar"])
def test_gates_of_x_swap_the_paths_when_x_changes_sign(kind):
    layer, params, x = nalu_point(kind, True)
    g, flipped = layer.values(params, x)["g"], layer.values(params, -x)["g"]
    np.testing.assert_allclose(flipped, 1 - g, rtol=1e-12)
    assert g.shape == (5, 1 if kind == "scalar" else 2)
    assert np.all(layer.values(params, 0 * x)["g"] == 0.5)


def test_the_abs_gate_does_not_see_signs():
    layer, params, x = nalu_point("abs", True)
    np.testing.assert_array_equal(layer.values(params, -x)["g"], layer.values(params, x)["g"])
    assert np.all(layer.values(params, 0 * x)["g"] == 0.5)


def test_the_independent_gate_is_the_same_for_every_row():
    layer, params, x = nalu_point("independent", True)
    g = layer.values(params, x)["g"]
    assert g.shape == (1, 2)
    np.testing.assert_array_equal(layer.values(params, 100 * x)["g"], g)
    np.testing.assert_allclose(g[0], 1 / (1 + np.exp(-params["G"])), rtol=1e-14)


# --- the weights ----------------------------------------------------------------------------------------------

floats = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(W_hat=arrays(np.float64, (2, 3), elements=floats), M_hat=arrays(np.float64, (2, 3), elements=floats))
def test_weights_stay_between_minus_one_and_one(W_hat, M_hat):
    W, _ = vjps.nac_weight(W_hat, M_hat)
    assert np.all(np.abs(W) <= 1)
    assert np.all(W * np.sign(W_hat) >= 0)
    np.testing.assert_array_equal(W, nn.NAC(2, 3).values({"W_hat": W_hat, "M_hat": M_hat}, np.ones((1, 2)))["W"])


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("layer", [nn.NAC(2, 1), nn.LogNAC(2, 1), nn.NALU(2, 1)], ids=repr)
def test_weights_follow_their_parameters(layer, in_place):
    """W is computed at every call, from the parameters of that call."""
    params = {name: np.full(shape, SATURATED) for name, shape in layer.shapes().items()}
    x = np.array([[6.0, 3.0]])
    before, _ = layer(params, x)
    if in_place:
        params["W_hat"][1] = -SATURATED
    else:
        params = {**params, "W_hat": np.array([[SATURATED], [-SATURATED]])}
    after, _ = layer(params, x)
    expected = {"NAC": [9, 3], "LogNAC": [18, 2], "NALU": [9, 3]}[type(layer).__name__]
    np.testing.assert_allclose(np.ravel([before, after]), expected, rtol=1e-6)


# --- kinks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", GATES)
def test_at_zero_only_the_smooth_paths_reach_dx(kind, tied):
    """dx at x = 0 is that of the sum and of the gate of x; |x| contributes nothing."""
    layer, params, _ = nalu_point(kind, tied)
    x, dy = np.zeros((1, 3)), np.array([[1.0, -2.0]])
    y, vjp = layer(params, x)
    q = layer.values(params, x)
    expected = (dy * q["g"]) @ q["W" if tied else "W_a"].T
    if kind in ("matrix", "scalar"):  # g(1 - g) = 1/4
        dz = dy * (q["a"] - q["m"]) / 4
        expected = expected + (dz if kind == "matrix" else dz.sum(axis=1, keepdims=True)) @ params["G"].T
    np.testing.assert_allclose(vjp(dy)[0], expected, rtol=1e-12)
    assert y.shape == (1, 2)


# --- exact properties -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(inputs=sizes, outputs=sizes, c=st.floats(1e-3, 1e3), seed=seeds)
def test_the_sum_scales_with_its_input(inputs, outputs, c, seed):
    rng = np.random.default_rng(seed)
    layer = nn.NAC(inputs, outputs)
    params, x = uniform_params(layer, rng), signed(rng, (3, inputs))
    y, _ = layer(params, x)
    largest = np.abs(x) @ np.abs(layer.values(params, x)["W"])
    assert np.all(np.abs(layer(params, c * x)[0] - c * y) <= 1e-13 * c * largest)
    np.testing.assert_array_equal(layer(params, -x)[0], -y)
    np.testing.assert_array_equal(layer(params, 8 * x)[0], 8 * y)


@settings(max_examples=60, deadline=None)
@given(inputs=sizes, outputs=sizes, c=st.floats(0.1, 10), seed=seeds)
def test_the_product_multiplies_scales_and_ignores_signs(inputs, outputs, c, seed):
    rng = np.random.default_rng(seed)
    layer = nn.LogNAC(inputs, outputs, eps=1e-15)
    params, x1, x2 = uniform_params(layer, rng), signed(rng, (3, inputs)), signed(rng, (3, inputs))
    q = layer.values(params, x1)
    np.testing.assert_array_equal(layer(params, x1 * rng.choice([-1.0, 1.0], x1.shape))[0], q["y"])
    assert np.all(q["y"] > 0)
    np.testing.assert_allclose(layer(params, x1 * x2)[0], q["y"] * layer(params, x2)[0], rtol=1e-12)
    np.testing.assert_allclose(layer(params, c * x1)[0], c ** q["W"].sum(axis=0) * q["y"], rtol=1e-12)
    np.testing.assert_allclose(layer(params, 1 / x1)[0], 1 / q["y"], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(list(GATES)), tied=st.booleans(), inputs=sizes, outputs=sizes, seed=seeds)
def test_nalu_is_the_mixture_of_its_values(kind, tied, inputs, outputs, seed):
    """Every output lies between its two paths, where the gate puts it."""
    rng = np.random.default_rng(seed)
    layer = nn.NALU(inputs, outputs, gate=kind, tied=tied)
    params, x = uniform_params(layer, rng), signed(rng, (4, inputs))
    q = layer.values(params, x)
    slack = 1e-14 * (np.abs(q["a"]) + np.abs(q["m"]))
    assert np.all(np.minimum(q["a"], q["m"]) - slack <= q["y"])
    assert np.all(q["y"] <= np.maximum(q["a"], q["m"]) + slack)
    assert np.all(np.abs(q["g"] * q["a"] + (1 - q["g"]) * q["m"] - q["y"]) <= slack)
    # The order of the inputs does not matter, nor that of the outputs.
    order = rng.permutation(inputs)
    reordered = {name: q if name == "G" and kind == "independent" else q[order] for name, q in params.items()}
    np.testing.assert_allclose(layer(reordered, x[:, order])[0], q["y"], rtol=1e-11, atol=float(slack.max()))


# --- initial values -------------------------------------------------------------------------------------------


def ks_distance(sample, cdf):
    """sqrt(n) sup |F_n - F|, the statistic of Kolmogorov and Smirnov; above 2.2 once in 10,000 samples."""
    z = np.sort(sample.ravel())
    F, n = np.vectorize(cdf)(z), z.size
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * max(np.max(steps[1:] - F), np.max(F - steps[:-1]))


def assert_moments(sample, variance, fourth):
    """Mean 0 and the given variance, each within five of its standard errors."""
    n = sample.size
    assert abs(sample.mean()) < 5 * math.sqrt(variance / n)
    assert abs(sample.var() - variance) < 5 * math.sqrt((fourth - variance**2) / n)


def uniform_cdf(r):
    return lambda z: (z + r) / (2 * r)


@pytest.mark.parametrize("name", ["W_hat", "M_hat", "G"])
def test_uniform_draws_between_minus_two_and_two(name):
    q = nn.NALU(60, 50).init(seed=1, replicas=7, dtype="float64")[name]
    assert np.abs(q).max() < 2
    assert_moments(q, 4 / 3, 16 / 5)
    assert ks_distance(q, uniform_cdf(2)) < 2.2


def test_truncated_normal_draws_again_beyond_two_sigma():
    q = nn.NAC(60, 50, initializer="truncated_normal").init(seed=2, replicas=7, dtype="float64")["W_hat"] / 0.02
    phi, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    variance = 1 - 4 * phi / inside
    fourth = 3 * variance - 16 * phi / inside
    assert math.sqrt(variance) == pytest.approx(0.8796, abs=1e-4)
    assert np.abs(q).max() <= 2
    assert_moments(q, variance, fourth)
    assert ks_distance(q, lambda z: (math.erf(z / math.sqrt(2)) / inside + 1) / 2) < 2.2


@pytest.mark.parametrize(("inputs", "outputs"), [(60, 50), (4, 2)])
def test_glorot_uniform_has_variance_two_over_the_fans(inputs, outputs):
    layer = nn.Dense(inputs, outputs)
    params = layer.init(seed=3, replicas=21_000 // (inputs * outputs), dtype="float64")
    r = math.sqrt(6 / (inputs + outputs))
    assert np.abs(params["W"]).max() < r
    assert_moments(params["W"], 2 / (inputs + outputs), r**4 / 5)
    assert ks_distance(params["W"], uniform_cdf(r)) < 2.2
    assert np.all(params["b"] == 0)


@pytest.mark.parametrize(
    ("inputs", "outputs", "radius"), [(100, 2, 0.504), (20, 10, 1.025), (12, 2, 1.80), (11, 1, 2.07), (2, 1, 9.47)]
)
def test_madsen_johansen_draws_weights_of_glorot_variance(inputs, outputs, radius):
    fans = inputs + outputs
    r = nac_radius(fans)
    assert r == pytest.approx(radius, rel=3e-3)
    wanted = 2 / max(fans, 5)

    # The variance of the product that the radius claims, by quadrature: independent factors, the first of mean 0.
    nodes, masses = np.polynomial.legendre.leggauss(200)
    t2, s2 = np.tanh(r * nodes) ** 2, vjps.sigmoid(r * nodes) ** 2
    assert (t2 @ masses / 2) * (s2 @ masses / 2) == pytest.approx(wanted, rel=1e-9)
    fourth = (t2**2 @ masses / 2) * (s2**2 @ masses / 2)

    layer = nn.NAC(inputs, outputs, initializer="madsen_johansen")
    params = layer.init(seed=4, replicas=-(-20_000 // (inputs * outputs)), dtype="float64")
    W, _ = vjps.nac_weight(params["W_hat"], params["M_hat"])
    assert_moments(W, wanted, fourth)
    for q in params.values():
        assert ks_distance(q, uniform_cdf(r)) < 2.2


@pytest.mark.parametrize("kind", GATES)
def test_the_gate_of_madsen_johansen_is_glorot_uniform(kind):
    layer = nn.NALU(4, 3, gate=kind, initializer="madsen_johansen")
    params = layer.init(seed=5, replicas=5000, dtype="float64")
    fans = {"scalar": 5, "independent": 6}.get(kind, 7)
    assert ks_distance(params["G"], uniform_cdf(math.sqrt(6 / fans))) < 2.2
    assert ks_distance(params["W_hat"], uniform_cdf(nac_radius(7))) < 2.2


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_initial_values_are_one_stream_a_replica_in_the_order_of_the_shapes(initializer):
    layer = nn.NALU(3, 2, tied=False, initializer=initializer)
    params = layer.init(seed=9, replicas=4, dtype="float64")
    assert list(params) == ["W_hat_a", "M_hat_a", "W_hat_m", "M_hat_m", "G"]
    for r in range(4):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(9, spawn_key=(r, INIT))))
        for name, q in params.items():
            solved = initializer == "madsen_johansen" and name == "G"
            expected = INITIALIZERS["glorot_uniform" if solved else initializer](rng, (3, 2))
            np.testing.assert_array_equal(q[r], expected)
    values = np.concatenate([q.ravel() for q in params.values()])
    assert np.unique(values).size == values.size  # no two share a number


MODELS = [
    nn.NAC(2, 1),
    nn.LogNAC(3, 2, initializer="madsen_johansen"),
    nn.NALU(3, 2, gate="independent", initializer="truncated_normal"),
    nn.Dense(2, 3),
    nn.SumPath(3, 2),
    nn.ProductPath(2, 2),
    nn.chain(nn.NAC(2, 2), nn.NALU(2, 1)),
    nn.scan(nn.Accumulator(nn.NAC(2, 2))),
]


@pytest.mark.parametrize("layer", MODELS, ids=repr)
def test_a_replica_starts_the_same_whoever_is_beside_it(layer):
    many = layer.init(seed=6, replicas=20)
    for name, q in many.items():
        assert q.shape == (20, *layer.shapes()[name])
        assert q.dtype == np.float32
        np.testing.assert_array_equal(layer.init(seed=6, replicas=20)[name], q)
        np.testing.assert_array_equal(layer.init(seed=6, replicas=[17])[name], q[17:18])
        np.testing.assert_array_equal(layer.init(seed=6, replicas=[3, 0])[name], q[[3, 0]])
        np.testing.assert_array_equal(layer.init(seed=6, replicas=3)[name], q[:3])
        np.testing.assert_array_equal(layer.init(seed=6)[name], q[0])
        # One draw in float64, rounded: the precision does not change the stream.
        wide = layer.init(seed=6, replicas=20, dtype=np.float64)[name]
        assert wide.dtype == np.float64
        np.testing.assert_array_equal(wide.astype(np.float32), q)
    name = next(iter(many))
    assert not np.any(layer.init(seed=7, replicas=20)[name] == many[name])
    assert np.unique(many[name]).size == many[name].size


def test_initial_values_are_new_arrays_of_their_own():
    layer = nn.NAC(2, 1)
    first, second = layer.init(), layer.init()
    first["W_hat"][:] = 0
    assert np.all(second["W_hat"] != 0)
    assert all(q.flags.writeable and q.flags.c_contiguous for q in layer.init(replicas=3).values())


# --- options --------------------------------------------------------------------------------------------------


UNITS = [nn.NAC, nn.LogNAC, nn.NALU, nn.SumPath, nn.ProductPath, nn.Dense]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.__name__)
@pytest.mark.parametrize("size", [0, -1, 2.0, "2", None, True, np.ones(1)], ids=repr)
@pytest.mark.parametrize("name", ["in_features", "out_features"])
def test_sizes_are_integers_of_one_or_more(unit, name, size):
    with pytest.raises(OptionError, match=rf"^{unit.__name__}: {name} must be an integer >= 1, got ") as caught:
        unit(**{"in_features": 2, "out_features": 1, name: size})
    assert str(caught.value).endswith(f"got {size!r}")


@pytest.mark.parametrize(
    ("unit", "options", "words"),
    [
        (nn.NAC, {"initializer": "zeros"}, "NAC: initializer must be one of uniform, truncated_normal, "
         "glorot_uniform, madsen_johansen, normal, fan_in_uniform, got 'zeros'"),
        (nn.NALU, {"initializer": None}, "NALU: initializer must be one of"),
        (nn.LogNAC, {"initializer": 3}, "LogNAC: initializer must be one of"),
        (nn.Dense, {"initializer": "Uniform"}, "Dense: initializer must be one of"),
        (nn.NALU, {"gate": "vector"}, "NALU: gate must be one of matrix, scalar, abs, independent, got 'vector'"),
        (nn.NALU, {"gate": ["abs"]}, "NALU: gate must be one of"),
        (nn.NALU, {"tied": 1}, "NALU: tied must be True or False, got 1"),
        (nn.NALU, {"tied": None}, "NALU: tied must be True or False, got None"),
        (nn.SumPath, {"scale": 1}, "SumPath: scale must be True or False, got 1"),
        (nn.ProductPath, {"scale": None}, "ProductPath: scale must be True or False, got None"),
        (nn.Dense, {"bias": 0}, "Dense: bias must be True or False, got 0"),
        (nn.Dense, {"activation": "gelu"}, "Dense: activation must be one of identity, relu, relu6, tanh, "
         "sigmoid, hardtanh, softsign, threshold, elu, selu, softshrink, hardshrink, tanhshrink, leakyrelu, "
         "softplus, prelu, crelu, got 'gelu'"),
        *(
            (unit, {"eps": eps}, f"{unit.__name__}: eps must be a number with 0 < eps < 1, got {eps!r}")
            for unit in (nn.LogNAC, nn.NALU)
            for eps in (0, 0.0, -1e-7, 1, 1.5, math.nan, math.inf, "1e-7", None, True, 1j)
        ),
    ],
)  # fmt: skip
def test_options_outside_their_choices_are_named(unit, options, words):
    with pytest.raises(OptionError) as caught:
        unit(2, 1, **options)
    assert str(caught.value).startswith(words)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.__name__)
def test_options_are_keywords(unit):
    with pytest.raises(TypeError):
        unit(2, 1, "uniform")


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None], ids=repr)
def test_the_seed_is_an_integer(seed):
    with pytest.raises(OptionError, match="init: seed must be an integer >= 0, got"):
        nn.NAC(2, 1).init(seed=seed)


def test_init_refuses_other_dtypes_and_no_replicas():
    with pytest.raises(OptionError, match="float32 or float64, got 'float16'"):
        nn.NAC(2, 1).init(dtype="float16")
    with pytest.raises(OptionError, match="replicas"):
        nn.NAC(2, 1).init(replicas=0)
