"""The arithmetic units, one file each."""

from .nac import NAC, LogNAC
from .nalu import NALU

__all__ = ["NAC", "NALU", "LogNAC"]
