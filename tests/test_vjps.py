"""The blocks alone: values, kinks, broadcasting, precision, and a vjp that neither writes nor remembers."""

import functools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nalu_np import vjps

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)


def signed(rng, shape, low=0.5, high=4.0):
    return rng.uniform(low, high, shape) * rng.choice([-1.0, 1.0], shape)


# --- values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sigmoid_is_accurate_everywhere_and_never_warns(dtype):
    x = np.concatenate([np.linspace(-750, 750, 3001), np.linspace(-1, 1, 201), [-80.0, -0.0]]).astype(dtype)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        s = vjps.sigmoid(x)
    assert s.dtype == dtype
    exact = np.array([float(1 / (1 + mpmath.exp(-mpmath.mpf(float(q))))) for q in x])
    near = x >= -80
    np.testing.assert_allclose(s[near], exact[near], rtol=4 * np.finfo(dtype).eps)
    assert np.all(np.abs(s[~near] - exact[~near]) < 2e-35)
    assert np.all(s[~near] == s[x == -80.0][0])
    assert s[x == 0][0] == 0.5
    assert np.all(s[x > 40] == 1)


@settings(max_examples=60, deadline=None)
@given(inputs=sizes, outputs=sizes, rows=st.integers(1, 5), eps=st.sampled_from([1e-7, 1e-3, 0.5]), seed=seeds)
def test_log_product_is_a_product_of_powers(inputs, outputs, rows, eps, seed):
    rng = np.random.default_rng(seed)
    x, W = signed(rng, (rows, inputs)), rng.uniform(-1.0, 1.0, (inputs, outputs))
    m, _ = vjps.log_product(x, W, eps=eps)
    expected = np.prod((np.abs(x)[:, :, None] + eps) ** W, axis=1)
    np.testing.assert_allclose(m, expected, rtol=1e-13)


@settings(max_examples=100, deadline=None)
@given(
    inputs=sizes, outputs=sizes, rows=st.integers(1, 5), seed=seeds, dtype=st.sampled_from(["float32", "float64"])
)
def test_parity_is_the_sign_of_the_product_of_rounded_powers(inputs, outputs, rows, seed, dtype):
    rng = np.random.default_rng(seed)
    x = (signed(rng, (rows, inputs)) * rng.integers(0, 4, (rows, inputs)).astype(bool)).astype(dtype)
    halves = rng.integers(-12, 13, (inputs, outputs))
    W = (halves / 2 + rng.uniform(-0.24, 0.24, (inputs, outputs))).astype(dtype)
    s = vjps.parity(x, W)
    # One factor after the other: an odd whole power of a negative number turns the sign, nothing else does.
    expected = np.ones((rows, outputs))
    for b in range(rows):
        for o in range(outputs):
            for i in range(inputs):
                if halves[i, o] % 4 == 2 and x[b, i] < 0:
                    expected[b, o] *= -1
    np.testing.assert_array_equal(s, expected)
    assert s.dtype == dtype


@pytest.mark.parametrize(
    ("W", "turns"),
    [
        (0, False), (0.5, False), (0.74, False), (0.75, True), (1, True), (1.24, True), (1.25, False),
        (1.5, False), (2, False), (2.5, False), (3, True), (4, False), (5, True), (-1, True), (-0.75, True),
        (-1.25, False), (-2, False), (-3, True), (-0.5, False), (1001, True), (1e15, False),
    ],
)  # fmt: skip
def test_parity_jumps_in_the_middle_between_multiples_of_a_half(W, turns):
    x = np.array([[-3.0], [0.0], [-0.0], [3.0], [-1e-300]])
    s = vjps.parity(x, np.array([[W]], dtype=float))
    np.testing.assert_array_equal(s[:, 0], [-1 if turns else 1, 1, 1, 1, -1 if turns else 1])


def test_parity_of_many_factors_in_float32():
    x, W = -np.ones((1, 4001), "float32"), np.ones((4001, 1), "float32")
    assert vjps.parity(x, W).item() == -1
    assert vjps.parity(x[:, 1:], W[1:]).item() == 1


def test_parity_broadcasts_replicas():
    x = np.array([[-2.0, 3.0], [2.0, -3.0]])
    W = np.array([[[1.0], [0.5]], [[2.0], [1.0]]])
    assert vjps.parity(x, W)[..., 0].tolist() == [[-1, 1], [1, -1]]
    assert vjps.parity(x[None, :1], W[0]).tolist() == [[[-1]]]


