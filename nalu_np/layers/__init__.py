"""What experiments compare with, or build on."""

from .cells import GRU, LSTM, RNN
from .dense import Dense
from .recurrent import Accumulator, Last, Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Accumulator", "Dense", "Last", "Recurrent"]
