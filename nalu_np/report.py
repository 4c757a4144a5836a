"""What a run says: the table, the figures and one page that needs nothing else, all from its records alone.

Equal records give equal bytes. The page has no script and asks for nothing; what comes from records is escaped.
Figures need matplotlib, the extra `plot`; without it the page has none, and says so.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from importlib import resources
from typing import Any

from .errors import printable
from .experiments.base import Cell, Config, Metric, Picture, Record, Row, Section
from .experiments.runs import Run, put

#: Inches of a figure's width.
WIDTH = 7.2

#: What matplotlib draws text and axes with.
INK = "#1b1f24"

#: Rows that a terminal shows; of more, the key ones.
MOST_LINES = 100

#: Key rows that the first screen shows.
MOST_CARDS = 6

#: Formulas of a cell that are listed; the rest are counted.
MOST_FORMULAS = 6

NO_FIGURES = (
    "no figures, as matplotlib is missing (any in the folder are older): "
    "python -m pip install '.[plot]' in the project's folder, then nalu-np report"
)

SIGNS = {"inside": "●", "outside": "○", "not comparable": "≠", "none published": "–"}


@dataclass(frozen=True)
class Drawn:
    """A figure in the forms in which it is written."""

    picture: Picture
    png: bytes
    svg: bytes
    inline: str


@dataclass(frozen=True)
class Report:
    """What was written about a run, and its rows."""

    rows: list[Row]
    files: list[str]
    figures: bool


def write(run: Run) -> Report:
    """Write summary.csv, the figures and report.html into the run's folder, from its records alone.

    Raises
    ------
    FileError
        If the records are not such as this version makes, or the disk is full.
    """
    experiment, records = run.experiment, run.records()
    with run.understood():
        cells = run.cells()
        rows = experiment.rows(cells) if cells else []
        pictures = experiment.pictures(cells) if cells else []
        sections = experiment.sections(cells) if cells else []
        drawn = draw(pictures)
        content = page(run, cells, records, rows, pictures if drawn is None else drawn, sections)
    files = {"summary.csv": as_csv(rows).encode()}
    for figure in drawn or ():
        files |= {f"{figure.picture.name}.png": figure.png, f"{figure.picture.name}.svg": figure.svg}
    files["report.html"] = content.encode()
    for name, data in files.items():
        put(run.folder / name, data)
    return Report(rows, list(files), drawn is not None)


# --- rows -------------------------------------------------------------------------------------------------------


def as_csv(rows: Iterable[Row]) -> str:
    """The rows as summary.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    writer.writerows(asdict(row).values() for row in rows)
    return text.getvalue()


def as_text(run: Run, rows: Sequence[Row]) -> str:
    """The rows as a table for a terminal; of very many, those of the first screen."""
    key = {f"{run.experiment.name}/{name}" for name in run.experiment.key}
    shown = [row for row in rows if row.row in key] if len(rows) > MOST_LINES else list(rows)
    cells = [["", "ours", "interval", "published", ""]]
    for row in shown:
        numbers = _Shown.of(row, _metric(run, row))
        name = row.row.partition("/")[2]
        cells.append([name, numbers.ours, numbers.interval, numbers.published, row.verdict])
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    lines = [
        f"{line[0]:{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}  {line[3]:>{widths[3]}}  {line[4]}"
        for line in cells
    ]
    if len(shown) < len(rows):
        lines.append(f"... and {len(rows) - len(shown):,} more rows in summary.csv")
    return "\n".join(printable(line.rstrip(), 160) for line in lines)


def _metric(run: Run, row: Row) -> Metric:
    name = row.row.rpartition("/")[2]
    return run.experiment.metrics.get(name, Metric(name))


@dataclass(frozen=True)
class _Shown:
    """The numbers of a row as text, with as many digits as its interval can tell apart, three to six."""

    ours: str
    interval: str
    published: str

    @classmethod
    def of(cls, row: Row, metric: Metric) -> _Shown:
        """In per cent where the metric is a share of seeds."""
        width, largest = row.high - row.low, max(abs(row.low), abs(row.high))
        digits = 2 - math.floor(math.log10(width / largest)) if 0 < width < math.inf else 3
        unit, sign = (100, " %") if metric.rate else (1, "")

        def text(value: float) -> str:
            if not math.isfinite(value):
                return "∞"
            return f"{unit * value:.{min(max(digits, 3), 6)}g}{sign}"

        published = row.published
        if metric.rate and published:
            number = published.lstrip("<>")
            published = f"{published[: -len(number)]}{unit * float(number):.3g}{sign}"
        return cls(text(row.ours), f"{text(row.low)} to {text(row.high)}", published)


