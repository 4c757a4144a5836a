"""The protocol: what a call refuses and promises, combinators, descriptions, views, and layers of one's own."""

import json
import pickle
import re
from dataclasses import KW_ONLY, dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np.errors import DTypeError, ModelFileError, NaluError, OptionError, ParameterError, ShapeError
from nalu_np.layer import REGISTRY, Cell, Layer, flatten, from_config, overrides, views
from nalu_np.vjps import unbroadcast


@dataclass(frozen=True, repr=False)
class Scale(Layer):
    """y = c x: a layer of one's own."""

    def shapes(self):
        return {"c": (self.in_features,)}

    def draw(self, name, rng):
        return rng.uniform(0.5, 1.5, self.in_features)

    def forward(self, params, x, *, rng=None, train=False, keep=None):
        c = params["c"][..., None, :]

        def vjp(dy, need_dx=True):
            dc = unbroadcast((dy * x).sum(axis=-2), params["c"])
            return (unbroadcast(dy * c, x) if need_dx else None), {"c": dc}

        return c * x, vjp


@dataclass(frozen=True, repr=False)
class Tamed(Scale):
    """Scale with a regulariser that starts late, its mean of c x^2, and with c held at 1 or below."""

    _: KW_ONLY
    start: int = 1

    def penalty(self, params, x, step):
        if step < self.start:
            return None
        terms = params["c"] * (x * x).mean(axis=-2)
        return terms.sum(axis=-1), {"c": np.broadcast_to((x * x).mean(axis=-2), terms.shape)}

    def project(self, params):
        return {"c": np.minimum(params["c"], 1.0)}


COMBINED = [
    nn.chain(nn.NAC(3, 2), nn.NALU(2, 2, tied=False), nn.Dense(2, 1, activation="tanh")),
    nn.chain(nn.NAC(3, 2), nn.chain(nn.LogNAC(2, 2), nn.NAC(2, 2))),
    nn.scan(nn.Accumulator(nn.NAC(3, 2))),
    nn.chain(nn.scan(nn.Accumulator(nn.NALU(3, 2, gate="abs"))), nn.scan(nn.Accumulator(nn.Dense(2, 1)))),
]
# What the registry's classes offer as examples; a cell is checked as the layer that scan makes of it.
EXAMPLES = [
    example if isinstance(example, Layer) else nn.scan(example)
    for cls in REGISTRY.values()
    for example in cls.examples()
]
LAYERS = [*EXAMPLES, *COMBINED, nn.chain(nn.NAC(3, 3), Scale(3, 3))]

every_layer = pytest.mark.parametrize("layer", LAYERS, ids=repr)

seeds = st.integers(0, 2**32 - 1)


def draw_params(layer, rng, replicas=None, dtype=np.float64):
    lead = () if replicas is None else (replicas,)
    return {name: rng.uniform(-1.5, 1.5, lead + shape).astype(dtype) for name, shape in layer.shapes().items()}


def draw_x(layer, rng, replicas=None, rows=4, steps=3, dtype=np.float64):
    lead = () if replicas is None else (replicas,)
    axes = (rows,) if layer.rank == 2 else (steps, rows)
    x = rng.uniform(0.2, 2.0, (*lead, *axes, layer.in_features))
    return (x * rng.choice([-1.0, 1.0], x.shape)).astype(dtype)


def draw_dy(y, rng):
    return rng.normal(size=y.shape).astype(y.dtype)


def same_bits(left, right):
    """Whether two answers (dx, dparams) of a vjp agree to the bit."""
    assert left[1].keys() == right[1].keys()
    pairs = [(left[0], right[0]), *((left[1][name], right[1][name]) for name in left[1])]
    return all(p.shape == q.shape and p.dtype == q.dtype and p.tobytes() == q.tobytes() for p, q in pairs)


# --- what a call refuses --------------------------------------------------------------------------------------


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


GOOD = {"W_hat": ones(2, 1), "M_hat": ones(2, 1)}
STACKED = {"W_hat": ones(3, 2, 1), "M_hat": ones(3, 2, 1)}


ROWS = "expected (B, I=2) or the same with S in front"


def cast(dtype):
    return {name: q.astype(dtype) for name, q in GOOD.items()}


