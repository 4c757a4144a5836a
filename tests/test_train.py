"""`fit`: replicas never meet, records say what happened, options mean what they say; and the optimisers."""

import itertools
import math
from dataclasses import KW_ONLY, FrozenInstanceError, dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np.backend import Streams, dtype_name, from_numpy, namespace
from nalu_np.errors import DTypeError, NaluError, OptionError, ParameterError, ShapeError
from nalu_np.kernels import planes
from nalu_np.layer import Layer
from nalu_np.vjps import linear

# --- layers that only tests need ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear(Layer):
    """y = x W."""

    def shapes(self):
        return {"W": (self.in_features, self.out_features)}

    def draw(self, name, rng):
        return rng.uniform(-0.5, 1.5, self._shapes[name])

    def forward(self, params, x, *, rng=None, train=False, keep=None):
        a, sum_vjp = linear(x, params["W"])

        def vjp(dy, need_dx=True):
            dx, dW = sum_vjp(dy, need_dx)
            return dx, {"W": dW}

        return a, vjp


@dataclass(frozen=True)
class Clamped(Linear):
    """y = x W with 0 <= W <= 1, and an L2 penalty that grows over three steps: 0.1 min(step, 3) sum(W^2)."""

    def penalty(self, params, x, step):
        xp, W, weight = namespace(x, params["W"]), params["W"], 0.1 * min(step, 3)
        return weight * xp.sum(xp.sum(W * W, axis=-1), axis=-1), {"W": 2 * weight * W}

    def project(self, params):
        xp = namespace(params["W"])
        return {"W": xp.minimum(xp.maximum(params["W"], 0.0), 1.0)}


@dataclass(frozen=True)
class Noisy(Linear):
    """y = x W + noise, in training."""

    def forward(self, params, x, *, rng=None, train=False, keep=None):
        y, vjp = super().forward(params, x)
        if train:
            y = y + rng.stack(lambda generator: generator.normal(0, 0.1, y.shape[-2:]), dtype_name(y.dtype))
        return y, vjp


@dataclass(frozen=True)
class Trap(Linear):
    """y = x W, until an input is above 900: from then on, what `where` names is infinite."""

    _: KW_ONLY
    where: str

    def sprung(self, x):
        """One number a replica: 0, or more where the trap is sprung."""
        xp = namespace(x)
        return xp.sum(xp.sum(xp.where(x > 900, x, xp.zeros_like(x)), axis=-1), axis=-1)

    def forward(self, params, x, *, rng=None, train=False, keep=None):
        y, linear_vjp = super().forward(params, x)
        xp, sprung = namespace(x), self.sprung(x)[..., None, None] > 0
        if self.where == "loss":
            y = xp.where(sprung, y * math.inf, y)
        planted = {
            "gradient": math.inf,
            "update": -3e38,
            "clamped update": -3e38,
            "state": 1e30,
            "projection": -1e25,
        }

        def vjp(dy, need_dx=True):
            dx, dparams = linear_vjp(dy, need_dx)
            dW = dparams["W"]
            if self.where in planted:
                dW = xp.where(sprung, xp.zeros_like(dW) + planted[self.where], dW)
            return dx, {"W": dW}

        return y, vjp

    def penalty(self, params, x, step):
        if self.where != "penalty":
            return None
        xp, sprung = namespace(x), self.sprung(x)
        return xp.where(sprung > 0, sprung * math.inf, sprung), {"W": xp.zeros_like(params["W"])}

    def project(self, params):
        xp, W = namespace(params["W"]), params["W"]
        if self.where == "clamped update":
            return {"W": xp.minimum(W, 5.0)}
        if self.where == "projection":
            return {"W": xp.where(W > 1e20, W * math.nan, W)}
        return params


# --- data and comparisons -------------------------------------------------------------------------------------


def rows(n=20, outputs=1, features=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 2, (n, features)), rng.uniform(-1, 1, (n, outputs))


def sequences(n=20, outputs=1, features=2, time=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 2, (time, n, features)), rng.uniform(-1, 1, (time, n, outputs))


def to_host(params):
    return {name: nn.to_numpy(value) for name, value in params.items()}


def assert_same(result, expected, *, of=slice(None), tolerance=None):
    """Replica by replica the same run, to the bit or within a relative tolerance; `of` picks from the expected."""

    def same(found, wanted):
        if tolerance is None:
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
        else:
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)

    for found, wanted in [(result.params, expected.params), (result.best_params, expected.best_params)]:
        found, wanted = to_host(found), to_host(wanted)
        assert list(found) == list(wanted)
        for name in wanted:
            same(found[name], wanted[name][of])
    assert list(result.history) == list(expected.history)
    for name, wanted in expected.history.items():
        same(result.history[name], wanted[:, of])
    np.testing.assert_array_equal(result.diverged, expected.diverged[of])


MODELS = {
    "NAC": nn.NAC(2, 2),
    "LogNAC": nn.LogNAC(2, 1),
    "NALU": nn.NALU(2, 2),
    "NALU of two NACs": nn.NALU(3, 1, tied=False, gate="independent"),
    "Dense": nn.Dense(1, 1, activation="tanh"),
    "relu": nn.Dense(2, 3, activation="relu6"),
    "chain": nn.chain(nn.Dense(2, 3, activation="sigmoid"), nn.NALU(3, 1, gate="scalar")),
    "scan": nn.scan(nn.Accumulator(nn.NAC(2, 2))),
    "scan of a NALU": nn.chain(nn.scan(nn.Accumulator(nn.NALU(2, 2))), nn.scan(nn.Accumulator(nn.Dense(2, 1)))),
    "clamped": nn.chain(Clamped(2, 2), Clamped(2, 1)),
    "noisy": nn.chain(Noisy(2, 2), nn.NAC(2, 1)),
}
KINDS = ["all rows", "rows drawn", "task", "rows of each replica", "drawn from rows of each replica"]


def training(model, kind, numbers, *, n=9, batch=4, **options):
    """`fit` on one kind of data, that of a replica decided by its number."""
    draw = rows if model.rank == 2 else sequences

    def sample(rng, count):
        x, y = draw(count, model.out_features, model.in_features, seed=int(rng.integers(1 << 30)))
        return x, y + rng.uniform(size=y.shape)

    if kind == "task":
        return nn.fit(model, sample, batch=batch, replicas=numbers, **options)
    if "each replica" in kind:
        pairs = [draw(n, model.out_features, model.in_features, seed=r) for r in numbers]
        x, y = (np.stack(part) for part in zip(*pairs, strict=True))
    else:
        x, y = draw(n, model.out_features, model.in_features)
    if "drawn" in kind:
        options["batch"] = min(batch, n)
    return nn.fit(model, x, y, replicas=numbers, **options)


# --- replicas never meet --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_replica_does_not_depend_on_those_beside_it(kind, device):
    @settings(max_examples=60 if device == "numpy" else 12, deadline=None)
    @given(
        model=st.sampled_from(list(MODELS.values())),
        replicas=st.integers(1, 7).flatmap(
            lambda S: st.tuples(st.just(S), st.lists(st.integers(0, S - 1), min_size=1, max_size=S, unique=True))
        ),
        options=st.fixed_dictionaries(
            {
                "steps": st.integers(1, 12),
                "every": st.integers(1, 5),
                "block": st.integers(1, 5),
                "n": st.integers(1, 20),
                "batch": st.integers(1, 9),
                "seed": st.integers(0, 99),
                "dtype": st.sampled_from(["float32", "float64"]),
                "loss": st.sampled_from(["mse", "mae"]),
                "optimizer": st.sampled_from([nn.Adam(lr=0.1), nn.SGD(lr=0.1)]),
                "shared_batches": st.booleans(),
            }
        ),
    )
    def holds(model, replicas, options):
        S, chosen = replicas
        together = training(model, kind, list(range(S)), **options)
        apart = training(model, kind, chosen, **options)
        assert_same(apart, together, of=chosen, tolerance=1e-4 if device == "cupy" else None)

    holds()


