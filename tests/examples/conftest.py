"""The examples are not part of the installed package: they lie beside the tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last: what is installed goes first
