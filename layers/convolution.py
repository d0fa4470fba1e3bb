"""Convolution and transposed convolution."""

from __future__ import annotations

from typing import Any

from backend import xp
from backend.checks import LARGEST_SIZE, array_shape, flag, whole
from kernels import convolution as kernel
from kernels import winograd as winograd_kernel
from kernels.core.geometry import single
from kernels.core.layout import to_nhwc
from kernels.core.window import Padding, Pair, Window, pair
from kernels.gemm import column_sums
from layers import checks
from layers.base import Layer, Shape
from layers.initializers import Init, weights
from layers.parameters import parameter


class Convolution(Layer):
    """y[n, f] = Σ_c x[n, c] ⋆ W[f, c] + b[f]: cross-correlation, as the field calls convolution.

    Args:
        W: filters (FN, C / groups, FH, FW).
        b: (FN,).
        stride: one number or (rows, columns).
        pad: zeros around the image: a number, (rows, columns), (top, bottom, left, right), "same" or "valid".
        dilation: step between taps, one number or (rows, columns).
        groups: the channels are cut into so many groups, each with FN / groups filters of its own.
        winograd: multiplies a quarter as often, for 3×3 filters at stride 1 (``kernels.winograd``). On a CPU it pays
            from about 64 channels on; rounding errors are ten times as large, about 1e-5 of the largest output.

    ``forward`` takes (N, C, H, W) and returns (N, FN, OH, OW).

    Raises:
        TypeError: W and b are not floating arrays of one dtype and library.
        ValueError: shapes or geometry do not fit.
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(
        self,
        W: Any,
        b: Any,
        stride: int | Pair = 1,
        pad: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        winograd: bool = False,
    ) -> None:
        checks.floating("Convolution", W=W, b=b)
        if W.ndim != 4 or b.shape != W.shape[:1] or not W.size:
            raise ValueError(f"Convolution needs W (FN, C, FH, FW) and b (FN,), got {W.shape} and {b.shape}")
        groups = whole("groups", groups, 1)
        if len(W) % groups:
            raise ValueError(f"Convolution: {groups} groups do not divide {len(W)} filters")
        self.window = Window(W.shape[2:], stride, pad, dilation)
        self.winograd = flag("winograd", winograd)
        if self.winograd:
            winograd_kernel.check_window(self.window, groups)
        self.W = W
        self.b = b
        self.stride = single(self.window.stride)
        self.pad = single(self.window.padding)
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
    ) -> Convolution:
        """A layer of that size with fresh filters and zero bias.

        Raises:
            TypeError: an argument is no whole number, ``winograd`` no bool, or ``dtype`` not floating.
            ValueError: a number is out of its range, or ``init`` is none.
        """
        channels, filters = whole("channels", channels, 1, LARGEST_SIZE), whole("filters", filters, 1, LARGEST_SIZE)
        groups = whole("groups", groups, 1)
        if channels % groups or filters % groups:
            raise ValueError(f"Convolution: {groups} groups do not divide {channels} channels and {filters} filters")
        fh, fw = pair("size", size)
        window, winograd = Window((fh, fw), stride, pad, dilation), flag("winograd", winograd)
        if winograd:
            winograd_kernel.check_window(window, groups)  # raises before weights are drawn
        shape = array_shape("(filters, channels, size)", (filters, channels // groups, fh, fw))
        fan_in = channels // groups * fh * fw
        W, b = weights(shape, fan_in, init, dtype), xp.zeros(filters, dtype)
        return cls(W, b, stride, pad, dilation, groups, winograd)

    def forward(self, x: Any) -> Any:
        x = checks.as_parameter("Convolution", x, self.W)
        return self.save(self._kernel.convolution(x, self.W, self.b, self.window, self.groups), x)

    def forward_relu(self, x: Any) -> tuple[Any, Any]:
        x = checks.as_parameter("Convolution", x, self.W)
        y, positive = self._kernel.convolution(x, self.W, self.b, self.window, self.groups, relu=True)
        return self.save(y, x), positive

    def backward(self, dout: Any) -> Any:
        (x,) = self.saved(dout)
        self._kernel.convolution_backward_weight(
            x, dout, self.W.shape, self.window, self.groups, out=self.gradient("W"), bias_out=self.gradient("b")
        )
        if not self.input_gradient:
            return None
        return self._kernel.convolution_backward_input(dout, self.W, x.shape, self.window, self.groups)

    @property
    def _kernel(self) -> Any:
        return winograd_kernel if self.winograd else kernel

    def output_shape(self, shape: Shape) -> Shape:
        _, *image = checks.image_shape(shape, self.W.shape[1] * self.groups)
        return (len(self.W), *self.window.over((image[0], image[1])).output)

    def describe(self) -> str:
        more = (f", {self.groups} groups" if self.groups > 1 else "") + (", winograd" if self.winograd else "")
        return f"{self.W.shape[1] * self.groups} → {len(self.W)}, {self.window}{more}"


class ConvolutionTranspose(Layer):
    """The transpose of a convolution, which enlarges: its forward is a product and col2im.

    Zeiler et al., "Deconvolutional networks" (CVPR 2010). A ``Convolution`` of this kernel, stride, padding and
    dilation maps its output's shape back to its input's.

    Args:
        W: (C, FN, FH, FW), C input and FN output channels.
        b: (FN,).
        stride: one number or (rows, columns): how much it enlarges.
        pad: rows and columns cut off the result; numbers only.
        dilation: step between taps.

    ``forward`` takes (N, C, H, W) and returns (N, FN, (H - 1)·stride + FH - 2·pad, …).

    Raises:
        TypeError: W and b are not floating arrays of one dtype and library.
        ValueError: shapes or geometry do not fit.
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(self, W: Any, b: Any, stride: int | Pair = 1, pad: Padding = 0, dilation: int | Pair = 1) -> None:
        checks.floating("ConvolutionTranspose", W=W, b=b)
        if W.ndim != 4 or b.shape != W.shape[1:2] or not W.size:
            raise ValueError(f"ConvolutionTranspose needs W (C, FN, FH, FW) and b (FN,), got {W.shape} and {b.shape}")
        self.window = Window(W.shape[2:], stride, pad, dilation)
        self.window.transposed_size((1 << 20, 1 << 20))  # refuses padding that names no size
        self.W = W
        self.b = b
        self.stride = single(self.window.stride)
        self.pad = single(self.window.padding)

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
    ) -> ConvolutionTranspose:
        """A layer of that size with fresh filters and zero bias.

        Raises:
            TypeError: an argument is no whole number, or ``dtype`` not floating.
            ValueError: a number is out of its range, or ``init`` is none.
        """
        channels, filters = whole("channels", channels, 1, LARGEST_SIZE), whole("filters", filters, 1, LARGEST_SIZE)
        fh, fw = pair("size", size)
        Window((fh, fw), stride, pad, dilation).transposed_size((1 << 20, 1 << 20))  # raises before weights are drawn
        shape = array_shape("(channels, filters, size)", (channels, filters, fh, fw))
        W = weights(shape, channels * fh * fw, init, dtype)
        return cls(W, xp.zeros(filters, dtype), stride, pad, dilation)

    def forward(self, x: Any) -> Any:
        x = checks.as_parameter("ConvolutionTranspose", x, self.W)
        if x.ndim != 4 or x.shape[1] != len(self.W):
            raise ValueError(f"{self!r} takes (N, {len(self.W)}, H, W), got {x.shape}")
        fn, oh, ow = self.output_shape(x.shape[1:])
        y = kernel.convolution_backward_input(x, self.W, (len(x), fn, oh, ow), self.window)
        nhwc = to_nhwc(y)
        nhwc += self.b
        return self.save(y, x)

    def backward(self, dout: Any) -> Any:
        (x,) = self.saved(dout)
        kernel.convolution_backward_weight(dout, x, self.W.shape, self.window, out=self.gradient("W"))
        column_sums(to_nhwc(dout).reshape(-1, len(self.b)), out=self.gradient("b"))
        if not self.input_gradient:
            return None
        return kernel.convolution(dout, self.W, None, self.window)

    def output_shape(self, shape: Shape) -> Shape:
        _, *image = checks.image_shape(shape, len(self.W))
        return (self.W.shape[1], *self.window.transposed_size((image[0], image[1])))

    def describe(self) -> str:
        return f"{self.W.shape[0]} → {self.W.shape[1]}, {self.window}"
