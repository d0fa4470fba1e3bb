"""Record the products that the project's own code asks cuBLAS for, apart from the kernels that these launch.

A real cuBLAS launches one kernel or several for a product: only the calls are the same on every device.
"""

import contextlib
from typing import Any

from backend import blas

PRODUCTS = ("cublasGemmEx", "cublasGemmStridedBatchedEx")


class ProductCalls:
    """Stands for the library cuBLAS: keeps the products that it is asked for, and calls on.

    Args:
        launches: function that returns the launches so far, or None.

    Attributes:
        calls: name and arguments of each product.
        launched: launches that happened within these.
    """

    def __init__(self, library, launches=None):
        self._library, self._launches = library, launches or (lambda: 0)
        self.calls = []
        self.launched = 0

    def __getattr__(self, name):
        function = getattr(self._library, name)
        if name not in PRODUCTS:
            return function

        def call(*arguments):
            self.calls.append((name, arguments))
            before = self._launches()
            status = function(*arguments)
            self.launched += self._launches() - before
            return status

        return call

    def count(self):
        """Return how many products there were so far."""
        return len(self.calls)


class Refusing:
    """Stands for the library cuBLAS: a function returns the given statuses first, one a call, and works afterwards."""

    def __init__(self, library, **statuses):
        self._library, self._statuses = library, statuses
        self.called = []

    def __getattr__(self, name):
        def call(*arguments):
            self.called.append(name)
            left = self._statuses.get(name)
            return left.pop(0) if left else getattr(self._library, name)(*arguments)

        return call


@contextlib.contextmanager
def recorded(launches=None):
    """Record all products in the block; in all streams, those of handles that it makes, too."""
    cublas: Any = blas._cublas()
    library = cublas.library
    calls = cublas.library = ProductCalls(library, launches)
    for context in cublas.contexts.values():
        context._library = calls
    try:
        yield calls
    finally:
        cublas.library = library
        for context in cublas.contexts.values():
            context._library = library
