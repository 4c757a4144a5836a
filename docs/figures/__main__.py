"""Draw all figures into a folder:  python docs/figures FOLDER."""

import importlib
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

if len(sys.argv) != 2:
    sys.exit("usage: python docs/figures FOLDER")
importlib.import_module("figures").draw(sys.argv[1])
