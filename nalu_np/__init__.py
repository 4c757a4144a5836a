"""Neural arithmetic units from scratch on NumPy and CuPy, every gradient derived by hand."""

from .backend import get_backend, to_numpy, use_backend
from .checks import Report, check_layer, gradcheck
from .layer import Cell, Layer, chain, replica, scan
from .layers import Accumulator, Dense
from .optim import SGD, Adam
from .readout import Formula, formula
from .store import load, save
from .train import Result, Segment, fit
from .units import NAC, NALU, LogNAC

__version__ = "0.1.0"

__all__ = [
    "NAC",
    "NALU",
    "SGD",
    "Accumulator",
    "Adam",
    "Cell",
    "Dense",
    "Formula",
    "Layer",
    "LogNAC",
    "Report",
    "Result",
    "Segment",
    "chain",
    "check_layer",
    "fit",
    "formula",
    "get_backend",
    "gradcheck",
    "load",
    "replica",
    "save",
    "scan",
    "to_numpy",
    "use_backend",
]