@pytest.mark.parametrize(
    ("params", "x", "error", "words"),
    [
        ({}, ones(5, 2), ParameterError, "expected parameters W_hat, M_hat; missing: M_hat, W_hat"),
        ({"W_hat": ones(2, 1)}, ones(5, 2), ParameterError, "expected parameters W_hat, M_hat; missing: M_hat"),
        ({**GOOD, "G": ones(2, 1)}, ones(5, 2), ParameterError, "expected parameters W_hat, M_hat; unknown: G"),
        ({"W_hat": ones(2, 1), "M": ones(2, 1)}, ones(5, 2), ParameterError, "missing: M_hat; unknown: M"),
        ({**GOOD, "W_hat": ones(1, 2)}, ones(5, 2), ShapeError, "W_hat has shape (1, 2), expected (2, 1)"),
        (
            {**GOOD, "M_hat": ones(2)},
            ones(5, 2),
            ShapeError,
            "M_hat has shape (2,), expected (2, 1) or ('S', 2, 1)",
        ),
        ({**GOOD, "M_hat": ones()}, ones(5, 2), ShapeError, "M_hat has shape (), expected (2, 1)"),
        ({**GOOD, "M_hat": ones(1, 1, 2, 1)}, ones(5, 2), ShapeError, "M_hat has shape (1, 1, 2, 1), expected"),
        (
            {**GOOD, "M_hat": ones(3, 2, 1)},
            ones(5, 2),
            ShapeError,
            "disagree about the number of replicas: none, 3",
        ),
        (
            {**STACKED, "M_hat": ones(4, 2, 1)},
            ones(5, 2),
            ShapeError,
            "disagree about the number of replicas: 3, 4",
        ),
        (STACKED, ones(4, 5, 2), ShapeError, "x has 4 replicas, (4, 5, 2), but the parameters have 3"),
        (STACKED, ones(1, 5, 2), ShapeError, "x has 1 replicas, (1, 5, 2), but the parameters have 3"),
        (GOOD, ones(2, 5), ShapeError, f"x has shape (2, 5), {ROWS}; transpose x, or build it for 5 inputs"),
        (GOOD, ones(2), ShapeError, f"x has shape (2,), {ROWS}; add or drop an axis"),
        (GOOD, ones(), ShapeError, f"x has shape (), {ROWS}"),
        (GOOD, ones(1, 1, 5, 2), ShapeError, f"x has shape (1, 1, 5, 2), {ROWS}"),
        (GOOD, ones(3, 5, 4), ShapeError, f"x has shape (3, 5, 4), {ROWS}; transpose x, or build it for 4 inputs"),
        (GOOD, ones(5, 2, dtype=float), DTypeError, "x is float64, but the parameters are float32; convert x"),
        (GOOD, ones(5, 2, dtype=int), DTypeError, "x is int64, but the parameters are float32; convert x"),
        (
            {**GOOD, "M_hat": ones(2, 1, dtype=float)},
            ones(5, 2),
            DTypeError,
            "the parameters are float32, float64",
        ),
        (cast(int), ones(5, 2, dtype=int), DTypeError, "expected float32 or float64, got int64"),
        (cast(np.float16), ones(5, 2, dtype=np.float16), DTypeError, "expected float32 or float64, got float16"),
        (cast(complex), ones(5, 2, dtype=complex), DTypeError, "expected float32 or float64, got complex128"),
        (
            ones(5, 2),
            GOOD,
            ParameterError,
            "params must be a mapping of names to arrays, got ndarray; call layer(",
        ),
        (
            None,
            ones(5, 2),
            ParameterError,
            "params must be a mapping of names to arrays, got NoneType; call layer(",
        ),
    ],
)
def test_a_call_says_what_does_not_fit(params, x, error, words):
    layer = nn.NAC(2, 1)
    for ask in (layer, layer.values):
        with pytest.raises(error, match=f"^{re.escape('NAC(2, 1): ')}.*{re.escape(words)}") as caught:
            ask(params, x)
        assert isinstance(caught.value, NaluError)
        assert isinstance(caught.value, TypeError if error is DTypeError else ValueError)


@pytest.mark.parametrize(
    ("params", "x"),
    [
        (GOOD, [[1.0, 2.0]]),
        (GOOD, 1.0),
        (GOOD, None),
        ({**GOOD, "W_hat": [[1.0], [2.0]]}, ones(5, 2)),
        ({**GOOD, "M_hat": None}, ones(5, 2)),
    ],
)
def test_a_call_wants_arrays(params, x):
    with pytest.raises(DTypeError, match=r"expected NumPy or CuPy arrays, got (list|float|NoneType); convert"):
        nn.NAC(2, 1)(params, x)


def test_a_call_of_sequences_says_what_does_not_fit():
    layer = nn.scan(nn.Accumulator(nn.NAC(2, 1)))
    with pytest.raises(
        ShapeError, match=r"^scan\(Accumulator\(NAC\(2, 1\)\)\): x has shape \(5, 2\), expected \(T, B, I=2\)"
    ):
        layer(GOOD, ones(5, 2))
    with pytest.raises(ShapeError, match=r"x has shape \(4, 5, 3\), expected \(T, B, I=2\).*transpose x"):
        layer(GOOD, ones(4, 5, 3))
    for empty in (ones(0, 5, 2), ones(3, 0, 5, 2)):
        with pytest.raises(ShapeError, match=r"x has shape \(.*0, 5, 2\), but a sequence needs T >= 1 steps"):
            layer(GOOD, empty)


def test_a_call_of_a_chain_names_the_chain_and_its_parameters():
    layer = nn.chain(nn.NAC(2, 2), nn.NAC(2, 1))
    params = layer.init()
    with pytest.raises(ParameterError, match=r"^chain\(NAC\(2, 2\), NAC\(2, 1\)\): .*; missing: 1\.M_hat$"):
        layer({name: q for name, q in params.items() if name != "1.M_hat"}, ones(5, 2))
    with pytest.raises(ShapeError, match=r"1\.W_hat has shape \(1, 2\), expected \(2, 1\)"):
        layer({**params, "1.W_hat": ones(1, 2)}, ones(5, 2))


@every_layer
def test_a_vjp_says_what_does_not_fit(layer):
    params = layer.init(dtype="float64")
    y, vjp = layer(params, draw_x(layer, np.random.default_rng(0)))
    who = f"^{re.escape(repr(layer))}: vjp expects dy with the "
    for dy in (y[:-1], y[..., None], y[None], y.sum()):
        with pytest.raises(ShapeError, match=who + re.escape(f"shape of y, {y.shape}, got {dy.shape}")):
            vjp(dy)
    with pytest.raises(DTypeError, match=who + "dtype of y, float64, got float32"):
        vjp(y.astype(np.float32))
    for dy in (y.tolist(), 1.0, None):
        with pytest.raises(DTypeError, match="expected NumPy or CuPy arrays, got"):
            vjp(dy)


# --- what a call promises -------------------------------------------------------------------------------------


@every_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stacked_x", [False, True])
@pytest.mark.parametrize("stacked_params", [False, True])
def test_shapes_and_dtypes(layer, stacked_params, stacked_x, dtype):
    rng = np.random.default_rng(1)
    params = draw_params(layer, rng, 3 if stacked_params else None, dtype)
    x = draw_x(layer, rng, 3 if stacked_x else None, dtype=dtype)
    y, vjp = layer(params, x)
    rows = x.shape[1:-1] if stacked_x else x.shape[:-1]
    rows = (1, *rows[1:]) if isinstance(layer, nn.Last) else rows
    assert y.shape == ((3,) if stacked_params or stacked_x else ()) + (*rows, layer.out_features)
    assert y.dtype == dtype
    dx, dparams = vjp(draw_dy(y, rng))
    assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
    assert dparams.keys() == params.keys()
    for name, q in params.items():
        assert (dparams[name].shape, dparams[name].dtype) == (q.shape, q.dtype)