def test_replica_17_of_many(device):
    x, y = rows()
    many = nn.fit(nn.NALU(2, 1), x, y, batch=4, steps=40, replicas=64, validation=rows(5, seed=1))
    alone = nn.fit(nn.NALU(2, 1), x, y, batch=4, steps=40, replicas=[17], validation=rows(5, seed=1))
    assert_same(alone, many, of=[17], tolerance=1e-4 if device == "cupy" else None)
    assert alone.best == 0


def test_a_count_is_the_first_replicas():
    x, y = rows()
    count = nn.fit(nn.NAC(2, 1), x, y, steps=3, replicas=3)
    assert_same(count, nn.fit(nn.NAC(2, 1), x, y, steps=3, replicas=[0, 1, 2]))
    assert count.diverged.shape == (3,)
    assert nn.fit(nn.NAC(2, 1), x, y, steps=3).diverged.shape == (1,)


def test_replicas_and_seeds_differ():
    losses = [
        loss
        for seed in range(3)
        for loss in training(MODELS["NAC"], "task", [0, 1, 2], steps=2, seed=seed).history["loss"][0]
    ]
    assert len(set(losses)) == 9


# --- batches that all share -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["NALU", "relu", "noisy", "scan", "clamped"])
def test_shared_batches_are_those_of_replica_0(name, kind, device):
    """So that replica 0 trains as ever; and others with them, whether it is there or not."""
    options = {"steps": 7, "block": 3, "seed": 4, "dtype": "float64", "optimizer": nn.Adam(lr=0.1)}
    own = training(MODELS[name], kind, [0, 1, 2], **options)
    shared = training(MODELS[name], kind, [0, 1, 2], shared_batches=True, **options)
    assert_same(
        training(MODELS[name], kind, [0], **options),
        training(MODELS[name], kind, [0], shared_batches=True, **options),
        tolerance=1e-9,
    )
    np.testing.assert_allclose(shared.history["loss"][:, 0], own.history["loss"][:, 0], rtol=1e-9)
    np.testing.assert_array_equal(
        shared.history["loss"][:, 1:] == own.history["loss"][:, 1:], "drawn" not in kind and kind != "task"
    )
    drawn = "drawn" in kind or kind == "task"
    assert shared.how["data"] == f"{own.how['data']}{', shared' if drawn else ''}"


@pytest.mark.parametrize("model", [nn.NALU(2, 1), nn.Dense(2, 1), nn.chain(nn.NAC(2, 2), nn.NAC(2, 1))], ids=repr)
def test_the_same_start_and_shared_batches_make_the_same_run(model, device):
    """All there is beside the batches are the initial values."""
    start = nn.replica(model.init(0, 1, "float64"), 0)
    options = {"steps": 9, "dtype": "float64", "params": start, "optimizer": nn.Adam(lr=0.1)}
    shared = training(model, "task", [2, 5, 7], shared_batches=True, **options)
    own = training(model, "task", [2, 5, 7], **options)
    for value in to_host(shared.params).values():
        np.testing.assert_array_equal(value, value[:1].repeat(3, axis=0))
    for value in to_host(own.params).values():
        assert (value[0] != value[1]).any()
        assert (value[1] != value[2]).any()


@pytest.mark.parametrize("kind", ["rows drawn", "task", "drawn from rows of each replica"])
def test_chunks_and_workers_change_nothing_that_is_shared(kind, monkeypatch):
    options = {"steps": 9, "block": 2, "every": 5, "shared_batches": True}
    monkeypatch.setattr(planes, "chunk", lambda *_: 2)
    whole = training(nn.NALU(2, 1), kind, list(range(5)), **options)
    assert_same(training(nn.NALU(2, 1), kind, list(range(5)), workers=3, **options), whole)
    for r in range(5):
        assert_same(training(nn.NALU(2, 1), kind, [r], **options), whole, of=[r])


@pytest.mark.parametrize("name", ["NALU", "relu"])
def test_a_task_is_asked_once_for_all(name):
    calls = []

    def sample(rng, n):
        calls.append(n)
        return rows(n, MODELS[name].out_features)

    for shared, expected in ((True, 2), (False, 2 * 50)):
        calls.clear()
        nn.fit(MODELS[name], sample, batch=3, block=4, steps=8, replicas=50, shared_batches=shared)
        assert calls == [12] * expected


# --- initial parameters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["NALU", "chain", "scan", "clamped"])
def test_given_parameters_are_where_training_begins(name, kind, device):
    model, numbers = MODELS[name], [1, 4]
    options = {"steps": 6, "seed": 3, "dtype": "float64"}
    drawn = training(model, kind, numbers, **options)
    given = training(model, kind, numbers, params=model.init(3, numbers, "float64"), **options)
    assert_same(given, drawn)
    other = training(model, kind, numbers, params=model.init(2, numbers, "float64"), **options)
    assert (other.history["loss"][0] != drawn.history["loss"][0]).all()


def test_parameters_without_replicas_are_those_of_all(device):
    model = nn.NALU(2, 1)
    one, options = model.init(5), {"steps": 3, "batch": 4, "replicas": 3}
    repeated = {name: np.stack([nn.to_numpy(value)] * 3) for name, value in one.items()}
    expected = nn.fit(model, *rows(), params=repeated, **options)  # these are of NumPy, wherever training is
    assert_same(nn.fit(model, *rows(), params=one, **options), expected)


def test_training_goes_on_with_another_optimiser(device):
    """Plain descent has no memory: two halves are one whole."""
    options = {"replicas": 3, "every": 4, "dtype": "float64"}
    whole = nn.fit(nn.Dense(2, 1), *rows(), steps=8, optimizer=nn.SGD(lr=0.1), **options)
    half = nn.fit(nn.Dense(2, 1), *rows(), steps=4, optimizer=nn.SGD(lr=0.1), **options)
    rest = nn.fit(nn.Dense(2, 1), *rows(), steps=4, optimizer=nn.SGD(lr=0.1), params=half.params, **options)
    for name, value in to_host(whole.params).items():
        np.testing.assert_array_equal(nn.to_numpy(rest.params[name]), value)
    np.testing.assert_array_equal(rest.history["loss"], whole.history["loss"][1:])
    assert nn.fit(nn.Dense(2, 1), *rows(), steps=4, params=rest.params, **options).history["loss"].shape == (1, 3)


@pytest.mark.parametrize("model", [nn.NALU(2, 1), nn.Dense(2, 1)], ids=repr)
def test_given_parameters_are_only_read(model):
    start = model.init(0, 3)
    kept = {name: value.copy() for name, value in start.items()}
    for value in start.values():
        value.flags.writeable = False
    nn.fit(model, *rows(), steps=5, replicas=3, params=start)
    for name, value in start.items():
        np.testing.assert_array_equal(value, kept[name])


# --- the two libraries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_library_computes_the_same(name, kind, device):
    """On the fake CuPy any hidden sync raises; on NumPy this says that a run repeats to the bit."""

    def run():
        held_out = (rows if MODELS[name].rank == 2 else sequences)(
            4, MODELS[name].out_features, MODELS[name].in_features, seed=3
        )
        options = {"optimizer": nn.Adam(lr=0.05), "validation": held_out, "dtype": "float64"}
        return training(MODELS[name], kind, [0, 3], steps=12, every=5, block=4, **options)

    found = run()
    nn.use_backend("numpy")
    assert_same(found, run(), tolerance=None if device == "numpy" else 1e-9)
    assert found.how["backend"] == ("numpy" if device == "numpy" else "cupy")
    assert not found.diverged.any()


