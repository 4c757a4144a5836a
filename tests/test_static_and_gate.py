"""The paper's static tasks and the laboratory of the gate: data, what is measured, what is said of it."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from nalu_np.experiments import gate, scores, static
from nalu_np.experiments.base import Cell, gather

matplotlib.use("Agg")

RIGHT = {"add": (1, 1), "sub": (1, -1), "mul": (1, 1), "div": (1, -1), "square": (1, 1), "root": (0.5, 0)}


def drawn(picture):
    """The axes of a picture, drawn."""
    figure = Figure(figsize=(7.2, picture.height))
    picture.draw(figure)
    figure.canvas.draw()
    assert picture.alt
    assert picture.caption
    return figure.axes


def ran(module, config):
    """A cell that was run, as it comes back from its file."""
    return gather([config], [{"config": config, "result": module.run(config), "status": "done", "seconds": 1.0}])[
        0
    ]


# --- static: data and measures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", static.OPS)
def test_sections_are_summed(op):
    x, y = static.draw(op, "interpolation", np.random.default_rng(3), 50)
    assert x.shape == (50, 100)
    assert x.dtype == y.dtype == np.float32
    assert 0 <= x.min() < 0.01 < 0.49 < x.max() <= 0.5
    a, b = x[:, :10].sum(axis=1), x[:, 30:40].sum(axis=1)
    truth = {"add": a + b, "sub": a - b, "mul": a * b, "div": a / b, "square": a**2, "root": a**0.5}
    np.testing.assert_allclose(y[:, 0], truth[op], rtol=1e-6)


@pytest.mark.parametrize("op", static.OPS)
def test_extrapolation_is_beyond_training_in_every_row(op):
    """At least one of a, b, y is larger than in any row of training, the paper's condition."""
    x, _ = scores.held_out(static.draw, op, "extrapolation", 1000)
    assert x.dtype == np.float64
    assert (x[:, :10].sum(axis=1) >= 10 * static.RANGES["interpolation"][1]).all()
    inside, _ = scores.held_out(static.draw, op, "interpolation", 1000)
    assert inside.max() <= 0.5
    assert (scores.held_out(static.draw, op, "extrapolation", 1000)[0] == x).all()


def exact(op, first=40.0):
    """A NAC and a NAC or LogNAC with the right weights for an operation."""
    model = "NAC" if op in ("add", "sub") else "NAC-LogNAC"
    layer = static.MODELS[model]()
    params = {name: np.full((1, *shape), first) for name, shape in layer.shapes().items()}
    params["0.M_hat"][:] = -first
    for j, section in enumerate(static.SECTIONS):  # for a square both hidden units are a
        params["0.M_hat"][0, static.SECTIONS[0] if op == "square" else section, j] = first
    w = np.array(RIGHT[op], float)
    params["1.W_hat"][0, :, 0] = np.where(w < 0, -first, first)
    params["1.M_hat"][0, :, 0] = np.where(w == 0, -first, np.where(abs(w) == 0.5, 0, first))
    return layer, params


@pytest.mark.parametrize("op", static.OPS)
@pytest.mark.parametrize("where", static.RANGES)
def test_right_weights_have_no_error_and_wrong_ones_have(op, where):
    layer, params = exact(op)
    assert scores.squared_errors(layer, params, *scores.held_out(static.draw, op, where, 1000)) < 1e-8
    params["0.M_hat"][0, 0, 0] = -40.0  # one entry of a is missing
    assert scores.squared_errors(layer, params, *scores.held_out(static.draw, op, where, 1000)) > 1e-4


@pytest.mark.parametrize("op", static.OPS)
def test_a_random_network_scores_about_100(op):
    """What scores are relative to is about the mean square of the target, as in Table 6 of the paper."""
    for where in static.RANGES:
        x, y = scores.held_out(static.draw, op, where, 1000)
        assert 0.3 < scores.random_error(static.MODELS["ReLU6"](), x, y) / (y**2).mean() < 4


def test_models_are_those_of_the_paper():
    for name, build in static.MODELS.items():
        layer = build()
        assert (layer.in_features, layer.out_features) == (100, 1)
        hidden = layer.layers[0].out_features
        assert hidden == (4 if name == "CReLU" else 2)
        if name not in static.ACTIVATIONS:
            assert {unit.initializer for unit in layer.layers} == {"glorot_uniform"}
    assert static.MODELS["NALU-separate"]().layers[1].tied is False
    assert static.MODELS["NALU-independent"]().layers[0].gate == "independent"


