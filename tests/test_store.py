"""Models in files: what is loaded is what was saved, to the bit, and every other file is one clear line."""

import contextlib
import copy
import errno
import json
import os
import pathlib
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nalu_np as nn
from nalu_np import store
from nalu_np.errors import (
    DTypeError,
    FileError,
    MixedBackendError,
    ModelFileError,
    NaluError,
    OptionError,
    ParameterError,
    ShapeError,
)
from nalu_np.layer import REGISTRY
from nalu_np.store import check_writable, load, save

SINGLE = [example for cls in REGISTRY.values() for example in cls.examples()]
LAYERS = [
    *(example if isinstance(example, nn.Layer) else nn.scan(example) for example in SINGLE),
    nn.chain(nn.NAC(3, 2), nn.chain(nn.NALU(2, 2), nn.Dense(2, 1))),
    nn.chain(nn.scan(nn.Accumulator(nn.NALU(2, 3))), nn.scan(nn.Accumulator(nn.Dense(3, 1)))),
]
LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "backwards": lambda array: np.ascontiguousarray(array[..., ::-1])[..., ::-1],
    "big endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
}

text = st.text(max_size=8) | st.sampled_from(["\ud800", "\0", "\x1b[31m", "größe"])
number = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_value = st.recursive(
    st.none() | st.booleans() | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@st.composite
def models(draw):
    """A layer, and parameters of it, of one replica or of some."""
    layer = draw(st.sampled_from(LAYERS))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    lead = draw(st.sampled_from([(), (1,), (3,)]))
    elements = st.floats(allow_nan=False, allow_infinity=False, width=np.dtype(dtype).itemsize * 8)
    return layer, {n: draw(arrays(dtype, lead + s, elements=elements)) for n, s in layer.shapes().items()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """One file, written anew by each example of a property."""
    return tmp_path_factory.mktemp("store") / "scratch.npz"


LAYER = nn.NAC(2, 1)
PARAMS = {"W_hat": np.array([[1.5], [-2.0]], "float32"), "M_hat": np.array([[0.25], [3.0]], "float32")}
META = {"learned": "x - y"}


@pytest.fixture
def good(tmp_path):
    """A model file."""
    path = tmp_path / "m.npz"
    save(path, LAYER, PARAMS, META)
    return path


def same(model, layer, params, meta):
    """Whether what `load` returned is what was saved."""
    return (
        model[0] == layer
        and list(model[1]) == list(layer.shapes())
        and all(
            value.dtype == params[name].dtype
            and value.shape == params[name].shape
            and value.tobytes() == params[name].tobytes()
            for name, value in model[1].items()
        )
        and model[2] == meta
    )


def refusal(call, path, *arguments):
    """The message with which a path is refused, after the checks that hold for every message."""
    with pytest.raises(ModelFileError) as caught:
        call(path, *arguments)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600 + len(str(path))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    shown = str(path).encode("unicode_escape").decode()
    assert message.startswith(f"{shown}: ")
    return message.removeprefix(f"{shown}: ")


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archived(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def header_of(path):
    return json.loads(members(path)["header.json"])


def with_header(path, header):
    """The file with another header: text, or what becomes JSON."""
    written = header if isinstance(header, bytes | str) else json.dumps(header)
    return archived(path, {**members(path), "header.json": written})


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# --- what is loaded is what was saved -------------------------------------------------------------------------


@settings(deadline=None)
@given(
    model=models(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    meta=st.dictionaries(text, json_value, max_size=3),
    shuffled=st.booleans(),
)
def test_what_is_loaded_is_what_was_saved(scratch, model, layout, meta, shuffled):
    layer, params = model
    given_ = {name: LAYOUTS[layout](params[name]) for name in sorted(params, reverse=shuffled)}
    before = {name: value.copy() for name, value in given_.items()}

    assert save(scratch, layer, given_, meta) is None
    loaded = load(scratch)

    assert same(loaded, layer, params, meta)
    assert all(value.flags.c_contiguous and value.flags.writeable for value in loaded[1].values())
    assert all(value.dtype.isnative and value.base is None for value in loaded[1].values())
    assert all(given_[name].tobytes() == before[name].tobytes() for name in before)
    # Any NumPy opens it, without the danger of a pickle.
    with np.load(scratch, allow_pickle=False) as opened:
        assert {*opened.files} == {"header.json", *params}
        for name, value in loaded[1].items():
            assert opened[name].dtype == value.dtype
            assert opened[name].shape == value.shape
            assert opened[name].tobytes() == value.tobytes()

    content = scratch.read_bytes()
    save(scratch, *loaded)
    assert scratch.read_bytes() == content, "equal input gives equal bytes"


def test_a_loaded_model_computes_what_the_saved_one_did(good):
    x = np.array([[1.0, 2.0]], "float32")
    layer, params, _ = load(good)
    assert layer(params, x)[0].tobytes() == LAYER(PARAMS, x)[0].tobytes()


def test_parameters_come_from_any_library_and_are_born_where_new_arrays_are(device, tmp_path):
    layer = nn.chain(nn.NALU(2, 3), nn.NAC(3, 1))
    params = layer.init(seed=1, replicas=2)
    save(tmp_path / "m.npz", layer, params)
    loaded = load(tmp_path / "m.npz")[1]
    assert {nn.backend.library(value) for value in loaded.values()} == {"numpy" if device == "numpy" else "cupy"}
    for name, value in loaded.items():
        assert nn.to_numpy(value).tobytes() == nn.to_numpy(params[name]).tobytes()


def test_a_model_of_the_gpu_loads_without_one(fake_cupy, tmp_path):
    params = LAYER.init()
    save(tmp_path / "m.npz", LAYER, params)
    nn.use_backend("numpy")
    loaded = load(tmp_path / "m.npz")[1]
    assert all(value.tobytes() == nn.to_numpy(params[name]).tobytes() for name, value in loaded.items())


def test_the_header_is_plain_text_and_comes_first(good):
    first, header = next(iter(members(good).items()))
    assert first == "header.json"
    assert header.count(b"\n") > 10, "for people to read"
    assert json.loads(header.decode("ascii")) == {
        "format": "nalu_np model",
        "version": 1,
        "library": nn.__version__,
        "layer": {"type": "NAC", "in_features": 2, "out_features": 1, "initializer": "uniform"},
        "parameters": {name: {"dtype": "float32", "shape": [2, 1]} for name in ("W_hat", "M_hat")},
        "meta": META,
    }


def test_nothing_in_the_archive_tells_when_or_by_whom(good):
    with zipfile.ZipFile(good) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == 0o644
            assert info.compress_type == zipfile.ZIP_STORED


def test_the_numbers_are_aligned_as_in_every_npy(good):
    for name in PARAMS:
        head = members(good)[f"{name}.npy"][: -PARAMS[name].nbytes]
        assert len(head) % 64 == 0
        assert head.endswith(b" \n")


def test_no_replicas_at_all_is_a_model_too(tmp_path):
    params = {name: value[None][:0] for name, value in PARAMS.items()}
    save(tmp_path / "m.npz", LAYER, params)
    assert same(load(tmp_path / "m.npz"), LAYER, params, {})


def test_meta_is_empty_unless_given(tmp_path):
    save(str(tmp_path / "m.npz"), LAYER, PARAMS)
    assert load(str(tmp_path / "m.npz"))[2] == {}


def test_a_path_may_be_bytes_from_the_system(tmp_path):
    class Odd(os.PathLike):
        def __fspath__(self):
            return os.fsencode(tmp_path / "m.npz")

    save(Odd(), LAYER, PARAMS)
    assert load(Odd())[0] == LAYER


@dataclass(frozen=True)
class Mine(nn.Layer):
    """A layer of a user, with at most one parameter and with an option of any kind."""

    name: str | None = "s"
    option: Any = None

    def shapes(self):
        return {} if self.name is None else {self.name: (self.in_features,)}

    def draw(self, name, rng):
        return rng.uniform(size=self.in_features)

    def config(self):
        sizes = {"in_features": self.in_features, "out_features": self.out_features}
        return {"type": "Mine", **sizes, "name": self.name, "option": self.option}


def mine(**options):
    """Such a layer and its parameters, as `save` takes them."""
    layer = Mine(2, 2, **options)
    return layer, {name: np.ones(2) for name in layer.shapes()}


def test_layers_of_a_user_are_added_by_a_registry(tmp_path):
    path, model = tmp_path / "m.npz", nn.chain(Mine(2, 2), nn.NAC(2, 1))
    params = model.init()
    save(path, model, params)
    assert refusal(load, path).startswith("unknown layer 'Mine'; known: ")
    assert same(load(path, registry={"Mine": Mine}), model, params, {})
    assert "Mine" not in REGISTRY


@pytest.mark.parametrize("registry", [[Mine], Mine, "Mine"], ids=repr)
def test_a_registry_has_names(registry, tmp_path):
    save(tmp_path / "m.npz", *mine())
    with pytest.raises(OptionError) as caught:
        load(tmp_path / "m.npz", registry=registry)
    words = f"load: registry must be a mapping of names to classes, got {registry!r}; pass registry="
    assert str(caught.value).startswith(words)


def test_a_layer_may_have_no_parameters(tmp_path):
    save(tmp_path / "m.npz", *mine(name=None))
    assert load(tmp_path / "m.npz", {"Mine": Mine}) == (Mine(2, 2, name=None), {}, {})


# --- what is not saved ----------------------------------------------------------------------------------------


def circular():
    meta: dict[str, Any] = {}
    meta["itself"] = meta
    return meta


def deep():
    meta: dict[str, Any] = {}
    for _ in range(100_000):
        meta = {"": meta}
    return meta


NOT_SAVED = {
    "no layer": ("NAC", PARAMS, {}, OptionError, "expected a layer, got 'NAC'"),
    "a class": (nn.NAC, PARAMS, {}, OptionError, "save: expected a layer, got the class NAC; build it"),
    "no mapping": (LAYER, np.ones(2), {}, ParameterError, "params must be a mapping of names to arrays, got nda"),
    "a cell": (nn.Accumulator(LAYER), PARAMS, {}, OptionError, "expected a layer"),
    "missing": (LAYER, {"W_hat": PARAMS["W_hat"]}, {}, ParameterError, "missing: M_hat"),
    "unknown": (LAYER, {**PARAMS, "G": PARAMS["W_hat"]}, {}, ParameterError, "unknown: G"),
    "shape": (nn.NAC(3, 1), PARAMS, {}, ShapeError, "W_hat has shape"),
    "replicas": (LAYER, {**PARAMS, "M_hat": np.ones((3, 2, 1), "float32")}, {}, ShapeError, "replicas"),
    "lists": (LAYER, {**PARAMS, "M_hat": [[1.0], [2.0]]}, {}, DTypeError, "list"),
    "integers": (LAYER, {n: np.ones((2, 1), int) for n in PARAMS}, {}, DTypeError, "got int64"),
    "halves": (LAYER, {n: np.ones((2, 1), "float16") for n in PARAMS}, {}, DTypeError, "got float16"),
    "objects": (LAYER, {n: np.ones((2, 1), object) for n in PARAMS}, {}, DTypeError, "got object"),
    "mixed": (LAYER, {**PARAMS, "M_hat": np.ones((2, 1))}, {}, DTypeError, "got float32, float64"),
    "NaN": (LAYER, {**PARAMS, "M_hat": np.float32([[1], [np.nan]])}, {}, OptionError, "parameter M_hat has NaN"),
    "infinity": (LAYER, {**PARAMS, "W_hat": np.float32([[np.inf], [1]])}, {}, OptionError, "parameter W_hat has"),
    "no dict": (LAYER, PARAMS, [1], OptionError, "meta must be a dict, got [1]"),
    "empty, but no dict": (LAYER, PARAMS, [], OptionError, "meta must be a dict, got []"),
    "meta of a set": (LAYER, PARAMS, {"a": {1}}, OptionError, "must be JSON: Object of type set"),
    "meta of an array": (LAYER, PARAMS, {"a": np.ones(2)}, OptionError, "must be JSON: Object of type ndarray"),
    "NaN in meta": (LAYER, PARAMS, {"a": float("nan")}, OptionError, "must be JSON: "),
    "tuple in meta": (LAYER, PARAMS, {"a": (1, 2)}, OptionError, "JSON would change meta"),
    "number as a key": (LAYER, PARAMS, {1: 2}, OptionError, "JSON would change meta"),
    "circular meta": (LAYER, PARAMS, circular(), OptionError, "must be JSON: "),
    "deep meta": (LAYER, PARAMS, deep(), OptionError, "must be JSON: "),
    "large number in meta": (LAYER, PARAMS, {"a": 10**5000}, OptionError, "must be JSON: "),
    "large meta": (LAYER, PARAMS, {"a": "a" * (1 << 20)}, OptionError, " bytes of 1,048,576"),
    "option that is not JSON": (*mine(option={1}), {}, OptionError, "must be JSON: Object of type set"),
    "option that JSON changes": (
        *mine(option=(1, 2)),
        {},
        OptionError,
        "would change meta or the layer's options",
    ),
    "name for a path": (*mine(name="../a"), {}, ParameterError, "got '../a'"),
    "name with an end": (*mine(name="a\0"), {}, ParameterError, "got 'a\\x00'"),
    "name of half a letter": (*mine(name="\ud800"), {}, ParameterError, "got '\\ud800'"),
    "long name": (*mine(name="a" * 70_000), {}, ParameterError, "got 'aaa"),
    "no name": (*mine(name=""), {}, ParameterError, "got ''"),
}


@pytest.mark.parametrize("case", NOT_SAVED)
def test_what_could_not_be_loaded_is_not_saved(case, good):
    layer, params, meta, error, message = NOT_SAVED[case]
    before = good.read_bytes()
    for path in (good, good.parent / "new.npz"):
        with pytest.raises(error) as caught:
            save(path, layer, params, meta)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert good.read_bytes() == before
    assert files(good.parent) == ["m.npz"]


def test_arrays_of_two_libraries_are_not_saved(fake_cupy, tmp_path):
    with pytest.raises(MixedBackendError):
        save(tmp_path / "m.npz", LAYER, {**LAYER.init(), "M_hat": PARAMS["M_hat"]})
    assert files(tmp_path) == []


# --- where it is saved ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def unprivileged(folder):
    """Without the rights of root, for whom nothing is read-only."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *pathlib.Path(folder).iterdir()):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def both_refuse(path):
    """The one message of `save` and `check_writable`."""
    message = refusal(save, path, LAYER, PARAMS)
    assert refusal(check_writable, path) == message
    return message


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_follows_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        save(tmp_path / "m.npz", LAYER, PARAMS)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.npz").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_a_file_that_is_written_over_keeps_its_permissions(mode, good):
    good.chmod(mode)
    save(good, nn.Dense(1, 1), nn.Dense(1, 1).init())
    assert stat.S_IMODE(good.stat().st_mode) == mode
    assert load(good)[0] == nn.Dense(1, 1)
    assert files(good.parent) == ["m.npz"]


def test_checking_a_place_leaves_no_trace(good):
    before, mode = good.read_bytes(), good.stat()
    check_writable(good)
    check_writable(str(good.parent / "new.npz"))
    assert files(good.parent) == ["m.npz"]
    assert good.read_bytes() == before
    assert (good.stat().st_ino, good.stat().st_mtime_ns) == (mode.st_ino, mode.st_mtime_ns)


def test_a_link_is_followed(good):
    link = good.parent / "latest.npz"
    link.symlink_to("m.npz")
    save(link, nn.Dense(1, 1), nn.Dense(1, 1).init())
    assert link.is_symlink()
    assert load(good)[0] == load(link)[0] == nn.Dense(1, 1)

    (good.parent / "folder").mkdir()
    link.unlink()
    link.symlink_to(pathlib.Path("folder", "new.npz"))
    save(link, LAYER, PARAMS)
    assert link.is_symlink()
    assert files(good.parent / "folder") == ["new.npz"]


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("m.npz", LAYER, PARAMS)
    assert load("m.npz")[0] == LAYER


@pytest.mark.parametrize(
    "content",
    [b"", b"x,y\n1,2\n", b"PK\x05\x06" + bytes(18), None],
    ids=["nothing", "a table", "an empty archive", "arrays of NumPy"],
)
def test_a_file_that_is_no_model_is_never_written_over(content, tmp_path):
    path = tmp_path / "data.npz"
    if content is None:
        np.savez(path, a=np.ones(3))
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    assert both_refuse(path) == (
        "cannot be written: it is there already, and is not a model file; choose another path"
    )
    assert path.read_bytes() == before
    assert files(tmp_path) == ["data.npz"]


def test_a_model_of_a_newer_version_may_be_written_over(good):
    with_header(good, {"format": "nalu_np model", "version": 7})
    save(good, LAYER, PARAMS)
    assert load(good)[0] == LAYER


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "it is not an ordinary file" in both_refuse(tmp_path / "pipe")
    assert "it is not an ordinary file" in refusal(load, tmp_path / "pipe")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "it is a folder"),
        ("missing/m.npz", "No such file or directory"),
        ("file/m.npz", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("n" * 300, "File name too long"),
        ("nul\0", "embedded null "),
        ("/dev/full", "it is not an ordinary file"),
        ("/dev/null", "it is not an ordinary file"),
        ("missing\n\x1b[31m/m.npz", "No such file or directory"),
    ],
)
def test_what_is_no_place_for_a_file(path, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    found = both_refuse(os.path.join(tmp_path, path))
    assert found.startswith("cannot be written: ")
    assert message in found
    assert found.endswith("; choose another path")
    assert refusal(load, os.path.join(tmp_path, path)).startswith("cannot be read: ")
    assert files(tmp_path) == ["file", "loop"]


def test_a_read_only_folder_is_refused_and_so_is_a_read_only_model():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "m.npz")
        with unprivileged(folder):
            save(path, LAYER, PARAMS)
            os.chmod(path, 0o444)
            on_file = both_refuse(path)
            os.chmod(folder, 0o555)
            in_folder = both_refuse(pathlib.Path(folder, "new.npz"))
            os.chmod(folder, 0o755)
            os.chmod(path, 0o000)
            unreadable = refusal(load, path)
    assert on_file == in_folder == "cannot be written: Permission denied; choose another path"
    assert unreadable == "cannot be read: Permission denied; check the path"


# --- all or nothing -------------------------------------------------------------------------------------------


def opens(breaking, error):
    """`open` for the temporary file, which breaks in one of its methods when half of the work is done."""

    def opened(name, mode):
        file = open(name, mode)  # noqa: SIM115
        if mode != "xb":
            return file
        if breaking == "open":
            file.close()
            raise error
        return Wrapped(file)

    class Wrapped(contextlib.closing):
        def __enter__(self):
            return self

        name = property(lambda self: self.thing.name)
        fileno = property(lambda self: self.thing.fileno)

        def write(self, data):
            self.thing.write(data if breaking != "write" else data[: len(data) // 2])
            if breaking == "write":
                raise error

        def flush(self):
            self.thing.flush()
            if breaking == "flush":
                raise error

    return opened


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()], ids=repr
)
@pytest.mark.parametrize("breaking", ["open", "write", "flush", "fchmod", "fsync", "replace"])
def test_a_save_that_breaks_leaves_everything_as_it_was(breaking, error, good, monkeypatch):
    def breaks(*arguments):
        raise error

    before = good.read_bytes(), good.stat()
    for path in [good] if breaking == "fchmod" else [good, good.parent / "new.npz"]:
        with monkeypatch.context() as patch:
            if breaking in ("open", "write", "flush"):
                patch.setattr(store, "open", opens(breaking, error), raising=False)
            else:
                patch.setattr(os, breaking, breaks)
            if isinstance(error, OSError):
                message = "cannot be written: No space left on device; choose another path"
                assert refusal(save, path, LAYER, PARAMS, {"new": 1}) == message
            else:
                with pytest.raises(KeyboardInterrupt):
                    save(path, LAYER, PARAMS, {"new": 1})
        assert files(good.parent) == ["m.npz"]
        after = good.stat()
        assert good.read_bytes() == before[0]
        assert [after.st_ino, after.st_mode, after.st_mtime_ns] == [
            before[1].st_ino,
            before[1].st_mode,
            before[1].st_mtime_ns,
        ]


def test_a_disk_without_space_leaves_everything_as_it_was(good):
    before = good.read_bytes()
    code = """if True:
        import resource, sys
        import nalu_np as nn
        from nalu_np.store import save
        layer = nn.Dense(50, 50)
        params = layer.init()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for path in sys.argv[1:]:
            try:
                save(path, layer, params)
            except nn.errors.ModelFileError as error:
                print(error)
    """
    paths = [str(good), str(good.parent / "new.npz")]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *paths], capture_output=True, text=True, check=True
    )
    problem = os.strerror(errno.EFBIG)
    assert run.stdout.splitlines() == [f"{p}: cannot be written: {problem}; choose another path" for p in paths]
    assert good.read_bytes() == before
    assert files(good.parent) == ["m.npz"]


# --- what is not loaded ---------------------------------------------------------------------------------------


def test_a_refusal_is_an_error_of_the_library_and_a_value_error(tmp_path):
    for kind in (FileError, NaluError, ValueError):
        with pytest.raises(kind):
            load(tmp_path / "missing.npz")


def test_a_file_that_is_not_there(tmp_path):
    assert refusal(load, tmp_path / "m.npz") == "cannot be read: No such file or directory; check the path"
    assert refusal(load, tmp_path) == "cannot be read: it is a folder; check the path"


def of_numpy(path):
    np.savez(path, W_hat=np.ones(2))


def damaged(at, value):
    """Change bytes where they are found, which a position after a mark says."""

    def change(path):
        content = bytearray(path.read_bytes())
        mark, offset = at
        place = content.rindex(mark) + offset
        content[place : place + len(value)] = value
        path.write_bytes(content)

    return change


def swapped(name, data):
    """One member replaced, or without data left out."""

    def change(path):
        content = {**members(path), name: data}
        archived(path, {n: d for n, d in content.items() if d is not None})

    return change


def compressed(method):
    return lambda path: archived(path, members(path), method)


def doubled(name):
    def change(path):
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(name, members(path)[name])

    return change


def npy(array, **options):
    """The `.npy` of another array or of another order, in the same number of bytes as the right one."""
    shape, dtype = options.get("shape", (2, 1)), options.get("dtype", "<f4")
    order = options.get("order", False)
    head = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}"
    head = head.ljust(128 - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + array.tobytes()


CENTRAL = b"PK\x01\x02"
W_HAT = PARAMS["W_hat"]
NOT_LOADED = {
    "nothing": (lambda path: path.write_bytes(b""), "not a zip file"),
    "text": (lambda path: path.write_text("x,y\n1,2\n"), "not a zip file"),
    "a lone array": (lambda path: path.write_bytes(npy(W_HAT)), "not a zip file"),
    "an empty archive": (lambda path: archived(path, {}), "it has no header.json"),
    "arrays of NumPy": (of_numpy, "it has no header.json"),
    "no header": (swapped("header.json", None), "it has no header.json"),
    "a large header": (swapped("header.json", b" " * (1 << 20) + b"{}"), "'header.json' has the wrong size"),
    "an empty header": (swapped("header.json", b""), "Expecting value"),
    "no JSON": (swapped("header.json", b"{'format': 1}"), "Expecting property name"),
    "no text": (swapped("header.json", b'{"a": "\xff"}'), "can't decode byte"),
    "deep JSON": (swapped("header.json", b"[" * 1_000_000), "recursion"),
    "a long number": (swapped("header.json", b'{"version": ' + b"9" * 5000 + b"}"), "integer string conversion"),
    "a list": (swapped("header.json", b"[]"), "its header does not say 'nalu_np model'"),
    "a missing parameter": (swapped("W_hat.npy", None), "missing, unknown or repeated in it: 'W_hat.npy'"),
    "another member": (swapped("\x1bG.npy", b"1"), "missing, unknown or repeated in it: '\\x1bG.npy'"),
    "a parameter twice": (doubled("M_hat.npy"), "missing, unknown or repeated in it: 'M_hat.npy'"),
    "a header twice": (doubled("header.json"), "missing, unknown or repeated in it: 'header.json'"),
    "deflated": (compressed(zipfile.ZIP_DEFLATED), "'header.json' is compressed or encrypted"),
    "LZMA": (compressed(zipfile.ZIP_LZMA), "'header.json' is compressed or encrypted"),
    "encrypted": (damaged((CENTRAL, 8), b"\x01"), "'M_hat.npy' is compressed or encrypted"),
    "a parameter deflated": (damaged((CENTRAL, 10), b"\x08"), "'M_hat.npy' is compressed or encrypted"),
    "a method unknown": (damaged((CENTRAL, 10), b"\x63"), "'M_hat.npy' is compressed or encrypted"),
    "a zip of the future": (damaged((CENTRAL, 6), b"\xff"), "zip file version 25.5"),
    "two sizes": (damaged((CENTRAL, 20), struct.pack("<L", 7)), "'M_hat.npy' has the wrong size"),
    "a huge size": (damaged((CENTRAL, 20), struct.pack("<2L", *[1 << 31] * 2)), "'M_hat.npy' has the wrong size"),
    "no such place": (damaged((CENTRAL, 42), struct.pack("<L", 0)), "File name in directory"),
    "another checksum": (damaged((CENTRAL, 16), b"abcd"), "Bad CRC-32 for file 'M_hat.npy'"),
    "another value": (damaged((b"\n\x00\x00\xc0\x3f", 1), b"\1"), "Bad CRC-32 for file 'W_hat.npy'"),
    "too short": (swapped("W_hat.npy", npy(W_HAT)[:-1]), "'W_hat.npy' has the wrong size"),
    "too long": (swapped("W_hat.npy", npy(W_HAT) + b"\0"), "'W_hat.npy' has the wrong size"),
    "nothing in it": (swapped("W_hat.npy", b""), "'W_hat.npy' has the wrong size"),
    "no npy": (swapped("W_hat.npy", bytes(136)), "'W_hat' is not stored as its header says"),
    "by columns": (swapped("W_hat.npy", npy(W_HAT, order=True)), "'W_hat' is not stored as its header says"),
    "objects": (swapped("W_hat.npy", npy(W_HAT, dtype="|O")), "'W_hat' is not stored as its header says"),
    "integers": (swapped("W_hat.npy", npy(W_HAT, dtype="<i4")), "'W_hat' is not stored as its header says"),
    "another shape": (swapped("W_hat.npy", npy(W_HAT, shape=(1, 2))), "'W_hat' is not stored as its header says"),
    "NaN": (swapped("W_hat.npy", npy(np.float32([1, np.nan]))), "parameter 'W_hat' has NaN or infinity"),
    "infinity": (swapped("W_hat.npy", npy(np.float32([-np.inf, 1]))), "parameter 'W_hat' has NaN or infinity"),
}


def test_what_the_cases_build_on_is_itself_a_model(good):
    save(good, nn.Dense(1, 20, bias=False), {"W": np.zeros((1, 20), "float32")})
    archived(good, members(good))
    assert load(good)[0] == nn.Dense(1, 20, bias=False)
    save(good, LAYER, PARAMS)
    archived(good, {**members(good), "W_hat.npy": members(good)["M_hat.npy"]})
    assert load(good)[1]["W_hat"].tobytes() == PARAMS["M_hat"].tobytes()
    assert len(npy(W_HAT)) == len(members(good)["W_hat.npy"]), "wrong heads are of the right length"


@pytest.mark.parametrize("case", NOT_LOADED)
def test_a_file_that_is_no_model_is_not_loaded(case, good):
    change, message = NOT_LOADED[case]
    change(good)
    found = refusal(load, good)
    assert found.startswith("not a model file: ")
    assert found.endswith("; choose one that save has written, copied whole")
    assert message in found


def edited(*path_and_value):
    """Change one entry of the header; `...` removes it."""
    *path, last, value = path_and_value

    def change(header):
        for key in path:
            header = header[key]
        if value is ...:
            del header[last]
        else:
            header[last] = value

    return change


FORM = "its header is not of the known form"
BAD_HEADERS = {
    "no format": (edited("format", ...), "its header does not say 'nalu_np model'"),
    "another format": (edited("format", "keras"), "its header does not say 'nalu_np model'"),
    "no version": (edited("version", ...), "its format has version None"),
    "version 0": (edited("version", 0), "its format has version 0"),
    "version of text": (edited("version", "2\n"), "its format has version '2\\n'"),
    "no layer": (edited("layer", ...), "its header has gaps"),
    "no parameters": (edited("parameters", ...), "its header has gaps"),
    "no meta": (edited("meta", ...), "its header has gaps"),
    "meta of a list": (edited("meta", []), FORM),
    "parameters of a list": (edited("parameters", []), FORM),
    "entry of a list": (edited("parameters", "W_hat", ["float32", [2, 1]]), FORM),
    "entry with gaps": (edited("parameters", "W_hat", {"dtype": "float32"}), FORM),
    "entry with more": (edited("parameters", "W_hat", "order", "F"), FORM),
    "dtype": (edited("parameters", "W_hat", "dtype", "object"), FORM),
    "dtype of a list": (edited("parameters", "W_hat", "dtype", []), FORM),
    "shape of a number": (edited("parameters", "W_hat", "shape", 2), FORM),
    "shape of fractions": (edited("parameters", "W_hat", "shape", [2.0, 1]), FORM),
    "shape of truths": (edited("parameters", "W_hat", "shape", [2, True]), FORM),
    "negative shape": (edited("parameters", "W_hat", "shape", [-2, -1]), FORM),
    "shape beyond any": (edited("parameters", "W_hat", "shape", [10**4000]), FORM),
    "too many axes": (edited("parameters", "W_hat", "shape", [1] * 33), FORM),
    "two dtypes": (edited("parameters", "W_hat", "dtype", "float64"), "its parameters have two dtypes"),
    "huge shape": (edited("parameters", "W_hat", "shape", [1 << 40, 1 << 40]), "it is too short for its"),
    "large shape": (edited("parameters", "W_hat", "shape", [400, 1]), "it is too short for its parameters"),
    "other shape": (edited("parameters", "W_hat", "shape", [2, 2]), "'W_hat.npy' has the wrong size"),
    "flat shape": (edited("parameters", "W_hat", "shape", [1, 2]), "'W_hat' is not stored as its header says"),
    "parameter too many": (edited("parameters", "G", {"dtype": "float32", "shape": [2, 1]}), "in it: 'G.npy'"),
    "parameter too few": (edited("parameters", "W_hat", ...), "in it: 'W_hat.npy'"),
    "parameter of half a letter": (
        edited("parameters", "\ud800", {"dtype": "float32", "shape": [2, 1]}),
        "in it: '\\ud800.npy'",
    ),
    "layer of other names": (edited("layer", nn.Dense(2, 1).config()), "missing: W, b; unknown: M_hat, W_hat"),
    "layer of other shapes": (edited("layer", "in_features", 3), "W_hat has shape (2, 1), expected (3, 1)"),
    "layer of huge shapes": (edited("layer", "in_features", 10**4000), "NAC(1000"),
    "cell": (edited("layer", {"type": "Accumulator", "layer": LAYER.config()}), "Accumulator(NAC(2, 1)) is not"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_header_that_is_not_what_save_writes_is_not_loaded(case, good):
    change, message = BAD_HEADERS[case]
    header = header_of(good)
    change(header)
    with_header(good, header)
    found = refusal(load, good)
    assert found.startswith("not a model file: ")
    assert message in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited("layer", None), "unknown layer None; known: Accumulator, Chain, "),
        (edited("layer", "type", "os.system"), "unknown layer 'os.system'; known: "),
        (edited("layer", "type", "\x1b[31m" + "a" * 10**5), "unknown layer '\\x1b[31maaa"),
        (edited("layer", "in_features", 0), "layer NAC: its options are not valid: NAC: in_features must be"),
        (edited("layer", "in_features", "2"), "layer NAC: its options are not valid: "),
        (edited("layer", "initializer", "a" * 10**5), "layer NAC: its options are not valid: "),
        (edited("layer", "command", "ls"), "layer NAC: its options are not valid: "),
        (edited("layer", {"type": "Chain", "layers": [{"type": "X"}]}), "unknown layer 'X'; known: "),
        (edited("layer", {"type": "Chain", "layers": []}), "layer Chain: its options are not valid: "),
    ],
)
def test_a_layer_that_cannot_be_built_is_not_loaded(change, message, good):
    header = header_of(good)
    change(header)
    with_header(good, header)
    assert refusal(load, good).startswith(message)


@pytest.mark.parametrize("depth", [10, 100, 200, 300, 400, 450, 1000, 3000, 10_000])
def test_layers_in_layers_are_refused_at_any_depth(depth, good):
    inner = json.dumps(nn.Dense(2, 1).config())
    layer = '{"type": "Chain", "layers": [' * depth + inner + "]}" * depth
    with_header(good, json.dumps({**header_of(good), "layer": "?"}).replace('"?"', layer))
    assert refusal(load, good).startswith("not a model file: ")


def test_a_newer_format_asks_for_an_update_whatever_else_it_holds(good):
    header = {"format": "nalu_np model", "version": 2, "library": "9.1\n", "shards": []}
    archived(good, {"header.json": json.dumps(header), "shard": b""})
    assert refusal(load, good) == (
        "a model file of format 2, written by a newer version of the library, '9.1\\n'; update nalu_np"
    )


def test_a_registry_is_not_a_way_to_load_another_class(good):
    assert "unknown layer 'NAC2'" in refusal(
        load, with_header(good, {**header_of(good), "layer": {"type": "NAC2"}})
    )
    assert "is not a layer" in refusal(
        load, with_header(good, {**header_of(good), "layer": {"type": "dict"}}), {"dict": dict}
    )


def test_a_member_that_claims_more_than_the_file_holds_takes_no_memory(good):
    size = 1 << 40
    header = header_of(good)
    header["parameters"]["M_hat"]["shape"] = [size // 4, 1]
    with_header(good, header)
    content = bytearray(good.read_bytes())
    at = content.rindex(CENTRAL)
    content[at + 20 : at + 28] = struct.pack("<2L", 0xFFFFFFFF, 0xFFFFFFFF)
    extra = struct.pack("<HHQQ", 1, 16, size + 128, size + 128)
    content[at + 30 : at + 32] = struct.pack("<H", len(extra))
    name_end = at + 46 + len("M_hat.npy")
    content[name_end:name_end] = extra
    end = content.rindex(b"PK\x05\x06")
    (length,) = struct.unpack("<L", content[end + 12 : end + 16])
    content[end + 12 : end + 16] = struct.pack("<L", length + len(extra))
    good.write_bytes(content)
    with zipfile.ZipFile(good) as archive:
        assert archive.getinfo("M_hat.npy").file_size == size + 128
    assert "it is too short for its parameters" in refusal(load, good)


def test_a_warning_about_a_file_is_a_refusal_where_warnings_are_errors(good, monkeypatch):
    def warns(*arguments):
        raise UserWarning("odd field")

    monkeypatch.setattr(zipfile.ZipFile, "read", warns)
    assert "not a model file: odd field" in refusal(load, good)


def test_an_error_without_words_is_named(good, monkeypatch):
    def ends(*arguments):
        raise EOFError

    monkeypatch.setattr(zipfile.ZipFile, "read", ends)
    assert "not a model file: EOFError" in refusal(load, good)


def test_what_is_wrong_with_the_environment_is_not_blamed_on_the_file(good, monkeypatch):
    monkeypatch.setenv("NALU_NP_BACKEND", "tpu")
    with pytest.raises(OptionError, match="NALU_NP_BACKEND"):
        load(good)


# --- damage at random -----------------------------------------------------------------------------------------


def attempt(path):
    """What is loaded, or None where the file is refused as it should be: with one line."""
    try:
        return load(path)
    except ModelFileError as error:
        message = str(error)
    assert message.isprintable()
    return None


def loaded_or_refused(path):
    """Damage goes unseen only where it changes nothing."""
    model = attempt(path)
    assert model is None or same(model, LAYER, PARAMS, META)


def test_no_single_byte_and_no_end_can_be_lost(good):
    content = good.read_bytes()
    for at in range(len(content)):
        for mask in (0x01, 0xFF):
            damaged_one = bytearray(content)
            damaged_one[at] ^= mask
            good.write_bytes(damaged_one)
            loaded_or_refused(good)
        good.write_bytes(content[:at])
        refusal(load, good)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_damage_is_loaded(scratch, data):
    save_anew(scratch)
    content = bytearray(scratch.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        kind = data.draw(st.sampled_from(["change", "cut", "repeat", "end"]))
        if kind == "change":
            piece = data.draw(st.binary(min_size=1, max_size=4))
            content[at : at + len(piece)] = piece
        elif kind == "cut":
            del content[at : at + data.draw(st.integers(1, 50))]
        elif kind == "repeat":
            content[at:at] = content[at : at + data.draw(st.integers(1, 200))]
        else:
            del content[at:]
    scratch.write_bytes(content)
    loaded_or_refused(scratch)


def save_anew(path):
    path.unlink(missing_ok=True)
    save(path, LAYER, PARAMS, META)


def places(value, path=()):
    """Every entry of a JSON value, as the keys that lead to it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_header_of_anything_is_loaded_or_refused(scratch, data):
    save_anew(scratch)
    header = header_of(scratch)
    place = data.draw(st.sampled_from(list(places(header))))
    others = [copy.deepcopy(header)]
    for key in place:
        others.append(others[-1][key])
    edited(*place, data.draw(st.sampled_from([..., *others]) | json_value))(header)
    with_header(scratch, header)
    model = attempt(scratch)
    if model is not None:  # names, sizes and values still agree; only notes and the initialiser may be others
        assert (model[0].in_features, model[0].out_features) == (2, 1)
        assert all(model[1][name].tobytes() == PARAMS[name].tobytes() for name in PARAMS)
