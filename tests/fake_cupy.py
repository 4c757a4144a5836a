"""A stand-in for CuPy where there is no GPU: array-api-strict on a device of its own, under CuPy's name.

It is stricter than CuPy. It has the functions that `backend.Namespace` asks for and no others, it does nothing
that NumPy allows beyond the array API standard, and its arrays never come to the host by themselves. CuPy too
refuses `np.asarray(array)`, but `float(array)`, `if array` and a boolean index wait for the device without a word:
here they raise `HiddenSyncError`. The one way back is `asnumpy`, as in CuPy.
"""

import contextlib
import functools
import inspect
import sys
import types
from collections import Counter

import array_api_strict as strict
import pytest

from nalu_np import backend

Array = type(strict.asarray(0.0))


class HiddenSyncError(Exception):
    """Something asked for a value that is on the device."""


def _refuse(method):
    def refusal(self, *args):
        raise HiddenSyncError(f"{method} of an array on the device waits for it; use backend.to_numpy at the edge")

    return refusal


#: What Python calls for float(a), bool(a) and `if a`, int(a), range(a), complex(a), and a loop over a.
SYNCS = {f"__{name}__": _refuse(name) for name in ("float", "bool", "int", "index", "complex", "iter")}


def make(device="device1", devices=1):
    """A module that `nalu_np.backend` takes for CuPy; `module.moves` counts the copies either way."""
    place = strict.Device(device)
    module = types.ModuleType("cupy")
    module.moves = Counter()

    def asarray(obj, /, *, dtype=None, copy=None):
        if isinstance(obj, Array):  # CuPy copies what comes from the host, and aliases what is its own
            return strict.asarray(obj, dtype=dtype, copy=copy)
        module.moves["to device"] += 1
        return strict.asarray(obj, dtype=dtype, device=place, copy=True)

    def asnumpy(array):
        if not isinstance(array, Array):
            raise TypeError(f"asnumpy: expected an array of the fake CuPy, got {type(array).__name__}")
        module.moves["to host"] += 1
        return array._array.copy()

    declared = {*backend.Namespace.__annotations__, *vars(backend.Namespace)}
    for name in declared:
        if not name.startswith("_"):
            offered = getattr(strict, name)
            if inspect.isfunction(offered) and "device" in inspect.signature(offered).parameters:
                # New arrays are born on the device; those "like" another are born beside it.
                offered = offered if name.endswith("_like") else functools.partial(offered, device=place)
            setattr(module, name, offered)
    module.asarray, module.asnumpy, module.ndarray = asarray, asnumpy, Array
    module.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: devices))
    return module


@contextlib.contextmanager
def installed(device="device1"):
    """The fake CuPy in the place of the real one, chosen as the backend; afterwards all is as before."""
    flags = strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False)  # both sync on CuPy
    with pytest.MonkeyPatch.context() as patch, flags:
        module = make(device)
        patch.setitem(sys.modules, "cupy", module)
        patch.setattr(backend, "_chosen", None)
        for name, refusal in SYNCS.items():
            patch.setattr(Array, name, refusal)
        backend.use_backend("cupy")
        yield module
