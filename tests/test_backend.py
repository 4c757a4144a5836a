"""Where arrays are born and which library computes; streams of random numbers; which module may import which."""

import ast
import contextlib
import importlib.util
import inspect
import os
import pathlib
import subprocess
import sys
import types
import warnings

import fake_cupy as fake
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np import backend
from nalu_np.backend import (
    DATA,
    INIT,
    NOISE,
    SPLIT,
    Streams,
    dtype_name,
    from_numpy,
    library,
    namespace,
    replica_numbers,
)
from nalu_np.errors import BackendError, DTypeError, MixedBackendError, NaluError, OptionError

PACKAGE = pathlib.Path(nn.__file__).parent


def python(code, **environment):
    """What a fresh interpreter prints, with warnings as errors."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip(), run.stderr.strip()


def no_wheel(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy raises ModuleNotFoundError


def no_driver(monkeypatch):
    def refuse():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    module = fake.make()
    module.cuda.runtime.getDeviceCount = refuse
    monkeypatch.setitem(sys.modules, "cupy", module)


def no_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake.make(devices=0))


NO_GPU = {
    no_wheel: ["cannot be imported", "cuda12", "cuda13"],
    no_driver: ["no CUDA device", "the driver answers: cudaErrorInsufficientDriver", "nvidia-smi"],
    no_device: ["no CUDA device", "the driver counts 0 devices", "nvidia-smi"],
}
without_gpu = pytest.mark.parametrize("cause", list(NO_GPU), ids=lambda cause: cause.__name__)


# --- the choice -----------------------------------------------------------------------------------------------


def test_numpy_is_the_default():
    assert nn.get_backend() == "numpy"
    assert backend.birthplace() is np


def test_the_variable_is_read_at_first_use_and_not_at_import():
    code = "import os, nalu_np as nn; os.environ['NALU_NP_BACKEND'] = 'tpu'; nn.get_backend()"
    assert "OptionError: NALU_NP_BACKEND: expected one of numpy, cupy, auto, got 'tpu'" in python(code)[1]


def test_the_variable_is_read_once():
    code = """if True:
        import os, nalu_np as nn
        nn.NAC(2, 1).init()
        os.environ["NALU_NP_BACKEND"] = "tpu"
        print(nn.get_backend())
    """
    assert python(code, NALU_NP_BACKEND="numpy") == ("numpy", "")


def test_an_empty_variable_is_numpy(monkeypatch):
    monkeypatch.setenv("NALU_NP_BACKEND", "")
    assert nn.get_backend() == "numpy"


def test_use_backend_comes_before_the_variable(monkeypatch):
    monkeypatch.setenv("NALU_NP_BACKEND", "tpu")
    nn.use_backend("numpy")
    assert nn.get_backend() == "numpy"


@pytest.mark.parametrize("name", ["tpu", "NumPy", "", None])
def test_an_unknown_backend_lists_the_choices(name):
    with pytest.raises(OptionError, match="use_backend: expected one of numpy, cupy, auto, got"):
        nn.use_backend(name)


@without_gpu
def test_cupy_without_a_gpu_names_the_cause_and_the_way_out(cause, monkeypatch):
    cause(monkeypatch)
    nn.use_backend("numpy")
    with pytest.raises(BackendError) as caught:
        nn.use_backend("cupy")
    for words in [*NO_GPU[cause], "use_backend=cupy", "or choose numpy to compute on the CPU"]:
        assert words in str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert nn.get_backend() == "numpy"  # a choice that fails changes nothing


@without_gpu
def test_the_variable_asks_for_cupy_and_the_error_names_it(cause, monkeypatch):
    cause(monkeypatch)
    monkeypatch.setenv("NALU_NP_BACKEND", "cupy")
    with pytest.raises(BackendError, match="NALU_NP_BACKEND=cupy: CuPy"):
        nn.NAC(2, 1).init()


@without_gpu
def test_auto_falls_back_and_says_so_once(cause, monkeypatch):
    cause(monkeypatch)
    monkeypatch.setenv("NALU_NP_BACKEND", "auto")
    with pytest.warns(RuntimeWarning, match="NALU_NP_BACKEND=auto: computing with NumPy, because CuPy") as caught:
        assert [nn.get_backend() for _ in range(3)] == ["numpy"] * 3
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the line that asked, not one inside the library
    assert all(words in str(caught[0].message) for words in NO_GPU[cause])


def test_auto_is_cupy_where_a_device_answers(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake.make())
    nn.use_backend("auto")
    assert nn.get_backend() == "cupy"


def test_cupy_without_a_device_for_real():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's own, about where CUDA is installed
            import cupy
    except ImportError:
        message = "CuPy cannot be imported"
    else:
        message = "CuPy finds no CUDA device"
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError:
            count = 0
        if count:
            pytest.skip("there is a device")
    with pytest.raises(BackendError, match=message):
        nn.use_backend("cupy")


# --- arrays ---------------------------------------------------------------------------------------------------


def test_parameters_are_born_in_the_chosen_library(device):
    params = nn.NALU(2, 1).init(seed=3, replicas=4)
    expected = "numpy" if device == "numpy" else "cupy"
    assert {library(value) for value in params.values()} == {expected}
    assert nn.get_backend() == expected
    nn.use_backend("numpy")  # decides about new arrays only
    y, _ = nn.NALU(2, 1)(params, params["W_hat"].mT)
    assert library(y) == expected


def test_both_libraries_have_the_same_parameters(device):
    drawn = {name: nn.to_numpy(value) for name, value in nn.NALU(2, 1).init(seed=3, replicas=4).items()}
    nn.use_backend("numpy")
    for name, value in nn.NALU(2, 1).init(seed=3, replicas=4).items():
        np.testing.assert_array_equal(drawn[name], value)


def test_the_library_of_what_is_no_array(fake_cupy):
    assert library([1.0]) is library(1.0) is library(None) is None
    assert library(np.float32(1)) == library(np.ones(2)) == "numpy"
    assert library(fake_cupy.asarray([1.0])) == "cupy"


def test_the_namespace_is_that_of_the_arrays(fake_cupy):
    on_host, on_device = np.ones(2), fake_cupy.asarray(np.ones(2))
    assert namespace(on_host, on_host) is np
    assert namespace(on_host, np.float64(1)) is np
    assert namespace(on_device, on_device) is fake_cupy


def test_a_mixture_is_a_type_error_that_names_both(fake_cupy):
    on_host, on_device = np.ones((3, 2), "float32"), fake_cupy.asarray(np.ones((3, 2), "float32"))
    for arrays in [(on_host, on_device), (on_device, on_host)]:
        with pytest.raises(
            MixedBackendError, match=r"numpy and cupy.*nn\.to_numpy\(a\) or cupy\.asarray\(a\)"
        ) as caught:
            namespace(*arrays)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, BackendError)
    with pytest.raises(TypeError, match="numpy and cupy"):
        nn.NAC(2, 1)(nn.NAC(2, 1).init(), on_host)
    y, vjp = nn.NAC(2, 1)(nn.NAC(2, 1).init(), on_device)
    with pytest.raises(TypeError, match="numpy and cupy"):
        vjp(np.ones(y.shape, "float32"))


@pytest.mark.parametrize("other", [[1.0], None, 1.0, "x", types.SimpleNamespace(shape=(2,))], ids=repr)
def test_what_is_no_array_is_refused(other):
    name = type(other).__name__
    with pytest.raises(
        DTypeError, match=f"expected NumPy or CuPy arrays, got {name}; convert with np.asarray"
    ) as caught:
        namespace(np.ones(2), other)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(DTypeError, match=name):
        nn.to_numpy(other)


def test_to_numpy_copies(device):
    array = from_numpy(np.arange(3.0), "float64")
    host = nn.to_numpy(array)
    host[0] = 7
    assert type(host) is np.ndarray
    np.testing.assert_array_equal(nn.to_numpy(array), [0, 1, 2])


@given(
    dtype=st.sampled_from(["float32", "float64"]),
    order=st.sampled_from("CF"),
    wanted=st.sampled_from(backend.DTYPES),
)
def test_from_numpy_never_aliases(dtype, order, wanted):
    host = np.arange(6.0).reshape(2, 3).astype(dtype, order=order)
    for choose in (contextlib.nullcontext, fake.installed):
        with choose():
            born = from_numpy(host, wanted)
            host[0, 0] = 9
            np.testing.assert_array_equal(nn.to_numpy(born), [[0, 1, 2], [3, 4, 5]])
            assert dtype_name(born.dtype) == wanted
            host[0, 0] = 0


def test_the_fake_cupy_never_comes_to_the_host_by_itself(fake_cupy):
    array = from_numpy(np.ones(3), "float64")
    with pytest.raises(RuntimeError, match="Can't convert array"):
        np.asarray(array)
    with pytest.raises(RuntimeError, match="Can't convert array"):
        np.ones(3) * array
    scalar = fake_cupy.sum(array, axis=0)
    for convert in (float, int, bool, complex, range, iter):
        with pytest.raises(fake.HiddenSyncError):
            convert(scalar)
    with pytest.raises(RuntimeError, match="boolean_indexing"):
        array[array > 0]
    with pytest.raises(AttributeError, match="einsum"):
        _ = fake_cupy.einsum
    assert nn.to_numpy(scalar) == 3


def test_the_fake_cupy_leaves_nothing_behind():
    before = sys.modules.get("cupy")
    nn.use_backend("numpy")
    with fake.installed() as module:
        assert sys.modules["cupy"] is module
        inside = from_numpy(np.ones(()), "float64")
    assert sys.modules.get("cupy") is before
    assert nn.get_backend() == "numpy"
    assert float(inside) == 1.0


def test_the_float32_device_has_no_float64(fake_cupy_float32):
    assert dtype_name(from_numpy(np.ones(2), "float32").dtype) == "float32"
    with pytest.raises(ValueError, match="does not support dtype"):
        from_numpy(np.ones(2), "float64")


def test_cupy_has_all_that_the_core_asks_for():
    """Not the standard, CuPy's own functions: by name, and by the names of their arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cupy = pytest.importorskip("cupy", exc_type=ImportError)
    for name, declared in vars(backend.Namespace).items():
        if name.startswith("_"):
            continue
        offered = getattr(cupy, name)
        if isinstance(offered, cupy.ufunc):
            continue  # takes its arrays by position, and has no signature
        for parameter in list(inspect.signature(declared).parameters.values())[1:]:
            if parameter.kind is not parameter.POSITIONAL_ONLY:
                assert parameter.name in inspect.signature(offered).parameters, name
    for name, declared in vars(backend.Array).items():
        if isinstance(declared, property | types.FunctionType) and name not in ("__init__", "__subclasshook__"):
            assert hasattr(cupy.ndarray, name), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_names_of_dtypes(dtype, device):
    assert dtype_name(dtype) == dtype
    assert dtype_name(np.dtype(dtype)) == dtype
    assert dtype_name(getattr(np, dtype)) == dtype
    assert dtype_name(from_numpy(np.ones(1), dtype).dtype) == dtype
    assert dtype_name(getattr(backend.birthplace(), dtype)) == dtype


