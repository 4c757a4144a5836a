"""What figures share: panels under one another, which a telephone can show, and diagrams of blocks."""

from __future__ import annotations

from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator

#: Inches. Shown 340 pixels wide, letters are still 12 pixels high.
WIDTH = 4.9


def panels(number: int = 1, height: float = 3.1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels under one another, each so many inches high."""
    figure = Figure(figsize=(WIDTH, height * number), layout="constrained")
    return figure, list(figure.subplots(number, 1, squeeze=False, **options)[:, 0])


def below(figure: Figure, axes: Axes) -> None:
    """The legend of a panel under the whole figure, in two columns."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, columnspacing=1, fontsize=11)


def powers(axes: Axes, **which: int) -> None:
    """Logarithmic axes with a tick every so many decades, as in `powers(axes, x=2, y=1)`."""
    for name, decades in which.items():
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(LogLocator(base=10.0**decades, numticks=20))
        axis.minorticks_off()


def ink() -> str:
    """The colour of letters and axes."""
    return str(rcParams["text.color"])


def tint(color: str, alpha: float) -> tuple[float, float, float, float]:
    """A colour through which the page shows, so that it suits a light and a dark one."""
    return to_rgba(color, alpha)


class Diagram:
    """Boxes and arrows, a unit of length being a tenth of the figure's width; y grows downwards."""

    def __init__(self, axes: Axes, width: float = 10.0, height: float = 10.0) -> None:
        self.axes, self.boxes = axes, dict[str, Any]()
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        axes.set_axis_off()

    def value(self, name: str, x: float, y: float, text: str = "", width: float = 0.9) -> None:
        """An array that flows: letters without a frame."""
        self._box(name, x, y, text or f"${name}$", width, 0.8, edgecolor="none", facecolor="none")

    def operation(self, name: str, x: float, y: float, text: str, width: float = 1.8) -> None:
        """What computes: a filled frame."""
        self._box(name, x, y, text, width, 1.0, edgecolor="none", facecolor=tint("C0", 0.24))

    def parameter(self, name: str, x: float, y: float, text: str = "", width: float = 1.1) -> None:
        """What is learned: a broken frame."""
        style = {"edgecolor": "C1", "facecolor": tint("C1", 0.1), "linestyle": (0, (3, 1.5)), "linewidth": 1.6}
        self._box(name, x, y, text or f"${name}$", width, 1.0, **style)

    def _box(self, name: str, x: float, y: float, text: str, width: float, height: float, **style: Any) -> None:
        shape = "round,pad=0,rounding_size=0.25"
        box = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=shape, **style)
        self.axes.add_patch(box)
        self.axes.text(x, y, text, ha="center", va="center")
        self.boxes[name] = (box, (x, y), (width, height))

    def arrow(self, start: str, end: str, text: str = "", bend: float = 0.0, **style: Any) -> None:
        """An arrow from box to box, with letters beside its middle."""
        (box, from_, _), (other, to, _) = self.boxes[start], self.boxes[end]
        props = {"arrowstyle": "-|>", "color": ink(), "linewidth": 1.5, "mutation_scale": 13}
        props |= {"patchA": box, "patchB": other, "shrinkA": 1, "shrinkB": 1} | style
        props |= {"connectionstyle": f"arc3,rad={bend}"}
        self.axes.annotate("", to, from_, arrowprops=props)
        if text:
            upright = abs(to[0] - from_[0]) < 0.5
            place = {"ha": "left", "va": "center"} if upright else {"ha": "center", "va": "bottom"}
            middle = (from_[0] + to[0]) / 2 + 0.15 * upright, (from_[1] + to[1]) / 2 - 0.1 * (not upright)
            self.axes.text(*middle, text, **place)