def test_published_cells():
    """Some of Table 7, and of Table 1 where both print the same."""
    assert static.published("mul", "ReLU6", "interpolation") == "3.2"
    assert static.published("mul", "NAC", "extrapolation") == "33.3"
    assert static.published("div", "NALU", "extrapolation") == "0.7"
    assert static.published("div", "Sigmoid", "interpolation") == "3.58"
    assert static.published("square", "None", "extrapolation") == "25.1"
    assert static.published("add", "NALU", "extrapolation") == "0.0"
    assert static.published("add", "NAC-LogNAC", "extrapolation") == ""
    assert static.raw("sub", "SELU", "extrapolation") == "5.60"
    assert static.raw("div", "NALU", "interpolation") == ".0625"
    assert static.raw("add", "NALU-separate", "interpolation") == ""
    for table in (*static.PRINTED.values(), *static.RAW.values()):
        assert list(table) == list(static.OPS)
        assert {len(line.split()) for line in table.values()} == {len(static.PUBLISHED)}


def test_a_cell_from_training_to_its_rows():
    """A linear network learns the sum, exactly enough for the paper's 0.0, and not the product."""
    config = {"experiment": "static", "op": "add", "model": "None", "steps": 400, "batch": 64, "lr": 0.03}
    cells = [ran(static, {**config, "op": op, "seed": 0, "first": 0, "count": 3}) for op in ("add", "mul")]
    found = {row.row: row for row in static.rows(cells)}
    assert found["static/add/None/extrapolation"].ours < 1
    assert found["static/mul/None/extrapolation"].ours > 5
    assert found["static/add/None/success"].published == ""
    assert found["static/mul/None/extrapolation"].published == "29.5"
    assert found["static/mul/None/mse_extrapolation"].published == "1076"
    assert found["static/mul/None/mse_extrapolation"].verdict == "not comparable"
    rows = scores.held_out(static.draw, "mul", "extrapolation", 1000)
    ratio = found["static/mul/None/mse_extrapolation"].ours / scores.random_error(static.MODELS["ReLU6"](), *rows)
    np.testing.assert_allclose(found["static/mul/None/extrapolation"].ours, 100 * ratio, rtol=1e-5)
    assert len(drawn(*static.pictures(cells))) == 2
    extrapolation, interpolation, why = static.sections(cells)
    assert extrapolation.rows[0][0] == "None"
    assert extrapolation.rows[0][2].endswith("(29.5)")
    assert interpolation.header == ("model", "a + b", "a * b")
    assert why.text


def made(op, model, scores):
    """A static cell with these scores."""
    values = dict.fromkeys(("interpolation", "extrapolation", "mse_interpolation", "mse_extrapolation"), scores)
    config = {"experiment": "static", "op": op, "model": model, "count": len(scores), "steps": 1}
    return Cell(config, values, {}, 1.0)


def test_what_diverged_fails_and_is_counted():
    cell = made("root", "Tanh", [0.04, 0.06, None, 2000.0])
    success, inside, outside, *_ = static.rows([cell])
    assert success.ours == 0.25
    assert "1 of 4 seeds not finite" in outside.note
    assert "Table 6 gives .84" in inside.note
    assert (inside.verdict, outside.verdict) == ("not comparable", "inside")
    assert "Table 6" not in outside.note
    assert static.sections([cell])[0].rows == (("Tanh", ">999.9 (11.2)"),)
    unfinished = [cell, made("add", "Tanh", [1.0]), made("mul", "NALU", [1.0])]
    assert sum(axes.get_visible() for axes in drawn(*static.pictures(unfinished))) == 3
    assert static.sections(unfinished)[0].rows == (
        ("Tanh", ">999.9 (11.2)", "1.0 (43.3)", ""),
        ("NALU", "", "", "1.0 (0.0)"),
    )


def test_a_diverged_seed_has_no_score(monkeypatch):
    """Such a seed is frozen where its numbers were still finite; they do not count."""

    def diverge(*args, fit=scores.fit, **options):
        result = fit(*args, **options)
        result.diverged[1] = True
        return result

    monkeypatch.setattr(scores, "fit", diverge)
    config = {"experiment": "static", "op": "add", "model": "NAC", "steps": 2, "batch": 4, "lr": 0.01, "seed": 0}
    cell = ran(static, {**config, "first": 0, "count": 3})
    for name in ("interpolation", "extrapolation", "mse_interpolation", "mse_extrapolation"):
        assert np.isfinite(cell[name]).tolist() == [True, False, True]


@pytest.mark.parametrize("module", [static, gate])
def test_scales(module):
    """Quick is smaller and keeps the effect's models; all rows of the first screen come from the default run."""
    (experiment,) = module.EXPERIMENTS
    sizes = {}
    for scale in ("quick", "default", "full"):
        configs = module.cells(scale, None)
        sizes[scale] = sum(experiment.seconds(config) for config in configs)
        assert all(config["experiment"] == experiment.name for config in configs)
        cells = {(config["op"], config["model"]) for config in configs}
        assert {tuple(key.split("/")[:2]) for key in experiment.key} <= cells
    assert sizes["quick"] < min(110, sizes["default"] / 9) < sizes["full"] / 80  # within two minutes
    assert {config["count"] for config in module.cells("quick", 3)} == {3}
    assert {key.split("/")[2] for key in experiment.key} <= experiment.metrics.keys()


