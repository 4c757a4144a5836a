"""The command line: it parses, calls and prints.

Exit status: 0 done, also with warnings; 1 a check, or a part of an experiment, failed; 2 bad input, with one \
line on stderr; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import __version__
from .backend import VARIABLE, get_backend
from .bench import CASES, bench
from .checks import check_layer, registered_layers
from .errors import FileError, GradientError, NaluError, OptionError, SweepError, printable
from .experiments import EXPERIMENTS, find, runs
from .experiments.base import SCALES, Experiment
from .layer import Layer, Params
from .learn import TRAINED, UNITS, Learned, Plan, gates, learn, off_branch, predict
from .peers import PEERS
from .readout import Host, evaluate
from .report import NO_FIGURES, Report, duration, size, write
from .report import as_text as as_rows
from .store import check_writable, load, new_file, save
from .summary import as_json, as_text
from .tasks.tables import Table, read_table
from .train import Segment

#: Most layers of a network that is to be read: its formula doubles with each.
MOST_LAYERS = 8

#: Most seeds of a cell of an experiment.
MOST_SEEDS = 100_000

#: What fit notes in a model, and predict needs besides the network.
NOTES = ("target", "features", "formula", "branch")

#: Shipped tables, of measured or published figures: two files, the target, and what the report calls them.
DEMOS = {
    "escape": ("small_bodies", "giants", "escape_velocity", "The shipped table of small bodies", "The giants"),
    "planets": ("planets", "outer_planets", "period", "The shipped table of planets", "The outer planets"),
    "boyle": ("boyle", "boyle_compressed", "pressure", "Boyle's table of 1662", "His smaller volumes"),
    "moons": ("moons", "giant_moons", "period", "The shipped table of moons", "Of Jupiter and Saturn"),
}

#: Options of units trained by gradients.
TRAINING = ("layers", "steps", "lr", "batch", "dtype")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message, None)}; see {self.prog} --help\n")


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def whole(text: str) -> int:
        # The length comes before int(), which refuses thousands of digits.
        value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else -1
        if value < least or (most is not None and value > most):
            wanted = f">= {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number {wanted}, got '{printable(text)}'")
        return value

    return whole


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number > 0, got '{printable(text)}'")
    return value


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="nalu-np",
        description="Neural arithmetic units: learn a law from a table of numbers, and print it as a formula.",
    )
    top.add_argument("--version", action="version", version=f"nalu_np {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    fit = commands.add_parser(
        "fit",
        help="learn a law from a table",
        description="Learn a law from a table. Without a table: a demonstration, which learns from the small "
        "bodies of the solar system and predicts the giants. A sum path and a product path race; NALU, NAC and "
        "LogNAC are trained by gradients, as in the paper.",
    )
    fit.add_argument("table", nargs="?", type=_path, metavar="TRAIN.csv", help="a CSV file with a header")
    fit.add_argument("--target", metavar="COLUMN", help="the column to predict")
    fit.add_argument("--features", metavar="A,B", help="the columns to predict it from (default: all others)")
    fit.add_argument(
        "--test", type=_path, metavar="OTHER.csv", help="rows to report on, best from outside the range"
    )
    fit.add_argument("--unit", choices=UNITS, default=Plan.unit, help="what learns (default: %(default)s)")
    fit.add_argument("--scale", action="store_true", help="learn one constant besides, which multiplies the whole")
    fit.add_argument("--compare", metavar="A,B", help=f"units to show beside: {', '.join(TRAINED)}")
    fit.add_argument(
        "--seeds", type=_whole(1), default=Plan.seeds, metavar="N", help="trained at once (default: %(default)s)"
    )
    fit.add_argument(
        "--seed",
        type=_whole(0),
        default=Plan.seed,
        metavar="N",
        help="of all that is drawn (default: %(default)s)",
    )
    fit.add_argument(
        "--out", type=_path, metavar="model.npz", help="write the chosen network and its formula to a file"
    )
    fit.add_argument(
        "--plot",
        type=_path,
        metavar="fit.png",
        help="draw predictions and the seeds' weights (.png, .svg or .pdf)",
    )
    fit.add_argument("--json", action="store_true", help="print one JSON object instead of the report")
    fit.add_argument("--demo", choices=DEMOS, help="learn from a shipped table")
    slow = fit.add_argument_group("units trained by gradients (nalu, nac, lognac)")
    slow.add_argument(
        "--layers",
        type=_whole(1, MOST_LAYERS),
        metavar="N",
        help=f"one after the other, at most {MOST_LAYERS} (default: {Plan.layers})",
    )
    slow.add_argument("--steps", type=_whole(1), metavar="N", help=f"of the optimiser (default: {Plan.steps})")
    slow.add_argument("--lr", type=_positive, metavar="R", help=f"of Adam (default: {Plan.lr})")
    slow.add_argument("--batch", type=_whole(1), metavar="N", help="rows a step (default: 128, or all if fewer)")
    slow.add_argument("--dtype", choices=("float32", "float64"), help=f"of the training (default: {Plan.dtype})")
    fit.set_defaults(run=_fit)

    use = commands.add_parser("predict", help="apply a model to a table", description="Apply a model to a table.")
    use.add_argument("model", type=_path, metavar="model.npz", help="written by fit")
    use.add_argument(
        "table", type=_path, metavar="OTHER.csv", help="a CSV file with the columns that the model was fitted on"
    )
    use.add_argument("--formula", action="store_true", help="use its formula, not the network")
    use.add_argument("--out", type=_path, metavar="predictions.csv", help="a new file (default: print)")
    use.set_defaults(run=_predict)

    check = commands.add_parser(
        "check",
        help="check every layer's gradients",
        description="Check the gradients and the contract of every registered layer, on the present backend.",
    )
    check.add_argument(
        "--examples", type=_whole(1), default=20, metavar="N", help="random points a layer (default: %(default)s)"
    )
    check.set_defaults(run=_check)

    timing = commands.add_parser(
        "bench",
        help="what a step costs, beside other libraries",
        description="Time training steps, in turns with other libraries that compute the same, each in a process "
        "of its own on one core. With all peers it takes about half an hour.",
    )
    timing.add_argument("--case", metavar="A,B", help=f"of {', '.join(CASES)} (default: all)")
    timing.add_argument("--peers", metavar="A,B", help=f"to compare with: {', '.join(PEERS)} (extra: bench)")
    timing.add_argument("--backend", choices=("numpy", "cupy"), default="numpy", help="(default: %(default)s)")
    timing.add_argument("--rounds", type=_whole(1), default=5, metavar="N", help="(default: %(default)s)")
    timing.add_argument("--json", type=_path, metavar="FILE", help="write all figures to a new file too")
    timing.set_defaults(run=_bench)

    _add_experiments(commands)

    info = commands.add_parser(
        "info", help="versions, backend, device, threads", description="What would compute."
    )
    info.set_defaults(run=_info)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    _prepare_streams()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _warn(str(message))
            try:
                options = parser().parse_args(arguments)
                status: int = options.run(options)
            finally:
                sys.stdout.flush()  # here, where an error can still be told, and also after --help
        return status
    except KeyboardInterrupt:
        return _stop("interrupted; nothing was written", 130)
    except NaluError as error:
        return _stop(str(error), 2)
    except MemoryError:
        return _stop("not enough memory; choose fewer --seeds, a smaller --batch or a shorter table", 2)
    except BrokenPipeError:  # the reader of a pipe has left, which is its right
        _silence()
        return 0
    except OSError as error:
        _silence()
        return _stop(f"the output cannot be written: {error.strerror or error}", 2)


def _stop(message: str, status: int) -> int:
    print(f"nalu-np: {printable(message, None)}", file=sys.stderr)
    return status


def _prepare_streams() -> None:
    """Let no stream be missing, as after `>&-`, and none stop at a letter that it cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (until the process ends)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence() -> None:
    """Keep Python from complaining about stdout again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- fit --------------------------------------------------------------------------------------------------------


def _fit(options: argparse.Namespace) -> int:
    plan = _plan(options)
    features = None if options.features is None else _split(options.features)
    test: Table | None = None
    if options.table is None:
        if not (options.target is options.features is options.test is None):
            raise FileError("fit: --target, --features and --test need a table; give TRAIN.csv first")
        train_file, test_file, target, title, test_title = DEMOS[options.demo or "escape"]
        with resources.as_file(resources.files("nalu_np") / "data") as shipped:
            table, test = read_table(shipped / f"{train_file}.csv"), read_table(shipped / f"{test_file}.csv")
    elif options.demo is not None:
        raise FileError("fit: --demo brings its own table; leave one of them out")
    else:
        if options.target is None:
            names = printable(", ".join(read_table(options.table).names), 200)
            raise FileError(f"fit: --target is missing; it can be one of {names}")
        target = options.target
        wanted = None if features is None else [*features, target]
        table = read_table(options.table, only=wanted)
        if options.test is not None:
            test = read_table(options.test, only=wanted or table.names)
        title, test_title = printable(Path(options.table).name, 60), Path(options.test or "").name
    if options.out is not None:
        check_writable(options.out)
    draw = None if options.plot is None else _drawing(options.plot)

    bar = _Bar(options.json)
    try:
        learned = learn(table, target, features, test, plan=plan, progress=bar)
    finally:
        bar.clear()
    written = None
    if options.out is not None and learned.chosen.usable:
        save(options.out, learned.layer, learned.params, _meta(learned))
        written = os.fspath(options.out)
    if draw is not None:
        draw(learned, title, test_title, options.plot)
    if options.json:
        print(json.dumps(as_json(learned, written), allow_nan=False))
    else:
        print(as_text(learned, title, table.left_out, test_title))
        if written is not None:
            print(f"written: {printable(written, None)}")
        elif options.out is not None:
            print("nothing was written: no seed has learned anything")
        if draw is not None:
            print(f"drawn: {printable(options.plot, None)}")
    return 0


def _drawing(path: str) -> Callable[[Learned, str, str, str], None]:
    """What draws the picture, or an error before any work is done."""
    from .plots import check_drawable, draw_fit

    check_drawable(path)
    return draw_fit


def _plan(options: argparse.Namespace) -> Plan:
    compare = tuple(_split(options.compare)) if options.compare is not None else ()
    given = {name: value for name in TRAINING if (value := getattr(options, name)) is not None}
    plan = Plan(options.unit, options.scale, compare, options.seeds, options.seed, **given)
    if given and not {options.unit, *compare} & TRAINED.keys():
        names = ", ".join(f"--{name}" for name in given)
        _warn(f"{names}: only units trained by gradients heed it, such as --unit nalu; {options.unit} needs none")
    return plan


def _split(names: str) -> list[str]:
    """Names between commas; one that holds a comma stands in quotes, as in CSV."""
    return [name.strip() for name in next(csv.reader([names], skipinitialspace=True), [])]


def _meta(learned: Learned) -> dict[str, Any]:
    """The notes of a model."""
    return {
        "target": learned.target,
        "features": list(learned.features),
        "formula": learned.formula and _lists(learned.formula.terms),
        "exact": learned.exact,
        "branch": learned.branch.tolist(),
    }


class _Bar:
    """Progress on a terminal; nothing in a pipe."""

    def __init__(self, quiet: bool) -> None:
        self.shown = sys.stderr.isatty() and not quiet

    def __call__(self, segment: Segment) -> None:
        if self.shown:
            print(f"\rtraining: step {segment.step:,} of {segment.steps:,} ", end="", file=sys.stderr, flush=True)

    def part(self, record: Mapping[str, Any]) -> None:
        """A part of a run is done."""
        if self.shown:
            config, count = record["config"], f"{record['done']} of {record['total']}"
            name = printable(f"{config['op']}/{config['model']}")
            print(f"\rdone: {count} parts, the last {name} ".ljust(60), end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave an empty line behind."""
        if self.shown:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)


