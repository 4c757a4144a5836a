"""What a run says: its page, its table and its figures, from its records alone."""

import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import toy_experiment
from hypothesis import given
from hypothesis import strategies as st

from nalu_np import cli, report
from nalu_np.experiments import EXPERIMENTS, runs
from nalu_np.experiments.base import Metric, Picture, Row

VOID = {"meta", "link", "br"}
ORDER = [
    "Protocol",
    "Largest",
    "Why",
    "Published and ours",
    "Figures",
    "Formulas read out",
    "Failures",
    "Speed",
    "Versions",
]


class Page(HTMLParser):
    """A page taken apart; an element that is not closed, or closed twice, is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of the toy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, "toy", toy_experiment.toy())
        folder = tmp_path_factory.mktemp("toy") / "out"
        assert cli.main(["run", "toy", "--out", str(folder)]) == 0
        yield folder


@pytest.fixture
def folder(done, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(done, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def page(done):
    return Page((done / "report.html").read_text("utf-8"))


def test_the_page_is_whole_and_in_order(page):
    heads = [text for tag, text in page.texts if tag == "h2"]
    assert [next(o for o in ORDER if head.startswith(o)) for head in heads] == ORDER
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert page.all("html") == [{"lang": "en"}]


def test_the_page_asks_for_nothing(page):
    for tag, attrs in page.elements:
        assert tag not in ("script", "img", "iframe", "object", "embed", "image", "a")
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("href", "xlink:href", "src"):
                assert value.startswith(("#", "data:"))
            assert "http" not in value or name.startswith("xmlns")
    [policy] = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")
    style = "".join(text for tag, text in page.texts if tag == "style")
    assert "@import" not in style
    assert not re.search(r"url\((?!#)", style)


def test_what_comes_from_records_is_escaped(folder):
    text = (folder / "report.html").read_text("utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 20


def test_what_stands_between_backticks_is_code(folder):
    text = (folder / "report.html").read_text("utf-8")
    assert "<li>Seed <code>r</code> errs by <code>r / 100</code>; &lt;<code>&amp;</code>&gt;.</li>" in text
    assert text.count("seeds that <code>err</code> by at most") == 2  # a card, and the table
    assert "`" not in text


def test_cards_are_few_and_in_the_order_of_the_key(folder, monkeypatch):
    run = runs.read(folder)
    rows = EXPERIMENTS["toy"].rows(run.cells())
    key = tuple(row.row.partition("/")[2] for row in reversed(rows))
    lines = report._summary(replace(run, experiment=replace(run.experiment, key=key)), rows, [])
    cards = [line for line in lines if 'class="name"' in line]
    assert len(rows) == 8
    assert len(cards) == report.MOST_CARDS == 6
    assert ["add ·" in card for card in cards] == [True] * 4 + [False] * 2
    assert "half of it" in cards[0]


def test_figures_can_be_told_apart_and_have_words(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    for tag, attrs in page.elements:
        for name in ("xlink:href", "clip-path"):
            for target in re.findall(r"#([^)\"]+)", attrs.get(name, "")):
                assert target in ids, tag
    drawings = page.all("svg")
    assert [d["aria-label"] for d in drawings] == [f"They rise {toy_experiment.NASTY}.", "They rise."]
    assert all("viewbox" in d and "width" not in d for d in drawings)
    assert len(page.all("figure")) == len(page.all("figcaption")) == 2


def test_tables_have_heads_and_scroll_in_boxes(page):
    boxes = [attrs for tag, attrs in page.elements if attrs.get("class") == "box"]
    assert len(boxes) == len(page.all("table")) + len(page.all("svg"))
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)
    assert all(th.get("scope") in ("col", "row", "rowgroup") for th in page.all("th"))


def test_verdicts_are_counted_on_the_first_screen(folder):
    text = (folder / "report.html").read_text("utf-8").partition("Protocol")[0]
    counts = dict(re.findall(r"</span> ([a-z ]+)</span> (\d+)</li>", text))
    assert counts == {"inside": "3", "outside": "1", "not comparable": "2", "none published": "2"}
    assert "50 %" in text
    assert "published 50 %" in text


def test_drawn_again_it_is_the_same(folder):
    names = ["summary.csv", "report.html", "main.png", "main.svg", "again.png", "again.svg"]
    before = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    assert cli.main(["report", str(folder)]) == 0
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_without_matplotlib_there_are_records_and_a_page(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(EXPERIMENTS, "toy", toy_experiment.toy())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["run", "toy", "--out", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "config.json",
        "results.jsonl",
        "summary.csv",
        "report.html",
    }
    assert "python -m pip install '.[plot]' in the project's folder" in capsys.readouterr().out
    drawn = Page((tmp_path / "out" / "report.html").read_text("utf-8"))
    assert drawn.all("svg") == []
    assert sum("It would show: They rise" in text for _, text in drawn.texts) == 2


def test_a_style_of_the_user_changes_nothing(folder):
    import matplotlib as mpl

    before = (folder / "main.svg").read_bytes()
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30}):
        report.write(runs.read(folder))
        assert mpl.rcParams["lines.linewidth"] == 9
    assert (folder / "main.svg").read_bytes() == before


def test_formulas_are_counted_and_the_rare_ones_together(folder, monkeypatch):
    text = (folder / "report.html").read_text("utf-8").partition("Formulas read out</h2>")[2]
    assert "6 of 6" in text
    monkeypatch.setattr(report, "MOST_FORMULAS", 2)
    report.write(runs.read(folder))
    text = (folder / "report.html").read_text("utf-8").partition("Formulas read out</h2>")[2]
    assert "4 others" in text
    assert "4 of 6" in text


def test_no_formulas_no_section():
    assert report._formulas([]) == report._speed([]) == []


# --- rows as text ---------------------------------------------------------------------------------------------


def row(ours, low, high, published="", name="toy/add/NAC/error"):
    return Row(name, ours, low, high, published, "inside", "")


@pytest.mark.parametrize(
    ("shown", "metric", "expected"),
    [
        (row(0.983, 0.94, 0.995, "0.98"), Metric("", rate=True), ("98.3 %", "94 % to 99.5 %", "98 %")),
        (row(493.188, 493.15, 493.224, "493.65"), Metric(""), ("493.188", "493.15 to 493.224", "493.65")),
        (row(58.4, 31.7, 92.8), Metric(""), ("58.4", "31.7 to 92.8", "")),
        (row(1.0, 1.0, float("inf")), Metric(""), ("1", "1 to ∞", "")),
        (row(0.0, 0.0, 0.0), Metric(""), ("0", "0 to 0", "")),
        (row(12345678.0, 1e7, 2e7), Metric(""), ("1.23e+07", "1e+07 to 2e+07", "")),
        (row(0.5, 0.1, 0.9, "<.001"), Metric("", rate=True), ("50 %", "10 % to 90 %", "<0.1 %")),
    ],
)
def test_numbers_have_the_digits_that_their_interval_can_tell_apart(shown, metric, expected):
    found = report._Shown.of(shown, metric)
    assert (found.ours, found.interval, found.published) == expected


@given(st.floats(1e-9, 1e9), st.floats(1e-6, 1))
def test_the_ends_of_an_interval_are_told_apart(low, part):
    high = low * (1 + part)
    ends = report._Shown.of(row(low, low, high), Metric("")).interval.split(" to ")
    assert part < 1e-4 or ends[0] != ends[1]


def test_of_very_many_rows_the_terminal_shows_the_key_ones(folder, monkeypatch):
    run = runs.read(folder)
    rows = EXPERIMENTS["toy"].rows(run.cells())
    assert len(report.as_text(run, rows).splitlines()) == 9
    monkeypatch.setattr(report, "MOST_LINES", 3)
    lines = report.as_text(run, rows).splitlines()
    assert len(lines) == 5
    assert lines[-1] == "... and 5 more rows in summary.csv"


def test_a_metric_that_nobody_described_has_its_name(folder):
    run = runs.read(folder)
    assert report._metric(run, row(1, 1, 1, name="toy/add/NAC/odd")) == Metric("odd")


def test_sizes_are_ranges():
    config = {"experiment": "toy", "op": "add", "first": 0}
    configs = [
        {**config, "model": "a", "count": 5, "steps": 10},
        {**config, "model": "b", "count": 2, "steps": 99},
    ]
    assert report.size(configs) == "2 cells, 2 to 5 seeds, 10 to 99 steps"


def test_an_inline_figure_keeps_no_metadata():
    picture = Picture("a", "", 'with "quotes"', "", draw=print)
    svg = '<svg width="1"><metadata>\n<x/></metadata><use xlink:href="#b"/><g clip-path="url(#c)"/></svg>'
    made = report.inline(svg, picture)
    assert "metadata" not in made
    assert 'aria-label="with &quot;quotes&quot;"' in made
    assert 'xlink:href="#a-b"' in made
    assert "url(#a-c)" in made
