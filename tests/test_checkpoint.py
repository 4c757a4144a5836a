"""Checkpoints: a run that is interrupted anywhere goes on to the same bits, and no other run goes on from it."""

import contextlib
import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import KINDS, MODELS, assert_same, rows, training

import nalu_np as nn
from nalu_np.batches import Draws, move, positions, states
from nalu_np.checkpoint import described
from nalu_np.errors import CheckpointError, FileError, OptionError
from nalu_np.kernels import planes
from nalu_np.train import _PlaneRun, _Run

# --- the same bits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_pieces_is_the_run_in_one(kind, device):
    """Any number of calls, each with more steps and other workers than the one before; chunks of two replicas."""

    @settings(max_examples=30 if device == "numpy" else 8, deadline=None)
    @given(
        model=st.sampled_from(list(MODELS.values())),
        S=st.integers(1, 5),
        stops=st.lists(st.integers(1, 25), min_size=1, max_size=4),
        validated=st.booleans(),
        options=st.fixed_dictionaries(
            {
                "every": st.integers(1, 6),
                "block": st.integers(1, 6),
                "batch": st.integers(1, 5),
                "seed": st.integers(0, 99),
                "dtype": st.sampled_from(["float32", "float64"]),
                "optimizer": st.sampled_from([nn.Adam(lr=0.1), nn.SGD(lr=0.1)]),
                "shared_batches": st.booleans(),
            }
        ),
    )
    def holds(model, S, stops, validated, options):
        if validated and model.rank == 2:
            options["validation"] = rows(4, model.out_features, model.in_features, seed=3)
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(planes, "chunk", lambda *_: 2)
            whole = training(model, kind, list(range(S)), steps=max(stops), **options)
            path = pathlib.Path(folder, "run.npz")
            for call, steps in enumerate(sorted(stops)):
                options["workers"] = 1 + call % 2
                result = training(model, kind, list(range(S)), steps=steps, checkpoint=path, **options)
            assert os.listdir(folder) == ["run.npz"]
        assert_same(result, whole, tolerance=1e-4 if device == "cupy" else None)
        assert result.best == whole.best

    holds()


class StoppedError(Exception):
    """Something that ends a run from inside."""


@pytest.mark.parametrize("ending", ["a true answer", "an error"])
@pytest.mark.parametrize("model", [nn.NALU(2, 1), MODELS["noisy"], MODELS["clamped"]], ids=str)
def test_a_callback_that_stops_and_a_second_call_that_goes_on(model, ending, tmp_path):
    seen = []

    def stop(segment):
        seen.append(segment.step)
        if ending == "an error":
            raise StoppedError
        return True

    options = {"steps": 23, "every": 5, "block": 3, "optimizer": nn.Adam(lr=0.1)}
    whole = training(model, "task", [0, 1, 2], **options)
    for _ in range(5):
        with contextlib.suppress(StoppedError):
            training(model, "task", [0, 1, 2], checkpoint=tmp_path / "run.npz", callback=stop, **options)
    assert seen == [5, 10, 15, 20, 23]
    result = training(model, "task", [0, 1, 2], checkpoint=tmp_path / "run.npz", callback=stop, **options)
    assert len(seen) == 5  # a segment is told of once
    assert_same(result, whole)


@pytest.mark.parametrize("fused", [True, False])
def test_a_finished_run_returns_at_once(fused, tmp_path, monkeypatch):
    x, y = rows()
    if not fused:
        monkeypatch.setattr(planes, "supports", lambda *_: False)
    options = {"steps": 20, "every": 8, "replicas": 3, "batch": 4, "checkpoint": tmp_path / "run.npz"}
    first = nn.fit(nn.NALU(2, 1), x, y, **options)
    content = (tmp_path / "run.npz").read_bytes()
    os.chmod(tmp_path / "run.npz", 0o400)  # nothing is left to write

    def never(*_):
        raise AssertionError("it trained")

    monkeypatch.setattr(_Run, "take", never)
    monkeypatch.setattr(_PlaneRun, "take", never)
    assert_same(nn.fit(nn.NALU(2, 1), x, y, callback=never, **options), first)
    assert (tmp_path / "run.npz").read_bytes() == content


