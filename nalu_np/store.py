"""Models in files: a layer, its parameters and notes about them, as one `.npz` that any NumPy can open.

The archive holds `header.json` (format, version, the layer's options, and each parameter's dtype and shape) and
one `.npy` a parameter, nothing compressed. Whatever else a file holds is refused before memory is spent on it.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from .backend import DTYPES, from_numpy, namespace, to_numpy
from .errors import DTypeError, FileError, ModelFileError, OptionError, ParameterError, printable
from .layer import REGISTRY, Layer, Parametric, Params, check_built, check_names, check_shapes, from_config

HEADER = "header.json"
MOST_HEADER = 1 << 20

Path = str | os.PathLike[str]
Arrays = dict[str, NDArray[Any]]
Header = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of archive: what its header says, what it may hold, and how errors speak of it."""

    format: str
    version: int
    name: str
    writer: str
    error: type[FileError]
    arrays: str
    notes: Mapping[str, type]
    dtypes: tuple[str, ...]
    uniform: bool  # finite numbers of one dtype

    @property
    def foreign(self) -> str:
        """What is said of a file that is not one."""
        return f"not a {self.name}: {{}}; choose one that {self.writer} has written, copied whole"


MODEL = Kind(
    format="nalu_np model",
    version=1,
    name="model file",
    writer="save",
    error=ModelFileError,
    arrays="parameters",
    notes={"layer": object, "meta": dict},
    dtypes=DTYPES,
    uniform=True,
)


def save(path: Path, layer: Layer, params: Params, meta: dict[str, Any] | None = None) -> None:
    """Write a layer and its parameters to a file.

    A model that is already there is replaced at once, or stays as it is if anything goes wrong. Equal input
    gives equal bytes.

    Parameters
    ----------
    path : str or path
        Where to; only a new file or another model is written. A link is followed.
    layer : Layer
        A layer or a chain.
    params : mapping of str to array
        The layer's parameters, of one replica (...) or of S (S, ...), in either library; finite, of one dtype.
    meta : dict, optional
        Notes to keep with the model, in plain JSON: lists, dicts with text as keys, finite numbers.

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MixedBackendError
        If the parameters are not the layer's.
    OptionError
        If a parameter is not finite, or meta is not plain JSON.
    ModelFileError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nalu_np as nn
    >>> from nalu_np.store import load, save
    >>> layer = nn.NAC(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "sum.npz")
    ...     save(path, layer, layer.init(seed=0), meta={"learned": "x + y"})
    ...     loaded, params, meta = load(path)
    >>> loaded == layer, list(params), meta
    (True, ['W_hat', 'M_hat'], {'learned': 'x + y'})
    """
    write(path, MODEL, _content(layer, params, {} if meta is None else meta))


def check_writable(path: Path) -> None:
    """Raise ModelFileError unless a model could be saved there now; nothing is left behind.

    Parameters
    ----------
    path : str or path
        As for `save`.

    Raises
    ------
    ModelFileError
        If the folder is missing or read-only, or the path is anything but a new file or a model.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from nalu_np.store import check_writable
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_writable(pathlib.Path(folder, "sum.npz"))
    """
    with writable(path, MODEL):
        pass


