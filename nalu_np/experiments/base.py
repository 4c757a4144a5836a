"""What a published experiment is: cells to run, and what their records say, as rows, pictures and sections.

An experiment is one file with a function for each of these, put together in an `Experiment`. It is run as configs
of plain JSON, each some replicas of one cell; here are the pieces from which such files are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..statistics import Interval, bootstrap, success_rate
from ..train import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Host = NDArray[np.float64]
Config = dict[str, Any]
Record = dict[str, Any]

SCALES = ("quick", "default", "full")

#: Of Okabe and Ito, for the colour-blind; and a grey that is seen on white and on black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#808080"

#: Points of a curve that are kept.
POINTS = 100


@dataclass(frozen=True)
class Metric:
    """What a number of a row is, in words; `rate` if it is a share of seeds, shown in per cent."""

    text: str
    rate: bool = False


@dataclass(frozen=True)
class Row:
    """One claim: a number with its interval, beside the published one. Its fields are the columns of summary.csv.

    `row` is experiment/op/model/metric, with - where there is no op; `published` is as printed, or "".
    """

    row: str
    ours: float
    low: float
    high: float
    published: str
    verdict: str
    note: str


@dataclass(frozen=True)
class Picture:
    """A figure: what to draw, and what it says to those who do not see it.

    `name` is the stem of its files, `height` in inches, of a width of 7.2; `draw` fills an empty figure.
    """

    name: str
    title: str
    alt: str
    caption: str
    draw: Callable[[Figure], object]
    height: float = 3.6


@dataclass(frozen=True)
class Section:
    """Some text and a table, in the page's own order; all of it plain text."""

    title: str
    text: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Cell:
    """All seeds of one cell, put together from the records of its parts.

    `cell["error"]` is an array with an entry a seed, NaN for None; `shared` is what holds for all of them.
    """

    config: Config
    seeds: Mapping[str, list[Any]]
    shared: Mapping[str, Any]
    seconds: float

    @property
    def op(self) -> str:
        """The operation, - where there is none."""
        return str(self.config["op"])

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.config["model"])

    @property
    def name(self) -> str:
        """experiment/op/model, with which its rows begin."""
        return f"{self.config['experiment']}/{self.op}/{self.model}"

    @property
    def count(self) -> int:
        """How many seeds."""
        return int(self.config["count"])

    def __getitem__(self, key: str) -> Host:
        return np.asarray(self.seeds[key], dtype=np.float64)

    def median(self, key: str) -> int:
        """The seed in the middle by a number: the lower of two, those that are not finite last."""
        numbers = np.where(np.isfinite(self[key]), self[key], np.inf)
        order: list[int] = np.argsort(numbers, kind="stable").tolist()
        return order[(len(order) - 1) // 2]


@dataclass(frozen=True)
class Experiment:
    """A published experiment.

    Parameters
    ----------
    name
        By which it is run.
    title, claim, source
        What the page begins with: the claim as its authors make it, and where.
    protocol
        Sentences: data, model, training, what is measured.
    deviations
        Sentences under "always", "quick", "default" and "full": where a run of that scale is not the published
        one, and why.
    metrics
        What the numbers of rows are, by their names.
    cells
        ``cells(scale, seeds)`` returns the configs, plain JSON. Each has `experiment`, `op`, `model`, `seed`,
        `first` and `count` (which replicas), `steps`, and whatever `run` needs besides. `seeds` is None or how
        many to run of each cell.
    run
        ``run(config)`` trains, and returns `outcome(...)`. A function at the top of a module, for `sweep`.
    rows, pictures, sections
        What the cells of a run say. The first picture is the main one. Where a cell has per seed a `formula` or
        whether it `diverged`, the page lists these by itself.
    seconds
        ``seconds(config)``, about how long that takes on one core.
    key
        Rows on the first screen, without the experiment's name: op/model/metric.
    """

    name: str
    title: str
    claim: str
    source: str
    protocol: tuple[str, ...]
    deviations: Mapping[str, tuple[str, ...]]
    metrics: Mapping[str, Metric]
    cells: Callable[[str, int | None], list[Config]]
    run: Callable[[Config], Any]
    rows: Callable[[Sequence[Cell]], list[Row]]
    seconds: Callable[[Config], float]
    pictures: Callable[[Sequence[Cell]], list[Picture]]
    sections: Callable[[Sequence[Cell]], list[Section]]
    key: tuple[str, ...]


# --- configs and results ----------------------------------------------------------------------------------------


def parts(cells: Iterable[Config], seeds: int, most: int = 50) -> list[Config]:
    """The configs of cells: each the seeds of a cell, at most so many, whatever the number of workers.

    Examples
    --------
    >>> from nalu_np.experiments.base import parts
    >>> [(config["first"], config["count"]) for config in parts([{"op": "add"}], seeds=70)]
    [(0, 50), (50, 20)]
    """
    return [
        {**cell, "seed": 0, "first": first, "count": min(most, seeds - first)}
        for cell in cells
        for first in range(0, seeds, most)
    ]


def replicas(config: Config) -> list[int]:
    """Which replicas a config trains."""
    return list(range(config["first"], config["first"] + config["count"]))


def every(config: Config) -> int:
    """Steps a segment, so that a curve has about as many points as are kept."""
    return max(1, int(config["steps"]) // POINTS)


def outcome(result: Result, shared: Mapping[str, Any] | None = None, /, **seeds: Any) -> dict[str, Any]:
    """What `run` returns: `seeds`, an entry a replica each, and `shared`, what holds for all.

    The loss curve and which seeds diverged are put in, unless `loss` and `diverged` are given. Of seeds that
    diverged all other arrays of floats are NaN: what their frozen parameters give is no result.
    """
    own = {"loss": rounded(result.history["loss"].T, 4), "diverged": result.diverged, **seeds}
    failed = np.asarray(own["diverged"], np.bool_)
    kept = {name: value if name == "loss" else _without(value, failed) for name, value in own.items()}
    return {"seeds": {name: rounded(value) for name, value in kept.items()}, "shared": dict(shared or {})}


def _without(values: Any, failed: NDArray[np.bool_]) -> Any:
    """Floats, an entry a seed, with NaN where the seed failed; all else as it is."""
    found = np.asarray(values)
    if found.dtype.kind != "f" or not failed.any():
        return values
    return np.where(failed.reshape(-1, *[1] * (found.ndim - 1)), found.dtype.type(np.nan), found)


def rounded(values: Any, digits: int = 9) -> Any:
    """Numbers of lists and arrays to so many digits that count: nine say all of a float32, in half the length."""
    if isinstance(values, np.ndarray | np.generic):
        values = values.tolist()
    if isinstance(values, list | tuple):
        return [rounded(value, digits) for value in values]
    return float(f"{values:.{digits}g}") if isinstance(values, float) else values


def gather(cells: Sequence[Config], records: Iterable[Record]) -> list[Cell]:
    """The cells, in the order of their configs, of what records there are; ValueError and the like if they are
    not such records.
    """
    done = {_key(record["config"]): record for record in records if record["status"] == "done"}
    found: dict[str, list[Record]] = {}
    for config in cells:
        if (record := done.get(_key(config))) is not None:
            whole = {name: value for name, value in config.items() if name not in ("first", "count")}
            found.setdefault(_key(whole), []).append(record)
    return [_cell(group) for group in found.values()]


def _key(config: Config) -> str:
    return repr(sorted(config.items()))


def _cell(group: Sequence[Record]) -> Cell:
    """One cell from its records, which are in the order of their seeds."""
    seeds: dict[str, list[Any]] = {}
    for record in group:
        result, count = record["result"], record["config"]["count"]
        for name, values in result["seeds"].items():
            if len(values) != count:
                raise ValueError(f"{name!r} has {len(values)} entries for {count} seeds")
            seeds.setdefault(name, []).extend(values)
    count = sum(record["config"]["count"] for record in group)
    config = {**group[0]["config"], "count": count}
    return Cell(config, seeds, group[0]["result"]["shared"], sum(record["seconds"] for record in group))


def middle(values: ArrayLike) -> Any:
    """Median over the first axis, the seeds; those that are not finite count as infinite, as they do in rows.

    Examples
    --------
    >>> from nalu_np.experiments.base import middle
    >>> float(middle([1.0, 2.0, float("nan")])), float(middle([1.0, float("nan")]))
    (2.0, inf)
    """
    found = np.asarray(values, dtype=np.float64)
    return np.median(np.where(np.isfinite(found), found, math.inf), axis=0)


# --- rows -------------------------------------------------------------------------------------------------------


def rate(row: str, successes: ArrayLike, published: str = "", note: str = "", *, incomparable: str = "") -> Row:
    """A share of seeds with Wilson's interval; a seed that is NaN has failed."""
    return _row(row, success_rate(successes), published, note, incomparable)


def error(
    row: str,
    values: ArrayLike,
    published: str = "",
    note: str = "",
    *,
    statistic: Callable[..., Host] = np.median,
    incomparable: str = "",
) -> Row:
    """A statistic of errors over seeds with its bootstrap interval; those not finite count as infinite, and the
    note says how many.
    """
    with np.errstate(invalid="ignore"):  # a quantile between two infinities
        interval = bootstrap(values, statistic)
    return _row(row, interval, published, _counted(note, values), incomparable)


def among(row: str, values: ArrayLike, published: str = "", note: str = "") -> Row:
    """The error of one seed: the median, and for its interval the range in which 95 % of seeds lie.

    What a single published run has to be compared with; the interval of a median is narrower. Seeds that are not
    finite count as infinite, and the note says how many.
    """
    found = np.asarray(values, dtype=np.float64)
    found = np.where(np.isfinite(found), found, math.inf)
    low, middle, high = np.quantile(found, [0.025, 0.5, 0.975], method="inverted_cdf").tolist()
    return _row(row, Interval(middle, low, high, len(found)), published, _counted(note, values), "")


def _counted(note: str, values: ArrayLike) -> str:
    """The note, and how many seeds are not finite."""
    finite = np.isfinite(np.asarray(values, dtype=np.float64))
    failed = f"{int((~finite).sum())} of {finite.size} seeds not finite, counted as infinite"
    return note if finite.all() else "; ".join(filter(None, [note, failed]))


def _row(row: str, interval: Interval, published: str, note: str, incomparable: str) -> Row:
    mean, low, high = (rounded(value, 6) for value in (interval.mean, interval.low, interval.high))
    if incomparable:
        decided, note = "not comparable", "; ".join(filter(None, [incomparable, note]))
    else:
        decided = verdict(low, high, published)
    return Row(row, mean, low, high, published, decided, note)


def verdict(low: float, high: float, published: str) -> str:
    """Whether a published number can lie in our interval, given to how many digits it was printed.

    Examples
    --------
    >>> from nalu_np.experiments.base import verdict
    >>> verdict(0.02, 0.04, "0.0"), verdict(0.06, 0.07, "0.0"), verdict(1e-6, 0.01, "<.0001"), verdict(0, 1, "")
    ('inside', 'outside', 'inside', 'none published')
    """
    if not published:
        return "none published"
    at_least, at_most = _printed(published)
    return "inside" if at_least <= high and at_most >= low else "outside"


def _printed(text: str) -> tuple[float, float]:
    """Between which numbers lies what is printed so: "<.0001", ">999.9", or "12.30", to half of its last digit."""
    value = float(text.lstrip("<>"))
    if text[0] in "<>":
        return (-math.inf, value) if text[0] == "<" else (value, math.inf)
    mantissa, _, exponent = text.partition("e")
    half = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return value - half, value + half
