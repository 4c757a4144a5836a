"""An experiment of no time: seed r of a cell errs by r / 100. Workers import it from here."""

import os
import time
from functools import partial
from pathlib import Path

from nalu_np.experiments.base import Experiment, Metric, Picture, Section, error, parts, rate, replicas

NASTY = "<script>alert(1)<b>&\"'"


def cells(scale, seeds, broken=""):
    seeds = seeds or {"quick": 2, "default": 6, "full": 12}[scale]
    configs = [
        {"experiment": "toy", "op": op, "model": NASTY, "steps": 10, "broken": broken} for op in ("-", "add")
    ]
    return parts(configs, seeds, most=2)


def run(config):
    """The errors; or, as the config has it, an exception, Ctrl-C while a file is there, a minute, or NaN."""
    if config["broken"] == "raises" and config["op"] == "add":
        raise ArithmeticError(f"no more digits {NASTY}")
    if config["broken"].startswith("/") and Path(config["broken"]).exists() and config["first"] == 2:
        raise KeyboardInterrupt
    if config["broken"] == "dies":
        os._exit(1)
    time.sleep(60 if config["broken"] == "slow" and config["first"] else 0.001)
    errors = [float("nan") if config["broken"] == "nan" and r % 2 else r / 100 for r in replicas(config)]
    seeds = {"error": errors, "diverged": [e != e for e in errors]}
    seeds["formula"] = [NASTY if config["op"] == "add" else f"x{r}" for r in replicas(config)]
    return {"seeds": seeds, "shared": {"worst": 1.0}}


def rows(cells):
    made = []
    for cell in cells:
        made.append(rate(f"{cell.name}/success", cell["error"] <= 0.02, "0.5"))
        made.append(error(f"{cell.name}/error", cell["error"], "0.01" if cell.op == "add" else "9", note=NASTY))
        made.append(error(f"{cell.name}/free", cell["error"]))
        made.append(error(f"{cell.name}/half", cell["error"] / 2, "7", incomparable="theirs is not halved"))
    return made


def draw(figure, cells):
    axes = figure.subplots()
    for cell in cells:
        axes.plot(cell["error"], label=cell.op)
    axes.set(xlabel="seed", ylabel="error")
    axes.legend()


def pictures(cells):
    return [
        Picture(
            "main", f"Errors {NASTY}", f"They rise {NASTY}.", f"A caption {NASTY}.", partial(draw, cells=cells)
        ),
        Picture("again", "The same again", "They rise.", "As above.", partial(draw, cells=cells)),
    ]


def sections(cells):
    table = tuple((cell.op, f"{cell['error'].max():.3g}", NASTY) for cell in cells)
    return [Section(f"Largest {NASTY}", (NASTY,), ("op", "error", "text"), table), Section("Why", ("Because.",))]


def toy(broken=""):
    return Experiment(
        name="toy",
        title=f"A toy {NASTY}",
        claim="Errors rise with the seed.",
        source="nobody",
        protocol=("Seed `r` errs by `r / 100`; <`&`>.",),
        deviations={"always": ("It is a toy.",), "quick": ("2 seeds instead of 6.",)},
        metrics={
            "success": Metric("seeds that `err` by at most 0.02", rate=True),
            "error": Metric("error, median over seeds"),
            "free": Metric("error, with which nothing is compared"),
            "half": Metric("half of it"),
            "absent": Metric("of which there are no rows"),
        },
        cells=partial(cells, broken=broken),
        run=run,
        rows=rows,
        seconds=lambda config: 0.5 * config["count"],
        pictures=pictures,
        sections=sections,
        key=("add/" + NASTY + "/success", "-/" + NASTY + "/error", "-/" + NASTY + "/free", "no/such/row"),
    )
