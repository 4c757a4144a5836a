"""The Keras demo: its data, its stuck gate, and what is said of both."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nalu_np.experiments import keras
from nalu_np.experiments.base import gather

matplotlib.use("Agg")


def ran(model, steps=6, count=3):
    config = {"experiment": "keras-subtract", "op": "sub", "model": model, "steps": steps, "seed": 0, "first": 0}
    config["count"] = count
    return gather([config], [{"config": config, "result": keras.run(config), "status": "done", "seconds": 1.0}])[0]


def test_45_inputs_are_added_and_55_subtracted():
    x, y = keras.draw(0.5, np.random.default_rng(0), 4000)
    np.testing.assert_allclose(y[:, 0], x @ np.repeat([1.0, -1.0], [45, 55]))
    np.testing.assert_allclose([x.mean(), x.std(), y.std()], [0, 0.5, 5], atol=0.1)
    np.testing.assert_allclose(keras.held_out("wide")[0], 4 * keras.held_out("inside")[0])


def test_initial_values_of_the_demo():
    layer = keras.MODELS["NALU"]()
    params = layer.init(0, replicas=50)
    for name, value in params.items():
        if name.endswith("G"):
            assert (value == 10).all()
        else:
            assert abs(value.std() - 1) < 0.15
    assert {unit.gate for unit in layer.layers} == {"abs"}


def test_the_first_gate_is_stuck_and_the_second_is_not():
    """Of 1 there is no gradient: G stays at 10 to the bit, while the weights of the same layer move."""
    cell = ran("NALU", steps=30)
    assert (cell["below_0_inside"] == 0).all()
    assert (cell["moved_0"] == 0).all()
    assert (cell["below_1_inside"] > 0.1).all()
    assert (cell["moved_1"] > 0).any()
    found = {row.row: row for row in keras.rows([cell])}
    np.testing.assert_allclose(
        found["keras-subtract/sub/NALU/moved_1"].ours, np.median(cell["moved_1"]), rtol=1e-5
    )
    np.testing.assert_allclose(
        found["keras-subtract/sub/NALU/below_1"].ours, cell["below_1_inside"].mean(), rtol=1e-5
    )


def test_three_rates_go_on_from_each_other(monkeypatch):
    """Each begins with the parameters, and not the batches, of the one before."""
    calls, fit = [], keras.fit

    def watch(*args, **options):
        result = fit(*args, **options)
        calls.append((options["optimizer"].lr, options["seed"], options["params"], result.params))
        return result

    monkeypatch.setattr(keras, "fit", watch)
    ran("NAC")
    assert [call[0] for call in calls] == list(keras.RATES)
    assert len({call[1] for call in calls}) == 3
    assert [call[2] for call in calls] == [None, calls[0][3], calls[1][3]]


def test_errors_are_those_of_the_truth(monkeypatch):
    """With exact weights nothing is left; a NAC has no rows about gates."""

    def exact(layer, x, y, *, replicas, **_):
        params = {name: np.full((len(replicas), *shape), 40.0) for name, shape in layer.shapes().items()}
        params["0.W_hat"][:, 45:] = -40.0
        params["0.M_hat"][:, :, 1] = -40.0
        params["1.M_hat"][:, 1] = -40.0
        history = {"loss": np.ones((1, len(replicas)))}
        return type(
            "Result", (), {"params": params, "history": history, "diverged": np.zeros(len(replicas), bool)}
        )

    monkeypatch.setattr(keras, "fit", exact)
    cell = ran("NAC")
    found = {row.row.split("/")[-1]: row for row in keras.rows([cell])}
    assert found.keys() == {"success", "mae_inside", "mae_wide"}
    assert found["success"].ours == 1
    assert found["mae_wide"].ours < 1e-9


def test_its_page():
    cells = [ran(model) for model in keras.MODELS]
    (picture,) = keras.pictures(cells)
    figure = Figure()
    picture.draw(figure)
    assert len(figure.axes[0].lines) == 2 * (3 + 1) + 2
    assert keras.sections(cells)[0].text
    sizes = [sum(keras.seconds(c) for c in keras.cells(scale, None)) for scale in ("quick", "default", "full")]
    assert 9 * sizes[0] < sizes[1] < sizes[2] / 9
    assert {config["count"] for config in keras.cells("default", 7)} == {7}