@every_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 4, 33])
def test_stacked_replicas_are_the_replicas_alone_to_the_bit(layer, rows, dtype):
    rng = np.random.default_rng(2)
    params, x = draw_params(layer, rng, 5, dtype), draw_x(layer, rng, 5, rows, dtype=dtype)
    for given_x in (x, x[0]):
        y, vjp = layer(params, given_x)
        dy = draw_dy(y, rng)
        dx, dparams = vjp(dy)
        for r in range(5):
            own_x = given_x[r] if given_x is x else given_x
            own_y, own_vjp = layer(nn.replica(params, r), own_x)
            assert own_y.tobytes() == y[r].tobytes()
            own_dx, own_dparams = own_vjp(dy[r])
            assert same_bits((own_dx, own_dparams), (dx[r] if given_x is x else own_dx, nn.replica(dparams, r)))


@settings(max_examples=100, deadline=None)
@given(
    unit=st.sampled_from([nn.NAC, nn.LogNAC, nn.NALU, nn.Dense]),
    sizes=st.tuples(st.integers(1, 17), st.integers(1, 9)),
    rows=st.integers(1, 40),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=seeds,
)
def test_the_bits_of_a_replica_do_not_depend_on_sizes(unit, sizes, rows, dtype, seed):
    rng, layer = np.random.default_rng(seed), unit(*sizes)
    params, x = draw_params(layer, rng, 3, dtype), draw_x(layer, rng, 3, rows, dtype=dtype)
    y, vjp = layer(params, x)
    dy = draw_dy(y, rng)
    dx, dparams = vjp(dy)
    own_y, own_vjp = layer(nn.replica(params, 1), x[1])
    assert own_y.tobytes() == y[1].tobytes()
    assert same_bits(own_vjp(dy[1]), (dx[1], nn.replica(dparams, 1)))


@every_layer
def test_broadcast_gradients_are_sums_over_the_replicas(layer):
    rng = np.random.default_rng(3)
    params, x = draw_params(layer, rng, 3), draw_x(layer, rng, 3)
    dy = draw_dy(layer(params, x)[0], rng)
    dx, _ = layer(params, x[0])[1](dy)
    alone = [layer(nn.replica(params, r), x[0])[1](dy[r])[0] for r in range(3)]
    np.testing.assert_allclose(dx, np.sum(alone, axis=0), rtol=1e-10, atol=1e-10)
    _, dparams = layer(nn.replica(params, 0), x)[1](dy)
    alone = [layer(nn.replica(params, 0), x[r])[1](dy[r])[1] for r in range(3)]
    for name, q in dparams.items():
        np.testing.assert_allclose(q, np.sum([other[name] for other in alone], axis=0), rtol=1e-10, atol=1e-10)


@every_layer
def test_a_shared_x_and_its_copies_give_the_same(layer):
    rng = np.random.default_rng(4)
    params, x = draw_params(layer, rng, 3), draw_x(layer, rng)
    shared, _ = layer(params, x)
    copied, _ = layer(params, np.stack([x] * 3))
    assert shared.tobytes() == copied.tobytes()


@every_layer
@pytest.mark.parametrize("replicas", [None, 2])
def test_an_empty_batch_has_empty_rows_and_zero_gradients(layer, replicas):
    rng = np.random.default_rng(5)
    params, x = draw_params(layer, rng, replicas), draw_x(layer, rng, rows=0)
    y, vjp = layer(params, x)
    assert y.shape[-2:] == (0, layer.out_features)
    dx, dparams = vjp(y)
    assert dx.shape == x.shape
    for name, q in dparams.items():
        np.testing.assert_array_equal(q, np.zeros_like(params[name]))


@every_layer
def test_a_vjp_is_a_function_and_spares_dx_on_request(layer):
    """The same bits twice; nothing given is written to; dparams do not depend on need_dx."""
    rng = np.random.default_rng(6)
    params, x = draw_params(layer, rng, 2), draw_x(layer, rng)
    for q in (x, *params.values()):
        q.setflags(write=False)
    y, vjp = layer(params, x)
    dy = draw_dy(y, rng)
    dy.setflags(write=False)
    before = y.tobytes()
    first = vjp(dy)
    assert same_bits(first, vjp(dy))
    none, dparams = vjp(dy, need_dx=False)
    assert none is None
    assert same_bits((first[0], dparams), first)
    assert vjp(dy, False)[0] is None
    assert y.tobytes() == before
    assert layer(params, x)[0].tobytes() == before


@every_layer
def test_two_live_vjps_do_not_disturb_each_other(layer):
    rng = np.random.default_rng(7)
    points = [(draw_params(layer, rng), draw_x(layer, rng)) for _ in range(2)]
    alone = []
    for params, x in points:
        y, vjp = layer(params, x)
        alone.append(vjp(np.ones_like(y)))
    (y0, vjp0), (y1, vjp1) = [layer(params, x) for params, x in points]
    assert same_bits(vjp1(np.ones_like(y1)), alone[1])
    assert same_bits(vjp0(np.ones_like(y0)), alone[0])
    assert same_bits(vjp1(np.ones_like(y1)), alone[1])


