"""Choose how an operation is computed.

In each file of ``kernels`` an operation is ``op``, which checks its arguments and calls the implementation for its
arrays; below it stand ``_op_numpy``, the plain one that says what the operation means, and ``_op_cuda``, which launches
a kernel. An operation that both libraries compute by the same calls has no such pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy

from backend.types import Array

Function = TypeVar("Function", bound=Callable[..., Any])


def implementation(x: Array, on_numpy: Function, on_cuda: Function) -> Function:
    """Return the implementation for the library of ``x``, which the caller has checked."""
    return on_numpy if isinstance(x, (numpy.ndarray, numpy.generic)) else on_cuda