@pytest.mark.parametrize("name", MODELS)
def test_float32_stays_float32(name, fake_cupy_float32):
    """The device has no float64: one upcast, anywhere in training, raises."""
    model = MODELS[name]
    draw = rows if model.rank == 2 else sequences
    held_out = draw(4, model.out_features, model.in_features, seed=3)
    found = training(model, "rows drawn", [0, 3], steps=6, every=4, validation=held_out)
    nn.use_backend("numpy")
    expected = training(model, "rows drawn", [0, 3], steps=6, every=4, validation=held_out)
    assert {value.dtype for value in expected.params.values()} == {np.dtype("float32")}
    assert {value.dtype for value in expected.best_params.values()} == {np.dtype("float32")}
    assert_same(found, expected, tolerance=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [nn.SGD(), nn.Adam()])
def test_the_option_decides_the_dtype(dtype, optimizer, device):
    x, y = rows()
    result = nn.fit(nn.NALU(2, 1), x.astype("float16"), y, steps=2, dtype=dtype, optimizer=optimizer)
    assert {dtype_name(value.dtype) for value in {**result.params, **result.best_params}.values()} == {dtype}
    assert result.how["dtype"] == dtype
    assert result.history["loss"].dtype == np.float64


def test_steps_move_nothing(fake_cupy):
    """Data goes to the device once, or once a block; records come back once a segment."""

    def moves(**options):
        fake_cupy.moves.clear()
        nn.fit(nn.NALU(2, 1), *rows(), replicas=3, **options)
        return np.array([fake_cupy.moves["to device"], fake_cupy.moves["to host"]])

    base = moves(steps=8, every=8)
    assert tuple(moves(steps=64, every=64) - base) == (0, 0)
    assert tuple(moves(steps=64, every=8) - base) == (0, 7)
    drawn = moves(steps=8, every=64, batch=4, block=8)
    assert tuple(moves(steps=64, every=64, batch=4, block=8) - drawn) == (2 * 7, 0)
    assert tuple(moves(steps=64, every=64, batch=4, block=64) - drawn) == (0, 0)


def test_data_may_lie_on_the_device(device):
    x, y = rows()
    expected = nn.fit(nn.NAC(2, 1), x, y, steps=3, dtype="float64")
    moved = nn.fit(nn.NAC(2, 1), from_numpy(x, "float64"), from_numpy(y, "float64"), steps=3, dtype="float64")
    assert_same(moved, expected)


def test_inputs_are_only_read():
    x, y = rows()
    expected = nn.fit(nn.NAC(2, 1), x, y, steps=3, batch=4, validation=(x, y))
    for array in (x, y):
        array.flags.writeable = False
    assert_same(nn.fit(nn.NAC(2, 1), x, y, steps=3, batch=4, validation=(x, y)), expected)


def test_lists_and_integers_are_data():
    as_lists = nn.fit(nn.NAC(2, 1), [[1, 2], [3, 4]], [[3], [7]], steps=2)
    assert_same(as_lists, nn.fit(nn.NAC(2, 1), np.array([[1.0, 2], [3, 4]]), np.array([[3.0], [7]]), steps=2))


# --- closed forms: the loop, written out ----------------------------------------------------------------------