# --- predict ----------------------------------------------------------------------------------------------------


def _predict(options: argparse.Namespace) -> int:
    layer, params, meta = load(options.model)
    who = printable(options.model, None)
    if not meta.keys() >= set(NOTES):
        raise FileError(f"{who}: its columns have no names; predict needs a model that nalu-np fit has written")
    try:
        features, terms, branch = _checked(layer, params, meta)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise FileError(f"{who}: its notes do not fit its network; write it again with nalu-np fit") from None
    if options.formula and terms is None:
        raise FileError(f"{who}: it holds no formula, because none held when it was fitted; leave --formula out")
    table: Table = read_table(options.table, only=features)
    x = table.columns(features)
    if options.formula:
        prediction = evaluate(terms, features, x)[:, 0]
    else:
        prediction = predict(layer, params, x)
        off = off_branch(gates(layer, params, x), branch)
        if off.any():
            _warn(f"the network's gate drifts in {off.sum():,} of {len(x):,} rows; do not trust it there")
    if not np.isfinite(prediction).all():
        _warn(f"{(~np.isfinite(prediction)).sum():,} rows have no finite prediction; their cells are empty")
    _write_csv(options.out, [*features, f"predicted {meta['target']}"], np.column_stack([x, prediction]))
    return 0


def _checked(layer: Layer, params: Params, meta: Mapping[str, Any]) -> tuple[list[str], Any, Host]:
    """Features, formula and branch as _meta notes them; ValueError or the like where they are something else."""
    match [meta[note] for note in NOTES]:
        case [str(), [*features], None | [_] as formula, [*branch]] if all(isinstance(f, str) for f in features):
            pass
        case _:
            raise ValueError("not the notes of fit")
    shapes = {name: tuple(value.shape) for name, value in params.items()}
    if layer.rank != 2 or layer.out_features != 1 or shapes != layer.shapes():
        raise ValueError("not a network of fit")
    if not len(features) == len(set(features)) == layer.in_features:
        raise ValueError("not a name for each input")
    terms = formula and tuple(_tuples(node, features) for node in formula)
    sides, found = np.array(branch, np.float64), gates(layer, params, np.ones((1, len(features))))
    if sides.shape != found.shape[1:] or not np.isin(sides, (0, 1)).all():
        raise ValueError("not a side for each gate")
    return features, terms, sides


