"""The figures of the documentation, drawn from the library whenever the site is built.

Every public function of a module here whose name has no leading underscore returns a figure, and is called under
a light and under a dark style: `vanishing()` becomes vanishing.svg and vanishing-dark.svg. Colours are "C0" to
"C3" or those of matplotlib's parameters, so that one function serves both. Lines that carry a claim have a gid,
by which the tests find them.

    python docs/figures FOLDER
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

from nalu_np.plots import CHOSEN, INSIDE, KINDS, OUTPUTS, OUTSIDE

LINES = ("-", (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)))

#: Of Okabe and Ito, four that stand out from white, and four from black; then what lines and letters are drawn in.
LIGHT = ((INSIDE, OUTSIDE, OUTPUTS[1][0], OUTPUTS[2][0]), "#1A1A1A")
DARK = (("#56B4E9", CHOSEN, "#00B386", OUTPUTS[2][0]), "#D8D8D8")

STYLE: dict[str, Any] = {
    "svg.hashsalt": "nalu_np",
    "svg.fonttype": "path",
    "savefig.transparent": True,
    "axes.facecolor": "none",
    "font.size": 12.5,
    "axes.titlesize": 12.5,
    "axes.labelsize": 12.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "axes.formatter.limits": (-4, 5),
    "lines.linewidth": 2.4,
    "lines.markersize": 7,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "legend.handlelength": 2.4,
}


@contextmanager
def style(dark: bool) -> Iterator[None]:
    """Matplotlib as it comes but for this style, until the context ends."""
    colors, ink = DARK if dark else LIGHT
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    cycle = {"axes.prop_cycle": cycler(color=colors) + cycler(linestyle=LINES)}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE | dict.fromkeys(inks, ink) | cycle)
        yield


def functions() -> dict[str, Callable[[], Figure]]:
    """The functions that draw, by name; two of the same name are refused."""
    found: dict[str, Callable[[], Figure]] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            members = vars(importlib.import_module(f"{__name__}.{module.name}"))
            for name, member in members.items():
                ours = inspect.isfunction(member) and member.__module__ == members["__name__"]
                if ours and not name.startswith("_"):
                    if name in found:
                        raise ValueError(f"two figures have the name {name}; rename one of them")
                    found[name] = member
    return found


def draw(folder: str | Path) -> None:
    """Draw all figures, light and dark, into a folder; equal versions of what draws give equal bytes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for ending, dark in (("", False), ("-dark", True)):
        with style(dark):
            for name, function in functions().items():
                function().savefig(folder / f"{name}{ending}.svg", metadata=KINDS[".svg"])
