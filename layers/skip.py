"""A skip connection that puts a layer's input beside its output."""

from __future__ import annotations

from backend.checks import instance
from backend.types import Array
from kernels.activations import add
from kernels.core.layout import channel_axis, copy_channels_last, joined, parted
from layers import checks
from layers.base import Layer, Shape
from layers.residual import BODY
from layers.sequential import Composite, indented


class Skip(Composite):
    """y = [x, body(x)]: the channels of the input, then those that a layer makes of it.

    It joins the two sides of a U-Net (Ronneberger, Fischer and Brox, 2015), where the body is all that lies below, and
    is a layer of a DenseNet (Huang et al., 2017). The body keeps the size of images (N, C, H, W); of other inputs
    (N, …, D) the last axis is extended.

    Args:
        body: a layer.

    Attributes:
        body: the layer; read-only.

    Raises:
        TypeError: the argument is not a layer.

    Examples:
        >>> from backend import xp
        >>> from layers import Relu, Skip
        >>> Skip(Relu()).forward(xp.asarray([[-1.0, 2.0]]))
        array([[-1.,  2.,  0.,  2.]])
    """

    def __init__(self, body: Layer) -> None:
        self._body: Layer = instance("Skip: body", body, Layer, "a layer")

    @property
    def body(self) -> Layer:
        return self._body

    def sublayers(self) -> list[tuple[str, Layer]]:
        return [("body", self.body)]

    def forward(self, x: Array) -> Array:
        with BODY["forward"].of(x):
            made = self.body.forward(x)
        checks.floating("Skip", x=x)
        if x.ndim < 2 or not _fit(x.shape[1:], made.shape[1:]):
            raise ValueError(f"Skip cannot put {made.shape} beside its input {x.shape}")
        return self.save(joined(x, made), x.shape[channel_axis(x)], made.dtype)

    def backward(self, dout: Array) -> Array:
        channels, dtype = self.saved(dout)
        own, rest = parted(dout, channels)
        rest = (copy_channels_last(rest) if rest.ndim == 4 else rest.copy()).astype(dtype, copy=False)
        with BODY["backward"].of(rest):
            dx = self.body.backward(rest)
        return add(own, dx)

    def output_shape(self, shape: Shape) -> Shape:
        made = self.body.output_shape(shape)
        if not shape or not _fit(shape, made):
            raise ValueError(f"body makes {made} of {shape}: they cannot be put side by side")
        axis = 0 if len(shape) == 3 else len(shape) - 1
        return *shape[:axis], shape[axis] + made[axis], *shape[axis + 1 :]

    def describe(self) -> str:
        return indented(self.body)


def _fit(shape: Shape, made: Shape) -> bool:
    """Return whether two shapes of samples differ in the number of channels alone."""
    if len(shape) != len(made):
        return False
    return shape[1:] == made[1:] if len(shape) == 3 else shape[:-1] == made[:-1]