@pytest.mark.parametrize("dtype", ["float16", "f4", "", np.int64, np.dtype("complex64"), None, 32])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(OptionError, match="dtype: expected float32 or float64, got"):
        dtype_name(dtype)


# --- streams of random numbers --------------------------------------------------------------------------------


def numbers(seed, replicas, purpose, count=5):
    return Streams(seed, replicas, purpose).stack(lambda rng: rng.standard_normal(count), "float64")


@given(seed=st.integers(0, 2**40), r=st.integers(0, 2**33), purpose=st.sampled_from([INIT, DATA, NOISE, SPLIT]))
def test_a_stream_is_named_by_seed_replica_and_purpose_alone(seed, r, purpose):
    sequence = np.random.SeedSequence(seed, spawn_key=(r, purpose))
    expected = np.random.Generator(np.random.PCG64(sequence)).standard_normal(5)
    np.testing.assert_array_equal(numbers(seed, [r], purpose), expected[None])
    np.testing.assert_array_equal(numbers(seed, [3, r], purpose)[1], expected)


def test_the_purposes_have_fixed_numbers():
    assert (INIT, DATA, NOISE, SPLIT) == (0, 1, 2, 3)  # part of every seed: another order is another run


@given(seed=st.integers(0, 99), few=st.integers(1, 20), more=st.integers(0, 20))
def test_more_replicas_never_change_earlier_ones(seed, few, more):
    np.testing.assert_array_equal(numbers(seed, few, DATA), numbers(seed, few + more, DATA)[:few])


