"""What experiments compare with, or build on."""

from .dense import Dense
from .recurrent import Accumulator

__all__ = ["Accumulator", "Dense"]
