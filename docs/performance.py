"""Write performance.md from what `nalu-np bench --json` has written: one file a run, unchanged.

Run from the project's root:  python docs/performance.py
It reads docs/speed-*.json, or the files named.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nalu_np.bench import ALONE, CASES, Row, figure

HEAD = """# What a step costs

Written by `docs/performance.py` from {files}, as this command wrote them:

    nalu-np bench --peers jax,torch --json {first}     # in an environment with the extra `bench`
    python docs/performance.py

- Each contender of a case has a process of its own, pinned to one core, with BLAS at one thread. They take turns,
  round after round. Figures are medians of the rounds, in float32, with Adam and the mean squared error.
- `times` says how many times as long a contender takes as the first of its case; in brackets the lowest and the
  highest such ratio of a round. Below 1 it is faster.
- A seed-step is one step of one seed. Time is CPU time of the process, unless the unit says wall: then turns in
  which others took more than 5% of its cores are thrown away and counted. Memory is the most that it ever had.
- A contender is timed only after its first losses were those of the readable tier, from the same initial values on
  the same rows. What is compiled is compiled before it is timed, except in `cold`.
- `planes` is the fused kernel of `fit`, `readable` what trains every other layer. `jax` is `jit` of `vmap` of
  `value_and_grad` in a `scan`, with the fastest of its generators; `jax by hand` has gradients derived by hand on
  whole planes, a chunk of replicas at a time; `torch` is eager with all seeds in one batch; in `torch.compile` the
  whole step is compiled.
"""

FEW = """
With few seeds, a step is a few numbers: one compiled call elsewhere, and dozens of calls of NumPy here. A compiler
also fuses a whole step into a few passes over the data, where NumPy makes one pass an operation.
"""

LOOPS = """
`{alone}` is no contender, but an estimate of the floor: the passes, powers and products of such a step, each
at what NumPy's own loop cost by itself in the same run. Its share of the time of the fused kernel is {shares}.
"""


def rows_of(report: dict[str, Any]) -> dict[str, dict[str, Row]]:
    """Of each case, the contenders; the first is what the others are compared with."""
    cases: dict[str, dict[str, Row]] = {}
    for row in report["rows"]:
        cases.setdefault(row["case"], {})[row["contender"]] = Row(**row)
    return cases


def table(runs: Sequence[dict[str, Row]]) -> str:
    """One case: for each contender, each run."""
    unit = next(iter(runs[0].values())).unit
    heads = ["contender", *(head for _ in runs for head in (unit, "times")), "MiB"]
    lines = [" | ".join(heads), " | ".join(["---", *["---:"] * (len(heads) - 1)])]
    for name, row in runs[0].items():
        cells = [name]
        for run in runs:
            if name not in run:
                cells += ["", ""]
                continue
            times, low, high = run[name].times(next(iter(run.values())))
            thrown = len(run[name].values) - len(run[name].kept)
            cells.append(figure(run[name].value) + (f" ({thrown} thrown away)" if thrown else ""))
            cells.append(f"{times:.2f} ({low:.2f} to {high:.2f})")
        cells.append("" if row.peak_MiB is None else f"{row.peak_MiB:.0f}")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def faster(runs: Sequence[dict[str, dict[str, Row]]]) -> list[str]:
    """Where another library takes less time than the first contender, in any run."""
    lines = []
    for name, case in CASES.items():
        others = [c.label for c in case.contenders if c.by not in ("planes", "readable")]
        for other in others:
            found = [
                r[name][other].times(next(iter(r[name].values())))[0] for r in runs if other in r.get(name, {})
            ]
            if found and min(found) < 1:
                ratios = " and ".join(f"{ratio:.2f}" for ratio in found)
                lines.append(f"- {name}, {other}: {ratios} of our time")
    return lines


def where(reports: dict[str, dict[str, Any]]) -> str:
    """The machine of each run, and what NumPy's loops cost there."""
    facts = {
        name: {
            **report["machine"],
            "not compared": ", ".join(report["missing"]),
            **{f"{loop}, ns": cost for loop, cost in report["primitives_ns"].items()},
        }
        for name, report in reports.items()
    }
    heads = ["", *facts]
    table = [heads, ["---"] * len(heads)]
    table += [[f, *(str(its.get(f, "")) for its in facts.values())] for f in next(iter(facts.values()))]
    left_out = [
        f"\n- {name}: {who} did not take part: {reason}"
        for name, report in reports.items()
        for who, reason in report["left_out"].items()
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in table) + "".join(left_out) + "\n" * bool(left_out)


def page(reports: dict[str, dict[str, Any]]) -> str:
    """The page, from the reports by the names of their files."""
    names = list(reports)
    runs = [rows_of(report) for report in reports.values()]
    parts = [HEAD.format(files=" and ".join(f"[{name}]({name})" for name in names), first=f"docs/{names[0]}")]
    for name, case in CASES.items():
        found = [run[name] for run in runs if name in run]
        if found:
            parts.append(f"\n## {name}: {case.title}\n\n{table(found)}\n")
        alone = [f"{run[ALONE].times(run['planes'])[0]:.0%}" for run in found if run.keys() >= {ALONE, "planes"}]
        if alone:
            parts.append(LOOPS.format(alone=ALONE, shares=" and ".join(alone)))
    ahead = faster(runs)
    if ahead:
        parts.append("\n## Where others are faster\n\n" + "\n".join(ahead) + "\n" + FEW)
    parts.append(f"\n## Where it ran\n\n{where(reports)}")
    return "".join(parts)


def main() -> None:
    """Read the files named, or docs/speed-*.json, and write the page beside this script."""
    here = Path(__file__).parent
    files = [Path(name) for name in sys.argv[1:]] or sorted(here.glob("speed-*.json"))
    reports = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
    (here / "performance.md").write_text(page(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
