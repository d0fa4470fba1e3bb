"""The book's ``common.layers``: see ``layers.compat.book.layers``."""

from layers.compat.book.layers import *  # noqa: F403
from layers.compat.book.layers import __all__ as __all__
