"""Tables of numbers, read from CSV files: every cell that counts is a finite float64, or the reading stops.

Whatever is wrong with a file becomes one `TableError` of one line, which says where it is and what to do.
"""

import csv
import difflib
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import TableError, printable

MOST_COLUMNS = 1000


@dataclass(frozen=True, eq=False)
class Table:
    """The numeric columns of a CSV file.

    Attributes
    ----------
    path
        The file, as the caller named it.
    names
        The names of the numeric columns, in the order of the file.
    values
        The numbers, all finite, of shape ``(rows, len(names))``.
    left_out
        The names of the columns without a single number.
    lines
        The line of the file on which each row starts; the first line is 1.
    labels
        A name for each row: its cell in the first column without a number, a blank or a repetition; else its line.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([[1.0, 2.0], [3.0, 6.0]])
    >>> table = Table("laws.csv", ("mass", "y"), values, ("label",), (2, 3), ("light", "heavy"))
    >>> table.columns(["y"])
    array([[2.],
           [6.]])
    """

    path: str
    names: tuple[str, ...]
    values: NDArray[np.float64]
    left_out: tuple[str, ...]
    lines: tuple[int, ...]
    labels: tuple[str, ...]

    def columns(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return the columns of these names, in this order, as a new array ``(rows, len(names))``."""
        for name in names:
            if name in self.left_out:
                problem = f"column {_quoted(name)} was left out, because none of its cells is a number"
                raise TableError(f"{printable(self.path, None)}: {problem}; choose among {_names(self.names)}")
            _check_name(self.path, name, self.names)
        return self.values[:, [self.names.index(name) for name in names]].copy()


def read_table(path: str | os.PathLike[str], *, only: Sequence[str] | None = None) -> Table:
    r"""Read a CSV file: UTF-8, a line of names, then rows of numbers with a decimal point.

    Blank lines, rows of nothing but blank cells, and spaces around cells do not count. A column without a
    single number is left out; in every other column each cell has to be a finite number.

    Parameters
    ----------
    path
        The file.
    only
        The only columns that matter; each has to be there. The cells of the others may hold anything.

    Raises
    ------
    TableError
        The file cannot be read, is no CSV file, or holds something else where a number has to be.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "laws.csv")
    ...     _ = path.write_text("mass,label,y\n1,light,2\n3,heavy,6\n", encoding="utf-8")
    ...     table = read_table(path)
    >>> table.names, table.left_out, table.lines, table.labels
    (('mass', 'y'), ('label',), (2, 3), ('light', 'heavy'))
    >>> table.values
    array([[1., 2.],
           [3., 6.]])
    """
    path = os.fspath(path)
    who = printable(path, None)
    (_, header), *rows = _rows(who, _text(who, path))
    header = [name.strip() for name in header]
    _check_header(who, header, len(rows))
    for name in only or ():
        _check_name(path, name, [name for name in header if name])
    wanted = [(at, name) for at, name in enumerate(header) if only is None or name in only]
    twice = [name for name, count in Counter(name for _, name in wanted).items() if name and count > 1]
    if twice:
        raise TableError(f"{who}: the header repeats {_names(twice)}; give each column a name of its own")
    for line, row in rows:
        if len(row) != len(header):
            found = f"{len(header)} cells expected, as in the header, but {len(row)} found"
            cure = "correct the line (a cell that holds a comma needs quotes)"
            raise TableError(f"{who}: line {line}: {found}; {cure}")

    lines = tuple(line for line, _ in rows)
    numeric: dict[str, NDArray[np.float64]] = {}
    left_out: list[str] = []
    for at, name in wanted:
        cells = [row[at].strip() for _, row in rows]
        if not name:
            if any(cells):
                raise TableError(f"{who}: column {at + 1} has cells, but no name; name it in the header")
        elif (numbers := _numbers(who, name, lines, cells)) is None:
            left_out.append(name)
        else:
            numeric[name] = numbers
    if not numeric:
        raise TableError(f"{who}: a column of numbers was expected, but there is none; is it the right file?")
    values = np.column_stack([*numeric.values()])
    table = Table(
        path, tuple(numeric), values, tuple(left_out), lines, _labels(header, lines, [row for _, row in rows])
    )
    table.columns(only or ())  # a column that was asked for must not be left out
    return table


def _quoted(text: str) -> str:
    return f"'{printable(text)}'"


def _listed(items: Iterable[object], most: int) -> str:
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _names(names: Iterable[str]) -> str:
    return _listed(map(_quoted, names), 10)


def _check_name(path: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names)
        guess = f"did you mean {' or '.join(map(_quoted, near))}? " if near else ""
        choice = _names([*near, *(other for other in names if other not in near)])
        who = printable(path, None)
        raise TableError(f"{who}: there is no column {_quoted(name)}; {guess}choose among {choice}")


def _text(who: str, path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise TableError(f"{who}: a CSV file was expected, but: {reason}; check the path") from None
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            found = "UTF-16 text"
        elif b"\0" in data:
            found = "binary data"
        else:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"something else (on line {line})"
    raise TableError(f"{who}: UTF-8 text was expected, but this is {found}; save it as CSV (UTF-8)")


def _rows(who: str, text: str) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, the header first, each with the line on which it starts."""
    # Not splitlines(), which would also cut at form feeds and at the line separators of Unicode.
    text_lines = list(io.StringIO(text, newline=""))
    first = next((line.strip() for line in text_lines if line.strip()), "")
    for mark, marks in ((";", "';'"), ("\t", "tabs")):
        if mark in first and "," not in first:
            cure = "save it with ',' between cells and '.' as the decimal point"
            raise TableError(f"{who}: ',' was expected between cells, but the header has {marks}; {cure}")
    rows: list[tuple[int, list[str]]] = []
    start = 1
    reader = csv.reader(text_lines, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows.append((start, row))
            start = reader.line_num + 1
    except csv.Error as error:
        cure = "check that each quote is closed, and doubled where it stands in a cell"
        raise TableError(f"{who}: line {start}: cells as in CSV were expected, but: {error}; {cure}") from None
    if not rows:
        raise TableError(f"{who}: a header and rows of numbers were expected, but the file is empty; fill it")
    return rows


def _check_header(who: str, header: Sequence[str], rows: int) -> None:
    if len(header) > MOST_COLUMNS:
        found = f"at most {MOST_COLUMNS:,} columns were expected, but {len(header):,} found"
        raise TableError(f"{who}: {found}; save fewer of them, and each row on a line of its own")
    if all(math.isfinite(_number(name)) for name in header if name):
        problem = "the first row holds numbers, so there seems to be no header"
        raise TableError(f"{who}: {problem}; put a line of column names above it")
    if not rows:
        raise TableError(f"{who}: rows of numbers were expected, but there is only a header; add them below it")


def _labels(header: Sequence[str], lines: Sequence[int], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    for at, _ in enumerate(header):
        cells = [row[at].strip() for row in rows]
        if all(cell and math.isnan(_number(cell)) for cell in cells) and len(set(cells)) == len(cells):
            return tuple(cells)
    return tuple(f"line {line}" for line in lines)


def _number(cell: str) -> float:
    """The number in a cell, or NaN; float() alone would also take '1_000' and the digits of other scripts."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        return math.nan


def _numbers(who: str, name: str, lines: Sequence[int], cells: Sequence[str]) -> NDArray[np.float64] | None:
    """The numbers of a column, or None where it has none."""
    numbers = np.array([_number(cell) for cell in cells])
    finite = np.isfinite(numbers)
    wrong = np.flatnonzero(~finite).tolist()
    if not wrong:
        return numbers
    commas = [at for at in wrong if math.isfinite(_number(cells[at].replace(",", "")))]
    if not finite.any():
        if not commas:
            return None
        wrong = commas  # a column of decimal commas is meant as numbers, not as text to leave out
    first, *others = wrong
    problem, cure = f"{_quoted(cells[first])} is not a number", "correct the cell"
    if not cells[first]:
        problem, cure = "the cell is blank", "fill it in"
    elif math.isinf(numbers[first]):
        problem = f"{_quoted(cells[first])} is not a finite number"
    elif first in commas:
        problem, cure = f"{_quoted(cells[first])} holds a comma", "write numbers as 1.5 and 1000"
    plural = "s" if len(others) > 1 else ""
    also = f" (also wrong: line{plural} {_listed([lines[at] for at in others], 4)})" if others else ""
    cure += " or leave the column out with --features"
    raise TableError(f"{who}: line {lines[first]}, column {_quoted(name)}: {problem}{also}; {cure}")
