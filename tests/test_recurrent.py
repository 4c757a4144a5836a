"""Recurrent cells: their equations unit by unit, gradients through many steps, two wirings and the read-out."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np.errors import OptionError, ShapeError
from nalu_np.layer import REGISTRY, from_config

seeds = st.integers(0, 2**32 - 1)
SATURATED = 40.0  # tanh and sigma of it are 1 to the bit
CELLS = [nn.RNN(3, 2), nn.RNN(3, 2, activation="relu"), nn.GRU(3, 2), nn.LSTM(3, 2), nn.Recurrent(nn.NAC(5, 2))]
MODEL = nn.chain(nn.scan(nn.LSTM(3, 2)), nn.scan(nn.GRU(2, 4)), nn.Last(nn.chain(nn.Dense(4, 2), nn.NAC(2, 1))))
every_cell = pytest.mark.parametrize("cell", CELLS, ids=repr)


def draw(model, rng, *lead):
    return {name: rng.normal(size=(*lead, *shape)) for name, shape in model.shapes().items()}


# --- the equations --------------------------------------------------------------------------------------------


def sigma(z):
    return 1 / (1 + math.exp(-z))


def unit_by_unit(cell, q, x):
    """PyTorch's equations for one row, one unit after the other: (T, I) to (T, H)."""
    H = cell.out_features
    h, c, ys = [0.0] * H, [0.0] * H, []
    for row in x:

        def maps(k, row=row, h=h):
            """u and v of gate k, for each unit."""
            columns = range(k * H, (k + 1) * H)
            u = [sum(row[i] * q["W_ih"][i, j] for i in range(len(row))) + q["b_ih"][j] for j in columns]
            v = [sum(h[i] * q["W_hh"][i, j] for i in range(H)) + q["b_hh"][j] for j in columns]
            return list(zip(u, v, strict=True))

        if isinstance(cell, nn.RNN):
            f = math.tanh if cell.activation == "tanh" else lambda z: max(z, 0.0)
            h = [f(u + v) for u, v in maps(0)]
        elif isinstance(cell, nn.GRU):
            r, z = ([sigma(u + v) for u, v in maps(k)] for k in (0, 1))
            n = [math.tanh(u + reset * v) for (u, v), reset in zip(maps(2), r, strict=True)]
            h = [(1 - z) * n + z * h for z, n, h in zip(z, n, h, strict=True)]
        else:
            i, f, o = ([sigma(u + v) for u, v in maps(k)] for k in (0, 1, 3))
            g = [math.tanh(u + v) for u, v in maps(2)]
            c = [f * c + i * g for f, c, i, g in zip(f, c, i, g, strict=True)]
            h = [o * math.tanh(c) for o, c in zip(o, c, strict=True)]
        ys.append(h)
    return np.array(ys)


@pytest.mark.parametrize("cell", CELLS[:4], ids=repr)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, steps=st.integers(1, 5), rows=st.integers(1, 3))
def test_a_cell_computes_its_equations(cell, seed, steps, rows):
    rng = np.random.default_rng(seed)
    params, x = draw(cell, rng), rng.normal(size=(steps, rows, 3))
    y, _ = nn.scan(cell)(params, x)
    for b in range(rows):
        np.testing.assert_allclose(y[:, b], unit_by_unit(cell, params, x[:, b]), rtol=1e-11, atol=1e-13)


def test_an_open_lstm_counts_and_a_closed_one_forgets():
    """With i = f = o = 1 and g = tanh(1), c grows by tanh(1) a step; with f = 0 it does not."""
    params = {
        "W_ih": np.zeros((1, 4)),
        "W_hh": np.zeros((1, 4)),
        "b_ih": np.array([40.0, 40, 0, 40]),
        "b_hh": np.zeros(4),
    }
    params["W_ih"][0, 2] = 1.0
    x = np.ones((5, 1, 1))
    counted = nn.scan(nn.LSTM(1, 1))(params, x)[0].ravel()
    np.testing.assert_allclose(counted, np.tanh(np.tanh(1) * np.arange(1, 6)), rtol=1e-14)
    params["b_hh"][1] = -2000.0
    np.testing.assert_allclose(nn.scan(nn.LSTM(1, 1))(params, x)[0], np.tanh(np.tanh(1)), rtol=1e-14)


