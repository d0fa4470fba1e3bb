"""The book's ``common.functions``: see ``layers.compat.book.functions``."""

from layers.compat.book.functions import *  # noqa: F403
from layers.compat.book.functions import __all__ as __all__