@pytest.mark.parametrize("fused", [True, False])
def test_the_state_of_diverged_replicas_is_kept(fused, tmp_path, monkeypatch):
    """What has diverged before the interruption stays where it was after."""
    if not fused:
        monkeypatch.setattr(planes, "supports", lambda *_: False)
    x = np.random.default_rng(0).uniform(1e-12, 1e-9, (30, 5))
    options = {"every": 4, "replicas": 12, "optimizer": nn.Adam(lr=0.3), "dtype": "float32"}
    whole = nn.fit(nn.NALU(5, 1), x, x[:, :1], steps=30, **options)
    assert 0 < whole.diverged.sum() < 12
    for steps in (9, 18, 30):
        result = nn.fit(nn.NALU(5, 1), x, x[:, :1], steps=steps, checkpoint=tmp_path / "run.npz", **options)
    assert_same(result, whole)


def test_what_has_diverged_stays_so(tmp_path):
    """One row has a loss that overflows, and nothing else of it does: only the mark says that it was there."""
    x, y = rows(300)
    x[7], y[7] = 1e-10, 1e20
    options = {"every": 4, "replicas": 8, "batch": 4, "block": 8}
    whole = nn.fit(nn.NAC(2, 1), x, y, steps=60, **options)
    assert 0 < whole.diverged.sum() < 8
    for steps in range(10, 70, 10):
        result = nn.fit(nn.NAC(2, 1), x, y, steps=steps, checkpoint=tmp_path / "run.npz", **options)
    assert_same(result, whole)


@pytest.mark.parametrize("backends", [("numpy", "cupy"), ("cupy", "numpy")], ids=" then ".join)
@pytest.mark.parametrize("name", ["NALU", "noisy"])
def test_a_run_goes_on_in_the_other_library(name, backends, fake_cupy, tmp_path):
    options = {"every": 4, "block": 3, "dtype": "float64", "optimizer": nn.Adam(lr=0.1)}
    nn.use_backend("numpy")
    whole = training(MODELS[name], "task", [0, 1], steps=14, **options)
    for backend, steps in zip(backends, (7, 14), strict=True):
        nn.use_backend(backend)
        result = training(MODELS[name], "task", [0, 1], steps=steps, checkpoint=tmp_path / "run.npz", **options)
    assert_same(result, whole, tolerance=1e-9)


def test_a_checkpoint_needs_no_float64_on_the_device(fake_cupy_float32, tmp_path):
    x, y = rows()
    for steps in (3, 6):
        result = nn.fit(nn.NALU(2, 1), x, y, steps=steps, every=2, checkpoint=tmp_path / "run.npz")
    assert result.history["loss"].shape == (3, 1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**70),
    S=st.integers(1, 4),
    used=st.integers(0, 9),
    block=st.integers(1, 5),
    kept=st.integers(0, 12),
)
def test_streams_go_on_where_they_were(seed, S, used, block, kept):
    """A number of 16 bits leaves others for later: that is part of where a stream is."""

    def draw(generators):
        return list(np.stack([rng.integers(999, size=(block, 3), dtype=np.uint16) for rng in generators], axis=1))

    def opened():
        draws = Draws(seed, list(range(S)), block)
        for rng in draws.generators:
            rng.integers(9, size=used, dtype=np.uint8)
            rng.standard_normal(used)
        return draws, draws.steps(draw)

    first, drawn = opened()
    for _ in range(kept):
        next(drawn)
    at = first.positions(kept)
    second, again = opened()
    second.move(kept, at)
    for _ in range(2 * block + 1):
        np.testing.assert_array_equal(next(again), next(drawn))
    assert at.shape == (S, 4)


def test_one_position_does_for_all_streams():
    draws, other = Draws(0, [5], 1), Draws(0, [5, 5], 1)
    draws.generators[0].random(3)
    move(other.generators, positions(states(draws.generators)))
    assert [rng.random() for rng in other.generators] == [draws.generators[0].random()] * 2


# --- the file -------------------------------------------------------------------------------------------------

X, Y = rows()