def test_a_gru_keeps_its_state_where_z_is_one_and_resets_after_its_product():
    q = {"W_ih": np.zeros((1, 3)), "W_hh": np.zeros((1, 3)), "b_ih": np.zeros(3), "b_hh": np.zeros(3)}
    model, x = nn.scan(nn.GRU(1, 1)), np.array([0.7, -3.0, 5.0]).reshape(3, 1, 1)
    q["W_ih"][0, 2] = 1.0
    kept = {**q, "b_ih": np.array([0, SATURATED, 0.0])}
    np.testing.assert_allclose(model(kept, x)[0], 0, atol=1e-15)
    # r = 0 takes away the bias of h W_hh too: it stands inside the brackets.
    reset = {**q, "b_ih": np.array([-800.0, -SATURATED, 0]), "b_hh": np.array([0, 0, 9.0])}
    np.testing.assert_allclose(model(reset, x)[0], np.tanh(x), rtol=1e-14)


def test_the_gradient_through_time_of_a_linear_recurrence_is_the_closed_one():
    """Above 0 a ReLU is linear: y_T = sum of w^(T-t) x_t, and so dy_T/dw and dy_T/dx_t."""
    T, w = 9, 0.8
    x = np.random.default_rng(0).uniform(0.5, 2, (T, 1, 1))
    params = {"W_ih": np.ones((1, 1)), "W_hh": np.full((1, 1), w), "b_ih": np.zeros(1), "b_hh": np.zeros(1)}
    y, vjp = nn.scan(nn.RNN(1, 1, activation="relu"))(params, x)
    age = np.arange(T - 1, -1, -1.0)
    np.testing.assert_allclose(y[-1, 0, 0], w**age @ x.ravel(), rtol=1e-14)
    dy = np.zeros_like(y)
    dy[-1] = 1
    dx, dparams = vjp(dy)
    np.testing.assert_allclose(dx.ravel(), w**age, rtol=1e-14)
    np.testing.assert_allclose(dparams["W_hh"], [[(age * w ** np.maximum(age - 1, 0)) @ x.ravel()]], rtol=1e-14)
    np.testing.assert_allclose(dparams["b_hh"], [np.sum(w**age)], rtol=1e-14)
    np.testing.assert_array_equal(dparams["b_hh"], dparams["b_ih"])


@every_cell
def test_every_entry_of_every_gradient_through_seven_steps(cell):
    rng = np.random.default_rng(3)
    model = nn.scan(cell)
    report = nn.gradcheck(model, draw(model, rng), rng.normal(size=(7, 2, 3)), full=True)
    assert max(report.errors.values()) < 1e-7


@pytest.mark.parametrize(
    "model",
    [
        *(nn.scan(cell) for cell in CELLS),
        nn.scan(nn.LSTM(1, 1)),
        nn.scan(nn.GRU(1, 5)),
        nn.scan(nn.Recurrent(nn.chain(nn.Dense(4, 3, activation="softsign"), nn.Dense(3, 1)))),
        nn.Last(nn.NALU(3, 2)),
        nn.chain(nn.scan(nn.RNN(3, 2)), nn.Last(nn.Dense(2, 1))),
        MODEL,
    ],
    ids=repr,
)
def test_models_of_cells_keep_the_contract(model):
    nn.check_layer(model, examples=6)


def test_cells_keep_the_contract_on_a_device(fake_cupy):
    for cell in CELLS[1:]:
        nn.check_layer(nn.chain(nn.scan(cell), nn.Last(nn.Dense(2, 1))))


