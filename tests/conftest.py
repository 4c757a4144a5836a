"""On which array library a test runs. Every test starts on NumPy, whatever the environment says."""

import os
import signal

# The bits of a replica are promised for BLAS at one thread; BLAS reads this when NumPy is imported.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import fake_cupy as fake
import pytest

from nalu_np import backend
from nalu_np.errors import BackendError

# A shell ignores Ctrl-C in what it starts in the background, and so would everything that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _numpy_first(monkeypatch):
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    monkeypatch.setattr(backend, "_chosen", None)


@pytest.fixture
def fake_cupy():
    """The fake CuPy, chosen as the backend; any hidden sync raises."""
    with fake.installed() as module:
        yield module


@pytest.fixture
def fake_cupy_float32():
    """The fake CuPy on a device that has no float64 at all: one upcast raises."""
    with fake.installed("no_float64") as module:
        yield module


@pytest.fixture(params=["numpy", "fake", pytest.param("cupy", marks=pytest.mark.gpu)])
def device(request):
    """The same test on NumPy, on the fake CuPy, and on a GPU: chosen as the backend, and its name."""
    if request.param == "numpy":
        backend.use_backend("numpy")
        yield request.param
    elif request.param == "fake":
        with fake.installed():
            yield request.param
    else:
        pytest.importorskip("cupy", exc_type=ImportError)
        try:
            backend.use_backend("cupy")
        except BackendError as error:
            pytest.skip(str(error))
        yield request.param
