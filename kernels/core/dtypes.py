"""The dtypes that kernels calculate with."""

from __future__ import annotations

from typing import Any

import numpy

_HALF, _SINGLE = numpy.dtype("float16"), numpy.dtype("float32")


def acc_dtype(dtype: Any) -> numpy.dtype:
    """Return the dtype in which numbers of ``dtype`` are summed: float32 for float16, otherwise their own."""
    dtype = numpy.dtype(dtype)
    return _SINGLE if dtype == _HALF else dtype
