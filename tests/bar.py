"""What `nalu-np fit` is held to: laws, ranges, noise and few rows, five tables of each, with default settings.

    python tests/bar.py                 print the table
    python tests/bar.py --write         also write docs/bar.json, and the table into docs/fit.md
    python tests/bar.py --unit nalu --tables 2 --write
                                        the first lines for a unit of the paper: docs/bar-nalu.json

Every line asks for one of four things. "exact": the formula, and that it is called exact. "right": the formula,
not called exact, and a warning, because the data are noisy. "constant": the formula with its constant to six
digits, called exact. "honest": a formula only if it is the law; else none, and a warning that says what the units
lack.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import textwrap
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nalu_np.learn import Learned, Plan, learn
from nalu_np.summary import as_text
from nalu_np.tasks.tables import Table

DOCS = Path(__file__).parent.parent / "docs"
SEEDS = 5
#: Lines of laws on which the units of the paper are tried too.
BASIC = 5
FIVE = {"a + b": "a + b", "a - b": "a - b", "a * b": "a * b", "a / b": "a / b", "sqrt(a)": "a^0.5"}
FOUR = {law: text for law, text in FIVE.items() if law != "sqrt(a)"}
THREE = {law: law for law in ("a + b + c", "a + b - c", "a - b - c", "a * b * c", "a * b / c", "a / b / c")}
#: Where b passes 0, a / b has no spread that noise could be a part of.
EVEN = {law: text for law, text in FOUR.items() if law != "a / b"}
TEN = {"c + h": "c + h", "c - h": "c - h", "c * h": "c * h", "c / h": "c / h"}
#: Laws just beyond the units, what may be called their formula, and what else has to be said.
BEYOND = {
    "a * a": "a^2",
    "a + b + 1": None,
    "3.7 * a * b": None,
    "sin(3 * a) + b": None,
    "(a + b) * c": None,
}
SIGNS = {"abs(a) * b": None, "a * abs(b) / c": None}
WORDS = {
    "a + b + 1": "a + b + 1 fits them, but no unit adds a constant",
    "3.7 * a * b": "3.7 * a * b fits them; try --scale",
}
NEITHER = "no sum and no product of these columns|not their signs"


@dataclass(frozen=True)
class Line:
    """Some laws on tables of one kind."""

    kind: str
    laws: dict[str, str | None]
    train: tuple[float, float]
    test: tuple[float, float]
    asked: str = "exact"
    columns: int = 2
    rows: int = 2000
    noise: float = 0.0
    additive: float = 0.0
    wrong: int = 0
    scale: bool = False


LINES = (
    Line("five laws", FIVE, (1, 2), (2, 6)),
    Line("other magnitudes", FIVE, (0.1, 0.2), (0.2, 2)),
    Line("other magnitudes", FIVE, (10, 20), (20, 40)),
    Line("other magnitudes", FIVE, (1000, 2000), (2000, 6000)),
    Line("both signs", FOUR, (-2, 2), (-6, 6)),
    Line("one column irrelevant", FIVE, (1, 2), (2, 6), columns=3),
    Line("two columns irrelevant", FIVE, (1, 2), (2, 6), columns=4),
    Line("three columns relevant", THREE, (1, 2), (2, 6), columns=3),
    Line("three of four relevant", THREE, (1, 2), (2, 6), columns=4),
    Line("few rows", FIVE, (1, 2), (2, 6), rows=50),
    Line("noise", FIVE, (1, 2), (2, 6), "right", noise=0.01),
    Line("noise of 1% of the spread", EVEN, (-2, 2), (-6, 6), "right", additive=0.01),
    Line("one wrong row", FIVE, (1, 2), (2, 6), "right", rows=200, wrong=1),
    Line("negative columns", FOUR, (-2, -1), (-6, -2)),
    Line("two of ten relevant", TEN, (1, 2), (2, 6), columns=10),
    Line("two of ten relevant", TEN, (-2, 2), (-6, 6), columns=10),
    Line("two of ten relevant, noise", TEN, (1, 2), (2, 6), "right", columns=10, noise=0.01),
    Line("two of ten relevant, noise", TEN, (-2, 2), (-6, 6), "right", columns=10, noise=0.01),
    Line("beyond the units", BEYOND, (1, 2), (2, 6), "honest", columns=3),
    Line("beyond the units", BEYOND, (-2, 2), (-6, 6), "honest", columns=3),
    Line("beyond the units", SIGNS, (-2, 2), (-6, 6), "honest", columns=3),
    Line("--scale", {"3.7 * a * b": "3.7 * a * b"}, (1, 2), (2, 6), "constant", scale=True),
    Line("--scale", {"3.7 * a * b": "3.7 * a * b"}, (-2, 2), (-6, 6), "constant", scale=True),
    Line("--scale", {"-0.0123456 * a / b": "-0.0123456 * a / b"}, (10, 20), (20, 40), "constant", scale=True),
    Line("--scale", {"3.3 * (a - b)": "3.3 * (a - b)"}, (1, 2), (2, 6), "constant", scale=True),
)


@dataclass(frozen=True)
class Found:
    """What one table came to."""

    formula: str | None
    exact: bool
    warnings: tuple[str, ...]
    fulfilled: bool
    seconds: float


def made(line: Line, law: str, seed: int) -> tuple[Table, Table]:
    """A table to learn from and one to test on."""
    rng = np.random.default_rng([seed, len(law)])
    names = "abcdefghij"[: line.columns]

    def table(rows: int, low: float, high: float) -> Table:
        x = rng.uniform(low, high, (rows, line.columns))
        functions = {"sin": np.sin, "sqrt": np.sqrt, "abs": np.abs}
        y = eval(law, functions, dict(zip(names, x.T, strict=True)))
        y = y * (1 + line.noise * rng.normal(size=rows)) + line.additive * y.std() * rng.normal(size=rows)
        y[: line.wrong] += 100
        return Table("made.csv", (*names, "y"), np.column_stack([x, y]), (), tuple(range(rows)), ("",) * rows)

    return table(line.rows, *line.train), table(500, *line.test)


def judged(line: Line, law: str, learned: Learned) -> bool:
    """Whether what was asked for holds."""
    formula = learned.formula and str(learned.formula)
    if line.asked == "honest":
        explained = any(
            re.search("no sum and no product|try --scale|adds a constant", w) for w in learned.warnings
        )
        if formula is None:
            return explained and not learned.exact
        return formula == line.laws[law]
    exact = line.asked != "right"
    return formula == line.laws[law] and learned.exact == exact and (exact or bool(learned.warnings))


def run(line: Line, law: str, seed: int, unit: str = "auto") -> Found:
    """One table, learned with default settings."""
    table, test = made(line, law, seed)
    started = time.process_time()
    learned = learn(table, "y", test=test, plan=Plan(unit, line.scale))
    seconds = time.process_time() - started
    formula = learned.formula and str(learned.formula)
    return Found(formula, learned.exact, learned.warnings, judged(line, law, learned), seconds)


def markdown(cells: list[dict[str, object]]) -> str:
    """The table of all lines."""
    lines = [
        "| tables | laws | train | test | rows | noise | asked | fulfilled |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        kind = f"{cell['kind']}, {cell['columns']} columns"
        low, high = cell["train"], cell["test"]
        lines.append(
            f"| {kind} | {', '.join(f'`{law}`' for law in cell['laws'])} | U({low[0]:g}, {low[1]:g}) "
            f"| U({high[0]:g}, {high[1]:g}) | {cell['rows']:,} | {cell['noise']:.0%} | {cell['asked']} "
            f"| {cell['fulfilled']} of {cell['tables']} |"
        )
    return "\n".join(lines)


def reports() -> dict[str, str]:
    """What `nalu-np fit` prints for a table with a law, and for one without."""
    found = {}
    for name, law in (("good", "a / b"), ("hopeless", "sin(3 * a) + b")):
        line = Line(name, {}, (1, 2) if name == "good" else (-2, 2), (2, 6), columns=3, rows=200)
        table, test = made(line, law, 0)
        learned = learn(table, "y", test=test if name == "good" else None)
        found[name] = as_text(learned, f"{name}.csv", (), "beyond.csv" if name == "good" else None)
    return found


def put(name: str, text: str) -> None:
    """Write a part of docs/fit.md between its marks."""
    page = (DOCS / "fit.md").read_text(encoding="utf-8")
    head, mark, rest = page.partition(f"<!-- {name} -->\n")
    (DOCS / "fit.md").write_text(f"{head}{mark}\n{text}\n\n{rest[rest.index('<!-- end -->') :]}", encoding="utf-8")


def main() -> None:
    """Run all, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", default="auto", help="(default: auto)")
    parser.add_argument("--tables", type=int, default=SEEDS, help="of each law (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the figures and the table into docs/")
    options = parser.parse_args()
    lines = LINES if options.unit == "auto" else LINES[:BASIC]
    cells = []
    for line in lines:
        found = [(law, n, run(line, law, n, options.unit)) for law in line.laws for n in range(options.tables)]
        for law, seed, one in found:
            if not one.fulfilled:
                print(f"missed: {line.kind}, {law}, {line.train}, seed {seed}: {one}")
        times = sorted(one.seconds for *_, one in found)
        cells.append(
            {
                **asdict(line),
                "laws": list(line.laws),
                "tables": len(found),
                "fulfilled": sum(one.fulfilled for *_, one in found),
                "median_seconds": round(times[len(times) // 2], 3),
                "longest_seconds": round(times[-1], 3),
            }
        )
    print(markdown(cells))
    print(f"longest: {max(cell['longest_seconds'] for cell in cells):.2f} s of CPU time")
    if options.write:
        name = "bar" if options.unit == "auto" else f"bar-{options.unit}"
        versions = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
        text = json.dumps({"versions": versions, "lines": cells}, indent=1)
        (DOCS / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
        put(name, markdown(cells))
        if name == "bar":
            for name, report in reports().items():
                put(name, textwrap.indent(report, "    ", lambda line: bool(line.strip())))


if __name__ == "__main__":
    main()
