"""Write experiments.json and experiments.md from folders that `nalu-np run` has made.

Run from the project's root:  python docs/experiments.py FOLDER ...     (without folders: only the page, again)
"""

import json
import math
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nalu_np.experiments import EXPERIMENTS, runs
from nalu_np.experiments.base import Row
from nalu_np.report import as_text, duration, size

HERE = Path(__file__).parent

HEAD = """# The published experiments, rerun

Written by `docs/experiments.py` from the folders of these runs; [experiments.json](experiments.json) has all rows.
Each run also makes a page of its own, with figures, the protocol and where it deviates, and why cells differ:

    python -m pip install ".[plot]"
    nalu-np run NAME --workers 2

`ours` is a share of seeds with Wilson's interval, or a statistic of errors over seeds with a bootstrap interval,
both at 95 %. A published number is *inside* where it can lie in our interval, given the digits it is printed with.
Where the paper states neither data nor training, agreement can be chance, and so can its absence: the
configuration is then named in the protocol. Only in `identity` the optimiser and a threshold were chosen with the
table in view, and its page says so.
"""


def entry(folder: Path) -> tuple[str, dict[str, Any]]:
    """What the page needs of a run."""
    run = runs.read(folder)
    last = run.sessions[-1]
    return run.experiment.name, {
        "scale": run.scale,
        "seeds": run.seeds,
        "size": size(run.configs),
        "seconds": round(sum(record["seconds"] for record in run.records())),
        "on": {name: last[name] for name in ("started", "nalu_np", "python", "numpy", "processor", "cores")},
        "rows": [_plain(asdict(row)) for row in run.experiment.rows(run.cells())],
        "tables": [asdict(section) for section in run.experiment.sections(run.cells()) if section.rows],
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinities: they are text."""
    return {key: str(value) if value in (math.inf, -math.inf) else value for key, value in row.items()}


def _row(row: dict[str, Any]) -> Row:
    return Row(**{key: float(value) if key in ("ours", "low", "high") else value for key, value in row.items()})


def page(entries: dict[str, Any]) -> str:
    """The page."""
    lines = [HEAD]
    for name, experiment in EXPERIMENTS.items():
        if name not in entries:
            continue
        found = entries[name]
        rows = [_row(row) for row in found["rows"]]
        run = runs.Run(Path(name), experiment, found["scale"], found["seeds"], [], [])
        verdicts = Counter(row.verdict for row in rows)
        on = found["on"]
        lines += [
            f"## {name}: {experiment.title}",
            "",
            f"Claim: {experiment.claim} ({experiment.source})",
            "",
            f"`nalu-np run {run.what}`: {found['size']}; {duration(found['seconds'])} of one core "
            f"({on['processor']}, Python {on['python']}, NumPy {on['numpy']}, {on['started'][:10]}). "
            f"{len(rows)} rows: {', '.join(f'{count} {verdict}' for verdict, count in sorted(verdicts.items()))}.",
            "",
            *(f"    {line}" for line in as_text(run, rows).splitlines()),
            "",
        ]
        for table in found["tables"]:
            cells = [table["header"], ["---"] * len(table["header"]), *table["rows"]]
            lines += [f"{table['title']}. {' '.join(table['text'])}", ""]
            lines += [f"| {' | '.join(row)} |".replace("*", "\\*") for row in cells] + [""]
    return "\n".join(lines)


def main(folders: list[str]) -> None:
    """Take in the folders, and write the page."""
    path = HERE / "experiments.json"
    entries = json.loads(path.read_text()) if path.exists() else {}
    entries |= dict(entry(Path(folder)) for folder in folders)
    path.write_text(json.dumps(entries, indent=1) + "\n")
    (HERE / "experiments.md").write_text(page(entries))


if __name__ == "__main__":
    main(sys.argv[1:])
