"""The book's ``common.gradient``: see ``layers.compat.book.gradient``."""

from layers.compat.book.gradient import *  # noqa: F403
from layers.compat.book.gradient import __all__ as __all__