@every_cell
@settings(max_examples=15, deadline=None)
@given(seed=seeds, cut=st.integers(1, 5))
def test_later_steps_do_not_change_earlier_ones(cell, seed, cut):
    """Nor does dx before a step know what comes after y."""
    rng = np.random.default_rng(seed)
    params, x = draw(cell, rng), rng.normal(size=(6, 2, 3))
    y, vjp = nn.scan(cell)(params, x)
    np.testing.assert_array_equal(nn.scan(cell)(params, x[:cut])[0], y[:cut])
    dy = rng.normal(size=y.shape)
    dy[cut:] = 0
    dx, _ = vjp(dy)
    assert not dx[cut:].any()
    np.testing.assert_allclose(dx[:cut], nn.scan(cell)(params, x[:cut])[1](dy[:cut])[0], rtol=1e-12, atol=1e-14)


@every_cell
def test_a_thousand_steps_stay_finite_and_in_single_precision(cell):
    params = cell.init(seed=1, replicas=2)
    x = np.random.default_rng(0).uniform(0, 0.1, (1000, 3, 3)).astype("float32")
    y, vjp = nn.scan(cell)(params, x)
    dx, dparams = vjp(np.ones_like(y))
    for q in (y, dx, *dparams.values()):
        assert q.dtype == np.float32
        assert np.all(np.isfinite(q))


# --- how they start and are stored ----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_cells_start_between_plus_and_minus_one_over_root_h(kind, gates):
    cell = kind(10, 4)
    assert cell.shapes() == {
        "W_ih": (10, 4 * gates),
        "W_hh": (4, 4 * gates),
        "b_ih": (4 * gates,),
        "b_hh": (4 * gates,),
    }
    params = cell.init(seed=0, replicas=400, dtype="float64")
    for q in params.values():
        assert 0.49 < np.abs(q).max() < 0.5
        assert q.var() == pytest.approx(1 / 12, rel=5 * math.sqrt(0.8 / q.size))
    assert not np.any(params["b_ih"] == params["b_hh"])


