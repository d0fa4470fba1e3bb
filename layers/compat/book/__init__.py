"""The functions, gradients and layers of the book *Deep Learning from Scratch*, with its defaults and formulas.

Everything that the book's ``common.functions``, ``common.gradient`` and ``common.layers`` export, with im2col and
col2im of ``common.util``. Programs of the book import them from ``training.compat.book``, where the rest is too:
optimizers, networks, the Trainer, data. Asked for by name (``from layers.compat.book import Adam``) it comes from
there.

What differs from the book, on purpose: a floating dtype is kept (the book's im2col makes everything float64),
``backward`` leaves its argument alone, pooling honours its padding, and labels of shape (N, 1) are one label a sample.
"""

import importlib
from typing import Any

from layers.compat.book import np
from layers.compat.book.gradient import numerical_gradient, numerical_gradient_2d
from layers.compat.book.layers import *  # noqa: F403  (with the functions, as in the book)
from layers.compat.book.layers import __all__ as _layers

__all__ = [*_layers, "np", "numerical_gradient", "numerical_gradient_2d"]


def __getattr__(name: str) -> Any:
    # By name and when asked: layers import nothing of training, and to import them stays cheap.
    if not name.startswith("_"):
        above = importlib.import_module("training.compat.book")
        if hasattr(above, name):
            return getattr(above, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
