"""Which array library computes: NumPy on a CPU, CuPy on a CUDA GPU.

Two rules. A function computes with the library of its inputs, and refuses a mixture. `NALU_NP_BACKEND` and
`use_backend` decide only where *new* arrays are born: parameters, and the data that `fit` moves at its edge.
"""

from __future__ import annotations

import importlib
import operator
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .errors import BackendError, DTypeError, MixedBackendError, OptionError

VARIABLE = "NALU_NP_BACKEND"
CHOICES = ("numpy", "cupy", "auto")
DTYPES = ("float32", "float64")

#: What a stream of random numbers is for: part of its seed, so that no two uses ever share numbers.
INIT, DATA, NOISE, SPLIT = range(4)


class Array(Protocol):
    """What the core asks of an array: the operators that NumPy, CuPy and the array API standard share."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def mT(self) -> Any: ...  # noqa: N802  (the standard's name)
    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __rtruediv__(self, other: Any, /) -> Any: ...
    def __mod__(self, other: Any, /) -> Any: ...
    def __matmul__(self, other: Any, /) -> Any: ...
    def __neg__(self) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __and__(self, other: Any, /) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


class Namespace(Protocol):
    """What the core asks of an array library: these functions of the array API standard, and no others."""

    float32: Any
    float64: Any

    def asarray(self, obj: Any, /, *, dtype: Any = None, copy: bool | None = None) -> Array: ...
    def zeros_like(self, x: Any, /) -> Array: ...
    def abs(self, x: Any, /) -> Array: ...
    def exp(self, x: Any, /) -> Array: ...
    def floor(self, x: Any, /) -> Array: ...
    def log(self, x: Any, /) -> Array: ...
    def sqrt(self, x: Any, /) -> Array: ...
    def tanh(self, x: Any, /) -> Array: ...
    def sign(self, x: Any, /) -> Array: ...
    def maximum(self, x: Any, y: Any, /) -> Array: ...
    def minimum(self, x: Any, y: Any, /) -> Array: ...
    def where(self, condition: Any, x: Any, y: Any, /) -> Array: ...
    def isfinite(self, x: Any, /) -> Array: ...
    def all(self, x: Any, /, *, axis: int) -> Array: ...
    def sum(self, x: Any, /, *, axis: int, keepdims: bool = False) -> Array: ...
    def mean(self, x: Any, /, *, axis: int, keepdims: bool = False) -> Array: ...
    def concat(self, arrays: Sequence[Any], /, *, axis: int) -> Array: ...
    def stack(self, arrays: Sequence[Any], /, *, axis: int = 0) -> Array: ...
    def reshape(self, x: Any, shape: tuple[int, ...], /) -> Array: ...
    def broadcast_to(self, x: Any, shape: tuple[int, ...], /) -> Array: ...


NUMPY = cast(Namespace, np)
_chosen: str | None = None  # None: the environment variable has not been read yet


def use_backend(name: str) -> None:
    """Choose the library in which new arrays are born: "numpy", "cupy" or "auto".

    Parameters
    ----------
    name : str
        "auto" is CuPy where a CUDA device answers, else NumPy with one warning. Arrays that exist stay where
        they are.

    Raises
    ------
    OptionError
        If the name is not one of the three.
    BackendError
        If "cupy" is asked for and there is no CuPy or no device.

    Examples
    --------
    >>> import nalu_np as nn
    >>> nn.use_backend("numpy")
    >>> nn.get_backend()
    'numpy'
    """
    global _chosen
    _chosen = _resolve(name, "use_backend")


def get_backend() -> str:
    """Name of the library in which new arrays are born: "numpy" or "cupy".

    `NALU_NP_BACKEND` (default "numpy") is read at the first use, unless `use_backend` came before.

    Returns
    -------
    str
        Never "auto", which is decided by then.

    Raises
    ------
    OptionError
        If the variable holds another value than numpy, cupy and auto.
    BackendError
        If it holds cupy, and there is no CuPy or no device.

    Examples
    --------
    >>> import nalu_np as nn
    >>> nn.get_backend() in ("numpy", "cupy")
    True
    """
    global _chosen
    if _chosen is None:
        _chosen = _resolve(os.environ.get(VARIABLE) or "numpy", VARIABLE)
    return _chosen


def _resolve(name: str, asker: str) -> str:
    if name not in CHOICES:
        raise OptionError(f"{asker}: expected one of {', '.join(CHOICES)}, got {name!r}")
    if name == "numpy":
        return name
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        problem = f"CuPy cannot be imported ({error}); install the extra cuda12 or cuda13"
    else:
        try:
            devices = cupy.cuda.runtime.getDeviceCount()
        except Exception as error:  # CuPy's own error class exists only where CuPy does
            devices, answer = 0, f"the driver answers: {error}"
        else:
            answer = "the driver counts 0 devices"
        if devices:
            return "cupy"
        problem = f"CuPy finds no CUDA device ({answer}); check the driver with nvidia-smi"
    if name == "auto":
        warnings.warn(f"{asker}=auto: computing with NumPy, because {problem}", RuntimeWarning, stacklevel=3)
        return "numpy"
    raise BackendError(f"{asker}=cupy: {problem}, or choose numpy to compute on the CPU")


def birthplace() -> Namespace:
    """The library in which new arrays are born."""
    return NUMPY if get_backend() == "numpy" else cast(Namespace, sys.modules["cupy"])


def library(array: object) -> str | None:
    """Name of the library that an array belongs to; None if it is no array of either."""
    if isinstance(array, np.ndarray | np.generic):
        return "numpy"
    cupy = sys.modules.get("cupy")  # an array of CuPy can only exist where CuPy has been imported
    return "cupy" if cupy is not None and isinstance(array, cupy.ndarray) else None


def namespace(*arrays: object) -> Namespace:
    """The library to which all the arrays belong.

    Raises
    ------
    MixedBackendError
        If they belong to two libraries.
    DTypeError
        If one is not an array at all.
    """
    for array in arrays:
        if type(array) is not np.ndarray:
            break
    else:  # the common case, in a tenth of a microsecond
        return NUMPY
    libraries = {library(array) for array in arrays}
    if None in libraries:
        kinds = sorted({type(array).__name__ for array in arrays if library(array) is None})
        raise DTypeError(f"expected NumPy or CuPy arrays, got {', '.join(kinds)}; convert with np.asarray")
    if len(libraries) > 1:
        raise MixedBackendError(
            "arrays of numpy and cupy in one call; move one side: nn.to_numpy(a) or cupy.asarray(a)"
        )
    return NUMPY if libraries == {"numpy"} else cast(Namespace, sys.modules["cupy"])


def to_numpy(array: Array) -> NDArray[Any]:
    """Copy an array of either library to the host, as NumPy: the only way back, for records, plots and files.

    Parameters
    ----------
    array : array
        (...), of any shape and dtype. On the device it is waited for.

    Returns
    -------
    numpy.ndarray
        A copy in the same shape (...) and dtype, also of an array of NumPy.

    Raises
    ------
    DTypeError
        If it is an array of neither library.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> nn.to_numpy(np.ones(2))
    array([1., 1.])
    """
    if namespace(array) is NUMPY:
        return np.array(array)
    return cast("NDArray[Any]", sys.modules["cupy"].asnumpy(array))


def from_numpy(array: NDArray[Any], dtype: str) -> Array:
    """A new array, born where new arrays are born, with the values of a host array."""
    xp = birthplace()
    # Through a host copy: asarray aliases on NumPy and copies on CuPy, and a parameter must never alias.
    return xp.asarray(np.array(array, dtype=dtype, order="C"))


def dtype_name(dtype: Any) -> str:
    """Name "float32" or "float64" of an element type, of a string or of an array's dtype.

    Raises
    ------
    OptionError
        If it is neither.
    """
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", None)
    if name is None:  # array libraries of the standard may have dtypes without a name
        name = str(dtype).rpartition(".")[2]
    if name not in DTYPES:
        raise OptionError(f"dtype: expected float32 or float64, got {dtype!r}")
    return cast(str, name)


class Streams:
    """Independent streams of random numbers, one a replica.

    Replica r of seed s draws from `SeedSequence(s, spawn_key=(r, purpose))`, so what it draws does not depend
    on which replicas are beside it. Numbers are drawn by NumPy on the host: both backends see the same data.

    Parameters
    ----------
    seed : int
        Seed of the whole run, 0 or more.
    replicas : int, sequence of int, or None
        64 is replicas 0..63; [17] is that one alone; None is replica 0 without a leading axis.
    purpose : int
        INIT, DATA, NOISE or SPLIT.
    """

    def __init__(self, seed: int, replicas: int | Sequence[int] | None, purpose: int) -> None:
        self.stacked = replicas is not None
        self._seed, self._numbers, self._purpose = seed, replica_numbers(replicas), purpose

    @cached_property
    def generators(self) -> list[np.random.Generator]:
        """One a replica; made when something is drawn, since most runs draw no noise."""
        keys = ((r, self._purpose) for r in self._numbers)
        seeds = (np.random.SeedSequence(self._seed, spawn_key=key) for key in keys)
        return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]

    def stack(self, draw: Callable[[np.random.Generator], NDArray[Any]], dtype: str) -> Array:
        """Draw once from each stream; (S, ...) in the library of new arrays, or (...) without replicas."""
        drawn = [draw(generator) for generator in self.generators]
        return from_numpy(np.stack(drawn) if self.stacked else drawn[0], dtype)


def replica_numbers(replicas: int | Sequence[int] | None) -> list[int]:
    """The numbers r of the replicas that an option `replicas` stands for."""
    if replicas is None:
        return [0]
    counted = isinstance(replicas, int | np.integer) and not isinstance(replicas, bool)
    listed: Any = range(int(cast(int, replicas))) if counted else replicas
    try:
        numbers = [operator.index(r) for r in listed]
    except TypeError:  # 2.5, [1.5], "12", True: nothing is rounded or guessed
        numbers = []
    if not numbers or min(numbers) < 0:
        raise OptionError(f"replicas: expected a count >= 1 or a list of numbers >= 0, got {replicas!r}")
    return numbers
