"""The fused kernels are held to the readable tier: losses and gradients of a step, and whole runs."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np.kernels import planes
from nalu_np.layer import Chain, flatten, views
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
    trainee = planes.Trainee(model, flatten(params, shapes), nn.Adam())
    workspace = planes.Workspace(trainee, B)
    workspace.x[...], workspace.target[...] = np.moveaxis(x, 2, 0), np.moveaxis(target, 2, 0)
    workspace.gradients(1, fresh=True)
    losses = trainee.records[0]
    y, vjp = model.forward(params, x)
    expected, loss_vjp = mse(y, target)
    _, dparams = vjp(loss_vjp(np.ones(S, dtype)), need_dx=False)
    return (losses, trainee.g.T), (expected, flatten(dparams, shapes))


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


@settings(max_examples=40, deadline=None)
@given(model=models, S=st.integers(1, 3), B=st.integers(1, 9), seed=st.integers(0, 99))
def test_two_products_are_that_of_the_stack(model, S, B, seed):
    """Where the stack is large, its zeros are left out: the same numbers, by two products instead of one."""
    rng = np.random.default_rng(seed)
    params = model.init(seed, S, "float64")
    x, target = (rng.uniform(0.5, 2, (S, B, n)) for n in (model.in_features, model.out_features))
    (losses, gradient), _ = one_step(model, params, x, target, "float64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "WIDE", 1)
        (losses_apart, gradient_apart), _ = one_step(model, params, x, target, "float64")
    np.testing.assert_allclose(losses_apart, losses, rtol=1e-12)
    np.testing.assert_allclose(gradient_apart, gradient, rtol=1e-9, atol=1e-12 * np.abs(gradient).max())


def run_once(model, weights, x, dtype):
    """Losses, gradients by name and the last unit's outputs (O, S, B) of one replica with these parameters."""
    params = {name: np.array(value, dtype).reshape(1, *model.shapes()[name]) for name, value in weights.items()}
    trainee = planes.Trainee(model, flatten(params, model.shapes()), nn.Adam())
    workspace = planes.Workspace(trainee, len(x))
    workspace.x[...], workspace.target[...] = np.array(x, dtype).T[:, None], 0
    with np.errstate(all="ignore"):
        workspace.gradients(1, fresh=True)
    return workspace


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_where_powers_are_not_normal_numbers(dtype):
    """2^p too small, too large, at the ends: as exp, but that nothing is below the smallest normal number."""
    low, high = planes.EXPONENTS[np.dtype(dtype).itemsize]
    unit = run_once(nn.LogNAC(1, 1), {"W_hat": [0], "M_hat": [0]}, [[1.0]] * 9, dtype).units[0]
    p = np.array([low - 50, low, low + 1, 0, 3.5, high - 1, high, high + 50, np.nan], dtype)
    unit.p[:] = p
    with np.errstate(all="ignore"):
        unit._powers()
    tiny = np.finfo(dtype).tiny
    expected = [tiny, tiny, 2 * tiny, 1, 2**3.5, 2.0 ** (high - 1), np.inf, np.inf, np.nan]
    np.testing.assert_allclose(unit.p.ravel(), np.array(expected, np.float64).astype(dtype), rtol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("side", [-1, 1])
def test_a_gate_that_is_shut_or_open_as_far_as_numbers_go(dtype, side):
    """Inputs of 2,000 on a gate of 1: y is m where g = 0, and a where g = 1, and G has no slope to speak of."""
    model = nn.NALU(2, 1)
    weights = {"W_hat": [20, 20], "M_hat": [40, 40], "G": [side, side]}
    x = [[2000.0, 1500.0], [3.0, 2000.0]]
    workspace = run_once(model, weights, x, dtype)
    sums, products = np.sum(x, axis=1), np.prod(x, axis=1)
    workspace_y = workspace.units[0].a if side > 0 else workspace.units[0].p
    np.testing.assert_allclose(workspace_y.ravel(), sums if side > 0 else products, rtol=2e-6)
    np.testing.assert_allclose(workspace.y.ravel(), sums if side > 0 else products, rtol=2e-6)  # e = y - 0
    assert np.isfinite(workspace.trainee.g).all()
    assert (np.abs(workspace.trainee.dparams["G"]) < 1e-10).all()


def test_what_it_trains():
    adam = nn.Adam()
    for model in (nn.NAC(3, 2), nn.LogNAC(3, 2), nn.NALU(3, 2), nn.chain(nn.NALU(9, 2), nn.NALU(2, 1))):
        assert planes.supports(model, "mse", adam)
        assert not planes.supports(model, "mae", adam)
        assert not planes.supports(model, "mse", nn.SGD())
    for model in (nn.NALU(2, 1, tied=False), nn.NALU(2, 1, gate="scalar"), nn.Dense(2, 1), nn.SumPath(2, 1)):
        assert not planes.supports(model, "mse", adam)
        assert not planes.supports(nn.chain(nn.NAC(3, 2), model), "mse", adam)


def own(cls, **methods):
    """A subclass with methods of its own."""
    return type("Own", (cls,), methods)


@pytest.mark.parametrize("cls", UNITS.values(), ids=list(UNITS))
def test_a_subclass_may_bring_all_but_equations(cls):
    others = dict.fromkeys(("penalty", "project", "draw"), lambda *_: None)
    assert planes.kind(own(cls, **others)(2, 1)) is cls
    for method in planes.EQUATIONS:
        if hasattr(cls, method):
            other = own(cls, **{method: functools.partialmethod(getattr(cls, method))})
            assert planes.kind(other(2, 1)) is None


def test_chunks_are_of_a_size_that_stays_near_the_processor():
    assert planes.chunk(nn.NALU(2, 1), 128) == 1024
    assert planes.chunk(nn.chain(nn.NALU(100, 2), nn.NALU(2, 1)), 128) == 40
    assert planes.chunk(nn.NAC(2, 1), 10**9) == 1
    assert planes.chunk(nn.NALU(512, 512), 1) == 1
    assert planes.chunk(nn.NALU(2, 64), 128) == 64


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


def pull(self, params, x, step):
    """A penalty that grows with the steps and looks at the data: (step / 10) mean(x^2) sum(M_hat^2)."""
    M_hat, size = params["M_hat"], step / 10 * (x * x).mean(axis=(-2, -1))
    value = size * (M_hat * M_hat).sum(axis=(1, 2))
    return value, {name: 0 * q if name != "M_hat" else 2 * size[:, None, None] * q for name, q in params.items()}


def clamp(self, params):
    """W_hat in [-1, 1]."""
    return {**params, "W_hat": np.clip(params["W_hat"], -1, 1)}


@pytest.mark.parametrize("data", ["rows of each", "drawn of each", "task"])
@pytest.mark.parametrize("cls", UNITS.values(), ids=list(UNITS))
def test_penalty_and_projection_are_those_of_the_readable_tier(cls, data, monkeypatch):
    """In one unit, and in the second of two."""
    bound = own(cls, penalty=pull, project=clamp)
    for model in (bound(3, 2), nn.chain(nn.NAC(3, 2), bound(2, 2))):
        fast = train(model, data, dtype="float64", steps=8, every=2)
        with monkeypatch.context() as patch:
            patch.setattr(planes, "supports", lambda *_: False)
            slow = train(model, data, dtype="float64", steps=8, every=2)
        assert (fast.how["tier"], slow.how["tier"]) == ("planes", "readable")
        assert (fast.history["penalty"] > 0).all()
        for name, value in slow.history.items():
            np.testing.assert_allclose(fast.history[name], value, rtol=1e-7)
        for name, value in slow.params.items():
            np.testing.assert_allclose(fast.params[name], value, rtol=1e-6, atol=1e-8)
        last = fast.params["W_hat" if model.shapes().keys() >= {"W_hat"} else "1.W_hat"]
        assert np.abs(last).max() == 1  # something was clamped


@pytest.mark.parametrize("tier", ["planes", "readable"])
def test_a_penalty_may_begin_late(tier, monkeypatch):
    """Until it begins it is recorded as 0, in both tiers."""
    monkeypatch.setattr(planes, "supports", lambda *_: tier == "planes")
    late = own(nn.NAC, penalty=lambda self, params, x, step: pull(self, params, x, step) if step > 4 else None)
    found = train(late(3, 2), "rows of each", dtype="float64", steps=8, every=2)
    assert found.how["tier"] == tier
    np.testing.assert_array_equal(found.history["penalty"][:2], 0)
    assert (found.history["penalty"][2:] > 0).all()


def norm(self, params):
    """Columns of W_hat of length 1 at most: sums whose bits depend on where their terms lie."""
    W_hat = params["W_hat"]
    return {**params, "W_hat": W_hat / np.maximum(np.sqrt((W_hat * W_hat).sum(axis=-1, keepdims=True)), 1)}


def square(self, params, x, step):
    """A penalty with sums of many terms."""
    W_hat = params["W_hat"]
    value = (W_hat * W_hat).sum(axis=(-1)).sum(axis=-1) * (x * x).sum(axis=-1).sum(axis=-1)
    return value, {name: q * 0.01 for name, q in params.items()}


@pytest.mark.parametrize(
    "methods", [{"project": norm}, {"penalty": square}, {}], ids=["project", "penalty", "none"]
)
def test_penalty_projection_and_loss_have_the_same_bits_alone(methods):
    """With many outputs, over which losses and such methods sum."""
    x = RNG.uniform(1, 2, (30, 8))
    y = x @ RNG.uniform(-1, 1, (8, 40))
    options = {"steps": 12, "every": 1, "optimizer": nn.Adam(lr=0.05)}
    whole = nn.fit(own(nn.NAC, **methods)(8, 40), x, y, replicas=3, **options)
    assert whole.how["tier"] == "planes"
    for r in range(3):
        alone = nn.fit(own(nn.NAC, **methods)(8, 40), x, y, replicas=[r], **options)
        for name, value in whole.history.items():
            assert value[:, r].tobytes() == alone.history[name][:, 0].tobytes()
        for name, value in whole.params.items():
            assert value[r].tobytes() == alone.params[name][0].tobytes()


def test_exponents_at_their_bounds_have_the_same_bits_alone():
    """One replica just below where exponents are bounded, beside one far beyond."""
    model = nn.chain(nn.NALU(2, 1), nn.LogNAC(1, 1))
    x = np.full((4, 2), 4e9, "float32")
    params = {name: np.full((2, *shape), 0.1, "float32") for name, shape in model.shapes().items()}
    params["0.W_hat"][:] = params["0.M_hat"][:] = 20.0
    params["0.G"][:] = np.array([-5.5e-9, -1.0])[:, None, None]
    options = {"steps": 5, "every": 1, "optimizer": nn.Adam(lr=0.01)}
    both = nn.fit(model, x, np.ones((4, 1)), params=params, replicas=2, **options)
    first = {name: value[:1] for name, value in params.items()}
    alone = nn.fit(model, x, np.ones((4, 1)), params=first, replicas=1, **options)
    for name, value in both.params.items():
        assert value[0].tobytes() == alone.params[name][0].tobytes()


@pytest.mark.parametrize("size", [1e8, 1e12, 1e14])
def test_huge_products_behind_a_shut_gate_stay_finite(size):
    """m up to about 2^99, whose square would not fit into float32, in front of a logarithm."""
    model = nn.chain(nn.NALU(2, 1), nn.LogNAC(1, 1))
    params = {name: np.full((1, *shape), 20.0, "float32") for name, shape in model.shapes().items()}
    params["0.G"][:] = -1.0
    params["1.W_hat"][:] = 0.1
    x = np.full((1, 3, 2), size, "float32")
    target = np.full((1, 3, 1), 10.0, "float32")
    with np.errstate(all="ignore"):
        (losses, gradient), (expected, slopes) = one_step(model, params, x, target, "float32")
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-3, atol=1e-4 * np.abs(slopes).max())