def size(configs: Sequence[Config]) -> str:
    """How large a run is: its cells, the seeds of each, their steps.

    Examples
    --------
    >>> from nalu_np.report import size
    >>> size([{"op": "add", "model": "NAC", "count": 50, "steps": 1000}] * 2)
    '1 cell, 100 seeds, 1,000 steps'
    """
    seeds: Counter[str] = Counter()
    for config in configs:
        others = {name: value for name, value in config.items() if name not in ("first", "count")}
        seeds[repr(sorted(others.items()))] += config["count"]
    steps = sorted({config["steps"] for config in configs})
    counts = sorted(set(seeds.values()))
    return f"{len(seeds)} cell{'s' * (len(seeds) > 1)}, {_range(counts)} seeds, {_range(steps)} steps"


def _range(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def duration(seconds: float) -> str:
    """A time in the unit that fits.

    Examples
    --------
    >>> from nalu_np.report import duration
    >>> duration(8.2), duration(100), duration(50_000)
    ('8 s', '2 min', '13.9 h')
    """
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- figures ----------------------------------------------------------------------------------------------------

STYLE: Any = {
    "svg.hashsalt": "nalu_np",
    "figure.constrained_layout.use": True,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#808080",
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


def draw(pictures: Sequence[Picture]) -> list[Drawn] | None:
    """Each picture as PNG, as SVG, and as SVG for the page; None without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return None

    drawn = []
    for picture in pictures:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            figure = Figure(figsize=(WIDTH, picture.height))
            picture.draw(figure)
            saved = {}
            for kind, face, undated in (("png", "white", ("Software",)), ("svg", "none", ("Date", "Creator"))):
                content = io.BytesIO()
                metadata = dict.fromkeys(undated)
                figure.savefig(content, format=kind, facecolor=face, dpi=200, metadata=metadata)
                saved[kind] = content.getvalue()
        svg = saved["svg"].decode()
        on_white = re.sub("(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', svg, count=1)
        drawn.append(Drawn(picture, saved["png"], on_white.encode(), inline(svg, picture)))
    return drawn


def inline(svg: str, picture: Picture) -> str:
    """An SVG as a part of a page: with names of its own, and words for who does not see.

    Examples
    --------
    >>> from nalu_np.experiments.base import Picture
    >>> from nalu_np.report import inline
    >>> picture = Picture("cost", "Cost", "It falls.", "", draw=print)
    >>> inline('<?xml?><svg width="5pt" height="3pt"><g id="a"/></svg>', picture)
    '<svg role="img" aria-label="It falls."><g id="cost-a"/></svg>'
    """
    svg = svg[svg.index("<svg") :].strip()
    head, rest = re.match(r"<svg([^>]*)>(.*)", svg, re.DOTALL).groups()  # type: ignore[union-attr]
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    for before in ('id="', 'href="#', "url(#"):
        rest = rest.replace(before, f"{before}{picture.name}-")
    return f'<svg role="img" aria-label="{escape(picture.alt)}"{head}>{rest}'


# --- the page ---------------------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{css}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(
    run: Run,
    cells: Sequence[Cell],
    records: Sequence[Record],
    rows: Sequence[Row],
    figures: Sequence[Drawn | Picture],
    sections: Sequence[Section],
) -> str:
    """The page, whole: `figures` as drawn, or as they would be where they cannot be drawn."""
    css = (resources.files("nalu_np") / "data" / "report.css").read_text(encoding="utf-8")
    body = [
        *_head(run, records),
        *_summary(run, rows, figures[:1]),
        *_protocol(run),
        *(line for section in sections for line in _section(section)),
        *_rows(run, rows),
        *_titled("Figures", [line for figure in figures[1:] for line in _figure(figure)]),
        *_titled("Formulas read out", _formulas(cells)),
        *_titled("Failures", _failures(cells, records)),
        *_titled("Speed", _speed(cells)),
        *_titled("Versions", _versions(run)),
    ]
    title = f"{run.experiment.title} · nalu_np"
    return PAGE.format(title=escape(title), css=css, body="\n".join(body))


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", *lines] if lines else []


def _prose(text: str) -> str:
    """A sentence, escaped; what stands between backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _p(text: str, kind: str = "") -> str:
    of = f' class="{kind}"' if kind else ""
    return f"<p{of}>{_prose(text)}</p>"


def _list(sentences: Iterable[str]) -> list[str]:
    return ["<ul>", *(f"<li>{_prose(sentence)}</li>" for sentence in sentences), "</ul>"]


def _head(run: Run, records: Sequence[Record]) -> list[str]:
    experiment = run.experiment
    done = sum(record["status"] == "done" for record in records)
    lines = [
        "<header>",
        _p(f"nalu-np run {run.what}", "kind"),
        f"<h1>{escape(experiment.title)}</h1>",
        _p(f"The claim: {experiment.claim}", "claim"),
        _p(f"Source: {experiment.source}. Run here: {size(run.configs)}.", "soft"),
    ]
    if done < len(run.configs):
        state = f"Not complete: {done} of {len(run.configs)} parts are done. What follows is of these alone."
        lines.append(_p(state, "warn"))
    return [*lines, "</header>"]


def _summary(run: Run, rows: Sequence[Row], figures: Sequence[Drawn | Picture]) -> list[str]:
    """One screen: how many rows have which verdict, the key ones, the main figure."""
    counts = Counter(row.verdict for row in rows)
    lines = ['<ul class="counts">']
    lines += [f"<li>{_verdict(name)} {counts[name]}</li>" for name in SIGNS if counts[name]]
    lines += ["</ul>", '<section class="first">', '<ul class="cards">']
    named = {row.row: row for row in rows}
    found = (named.get(f"{run.experiment.name}/{name}") for name in run.experiment.key)
    lines += [_card(row, _metric(run, row)) for row in list(filter(None, found))[:MOST_CARDS]]
    lines.append("</ul>")
    for figure in figures:
        lines += _figure(figure)
    return [*lines, "</section>"]


def _card(row: Row, metric: Metric) -> str:
    numbers = _Shown.of(row, metric)
    interval = f"95 %: {numbers.interval}" + f"; published {numbers.published}" * bool(row.published)
    name = f'<span class="name">{escape(_who(row))}</span><b>{escape(numbers.ours)}</b>'
    return f"<li>{name}<span>{escape(interval)}</span><span>{_prose(metric.text)}</span></li>"


def _figure(figure: Drawn | Picture) -> list[str]:
    picture = figure.picture if isinstance(figure, Drawn) else figure
    lines = ["<figure>", f"<h3>{_prose(picture.title)}</h3>"]
    if isinstance(figure, Drawn):
        lines.append(f"{_box(picture.title)}{figure.inline}</div>")
    else:
        lines.append(_p(f"Not drawn: {NO_FIGURES}. It would show: {picture.alt}", "warn"))
    return [*lines, f"<figcaption>{_prose(picture.caption)}</figcaption>", "</figure>"]


def _protocol(run: Run) -> list[str]:
    deviations = run.experiment.deviations
    here = [*deviations.get("always", ()), *deviations.get(run.scale, ())]
    if run.seeds is not None:
        here.append(f"{run.seeds} seeds of each cell, as was asked for.")
    lines = _titled("Protocol", _list(run.experiment.protocol))
    return [*lines, "<h3>Where this run deviates from it</h3>", *_list(here or ("Nowhere.",))]


def _verdict(name: str) -> str:
    kind = name if name in ("inside", "outside") else "neither"
    return f'<span class="{kind}"><span aria-hidden="true">{SIGNS[name]}</span> {name}</span>'


COLUMNS = (
    ("", ""),
    ("ours", "number"),
    ("95 % interval", "number interval"),
    ("published", "number"),
    ("verdict", "verdict"),
    ("note", "note"),
)


def _rows(run: Run, rows: Sequence[Row]) -> list[str]:
    """All rows in one table, a body for each metric."""
    text = (
        "Intervals are of 95 %: Wilson's for shares of seeds, the bootstrap's over seeds for errors. A published "
        "number is inside if, given to how many digits it is printed, it can lie in our interval. Seeds that are "
        "not finite count as failures and as infinite errors; none is left out."
    )
    heads = "".join(f'<th scope="col" class="{kind}">{head}</th>' for head, kind in COLUMNS)
    lines = [_p(text, "soft"), _box("All rows"), f'<table class="wide"><thead><tr>{heads}</tr></thead>']
    for name, metric in run.experiment.metrics.items():
        found = [row for row in rows if row.row.rpartition("/")[2] == name]
        if found:
            meaning = f"<span><b>{escape(name)}</b> {_prose(metric.text)}</span>"
            group = f'<th scope="rowgroup" colspan="{len(COLUMNS)}">{meaning}</th>'
            lines += [f'<tbody><tr class="group">{group}</tr>', *(_row(row, metric) for row in found), "</tbody>"]
    return _titled("Published and ours", [*lines, "</table></div>"])


def _row(row: Row, metric: Metric) -> str:
    shown = _Shown.of(row, metric)
    numbers = (shown.ours, shown.interval, shown.published)
    texts = [*map(escape, numbers), _verdict(row.verdict), _prose(row.note)]
    cells = "".join(f'<td class="{kind}">{text}</td>' for (_, kind), text in zip(COLUMNS[1:], texts, strict=True))
    return f'<tr><th scope="row">{escape(_who(row))}</th>{cells}</tr>'


def _who(row: Row) -> str:
    """The cell of a row: its op, where there is one, and its model."""
    return " · ".join(part for part in row.row.split("/")[1:-1] if part != "-")


def _box(label: str) -> str:
    """What is wider than the page scrolls in itself, also by keys."""
    return f'<div class="box" tabindex="0" role="group" aria-label="{escape(label)}">'


def _section(section: Section) -> list[str]:
    lines = [_p(text) for text in section.text]
    if section.rows:
        lines += _table(section.title, section.header, section.rows)
    return _titled(section.title, lines)


def _table(label: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of text; cells that are numbers stand right."""
    lines = [_box(label), "<table>"]
    rows = [list(row) for row in rows]
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    kinds = [' class="number"' if number else "" for number in numeric]
    heads = "".join(f'<th scope="col"{kind}>{escape(h)}</th>' for h, kind in zip(header, kinds, strict=True))
    lines.append(f"<thead><tr>{heads}</tr></thead><tbody>")
    for row in rows:
        first = f'<th scope="row"{kinds[0]}>{escape(row[0])}</th>'
        rest = "".join(f"<td{kind}>{_prose(text)}</td>" for text, kind in zip(row[1:], kinds[1:], strict=True))
        lines.append(f"<tr>{first}{rest}</tr>")
    return [*lines, "</tbody></table></div>"]


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[-+<>]?[\d,.]*\d[\d,.]*(e[-+]?\d+)?( %)?|[-–∞]?", text))


def _formulas(cells: Sequence[Cell]) -> list[str]:
    """The formulas of each cell's seeds, the frequent ones first."""
    rows = []
    for cell in cells:
        found = Counter(str(text) for text in cell.seeds.get("formula", ()))
        common = found.most_common(MOST_FORMULAS)
        listed = [(text, f"{count} of {cell.count}") for text, count in common]
        rest = sum(found.values()) - sum(count for _, count in common)
        if rest:
            listed.append((f"{len(found) - len(common)} others", f"{rest} of {cell.count}"))
        rows += [(cell.name.partition("/")[2], *pair) for pair in listed]
    if not rows:
        return []
    text = (
        "As the weights of each seed say: snapped to the constants at which the units rest, unless the law has "
        "other ones, and gates to the side on which they are."
    )
    return [_p(text, "soft"), *_table("Formulas read out", ("cell", "formula", "seeds"), rows)]


def _failures(cells: Sequence[Cell], records: Sequence[Record]) -> list[str]:
    lines = []
    for record in records:
        if record["status"] == "failed":
            config, error = record["config"], record["error"]
            last = config["first"] + config["count"] - 1
            what = f"{config['op']}/{config['model']}, seeds {config['first']} to {last}"
            lines.append(
                _p(f"{what} could not be run: {error['type']}: {printable(error['message'], 300)}", "warn")
            )
    diverged = [
        (cell.name.partition("/")[2], sum(map(bool, cell.seeds["diverged"])), cell.count)
        for cell in cells
        if "diverged" in cell.seeds
    ]
    if any(n for _, n, _ in diverged):
        rows = [(name, f"{n} of {count}") for name, n, count in diverged if n]
        lines.append(_p("Seeds whose loss, gradient or update turned non-finite, and that were stopped there:"))
        lines += _table("Seeds that diverged", ("cell", "seeds"), rows)
    elif diverged:
        total = sum(count for *_, count in diverged)
        lines.append(_p(f"None of {total:,} seeds turned non-finite."))
    return lines


def _speed(cells: Sequence[Cell]) -> list[str]:
    """How many steps of how many seeds in how many seconds."""
    rows, work, spent = [], 0, 0.0
    for cell in cells:
        steps = cell.count * cell.config["steps"]
        work, spent = work + steps, spent + cell.seconds
        name = cell.name.partition("/")[2]
        rows.append((name, f"{steps:,}", f"{cell.seconds:,.1f}", f"{steps / max(cell.seconds, 1e-9):,.0f}"))
    if not rows:
        return []
    text = f"{work / max(spent, 1e-9):,.0f} seed-steps a second of one worker: {work:,} in {duration(spent)}."
    header = ("cell", "seed-steps", "seconds", "a second")
    return [_p(text), *_table("Speed of each cell", header, rows)]


def _versions(run: Run) -> list[str]:
    lines = []
    for session in run.sessions:
        pairs = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in session.items())
        lines.append(f"<dl>{pairs}</dl>")
    return lines