def _lists(node: Any) -> Any:
    """A formula's tree as JSON keeps it."""
    return list(map(_lists, node)) if isinstance(node, tuple) else node


def _tuples(node: Any, names: Sequence[str]) -> Any:
    """A formula's tree as it was before JSON made lists of its tuples; ValueError where it is none."""
    match node:
        case str() if node in names:
            return node
        case ["abs", inner]:
            return "abs", _tuples(inner, names)
        case ["sum" | "product" as kind, [*pairs]]:
            return kind, tuple((_constant(k), _tuples(part, names)) for k, part in pairs)
    raise ValueError("not the tree of a formula")


def _constant(number: Any) -> float:
    if not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError("not a constant of a formula")
    return float(number)


def _warn(message: str) -> None:
    print(f"nalu-np: warning: {message}", file=sys.stderr)


def _write_csv(out: str | None, header: list[str], rows: Host) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for_eyes = out is None and sys.stdout.isatty()
    writer.writerow([printable(name, None) for name in header] if for_eyes else header)
    writer.writerows([repr(v) if math.isfinite(v) else "" for v in row] for row in rows.tolist())
    if out is None:
        sys.stdout.write(text.getvalue())
        return
    with new_file(out) as file:
        file.write(text.getvalue().encode("utf-8", "backslashreplace"))


