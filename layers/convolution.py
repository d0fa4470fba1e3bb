"""Convolution and transposed convolution."""

from __future__ import annotations

from typing import Any

from backend import xp
from backend.checks import LARGEST_SIZE, array_shape, flag, whole
from backend.types import Array
from kernels import convolution
from kernels import winograd as winograd_kernels
from kernels.core.geometry import single
from kernels.core.layout import to_nhwc
from kernels.core.window import Padding, Pair, Window, pair
from kernels.sums import column_sums
from layers import checks
from layers.base import Layer, Shape
from layers.initializers import Init, weights
from layers.parameters import as_parameter, parameter


class Convolution(Layer):
    """Convolution layer: y[n, f] = Σ_c x[n, c] ⋆ W[f, c] + b[f], where ⋆ is cross-correlation.

    ``forward`` takes (N, C, H, W) and returns (N, FN, OH, OW).

    Args:
        W: filters (FN, C / groups, FH, FW), floating.
        b: (FN,), dtype of ``W``; or None for no bias, before a batch normalization, which subtracts any constant.
        stride: one number or (rows, columns).
        pad: zeros around the image: a number, (rows, columns), (top, bottom, left, right), "same" or "valid".
        dilation: step between taps, one number or (rows, columns).
        groups: number of groups that the channels are divided into; each has FN / groups filters.
        winograd: use a quarter of the multiplications, for 3×3 filters at stride 1 (``kernels.winograd``). On a CPU it
            pays from about 16 channels on; rounding errors are ten times as large, about 1e-5 of the largest output.

    Raises:
        TypeError: W and b are not floating arrays of one dtype and library.
        ValueError: shapes or geometry do not fit.

    Examples:
        >>> from backend import xp
        >>> from layers import Convolution
        >>> layer = Convolution(xp.ones((1, 1, 2, 2)), xp.zeros(1))
        >>> layer.forward(xp.arange(9.0).reshape(1, 1, 3, 3))[0, 0]
        array([[ 8., 12.],
               [20., 24.]])
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(
        self,
        W: Array,
        b: Array | None = None,
        stride: int | Pair = 1,
        pad: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        winograd: bool = False,
    ) -> None:
        checks.filters("Convolution", "W (FN, C, FH, FW) and b (FN,)", 4, 0, W, b)
        groups = whole("groups", groups, 1)
        if len(W) % groups:
            raise ValueError(f"Convolution: {groups} groups do not divide {len(W)} filters")
        self.window = Window(W.shape[2:], stride, pad, dilation)
        self.winograd = flag("winograd", winograd)
        if self.winograd:
            winograd_kernels.check_window(self.window, groups)
        self.W = W
        if b is not None:
            self.b = b
        self.stride = single(self.window.stride)
        self.pad = single(self.window.padding)
        self.dilation = single(self.window.dilation)
        self.groups = groups

    @classmethod
    def of(
        cls,
        channels: int,
        filters: int,
        size: int | Pair,
        stride: int | Pair = 1,
        pad: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        init: Init = "he",
        dtype: Any = "float32",
        winograd: bool = False,
        bias: bool = True,
    ) -> Convolution:
        """Return a layer of that size with fresh filters and zero bias, or without one.

        Raises:
            TypeError: an argument is not a whole number, ``winograd`` or ``bias`` not a bool, or ``dtype`` not
                floating.
            ValueError: a number is out of its range, or ``init`` is unknown.

        Examples:
            >>> from layers import Convolution
            >>> Convolution.of(3, 16, 5, pad="same").output_shape((3, 32, 32))
            (16, 32, 32)
        """
        channels, filters = whole("channels", channels, 1, LARGEST_SIZE), whole("filters", filters, 1, LARGEST_SIZE)
        groups = whole("groups", groups, 1)
        if channels % groups or filters % groups:
            raise ValueError(f"Convolution: {groups} groups do not divide {channels} channels and {filters} filters")
        fh, fw = pair("size", size)
        window, winograd = Window((fh, fw), stride, pad, dilation), flag("winograd", winograd)
        bias = flag("bias", bias)
        if winograd:
            winograd_kernels.check_window(window, groups)  # raises before weights are drawn
        shape = array_shape("(filters, channels, size)", (filters, channels // groups, fh, fw))
        fan_in = channels // groups * fh * fw
        W = weights(shape, fan_in, init, dtype)
        return cls(W, xp.zeros(filters, dtype) if bias else None, stride, pad, dilation, groups, winograd)

    def forward(self, x: Array) -> Array:
        W = self.W
        x = as_parameter("Convolution", x, W)
        kernels = winograd_kernels if self.winograd else convolution
        return self.save(kernels.convolution(x, W, self.b, self.window, self.groups), x)

    def forward_relu(self, x: Array) -> tuple[Array, Array]:
        W = self.W
        x = as_parameter("Convolution", x, W)
        kernels = winograd_kernels if self.winograd else convolution
        y, positive = kernels.convolution(x, W, self.b, self.window, self.groups, relu=True)
        return self.save(y, x), positive

    def forward_measured(self, x: Array) -> tuple[Array, Any]:
        W = self.W
        x = as_parameter("Convolution", x, W)
        if self.winograd:
            return self.forward(x), None
        y, moments = convolution.convolution_measured(x, W, self.b, self.window, self.groups)
        return self.save(y, x), moments

    def backward(self, dout: Array) -> Array | None:
        (x,) = self.saved(dout)
        W, kernels = self.W, winograd_kernels if self.winograd else convolution
        if not self.frozen:
            gradients = map(self.gradient, "W" if self.b is None else "Wb")
            kernels.convolution_backward_weight(x, dout, W.shape, self.window, self.groups, *gradients)
        if not self.input_gradient:
            return None
        return kernels.convolution_backward_input(dout, W, x.shape, self.window, self.groups)

    def output_shape(self, shape: Shape) -> Shape:
        _, *image = checks.image_shape(shape, self.W.shape[1] * self.groups)
        return (len(self.W), *self.window.over((image[0], image[1])).output)

    def describe(self) -> str:
        more = f", {self.groups} groups" if self.groups > 1 else ""
        more += (", winograd" if self.winograd else "") + (", no bias" if self.b is None else "")
        return f"{self.W.shape[1] * self.groups} → {len(self.W)}, {self.window}{more}"


class ConvolutionTranspose(Layer):
    """Transposed convolution, which enlarges images (Zeiler et al., "Deconvolutional networks", CVPR 2010).

    ``forward`` takes (N, C, H, W) and returns (N, FN, (H - 1)·stride + FH - 2·pad, …): a product, then col2im. A
    ``Convolution`` of this window maps the shape of the output back to that of the input.

    Args:
        W: (C, FN, FH, FW), C input and FN output channels, floating.
        b: (FN,), dtype of ``W``; or None for no bias.
        stride: factor of enlargement, one number or (rows, columns).
        pad: rows and columns cut off the result; numbers only.
        dilation: step between taps.

    Raises:
        TypeError: W and b are not floating arrays of one dtype and library.
        ValueError: shapes or geometry do not fit.

    Examples:
        >>> from layers import ConvolutionTranspose
        >>> ConvolutionTranspose.of(8, 4, 2, stride=2).output_shape((8, 7, 7))
        (4, 14, 14)
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(
        self,
        W: Array,
        b: Array | None = None,
        stride: int | Pair = 1,
        pad: Padding = 0,
        dilation: int | Pair = 1,
    ) -> None:
        checks.filters("ConvolutionTranspose", "W (C, FN, FH, FW) and b (FN,)", 4, 1, W, b)
        self.window = Window(W.shape[2:], stride, pad, dilation)
        self.window.transposed_size((1 << 20, 1 << 20))  # refuses "same" and "valid"
        self.W = W
        if b is not None:
            self.b = b
        self.stride = single(self.window.stride)
        self.pad = single(self.window.padding)
        self.dilation = single(self.window.dilation)

    @classmethod
    def of(
        cls,
        channels: int,
        filters: int,
        size: int | Pair,
        stride: int | Pair = 1,
        pad: Padding = 0,
        dilation: int | Pair = 1,
        init: Init = "he",
        dtype: Any = "float32",
        bias: bool = True,
    ) -> ConvolutionTranspose:
        """Return a layer of that size with fresh filters and zero bias, or without one.

        Raises:
            TypeError: an argument is not a whole number, ``bias`` not a bool, or ``dtype`` not floating.
            ValueError: a number is out of its range, or ``init`` is unknown.
        """
        channels, filters = whole("channels", channels, 1, LARGEST_SIZE), whole("filters", filters, 1, LARGEST_SIZE)
        (fh, fw), bias = pair("size", size), flag("bias", bias)
        Window((fh, fw), stride, pad, dilation).transposed_size((1 << 20, 1 << 20))  # raises before weights are drawn
        shape = array_shape("(channels, filters, size)", (channels, filters, fh, fw))
        W = weights(shape, channels * fh * fw, init, dtype)
        return cls(W, xp.zeros(filters, dtype) if bias else None, stride, pad, dilation)

    def forward(self, x: Array) -> Array:
        x = as_parameter("ConvolutionTranspose", x, self.W)
        if x.ndim != 4 or x.shape[1] != len(self.W):
            raise ValueError(f"{self!r} takes (N, {len(self.W)}, H, W), got {x.shape}")
        fn, oh, ow = self.output_shape(x.shape[1:])
        y = convolution.convolution_backward_input(x, self.W, (len(x), fn, oh, ow), self.window)
        if self.b is not None:
            nhwc = to_nhwc(y)
            nhwc += self.b
        return self.save(y, x)

    def backward(self, dout: Array) -> Array | None:
        (x,) = self.saved(dout)
        if not self.frozen:
            convolution.convolution_backward_weight(dout, x, self.W.shape, self.window, out=self.gradient("W"))
            if self.b is not None:
                column_sums(to_nhwc(dout).reshape(-1, len(self.b)), out=self.gradient("b"))
        if not self.input_gradient:
            return None
        return convolution.convolution(dout, self.W, None, self.window)

    def output_shape(self, shape: Shape) -> Shape:
        _, *image = checks.image_shape(shape, len(self.W))
        return (self.W.shape[1], *self.window.transposed_size((image[0], image[1])))

    def describe(self) -> str:
        return f"{self.W.shape[0]} → {self.W.shape[1]}, {self.window}" + (", no bias" if self.b is None else "")