def make(path, **options):
    """A run of 10 steps and 3 segments."""
    arguments = {"steps": 10, "every": 4, "replicas": 3, "batch": 4, "validation": (X, Y), "checkpoint": path}
    return nn.fit(nn.NALU(2, 1), X, Y, **{**arguments, **options})


@pytest.fixture
def path(tmp_path):
    """A checkpoint, alone in its folder."""
    make(tmp_path / "run.npz")
    return tmp_path / "run.npz"


def refusal(path, run=make, **options):
    """What the error says after the path; the file is as before, with nothing beside it."""
    before, beside = path.read_bytes(), os.listdir(path.parent)
    with pytest.raises(CheckpointError) as caught:
        run(path, **options)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == beside
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_what_is_in_it(path):
    """As the module says; any NumPy opens it, without pickle."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "header.json"}
        header = json.loads(archive["header.json"])
    S, P = 3, 6
    assert {name: array.shape for name, array in arrays.items()} == {
        **{"theta": (S, P), "best_theta": (S, P), "best_loss": (S,), "alive": (S,)},
        **{"optimizer.0": (S, P), "optimizer.1": (S, P), "sums.loss": (S,), "data": (S, 4), "noise": (S, 4)},
        **{"history.loss": (2, S), "history.valid_loss": (2, S)},
    }
    result = make(path)
    np.testing.assert_array_equal(arrays["theta"][:, :2].reshape(3, 2, 1), result.params["W_hat"])
    np.testing.assert_array_equal(arrays["history.loss"], result.history["loss"][:2])
    np.testing.assert_array_equal((arrays["sums.loss"] / 2).astype("float64"), result.history["loss"][2])
    assert (header["format"], header["version"], header["step"]) == ("nalu_np checkpoint", 1, 10)
    assert header["run"]["seed"] == "0"


def test_equal_runs_write_equal_bytes(path, tmp_path):
    make(tmp_path / "again.npz", workers=2)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


class Halving:
    """An optimiser that is no dataclass, with a schedule that is a function."""

    def __init__(self, rate):
        self.schedule = lambda step: rate / step
        self.rate = rate

    def init(self, theta):
        return (np.zeros_like(theta),)

    def update(self, gradient, state, step):
        return -self.schedule(step) * gradient, (state[0] + 1,)


@dataclass(frozen=True)
class Slotted:
    """The same without attributes to look at."""

    __slots__ = ()
    init, update = nn.SGD().init, nn.SGD().update


def product(factor):
    def sample(rng, n):
        x = rng.uniform(1, 2, (n, 2))
        return x, factor * x[:, :1] * x[:, 1:]

    return sample


OTHERS = {
    "replicas": ({"replicas": 4}, "replicas was [0, 1, 2], is [0, 1, 2, 3]"),
    "other replicas": ({"replicas": [0, 1, 3]}, "replicas was [0, 1, 2], is [0, 1, 3]"),
    "seed": ({"seed": 1}, "seed was 0, is 1, params is another"),
    "seed and params": ({"seed": 1, "params": nn.NALU(2, 1).init(0)}, "seed was 0, is 1, params is another"),
    "params": ({"params": nn.NALU(2, 1).init(0)}, "params is another"),
    "every": ({"every": 5}, "every was 4, is 5"),
    "block": ({"block": 5}, "block was 32, is 5"),
    "batch": ({"batch": 5}, "batch was 4, is 5"),
    "no batch": ({"batch": None}, "batch was 4, is None"),
    "loss": ({"loss": "mae"}, "loss was mse, is mae"),
    "dtype": ({"dtype": "float64"}, "dtype was float32, is float64, params is another, data is another"),
    "shared batches": ({"shared_batches": True}, "shared_batches was False, is True"),
    "learning rate": ({"optimizer": nn.Adam(lr=0.1)}, "optimizer is another"),
    "optimizer": ({"optimizer": nn.SGD()}, "optimizer is another"),
    "no validation": ({"validation": None}, "validation is another"),
    "validation": ({"validation": (X, -Y)}, "validation is another"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_another_run_does_not_go_on_from_it(name, steps, path):
    options, words = OTHERS[name]
    found = refusal(path, steps=steps, **options)
    assert found.startswith("a checkpoint of another run: ")
    assert words in found
    assert found.endswith("; call fit as it was called then, or choose another path")


DATA = {
    "rows": ((X[::-1], Y), "data is another"),
    "a row": ((X[:-1], Y[:-1]), "data is another"),
    "one number": ((np.where(np.arange(40).reshape(20, 2) == 7, X + 1e-4, X), Y), "data is another"),
    "a task": ((product(1), None), "data is another"),
}


@pytest.mark.parametrize("name", DATA)
def test_other_data_do_not_go_on_from_it(name, path):
    (x, y), words = DATA[name]
    assert words in refusal(
        path,
        lambda path: nn.fit(
            nn.NALU(2, 1), x, y, steps=20, every=4, replicas=3, batch=4, validation=(X, Y), checkpoint=path
        ),
    )


def test_another_model_does_not_go_on_from_it(tmp_path):
    options = {"steps": 3, "checkpoint": tmp_path / "run.npz"}
    nn.fit(nn.NAC(2, 1), X, Y, **options)
    for model in (nn.LogNAC(2, 1), nn.NAC(2, 1, initializer="glorot_uniform"), nn.chain(nn.NAC(2, 1))):
        found = refusal(tmp_path / "run.npz", lambda path, model=model: nn.fit(model, X, Y, **options))
        assert "model is another" in found


def test_a_task_is_told_from_another_of_the_same_name(tmp_path):
    """Its name is that of the function; what it closes over shows in what it draws."""
    options = {"steps": 4, "every": 2, "batch": 8, "checkpoint": tmp_path / "run.npz"}
    first = nn.fit(nn.NALU(2, 1), product(1), **options)
    assert "data is another" in refusal(
        tmp_path / "run.npz", lambda path: nn.fit(nn.NALU(2, 1), product(1.1), **options)
    )
    assert_same(nn.fit(nn.NALU(2, 1), product(1 + 1e-15), **options), first)  # the last digits, on another machine


def test_any_optimiser_has_a_description(tmp_path):
    """The address of a function is not part of it, its attributes are."""
    options = {"every": 2, "checkpoint": tmp_path / "run.npz"}
    whole = nn.fit(nn.Dense(2, 1), X, Y, steps=6, every=2, optimizer=Halving(0.5))
    for steps, same in ((3, Halving(0.5)), (6, Halving(0.5))):
        result = nn.fit(nn.Dense(2, 1), X, Y, steps=steps, optimizer=same, **options)
    assert_same(result, whole)
    for other in (Halving(0.25), Slotted()):
        assert "optimizer is another" in refusal(
            tmp_path / "run.npz",
            lambda path, other=other: nn.fit(nn.Dense(2, 1), X, Y, steps=6, optimizer=other, **options),
        )
    assert described(Slotted()) == f"Slotted {Slotted()}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.arange(6.0), np.arange(6.0).reshape(2, 3)),
        (np.arange(3.0), np.arange(3.0).astype("float32")),
        (np.zeros(2), -np.zeros(2)),
        ((X, Y), (Y, X)),
        (list(range(200)), list(range(201))),
        (nn.NALU(2, 1), nn.NALU(2, 1, gate="scalar")),
        (1, 2),
        (None, 0),
    ],
    ids=lambda _: "",
)
def test_descriptions_are_short_and_differ(one, other):
    assert described(one) != described(other)
    assert max(len(described(one)), len(described(other))) <= 400
    assert described(one) == described(one)


def test_descriptions_do_not_depend_on_layout_or_kind_of_number():
    assert described(np.asfortranarray(X)) == described(X)
    assert described(X[::2]) == described(X[::2].copy())
    assert described(np.int64(3)) == described(3)


def test_fewer_steps_than_were_made_are_refused(path):
    found = refusal(path, steps=9)
    assert found == "it is at step 10, beyond steps=9; ask for 10 or more"


def of_text(path):
    path.write_text("my thesis")


def of_numpy(path):
    np.savez(path, theta=np.ones(2))


def of_model(path):
    path.unlink()
    nn.save(path, nn.NAC(2, 1), nn.NAC(2, 1).init())


def empty(path):
    path.write_bytes(b"")


def torn(path):
    path.write_bytes(path.read_bytes()[:-700])


FOREIGN = {
    "text": (of_text, "File is not a zip file"),
    "numpy": (of_numpy, "it has no header.json"),
    "model": (of_model, "its header does not say 'nalu_np checkpoint'"),
    "empty": (empty, "File is not a zip file"),
    "torn": (torn, "File is not a zip file"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_a_checkpoint_is_never_written_over(name, path):
    change, reason = FOREIGN[name]
    change(path)
    assert refusal(path) == f"not a checkpoint: {reason}; choose one that fit has written, copied whole"


def changed(path, change):
    """The file with its header and its arrays changed."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "header.json"}
        header = json.loads(archive["header.json"])
    change(header, arrays)
    header["arrays"] = {n: {"dtype": a.dtype.name, "shape": list(a.shape)} for n, a in arrays.items()}
    with ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            archive.writestr(f"{name}.npy", content.getvalue())