# --- list, run and report ---------------------------------------------------------------------------------------


def _add_experiments(commands: Any) -> None:
    """The three commands of the published experiments."""
    names = commands.add_parser(
        "list", help="the published experiments", description="The published experiments, with sizes and times."
    )
    names.set_defaults(run=_list)

    go = commands.add_parser(
        "run",
        help="rerun a published experiment",
        description="Rerun a published experiment over many seeds, and write its records, tables, figures and a "
        "page into a folder.",
    )
    go.add_argument("name", metavar="NAME", help="as nalu-np list names it")
    scale = go.add_mutually_exclusive_group()
    for name, what in (("quick", "smaller: within two minutes"), ("full", "the published scale, or beyond")):
        scale.add_argument(f"--{name}", dest="scale", action="store_const", const=name, help=what)
    go.add_argument("--seeds", type=_whole(1, MOST_SEEDS), metavar="N", help="of each cell")
    go.add_argument("--workers", type=_whole(1, 1024), default=1, metavar="N", help="processes (default: 1)")
    go.add_argument("--dask", type=_path, metavar="ADDRESS", help="of a dask scheduler (extra: sweep)")
    go.add_argument("--out", type=_path, metavar="DIR", help="a new folder (default: runs/NAME)")
    go.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    go.set_defaults(run=_run, scale="default")

    again = commands.add_parser(
        "report",
        help="draw a run's figures and page again",
        description="Draw the figures and the page of a run again, from its records alone.",
    )
    again.add_argument("folder", type=_path, metavar="DIR", help="written by run")
    again.set_defaults(run=_report)


