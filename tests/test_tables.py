"""Tables: what a CSV file holds is read bit for bit, and whatever is wrong with it is one clear safe line."""

import csv
import io
import math
import re

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nalu_np.errors import FileError, NaluError, TableError, printable
from nalu_np.tasks.tables import Table, read_table

NEWLINE = re.compile(r"\r\n|\r|\n")
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@st.composite
def tables(draw):
    """Legal names, which are not all numbers, and as many columns of finite numbers."""
    names = draw(st.lists(text.map(str.strip).filter(bool), min_size=1, max_size=5, unique=True))
    assume(not all(NUMBER.fullmatch(name) for name in names))
    return names, draw(arrays(np.float64, (draw(st.integers(1, 6)), len(names)), elements=finite))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """One file, written anew by each example of a property."""
    return tmp_path_factory.mktemp("tables") / "scratch.csv"


def csv_line(cells, end="\n", quoting=csv.QUOTE_MINIMAL):
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator=end, quoting=quoting).writerow(cells)
    return line.getvalue()


def save(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path, **options):
    """The message with which the file is refused, after the checks that hold for every message."""
    with pytest.raises(TableError) as caught:
        read_table(path, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{printable(str(path), None)}: ")
    # No traceback of the operating system or of the parser hangs below it.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message.removeprefix(f"{printable(str(path), None)}: ")


# What is read


@settings(deadline=None)
@given(
    table=tables(),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    blank=st.lists(st.sampled_from(["", " ", "\t ", ","]), max_size=8),
    last_end=st.booleans(),
)
@example((["a", "b"], np.array([[-0.0, 5e-324]])), b"\xef\xbb\xbf", "\r\n", csv.QUOTE_ALL, ["", ","], False)
def test_what_a_csv_writer_wrote_is_read_bit_for_bit(scratch, table, mark, end, quoting, blank, last_end):
    names, values = table
    # Before Python 3.13 the writer quotes only those line breaks in a cell that end its own lines.
    assume(quoting == csv.QUOTE_ALL or not any(NEWLINE.search(name) for name in names))
    content, lines = "", []
    for row in [names, *values.tolist()]:
        content += "".join(other + end for other in blank[:2])
        blank = blank[2:]
        lines.append(1 + len(NEWLINE.findall(content)))
        content += csv_line(row, end, quoting)
    first = next(line for line in NEWLINE.split(content) if line.strip())
    assume("," in first or not (";" in first or "\t" in first))
    save(scratch, mark + (content if last_end else content.removesuffix(end)).encode())

    table = read_table(scratch)

    assert table.names == tuple(names)
    assert table.values.tobytes() == values.tobytes()
    assert (table.values.dtype, table.values.shape) == (np.float64, values.shape)
    assert table.lines == tuple(lines[1:])
    assert table.left_out == ()
    assert table.path == str(scratch)


@settings(deadline=None)
@given(st.text("0123456789+-.eE_, nxXafityINFTYb٣½\t", max_size=8) | finite.map(repr))
@example("1_000")
@example("0x1F")
@example("nan")
@example("Infinity")
@example("1e999")
@example("٣")
@example(" +.5E-3\t")
@example("1,5")
@example("")
def test_a_cell_is_a_number_exactly_when_it_is_written_as_one(scratch, cell):
    save(scratch, csv_line(["x", "y"]) + csv_line([0, 1]) + csv_line([0, cell]))
    number = cell.strip()
    if NUMBER.fullmatch(number) and math.isfinite(float(number)):
        assert read_table(scratch).values[1, 1] == float(number)
    else:
        assert "line 3, column 'y': " in refusal(scratch)


@pytest.mark.parametrize(
    ("content", "names", "values"),
    [
        pytest.param(' x , "y"\n 1,\t2 \n', ("x", "y"), [[1, 2]], id="spaces"),
        pytest.param("x,y\n1,2\n\n", ("x", "y"), [[1, 2]], id="blank last line"),
        pytest.param("x,y\n1,2\n,\n3,4\n", ("x", "y"), [[1, 2], [3, 4]], id="blank cells only"),
        pytest.param("x,y,\n1,2,\n3,4, \n", ("x", "y"), [[1, 2], [3, 4]], id="unnamed blank column last"),
        pytest.param("x,,y\n1,,2\n", ("x", "y"), [[1, 2]], id="unnamed blank column"),
        pytest.param("1,y\n1,2\n", ("1", "y"), [[1, 2]], id="one name is a number"),
        pytest.param("x,,y,\n1,,2,\n", ("x", "y"), [[1, 2]], id="unnamed blank columns"),
        pytest.param("x\t\n1\t\n\u00a02\n", ("x",), [[1], [2]], id="tabs and no-break spaces"),
        pytest.param('"x\r\ny",z\r\n1,2\r\n', ("x\r\ny", "z"), [[1, 2]], id="line break in a name"),
        pytest.param("x;y,z\n1,2\n", ("x;y", "z"), [[1, 2]], id="semicolon in a name"),
        pytest.param('x\n1\n"2"\n', ("x",), [[1], [2]], id="one column"),
        pytest.param("größe\n1\n", ("größe",), [[1]], id="umlauts"),
    ],
)
def test_csv_as_people_have_it(tmp_path, content, names, values):
    table = read_table(save(tmp_path / "t.csv", content))
    assert table.names == names
    assert table.values.tolist() == values


def test_columns_without_a_number_are_left_out_and_named(tmp_path):
    table = read_table(save(tmp_path / "t.csv", "a,label,b,gap,hole\n1,light,2,,nan\n3,heavy,4,,inf\n"))
    assert table.names == ("a", "b")
    assert table.left_out == ("label", "gap", "hole")
    assert table.values.tolist() == [[1, 2], [3, 4]]


def test_only_the_columns_that_matter_are_looked_at(tmp_path):
    path = save(tmp_path / "t.csv", ",a,b,b,c\n0,1,x,3,4\n1,5,6,y,8\n")
    assert "'b'" in refusal(path)
    table = read_table(path, only=["c", "a"])
    assert table.names == ("a", "c")
    assert table.values.tolist() == [[1, 4], [5, 8]]
    assert table.left_out == ()


def test_a_path_may_be_a_string(tmp_path):
    path = str(save(tmp_path / "t.csv", "x\n1\n"))
    assert read_table(path).path == path


# The columns of a table


def test_columns_come_in_the_order_asked_for_as_a_copy(tmp_path):
    table = read_table(save(tmp_path / "t.csv", "a,b,c\n1,2,3\n4,5,6\n"))
    chosen = table.columns(["c", "a"])
    assert chosen.tolist() == [[3, 1], [6, 4]]
    assert chosen.flags.c_contiguous
    chosen[:] = 0
    assert table.values.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert table.columns([]).shape == (2, 0)


def test_a_missing_column_gets_the_near_names_first():
    table = Table("t.csv", ("a", "masse", "mass"), np.zeros((1, 3)), ("label",), (2,), ("x",))
    with pytest.raises(TableError) as caught:
        table.columns(["a", "mas"])
    assert str(caught.value) == (
        "t.csv: there is no column 'mas'; did you mean 'mass' or 'masse'? choose among 'mass', 'masse', 'a'"
    )
    with pytest.raises(TableError, match=r"^t\.csv: there is no column 'zz'; choose among 'a', 'masse', 'mass'$"):
        table.columns(["zz"])
    with pytest.raises(TableError, match=r"'label' was left out, .* number; choose among 'a', 'masse', 'mass'$"):
        table.columns(["label"])


def test_a_table_is_equal_only_to_itself():
    table, other = (Table("t.csv", ("x",), np.zeros((2, 1)), (), (2, 3), ("", "")) for _ in range(2))
    assert table == table
    assert table != other
    assert len({table, other}) == 2


def test_a_long_list_of_columns_is_cut():
    names = tuple(f"x{i}" for i in range(100))
    table = Table("t.csv", names, np.zeros((1, 100)), (), (2,), ("",))
    with pytest.raises(TableError, match=r"'x8', 'x9' and 90 more$"):
        table.columns(["velocity"])


def test_a_column_asked_for_has_to_be_there_with_numbers(tmp_path):
    path = save(tmp_path / "t.csv", "mass,label,y\n1,a,2\n")
    assert refusal(path, only=["mas", "y"]) == (
        "there is no column 'mas'; did you mean 'mass'? choose among 'mass', 'label', 'y'"
    )
    assert "'label' was left out" in refusal(path, only=["label", "y"])
    assert "there is no column ''" in refusal(save(path, "x,\n1,2\n"), only=[""])


# What is refused

LONG = csv.field_size_limit() + 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("", ["the file is empty"], id="empty"),
        pytest.param("\ufeff \r\n\r\n", ["the file is empty"], id="blank lines only"),
        pytest.param("a,b\n1,\0\n", ["binary data", "save it as CSV (UTF-8)"], id="NUL"),
        pytest.param(b"PK\3\4\0\0", ["binary data", "save it as CSV (UTF-8)"], id="a workbook"),
        pytest.param("gr\xf6\xdfe\n1\n".encode("latin-1"), ["on line 1", "as CSV (UTF-8)"], id="Latin-1"),
        pytest.param(b"\xef\xbb\xbfa\n\n\xff\n", ["on line 3", "as CSV (UTF-8)"], id="undecodable"),
        pytest.param("a,b\n1,2\n".encode("utf-16"), ["UTF-16", "save it as CSV (UTF-8)"], id="UTF-16"),
        pytest.param(b"\xfe\xff\0a", ["UTF-16", "save it as CSV (UTF-8)"], id="UTF-16, big end first"),
        pytest.param("a,b\n", ["only a header"], id="header only"),
        pytest.param("a,b\n\n,\n", ["only a header"], id="header and blank rows"),
        pytest.param(
            "1,2.5\n3,4\n", ["the first row holds numbers, so there seems to be no header"], id="no header"
        ),
        pytest.param("1, ,2\n", ["there seems to be no header"], id="no header, a blank cell"),
        pytest.param("a,b,a,c,b\n1,2,3,4,5\n", ["'a', 'b'", "name of its own"], id="duplicate names"),
        pytest.param("a,b, a\n1,2,3\n", ["repeats 'a';"], id="duplicate after stripping"),
        pytest.param(",a\n0,1\n1,2\n", ["column 1 has cells, but no name"], id="unnamed first column"),
        pytest.param("a,b,\n1,2,\n1,2,x\n", ["column 3 has cells, but no name"], id="unnamed last column"),
        pytest.param("a,b\n\n1,2\n3\n", ["line 4", "2 cells expected", "1 found"], id="short row"),
        pytest.param("a,b\n1,2,3\n", ["line 2", "2 cells expected", "3 found", "quotes"], id="long row"),
        pytest.param('a,b\n1,"2\n3,4\n', ["line 2", "unexpected end", "quote is closed"], id="open quote"),
        pytest.param('a,b\n"1"2,3\n', ["line 2", "quote"], id="text after a quote"),
        pytest.param(f"a,b\n1,2\n{'7' * LONG},3\n", ["line 3", f"limit ({LONG - 1})"], id="huge cell"),
        pytest.param(
            ",".join(f"x{i}" for i in range(1001)) + "\n", ["at most 1,000", "1,001 found"], id="too wide"
        ),
        pytest.param("a,b\nx,y\n", ["a column of numbers was expected, but there is none"], id="text only"),
        pytest.param("a;b\n1,5;2\n", ["',' was expected", "';'", "decimal point"], id="semicolons"),
        pytest.param('"a";"b"\n1;2\n', ["',' was expected", "has ';'"], id="semicolons and quotes"),
        pytest.param("a\tb\n1\t2\n", ["',' was expected", "has tabs"], id="tabs"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, words):
    message = refusal(save(tmp_path / "t.csv", content))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["1", "heavy"], "line 3, column 'y': 'heavy' is not a number; correct the cell or leave the column"),
        (
            ["1", ""],
            "line 3, column 'y': the cell is blank; fill it in or leave the column out with --features",
        ),
        (["1", " \t"], "line 3, column 'y': the cell is blank;"),
        (["1", "NaN"], "line 3, column 'y': 'NaN' is not a number;"),
        (["1", "-inf"], "line 3, column 'y': '-inf' is not a finite number;"),
        (["1", "1e999"], "line 3, column 'y': '1e999' is not a finite number;"),
        (["1", "1_000"], "line 3, column 'y': '1_000' is not a number;"),
        (["1", "0x1F"], "line 3, column 'y': '0x1F' is not a number;"),
        (["1", "٣"], "line 3, column 'y': '٣' is not a number;"),
        (["1", "1,5"], "line 3, column 'y': '1,5' holds a comma; write numbers as 1.5 and 1000 or leave"),
        (["1", "1,234.5"], "line 3, column 'y': '1,234.5' holds a comma;"),
        (["1", "x,5"], "line 3, column 'y': 'x,5' is not a number;"),
        (["1,5", "2,5"], "line 2, column 'y': '1,5' holds a comma (also wrong: line 3); write"),
        (["n/a", "2,5"], "line 3, column 'y': '2,5' holds a comma; write"),
        (["", "1", "x", "1,5"], "line 2, column 'y': the cell is blank (also wrong: lines 4, 5); fill it in"),
        (["x"] * 5 + ["1"], "column 'y': 'x' is not a number (also wrong: lines 3, 4, 5, 6); correct"),
        (
            ["x"] * 9 + ["1"],
            "column 'y': 'x' is not a number (also wrong: lines 3, 4, 5, 6 and 4 more); correct",
        ),
        (["1", "z" * 41], f"line 3, column 'y': '{'z' * 39}…' is not a number;"),
    ],
)
def test_a_cell_that_is_no_number_is_named(tmp_path, cells, problem):
    content = "x,y\n" + "".join(csv_line([0, cell]) for cell in cells)
    assert problem in refusal(save(tmp_path / "t.csv", content))