def load(
    path: Path, registry: Mapping[str, type[Parametric]] | None = None
) -> tuple[Layer, dict[str, Any], dict[str, Any]]:
    """Read what `save` wrote; no file can run code.

    Parameters
    ----------
    path : str or path
        The file.
    registry : mapping of str to class, optional
        Layers of your own by the names of their classes, beside those of the library.

    Returns
    -------
    layer : Layer
        Equal to the layer saved.
    params : dict
        New arrays (...) or (S, ...), to the bit as saved, in the library of new arrays.
    meta : dict
        The notes.

    Raises
    ------
    OptionError
        If the registry is no mapping.
    ModelFileError
        If the file cannot be read, is no model, is damaged, or is of a newer format; nothing is loaded then.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nalu_np as nn
    >>> from nalu_np.store import load, save
    >>> layer = nn.chain(nn.Dense(3, 2), nn.NALU(2, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.npz")
    ...     save(path, layer, layer.init(replicas=8, dtype="float64"))
    ...     loaded, params, meta = load(path)
    >>> loaded == layer, params["1.G"].shape, meta
    (True, (8, 2, 1), {})
    """
    if not isinstance(registry, Mapping | None):
        raise OptionError(
            f"load: registry must be a mapping of names to classes, got {registry!r:.200}; "
            'pass registry={"MyLayer": MyLayer}'
        )
    header, arrays = read(path, MODEL)
    with explained(path, MODEL, MODEL.foreign, ValueError, TypeError, RecursionError):
        layer = _rebuilt(header["layer"], arrays, {**REGISTRY, **(registry or {})})
    params = {name: from_numpy(arrays[name], arrays[name].dtype.name) for name in layer.shapes()}
    return layer, params, header["meta"]


# --- writing ----------------------------------------------------------------------------------------------------


def _content(layer: Layer, params: Params, meta: object) -> bytes:
    """The whole file, after all checks of what shall go into it."""
    check_built("save", layer)
    if not isinstance(meta, dict):
        raise OptionError(f"save: meta must be a dict, got {meta!r:.80}")
    arrays = _host(layer, params)
    header = headed(MODEL, arrays, {"layer": layer.config()}, {"meta": meta})
    try:
        text = json.dumps(header, allow_nan=False, indent=1).encode()
        unchanged = json.loads(text) == header
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(
            f"save: meta and the layer's options must be JSON: {printable(str(error), 400)}"
        ) from None
    if not unchanged:
        raise OptionError("save: JSON would change meta or the layer's options; use lists, and text as keys")
    if len(text) > MOST_HEADER:
        raise OptionError(f"save: meta and the layer's options take {len(text):,} bytes of {MOST_HEADER:,}")
    return packed(text, arrays)


def headed(kind: Kind, arrays: Arrays, before: Header, after: Header) -> Header:
    """The header of a file of this kind, with its notes before and after what it says of the arrays."""
    from . import __version__  # not at the top: the package imports this module before it has a version

    return {
        "format": kind.format,
        "version": kind.version,
        "library": __version__,
        **before,
        kind.arrays: {name: {"dtype": a.dtype.name, "shape": [*a.shape]} for name, a in arrays.items()},
        **after,
    }


def packed(text: bytes, arrays: Arrays) -> bytes:
    """The bytes of an archive: its header, and its arrays."""
    members = {HEADER: text}
    for name, array in arrays.items():
        head, stored = _npy_head(array.dtype.name, array.shape)
        members[f"{name}.npy"] = head + array.astype(stored).tobytes("C")
    content = io.BytesIO()
    with ZipFile(content, "w", ZIP_STORED) as archive:
        for name, data in members.items():
            info = ZipInfo(name)  # dated 1980, always
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return content.getvalue()


def _host(layer: Layer, params: Params) -> Arrays:
    """The parameters on the host, if they are such as a file may hold."""
    check_names(layer, params)
    namespace(*params.values())
    check_shapes(layer, params)
    arrays = {name: to_numpy(params[name]) for name in layer.shapes()}
    dtypes = {array.dtype.name for array in arrays.values()}
    if len(dtypes) > 1 or not dtypes <= {*DTYPES}:
        found = ", ".join(sorted(dtypes))
        raise DTypeError(f"save: the parameters must all be float32 or all be float64, got {found}")
    for name, array in arrays.items():
        if not re.fullmatch(r"[\w.]{1,200}", name):
            raise ParameterError(f"save: a parameter's name has letters, digits, _ and dots, got {name!r:.80}")
        if not np.isfinite(array).all():
            raise OptionError(f"save: parameter {name} has NaN or infinity; save a replica that did not diverge")
    return arrays


