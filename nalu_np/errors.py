"""Every error of the library, as one tree: `NaluError` catches them all.

Each class is also the built-in error that a Python programmer would expect (`ValueError`, `TypeError`, ...),
so ordinary `except` clauses work too::

    NaluError
    ├── ShapeError (ValueError)           an array's shape does not fit
    ├── DTypeError (TypeError)            an array's element type does not fit
    ├── ParameterError (ValueError)       parameters have missing or unknown names
    ├── OptionError (ValueError)          an option has a value outside its choices
    ├── GradientError (AssertionError)    a layer breaks its contract, or a vjp is not the derivative
    ├── FileError (ValueError)            a file is not what it should be, or cannot be written
    │   ├── ModelFileError                ... a model file
    │   ├── CheckpointError               ... a checkpoint of this run
    │   └── TableError                    ... a table of numbers
    ├── SweepError (RuntimeError)         a sweep's executor lost runs
    └── BackendError (RuntimeError)       the array library asked for cannot be used
        └── MixedBackendError (TypeError) arrays of two libraries in one call
"""


class NaluError(Exception):
    """The root of all errors that this library raises on purpose."""


class ShapeError(NaluError, ValueError):
    """An array's shape does not fit; the message names the array, the shape expected and the shape found."""


class DTypeError(NaluError, TypeError):
    """An array's element type does not fit; nothing is ever converted silently."""


class ParameterError(NaluError, ValueError):
    """A parameter dictionary has missing or unknown names."""


class OptionError(NaluError, ValueError):
    """An option has a value outside its choices."""


class GradientError(NaluError, AssertionError):
    """A vjp is not the derivative it claims to be, or a layer breaks another clause of its contract."""


class FileError(NaluError, ValueError):
    """A file is not what it should be, or cannot be written."""


class ModelFileError(FileError):
    """A model file is foreign, damaged, too large, or of a newer format."""


class CheckpointError(FileError):
    """A checkpoint is foreign, damaged, of another run, or of a newer format."""


class TableError(FileError):
    """A table of numbers cannot be read; the message names the file, the row and the column."""


class SweepError(NaluError, RuntimeError):
    """A sweep's executor lost runs; what was finished is in the file, and a second call runs the rest."""


class BackendError(NaluError, RuntimeError):
    """The array library asked for cannot be used."""


class MixedBackendError(BackendError, TypeError):
    """Arrays of two libraries met in one call."""


def printable(text: str, most: int | None = 40) -> str:
    r"""Return the text as one line that is safe to show: cut to ``most`` characters, the unprintable escaped.

    Unprintable are, among others, the controls of a terminal and of the direction of writing.

    Examples
    --------
    >>> from nalu_np.errors import printable
    >>> print(printable("mass\x1b[31m\n"))
    mass\x1b[31m\n
    """
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
