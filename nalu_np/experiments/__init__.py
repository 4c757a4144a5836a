"""The published experiments, one file each."""

from __future__ import annotations

import difflib

from ..errors import OptionError, printable
from . import article, gate, identity, keras, recurrent, static, tutorial
from .base import Experiment

FILES = (tutorial, article, keras, identity, static, recurrent, gate)

EXPERIMENTS: dict[str, Experiment] = {e.name: e for file in FILES for e in file.EXPERIMENTS}


def find(name: str) -> Experiment:
    """The experiment of that name, or an error with the names that are near.

    Examples
    --------
    >>> from nalu_np.experiments import find
    >>> find("identiti")
    Traceback (most recent call last):
    nalu_np.errors.OptionError: unknown experiment 'identiti'; did you mean identity?
    """
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    near = difflib.get_close_matches(name, EXPERIMENTS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(EXPERIMENTS)}"
    raise OptionError(f"unknown experiment '{printable(name)}'; {hint}")