def _npy_head(dtype: str, shape: Iterable[int]) -> tuple[bytes, np.dtype[Any]]:
    """What stands before the numbers in a `.npy` of version 1.0, and how they are stored.

    Written here, as NumPy may pad it differently one day: so it is only ever compared, never parsed.
    """
    stored = np.dtype(dtype).newbyteorder("<")
    text = f"{{'descr': '{stored.str}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode(), stored


# --- reading ----------------------------------------------------------------------------------------------------


def read(path: Path, kind: Kind) -> tuple[Header, Arrays]:
    """The header and the arrays of a file of this kind."""
    with explained(path, kind, "cannot be read: {}; check the path", OSError, ValueError):
        _permissions(path)
        file = open(path, "rb")  # noqa: SIM115  (closed by the next `with`, whose errors are other ones)
    # zipfile and the parsers answer damage with exceptions of a dozen kinds, and with warnings.
    with file, explained(path, kind, kind.foreign, Exception):
        return _read(file, kind)


def _read(file: BinaryIO, kind: Kind) -> tuple[Header, Arrays]:
    """The header and the arrays of a file, checked against each other."""
    arrays = {}
    with ZipFile(file) as archive:
        header = _read_header(archive, kind)
        version, library = header.get("version"), header.get("library")
        if type(version) is int and version > kind.version:
            newer = f"written by a newer version of the library, {library!r:.20}; update nalu_np"
            raise kind.error(f"a {kind.name} of format {version!r:.20}, {newer}")
        require(type(version) is int and version == kind.version, f"its format has version {version!r:.20}")
        require(header.keys() >= {kind.arrays, *kind.notes}, "its header has gaps")
        entries = header[kind.arrays]
        described = isinstance(entries, dict) and all(_is_entry(entry, kind.dtypes) for entry in entries.values())
        known = all(isinstance(header[name], kept) for name, kept in kind.notes.items())
        require(described and known, "its header is not of the known form")
        mixed = len({entry["dtype"] for entry in entries.values()}) > 1
        require(not (kind.uniform and mixed), f"its {kind.arrays} have two dtypes")

        wanted, found = Counter([HEADER, *(f"{name}.npy" for name in entries)]), Counter(archive.namelist())
        wrong = sorted((found - wanted) + (wanted - found))
        require(not wrong, f"missing, unknown or repeated in it: {', '.join(map(repr, wrong[:5]))}")
        heads = {name: _npy_head(**entry) for name, entry in entries.items()}
        sizes = {n: len(h) + d.itemsize * math.prod(entries[n]["shape"]) for n, (h, d) in heads.items()}
        # Before any is read: for as many bytes as an archive claims to hold, memory is taken at once.
        require(sum(sizes.values()) < os.fstat(file.fileno()).st_size, f"it is too short for its {kind.arrays}")
        for name, (head, stored) in heads.items():
            data = _unpacked(archive, f"{name}.npy", sizes[name], sizes[name])
            require(data.startswith(head), f"{name!r} is not stored as its header says")
            arrays[name] = np.frombuffer(data, stored, offset=len(head)).reshape(entries[name]["shape"])
            finite = not kind.uniform or bool(np.isfinite(arrays[name]).all())
            require(finite, f"parameter {name!r} has NaN or infinity")
    return header, arrays


def _read_header(archive: ZipFile, kind: Kind) -> Header:
    """The header of a file of this kind, of any version."""
    require(HEADER in archive.namelist(), f"it has no {HEADER}")
    header = json.loads(_unpacked(archive, HEADER, 0, MOST_HEADER), parse_constant=_no_constant)
    ours = isinstance(header, dict) and header.get("format") == kind.format
    require(ours, f"its header does not say {kind.format!r}")
    return cast(Header, header)


def _no_constant(name: str) -> None:
    """NaN and Infinity are not JSON, though Python reads them."""
    raise ValueError(f"its header holds {name}")


def _is_entry(entry: object, dtypes: tuple[str, ...]) -> bool:
    """Whether this is how a header describes an array."""
    return (
        isinstance(entry, dict)
        and entry.keys() == {"dtype", "shape"}
        and entry["dtype"] in dtypes
        and isinstance(entry["shape"], list)
        and len(entry["shape"]) <= 32
        and all(type(n) is int and 0 <= n < 1 << 62 for n in entry["shape"])
    )