def drawn_rows(r, n, steps, batch, block, seed):
    """The rows of each step, from the definition of a run: SeedSequence(seed, spawn_key=(replica, DATA=1))."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(r, 1))))
    blocks = [
        rng.integers(n, size=block * batch, dtype=np.uint16).reshape(block, batch)
        for _ in range(-(-steps // block))
    ]
    return np.concatenate(blocks)[:steps]


@pytest.mark.parametrize("loss", ["mse", "mae"])
@pytest.mark.parametrize("batch", [None, 3])
def test_descent_on_a_linear_layer_is_the_loop_written_out(loss, batch, device):
    x, y = rows(8, outputs=2)
    lr, steps, numbers = 0.1, 11, [0, 4]
    options = {"optimizer": nn.SGD(lr=lr), "dtype": "float64", "seed": 5, "replicas": numbers, "block": 4}
    model = nn.Dense(2, 2)
    result = nn.fit(model, x, y, loss=loss, batch=batch, steps=steps, every=1, **options)
    start = to_host(model.init(5, numbers, "float64"))
    for s, r in enumerate(numbers):
        W, b = start["W"][s], start["b"][s]
        chosen = drawn_rows(r, 8, steps, batch, 4, seed=5) if batch else [np.arange(8)] * steps
        for t in range(steps):
            xt, yt = x[chosen[t]], y[chosen[t]]
            d = xt @ W + b - yt
            value = (d**2).mean() if loss == "mse" else np.abs(d).mean()
            dy = (2 * d if loss == "mse" else np.sign(d)) / d.size
            assert result.history["loss"][t, s] == pytest.approx(value, rel=1e-12)
            W, b = W - lr * xt.T @ dy, b - lr * dy.sum(axis=0)
        np.testing.assert_allclose(nn.to_numpy(result.params["W"])[s], W, rtol=1e-11)
        np.testing.assert_allclose(nn.to_numpy(result.params["b"])[s], b, rtol=1e-11)


def test_adam_on_a_linear_layer_is_the_loop_written_out(device):
    x, y = rows(8)
    lr, b1, b2, eps, steps, numbers = 0.1, 0.8, 0.95, 1e-3, 11, [0, 4]
    adam, model = nn.Adam(lr=lr, betas=(b1, b2), eps=eps), nn.Dense(2, 1, bias=False)
    result = nn.fit(model, x, y, steps=steps, every=4, optimizer=adam, dtype="float64", replicas=numbers)
    for s, W in enumerate(nn.to_numpy(model.init(0, numbers, "float64")["W"])):
        m = v = 0.0
        for t in range(1, steps + 1):
            d = x @ W - y
            g = x.T @ (2 * d / d.size)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            W = W - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        np.testing.assert_allclose(nn.to_numpy(result.params["W"])[s], W, rtol=1e-10)


@pytest.mark.parametrize(("loss", "value"), [("mse", (4 + 9 + 1 + 0) / 4), ("mae", (2 + 3 + 1 + 0) / 4)])
def test_the_losses_by_hand(loss, value, device):
    """All weights 0: y = 0, so that the first loss is that of the targets."""
    model = nn.Dense(1, 2, bias=False, initializer="truncated_normal")
    x, y = np.full((2, 1), 1e-30), np.array([[2.0, -3.0], [1.0, 0.0]])
    result = nn.fit(model, x, y, loss=loss, steps=1, dtype="float64")
    assert result.history["loss"][0, 0] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("kind", ["shared", "of each replica", "drawn", "task"])
def test_sequences_are_time_first(kind, device):
    """scan(Accumulator(linear)) is linear in the running sums of its inputs."""
    lr, steps, T, N, numbers = 0.05, 7, 3, 4, [0, 1, 2]  # as many replicas as steps of time
    x, y = sequences(N, time=T)
    options = {"optimizer": nn.SGD(lr=lr), "dtype": "float64", "replicas": numbers, "block": 4, "steps": steps}
    model = nn.scan(nn.Accumulator(nn.Dense(2, 1, bias=False)))
    if kind == "task":
        result = nn.fit(model, lambda rng, n: sequences(n, time=T), batch=2, **options)
        tasks = sequences(8, time=T)  # block * batch rows
        chosen = [np.arange(8).reshape(4, 2)[t % 4] for t in range(steps)]
    elif kind == "drawn":
        result = nn.fit(model, x, y, batch=2, **options)
    elif kind == "shared":
        result = nn.fit(model, x, y, **options)
    else:
        result = nn.fit(model, np.stack([x, 2 * x, 3 * x]), np.stack([y, y, y]), **options)
    for s, r in enumerate(numbers):
        W = nn.to_numpy(model.init(0, [r], "float64")["W"])[0]
        xs, ys = tasks if kind == "task" else (x, y)
        xs = np.cumsum(xs * (s + 1 if kind == "of each replica" else 1), axis=0)
        if kind == "drawn":
            chosen = drawn_rows(r, N, steps, 2, 4, seed=0)
        for t in range(steps):
            xt, yt = (part[:, chosen[t]] if kind in ("drawn", "task") else part for part in (xs, ys))
            d = xt @ W - yt
            W = W - lr * np.einsum("tbi,tbo->io", xt, 2 * d / d.size)
        np.testing.assert_allclose(nn.to_numpy(result.params["W"])[s], W, rtol=1e-11)


def test_a_nac_learns_to_subtract():
    x, _ = rows(50)
    result = nn.fit(nn.NAC(2, 1), x, x[:, :1] - x[:, 1:], optimizer=nn.Adam(lr=0.05), steps=2000, replicas=4)
    values = nn.NAC(2, 1).values(nn.replica(result.best_params, result.best), x.astype("float32"))
    np.testing.assert_allclose(values["W"], [[1], [-1]], atol=0.03)
    assert result.history["loss"][-1].min() < 1e-3


def test_adam_is_the_default():
    x, y = rows()
    assert_same(nn.fit(nn.NAC(2, 1), x, y, steps=5), nn.fit(nn.NAC(2, 1), x, y, steps=5, optimizer=nn.Adam()))


# --- penalties, projections, noise ----------------------------------------------------------------------------


def clamped_by_hand(x, y, W, V, steps, lr, penalised):
    """Descent on y = x W V (V None: y = x W), with the penalty and the clamp of what is penalised, as a loop."""
    losses, penalties = [], []
    for step in range(1, steps + 1):
        weight = 0.1 * min(step, 3)
        h = x @ W
        d = (h if V is None else h @ V) - y
        dy = 2 * d / d.size
        dW = x.T @ (dy if V is None else dy @ V.T)
        dV = None if V is None else h.T @ dy
        losses.append((d**2).mean())
        penalties.append(sum(weight * (q**2).sum() for q, name in [(W, "W"), (V, "V")] if name in penalised))
        W = np.clip(W - lr * (dW + 2 * weight * W), 0, 1) if "W" in penalised else W - lr * dW
        if V is not None:
            V = np.clip(V - lr * (dV + 2 * weight * V), 0, 1) if "V" in penalised else V - lr * dV
    return W, V, losses, penalties


@pytest.mark.parametrize(
    ("model", "penalised"),
    [
        (Clamped(2, 1), "W"),
        (nn.chain(Clamped(2, 2), nn.Dense(2, 1, bias=False)), "W"),
        (nn.chain(nn.Dense(2, 2, bias=False), Clamped(2, 1)), "V"),
        (nn.chain(Clamped(2, 2), Clamped(2, 1)), "WV"),
        (nn.scan(nn.Accumulator(Clamped(2, 1))), "W"),
        (nn.chain(nn.scan(nn.Accumulator(Clamped(2, 1)))), "W"),
    ],
    ids=repr,
)
def test_penalties_and_projections(model, penalised, device):
    steps, lr, numbers = 9, 0.2, [0, 1, 2]
    x, y = rows(6) if model.rank == 2 else sequences(6)
    result = nn.fit(
        model, x, y, steps=steps, every=4, replicas=numbers, optimizer=nn.SGD(lr=lr), dtype="float64", seed=2
    )
    if model.rank == 3:  # linear in the running sums; the steps of time are as good as rows
        x, y = np.cumsum(x, axis=0).reshape(-1, 2), y.reshape(-1, 1)
    start = list(to_host(model.init(2, numbers, "float64")).values())
    found = list(to_host(result.params).values())
    for s in range(3):
        V = start[1][s] if len(start) > 1 else None
        W, V, losses, penalties = clamped_by_hand(x, y, start[0][s], V, steps, lr, penalised)
        np.testing.assert_allclose(found[0][s], W, rtol=1e-11, atol=1e-15)
        if V is not None:
            np.testing.assert_allclose(found[1][s], V, rtol=1e-11, atol=1e-15)
        for name, values in [("loss", losses), ("penalty", penalties)]:
            means = [np.mean(values[i : i + 4]) for i in range(0, steps, 4)]
            np.testing.assert_allclose(result.history[name][:, s], means, rtol=1e-11)
    clamped = found["WV".index(penalised[0])]
    assert clamped.min() >= 0
    assert clamped.max() <= 1
    assert (np.array(start["WV".index(penalised[0])]) < 0).any()  # the clamp had something to do


def test_without_a_penalty_there_is_no_record_of_one():
    assert list(nn.fit(nn.NAC(2, 1), *rows(), steps=1).history) == ["loss"]
    assert list(nn.fit(Clamped(2, 1), *rows(), steps=1).history) == ["loss", "penalty"]


def test_noise_comes_from_each_replicas_own_stream(device):
    x, y = rows(5)
    valid_x, valid_y = rows(4, seed=1)
    lr, steps, numbers = 0.1, 6, [2, 7]
    options = {"optimizer": nn.SGD(lr=lr), "dtype": "float64", "seed": 3, "replicas": numbers}
    result = nn.fit(Noisy(2, 1), x, y, steps=steps, every=1, validation=(valid_x, valid_y), **options)
    start = nn.to_numpy(Noisy(2, 1).init(3, numbers, "float64")["W"])
    for s, r in enumerate(numbers):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3, spawn_key=(r, 2))))
        W = start[s]
        for t in range(steps):
            d = x @ W + rng.normal(0, 0.1, y.shape) - y
            W = W - lr * x.T @ (2 * d / d.size)
            assert result.history["loss"][t, s] == pytest.approx((d**2).mean(), rel=1e-12)
            valid_loss = ((valid_x @ W - valid_y) ** 2).mean()  # without noise
            assert result.history["valid_loss"][t, s] == pytest.approx(valid_loss, rel=1e-12)
        np.testing.assert_allclose(nn.to_numpy(result.params["W"])[s], W, rtol=1e-12)


# --- tasks and blocks -----------------------------------------------------------------------------------------


def test_a_task_is_called_once_a_block_and_replica():
    calls = []

    def sample(rng, n):
        calls.append((rng, n))
        return rows(n)

    nn.fit(nn.NAC(2, 1), sample, batch=5, block=8, steps=20, every=7, replicas=3)
    assert [n for _, n in calls] == [8 * 5] * 3 * 3  # 3 blocks of 8 steps hold 20 steps, for 3 replicas
    assert [calls[i][0] is calls[i % 3][0] for i in range(9)] == [True] * 9  # in turn, each with its own stream
    assert len({id(rng) for rng, _ in calls}) == 3


def test_a_task_draws_from_each_replicas_own_stream():
    seen = []

    def sample(rng, n):
        x = rng.uniform(1, 2, (n, 2))
        seen.append(x)
        return x, x[:, :1]

    nn.fit(nn.NAC(2, 1), sample, batch=2, block=3, steps=1, replicas=[4, 9], seed=6)
    for r, x in zip([4, 9], seen, strict=True):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(6, spawn_key=(r, 1))))
        np.testing.assert_array_equal(x, rng.uniform(1, 2, (6, 2)))


def test_a_task_is_cut_into_steps_in_order():
    """The rows of step t are t B .. (t + 1) B: with weights that stay at 0 each step's loss names its rows."""

    def sample(rng, n):
        return np.full((n, 1), 1e-30), np.arange(n, dtype=float)[:, None]

    result = nn.fit(
        nn.Dense(1, 1, bias=False), sample, batch=2, block=3, steps=7, every=1, loss="mae", dtype="float64"
    )
    np.testing.assert_allclose(result.history["loss"][:, 0], [0.5, 2.5, 4.5, 0.5, 2.5, 4.5, 0.5])