@settings(max_examples=80, deadline=None)
@given(layer=st.sampled_from(LAYERS), alpha=st.floats(-4, 4), beta=st.floats(-4, 4), seed=seeds)
def test_a_vjp_is_linear(layer, alpha, beta, seed):
    rng = np.random.default_rng(seed)
    y, vjp = layer(draw_params(layer, rng), draw_x(layer, rng))
    p, q = draw_dy(y, rng), draw_dy(y, rng)
    (dx_p, params_p), (dx_q, params_q) = vjp(p), vjp(q)
    dx, dparams = vjp(alpha * p + beta * q)
    for name, whole in {"x": dx, **dparams}.items():
        left, right = (dx_p, dx_q) if name == "x" else (params_p[name], params_q[name])
        scale = 5 * max(np.abs(left).max(), np.abs(right).max())
        assert np.abs(whole - (alpha * left + beta * right)).max() <= 1e-11 * scale
        # Powers of two scale every bit.
    doubled = vjp(2 * p)
    assert same_bits(doubled, (2 * dx_p, {name: 2 * value for name, value in params_p.items()}))
    zero_dx, zero_dparams = vjp(np.zeros_like(y))
    assert not any(np.any(value) for value in (zero_dx, *zero_dparams.values()))


@every_layer
def test_rows_do_not_meet(layer):
    """A permuted batch gives permuted rows; dparams is the sum of what each row gives alone."""
    rng = np.random.default_rng(8)
    params, x = draw_params(layer, rng), draw_x(layer, rng)
    y, vjp = layer(params, x)
    dy = draw_dy(y, rng)
    dx, dparams = vjp(dy)
    order = rng.permutation(4)
    moved, moved_vjp = layer(params, x[..., order, :])
    np.testing.assert_allclose(moved, y[..., order, :], rtol=1e-12)
    np.testing.assert_allclose(moved_vjp(dy[..., order, :])[0], dx[..., order, :], rtol=1e-10, atol=1e-12)
    alone = [layer(params, x[..., b : b + 1, :])[1](dy[..., b : b + 1, :])[1] for b in range(4)]
    for name, q in dparams.items():
        np.testing.assert_allclose(q, np.sum([other[name] for other in alone], axis=0), rtol=1e-9, atol=1e-12)


@every_layer
def test_strides_do_not_matter(layer):
    rng = np.random.default_rng(9)
    params, x = draw_params(layer, rng, 2), draw_x(layer, rng, 2)
    y, vjp = layer(params, x)
    dy = draw_dy(y, rng)
    dx, dparams = vjp(dy)
    odd_y, odd_vjp = layer({name: strided(q) for name, q in params.items()}, strided(x))
    odd_dx, odd_dparams = odd_vjp(strided(dy))
    np.testing.assert_allclose(odd_y, y, rtol=1e-12)
    np.testing.assert_allclose(odd_dx, dx, rtol=1e-10, atol=1e-12)
    for name, q in dparams.items():
        np.testing.assert_allclose(odd_dparams[name], q, rtol=1e-10, atol=1e-12)


def strided(q):
    """The same values where no two lie side by side, backwards in memory."""
    wide = np.zeros(tuple(2 * size for size in q.shape), q.dtype)
    view = wide[(slice(None, None, -2),) * q.ndim]
    view[...] = q
    return view


@every_layer
def test_the_checked_call_is_the_unchecked_one(layer):
    rng = np.random.default_rng(10)
    params, x = draw_params(layer, rng), draw_x(layer, rng)
    y, vjp = layer(params, x, train=True)
    raw, raw_vjp = layer.forward(params, x)
    assert raw.tobytes() == y.tobytes()
    assert same_bits(vjp(y), raw_vjp(y))
    assert layer.surrogate(params, x).tobytes() == y.tobytes()
    values = layer.values(params, x)
    assert values["y"].tobytes() == y.tobytes()


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (nn.NAC(2, 2), ["W", "a", "y"]),
        (nn.LogNAC(2, 2), ["W", "m", "y"]),
        (nn.NALU(2, 2), ["W", "a", "m", "g", "y"]),
        (nn.NALU(2, 2, tied=False), ["W_a", "W_m", "a", "m", "g", "y"]),
        (nn.Dense(2, 2), ["z", "y"]),
        (nn.chain(nn.NAC(2, 2), nn.LogNAC(2, 2)), ["0.W", "0.a", "0.y", "1.W", "1.m", "1.y", "y"]),
        (nn.chain(nn.chain(Scale(2, 2))), ["0.0.y", "0.y", "y"]),
    ],
    ids=repr,
)
def test_values_are_named_as_in_the_paper(layer, names):
    rng = np.random.default_rng(11)
    params, x = draw_params(layer, rng), draw_x(layer, rng)
    values = layer.values(params, x)
    assert list(values) == names
    if isinstance(layer, nn.NALU):
        np.testing.assert_allclose(values["a"], x @ values["W" if layer.tied else "W_a"], rtol=1e-12)
    if "1.W" in names:
        np.testing.assert_array_equal(values["0.y"], x @ values["0.W"])
        assert values["1.y"] is values["y"]


def test_parameters_may_come_in_any_order():
    layer = nn.NALU(2, 1)
    params, x = layer.init(), ones(3, 2)
    turned = dict(reversed(params.items()))
    y, vjp = layer(params, x)
    other, other_vjp = layer(turned, x)
    assert other.tobytes() == y.tobytes()
    assert same_bits(vjp(y), other_vjp(y))


# --- chain, scan and cells ------------------------------------------------------------------------------------


def test_a_chain_is_its_layers_and_the_chain_rule():
    first, second = nn.NALU(3, 2), nn.NAC(2, 1)
    model, rng = nn.chain(first, second), np.random.default_rng(12)
    assert (model.in_features, model.out_features, model.rank) == (3, 1, 2)
    assert model.parts == (first, second)
    assert list(model.shapes()) == ["0.W_hat", "0.M_hat", "0.G", "1.W_hat", "1.M_hat"]
    params, x = draw_params(model, rng), draw_x(model, rng)
    h, first_vjp = first(model.part(params, 0), x)
    y, second_vjp = second(model.part(params, 1), h)
    found, vjp = model(params, x)
    assert found.tobytes() == y.tobytes()
    dh, d1 = second_vjp(np.ones_like(y))
    dx, d0 = first_vjp(dh)
    expected = {**{f"0.{name}": q for name, q in d0.items()}, **{f"1.{name}": q for name, q in d1.items()}}
    assert same_bits(vjp(np.ones_like(y)), (dx, expected))