def test_a_chain_of_ones_own_is_not_trained_as_a_plain_one():
    """Its forward pass and its penalty count, in the readable tier."""

    class Ten(Chain):
        def forward(self, params, x, **more):
            y, vjp = super().forward(params, x, **more)
            return 10 * y, lambda dy, need_dx=True: vjp(10 * dy, need_dx)

        def penalty(self, params, x, step):
            return np.ones(len(params["0.W_hat"])), {name: 0 * q for name, q in params.items()}

    model = Ten([nn.NAC(3, 2), nn.NAC(2, 2)])
    assert not planes.supports(model, "mse", nn.Adam())
    found = train(model, "rows of each", steps=2, every=1)
    assert found.how["tier"] == "readable"
    np.testing.assert_array_equal(found.history["penalty"], 1)


def test_a_replica_whose_penalty_or_projection_is_not_finite_is_frozen(monkeypatch):
    """Replica 1 alone, from step 3 on; its losses are NaN and its parameters those before that step."""

    def spoil(params, step=3):
        value = np.ones(3) * (step < 3)
        value[1] = 1 if step < 3 else np.nan
        return value, {name: 0 * q for name, q in params.items()}

    broken = own(nn.NAC, penalty=lambda self, params, x, step: spoil(params, step))
    plain = train(nn.NAC(3, 2), "rows of each", dtype="float64", steps=2, every=1)
    found = train(broken(3, 2), "rows of each", dtype="float64", steps=6, every=1)
    assert found.diverged.tolist() == [False, True, False]
    assert np.isnan(found.history["loss"][:, 1]).tolist() == [False, False, True, True, True, True]
    assert found.params["W_hat"][1].tobytes() == plain.params["W_hat"][1].tobytes()
    assert found.params["W_hat"][0].tobytes() != plain.params["W_hat"][0].tobytes()

    def blow(self, params):
        W_hat = params["W_hat"].copy()
        W_hat[1] = np.inf
        return {**params, "W_hat": W_hat}

    found = train(own(nn.NAC, project=blow)(3, 2), "rows of each", dtype="float64", steps=3, every=1)
    assert found.diverged.tolist() == [False, True, False]
    start = nn.NAC(3, 2).init(1, 3, "float64")
    np.testing.assert_array_equal(found.params["W_hat"][1], start["W_hat"][1])


def test_planes_are_views_and_not_copies():
    model = nn.chain(nn.NALU(3, 2), nn.NALU(2, 1))
    trainee = planes.Trainee(model, flatten(model.init(0, 4), model.shapes()), nn.Adam())
    assert list(trainee.params) == list(model.shapes())
    for name, shape in model.shapes().items():
        assert trainee.params[name].shape == (4, *shape)
        assert np.shares_memory(trainee.params[name], trainee.theta)
        assert np.shares_memory(trainee.dparams[name], trainee.g)
        np.testing.assert_array_equal(trainee.params[name], views(trainee.theta.T.copy(), model.shapes())[name])
