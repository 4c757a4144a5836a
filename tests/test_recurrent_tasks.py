"""The paper's recurrent tasks: sequences, wirings, what the paper prints."""

import numpy as np
import pytest

from nalu_np.experiments import recurrent, scores
from nalu_np.experiments.base import gather
from nalu_np.layers import Accumulator, Recurrent


@pytest.mark.parametrize("op", scores.OPS)
@pytest.mark.parametrize("place", scores.PLACES)
def test_entries_are_summed_over_all_steps(op, place):
    x, y = recurrent.draw(op, place, np.random.default_rng(0), 6)
    assert x.shape == (recurrent.LENGTHS[place], 6, 10)
    assert y.shape == (1, 6, 1)
    assert 0 <= x.min() < x.max() <= 0.1
    a, b = (x[:, :, chosen].astype(float).sum(axis=(0, 2)) for chosen in (range(4), range(5, 9)))
    truth = {"a": a, "add": a + b, "sub": a - b, "mul": a * b, "div": a / b, "square": a**2, "root": a**0.5}
    np.testing.assert_allclose(y[0, :, 0], truth[op], rtol=1e-5, atol=1e-6)


def right(model, op):
    """Exact weights: sums over time by a NAC, then a sum or a product of both."""
    layer = recurrent.MODELS[model]()
    params = {name: np.full((1, *shape), 40.0) for name, shape in layer.shapes().items()}
    params["0.M_hat"][:] = -40.0
    for j, chosen in enumerate(recurrent.SECTIONS):
        params["0.M_hat"][0, chosen, j] = 40.0
    if model == "NAC-beside":  # its state is added to itself
        params["0.M_hat"][0, 10, 0] = params["0.M_hat"][0, 11, 1] = 40.0
    w = {"a": (1, 0), "add": (1, 1), "sub": (1, -1), "mul": (1, 1), "div": (1, -1)}[op]
    params["1.W_hat"][0, :, 0] = np.where(np.array(w) < 0, -40.0, 40.0)
    params["1.M_hat"][0, :, 0] = np.where(np.array(w) == 0, -40.0, 40.0)
    return layer, params


@pytest.mark.parametrize(
    ("model", "op"),
    [("NAC", "a"), ("NAC", "add"), ("NAC-beside", "sub"), ("NAC-LogNAC", "mul"), ("NAC-LogNAC", "div")],
)
@pytest.mark.parametrize("place", scores.PLACES)
def test_right_weights_hold_for_any_length(model, op, place):
    layer, params = right(model, op)
    x, y = scores.held_out(recurrent.draw, op, place, 5)
    assert scores.squared_errors(layer, params, x, y)[0] < 1e-6 * (y**2).mean()
    params["0.M_hat"][0, 0, 0] = -40.0
    assert scores.squared_errors(layer, params, x, y)[0] > 1e-3 * (y**2).mean()


def test_wirings():
    for name, build in recurrent.MODELS.items():
        layer = build()
        assert (layer.rank, layer.in_features, layer.out_features) == (3, 10, 1)
        cell = layer.layers[0].cell
        assert cell.out_features == 2
        assert isinstance(cell, Recurrent) == name.endswith("-beside")
        assert isinstance(cell, Accumulator) == (name in ("NAC", "NALU", "NAC-LogNAC"))


def test_published_cells():
    assert recurrent.published("mul", "NAC", "extrapolation") == "88.4"
    assert recurrent.published("mul", "NAC-beside", "interpolation") == "1.5"
    assert recurrent.published("root", "RNN-ReLU", "extrapolation") == "34.1"
    assert recurrent.published("div", "NALU-beside", "extrapolation") == ">999.9"
    assert recurrent.published("a", "LSTM", "interpolation") == "0.0"
    assert recurrent.published("add", "NAC-LogNAC", "extrapolation") == ""
    assert recurrent.raw("sub", "NAC-beside", "extrapolation") == ".01537"
    assert recurrent.raw("a", "GRU", "interpolation") == ".000584"
    assert recurrent.raw("a", "NAC-LogNAC", "interpolation") == ""
    lines = [*recurrent.PRINTED.values(), *(line for table in recurrent.RAW.values() for line in table.values())]
    assert {len(line.split()) for line in lines} == {len(recurrent.OPS)}
    assert recurrent.incomparable("root", "LSTM", "extrapolation")
    assert not recurrent.incomparable("root", "LSTM", "interpolation")


def test_a_cell_from_training_to_its_page():
    """A few steps of a NAC that accumulates, through sequences of 1,000."""
    config = {"experiment": "recurrent", "op": "add", "steps": 30, "batch": 8, "lr": 0.05, "seed": 0, "first": 0}
    configs = [{**config, "model": model, "count": 2} for model in ("NAC", "RNN-ReLU")]
    records = [{"config": c, "result": recurrent.run(c), "status": "done", "seconds": 1.0} for c in configs]
    cells = gather(configs, records)
    found = {row.row: row for row in recurrent.rows(cells)}
    assert found["recurrent/add/NAC/extrapolation"].published == "0.0"
    assert np.isfinite(found["recurrent/add/RNN-ReLU/mse_interpolation"].ours)
    (picture,) = recurrent.pictures(cells)
    assert picture.name == "scores"
    extrapolation, _, why = recurrent.sections(cells)
    assert [row[0] for row in extrapolation.rows] == ["NAC", "RNN-ReLU"]
    assert why.text


def test_scales():
    sizes = {}
    for scale in ("quick", "default", "full"):
        configs = recurrent.cells(scale, None)
        sizes[scale] = sum(recurrent.seconds(config) for config in configs)
        cells = {(config["op"], config["model"]) for config in configs}
        assert {tuple(key.split("/")[:2]) for key in recurrent.RECURRENT.key} <= cells
    assert sizes["quick"] < min(110, sizes["default"] / 9) < sizes["full"] / 80  # within two minutes
    assert {config["count"] for config in recurrent.cells("full", 4)} == {4}