def test_a_chain_of_ten_and_more_keeps_its_names_apart():
    model = nn.chain(*(Scale(2, 2) for _ in range(12)))
    params = model.init(seed=1)
    assert list(params) == [f"{i}.c" for i in range(12)]
    y, vjp = model(params, ones(3, 2))
    np.testing.assert_allclose(y[0], np.prod(list(params.values()), axis=0), rtol=1e-6)
    np.testing.assert_allclose(vjp(y)[1]["11.c"] * params["11.c"], (y * y).sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.chain(), "chain: expected one or more layers, got ()"),
        (lambda: nn.chain(nn.NAC(2, 1), 3), "chain: expected one or more layers, got (NAC(2, 1), 3)"),
        (lambda: nn.chain([nn.NAC(2, 1)]), "chain: expected one or more layers, got ([NAC(2, 1)],)"),
        (lambda: nn.chain(nn.Accumulator(nn.NAC(2, 1))), "chain: expected one or more layers, got (Accumulator("),
        (
            lambda: nn.chain(nn.NAC(2, 1), nn.NAC(2, 1)),
            "chain: NAC(2, 1) does not fit NAC(2, 1), which follows it",
        ),
        (
            lambda: nn.chain(nn.NAC(2, 1), nn.scan(nn.Accumulator(nn.NAC(1, 1)))),
            "chain: NAC(2, 1) does not fit scan(Accumulator(NAC(1, 1))), which follows it",
        ),
        (lambda: nn.scan(nn.NAC(2, 1)), "scan: expected a cell, got NAC(2, 1)"),
        (lambda: nn.scan(None), "scan: expected a cell, got None"),
        (lambda: nn.Accumulator(7), "Accumulator: expected a layer of rows (B, I), got 7"),
        (
            lambda: nn.Accumulator(nn.scan(nn.Accumulator(nn.NAC(2, 1)))),
            "Accumulator: expected a layer of rows (B, I), got scan(Accumulator(NAC(2, 1)))",
        ),
    ],
)
def test_combinators_refuse_what_does_not_fit(build, words):
    with pytest.raises(OptionError, match="^" + re.escape(words)):
        build()


def test_the_accumulator_sums_over_time():
    layer = nn.scan(nn.Accumulator(nn.NAC(2, 1)))
    rng = np.random.default_rng(13)
    params, x = draw_params(layer, rng), draw_x(layer, rng, rows=2, steps=5)
    rows, _ = nn.NAC(2, 1)(params, x.reshape(10, 2))
    y, vjp = layer(params, x)
    np.testing.assert_allclose(y, np.cumsum(rows.reshape(5, 2, 1), axis=0), rtol=1e-12)
    # h_t enters every later y: the gradient of a step is the sum over the steps from it on.
    dy = draw_dy(y, rng)
    dh = np.cumsum(dy[::-1], axis=0)[::-1]
    dx, dparams = nn.NAC(2, 1)(params, x.reshape(10, 2))[1](dh.reshape(10, 1).copy())
    found_dx, found = vjp(dy)
    np.testing.assert_allclose(found_dx, dx.reshape(5, 2, 2), rtol=1e-12)
    for name, q in dparams.items():
        np.testing.assert_allclose(found[name], q, rtol=1e-11)


def test_one_step_of_the_accumulator():
    cell = nn.Accumulator(Scale(2, 2))
    params, x, state = {"c": np.array([2.0, 3.0])}, np.array([[1.0, -1.0]]), np.array([[10.0, 20.0]])
    np.testing.assert_array_equal(cell.start(params, x), np.zeros((1, 2)))
    (y, h), vjp = cell.step(params, x, state)
    np.testing.assert_array_equal(y, [[12.0, 17.0]])
    assert h is y
    dx, dparams, dstate = vjp(np.array([[1.0, 0.0]]), np.array([[0.5, 4.0]]))
    np.testing.assert_array_equal(dstate, [[1.5, 4.0]])
    np.testing.assert_array_equal(dx, [[3.0, 12.0]])
    np.testing.assert_array_equal(dparams["c"], [1.5, -4.0])
    assert vjp(y, state, False)[0] is None


@dataclass(frozen=True, repr=False)
class Leaky(Cell):
    """h_t = k h_{t-1} + x_t, y_t = h_t^2: a cell of one's own, whose state is not its output."""

    def shapes(self):
        return {"k": (1, 1)}

    def draw(self, name, rng):
        return rng.uniform(0, 1, (1, 1))

    def start(self, params, x):
        return 0 * x * params["k"]

    def step(self, params, x, state, **_):
        k = params["k"]
        h = k * state + x

        def vjp(dy, dstate, need_dx=True):
            dh = 2 * h * dy + dstate
            return (unbroadcast(dh, x) if need_dx else None), {"k": unbroadcast(dh * state, k)}, dh * k

        return (h * h, h), vjp


def test_scan_runs_a_cell_of_ones_own():
    layer = nn.scan(Leaky(1, 1))
    y, vjp = layer({"k": np.array([[0.5]])}, np.array([2.0, 0.0, 0.0]).reshape(3, 1, 1))
    np.testing.assert_array_equal(y.ravel(), [4.0, 1.0, 0.25])
    dx, dparams = vjp(np.array([0.0, 0.0, 1.0]).reshape(3, 1, 1))
    np.testing.assert_array_equal(dx.ravel(), [0.25, 0.5, 1.0])  # y_3 = (x_1 k^2 + x_2 k + x_3)^2
    np.testing.assert_array_equal(dparams["k"], [[2.0]])
    assert vjp(y, need_dx=False)[0] is None


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: Layer(2, 1).shapes(), "Layer must define shapes()"),
        (lambda: Layer(2, 1).draw("W", None), "Layer must define draw(name, rng)"),
        (lambda: Layer(2, 1).forward({}, None), "Layer must define forward(params, x, ...)"),
        (lambda: Layer(2, 1).init(), "Layer must define shapes()"),
        (lambda: Layer(2, 1)({}, ones(1, 2)), "Layer must define shapes()"),
        (lambda: Cell(2, 1).start({}, None), "Cell must define start(params, x)"),
        (lambda: Cell(2, 1).step({}, None, None), "Cell must define step(params, x, state)"),
        (lambda: nn.scan(Cell(2, 1)).shapes(), "Cell must define shapes()"),
        (lambda: type("Half", (Layer,), {})(2, 1).draw("W", None), "Half must define draw(name, rng)"),
    ],
)
def test_what_a_subclass_must_define_is_named(ask, words):
    with pytest.raises(NotImplementedError, match=f"^{re.escape(words)}$"):
        ask()