def test_1000_columns_are_not_too_many(tmp_path):
    content = ",".join(f"x{i}" for i in range(1000)) + "\n" + ",".join(["1"] * 1000) + "\n"
    assert read_table(save(tmp_path / "t.csv", content)).values.shape == (1, 1000)


def test_no_column_asked_for_is_no_table(tmp_path):
    assert "a column of numbers was expected" in refusal(save(tmp_path / "t.csv", "x\n1\n"), only=[])


def test_a_file_that_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    assert "a CSV file was expected, but: No such file or directory; check" in refusal(tmp_path / "none.csv")
    assert "but: Is a directory;" in refusal(tmp_path)
    assert "null" in refusal(tmp_path / "a\0b.csv")
    assert "encode" in refusal(tmp_path / "a\ud800.csv")

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    assert "but: Permission denied;" in refusal(tmp_path / "t.csv")


def test_a_table_error_is_a_file_error_and_a_value_error():
    assert issubclass(TableError, FileError)
    assert issubclass(TableError, NaluError)
    assert issubclass(TableError, ValueError)


# What is shown


@settings(deadline=None)
@given(st.text())
def test_printable_text_can_be_shown(text):
    assert printable(text).isprintable()
    assert printable(text, None).isprintable()
    if text.isprintable():
        assert printable(text, None) == text
        assert printable(text) == (text if len(text) <= 40 else text[:39] + "…")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\r\n\x9b\x7f\0", r"\x1b[2J\r\n\x9b\x7f\x00"),
        ("\u202e\u2066\u200f\u061c", r"\u202e\u2066\u200f\u061c"),
        ("\u2028\u00a0\ud800\U000e0001", r"\u2028\xa0\ud800\U000e0001"),
        ("größe 質量", "größe 質量"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 39 + "…"),
        ("\n" * 41, r"\n" * 39 + "…"),
    ],
)
def test_printable_escapes_and_cuts(text, shown):
    assert printable(text) == shown


