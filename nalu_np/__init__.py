"""Neural arithmetic units from scratch on NumPy and CuPy, every gradient derived by hand."""

import typing as _typing

from .backend import get_backend, to_numpy, use_backend
from .checks import Report, check_layer, gradcheck
from .layer import Cell, Layer, chain, replica, scan
from .layers import GRU, LSTM, RNN, Accumulator, Dense, Last, Recurrent
from .optim import SGD, Adam, RMSprop
from .readout import Formula, formula
from .store import load, save
from .sweeps import read_results, sweep
from .train import Result, Segment, fit
from .units import NAC, NALU, LogNAC, ProductPath, SumPath

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "NAC",
    "NALU",
    "RNN",
    "SGD",
    "Accumulator",
    "Adam",
    "Cell",
    "Dense",
    "Formula",
    "Last",
    "Layer",
    "LogNAC",
    "ProductPath",
    "RMSprop",
    "Recurrent",
    "Report",
    "Result",
    "Segment",
    "SumPath",
    "chain",
    "check_layer",
    "fit",
    "formula",
    "get_backend",
    "gradcheck",
    "load",
    "read_results",
    "replica",
    "save",
    "scan",
    "sweep",
    "to_numpy",
    "use_backend",
]

if _typing.TYPE_CHECKING:  # pragma: no cover
    from .estimator import NALURegressor as NALURegressor
else:

    def __getattr__(name):
        """What needs more than NumPy is imported when it is asked for."""
        if name == "NALURegressor":
            from .estimator import NALURegressor

            return NALURegressor
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