@pytest.mark.parametrize("shape", [(), (2,), (1, 2), (3, 2, 1)], ids=repr)
@pytest.mark.parametrize("replicas", [None, 3])
def test_initial_values_of_another_shape_are_refused(shape, replicas):
    layer = type("Odd", (nn.NAC,), {"draw": lambda self, name, rng: rng.uniform(size=shape)})(2, 1)
    words = (
        f"Odd(2, 1): draw('W_hat', rng) gives shape {shape}, expected (2, 1), that of one replica; change draw()"
    )
    with pytest.raises(ShapeError, match=f"^{re.escape(words)}"):
        layer.init(replicas=replicas)
    with pytest.raises(ShapeError, match=re.escape("draw('1.W_hat', rng) gives shape")):
        nn.chain(nn.NAC(2, 2), layer).init(replicas=replicas)


def test_initial_values_may_be_lists():
    layer = type("Listed", (nn.NAC,), {"draw": lambda self, name, rng: [[1.0], [2.0]]})(2, 1)
    np.testing.assert_array_equal(layer.init(replicas=3)["W_hat"], [[[1], [2]]] * 3)


def test_a_layer_of_ones_own_checks_its_sizes_too():
    with pytest.raises(OptionError, match="Scale: in_features must be an integer >= 1, got 0"):
        Scale(0, 1)


@dataclass(frozen=True, repr=False)
class Shift(Layer):
    """y = x + s with one number s: a parameter without axes, where there is a parameter at all."""

    named: tuple[str, ...]

    def shapes(self):
        return dict.fromkeys(self.named, ())

    def forward(self, params, x, *, rng=None, train=False, keep=None):
        def vjp(dy, need_dx=True):
            sums = {name: unbroadcast(dy.sum(axis=(-1, -2)), s) for name, s in params.items()}
            return (unbroadcast(dy, x) if need_dx else None), sums

        return sum((s[..., None, None] for s in params.values()), x), vjp


def test_a_parameter_may_have_no_axes():
    layer = Shift(2, 2, ("s",))
    y, vjp = layer({"s": np.array(3.0)}, np.zeros((1, 2)))
    np.testing.assert_array_equal(y, [[3.0, 3.0]])
    assert vjp(y)[1] == {"s": 6.0}
    y, vjp = layer({"s": np.array([3.0, 4.0])}, np.zeros((1, 2)))
    np.testing.assert_array_equal(y, [[[3.0, 3.0]], [[4.0, 4.0]]])
    np.testing.assert_array_equal(vjp(y)[1]["s"], [6.0, 8.0])


def test_a_layer_without_parameters_fits_into_a_chain():
    model = nn.chain(nn.NAC(2, 2), Shift(2, 2, ()))
    params, x = model.init(), ones(3, 2)
    y, vjp = model(params, x)
    np.testing.assert_array_equal(y, nn.NAC(2, 2)(model.part(params, 0), x)[0])
    assert vjp(y)[1].keys() == params.keys()


def test_a_layer_without_parameters_can_be_called():
    y, vjp = Shift(2, 2, ())({}, ones(3, 2))
    np.testing.assert_array_equal(y, ones(3, 2))
    assert vjp(y)[1] == {}


def test_a_layer_of_ones_own_fits_in_and_trains():
    model = nn.chain(nn.NAC(2, 2), Scale(2, 2))
    x = np.random.default_rng(0).uniform(1, 2, (50, 2))
    result = nn.fit(model, x, 0.5 * x, steps=5, replicas=2, optimizer=nn.Adam(lr=0.1))
    assert result.params.keys() == model.shapes().keys()
    assert Scale.examples() == ()
    assert Scale(2, 2).parts == ()


# --- penalty and project --------------------------------------------------------------------------------------


@every_layer
def test_layers_have_no_penalty_and_no_projection_unless_they_say_so(layer):
    params = layer.init()
    assert layer.penalty(params, draw_x(layer, np.random.default_rng(0), dtype=np.float32), 1) is None
    assert layer.project(params) is params
    assert not overrides(layer, "penalty")
    assert not overrides(layer, "project")


def test_a_chain_adds_the_penalties_each_on_its_own_input():
    model = nn.chain(Tamed(2, 2), Scale(2, 2), Tamed(2, 2, start=3), Scale(2, 2))
    params = {f"{i}.c": np.full((3, 2), float(c)) for i, c in enumerate((2, 3, 5, 7))}
    x = np.array([[1.0, 2.0], [3.0, 0.0]])  # mean squares 5 and 2
    assert overrides(model, "penalty")
    value, dparams = model.penalty(params, x, 1)  # the third layer's has not begun
    np.testing.assert_array_equal(value, [2 * 7.0] * 3)
    assert list(dparams) == list(params)
    np.testing.assert_array_equal(dparams["0.c"], [[5.0, 2.0]] * 3)
    value, dparams = model.penalty(params, x, 3)  # it sees x times 2 times 3
    np.testing.assert_array_equal(value, [2 * 7.0 + 5 * 36 * 7.0] * 3)
    np.testing.assert_array_equal(dparams["2.c"], [[36 * 5.0, 36 * 2.0]] * 3)
    for name in ("1.c", "3.c"):
        np.testing.assert_array_equal(dparams[name], np.zeros((3, 2)))
    assert nn.chain(Tamed(2, 2, start=9)).penalty({"0.c": ones(2)}, ones(1, 2), 1) is None


