"""Give the type of an array a name."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy

# CuPy's arrays have the methods of NumPy's and no types of their own, so one name stands for both.
Array: TypeAlias = numpy.ndarray[Any, Any]
