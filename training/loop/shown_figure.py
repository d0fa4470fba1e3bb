"""A figure that a notebook shows, without pyplot and its global state."""

from __future__ import annotations

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that a notebook shows where it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        from training.loop.figures import as_png

        return as_png(self)
