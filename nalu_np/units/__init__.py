"""The arithmetic units, one file each."""

from .nac import NAC, LogNAC
from .nalu import NALU
from .paths import ProductPath, SumPath

__all__ = ["NAC", "NALU", "LogNAC", "ProductPath", "SumPath"]
