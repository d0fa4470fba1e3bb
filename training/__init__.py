"""Models, data, optimizers, the loop around them, and the ``xpnet`` command."""