HOSTILE = "\x1b]0;owned\x07\u202eevil\r\n"


@pytest.mark.parametrize(
    "rows",
    [
        [[f"a{HOSTILE}b", "y"], ["1", "2"], [f"x{HOSTILE}x", "2"]],
        [[f"a{HOSTILE}b", "y"], ["x", "y"]],
        [[f"a{HOSTILE}b", f"a{HOSTILE}b"], ["1", "2"]],
        [[f"a{HOSTILE}b", "y"], ["1"]],
        [["x", "y"], ["1", "2"], ["1", f"1,5{HOSTILE}5"]],
    ],
)
def test_hostile_names_and_cells_cannot_reach_the_terminal(tmp_path, rows):
    path = save(tmp_path / f"t{HOSTILE}.csv", "".join(map(csv_line, rows)))
    refusal(path)
    refusal(path, only=[f"q{HOSTILE}q"])


def test_a_hostile_path_cannot_reach_the_terminal():
    table = Table(f"t{HOSTILE}.csv", ("x",), np.zeros((1, 1)), ("label",), (2,), ("x",))
    for name in ["y", "label"]:
        with pytest.raises(TableError) as caught:
            table.columns([name])
        assert str(caught.value).isprintable()


@settings(deadline=None)
@given(
    st.binary(max_size=40)
    | st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass"))
    | st.text('ab1.5e,;"\n\r\t -', max_size=40).map(str.encode)
)
def test_any_file_is_a_table_or_one_line(scratch, content):
    save(scratch, content)
    try:
        table = read_table(scratch)
    except TableError:
        table = None
    if table is None:
        refusal(scratch)
    else:
        assert np.isfinite(table.values).all()
        assert table.values.shape == (len(table.lines), len(table.names))
        assert not set(table.names) & set(table.left_out)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a,name\n1,x\n2,y\n", ("x", "y")),
        ("a,name,other\n1,,p\n2,y,q\n", ("p", "q")),
        ("a,b\n1,2\n\n3,4\n", ("line 2", "line 4")),
    ],
)
def test_labels_come_from_the_first_column_of_words(tmp_path, text, labels):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    assert read_table(path, only=["a"]).labels == labels