@pytest.mark.parametrize("model", [*map(nn.scan, CELLS), MODEL], ids=repr)
def test_models_of_cells_are_stored_by_their_options(model):
    config = json.loads(json.dumps(model.config()))
    assert from_config(config, REGISTRY) == model
    assert eval(repr(model), {**vars(nn)}) == model


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.RNN(3, 2, activation="sigmoid"), "RNN: activation must be one of tanh, relu, got 'sigmoid'"),
        (lambda: nn.LSTM(0, 2), "LSTM: in_features must be an integer >= 1, got 0"),
        (lambda: nn.GRU(3, 2.0), "GRU: out_features must be an integer >= 1, got 2.0"),
        (lambda: nn.Recurrent(nn.NAC(2, 2)), "Recurrent: the layer takes [x, h], so it needs more inputs"),
        (lambda: nn.Recurrent(nn.LSTM(3, 2)), "Recurrent: expected a layer of rows (B, I), got LSTM(3, 2)"),
        (lambda: nn.Last(nn.scan(nn.LSTM(3, 2))), "Last: expected a layer of rows (B, I), got scan(LSTM(3, 2))"),
        (lambda: nn.Last("NAC"), "Last: expected a layer of rows (B, I), got 'NAC'"),
        (lambda: nn.chain(nn.scan(nn.LSTM(3, 2)), nn.Dense(2, 1)), "chain: scan(LSTM(3, 2)) does not fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(build, words):
    with pytest.raises(OptionError) as caught:
        build()
    assert str(caught.value).startswith(words)


# --- a layer that sees its own output -------------------------------------------------------------------------


def test_a_recurrent_nac_with_ones_for_its_state_is_an_accumulator():
    """To the bit where the weights are saturated; 1 - d loses about T d / 2 of the sum."""
    rng = np.random.default_rng(5)
    W_x = rng.choice([-1.0, 0.0, 1.0], (3, 2))
    x = rng.integers(-9, 9, (20, 4, 3)).astype(float)
    accumulator, _ = nn.scan(nn.Accumulator(nn.NAC(3, 2)))(
        {"W_hat": SATURATED * W_x, "M_hat": SATURATED + 0 * W_x}, x
    )
    W = np.concatenate([W_x, np.eye(2)])
    recurrent, _ = nn.scan(nn.Recurrent(nn.NAC(5, 2)))({"W_hat": SATURATED * W, "M_hat": SATURATED + 0 * W}, x)
    np.testing.assert_array_equal(recurrent, accumulator)
    np.testing.assert_array_equal(accumulator, np.cumsum(x @ W_x, axis=0))
    d = 1e-5
    leaking = nn.scan(nn.Recurrent(nn.Dense(2, 1, bias=False)))
    y, _ = leaking({"W": np.array([[1.0], [1 - d]])}, np.ones((1000, 1, 1)))
    assert y[-1, 0, 0] / 1000 == pytest.approx(1 - 999 * d / 2, rel=1e-4)


@pytest.mark.parametrize("shared", ["x", "params", "neither", "both"])
def test_a_recurrent_layer_repeats_what_is_shared(shared):
    rng = np.random.default_rng(6)
    cell = nn.Recurrent(nn.Dense(5, 2, activation="tanh"))
    params = draw(cell, rng, *([] if shared in ("params", "both") else [3]))
    x = rng.normal(size=(4, 2, 3) if shared in ("x", "both") else (3, 4, 2, 3))
    y, vjp = nn.scan(cell)(params, x)
    dx, dparams = vjp(np.ones_like(y))
    assert dx.shape == x.shape
    assert {name: d.shape for name, d in dparams.items()} == {name: q.shape for name, q in params.items()}
    none, alone = vjp(np.ones_like(y), need_dx=False)
    assert none is None
    assert all(alone[name].tobytes() == d.tobytes() for name, d in dparams.items())


class Clamped(nn.Dense):
    """A penalty on what goes in and a projection, to see which input a wiring gives to them."""

    def penalty(self, params, x, step):
        return (x * x).sum(axis=(-1, -2)), {name: 0 * q for name, q in params.items()}

    def project(self, params):
        return {name: np.clip(q, -1, 1) for name, q in params.items()}


def test_penalties_and_projections_are_those_of_the_layer():
    rng = np.random.default_rng(7)
    layer = Clamped(5, 2)
    params = {name: 3 * rng.normal(size=(4, *shape)) for name, shape in layer.shapes().items()}
    x = rng.normal(size=(4, 6, 3, 3))
    cell = nn.Recurrent(layer)
    h, _ = nn.scan(cell)(params, x)
    seen = (x**2).sum(axis=(1, 2, 3)) + (h[:, :-1] ** 2).sum(axis=(1, 2, 3))
    for owner in (cell, nn.scan(cell)):
        np.testing.assert_allclose(owner.penalty(params, x, 1)[0], seen, rtol=1e-12)
        assert all(np.abs(q).max() == 1 for q in owner.project(params).values())
    assert nn.Recurrent(nn.Dense(5, 2)).penalty(params, x, 1) is None
    last = nn.Last(layer)
    inputs = rng.normal(size=(4, 6, 3, 5))
    np.testing.assert_allclose(last.penalty(params, inputs, 1)[0], (inputs[:, -1] ** 2).sum(axis=(1, 2)))
    assert all(np.abs(q).max() == 1 for q in last.project(params).values())


# --- the read-out ---------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=seeds, steps=st.integers(1, 4), replicas=st.integers(0, 2))
def test_last_is_the_layer_on_the_last_step(seed, steps, replicas):
    rng = np.random.default_rng(seed)
    lead = (replicas,) if replicas else ()
    layer, model = nn.NALU(3, 2), nn.Last(nn.NALU(3, 2))
    params, x = draw(layer, rng, *lead), rng.normal(size=(*lead, steps, 4, 3))
    y, vjp = model(params, x)
    expected, layer_vjp = layer(params, x[..., -1, :, :])
    np.testing.assert_array_equal(y[..., 0, :, :], expected)
    assert y.shape == (*lead, 1, 4, 2)
    dy = rng.normal(size=y.shape)
    dx, dparams = vjp(dy)
    dlast, expected = layer_vjp(dy[..., 0, :, :])
    np.testing.assert_array_equal(dx[..., -1, :, :], dlast)
    assert not dx[..., :-1, :, :].any()
    assert all(np.array_equal(dparams[name], d) for name, d in expected.items())
    np.testing.assert_array_equal(model.values(params, x)["W"], layer.values(params, x[..., -1, :, :])["W"])


def test_one_model_reads_sequences_of_any_length():
    params = MODEL.init(replicas=3)
    for steps in (1, 10, 300):
        x = np.ones((steps, 5, 3), "float32")
        assert MODEL(params, x)[0].shape == (3, 1, 5, 1)
    with pytest.raises(ShapeError, match="a sequence needs T >= 1 steps"):
        MODEL(params, x[:0])


# --- training -------------------------------------------------------------------------------------------------


def difference(rng, n, steps=5):
    """Sums over time of two of three features, and their difference as the target of the last step."""
    x = rng.uniform(0, 1, (steps, n, 3))
    return x, x.sum(axis=0)[None, :, :1] - x.sum(axis=0)[None, :, 1:2]


@pytest.mark.parametrize(("kind", "batch"), [("task", 16), ("arrays", 16), ("arrays", None)])
def test_fit_trains_a_read_out_and_replicas_do_not_meet(kind, batch):
    model = nn.chain(nn.scan(nn.Accumulator(nn.NAC(3, 2))), nn.Last(nn.NAC(2, 1)))
    data = (difference,) if kind == "task" else difference(np.random.default_rng(8), 200)
    held_out = difference(np.random.default_rng(9), 50)
    options = {"steps": 600, "every": 100, "batch": batch, "validation": held_out}
    together = nn.fit(model, *data, optimizer=nn.Adam(lr=0.03), replicas=4, **options)
    assert together.history["valid_loss"][-1].min() < 1e-4
    alone = nn.fit(model, *data, optimizer=nn.Adam(lr=0.03), replicas=[2], **options)
    for name, value in together.params.items():
        np.testing.assert_array_equal(alone.params[name][0], value[2])
    x, y = difference(np.random.default_rng(10), 20, steps=200)
    best = nn.replica(together.best_params, together.best)
    assert np.abs(model(best, x.astype("float32"))[0] - y).max() < 0.05 * np.abs(y).max()


@pytest.mark.parametrize("cell", [*CELLS[:4], nn.Recurrent(nn.Dense(5, 2))], ids=repr)
def test_every_cell_trains_on_the_last_step(cell):
    model = nn.chain(nn.scan(cell), nn.Last(nn.Dense(2, 1)))
    result = nn.fit(model, difference, steps=300, every=100, batch=32, optimizer=nn.Adam(lr=0.02), replicas=3)
    assert result.history["loss"][-1].min() < 0.3 * result.history["loss"][0].max()


def test_a_target_for_every_step_does_not_fit_a_read_out():
    x = np.ones((5, 20, 3))
    model = nn.chain(nn.scan(nn.LSTM(3, 2)), nn.Last(nn.Dense(2, 1)))
    with pytest.raises(ShapeError, match=r"y has shape \(5, 20, 1\), but .* computes \(1, 20, 1\)"):
        nn.fit(model, x, np.ones((5, 20, 1)), steps=1)
    result = nn.fit(nn.scan(nn.LSTM(3, 2)), x, np.ones((5, 20, 2)), steps=2)
    assert not result.diverged.any()


def test_models_of_cells_survive_a_file(tmp_path):
    params = MODEL.init(seed=4)
    nn.save(tmp_path / "model.npz", MODEL, params)
    layer, loaded = nn.load(tmp_path / "model.npz")[:2]
    assert layer == MODEL
    assert all(np.array_equal(loaded[name], q) for name, q in params.items())