def _list(options: argparse.Namespace) -> int:
    lines = [["experiment", "", "size", *(scale if scale == "default" else f"--{scale}" for scale in SCALES)]]
    for experiment in EXPERIMENTS.values():
        configs = {scale: experiment.cells(scale, None) for scale in SCALES}
        times = [duration(sum(map(experiment.seconds, configs[scale]))) for scale in SCALES]
        cells, seeds, _ = size(configs["default"]).split(", ")
        extent = f"{cells.split()[0]} x {seeds.split()[0]}"
        lines.append([experiment.name, printable(experiment.title, 45), extent, *times])
    for name, title, *numbers in lines:
        print(f"{name:18}{title:46}{''.join(f'{number:>9}' for number in numbers)}")
    print("Sizes are cells x seeds of the default; times are estimates, of one core.")
    return 0


def _run(options: argparse.Namespace) -> int:
    experiment = find(options.name)
    if options.dask is not None and options.workers > 1:
        raise OptionError("run: --workers starts processes here, --dask uses those of a cluster; leave one out")
    default = f"runs/{experiment.name}{'' if options.scale == 'default' else f'-{options.scale}'}"
    folder = Path(options.out or default)
    try:
        run, counts = _executed(experiment, folder, options)
        _tell(run, write(run))
    except KeyboardInterrupt:
        who = printable(os.fsdecode(folder), None)
        return _stop(f"interrupted; what is finished is kept in {who}; add --resume to go on", 130)
    except SweepError as error:
        raise SweepError(f"{error}, with --resume") from None
    if counts["failed"]:
        _warn(f"{counts['failed']} of {counts['total']} parts failed, see the page; --resume tries them again")
        return 1
    return 0


def _executed(
    experiment: Experiment, folder: Path, options: argparse.Namespace
) -> tuple[runs.Run, dict[str, int]]:
    """The run, and what sweep counted."""
    bar = _Bar(quiet=False)
    try:
        with runs.opened(options.workers, options.dask) as executor:  # first: if it fails, no folder is taken
            run = runs.start(experiment, options.scale, options.seeds, folder, options.resume)
            about = duration(run.seconds(options.workers))
            print(f"{experiment.title}: {size(run.configs)}; about {about}, an estimate", flush=True)
            return run, runs.execute(run, executor, bar.part)
    finally:
        bar.clear()


def _report(options: argparse.Namespace) -> int:
    run = runs.read(Path(options.folder))
    _tell(run, write(run))
    return 0


def _tell(run: runs.Run, report: Report) -> None:
    print(as_rows(run, report.rows))
    if not report.figures:
        print(NO_FIGURES)
    print(f"written: {printable(os.fsdecode(run.folder / 'report.html'), None)}")


# --- check and info ---------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    failures = 0
    backend, layers = get_backend(), registered_layers()
    for layer in layers:
        try:
            print(f"ok    {check_layer(layer, examples=options.examples)}", flush=True)
        except GradientError as error:
            failures += 1
            print(f"FAIL  {error}", flush=True)
    print(f"{len(layers) - failures} of {len(layers)} layers pass on {backend}")
    return 1 if failures else 0


def _bench(options: argparse.Namespace) -> int:
    cases = list(CASES) if options.case is None else _split(options.case)
    libraries = [] if options.peers is None else _split(options.peers)
    with nullcontext() if options.json is None else new_file(options.json) as file:
        tell = partial(print, flush=True)
        report = bench(cases, libraries, rounds=options.rounds, backend=options.backend, tell=tell)
        if file is not None:
            file.write(json.dumps(report, indent=1).encode() + b"\n")
    return 0


def _info(options: argparse.Namespace) -> int:
    backend = get_backend()
    print(f"nalu_np  {__version__}")
    print(f"python   {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"numpy    {np.__version__}")
    print(f"backend  {backend} ({VARIABLE} is {os.environ.get(VARIABLE) or 'not set'})")
    if backend == "cupy":
        cupy = sys.modules["cupy"]
        device = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        print(f"cupy     {cupy.__version__}")
        print(f"device   {device['name'].decode()}")
    else:
        print(f"device   {platform.processor() or 'CPU'}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    blas = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "as many as it likes"
    print(f"threads  {cores} cores usable; for BLAS {blas}")
    return 0
