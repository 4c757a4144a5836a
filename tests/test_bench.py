"""The benchmark: that its contenders compute the same, and that it says what it measured."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import nalu_np as nn
from nalu_np import bench, peers
from nalu_np.bench import AGREE, CASES, as_text, contender, machine, measure, primitives
from nalu_np.cli import main
from nalu_np.errors import NaluError, OptionError

SMALL = {
    "A": bench.Case(nn.NAC(2, 1), 1, 20, 7),
    "C": bench.Case(nn.NALU(2, 1), 3, 8, 7, fresh=True),
    "E": bench.Case(nn.chain(nn.NALU(6, 2), nn.NALU(2, 1)), 2, 8, 7),
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bench, "CASES", {**SMALL, "C-10": SMALL["C"]})


def test_rows_are_those_of_the_task():
    case = CASES["E-fresh"]
    x, y = case.task(np.random.default_rng(0), 50)
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((50, 100), (50, 1), np.float32, np.float32)
    assert 1 <= x.min() < x.max() <= 2
    np.testing.assert_allclose(y[:, 0], x[:, :50].sum(axis=1) * x[:, 50:].sum(axis=1), rtol=1e-5)
    x, y = CASES["C-10"].data()
    assert (x.shape, y.shape) == ((10, 128, 2), (10, 128, 1))
    np.testing.assert_allclose(y[..., 0], x[..., 0] * x[..., 1], rtol=1e-6)
    assert (x[0] != x[1]).any()


def test_both_tiers_are_what_they_are_called():
    for case in SMALL.values():
        slow, fast = (contender(case, name, fresh=False)(AGREE) for name in ("readable", "planes"))
        assert slow.shape == fast.shape == (AGREE, case.replicas)
        np.testing.assert_allclose(fast, slow, rtol=1e-4)
    options = {"steps": 1, "replicas": 3}
    tiers = [
        nn.fit(nn.NALU(2, 1), *SMALL["C"].data(), optimizer=o, **options).how["tier"]
        for o in (nn.Adam(), bench._Readable())
    ]
    assert tiers == ["planes", "readable"]


def test_all_are_timed_in_turns(small, monkeypatch):
    clock = iter(np.arange(1000.0))
    monkeypatch.setattr(bench.time, "process_time", lambda: next(clock))
    found = measure("C", ["planes", "readable"], rounds=3)
    assert [one.contender for one in found] == ["planes", "readable"]
    each = 1e9 / 7 / 3  # a second for 7 steps of 3 replicas
    for one in found:
        assert one.ns == pytest.approx([each] * 3)
        assert one.median == pytest.approx(each)


def test_who_computes_something_else_is_not_timed(small, monkeypatch):
    monkeypatch.setitem(peers.PEERS, "wrong", lambda *_, **__: lambda steps: np.ones((steps, 3)))
    with pytest.raises(NaluError, match="wrong computes other losses than the readable tier in case C"):
        measure("C", ["planes", "wrong"], rounds=1)


def test_the_report(small):
    report = bench.bench(["A", "C"], [], rounds=2)
    assert json.loads(json.dumps(report)) == report
    assert [(one["case"], one["contender"]) for one in report["results"]] == [
        *(("A", "planes"), ("A", "readable"), ("C", "planes"), ("C", "readable"))
    ]
    assert all(len(one["ns"]) == 2 and min(one["ns"]) > 0 for one in report["results"])
    text = as_text(report).splitlines()
    assert [line.split()[:2] for line in text[-4:]] == [
        ["A", "planes"],
        ["A", "readable"],
        ["C", "planes"],
        ["C", "readable"],
    ]
    assert text[-4].split()[-1] == text[-2].split()[-1] == "1.00"


def test_ratios_are_of_medians():
    results = [
        {"case": "A", "contender": "planes", "ns": [10.0, 20.0, 90.0]},
        {"case": "A", "contender": "jax", "ns": [30.0, 50.0, 40.0]},
    ]
    last = as_text({"machine": {}, "primitives_ns": {"exp2": 0.25}, "results": results}).splitlines()[-1]
    assert last.split() == ["A", "jax", "40", "30", "50", "2.00"]


def test_what_it_ran_on(monkeypatch):
    assert machine().keys() == {"cpu", "python", "numpy", "BLAS threads"}
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert machine()["BLAS threads"] == "1"
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError))
    assert machine()["cpu"]
    assert primitives().keys() == {"multiply", "divide", "exp2", "log2", "tanh", "uniform"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bench.bench(["X"], [], 1), "unknown case 'X'; choose among A, C, E"),
        (lambda: bench.bench(["A"], ["numba"], 1), "unknown peer 'numba'; choose among jax, torch"),
    ],
)
def test_what_is_unknown_is_refused(call, words, small):
    with pytest.raises(OptionError) as caught:
        call()
    assert words in str(caught.value)


def test_a_peer_that_is_missing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(OptionError, match=r"jax is not installed: pip install 'nalu_np\[bench\]'"):
        peers._import("jax")
    assert peers._import("json") is json
    assert peers.versions(["numpy"]) == {"numpy": np.__version__}


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_the_model_in_another_librarys_words(case):
    """NumPy can play the other library."""
    params = {n: v.astype(float) for n, v in case.model.init(3, case.replicas).items()}
    x, _ = case.data()
    y = peers._forward(case.model, params, x.astype(float), np, lambda z: 1 / (1 + np.exp(-z)))
    np.testing.assert_allclose(y, case.model(params, x.astype(float))[0], rtol=1e-12)


def test_the_command(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--case", "A", "--rounds", "1", "--json", "b.json"]) == 0
    out = capsys.readouterr().out
    assert "ns of CPU a seed-step" in out
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))["results"][0]["case"] == "A"
    assert main(["bench", "--case", "A", "--rounds", "1", "--json", "b.json"]) == 2
    assert "b.json: it is there already" in capsys.readouterr().err
    assert main(["bench", "--case", "A", "--rounds", "1"]) == 0
    assert main(["bench", "--case", "nothing"]) == 2
    assert main(["bench", "--peers", "nothing", "--case", "A"]) == 2


@pytest.mark.peers
@pytest.mark.parametrize("name", peers.PEERS)
@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_peers_compute_the_same(name, case):
    pytest.importorskip(name)
    expected = contender(case, "readable", fresh=False)(AGREE)
    np.testing.assert_allclose(contender(case, name, fresh=False)(AGREE), expected, rtol=1e-3)
    fresh = contender(replace(case, fresh=True), name, fresh=True)(AGREE)
    assert fresh.shape == expected.shape
    assert np.isfinite(fresh).all()