def test_a_block_belongs_to_a_run_and_a_segment_does_not(device):
    run = [MODELS["NALU"], "task", [0, 1]]
    base = training(*run, steps=24, block=4, every=24)
    for every in (1, 5, 12, 1000):
        other = training(*run, steps=24, block=4, every=every)
        for name, value in to_host(base.params).items():
            np.testing.assert_array_equal(value, nn.to_numpy(other.params[name]))
    other = training(*run, steps=24, block=6, every=24)
    assert all((value != nn.to_numpy(other.params[name])).any() for name, value in to_host(base.params).items())


def test_data_of_each_replica(device):
    """Three tables as three replicas are three runs on one table each."""
    tables = [rows(6, seed=seed) for seed in range(3)]
    x, y = (np.stack(part) for part in zip(*tables, strict=True))
    for batch in (None, 2):
        options = {"steps": 9, "every": 4, "batch": batch, "block": 4}
        together = nn.fit(nn.NALU(2, 1), x, y, replicas=3, validation=(x + 1, y), **options)
        for s, (one_x, one_y) in enumerate(tables):
            alone = nn.fit(nn.NALU(2, 1), one_x, one_y, replicas=[s], validation=(one_x + 1, one_y), **options)
            assert_same(alone, together, of=[s], tolerance=1e-4 if device == "cupy" else None)


def test_one_side_may_be_shared():
    x, y = rows(6)
    xs, ys = np.stack([x] * 3), np.stack([y] * 3)
    for batch in (None, 2):
        expected = nn.fit(nn.NALU(2, 1), x, y, steps=5, batch=batch, replicas=3)
        for pair in [(xs, ys), (x, ys), (xs, y)]:
            assert_same(nn.fit(nn.NALU(2, 1), *pair, steps=5, batch=batch, replicas=3), expected)


def test_how():
    x, y = rows()
    model = nn.NAC(2, 1)
    common = {"tier": "planes", "chunk": "1", "backend": "numpy", "dtype": "float32"}
    plain = {"tier": "readable", "backend": "numpy", "dtype": "float32", "data": "all rows"}
    assert nn.fit(nn.Dense(2, 1), x, y, steps=1).how == plain
    assert nn.fit(model, x, y, steps=1).how == {**common, "data": "all rows"}
    assert nn.fit(model, x, y, steps=1, batch=2).how == {**common, "data": "rows drawn"}
    assert nn.fit(model, lambda rng, n: rows(n), steps=1, batch=2).how == {**common, "data": "task"}


# --- records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 1000])
@pytest.mark.parametrize("validated", [False, True])
def test_a_result_is_printed_in_a_line(replicas, validated, device):
    x, y = rows()
    model = nn.chain(nn.NALU(2, 50), nn.NALU(50, 1)) if replicas == 1 else nn.NAC(2, 1)
    result = nn.fit(
        model, x, y, steps=3, every=1, batch=4, replicas=replicas, validation=(x, y) if validated else None
    )
    chosen_by = result.history["valid_loss" if validated else "loss"]
    best = f"best={result.best}, best_loss={chosen_by.min():.3g}"
    assert repr(result) == f"Result(replicas={replicas}, segments=3, {best}, diverged=0, how={result.how})"
    assert str(result) == repr(result)
    assert len(repr(result)) < 300


def test_a_result_of_replicas_that_diverged_is_printed_too():
    x, y = rows()
    ys = np.stack([y, np.full_like(y, 1e30), y])  # its square overflows float32
    result = nn.fit(nn.NAC(2, 1), x, ys, steps=2, every=1, replicas=3)
    least = result.history["loss"][:, result.best].min()
    assert f"segments=2, best={result.best}, best_loss={least:.3g}, diverged=1, " in repr(result)
    result = nn.fit(nn.NAC(2, 1), x, y + 1e30, steps=2, every=1, replicas=3)
    assert "segments=2, best=0, best_loss=inf, diverged=3, " in repr(result)
    assert "segments=0, best=0, best_loss=inf, diverged=0" in repr(nn.Result({}, {}, {}, 0, np.zeros(1, bool), {}))


def test_the_history_and_its_short_last_segment(device):
    options = {"model": MODELS["clamped"], "kind": "rows drawn", "numbers": [0, 1, 2], "steps": 25}
    validation = rows(5, seed=1)
    result = training(**options, every=10, validation=validation)
    each = training(**options, every=1, validation=validation)
    assert len(result.history["loss"]) == 3
    for name in ("loss", "penalty"):
        assert result.history[name].shape == (3, 3)
        means = [each.history[name][i:j].mean(axis=0) for i, j in [(0, 10), (10, 20), (20, 25)]]
        np.testing.assert_allclose(result.history[name], means, rtol=1e-5)
    np.testing.assert_array_equal(result.history["valid_loss"], each.history["valid_loss"][[9, 19, 24]])
    assert result.params["0.W"].shape == result.best_params["0.W"].shape == (3, 2, 2)


def test_a_segment_may_be_longer_than_the_run():
    result = nn.fit(nn.NAC(2, 1), *rows(), steps=3)
    assert len(result.history["loss"]) == 1
    assert result.history["loss"].shape == (1, 1)


@pytest.mark.parametrize("validated", [False, True])
def test_the_best_is_that_of_the_best_segment(validated, device):
    """Steps so long that the last segment is not the best; each replica's best is a shorter run's last."""
    x, y = rows()
    model, numbers = nn.Dense(2, 1), [0, 1, 2, 3, 4]
    options = {"optimizer": nn.Adam(lr=0.7), "batch": 2, "every": 3, "replicas": numbers, "seed": 1}
    if validated:
        options["validation"] = rows(7, seed=1)
    result = nn.fit(model, x, y, steps=30, **options)
    chosen_by = result.history["valid_loss" if validated else "loss"]
    best_segments = chosen_by.argmin(axis=0)
    assert len(set(best_segments)) > 1
    assert (best_segments < 9).any()
    for s, segment in enumerate(best_segments):
        shorter = nn.fit(model, x, y, steps=3 * (int(segment) + 1), **options)
        for name, value in to_host(result.best_params).items():
            np.testing.assert_array_equal(value[s], nn.to_numpy(shorter.params[name])[s])
    assert result.best == chosen_by.min(axis=0).argmin()
    if validated:
        assert (best_segments != result.history["loss"].argmin(axis=0)).any()  # validation decides, not training


def test_a_callback_sees_segments_and_may_stop(device):
    seen = []

    def callback(segment):
        seen.append(segment)
        return segment.step >= 20

    options = {"model": MODELS["NALU"], "kind": "rows drawn", "numbers": [0, 1], "every": 10}
    stopped = training(**options, steps=1000, callback=callback, validation=rows(5, outputs=2))
    assert [(segment.step, segment.steps) for segment in seen] == [(10, 1000), (20, 1000)]
    for k, segment in enumerate(seen):
        np.testing.assert_array_equal(segment.loss, stopped.history["loss"][k])
        np.testing.assert_array_equal(segment.valid_loss, stopped.history["valid_loss"][k])
        assert type(segment.loss) is type(segment.valid_loss) is np.ndarray
    assert_same(stopped, training(**options, steps=20, validation=rows(5, outputs=2)))
    with pytest.raises(FrozenInstanceError):
        seen[0].step = 0


