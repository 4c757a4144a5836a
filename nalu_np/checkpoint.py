"""Checkpoints: the whole state of a run in a file, replaced at once by the next.

The archive is like that of a model (`store`). The header says which step was the last and describes the run, so
that no other run goes on from it; of arrays and long texts it has the SHA-256 alone. The arrays, for S replicas:

    theta, best_theta (S, P)        flat parameters, and those of each replica's best segment
    alive, best_loss (S)
    optimizer.0 ... (S, P)          the optimiser's state
    sums.loss ... (S)               of the last segment, which is closed when the run goes on
    history.loss ... (K, S)         of the segments before
    data (R, 4), noise (S, 4)       where the streams of random numbers are
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .backend import library, to_numpy
from .errors import CheckpointError, OptionError
from .layer import Layer
from .store import Arrays, Header, Kind, Path, explained, headed, packed, read, require, writable, write

CHECKPOINT = Kind(
    format="nalu_np checkpoint",
    version=1,
    name="checkpoint",
    writer="fit",
    error=CheckpointError,
    arrays="arrays",
    notes={"run": dict, "step": int},
    dtypes=("float32", "float64", "bool", "uint64"),
    uniform=False,
)

#: Characters of a description, beyond which it is a digest; and of two that an error shows.
LONGEST, SHOWN = 200, 60


def described(value: Any) -> str:
    """An argument of a run as a short text, equal for equal arguments in any process."""
    if isinstance(value, tuple):
        return ", ".join(map(described, value))
    if isinstance(value, Layer):
        text = json.dumps(value.config(), default=repr)
    elif value is None or isinstance(value, str | int | float | list | np.generic):
        text = str(value)
    elif library(value):
        array = to_numpy(value)
        text = f"{array.dtype} {array.shape} {_digest(array.tobytes())}"
    else:
        text = f"{type(value).__name__} {getattr(value, '__dict__', value)}"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)  # where an object lies says nothing of it
    return text if len(text) <= LONGEST else _digest(text.encode())


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Checkpoint:
    """The file of one run, which the arguments of `fit` describe."""

    def __init__(self, path: Path, **run: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            raise OptionError(f"fit: checkpoint must be a path, got {path!r:.80}")
        self.path, self.run = path, {name: described(value) for name, value in run.items()}

    def read(self, steps: int, fits: Callable[[int, Arrays], bool]) -> tuple[int, Arrays] | None:
        """The last step and the arrays, or None where there is no file.

        CheckpointError unless it is of this run, `fits` says so too, and it can be replaced if steps are left.
        """
        if not os.path.exists(self.path):
            step, saved = 0, None
        else:
            header, arrays = read(self.path, CHECKPOINT)
            step, saved = header["step"], (header["step"], arrays)
            with explained(self.path, CHECKPOINT, CHECKPOINT.foreign, ValueError):
                self._check(header)
                require(step >= 1 and fits(step, arrays), "its arrays are not those of such a run")
                if step > steps:
                    raise CheckpointError(f"it is at step {step}, beyond steps={steps}; ask for {step} or more")
        if step < steps:
            with writable(self.path, CHECKPOINT, self._check):
                pass
        return saved

    def write(self, step: int, arrays: Arrays) -> None:
        """Put this state in the place of the one before."""
        header = headed(CHECKPOINT, arrays, {"run": self.run, "step": step}, {})
        write(self.path, CHECKPOINT, packed(json.dumps(header, indent=1).encode(), arrays), self._check)

    def _check(self, header: Header) -> None:
        """Raise CheckpointError if a file is of another run, and say what differs."""
        before = {name: str(header["run"].get(name)) for name in self.run}
        others = [
            f"{name} was {before[name]}, is {now}" if len(before[name] + now) < SHOWN else f"{name} is another"
            for name, now in self.run.items()
            if before[name] != now
        ]
        if others:
            cure = "call fit as it was called then, or choose another path"
            raise CheckpointError(f"a checkpoint of another run: {', '.join(others[:4])}; {cure}")