def _unpacked(archive: ZipFile, name: str, least: int, most: int) -> bytes:
    """The content of a member, if its size is within the limits."""
    info = archive.getinfo(name)
    require(info.compress_type == ZIP_STORED and not info.flag_bits & 1, f"{name!r} is compressed or encrypted")
    require(least <= info.file_size == info.compress_size <= most, f"{name!r} has the wrong size")
    return archive.read(info)


def _rebuilt(config: object, arrays: Arrays, registry: Mapping[str, type[Parametric]]) -> Layer:
    """The layer that a header describes, if the parameters are its own."""
    layer = from_config(config, registry)
    if not isinstance(layer, Layer):
        raise ValueError(f"{layer!r:.80} is not a layer")
    check_names(layer, arrays)
    check_shapes(layer, arrays)
    return layer


# --- files and messages -----------------------------------------------------------------------------------------


def write(path: Path, kind: Kind, content: bytes, check: Callable[[Header], None] = lambda _: None) -> None:
    """Put a file there at once, or leave everything as it is; `check` sees the header of what is replaced."""
    with writable(path, kind, check) as (file, target):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, target)


@contextmanager
def writable(
    path: Path, kind: Kind, check: Callable[[Header], None] = lambda _: None
) -> Iterator[tuple[BinaryIO, str]]:
    """A temporary file beside the target; it is removed at the end, unless it has taken the target's place."""
    with explained(path, kind, "cannot be written: {}; choose another path", OSError, ValueError):
        target = os.path.realpath(os.fsdecode(path))
        permissions = _replaceable(target, kind, check)
        temporary = os.path.join(os.path.dirname(target), f".nalu_np-{os.urandom(8).hex()}.tmp")
        try:
            with open(temporary, "xb") as file:
                if permissions is not None:
                    os.fchmod(file.fileno(), permissions)
                yield file, target
        finally:
            with suppress(OSError):
                os.unlink(temporary)


def _replaceable(target: str, kind: Kind, check: Callable[[Header], None]) -> int | None:
    """The permissions of the file that is there, or None where there is nothing."""
    try:
        permissions = _permissions(target)
    except FileNotFoundError:
        return None
    with open(target, "r+b") as file:  # for writing too, because a read-only model is not to be replaced
        try:
            with ZipFile(file) as archive:
                header = _read_header(archive, kind)
        except Exception:  # as in read
            raise ValueError(f"it is there already, and is not a {kind.name}") from None
    check(header)
    return permissions


def _permissions(path: Path) -> int:
    """The permissions of an ordinary file; anything else is an error, as opening a pipe would wait forever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is not an ordinary file")
    return stat.S_IMODE(mode)


def require(condition: bool, problem: str) -> None:
    """Raise ValueError, for `explained` to put into words, unless a condition holds."""
    if not condition:
        raise ValueError(problem)


@contextmanager
def explained(path: Path, kind: Kind, wording: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors of these classes into one line that begins with the path."""
    try:
        yield
    except errors as error:
        reason = printable(str(getattr(error, "strerror", None) or error), 400) or type(error).__name__
        message = reason if isinstance(error, kind.error) else wording.format(reason)
        raise kind.error(f"{printable(os.fsdecode(path), None)}: {message}") from None


# --- other files -------------------------------------------------------------------------------------------------


@contextmanager
def new_file(path: str) -> Iterator[BinaryIO]:
    """A file that was not there; without it again where writing fails."""
    who = printable(path, None)
    try:  # what follows must tell opening from writing
        file = open(path, "xb")  # noqa: SIM115
    except FileExistsError:
        raise FileError(f"{who}: it is there already; remove it or choose another name") from None
    except (OSError, ValueError) as error:
        raise FileError(f"{who}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    try:
        with file:
            yield file
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError):
            raise FileError(f"{who}: cannot be written: {error.strerror}") from None
        raise