@pytest.mark.parametrize("name", ["NALU", "chain", "noisy", "clamped"])
def test_a_callback_may_keep_the_parameters(name, device):
    """They are those of a run that ends there, also when training has long gone on."""
    kept, options = {}, {"every": 4, "block": 3, "optimizer": nn.Adam(lr=0.1)}
    result = training(
        MODELS[name],
        "task",
        [0, 1],
        steps=10,
        callback=lambda segment: kept.update({segment.step: segment.params}),
        **options,
    )
    assert list(kept) == [4, 8, 10]
    for step, params in kept.items():
        ended = to_host(training(MODELS[name], "task", [0, 1], steps=step, **options).params)
        assert list(params) == list(ended)
        for parameter, value in to_host(params).items():
            np.testing.assert_array_equal(value, ended[parameter])
    np.testing.assert_equal(to_host(kept[10]), to_host(result.params))


def test_a_callback_without_an_answer_goes_on():
    seen = []
    nn.fit(nn.NAC(2, 1), *rows(), steps=5, every=2, callback=seen.append)
    assert [segment.step for segment in seen] == [2, 4, 5]
    assert [segment.valid_loss for segment in seen] == [None] * 3


# --- divergence -----------------------------------------------------------------------------------------------


def trapped_task(step, replica, replicas, batch, block):
    """A task of small numbers; a replica finds 999 among the rows of a step (from 1), and None never does."""
    calls = itertools.count()

    def sample(rng, n):
        x, y = rng.uniform(0.1, 0.2, (n, 2)), rng.uniform(-1, 1, (n, 1))
        blocks, s = divmod(next(calls), replicas)
        if s == replica and blocks == (step - 1) // block:
            x[(step - 1) % block * batch, 0] = 999
        return x, y

    return sample


@pytest.mark.parametrize(
    ("where", "optimizer"),
    [
        ("loss", nn.SGD(lr=4)),
        ("gradient", nn.SGD(lr=4)),
        ("update", nn.SGD(lr=4)),  # lr * 3e38 overflows float32
        ("clamped update", nn.SGD(lr=4)),  # a projection back to 5 hides nothing
        ("state", nn.Adam(lr=0.1)),  # (1e30)^2 overflows float32
        ("penalty", nn.SGD(lr=4)),
        ("projection", nn.SGD(lr=4)),
        ("loss", nn.Adam(lr=0.1)),
    ],
)
def test_a_replica_that_diverges_is_frozen_before_that_step(where, optimizer, device):
    def run(step, replica, steps=30):
        sample = trapped_task(step, replica, 3, batch=4, block=8)
        options = {"optimizer": optimizer, "batch": 4, "block": 8, "steps": steps, "every": 5, "replicas": 3}
        return nn.fit(Trap(2, 1, where=where), sample, validation=rows(4), **options)

    caught, spared, before = run(11, replica=1), run(11, replica=None), run(11, replica=None, steps=10)
    assert caught.diverged.tolist() == [False, True, False]
    assert spared.diverged.tolist() == [False] * 3
    for name, values in caught.history.items():
        # The others are untouched; this one's records end with the segment of steps 6 to 10.
        np.testing.assert_array_equal(values[:, [0, 2]], spared.history[name][:, [0, 2]])
        np.testing.assert_array_equal(values[:2], spared.history[name][:2])
        assert np.isnan(values[2:, 1]).all()
    for name in ("params", "best_params"):
        found, others, own = (nn.to_numpy(getattr(result, name)["W"]) for result in (caught, spared, before))
        np.testing.assert_array_equal(found[[0, 2]], others[[0, 2]])
        np.testing.assert_array_equal(found[1], own[1])
    assert np.isfinite(spared.history["loss"]).all()
    assert caught.best in (0, 1, 2)


def test_what_never_was_inside_is_not_projected_when_it_is_frozen(device):
    """The projection is part of the step that failed."""
    x, y = rows()
    ys = np.stack([y, np.full_like(y, 1e30), y])  # its square overflows float32
    result = nn.fit(Clamped(2, 1), x, ys, steps=5, replicas=3)
    start = nn.to_numpy(Clamped(2, 1).init(0, 3)["W"])
    assert result.diverged.tolist() == [False, True, False]
    assert not ((start[1] >= 0) & (start[1] <= 1)).all()
    np.testing.assert_array_equal(nn.to_numpy(result.params["W"])[1], start[1])
    np.testing.assert_array_equal(nn.to_numpy(result.best_params["W"])[1], start[1])


def test_when_all_diverge_the_initial_values_remain(device):
    x, y = rows()
    options = {"steps": 6, "every": 2, "replicas": 3, "validation": (x, y)}
    result = nn.fit(nn.Dense(2, 1), x, y + 1e30, optimizer=nn.SGD(), **options)  # only the loss overflows
    assert result.diverged.all()
    assert result.best == 0
    for values in (result.history["loss"], result.history["valid_loss"]):
        assert values.shape == (3, 3)
        assert np.isnan(values).all()
    for params in (result.params, result.best_params):
        for name, value in nn.Dense(2, 1).init(0, 3).items():
            np.testing.assert_array_equal(nn.to_numpy(params[name]), nn.to_numpy(value))


def test_divergence_is_no_storm_of_warnings():
    """Neither in training nor in the first look at the data; the caller's floating-point settings come back."""
    x, y = np.full((4, 2), 3e38), np.zeros((4, 1))
    layer, state = nn.NALU(2, 1), np.geterr()
    with pytest.raises(FloatingPointError), np.errstate(all="raise"):
        layer(layer.init(0, 50), x.astype("float32"))
    for data in [(x, y), (lambda rng, n: (x[:n] * 1e300, y[:n]),)]:  # the second overflows on its way into float32
        result = nn.fit(layer, *data, steps=4, batch=2, block=2, replicas=50, validation=(x, y))
        assert result.diverged.any()
    assert np.geterr() == state


def test_a_validation_loss_that_overflows_is_no_divergence():
    x, y = rows()
    result = nn.fit(nn.Dense(2, 1), x, y, steps=4, every=2, validation=(x * 1e30, y))
    assert not result.diverged.any()
    assert np.isinf(result.history["valid_loss"]).all()
    assert np.isfinite(result.history["loss"]).all()
    assert result.best == 0


# --- what fit refuses -----------------------------------------------------------------------------------------

X, Y = rows()


def task(rng, n):
    return rows(n)