def test_a_scan_passes_penalty_and_projection_on():
    layer = nn.scan(nn.Accumulator(Tamed(2, 2)))
    assert overrides(layer, "penalty")
    x = np.random.default_rng(1).normal(size=(3, 4, 2))
    params = {"c": np.array([0.5, 2.0])}
    value, dparams = layer.penalty(params, x, 1)
    np.testing.assert_allclose(dparams["c"], (x * x).mean(axis=(0, 1)), rtol=1e-13)
    np.testing.assert_allclose(value, (params["c"] * dparams["c"]).sum(), rtol=1e-13)
    stacked, _ = layer.penalty({"c": np.stack([params["c"]] * 2)}, np.stack([x, 2 * x]), 1)
    np.testing.assert_allclose(stacked, [value, 4 * value], rtol=1e-13)
    np.testing.assert_array_equal(layer.project(params)["c"], [0.5, 1.0])
    assert layer.cell.project({"c": np.array([3.0])})["c"] == [1.0]


def test_a_chain_projects_each_layers_own():
    model = nn.chain(Scale(2, 2), Tamed(2, 2))
    params = {"0.c": np.array([5.0, 0.5]), "1.c": np.array([5.0, 0.5])}
    projected = model.project(params)
    assert list(projected) == list(params)
    np.testing.assert_array_equal(projected["0.c"], [5.0, 0.5])
    np.testing.assert_array_equal(projected["1.c"], [1.0, 0.5])
    np.testing.assert_array_equal(params["1.c"], [5.0, 0.5])


# --- descriptions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [*EXAMPLES, *COMBINED], ids=repr)
def test_a_description_in_json_rebuilds_the_layer(layer):
    config = json.loads(json.dumps(layer.config()))
    rebuilt = from_config(config, REGISTRY)
    assert rebuilt == layer
    assert hash(rebuilt) == hash(layer)
    assert rebuilt.config() == layer.config()
    assert rebuilt.shapes() == layer.shapes()
    assert repr(rebuilt) == repr(layer)
    assert eval(repr(layer), vars(nn)) == layer
    assert pickle.loads(pickle.dumps(layer)) == layer
    for name, q in layer.init(seed=3).items():
        np.testing.assert_array_equal(rebuilt.init(seed=3)[name], q)


def test_every_registered_class_offers_examples_or_is_made_of_others():
    assert {"NAC", "LogNAC", "NALU", "Dense", "Chain", "Scan", "Accumulator"} <= REGISTRY.keys()
    for name, cls in REGISTRY.items():
        assert cls.__name__ == name
        assert cls.examples() or name in ("Chain", "Scan", "Accumulator")
        assert all(type(example) is cls for example in cls.examples())


@pytest.mark.parametrize(
    ("layer", "config", "shown"),
    [
        (
            nn.NALU(2, 1, tied=False),
            {
                "type": "NALU",
                "in_features": 2,
                "out_features": 1,
                "tied": False,
                "gate": "matrix",
                "eps": 1e-7,
                "initializer": "uniform",
            },
            "NALU(2, 1, tied=False)",
        ),
        (
            nn.scan(nn.Accumulator(nn.NAC(2, 1))),
            {"type": "Scan", "cell": {"type": "Accumulator", "layer": nn.NAC(2, 1).config()}},
            "scan(Accumulator(NAC(2, 1)))",
        ),
        (
            nn.chain(nn.NAC(2, 1, initializer="glorot_uniform"), nn.LogNAC(1, 1, eps=0.5)),
            {
                "type": "Chain",
                "layers": [
                    {"type": "NAC", "in_features": 2, "out_features": 1, "initializer": "glorot_uniform"},
                    {"type": "LogNAC", "in_features": 1, "out_features": 1, "initializer": "uniform", "eps": 0.5},
                ],
            },
            "chain(NAC(2, 1, initializer='glorot_uniform'), LogNAC(1, 1, eps=0.5))",
        ),
        (Tamed(2, 2), {"type": "Tamed", "in_features": 2, "out_features": 2, "start": 1}, "Tamed(2, 2)"),
        (Leaky(2, 2), {"type": "Leaky", "in_features": 2, "out_features": 2}, "Leaky(2, 2)"),
    ],
)
def test_descriptions_and_their_printed_form(layer, config, shown):
    assert layer.config() == config
    assert repr(layer) == shown


def test_a_layer_made_of_others_describes_them():
    @dataclass(frozen=True)
    class Pair(Layer):
        first: Layer
        others: tuple[Layer, ...]

    pair = Pair(2, 1, nn.NAC(2, 1), (Scale(1, 1), Scale(1, 1)))
    registry = {**REGISTRY, "Pair": Pair, "Scale": Scale}
    config = json.loads(json.dumps(pair.config()))
    assert [part["type"] for part in config["others"]] == ["Scale", "Scale"]
    assert from_config(config, registry) == pair
    with pytest.raises(ModelFileError, match="unknown layer 'Pair'"):
        from_config(config, REGISTRY)


def test_options_may_be_tuples_of_plain_values():
    layer = Shift(2, 2, ("s", "t"))
    assert layer.config() == {"type": "Shift", "in_features": 2, "out_features": 2, "named": ["s", "t"]}
    assert from_config(json.loads(json.dumps(layer.config())), {"Shift": Shift}) == layer