def test_a_newer_format_asks_for_an_update(path):
    changed(path, lambda header, arrays: header.update(version=2, library="9.0"))
    newer = "a checkpoint of format 2, written by a newer version of the library, '9.0'; update nalu_np"
    assert refusal(path) == newer


def test_what_the_changes_start_from_is_itself_a_checkpoint(path):
    expected = make(path)
    changed(path, lambda header, arrays: None)
    assert_same(make(path), expected)


WRONG = {
    "no theta": lambda header, arrays: arrays.pop("theta"),
    "something else": lambda header, arrays: arrays.update(extra=np.ones(3)),
    "a shape": lambda header, arrays: arrays.update(theta=arrays["theta"][:, :5]),
    "a dtype": lambda header, arrays: arrays.update(best_loss=arrays["best_loss"].astype("float64")),
    "a stream": lambda header, arrays: arrays.update(data=arrays["data"][:2]),
    "no sums": lambda header, arrays: arrays.pop("sums.loss"),
    "sums of other replicas": lambda header, arrays: arrays.update({"sums.loss": arrays["sums.loss"][:2]}),
    "no history": lambda header, arrays: [arrays.pop(f"history.{name}") for name in ("loss", "valid_loss")],
    "a shorter history": lambda header, arrays: arrays.update({"history.loss": arrays["history.loss"][:1]}),
    "an earlier step": lambda header, arrays: header.update(step=4),
    "step 0": lambda header, arrays: header.update(step=0),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_are_not_those_of_the_run_are_refused(name, path):
    changed(path, WRONG[name])
    assert "not a checkpoint: its arrays are not those of such a run; " in refusal(path)


def test_a_step_that_is_no_number_is_refused(path):
    changed(path, lambda header, arrays: header.update(step="10"))
    assert "its header is not of the known form" in refusal(path)


def test_no_damage_goes_on(tmp_path):
    """Each byte changed, and each end: an error, or what nobody reads (a date, a permission)."""
    path = tmp_path / "run.npz"
    expected, content = make(path), (tmp_path / "run.npz").read_bytes()
    rng = random.Random(0)
    for place in rng.sample(range(len(content)), 150):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert_same(make(path), expected)
        except CheckpointError:
            assert path.read_bytes() == damaged
    for end in rng.sample(range(len(content)), 50):
        path.write_bytes(content[:end])
        refusal(path)


# --- writing --------------------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_is_refused_before_any_step(tmp_path):
    calls = []

    def task(rng, n):
        calls.append(n)
        return rows(n)

    missing = tmp_path / "missing" / "run.npz"
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory; choose another path"):
        nn.fit(nn.NAC(2, 1), task, steps=9, batch=2, checkpoint=missing)
    assert len(calls) == 1  # to know the task
    with pytest.raises(CheckpointError, match="cannot be read: it is a folder; check the path") as caught:
        make(tmp_path)
    assert isinstance(caught.value, FileError)


@pytest.mark.parametrize("path", [True, 3, ["run.npz"]], ids=repr)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(OptionError, match="fit: checkpoint must be a path, got"):
        make(path)


def test_a_write_that_breaks_leaves_the_one_before(tmp_path, monkeypatch):
    path, whole = tmp_path / "run.npz", make(None)
    make(path, steps=4)
    before, fsync = path.read_bytes(), os.fsync

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
            make(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]
    assert os.fsync is fsync
    assert_same(make(path), whole)


def test_a_file_that_another_run_has_put_there_is_not_written_over(tmp_path):
    """Two runs begin with one path: the second to write stops."""
    path = tmp_path / "run.npz"

    def put_another(_):
        path.unlink()
        make(path, seed=1)

    with pytest.raises(CheckpointError, match="a checkpoint of another run: seed was 1, is 0"):
        make(path, callback=put_another)
    assert_same(make(path, seed=1), make(None, seed=1))


def test_it_is_written_before_the_callback_and_once_a_segment(tmp_path, monkeypatch):
    path, found = tmp_path / "run.npz", []

    def look(segment):
        with ZipFile(path) as archive:
            found.append((segment.step, json.loads(archive.read("header.json"))["step"]))

    make(path, callback=look)
    assert found == [(4, 4), (8, 8), (10, 10)]


def test_a_link_is_followed(tmp_path):
    whole = make(None)
    (tmp_path / "there").mkdir()
    (tmp_path / "run.npz").symlink_to(tmp_path / "there" / "run.npz")
    for steps in (4, 10):
        result = make(str(tmp_path / "run.npz"), steps=steps)
    assert_same(result, whole)
    assert (tmp_path / "run.npz").is_symlink()


# --- killed ---------------------------------------------------------------------------------------------------

CHILD = """if True:
    import os, sys
    import numpy as np, nalu_np as nn
    from nalu_np.kernels import planes

    def task(rng, n):
        x = rng.uniform(1, 2, (n, 2))
        return x, x[:, :1] * x[:, 1:]

    tier, checkpoint, out = sys.argv[1:]
    planes.supports = {"planes": planes.supports, "readable": lambda *_: False}[tier]
    print("begun", flush=True)
    found = nn.fit(
        nn.NALU(2, 1), task, steps=301, every=3, block=7, batch=4, replicas=5, seed=1, optimizer=nn.Adam(lr=0.02),
        checkpoint=checkpoint or None,
    )
    assert found.how["tier"] == tier
    np.savez(out, loss=found.history["loss"], diverged=found.diverged, best=found.best,
             **{f"last {n}": a for n, a in found.params.items()},
             **{f"best {n}": a for n, a in found.best_params.items()})
"""


def survives(tier, kills, folder, rng):
    """Kill the same call again and again, at any moment; then its result is that of a call that nobody killed."""

    def call(checkpoint, out):
        command = [sys.executable, "-W", "error", "-c", CHILD, tier, str(checkpoint), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    path, out = folder / "run.npz", folder / "out.npz"
    died = 0
    while died < kills and not out.exists():
        before = path.stat().st_mtime_ns if path.exists() else 0
        with call(path, out) as child:
            child.stdout.readline()
            deadline = time.monotonic() + 30
            while child.poll() is None and time.monotonic() < deadline:
                if path.exists() and path.stat().st_mtime_ns > before:
                    break
            time.sleep(rng.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
            died += child.wait() == -signal.SIGKILL
    with call(path, out) as child:
        assert child.wait() == 0
    with call("", folder / "whole.npz") as child:
        assert child.wait() == 0
    with np.load(out) as found, np.load(folder / "whole.npz") as whole:
        assert found.files == whole.files
        for name in whole.files:
            assert found[name].tobytes() == whole[name].tobytes()
    return died


@pytest.mark.parametrize("tier", ["planes", "readable"])
def test_a_run_that_is_killed_goes_on(tier, tmp_path):
    assert survives(tier, 3, tmp_path, random.Random(0)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["planes", "readable"])
def test_a_run_that_is_killed_many_times_goes_on(tier, tmp_path):
    rng, died = random.Random(1), 0
    for trial in range(4):
        (tmp_path / str(trial)).mkdir()
        died += survives(tier, 20, tmp_path / str(trial), rng)
    assert died >= 40