REFUSED = {
    "an optimizer's name": ({"optimizer": "adam"}, OptionError, "expected an optimizer such as nn.Adam"),
    "an optimizer's class": (
        {"optimizer": nn.Adam},
        OptionError,
        "expected an optimizer such as nn.Adam",
    ),
    "a class": (
        {"model": nn.NAC},
        OptionError,
        r"fit: expected a layer, got the class NAC; build it, e\.g\. NAC\(2, ",
    ),
    "no model": ({"model": None}, OptionError, "expected a layer, got None"),
    "a loss": ({"loss": "huber"}, OptionError, "loss must be one of mse, mae, got 'huber'"),
    "steps 0": ({"steps": 0}, OptionError, "steps must be an integer >= 1, got 0"),
    "steps 1.5": ({"steps": 1.5}, OptionError, "steps must be an integer >= 1, got 1.5"),
    "steps True": ({"steps": True}, OptionError, "steps must be an integer >= 1, got True"),
    "every": ({"every": -1}, OptionError, "every must be an integer >= 1, got -1"),
    "block": ({"block": "32"}, OptionError, "block must be an integer >= 1, got '32'"),
    "batch 0": ({"batch": 0}, OptionError, "batch must be an integer >= 1, got 0"),
    "batch above N": ({"batch": 21}, OptionError, "batch is 21, but there are 20 rows"),
    "dtype": ({"dtype": "float16"}, OptionError, "dtype: expected float32 or float64"),
    "replicas": ({"replicas": 0}, OptionError, "replicas: expected a count >= 1"),
    "no replicas": ({"replicas": []}, OptionError, "replicas: expected a count >= 1"),
    "seed": ({"seed": -1}, OptionError, "seed must be an integer >= 0, got -1"),
    "y missing": ({"y": None}, OptionError, "y is missing"),
    "a task without batch": ({"x": task, "y": None}, OptionError, "a task needs batch="),
    "a task and y": ({"x": task, "batch": 2}, OptionError, "brings its own y"),
    "one axis": (
        {"y": Y[:, 0]},
        ShapeError,
        r"fit: y has shape \(20,\), expected \(N, O=1\), one column an output; pass y\[:, None\]$",
    ),
    "one axis of a list": ({"y": Y[:, 0].tolist()}, ShapeError, r"y has shape \(20,\).*pass y\[:, None\]$"),
    "one axis for two outputs": (
        {"y": Y[:, 0], "model": nn.NAC(2, 2)},
        ShapeError,
        r"y must be .*\(N, features\) or \(S, N, features\), got float64 \(20,\)",
    ),
    "one axis for sequences": (
        {"model": nn.scan(nn.Accumulator(nn.NAC(2, 1))), "x": np.ones((4, 20, 2)), "y": Y[:, 0]},
        ShapeError,
        r"y must be .*\(T, N, features\) or .*, got float64 \(20,\)",
    ),
    "one axis in x": ({"x": X[:, 0]}, ShapeError, r"x must be .*, got float64 \(20,\)"),
    "one axis to validate": ({"validation": (X, Y[:, 0])}, ShapeError, r"pass y\[:, None\]$"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, ShapeError, r"x must be a non-empty array .* \(0, 2\)"),
    "text": ({"x": X.astype(str)}, ShapeError, "x must be a non-empty array of numbers"),
    "truths": ({"y": Y > 0}, ShapeError, "y must be a non-empty array of numbers.*bool"),
    "complex": ({"x": X + 0j}, ShapeError, "complex128"),
    "other replicas in x": (
        {"x": np.stack([X] * 3)},
        ShapeError,
        r"x has 3 replicas, \(3, 20, 2\), but there are 2",
    ),
    "other replicas in y": ({"y": np.stack([Y] * 3)}, ShapeError, "y has 3 replicas"),
    "NaN": ({"x": np.where(np.arange(40).reshape(20, 2) == 7, np.nan, X)}, OptionError, "x has NaN.*row 3;"),
    "infinity": (
        {"y": np.where(np.arange(20)[:, None] > 4, np.inf, Y)},
        OptionError,
        "y has NaN or infinity.*row 5;",
    ),
    "NaN of one replica": (
        {"x": np.stack([X, np.where(np.arange(40).reshape(20, 2) > 30, np.nan, X)])},
        OptionError,
        "first in row 15;",
    ),
    "beyond float32": ({"x": X * 1e300}, OptionError, "infinity in float32, first in row 0; .*scale x"),
    "other rows in y": ({"y": Y[:19]}, ShapeError, "x has 20 rows, but y has 19"),
    "more columns in x": ({"x": np.ones((20, 3))}, ShapeError, r"x has shape \(20, 3\)"),
    "more columns in y": (
        {"y": np.ones((20, 2))},
        ShapeError,
        r"y has shape \(20, 2\), but NAC\(2, 1\) computes \(20, 1\)",
    ),
    "rows for sequences": (
        {"model": nn.scan(nn.Accumulator(nn.NAC(2, 1)))},
        ShapeError,
        r"\(T, N, features\) or \(S, T, N, features\), got float64 \(20, 2\)",
    ),
    "other times in y": (
        {"model": nn.scan(nn.Accumulator(nn.NAC(2, 1))), "x": np.ones((4, 20, 2)), "y": np.ones((3, 20, 1))},
        ShapeError,
        r"y has shape \(3, 20, 1\), but .* computes \(4, 20, 1\)",
    ),
    "one array to validate": ({"validation": X}, OptionError, r"validation must be a pair \(x, y\), got ndarray"),
    "one to validate": ({"validation": (X,)}, OptionError, r"validation must be a pair \(x, y\)"),
    "rows to validate": ({"validation": (X, Y[:3])}, ShapeError, "x has 20 rows, but y has 3"),
    "NaN to validate": ({"validation": (X, Y * np.nan)}, OptionError, "y has NaN"),
    "columns to validate": ({"validation": (X, np.ones((20, 2)))}, ShapeError, "y needs one column an output"),
    "shared by a number": ({"shared_batches": 1}, OptionError, "shared_batches must be True or False, got 1"),
    "a result for parameters": (
        {"params": nn.Result({}, {}, {}, 0, np.zeros(1, bool), {})},
        OptionError,
        "params must be a mapping of names to arrays, got Result",
    ),
    "parameters of another layer": ({"params": nn.NALU(2, 1).init()}, ParameterError, "unknown: G"),
    "parameters of another size": ({"params": nn.NAC(3, 1).init()}, ShapeError, r"W_hat has shape \(3, 1\)"),
    "lists for parameters": (
        {"params": {"W_hat": [[1.0], [2.0]], "M_hat": [[1.0], [2.0]]}},
        DTypeError,
        "expected NumPy or CuPy arrays, got list",
    ),
    "parameters of other replicas": (
        {"params": nn.NAC(2, 1).init(0, 3)},
        ShapeError,
        "params has 3 replicas, but there are 2; pass replicas=3",
    ),
    "parameters of another dtype": (
        {"params": nn.NAC(2, 1).init(0, dtype="float64")},
        DTypeError,
        "params has W_hat in float64, but dtype is float32; convert one of them",
    ),
    "parameters that are not finite": (
        {"params": {"W_hat": np.full((2, 1), np.nan, "float32"), "M_hat": np.ones((2, 1), "float32")}},
        OptionError,
        "params has NaN or infinity in W_hat; start from a replica that did not diverge",
    ),
    "a seed beside parameters": (
        {"seed": -1, "params": nn.NAC(2, 1).init()},
        OptionError,
        "seed must be an integer >= 0",
    ),
    "a task with one axis": (
        {"x": lambda rng, n: (np.ones((n, 2)), np.ones(n)), "y": None, "batch": 2, "block": 3},
        ShapeError,
        r"the task's y has shape \(6,\), expected \(6, features\)",
    ),
    "a task with other rows": (
        {"x": lambda rng, n: (np.ones((n - 1, 2)), np.ones((n, 1))), "y": None, "batch": 2, "block": 3},
        ShapeError,
        r"the task's x has shape \(5, 2\), expected \(6, features\)",
    ),
    "a task of rows for sequences": (
        {"model": nn.scan(nn.Accumulator(nn.NAC(2, 1))), "x": task, "y": None, "batch": 2, "block": 3},
        ShapeError,
        r"the task's x has shape \(6, 2\), expected \(T, 6, features\)",
    ),
    "a task with other columns": (
        {"x": lambda rng, n: (np.ones((n, 3)), np.ones((n, 1))), "y": None, "batch": 2},
        ShapeError,
        r"x has shape \((2, )?2, 3\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_words(name):
    changed, error, words = REFUSED[name]
    arguments = {"model": nn.NAC(2, 1), "x": X, "y": Y, "steps": 3, "replicas": 2, **changed}
    with pytest.raises(error, match=words) as caught:
        nn.fit(arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments)
    assert isinstance(caught.value, NaluError)


def test_a_task_that_gives_each_replica_another_shape_is_refused():
    widths = itertools.cycle([2, 3])
    with pytest.raises(ShapeError, match=r"the task's x has shape \(64, 3\).*the same for all replicas"):
        nn.fit(
            nn.NAC(2, 1),
            lambda rng, n: (np.ones((n, next(widths))), np.ones((n, 1))),
            batch=2,
            replicas=2,
            steps=1,
        )


def test_an_array_of_another_library_is_refused():
    with pytest.raises((ShapeError, DTypeError)):
        nn.fit(nn.NAC(2, 1), object(), Y, steps=1)


# --- optimisers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [nn.SGD, nn.Adam])
@pytest.mark.parametrize("lr", [0, -1e-3, math.inf, math.nan, "0.1", None, True], ids=repr)
def test_bad_learning_rates_are_refused(optimizer, lr):
    with pytest.raises(OptionError, match=f"{optimizer.__name__}: lr must be a number > 0, got"):
        optimizer(lr=lr)


@pytest.mark.parametrize("eps", [0, -1e-8, math.nan, math.inf, "1e-8"], ids=repr)
def test_bad_eps_is_refused(eps):
    with pytest.raises(OptionError, match="Adam: eps must be a number > 0, got"):
        nn.Adam(eps=eps)


@pytest.mark.parametrize(
    "betas", [(0.9,), (0.9, 0.99, 0.999), (1, 0.999), (0.9, 1.5), (-0.1, 0.9), (math.nan, 0)], ids=repr
)
def test_bad_betas_are_refused(betas):
    with pytest.raises(OptionError, match="Adam: betas must be two numbers with 0 <= beta < 1, got"):
        nn.Adam(betas=betas)


def test_the_defaults():
    assert nn.Adam() == nn.Adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    assert nn.SGD() == nn.SGD(lr=1e-2)
    with pytest.raises(FrozenInstanceError):
        nn.Adam().lr = 1


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: nn.SGD(lr=np.float64(0.1)),
        lambda: nn.Adam(lr=np.float64(0.1)),
        lambda: nn.Adam(betas=(np.float64(0.9), 0)),
    ],
)
def test_options_decide_no_dtype(optimizer):
    result = nn.fit(nn.NAC(2, 1), X, Y, steps=2, optimizer=optimizer())
    assert result.params["W_hat"].dtype == np.float32