NAC_CONFIG = nn.NAC(2, 1).config()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            None,
            "unknown layer None; known: Accumulator, Chain, Dense, GRU, LSTM, Last, LogNAC, NAC, NALU, ",
        ),
        ("NAC", "unknown layer 'NAC'; known: "),
        ([NAC_CONFIG], "unknown layer [{'type': 'NAC'"),
        ({}, "unknown layer None; known: "),
        ({"type": None}, "unknown layer None"),
        ({"type": "nac"}, "unknown layer 'nac'"),
        ({"type": "os.system"}, "unknown layer 'os.system'"),
        ({"type": "x" * 500}, f"unknown layer '{'x' * 59}; known"),
        ({"type": "NAC"}, "layer NAC: its options are not valid: "),
        ({**NAC_CONFIG, "in_features": 0}, "layer NAC: its options are not valid: NAC: in_features must be"),
        ({**NAC_CONFIG, "in_features": "2"}, "layer NAC: its options are not valid: NAC: in_features must be"),
        ({**NAC_CONFIG, "in_features": 2.0}, "layer NAC: its options are not valid: NAC: in_features must be"),
        ({**NAC_CONFIG, "initializer": "evil"}, "layer NAC: its options are not valid: NAC: initializer must be"),
        ({**NAC_CONFIG, "initializer": None}, "layer NAC: its options are not valid: NAC: initializer must be"),
        (
            {**NAC_CONFIG, "initializer": ["uniform"]},
            "layer NAC: its options are not valid: NAC: initializer must",
        ),
        ({**NAC_CONFIG, "initializer": {}}, "unknown layer None"),
        ({**NAC_CONFIG, "initializer": NAC_CONFIG}, "layer NAC: its options are not valid: NAC: initializer must"),
        ({**NAC_CONFIG, "bogus": 1}, "layer NAC: its options are not valid: "),
        ({**NAC_CONFIG, "self": 1}, "layer NAC: its options are not valid: "),
        ({**NAC_CONFIG, 3: 1}, "layer NAC: its options are not valid: "),
        ({"type": "Chain"}, "layer Chain: its options are not valid: "),
        ({"type": "Chain", "layers": []}, "layer Chain: its options are not valid: chain: expected one or more"),
        ({"type": "Chain", "layers": 5}, "layer Chain: its options are not valid: "),
        ({"type": "Chain", "layers": [5]}, "layer Chain: its options are not valid: chain: expected one or more"),
        ({"type": "Chain", "layers": [{"type": "Chain", "layers": [{}]}]}, "unknown layer None"),
        ({"type": "Chain", "layers": NAC_CONFIG}, "layer Chain: its options are not valid: "),
        ({"type": "Chain", "layers": [NAC_CONFIG, NAC_CONFIG]}, "layer Chain: its options are not valid: chain: "),
        ({"type": "Chain", "layers": [{**NAC_CONFIG, "out_features": -1}]}, "layer NAC: its options are not"),
        ({"type": "Scan", "cell": NAC_CONFIG}, "layer Scan: its options are not valid: scan: expected a cell"),
        ({"type": "Accumulator", "layer": "NAC"}, "layer Accumulator: its options are not valid: Accumulator: "),
        ({"type": ["NAC"]}, "unknown layer ['NAC']"),
        ({"type": {}}, "unknown layer {}"),
    ],
)
def test_a_description_that_is_not_one_is_refused(config, words):
    with pytest.raises(ModelFileError, match="^" + re.escape(words)) as caught:
        from_config(config, REGISTRY)
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 400


def test_the_registry_given_is_the_only_one_asked():
    with pytest.raises(ModelFileError, match="unknown layer 'NAC'; known: Scale"):
        from_config(NAC_CONFIG, {"Scale": Scale})
    assert from_config(Scale(2, 2).config(), {"Scale": Scale}) == Scale(2, 2)


# --- one flat vector ------------------------------------------------------------------------------------------


@every_layer
def test_flatten_and_views_undo_each_other(layer):
    params = layer.init(seed=1, replicas=3)
    vector = flatten(params, layer.shapes())
    assert vector.shape == (3, sum(q[0].size for q in params.values()))
    assert vector.dtype == np.float32
    found = views(vector, layer.shapes())
    assert list(found) == list(params)
    for name, q in found.items():
        np.testing.assert_array_equal(q, params[name])
        assert np.shares_memory(q, vector)
        assert not np.shares_memory(q, params[name])
    np.testing.assert_array_equal(flatten(found, layer.shapes()), vector)
    assert not np.shares_memory(flatten(found, layer.shapes()), vector)


def test_a_view_writes_through_to_its_own_place():
    shapes = nn.NALU(3, 2, gate="independent").shapes()
    vector = np.zeros((2, 14))
    found = views(vector, shapes)
    for k, q in enumerate(found.values(), start=1):
        q[1] = k
    np.testing.assert_array_equal(vector, [[0] * 14, [1] * 6 + [2] * 6 + [3] * 2])
    np.testing.assert_array_equal(flatten(found, shapes), vector)


def test_views_of_a_slice_of_replicas_share_its_memory():
    vector = np.arange(20.0).reshape(5, 4)
    found = views(vector[1:3], nn.NAC(2, 1).shapes())
    assert all(np.shares_memory(q, vector) for q in found.values())
    np.testing.assert_array_equal(found["M_hat"][0].ravel(), [6, 7])


def test_the_order_of_the_flat_vector_is_that_of_the_shapes():
    shapes = nn.NAC(2, 1).shapes()
    params = {"M_hat": np.array([[[3.0], [4.0]]]), "W_hat": np.array([[[1.0], [2.0]]])}
    np.testing.assert_array_equal(flatten(params, shapes), [[1, 2, 3, 4]])


@every_layer
def test_a_replica_has_the_parameters_of_one(layer):
    params = layer.init(seed=2, replicas=[4, 7])
    alone = nn.replica(params, 1)
    for name, shape in layer.shapes().items():
        assert alone[name].shape == shape
        np.testing.assert_array_equal(alone[name], layer.init(seed=2, replicas=[7])[name][0])
    layer(alone, draw_x(layer, np.random.default_rng(0), dtype=np.float32))
