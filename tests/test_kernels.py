"""The fused kernels are held to the readable tier: losses and gradients of a step, and whole runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np.kernels import planes
from nalu_np.layer import flatten, views
from nalu_np.vjps import mse

UNITS = {"NAC": nn.NAC, "LogNAC": nn.LogNAC, "NALU": nn.NALU}
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}


def stack(kinds, sizes):
    """Units one after the other; one stands alone."""
    units = [UNITS[kind](i, o) for kind, i, o in zip(kinds, sizes, sizes[1:], strict=False)]
    return units[0] if len(units) == 1 else nn.chain(*units)


models = st.lists(st.sampled_from(sorted(UNITS)), min_size=1, max_size=3).flatmap(
    lambda kinds: st.lists(st.integers(1, 4), min_size=len(kinds) + 1, max_size=len(kinds) + 1).map(
        lambda sizes: stack(kinds, sizes)
    )
)


def one_step(model, params, x, target, dtype):
    """Losses and gradients (S, P) of the kernel, and of the readable tier."""
    shapes, (S, B, _) = model.shapes(), x.shape
    theta = flatten(params, shapes)
    workspace = planes.Workspace(model, S, B, dtype)
    workspace.x[...], workspace.target[...] = np.moveaxis(x, 2, 0), np.moveaxis(target, 2, 0)
    trainee = planes.Trainee(model, theta, nn.Adam())
    losses = workspace.gradients(trainee.params, trainee.dparams, fresh=True)
    y, vjp = model.forward(params, x)
    expected, loss_vjp = mse(y, target)
    _, dparams = vjp(loss_vjp(np.ones(S, dtype)), need_dx=False)
    return (losses, trainee.gradient.T), (expected, flatten(dparams, shapes))


@settings(max_examples=120, deadline=None)
@given(
    model=models,
    S=st.integers(1, 5),
    B=st.integers(1, 9),
    dtype=st.sampled_from(sorted(TOLERANCE)),
    size=st.sampled_from([0.05, 1.0, 5.0]),
    weights=st.sampled_from([0.3, 1.0, 6.0]),
    seed=st.integers(0, 999),
)
def test_a_step_is_that_of_the_readable_tier(model, S, B, dtype, size, weights, seed):
    rng = np.random.default_rng(seed)
    params = {name: weights * value for name, value in model.init(seed, S, dtype).items()}
    x = (size * rng.uniform(0.5, 2, (S, B, model.in_features)) * rng.choice([-1, 1], (S, B, 1))).astype(dtype)
    with np.errstate(all="ignore"):
        target = (model.forward(params, x)[0] * rng.uniform(0.5, 2, (S, B, 1))).astype(dtype)
        (losses, gradient), (expected, dtheta) = one_step(model, params, x, target, dtype)
        exactly = {name: value.astype("float64") for name, value in params.items()}
        _, (truth, slopes) = one_step(model, exactly, x.astype("float64"), target.astype("float64"), "float64")
    sound = np.isfinite(expected) & np.isfinite(dtheta).all(axis=1)
    # Where terms all but cancel float32 keeps few digits, in either tier: as far off as the other it may be.
    for found, readable, exact in (
        (losses[:, None], expected[:, None], truth[:, None]),
        (gradient, dtheta, slopes),
    ):
        scale = np.maximum(np.abs(exact).max(axis=1), truth)[sound]
        allowed = TOLERANCE[dtype] * scale + 10 * np.abs(readable - exact)[sound].max(axis=1, initial=0) + 1e-30
        assert (np.abs(found - exact)[sound] <= allowed[:, None]).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_where_powers_are_not_normal_numbers(dtype):
    """2^p too small, too large, at the ends: as exp, but that nothing is below the smallest normal number."""
    low, high = planes.EXPONENTS[np.dtype(dtype).itemsize]
    p = np.array([low - 50, low, low + 1, 0, 3.5, high - 1, high, high + 50, np.nan], dtype)
    out = np.empty_like(p)
    with np.errstate(all="ignore"):
        planes._exp2(p, out)
    tiny = np.finfo(dtype).tiny
    expected = [tiny, tiny, 2 * tiny, 1, 2**3.5, 2.0 ** (high - 1), np.inf, np.inf, np.nan]
    np.testing.assert_allclose(out, np.array(expected, np.float64).astype(dtype), rtol=1e-6)
    assert np.isnan(p[-1])
    assert p[0] == low - 50  # what comes in stays


def test_what_it_trains():
    adam = nn.Adam()
    for model in (nn.NAC(3, 2), nn.LogNAC(3, 2), nn.NALU(3, 2), nn.chain(nn.NALU(9, 2), nn.NALU(2, 1))):
        assert planes.supports(model, "mse", adam)
        assert not planes.supports(model, "mae", adam)
        assert not planes.supports(model, "mse", nn.SGD())
    for model in (nn.NALU(2, 1, tied=False), nn.NALU(2, 1, gate="scalar"), nn.Dense(2, 1), nn.SumPath(2, 1)):
        assert not planes.supports(model, "mse", adam)
        assert not planes.supports(nn.chain(nn.NAC(3, 2), model), "mse", adam)

    class Other(nn.NAC):
        """What a subclass computes is its own."""

    assert not planes.supports(Other(2, 1), "mse", adam)


def test_chunks_are_of_a_size_that_stays_near_the_processor():
    assert planes.chunk(nn.NALU(2, 1), 128) == 512
    assert planes.chunk(nn.chain(nn.NALU(100, 2), nn.NALU(2, 1)), 128) == 20
    assert planes.chunk(nn.NAC(2, 1), 10**9) == 1


# --- runs -------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.uniform(1, 2, (40, 3))
Y = np.column_stack([X[:, 0] * X[:, 1], X[:, 0] + X[:, 2]])
DATA = {
    "all rows": {"x": X, "y": Y},
    "rows of each": {"x": np.stack([X, X + 1, X + 2]), "y": np.stack([Y, Y, Y])},
    "drawn": {"x": X, "y": Y, "batch": 8},
    "drawn of each": {"x": np.stack([X, X + 1, X + 2]), "y": Y, "batch": 8},
    "task": {"x": lambda rng, n: (x := rng.uniform(1, 2, (n, 3)), x[:, :2] * x[:, 1:]), "batch": 8},
}


def train(model, data, **more):
    options = {"steps": 20, "every": 7, "block": 4, "optimizer": nn.Adam(lr=0.05), "replicas": 3, "seed": 1}
    return nn.fit(model, **DATA[data], validation=(X, Y), **{**options, **more})


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("kinds", [["NALU"], ["NALU", "NALU"], ["NAC"], ["LogNAC"]], ids=str)
def test_a_run_is_that_of_the_readable_tier(kinds, data, monkeypatch):
    model = stack(kinds, [3, 2, 2][: len(kinds) + 1])
    fast = train(model, data, dtype="float64", steps=6, every=2)
    monkeypatch.setattr(planes, "supports", lambda *_: False)
    slow = train(model, data, dtype="float64", steps=6, every=2)
    assert (fast.how["tier"], slow.how["tier"]) == ("planes", "readable")
    for name in ("loss", "valid_loss"):
        np.testing.assert_allclose(fast.history[name], slow.history[name], rtol=1e-7)
    for name, value in slow.params.items():
        np.testing.assert_allclose(fast.params[name], value, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(fast.best_params[name], slow.best_params[name], rtol=1e-6, atol=1e-8)
    assert fast.best == slow.best


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_chunks_and_workers_change_no_bit(data, dtype, monkeypatch):
    """Two replicas in the first chunk and one in the second, in any number of threads; or each alone."""
    model = stack(["NALU", "NALU"], [3, 2, 2])
    monkeypatch.setattr(planes, "chunk", lambda *_: 2)
    whole = train(model, data, dtype=dtype)
    assert whole.how["chunk"] == "2"
    for workers in (2, 5):
        apart = train(model, data, dtype=dtype, workers=workers)
        for name, value in whole.history.items():
            assert value.tobytes() == apart.history[name].tobytes()
        for name, value in whole.params.items():
            assert value.tobytes() == apart.params[name].tobytes()
            assert whole.best_params[name].tobytes() == apart.best_params[name].tobytes()
    if "each" not in data:
        for r in range(3):
            alone = train(model, data, dtype=dtype, replicas=[r])
            for name, value in whole.params.items():
                assert value[r].tobytes() == alone.params[name][0].tobytes()


@settings(max_examples=40, deadline=None)
@given(model=models, S=st.integers(2, 9), B=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_step_has_the_same_bits_alone(model, S, B, seed):
    rng = np.random.default_rng(seed)
    params = model.init(seed, S)
    x = rng.uniform(0.5, 2, (S, B, model.in_features)).astype("float32")
    target = rng.uniform(0.5, 2, (S, B, model.out_features)).astype("float32")
    with np.errstate(all="ignore"):
        (losses, gradient), _ = one_step(model, params, x, target, "float32")
        for s in range(S):
            one = {name: value[s : s + 1] for name, value in params.items()}
            (loss, slopes), _ = one_step(model, one, x[s : s + 1], target[s : s + 1], "float32")
            assert loss.tobytes() == losses[s : s + 1].tobytes()
            assert slopes.tobytes() == gradient[s : s + 1].tobytes()


def test_a_replica_that_diverges_is_frozen_and_the_others_go_on(monkeypatch):
    """Inputs near 0 and negative exponents: some overflow in float32."""
    x = RNG.uniform(1e-12, 1e-9, (30, 5))
    options = {"steps": 30, "every": 10, "replicas": 12, "optimizer": nn.Adam(lr=0.3)}
    fast = nn.fit(nn.NALU(5, 1), x, x[:, :1], **options)
    assert 0 < fast.diverged.sum() < 12
    assert np.isnan(fast.history["loss"][-1][fast.diverged]).all()
    assert np.isfinite(fast.history["loss"][:, ~fast.diverged]).all()
    for value in fast.params.values():
        assert np.isfinite(value).all()
    monkeypatch.setattr(planes, "supports", lambda *_: False)
    slow = nn.fit(nn.NALU(5, 1), x, x[:, :1], **options)
    np.testing.assert_array_equal(fast.diverged, slow.diverged)
    for name, value in slow.params.items():
        np.testing.assert_allclose(fast.params[name], value, rtol=1e-3, atol=1e-4)


def test_planes_are_views_and_not_copies():
    model = nn.chain(nn.NALU(3, 2), nn.NALU(2, 1))
    trainee = planes.Trainee(model, flatten(model.init(0, 4), model.shapes()), nn.Adam())
    assert list(trainee.params) == list(model.shapes())
    for name, shape in model.shapes().items():
        assert trainee.params[name].shape == (*shape, 4)
        assert np.shares_memory(trainee.params[name], trainee.theta)
        assert np.shares_memory(trainee.dparams[name], trainee.gradient)
        np.testing.assert_array_equal(
            np.moveaxis(trainee.params[name], -1, 0), views(trainee.theta.T.copy(), model.shapes())[name]
        )
