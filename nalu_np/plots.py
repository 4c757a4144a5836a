"""The picture of a fit: predictions against the truth, and beside them the weights of all seeds.

It needs matplotlib, the extra `plot`, which nothing else here does: it is imported where it is used.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .backend import from_numpy, to_numpy
from .errors import FileError, printable
from .learn import Learned
from .readout import Host
from .store import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Kinds of files, and what would make their bytes change from day to day.
KINDS: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

#: Columns whose weights are shown; of more, those with the largest.
MOST_COLUMNS = 12

#: Decades from which a target of one sign is drawn on a logarithmic scale.
DECADES = 2.0

#: How far a view reaches beyond what matters, in parts of its range, where predictions or weights go there.
REACH, WEIGHTS_REACH = 0.5, 1.5

#: What the symbols of weights stand for.
PATHS = {"W": "", "W_a": "sum", "W_m": "product"}

#: Points from which a picture of lines holds them as one image.
MANY = 2000

#: From here on a linear axis has this as its unit; what is narrower than the other has no width for matplotlib.
HUGE, TINY = 1e200, 1e-250

# Of Okabe and Ito, for the colour-blind.
INSIDE, OUTSIDE, CHOSEN = "#0072B2", "#D55E00", "#E69F00"
OUTPUTS = (("#0072B2", "o"), ("#009E73", "s"), ("#CC79A7", "^"))
GREY = "#6E6E6E"


def check_drawable(path: str) -> None:
    """Raise FileError unless a picture could be drawn there now; nothing is left behind.

    Parameters
    ----------
    path : str
        A new file, its name ending in .png, .svg or .pdf.

    Raises
    ------
    FileError
        If matplotlib is not there, the name ends in something else, something has the name already, or the
        folder is missing or read-only.

    Examples
    --------
    >>> from nalu_np.plots import check_drawable
    >>> check_drawable("fit.jpg")
    Traceback (most recent call last):
    nalu_np.errors.FileError: fit.jpg: a picture's name must end in .png, .svg or .pdf; choose another name
    """
    who = printable(path, None)
    if _kind(path) not in KINDS:
        raise FileError(f"{who}: a picture's name must end in .png, .svg or .pdf; choose another name")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        problem = f"matplotlib is needed to draw, and cannot be imported ({error})"
        raise FileError(f"{who}: {problem}; python -m pip install '.[plot]' in the project's folder") from None
    with new_file(path):
        pass
    os.unlink(path)


def draw_fit(learned: Learned, title: str, test_title: str, path: str) -> None:
    """Draw a fit to a new file: equal input gives equal bytes.

    Parameters
    ----------
    learned : Learned
        What `learn` has returned.
    title, test_title : str
        What to call the table, and the test; the latter "" where there is none.
    path : str
        As for `check_drawable`.

    Raises
    ------
    FileError
        As from `check_drawable`, or if the disk is full; then no file is left.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from nalu_np.learn import Plan, learn
    >>> from nalu_np.plots import draw_fit
    >>> from nalu_np.tasks.tables import Table
    >>> x = np.random.default_rng(0).uniform(1, 2, (100, 2))
    >>> values = np.column_stack([x, x[:, 0] * x[:, 1]])
    >>> table = Table("made.csv", ("a", "b", "y"), values, (), tuple(range(100)), ("",) * 100)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "fit.svg")
    ...     draw_fit(learn(table, "y", plan=Plan(seeds=4)), "made.csv", "", str(path))
    ...     path.read_text(encoding="utf-8")[:5]
    '<?xml'
    """
    check_drawable(path)
    content = io.BytesIO()
    with _plain_style():
        figure(learned, title, test_title).savefig(content, format=_kind(path)[1:], metadata=KINDS[_kind(path)])
    with new_file(path) as file:
        file.write(content.getvalue())


def figure(learned: Learned, title: str, test_title: str) -> Figure:
    """The picture that `draw_fit` writes, as a figure of matplotlib.

    Parameters
    ----------
    learned, title, test_title
        As for `draw_fit`.

    Returns
    -------
    Figure
        Of no window and unknown to pyplot. The artists of each set of points have its name as their `gid`.
    """
    from matplotlib.figure import Figure
    from matplotlib.textpath import TextPath

    with _plain_style():
        drawn = Figure(figsize=(10, 4.5), dpi=150, layout="constrained")
        left, right = drawn.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_predictions(left, learned)
        _draw_weights(right, learned)
        for axes, corner, columns in ((left, "left", 3), (right, "right", 2)):
            axes.spines[["top", "right"]].set_visible(False)
            options: dict[str, Any] = {"loc": f"outside lower {corner}", "ncols": columns}
            drawn.legend(*axes.get_legend_handles_labels(), **options, frameon=False, fontsize=8.5)
        text = _title(learned, title, test_title)
        # Measured without dollars, which would be taken for mathematics.
        lines = [TextPath((0, 0), line.replace("$", "S"), size=11) for line in text.split("\n") if line]
        inches = max(float(line.get_extents().width) for line in lines) / 72
        drawn.suptitle(text, fontsize=11 * min(1.0, 9.7 / inches), parse_math=False)
    return drawn


def _kind(path: str) -> str:
    return Path(path).suffix.lower()


@contextmanager
def _plain_style() -> Iterator[None]:
    """Matplotlib as it comes, whatever its user has set, until this ends."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.hashsalt": "nalu_np", "axes.titlesize": 10, "axes.labelsize": 9.5})
        mpl.rcParams.update({"xtick.labelsize": 8.5, "ytick.labelsize": 8.5})
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a column may have any name
        yield