def test_one_replica_alone_is_its_row():
    for layer in (nn.NALU(2, 1), nn.NAC(3, 2, initializer="truncated_normal")):
        alone, all_of_them = layer.init(seed=5, replicas=[17]), layer.init(seed=5, replicas=64)
        for name, value in alone.items():
            np.testing.assert_array_equal(value[0], all_of_them[name][17])


def test_no_replicas_is_replica_0_without_an_axis():
    assert numbers(1, None, INIT).shape == (5,)
    np.testing.assert_array_equal(numbers(1, None, INIT), numbers(1, 2, INIT)[0])


def test_streams_differ_by_replica_seed_and_purpose():
    drawn = [
        tuple(row)
        for seed in range(3)
        for purpose in (INIT, DATA, NOISE, SPLIT)
        for row in numbers(seed, 4, purpose)
    ]
    assert len(set(drawn)) == 3 * 4 * 4


def test_a_stream_goes_on_where_it_stopped():
    streams = Streams(0, 3, NOISE)
    first, second = (streams.stack(lambda rng: rng.standard_normal(2), "float64") for _ in range(2))
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), numbers(0, 3, NOISE, count=4))


def test_replica_numbers():
    assert replica_numbers(None) == [0]
    assert replica_numbers(3) == replica_numbers(np.int64(3)) == [0, 1, 2]
    assert replica_numbers([17]) == replica_numbers((17,)) == replica_numbers(np.array([17])) == [17]
    assert replica_numbers(range(4, 6)) == [4, 5]