def test_mix_goes_from_one_path_to_the_other():
    a, m = np.array([[2.0, 3.0]]), np.array([[10.0, -5.0]])
    for g, y in [(0.0, m), (0.25, 0.25 * a + 0.75 * m), (0.5, (a + m) / 2), (1.0, a)]:
        np.testing.assert_array_equal(vjps.mix(np.full((1, 2), g), a, m)[0], y)
        np.testing.assert_array_equal(vjps.mix(np.full((1, 1), g), a, m)[0], y)


@pytest.mark.parametrize(
    ("activation", "z", "y", "slope"),
    [
        ("identity", [-1, 0, 1], [-1, 0, 1], [1, 1, 1]),
        ("relu", [-1, -0.0, 0, 1e-300, 7], [0, 0, 0, 1e-300, 7], [0, 0, 0, 1, 1]),
        ("relu6", [-1, -0.0, 0, 3, 6, 7], [0, 0, 0, 3, 6, 6], [0, 0, 0, 1, 0, 0]),
        ("tanh", [0, 40, -40], [0, 1, -1], [1, 0, 0]),
        ("sigmoid", [0, 40], [0.5, 1], [0.25, 0]),
    ],
)
def test_activations_at_their_kinks_and_ends(activation, z, y, slope):
    z = np.array(z, dtype=float)
    value, vjp = vjps.ACTIVATIONS[activation](z)
    np.testing.assert_array_equal(value, y)
    dy = np.arange(1.0, 1.0 + len(z))
    np.testing.assert_array_equal(vjp(dy), dy * slope)


def test_losses_are_means_of_each_replica():
    y = np.array([[[1.0, 2.0], [3.0, 5.0]], [[0.0, 0.0], [0.0, -4.0]]])
    target = np.array([[1.0, 1.0], [1.0, 1.0]])  # shared by the replicas
    squared, squared_vjp = vjps.mse(y, target)
    absolute, absolute_vjp = vjps.mae(y, target)
    np.testing.assert_array_equal(squared, [21 / 4, 28 / 4])
    np.testing.assert_array_equal(absolute, [7 / 4, 8 / 4])
    dloss = np.array([2.0, -1.0])
    np.testing.assert_array_equal(squared_vjp(dloss), np.array([[[0, 1], [2, 4]], [[0.5, 0.5], [0.5, 2.5]]]))
    np.testing.assert_array_equal(
        absolute_vjp(dloss), np.array([[[0, 0.5], [0.5, 0.5]], [[0.25, 0.25], [0.25, 0.25]]])
    )


# --- kinks ----------------------------------------------------------------------------------------------------


def test_the_product_has_slope_zero_at_zero():
    x, W = np.array([[0.0, 2.0], [-0.0, -2.0], [0.0, 0.0]]), np.array([[1.0], [1.0]])
    _, vjp = vjps.log_product(x, W, eps=1e-3)
    dx, dW = vjp(np.ones((3, 1)))
    np.testing.assert_allclose(dx, [[0, 1e-3], [0, -1e-3], [0, 0]], rtol=1e-12)
    # dW has no kink: it goes on as for any other x.
    m = (np.abs(x) + 1e-3).prod(axis=1)
    np.testing.assert_allclose(dW, np.log(np.abs(x) + 1e-3).T @ m[:, None], rtol=1e-12)


def test_the_abs_gate_has_slope_zero_at_zero():
    G = np.array([[1.0], [2.0]])
    _, vjp = vjps.abs_gate(np.array([[0.0, 0.0], [0.0, -1.0]]), G)
    dx, dG = vjp(np.ones((2, 1)))
    slope = vjps.sigmoid(np.array(2.0)) * vjps.sigmoid(np.array(-2.0))
    np.testing.assert_allclose(dx, [[0, 0], [0, -2 * slope]], rtol=1e-14)
    np.testing.assert_allclose(dG, [[0], [slope]], rtol=1e-14)


# --- broadcasting ---------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(shape=st.lists(st.integers(1, 4), max_size=4), data=st.data())
def test_unbroadcast_sums_where_broadcasting_repeated(shape, data):
    """It is the adjoint of broadcasting: sum(dq * q) = sum(dQ * Q) for Q = q repeated."""
    missing = data.draw(st.integers(0, len(shape)))
    own = tuple(data.draw(st.sampled_from([1, size])) for size in shape[missing:])
    rng = np.random.default_rng(len(shape))
    q, dQ = rng.integers(-9, 9, own).astype(float), rng.integers(-9, 9, shape).astype(float)
    dq = vjps.unbroadcast(dQ, q)
    assert dq.shape == q.shape
    assert np.sum(dq * q) == np.sum(dQ * q)
    if own == tuple(shape):
        assert dq is dQ