def _title(learned: Learned, title: str, test_title: str) -> str:
    tested = f"; test: {printable(test_title, 60)}" if test_title else ""
    law = "no formula holds"
    if learned.formula is not None:
        kind = "exact" if learned.exact else "about"
        law = printable(f"{kind}: {printable(learned.target)} = {learned.formula}", 110)
    return f"{printable(title, 60)}{tested}\n{law}"


# --- left: predictions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """Where values lie on an axis: linear in a unit, or logarithmic for values of one sign (1 or -1, not 0).

    Logarithms are taken here, not by matplotlib, whose ticks overflow where values of float64 do not.
    """

    sign: int
    unit: float

    @classmethod
    def of(cls, y: Host) -> _Scale:
        """Logarithmic where values of one sign span many decades."""
        smallest, largest = float(np.abs(y).min()), float(np.abs(y).max())
        sign = int(np.sign(y[0]))
        if sign and (np.sign(y) == sign).all() and math.log10(largest) - math.log10(smallest) >= DECADES:
            return cls(sign, 1.0)
        return cls(0, HUGE if largest > HUGE else 1.0)  # so that differences do not overflow

    def places(self, v: Host) -> Host:
        """Values become places; those of the wrong sign lie infinitely far beyond 0."""
        if not self.sign:
            return v / self.unit
        with np.errstate(divide="ignore"):
            return np.asarray(self.sign * np.log10(np.maximum(self.sign * v, 0.0)))

    def draw_ticks(self, axes: Axes) -> None:
        """Powers of ten, where the scale is logarithmic."""
        from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

        for axis in (axes.xaxis, axes.yaxis) if self.sign else ():
            low, high = sorted(axis.get_view_interval())
            axis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))
            axis.set_major_formatter(FuncFormatter(self._power))
            if high - low < 10:
                powers = np.arange(math.floor(low) - 1, math.ceil(high) + 1)
                between = powers[:, None] + self.sign * np.log10(np.arange(2, 10))
                axis.set_minor_locator(FixedLocator(between[(between >= low) & (between <= high)]))

    def _power(self, place: float, position: int | None) -> str:
        return f"${'-' if self.sign < 0 else ''}10^{{{round(self.sign * place)}}}$"


def _view(core: Host, shown: Host, reach: float) -> tuple[float, float]:
    """The limits of a view of all of `core`, and of as much of `shown` as does not squash it."""
    low, high = float(core.min()), float(core.max())
    room = max((high - low) * reach or 0.1 * (abs(low) or 1.0), TINY)
    low = min(low, max(float(shown.min(initial=low)), low - room))
    high = max(high, min(float(shown.max(initial=high)), high + room))
    margin = 0.06 * max(high - low, room * REACH / reach)
    return low - margin, high + margin


def _draw_predictions(axes: Axes, learned: Learned) -> None:
    parts = [learned.trained] if learned.left_one_out else [learned.trained, learned.held_out]
    known = np.concatenate([part.y for part in parts])  # left out one at a time, these are the same rows
    parts += [] if learned.test is None else [learned.test]
    y, network, formula = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "network", "formula")
    )
    outside = np.concatenate([learned.outside(part) for part in parts])
    scale = _Scale.of(y)
    y, known = scale.places(y), scale.places(known)
    predictions = {"network": network} | ({} if learned.formula is None else {"formula": formula})
    everything = np.concatenate([scale.places(p[np.isfinite(p)]) for p in predictions.values()])
    ends, view = _view(y, y, REACH), _view(y, everything, REACH)
    axes.set(xlim=ends, ylim=view)
    scale.draw_ticks(axes)
    axes.axvspan(known.min(), known.max(), color="#EBEBEB", linewidth=0, zorder=0, label="targets learned from")
    axes.plot(ends, ends, color=GREY, linewidth=1, zorder=1, label="predicted = true")

    size = 6.5 if len(y) <= 60 else 5 if len(y) <= 400 else 3.5
    missing = beyond = 0
    for name, prediction in predictions.items():
        finite = np.isfinite(prediction)
        missing += int((~finite).sum())
        for where, rows, color, marker in (
            ("inside", ~outside & finite, INSIDE, "o"),
            ("outside", outside & finite, OUTSIDE, "s"),
        ):
            if rows.any():
                style = _style(name, color, size, len(y))
                label = f"{name}, {where} the range"
                at = scale.places(prediction[rows])
                beyond += _points(axes, f"{name}-{where}", y[rows], at, view, marker, label, style)
    unit = f" / {scale.unit:g}" if scale.unit != 1 else ""
    target = printable(learned.target) + unit
    axes.set_xlabel("\n".join([f"true {target}", *_notes(missing, beyond, "predictions")]), parse_math=False)
    axes.set_ylabel("predicted" + unit)
    axes.set_title("Predictions", loc="left")


def _style(name: str, color: str, size: float, points: int) -> dict[str, Any]:
    """Filled points for the network, rings around them for the formula."""
    faint = 0.45 if points > 400 else 0.75
    common = {"linestyle": "none", "rasterized": points > MANY}
    if name == "network":
        return {**common, "color": color, "markersize": size, "alpha": faint, "markeredgewidth": 0, "zorder": 2}
    edge = {"markerfacecolor": "none", "markeredgewidth": 1.2 if points <= 60 else 0.7}
    return {**common, **edge, "color": color, "markersize": size + 3.5, "zorder": 3}


def _points(
    axes: Axes,
    gid: str,
    x: Host,
    y: Host,
    view: tuple[float, float],
    marker: str,
    label: str,
    style: Mapping[str, Any],
) -> int:
    """Draw points, those beyond the view as triangles at its edge; returns how many those are."""
    from matplotlib.markers import CARETDOWN, CARETUP

    low, high = y < view[0], y > view[1]
    axes.plot(x, np.where(low | high, np.nan, y), marker=marker, label=label, gid=gid, **style)
    for caret, edge, far in ((CARETDOWN, view[0], low), (CARETUP, view[1], high)):
        if far.any():  # their tips are at the edge
            more = {**style, "markersize": 7, "zorder": 4}
            axes.plot(x[far], np.full(far.sum(), edge), marker=caret, gid=f"{gid}-beyond", **more)
    return int((low | high).sum())


# --- right: weights ---------------------------------------------------------------------------------------------


def _draw_weights(axes: Axes, learned: Learned) -> None:
    seeds = _weights(learned, learned.chosen.seeds)
    chosen = _weights(learned, {name: value[None, ...] for name, value in learned.params.items()})
    columns = _shown_columns(chosen)
    seeds, chosen = ({name: W[:, columns] for name, W in each.items()} for each in (seeds, chosen))
    every, core = (np.concatenate([W.ravel() for W in each.values()]) for each in (seeds, chosen))
    core = np.concatenate([core[np.isfinite(core)], [0.0, 1.0]])
    low, high = _view(core, every[np.isfinite(every)], WEIGHTS_REACH)
    view = min(low, -0.25), max(high, 1.25)
    axes.set(xlim=(-0.6, len(columns) - 0.4), ylim=view)
    _draw_stable(axes, view)

    count, width, beyond = len(next(iter(seeds.values()))), 0.8 / len(seeds), 0
    many = count * len(columns) * len(seeds)
    jitter = (0.5 + np.arange(count)) * (math.sqrt(5) - 1) / 2 % 1 - 0.5 if count > 1 else np.zeros(1)
    for i, (name, W) in enumerate(seeds.items()):
        color, marker = OUTPUTS[i % len(OUTPUTS)]
        places = np.arange(len(columns)) + (i - (len(seeds) - 1) / 2) * width
        at, finite = places + 0.8 * width * jitter[:, None], np.isfinite(W)
        style: dict[str, Any] = {
            "linestyle": "none",
            "color": color,
            "markersize": 5 if many <= 200 else 3.5,
            "alpha": 0.5,
        }
        style |= {"markeredgewidth": 0, "rasterized": many > MANY, "zorder": 2}
        label = f"each seed, {name}" if name else "each seed"
        beyond += _points(axes, f"seeds-{i}", at[finite], W[finite], view, marker, label, style)
        style = {"linestyle": "none", "color": CHOSEN, "markersize": 7, "markeredgecolor": "black", "zorder": 3}
        axes.plot(
            places,
            chosen[name][0],
            marker="D",
            label=None if i else "the chosen network",
            gid=f"chosen-{i}",
            **style,
        )

    missing = int((~np.isfinite(every)).sum())
    names = _label_columns(axes, learned, columns)
    axes.set_xlabel("\n".join([*names, *_notes(missing, beyond, "weights")]))
    products = learned.chosen.unit in ("product", "lognac")
    both = learned.chosen.unit == "nalu"
    axes.set_ylabel("exponent" if products else "weight or exponent" if both else "weight")
    layers = learned.plan.layers
    where = f", first of {layers} layers" if layers > 1 else ""
    axes.set_title(
        f"{'Exponents' if products else 'Weights'} of {count:,} seed{'s' * (count > 1)}{where}", loc="left"
    )


def _draw_stable(axes: Axes, view: tuple[float, float]) -> None:
    """Lines where weights rest, and to which they are rounded."""
    if view[1] - view[0] > 12:  # too many to be seen
        return
    halves = np.arange(math.ceil(2 * view[0]), math.floor(2 * view[1]) + 1) / 2
    for i, half in enumerate(halves):
        line, label = "--" if half % 1 else "-", None if i else "multiples of 1/2"
        axes.axhline(half, color="#BBBBBB", linewidth=0.8, linestyle=line, zorder=0, label=label, gid="stable")
    axes.set_yticks(halves if len(halves) <= 9 else halves[halves % 1 == 0])


def _weights(learned: Learned, params: Mapping[str, Any]) -> dict[str, Host]:
    """The weights (S, I) of S replicas, for each path and each output; in a chain those of its first layer."""
    double = {name: from_numpy(to_numpy(value), "float64") for name, value in params.items()}
    with np.errstate(all="ignore"):
        values = learned.layer.values(double, from_numpy(learned.trained.x[:1], "float64"))
    found: dict[str, Host] = {}
    for key, value in values.items():
        layer, _, symbol = key.rpartition(".")
        if layer in ("", "0") and symbol in PATHS:
            W = to_numpy(value)
            for j in range(W.shape[-1]):
                output = f"output {j + 1}" if W.shape[-1] > 1 else ""
                found[", ".join(filter(None, [PATHS[symbol], output]))] = W[..., j]
    return found


def _shown_columns(chosen: Mapping[str, Host]) -> NDArray[np.intp]:
    """All columns, or of many those to which the chosen network gives the largest weights."""
    size = np.max([np.abs(np.nan_to_num(W[0])) for W in chosen.values()], axis=0)
    return np.sort(np.argsort(-size, kind="stable")[:MOST_COLUMNS])


def _label_columns(axes: Axes, learned: Learned, columns: NDArray[np.intp]) -> list[str]:
    """Put the columns' names under their weights; returns a note where not all are there."""
    names = [_short(printable(learned.features[i], None)) for i in columns]
    slanted = sum(map(len, names)) + 2 * len(names) > 50
    turn: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(names)), names, parse_math=False, **turn)
    rest = len(learned.features) - len(names)
    return [f"{len(names)} of {len(learned.features):,} columns, those with the largest weights"] if rest else []


def _short(name: str) -> str:
    """A name cut in its middle: columns often differ in their last letters."""
    return name if len(name) <= 17 else f"{name[:8]}…{name[-8:]}"


def _notes(missing: int, beyond: int, things: str) -> list[str]:
    """What the picture does not show as it is."""
    notes = [f"not finite, not drawn: {missing:,} {things}"] if missing else []
    return [*notes, f"triangles: {beyond:,} {things} beyond the view"] if beyond else notes