@pytest.mark.parametrize("replicas", [0, -1, [], [-1], [3, -2], 2.5, [1.5], "12", True, [None]], ids=repr)
def test_bad_replicas_are_refused(replicas):
    with pytest.raises(OptionError, match=r"replicas: expected a count >= 1 or a list of numbers >= 0, got"):
        replica_numbers(replicas)


# --- imports --------------------------------------------------------------------------------------------------

#: From the ground up; a module may import what stands on a lower floor, and nothing beside it or above.
FLOORS = [
    {"errors"},
    {"backend"},
    {"vjps"},
    {"layer"},
    {"units", "layers"},
    {"checks", "optim", "store"},
    {"kernels", "batches", "checkpoint"},
    {"train"},
    {"lattice"},
    {"readout"},
    {"judge", "race"},
    {"doctor"},
    {"learn"},
    {"estimator", "experiments"},
    {"peers"},
    {"report", "plots", "bench", "summary"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
HEIGHT = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
#: Leaves import errors alone, and serve those who put things together: what stands above training.
LEAVES = {"tasks", "sweeps", "statistics"}
#: A subclass of another library's class needs it at once; nothing imports such a room but who asks for it.
BUILT_ON = {"estimator": "sklearn"}


def may_import(room, other):
    """Whether one room of the package may import from another; KeyError for a room that the plan does not have."""
    if room == other:
        return True
    if room in LEAVES:
        return other == "errors"
    if other in LEAVES:
        return HEIGHT[room] > HEIGHT["train"]
    if other == "checks":
        return HEIGHT[room] > HEIGHT["train"]  # checks stand beside training, not under it
    return HEIGHT[other] < HEIGHT[room]


def imports(tree, inside_functions):
    """The import statements of a module; those that run when it is imported, or all."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif (
            isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not inside_functions
        ):
            yield from imports(ast.Module(node.orelse, []), inside_functions)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, inside_functions)


def targets(node, module, package):
    """The full names that one statement imports, with relative ones resolved."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    *parents, _ = module.split(".")  # a package is written package.__init__
    base = ".".join(parents[: len(parents) + 1 - node.level]) if node.level else ""
    base = ".".join(filter(None, [base, node.module]))
    # `from package import errors` imports a module, `from package import fit` the whole package.
    return [f"{base}.{alias.name}" if base == package else base for alias in node.names]


def problems(folder, package="nalu_np"):
    """Every import of the package that its plan forbids, as a line of text each."""
    found = []
    rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        room, module = parts[0], ".".join((package, *parts))
        if room not in HEIGHT and room not in LEAVES:
            found.append(f"{module}: not in the plan")
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in imports(tree, inside_functions=True):
            for target in targets(node, module, package):
                if target == f"{package}.__version__":
                    continue  # a constant, which files and programs write down
                if target == package or target.startswith(package + "."):
                    other = [*target.split("."), "__init__"][1]
                    other = other if other in rooms else "__init__"
                    if (other in HEIGHT or other in LEAVES) and not may_import(room, other):
                        found.append(f"{module}: imports {target}, line {node.lineno}")
        for node in imports(tree, inside_functions=False):
            for target in targets(node, module, package):
                top = target.split(".")[0]
                if top not in sys.stdlib_module_names and top not in ("numpy", package, BUILT_ON.get(room)):
                    found.append(f"{module}: imports {top} when it is itself imported, line {node.lineno}")
    return found


def test_imports_point_one_way():
    assert problems(PACKAGE) == []


PLANTED = {
    "upward": ("vjps.py", "from .layer import chain", "vjps: imports nalu_np.layer, line 1"),
    "upward, inside a function": (
        "optim.py",
        "def f():\n    from . import train",
        "optim: imports nalu_np.train, line 2",
    ),
    "upward, by its full name": ("backend.py", "import nalu_np.layer", "backend: imports nalu_np.layer, line 1"),
    "upward, for types only": (
        "backend.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .layer import Layer",
        "backend: imports nalu_np.layer, line 3",
    ),
    "from a room inside a room": ("units/nac.py", "from ..train import fit", "nac: imports nalu_np.train, line 1"),
    "the whole package": ("layer.py", "import nalu_np as nn", "layer: imports nalu_np, line 1"),
    "a name of the whole package": ("layer.py", "from . import fit", "layer: imports nalu_np.fit, line 1"),
    "beside it": ("units/__init__.py", "from ..layers import Dense", "__init__: imports nalu_np.layers, line 1"),
    "training imports checks": (
        "train.py",
        "from .checks import gradcheck",
        "train: imports nalu_np.checks, line 1",
    ),
    "training imports tasks": ("train.py", "from .tasks import tables", "train: imports nalu_np.tasks, line 1"),
    "a leaf": ("tasks/ranges.py", "from ..backend import Streams", "ranges: imports nalu_np.backend, line 1"),
    "unknown": ("helpers.py", "", "helpers: not in the plan"),
    "unknown room": ("utils/__init__.py", "", "utils.__init__: not in the plan"),
    "optional": ("backend.py", "import cupy", "backend: imports cupy when it is itself imported, line 1"),
    "optional, tried": (
        "learn.py",
        "try:\n    from sklearn.base import BaseEstimator\nexcept ImportError:\n    pass",
        "learn: imports sklearn when it is itself imported, line 2",
    ),
    "optional, in a class": (
        "layer.py",
        "class A:\n    import torch",
        "layer: imports torch when it is itself imported, line 2",
    ),
}


def plant(folder, file, code):
    """A small package with one file that matters."""
    rooms = ("backend", "checks", "errors", "layer", "learn", "store", "train")
    packages = ("layers", "tasks", "units")
    for name in ["__init__.py", *(f"{room}.py" for room in rooms), *(f"{room}/__init__.py" for room in packages)]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(code)


@pytest.mark.parametrize("name", PLANTED)
def test_a_forbidden_import_is_found(name, tmp_path):
    file, code, line = PLANTED[name]
    plant(tmp_path, file, code)
    found = problems(tmp_path)
    assert len(found) == 1
    assert found[0].endswith(line)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (
            "train.py",
            "from .layer import Layer\nimport numpy as np\nfrom numpy.typing import NDArray\nimport os.path",
        ),
        ("plots.py", "def plot():\n    import matplotlib.pyplot as plt"),
        (
            "backend.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cupy\nelse:\n    import math",
        ),
        ("learn.py", "from .tasks.tables import Table\nfrom .tasks import tables\nfrom . import train"),
        (
            "cli.py",
            "from . import learn, store\nfrom .checks import check_layer\nfrom nalu_np import errors",
        ),
        ("store.py", "def save():\n    from . import __version__"),
        ("units/nalu.py", "from .nac import NAC\nfrom . import nac\nfrom ..errors import ShapeError"),
        ("tasks/tables.py", "from nalu_np.errors import TableError"),
    ],
)
def test_an_allowed_import_is_left_alone(file, code, tmp_path):
    plant(tmp_path, file, code)
    assert problems(tmp_path) == []


def test_importing_the_package_imports_numpy_and_nothing_else():
    code = """if True:
        import sys
        import numpy.random
        before = set(sys.modules)
        import nalu_np
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        print(*(new - sys.stdlib_module_names - {"numpy"}))
    """
    assert python(code) == ("nalu_np", "")


def test_no_module_has_the_name_of_a_public_function():
    assert [name for name in nn.__all__ if importlib.util.find_spec(f"nalu_np.{name}")] == []


def test_errors_are_one_tree():
    for error in (BackendError, DTypeError, MixedBackendError, OptionError):
        assert issubclass(error, NaluError)