def test_unbroadcast_of_nothing_is_zero():
    np.testing.assert_array_equal(vjps.unbroadcast(np.ones((0, 2)), np.ones((1, 2))), np.zeros((1, 2)))
    assert vjps.unbroadcast(np.ones((3, 0, 2)), np.ones((0, 2))).shape == (0, 2)


# --- what every block promises --------------------------------------------------------------------------------

S, B, I, O = 3, 4, 3, 2  # noqa: E741
log_product = functools.partial(vjps.log_product, eps=1e-3)
BLOCKS = {
    "nac_weight": (vjps.nac_weight, [(S, I, O), (S, I, O)]),
    "linear": (vjps.linear, [(S, B, I), (S, I, O)]),
    "linear, x shared": (vjps.linear, [(B, I), (S, I, O)]),
    "linear, W shared": (vjps.linear, [(S, B, I), (I, O)]),
    "log_product": (log_product, [(S, B, I), (S, I, O)]),
    "log_product, x shared": (log_product, [(B, I), (S, I, O)]),
    "gate": (vjps.gate, [(S, B, I), (S, I, O)]),
    "gate, scalar": (vjps.gate, [(B, I), (S, I, 1)]),
    "abs_gate": (vjps.abs_gate, [(S, B, I), (S, I, O)]),
    "abs_gate, G shared": (vjps.abs_gate, [(S, B, I), (I, O)]),
    "independent_gate": (vjps.independent_gate, [(S, B, I), (S, O)]),
    "mix": (vjps.mix, [(S, B, O)] * 3),
    "mix, scalar": (vjps.mix, [(S, B, 1), (S, B, O), (S, B, O)]),
    "mix, independent": (vjps.mix, [(S, 1, O), (S, B, O), (S, B, O)]),
    **{name: (activation, [(S, B, O)]) for name, activation in vjps.ACTIVATIONS.items()},
    "mse": (vjps.mse, [(S, B, O), (B, O)]),
    "mae": (vjps.mae, [(S, B, O), (S, B, O)]),
}
with_data = {name for name in BLOCKS if name.startswith(("linear", "log_product", "gate", "abs", "independent"))}
every_block = pytest.mark.parametrize("name", BLOCKS)


def draw(name, dtype, seed=5):
    rng = np.random.default_rng(seed)
    block, shapes = BLOCKS[name]
    given = [signed(rng, shape).astype(dtype) for shape in shapes]
    for q in given:
        q.setflags(write=False)
    value, vjp = block(*given)
    dvalue = rng.normal(size=value.shape).astype(dtype)
    dvalue.setflags(write=False)
    return given, value, vjp, dvalue


def gradients(answer):
    return answer if isinstance(answer, tuple) else (answer,)


@every_block
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_have_the_shape_and_precision_of_their_arguments(name, dtype):
    given, value, vjp, dvalue = draw(name, dtype)
    assert value.dtype == dtype
    found = gradients(vjp(dvalue))
    for q, dq in zip(given, found, strict=name not in vjps.LOSSES):  # a target has no gradient
        assert (dq.shape, dq.dtype) == (q.shape, dtype)


@every_block
def test_float32_is_near_float64(name):
    _, value, vjp, dvalue = draw(name, np.float32)
    _, exact, exact_vjp, exact_dvalue = draw(name, np.float64)
    np.testing.assert_allclose(value, exact, rtol=2e-5, atol=2e-5)
    for dq, exact_dq in zip(gradients(vjp(dvalue)), gradients(exact_vjp(exact_dvalue)), strict=True):
        assert np.max(np.abs(dq - exact_dq)) <= 2e-5 * np.max(np.abs(exact_dq), initial=1.0)


@every_block
def test_a_vjp_gives_the_same_bits_twice_and_is_linear(name):
    _, value, vjp, dvalue = draw(name, np.float64)
    kept = value.tobytes()
    first, second, doubled = vjp(dvalue), vjp(dvalue), vjp(2 * dvalue)
    for p, q, twice in zip(gradients(first), gradients(second), gradients(doubled), strict=True):
        assert p.tobytes() == q.tobytes()
        assert twice.tobytes() == (2 * p).tobytes()
    assert not any(np.any(dq) for dq in gradients(vjp(np.zeros_like(value))))
    assert value.tobytes() == kept


@pytest.mark.parametrize("name", sorted(with_data))
def test_dx_is_spared_on_request(name):
    _, _, vjp, dvalue = draw(name, np.float64)
    dx, dW = vjp(dvalue)
    none, alone = vjp(dvalue, False)
    assert dx is not None
    assert none is None
    assert alone.tobytes() == dW.tobytes()