# --- the gate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", gate.OPS)
def test_rows_of_the_laboratory(op):
    x, y = gate.draw(op, np.random.default_rng(0), 40)
    assert x.dtype == y.dtype == np.float32
    assert ((x >= 1) & (x < 2)).all()
    truth = {
        "add": x[:, 0] + x[:, 1],
        "sub": x[:, 0] - x[:, 1],
        "mul": x[:, 0] * x[:, 1],
        "div": x[:, 0] / x[:, 1],
    }
    np.testing.assert_allclose(y[:, 0], truth[op])


def test_every_gate_is_there():
    assert {layer.keywords["gate"] for layer in gate.MODELS.values()} == set(gate.GATES)
    assert {layer.keywords["tied"] for layer in gate.MODELS.values()} == {True, False}


def laboratory(op, model, G, monkeypatch, weight=20.0):
    """A cell in which nothing is trained: the gate's parameters are given, the weights are right."""

    def init(self, seed, replicas):
        shapes = self.shapes()
        sign = {"add": 1, "sub": -1, "mul": 1, "div": -1}[op]
        params = {}
        for name, shape in shapes.items():
            value = np.full(shape, weight) if name != "G" else np.broadcast_to(np.reshape(G, (-1, 1)), shape)
            if name.startswith("W_hat"):
                value = value * np.array([[1.0], [sign]])
            params[name] = np.stack([value.reshape(shape)] * len(replicas)).astype("float32")
        return params

    def stay(layer, task, *, callback, seed, replicas, **options):
        params = init(layer, seed, replicas)
        segment = type("Segment", (), {"params": params})
        callback(segment)
        history = {"loss": np.zeros((1, len(replicas)))}
        return type(
            "Result", (), {"params": params, "history": history, "diverged": np.zeros(len(replicas), bool)}
        )

    monkeypatch.setattr(gate.NALU, "init", init)
    monkeypatch.setattr(gate, "fit", stay)
    config = {"experiment": "gate", "op": op, "model": model, "steps": 1, "batch": 1, "lr": 0.1, "seed": 0}
    return ran(gate, {**config, "first": 0, "count": 2})


@pytest.mark.parametrize("op", gate.OPS)
@pytest.mark.parametrize("kind", ["matrix", "scalar", "abs"])
@pytest.mark.parametrize("side", [0, 1])
def test_sides_flips_and_successes(op, kind, side, monkeypatch):
    """A gate that depends on x changes sides where x changes sign, and that of |x| does not."""
    z = 20.0 if side else -20.0
    cell = laboratory(op, kind, [z, z], monkeypatch)
    found = {row.row.split("/")[-1]: row for row in gate.rows([cell])}
    right = side == gate.SIDE[op]
    assert found["right"].ours == right
    assert found["success"].ours == right
    assert ("right_success" in found) == right
    assert found["undecided"].ours == 0
    np.testing.assert_allclose(found["gate"].ours, side, atol=1e-6)
    assert found["flipped_beyond"].ours == 0
    assert found["flipped_negative"].ours == (kind != "abs")


def test_an_undecided_gate(monkeypatch):
    cell = laboratory("add", "matrix-separate", [0.01, 0.01], monkeypatch)
    found = {row.row.split("/")[-1]: row for row in gate.rows([cell])}
    assert found["undecided"].ours == 1
    assert cell["weights"].shape == (2, 2, 4)  # W_a and W_m


def test_a_laboratory_from_training_to_its_page():
    config = {"experiment": "gate", "steps": 60, "batch": 16, "lr": 0.05, "seed": 0, "first": 0, "count": 4}
    cells = [
        ran(gate, {**config, "op": op, "model": model}) for op in ("add", "mul") for model in ("matrix", "abs")
    ]
    for cell in cells:
        assert cell["gate"].shape == (4, 61)
        assert cell["weights"].shape == (4, 61, 2)
        assert ((cell["gate"] >= 0) & (cell["gate"] <= 1)).all()
    made = gate.pictures(cells)
    assert [picture.name for picture in made] == ["gate-matrix", "weights-matrix", "ends-matrix", "flip"]
    assert all(len(cell.seeds["formula"]) == 4 for cell in cells)
    for picture in made:
        assert sum(axes.get_visible() for axes in drawn(picture)) == 2
    choices, why = gate.sections(cells)
    assert [row[0] for row in choices.rows] == ["matrix", "abs"]
    assert why.text
    assert gate.pictures(cells[1:2]) == []
    other = [ran(gate, {**config, "op": "div", "model": "independent"})]
    assert [p.name for p in gate.pictures(other)] == [
        f"{name}-independent" for name in ("gate", "weights", "ends")
    ]
