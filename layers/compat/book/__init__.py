"""The functions, gradients and layers of the book *Deep Learning from Scratch*, with its defaults and formulas.

These are all names of the book's ``common.functions``, ``common.gradient`` and ``common.layers``, with im2col and
col2im of ``common.util``. ``training.compat.book`` has them, too, and the rest of the book's modules: optimizers,
networks, the Trainer, data.

Differences from the book, on purpose: a floating dtype is kept (the book's im2col makes everything float64),
``backward`` does not change its argument, pooling honors its padding, and labels of shape (N, 1) are one label for each
sample.
"""

from layers.compat.book import np
from layers.compat.book.gradient import numerical_gradient, numerical_gradient_2d
from layers.compat.book.layers import *  # noqa: F403  (with the functions, as in the book)
from layers.compat.book.layers import __all__ as _layers

__all__ = [*_layers, "np", "numerical_gradient", "numerical_gradient_2d"]