@pytest.mark.parametrize("lr", [0.5, 1])
def test_sgd_by_hand(lr, device):
    sgd, theta = nn.SGD(lr=lr), from_numpy(np.zeros((2, 2)), "float32")
    state = sgd.init(theta)
    delta, state = sgd.update(from_numpy(np.array([[2.0, -4.0], [0.0, 1.0]]), "float32"), state, 1)
    np.testing.assert_array_equal(nn.to_numpy(delta), np.array([[-2, 4], [0, -1]], "float32") * lr)
    assert dtype_name(delta.dtype) == "float32"
    assert state == ()


def adam_deltas(adam, gradients, dtype="float64"):
    state, deltas = adam.init(from_numpy(np.zeros((1, 1)), dtype)), []
    for step, gradient in enumerate(gradients, 1):
        delta, state = adam.update(from_numpy(np.array([[float(gradient)]]), dtype), state, step)
        deltas.append(nn.to_numpy(delta))
    assert {delta.dtype.name for delta in deltas} == {dtype}
    return [delta.item() for delta in deltas]


def test_adam_by_a_table_of_fractions(device):
    """Gradients for which every root is whole: lr = 1/2, betas = (1/2, 3/4), eps = 1.

    ===  ====  ======  =======  =========  =========  ============
    t    g     m       v        m-hat      v-hat      delta
    ===  ====  ======  =======  =========  =========  ============
    1    4     2       4        4          16         -2/5
    2    -4    -1      7        -4/3       16         2/15
    3    29/2  27/4    925/16   54/7       100        -27/77
    ===  ====  ======  =======  =========  =========  ============
    """
    found = adam_deltas(nn.Adam(lr=0.5, betas=(0.5, 0.75), eps=1), [4, -4, 14.5])
    expected = [Fraction(-2, 5), Fraction(2, 15), Fraction(-27, 77)]
    assert found == pytest.approx([float(delta) for delta in expected], rel=1e-14)


@given(
    gradients=st.lists(st.integers(-1000, 1000), min_size=3, max_size=3),
    lr=st.integers(1, 1000),
    b1=st.integers(0, 999),
    b2=st.integers(0, 999),
    eps=st.integers(1, 1000),
)
def test_adam_in_exact_arithmetic(gradients, lr, b1, b2, eps):
    """Algorithm 1 of the paper, in fractions, with a root of 50 digits."""
    lr, b1, b2, eps = (Fraction(q, 1000) for q in (lr, b1, b2, eps))
    m = v = Fraction(0)
    expected = []
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        with localcontext(prec=50):
            root = Decimal(v_hat.numerator).__truediv__(Decimal(v_hat.denominator)).sqrt()
        expected.append(float(-lr * m_hat / (Fraction(root) + eps)))
    adam = nn.Adam(lr=float(lr), betas=(float(b1), float(b2)), eps=float(eps))
    # m may cancel to almost nothing, so the scale is that of the step: lr.
    assert adam_deltas(adam, gradients) == pytest.approx(expected, rel=1e-11, abs=1e-12 * float(lr))


def test_adam_in_float32_is_near_float64(device):
    gradients = [3.0, -1e-3, 7e4]
    found = adam_deltas(nn.Adam(), gradients, "float32")
    assert found == pytest.approx(adam_deltas(nn.Adam(), gradients, "float64"), rel=1e-5)


def test_an_update_is_a_pure_function():
    adam, theta = nn.Adam(), np.zeros((2, 3))
    gradient = np.arange(6.0).reshape(2, 3)
    _, state = adam.update(gradient, adam.init(theta), 1)
    kept = [array.copy() for array in (gradient, *state)]
    once, twice = adam.update(gradient, state, 2), adam.update(gradient, state, 2)
    np.testing.assert_array_equal(once[0], twice[0])
    for array, before in zip((gradient, *state), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_the_default_stream_of_noise_is_not_that_of_data():
    """Two purposes of one replica never share numbers."""
    drawn = [Streams(0, [0], purpose).generators[0].standard_normal() for purpose in range(4)]
    assert len(set(drawn)) == 4


def test_sequences_may_change_their_length_from_block_to_block():
    """And a task must return a pair."""
    lengths = iter([3, 3, 5, 5, 7, 7])

    def task(rng, n):
        x = rng.uniform(0, 1, (next(lengths), n, 2))
        return x, np.cumsum(x[..., :1], axis=0)

    model = nn.scan(nn.Accumulator(nn.NAC(2, 1)))
    found = nn.fit(model, task, batch=4, block=2, steps=6, every=2, replicas=2)
    assert np.isfinite(found.history["loss"]).all()
    for answer in (None, {"x": 1, "y": 2}, (np.ones((8, 2)),), (np.ones((8, 2)),) * 3):
        with pytest.raises(ShapeError, match="the task must return a pair x, y, got"):
            nn.fit(nn.NAC(2, 1), lambda rng, n, answer=answer: answer, batch=4, block=2, steps=1)
