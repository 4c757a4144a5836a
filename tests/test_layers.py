"""Dense with every activation: closed forms, kinks and ends; PReLU's slope, CReLU's columns; how b is drawn."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np import vjps
from nalu_np.errors import OptionError
from nalu_np.layers.dense import CHOICES

seeds = st.integers(0, 2**32 - 1)

# --- closed forms ---------------------------------------------------------------------------------------------

#: Value and slope away from kinks, for a number z of many digits.
EXACT = {
    "identity": (lambda z: z, lambda z: 1),
    "relu": (lambda z: max(z, 0), lambda z: z > 0),
    "relu6": (lambda z: min(max(z, 0), 6), lambda z: 0 < z < 6),
    "tanh": (mpmath.tanh, lambda z: mpmath.sech(z) ** 2),
    "sigmoid": (lambda z: 1 / (1 + mpmath.exp(-z)), lambda z: 1 / (2 + mpmath.exp(z) + mpmath.exp(-z))),
    "hardtanh": (lambda z: min(max(z, -1), 1), lambda z: -1 < z < 1),
    "softsign": (lambda z: z / (1 + abs(z)), lambda z: 1 / (1 + abs(z)) ** 2),
    "threshold": (lambda z: z if z > 1 else 0, lambda z: z > 1),
    "elu": (lambda z: z if z > 0 else mpmath.expm1(z), lambda z: 1 if z > 0 else mpmath.exp(z)),
    "selu": (
        lambda z: SCALE * (z if z > 0 else ALPHA * mpmath.expm1(z)),
        lambda z: SCALE * (1 if z > 0 else ALPHA * mpmath.exp(z)),
    ),
    "softshrink": (lambda z: z - mpmath.sign(z) / 2 if abs(z) > 0.5 else 0, lambda z: abs(z) > 0.5),
    "hardshrink": (lambda z: z if abs(z) > 0.5 else 0, lambda z: abs(z) > 0.5),
    "tanhshrink": (lambda z: z - mpmath.tanh(z), lambda z: mpmath.tanh(z) ** 2),
    "leakyrelu": (lambda z: z if z > 0 else z / mpmath.mpf(100), lambda z: 1 if z > 0 else mpmath.mpf("0.01")),
    "softplus": (lambda z: mpmath.log1p(mpmath.exp(z)), lambda z: 1 / (1 + mpmath.exp(-z))),
}


def selu_constants():
    """The two numbers for which mean 0 and variance 1 of a normal z are those of y, by solving for them."""
    with mpmath.workdps(30):
        root = mpmath.sqrt(mpmath.mpf(1) / 2)
        phi, half = 1 / mpmath.sqrt(2 * mpmath.pi), mpmath.mpf(1) / 2
        below = mpmath.exp(half) * mpmath.erfc(root) / 2  # E[exp(z); z < 0]
        below_twice = mpmath.exp(2) * mpmath.erfc(2 * root) / 2  # E[exp(2 z); z < 0]
        alpha = phi / (half - below)
        return alpha, 1 / mpmath.sqrt(half + alpha**2 * (below_twice - 2 * below + half))


ALPHA, SCALE = selu_constants()
KINKS = {
    "relu": [0], "relu6": [0, 6], "hardtanh": [-1, 1], "threshold": [1], "selu": [0], "softshrink": [-0.5, 0.5],
    "hardshrink": [-0.5, 0.5], "leakyrelu": [0],
}  # fmt: skip
POINTS = np.concatenate([np.linspace(-12.3, 12.1, 173), np.geomspace(1e-6, 70, 40), -np.geomspace(1e-6, 70, 40)])


def test_every_activation_has_a_closed_form():
    assert EXACT.keys() == vjps.ACTIVATIONS.keys()
    assert set(CHOICES) == {*EXACT, "prelu", "crelu"}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", EXACT)
def test_values_and_slopes_are_the_closed_ones_everywhere(name, dtype):
    z = POINTS.astype(dtype)
    with mpmath.workdps(40), np.errstate(all="raise", under="ignore"):
        y, vjp = vjps.ACTIVATIONS[name](z)
        slope = vjp(np.ones_like(z))
        exact = [[float(f(mpmath.mpf(float(q)))) for q in z] for f in EXACT[name]]
    eps = np.finfo(dtype).eps
    assert y.dtype == slope.dtype == dtype
    # Where two terms cancel, the error is that of the terms: tanhshrink near 0, 1 - tanh^2 far out.
    slack = {"tanhshrink": np.abs(z).astype(float)}.get(name, 0.0)
    assert np.all(np.abs(y - exact[0]) <= 4 * eps * (np.abs(exact[0]) + slack))
    assert np.all(np.abs(slope - exact[1]) <= 8 * eps * (np.abs(exact[1]) + (name in ("tanh", "sigmoid"))))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*EXACT, "prelu", "crelu"])
def test_no_z_is_too_large(name, dtype):
    """Finite values and slopes without a warning, up to where squares overflow."""
    z = np.array([[1e18, -1e18, 750, -750, 90, -90, 0, -0.0, 1e-30]], dtype)
    block = {"prelu": lambda z: vjps.prelu(z, np.array([0.25], dtype)), "crelu": vjps.crelu}.get(name)
    with np.errstate(all="raise", under="ignore"):
        y, vjp = (block or vjps.ACTIVATIONS[name])(z)
        dz = vjp(np.ones_like(y))
    for found in (y, *(dz if name == "prelu" else [dz])):
        assert found.dtype == dtype
        assert np.all(np.isfinite(found))


@pytest.mark.parametrize("name", EXACT)
def test_a_kink_has_the_slope_of_its_lower_or_flat_side(name):
    """As in PyTorch, at every kink and jump; nowhere is it an average."""
    for kink in KINKS.get(name, []):
        z = np.nextafter(kink, [-9.0, kink, 9.0])
        below, at, above = vjps.ACTIVATIONS[name](z)[1](np.ones(3))
        assert below != above
        assert at == (min(below, above) if min(below, above) == 0 else below)
    smooth = [q for q in np.linspace(-7, 7, 29) if q not in KINKS.get(name, [])]
    near = np.array(smooth) + np.array([[-1e-9], [1e-9]])
    below, above = vjps.ACTIVATIONS[name](near)[1](np.ones_like(near))
    np.testing.assert_allclose(below, above, atol=1e-8)


def test_a_jump_belongs_to_the_flat_side():
    np.testing.assert_array_equal(vjps.threshold(np.array([0.5, 1, 1.5]))[0], [0, 0, 1.5])
    np.testing.assert_array_equal(vjps.hardshrink(np.array([-0.6, -0.5, 0.5, 0.6]))[0], [-0.6, 0, 0, 0.6])


@settings(max_examples=40, deadline=None)
@given(z=st.floats(-50, 50))
def test_activations_are_what_they_are_of_each_other(z):
    """Odd and even parts, shifts and limits: relations that no closed form above is written with."""
    z = np.array([z])

    def f(name, q=z):
        return vjps.ACTIVATIONS[name](q)[0]

    np.testing.assert_array_equal(f("relu") - f("relu", -z), z)
    np.testing.assert_allclose(f("softplus") - f("softplus", -z), z, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(f("tanhshrink") + f("tanh"), z, rtol=1e-14)
    np.testing.assert_allclose(f("hardtanh"), f("relu6", 3 * z + 3) / 3 - 1, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(f("softshrink") + np.clip(z, -0.5, 0.5), z, rtol=1e-14)
    np.testing.assert_allclose(vjps.softplus(z)[1](np.ones(1)), f("sigmoid"), rtol=1e-14)
    np.testing.assert_array_equal(f("leakyrelu"), vjps.prelu(z[:, None], np.array([0.01]))[0][:, 0])
    for odd in ("softsign", "hardshrink", "softshrink", "tanhshrink", "hardtanh", "tanh"):
        np.testing.assert_array_equal(f(odd, -z), -f(odd))


# --- prelu and crelu ------------------------------------------------------------------------------------------


def test_prelu_learns_one_slope_a_layer():
    layer = nn.Dense(1, 3, activation="prelu")
    assert layer.shapes() == {"W": (1, 3), "b": (3,), "alpha": (1,)}
    np.testing.assert_array_equal(layer.init(replicas=4)["alpha"], np.full((4, 1), 0.25))
    assert "alpha" not in nn.Dense(1, 3).shapes()
    params = {"alpha": np.array([0.5]), "b": np.zeros(3), "W": np.array([[1.0, -1.0, 0.0]])}  # in any order
    y, vjp = layer(params, np.array([[2.0], [-3.0]]))
    np.testing.assert_array_equal(y, [[2, -1, 0], [-1.5, 3, 0]])
    dx, dparams = vjp(np.array([[1.0, 10.0, 100.0], [1000.0, 1e4, 1e5]]))
    np.testing.assert_array_equal(dparams["alpha"], [-2 * 10 - 3 * 1000])
    np.testing.assert_array_equal(dparams["b"], [1 + 500, 5 + 1e4, 50 + 5e4])  # z = 0 has slope alpha
    np.testing.assert_array_equal(dx, [[1 - 5], [500 - 1e4]])


@settings(max_examples=40, deadline=None)
@given(seed=seeds, stacked_z=st.booleans(), stacked_alpha=st.booleans(), rows=st.integers(0, 3))
def test_prelu_sums_over_what_its_slope_is_shared_by(seed, stacked_z, stacked_alpha, rows):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(2, rows, 3) if stacked_z else (rows, 3))
    alpha = rng.normal(size=(2, 1) if stacked_alpha else (1,))
    y, vjp = vjps.prelu(z, alpha)
    dy = rng.normal(size=y.shape)
    dz, dalpha = vjp(dy)
    assert (dz.shape, dalpha.shape) == (z.shape, alpha.shape)
    # The value is linear in alpha and, at a fixed sign, in z: the gradients are differences.
    for q, dq, moved in (
        (alpha, dalpha, lambda step: vjps.prelu(z, alpha + step)[0]),
        (z, dz, lambda step: vjps.prelu(z + step, alpha)[0]),
    ):
        for index in np.ndindex(q.shape):
            step = np.zeros_like(q)
            step[index] = 1e-3 * min(1.0, np.abs(z[index]) if q is z else 1.0)
            slope = np.sum(dy * (moved(step) - y)) / step[index]
            assert slope == pytest.approx(dq[index], rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, inputs=st.integers(1, 4), units=st.integers(1, 3), bias=st.booleans())
def test_crelu_is_two_relu_layers_side_by_side(seed, inputs, units, bias):
    rng = np.random.default_rng(seed)
    layer, half = nn.Dense(inputs, 2 * units, activation="crelu", bias=bias), nn.Dense(inputs, units, bias=bias)
    relu = nn.Dense(inputs, units, activation="relu", bias=bias)
    assert layer.shapes() == half.shapes()
    params, x = {n: rng.normal(size=s) for n, s in layer.shapes().items()}, rng.normal(size=(5, inputs))
    y, vjp = layer(params, x)
    sides = [relu(sign, x) for sign in (params, {name: -q for name, q in params.items()})]
    np.testing.assert_array_equal(y, np.concatenate([side[0] for side in sides], axis=1))
    np.testing.assert_array_equal(y[:, :units] - y[:, units:], half(params, x)[0])
    dy = rng.normal(size=y.shape)
    dx, dparams = vjp(dy)
    (dx_up, up), (dx_down, down) = sides[0][1](dy[:, :units]), sides[1][1](dy[:, units:])
    np.testing.assert_allclose(dx, dx_up + dx_down, rtol=1e-12, atol=1e-12)
    for name, dq in dparams.items():
        np.testing.assert_allclose(dq, up[name] - down[name], rtol=1e-12, atol=1e-12)


def test_crelu_has_slope_zero_at_zero():
    y, vjp = vjps.crelu(np.array([[0.0, -2.0, 3.0]]))
    np.testing.assert_array_equal(y, [[0, 0, 3, 0, 2, 0]])
    np.testing.assert_array_equal(vjp(np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])), [[0, -5, 3]])


def test_crelu_refuses_an_odd_number_of_outputs():
    with pytest.raises(OptionError) as caught:
        nn.Dense(3, 5, activation="crelu")
    assert str(caught.value).endswith("so out_features must be even, got 5")


@pytest.mark.parametrize("activation", CHOICES)
def test_every_activation_trains(activation):
    x = np.linspace(-1, 1, 32)[:, None]
    model = nn.chain(nn.Dense(1, 8, activation=activation, initializer="fan_in_uniform"), nn.Dense(8, 1))
    result = nn.fit(model, x, x, steps=200, every=50, optimizer=nn.Adam(lr=0.01), replicas=2)
    first, *_, last = result.history["loss"].mean(axis=1)
    assert last < 0.75 * first
    if activation == "prelu":
        assert np.all(result.params["0.alpha"] != 0.25)


# --- how they start -------------------------------------------------------------------------------------------


def test_the_normal_initializer_has_mean_0_and_variance_1():
    W = nn.NAC(50, 40, initializer="normal").init(seed=1, replicas=10, dtype="float64")["W_hat"]
    n = W.size
    assert abs(W.mean()) < 5 / math.sqrt(n)
    assert abs(W.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((np.abs(W) < 1).mean() - math.erf(math.sqrt(0.5))) < 5 * math.sqrt(0.25 / n)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 8), (16, 3), (100, 2)])
def test_fan_in_uniform_draws_b_as_w_between_plus_and_minus_one_over_root_i(inputs, outputs):
    layer = nn.Dense(inputs, outputs, initializer="fan_in_uniform")
    params = layer.init(seed=2, replicas=4000, dtype="float64")
    r = 1 / math.sqrt(inputs)
    for q in params.values():
        assert 0.99 * r < np.abs(q).max() < r
        assert abs(q.mean()) < 5 * r / math.sqrt(3 * q.size)
        assert q.var() == pytest.approx(r * r / 3, rel=5 * math.sqrt(0.8 / q.size))
    assert np.unique(np.concatenate([q.ravel() for q in params.values()])).size == 4000 * (inputs + 1) * outputs


def test_b_starts_at_zero_with_any_other_initializer():
    for initializer in ("uniform", "normal", "glorot_uniform"):
        assert not nn.Dense(3, 2, initializer=initializer).init(replicas=3)["b"].any()
