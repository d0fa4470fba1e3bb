"""Models, data, optimizers, the loop around them, and the ``xpnet`` command."""

from training import _neighbours  # noqa: F401
