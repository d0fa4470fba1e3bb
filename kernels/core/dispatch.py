"""Choose how an operation is computed.

In most files of ``kernels`` an operation is ``op``, which checks its arguments and calls the implementation for its
arrays. Below it stand ``_op_numpy``, the plain one that says what the operation means, ``_op_native``, which calls a C
kernel, and ``_op_cuda``, which launches one. Where NumPy and CuPy compute by the same calls, one function takes the
place of the first and the last: ``_op``, or ``_with_library`` where a file has one operation. Some have no C kernel,
and some that both libraries compute by the same calls need no choice at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy

from backend.types import Array
from kernels.core import native

Function = TypeVar("Function", bound=Callable[..., Any])


def implementation(x: Array, on_numpy: Function, on_cuda: Function, on_native: Function | None = None) -> Function:
    """Return the implementation for the library of ``x``, which the caller has checked.

    On the CPU that is ``on_native``, where there is one, the C kernels were built and have the dtype of ``x``, else
    ``on_numpy``.
    """
    if not isinstance(x, (numpy.ndarray, numpy.generic)):
        return on_cuda
    return on_numpy if on_native is None or not native.computes(x.dtype) else on_native
