"""Convolution and pooling of images (N, H, W, C), in the style of NumPy model zoos.

The memory of images is channels-last in all of xpnet (``kernels.core.layout``), so the kernels, which take
(N, C, H, W), work on views and nothing is copied. For both layers:

* ``forward`` takes one batch (N, H, W, C), or a list of batches, which may differ in N, H and W; a list makes it
  return a list, and ``backward`` then takes a list of gradients. A parameter's gradient is the sum over the list.
* ``backward(dout, retain_grads=False)`` skips the parameters' gradients: ``grads`` does not change.
* ``hyperparameters`` is a dictionary that JSON can hold; ``from_hyperparameters`` makes such a layer again, with new
  weights.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from backend import xp
from backend.checks import LARGEST_SIZE, choice, flag, real, whole
from backend.types import Array
from kernels import convolution, max_pooling, pooling
from kernels.core.dtypes import acc_dtype
from kernels.core.layout import as_nchw, to_nhwc
from kernels.core.window import Padding, Pair, Window, pair
from layers import checks
from layers.base import Layer, Shape
from layers.compat._options import dictionary
from layers.initializers import LARGEST_DEVIATION, Init, weights
from layers.parameters import as_parameter, parameter


class _ChannelsLast(Layer):
    _needed: ClassVar[tuple[str, ...]]
    _optional: ClassVar[tuple[str, ...]]

    def __init__(self, kernel_shape: int | Pair, stride: int | Pair, pad: Padding) -> None:
        self.window = Window(kernel_shape, stride, pad)
        self.kernel_shape = self.window.kernel
        self.stride = self.window.stride
        self.pad = pad if isinstance(pad, str) else self.window.padding

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The arguments of the layer as numbers, strings and lists, and under ``"layer"`` the name of its class."""
        values = {name: getattr(self, name) for name in (*self._needed, *self._optional)}
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"layer": type(self).__name__, **lists}

    @classmethod
    def from_hyperparameters(cls, hyperparameters: dict[str, Any]) -> Any:
        """Return a layer with these ``hyperparameters``; keys with a default and ``"layer"`` may be missing.

        Raises:
            ValueError: a key is missing, unknown or out of range, or they belong to another layer.
        """
        dictionary("hyperparameters", hyperparameters, cls._needed, ("layer", *cls._optional))
        given = dict(hyperparameters)
        choice("hyperparameters['layer']", given.pop("layer", cls.__name__), (cls.__name__,))
        return cls(**given)

    def forward(self, x: Any) -> Any:
        several = isinstance(x, (list, tuple))
        outputs, records = [], []
        for one in x if several else [x]:
            source = as_nchw(self._checked(one))
            y, kept = self._run(source)
            outputs.append(to_nhwc(y))
            records.append((source.shape, kept, (outputs[-1].shape, y.dtype, type(y))))
        return self.save(outputs if several else outputs[0], several, records)

    def backward(self, dout: Any, retain_grads: bool = True) -> Any:
        """Return the gradient of the latest input, or a list of them, given that of its output.

        Args:
            dout: (N, OH, OW, …), or a list of them if forward took a list.
            retain_grads: compute the parameters' gradients, too.
        """
        several, records = self.saved()
        given = len(dout) if isinstance(dout, (list, tuple)) else None
        if given != (len(records) if several else None):
            needs = f"a list of {len(records)} gradients" if several else "one gradient"
            got = "one array" if given is None else f"a list of {given}"
            raise ValueError(f"{type(self).__name__}.backward needs {needs}, as forward took its input, got {got}")
        douts = list(dout) if several else [dout]
        for one, (_, _, output) in zip(douts, records, strict=True):
            self._check_gradient(one, output)
            checks.floating(f"{type(self).__name__}.backward", dout=one)
        sources = [as_nchw(one) for one in douts]
        if retain_grads:
            self._set_gradients(sources, [kept for _, kept, _ in records])
        if not self.input_gradient:
            return None
        pairs = zip(sources, records, strict=True)
        dxs = [to_nhwc(self._run_backward(one, kept, shape)) for one, (shape, kept, _) in pairs]
        return dxs if several else dxs[0]

    def _checked(self, x: Array) -> Array:
        """Return ``x`` (N, H, W, C) as an array that the layer can compute with; raise if it cannot."""
        raise NotImplementedError

    def _run(self, x: Array) -> tuple[Any, Any]:
        """Return the output for (N, C, H, W), and the values that its backward needs."""
        raise NotImplementedError

    def _run_backward(self, dout: Array, kept: Any, shape: tuple[int, int, int, int]) -> Array:
        """Return the gradient of an input (N, C, H, W) of the given shape, given that of its output."""
        raise NotImplementedError

    def _set_gradients(self, douts: list[Any], kept: list[Any]) -> None:
        """Set the parameters' gradients."""


class Conv2D(_ChannelsLast):
    """y[n, :, :, f] = Σ_c x[n, :, :, c] ⋆ W[:, :, c, f] + b[f]: cross-correlation, as the field calls convolution.

    Args:
        in_ch: C, the number of input channels.
        out_ch: FN, the number of output channels.
        kernel_shape: (FH, FW), or one number for both.
        stride: one number or (rows, columns).
        pad: zeros around the image: a number, (rows, columns), (top, bottom, left, right), ``"valid"`` for none, or
            ``"same"`` for an output of ⌈input / stride⌉, where an odd row or column goes to the bottom or right.
        init: of the weights: ``"he"``, ``"xavier"`` or a standard deviation.
        dtype: of the parameters, and so of the results.

    Parameters: ``W`` (FH, FW, C, FN), and ``b`` (FN,), zeros at first. ``forward`` takes (N, H, W, C) and returns
    (N, OH, OW, FN), C-contiguous.

    Raises:
        ValueError: a number is out of its range, or a name unknown.
    """

    W, dW = parameter()
    b, db = parameter()
    _needed = ("in_ch", "out_ch", "kernel_shape")
    _optional = ("stride", "pad", "init", "dtype")

    def __init__(
        self,
        in_ch: int,
        out_ch: int,
        kernel_shape: int | Pair,
        stride: int | Pair = 1,
        pad: Padding = 0,
        init: Init = "he",
        dtype: Any = "float32",
    ) -> None:
        super().__init__(pair("kernel_shape", kernel_shape), stride, pad)
        self.in_ch = whole("in_ch", in_ch, 1, LARGEST_SIZE, floats=True)
        self.out_ch = whole("out_ch", out_ch, 1, LARGEST_SIZE, floats=True)
        self.init = init if isinstance(init, str) else real("init", init, least=0, most=LARGEST_DEVIATION)
        fh, fw = self.kernel_shape
        self.W = weights((fh, fw, self.in_ch, self.out_ch), fh * fw * self.in_ch, self.init, dtype)
        self.b = xp.zeros(self.out_ch, dtype)

    @property
    def dtype(self) -> str:
        """The name of the parameters' dtype."""
        return self.W.dtype.name

    def _checked(self, x: Array) -> Array:
        x = as_parameter("Conv2D", x, self.W)
        if x.ndim != 4 or x.shape[3] != self.in_ch:
            raise ValueError(f"{self!r} takes images (N, H, W, {self.in_ch}), got shape {x.shape}")
        return x

    @property
    def _filters(self) -> Array:
        """Return W in the kernels' order: a view (FN, C, FH, FW)."""
        return self.W.transpose(3, 2, 0, 1)

    def _run(self, x: Array) -> tuple[Any, Any]:
        return convolution.convolution(x, self._filters, self.b, self.window), x

    def _run_backward(self, dout: Array, kept: Any, shape: tuple[int, int, int, int]) -> Array:
        return convolution.convolution_backward_input(dout, self._filters, kept.shape, self.window)

    def _set_gradients(self, douts: list[Any], kept: list[Any]) -> None:
        dtype = acc_dtype(self.W.dtype)
        dW, db = xp.zeros(self.W.shape, dtype), xp.zeros(self.b.shape, dtype)
        for dout, x in zip(douts, kept, strict=True):
            of_W, of_b = xp.empty_like(dW), xp.empty_like(db)
            shape, out = self._filters.shape, of_W.transpose(3, 2, 0, 1)
            convolution.convolution_backward_weight(x, dout, shape, self.window, out=out, bias_out=of_b)
            dW += of_W
            db += of_b
        self.dW, self.db = dW.astype(self.W.dtype, copy=False), db.astype(self.b.dtype, copy=False)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[2] != self.in_ch:
            raise ValueError(f"takes (H, W, C) with {self.in_ch} channels, got {shape}")
        return (*self.window.over((shape[0], shape[1])).output, self.out_ch)

    def describe(self) -> str:
        return f"{self.in_ch} → {self.out_ch}, {self.window}"


class Pool2D(_ChannelsLast):
    """The largest pixel of every window, or their mean.

    Args:
        kernel_shape, stride, pad: as for ``Conv2D``.
        mode: ``"max"``: of equal pixels the first wins, NaN wins over numbers, padding never wins. ``"average"``: the
        mean. count_padding: for mode ``"average"``: count the zeros of the padding in the mean, too (as if images were
        padded
            first), instead of real pixels only, as frameworks do for "same".

    ``forward`` takes (N, H, W, C) and returns (N, OH, OW, C), C-contiguous. A window of padding only raises
    a ValueError.

    Raises:
        ValueError: a number is out of its range, or a name unknown.
    """

    _needed = ("kernel_shape",)
    _optional = ("stride", "pad", "mode", "count_padding")

    def __init__(
        self,
        kernel_shape: int | Pair,
        stride: int | Pair = 1,
        pad: Padding = 0,
        mode: Literal["max", "average"] = "max",
        count_padding: bool = False,
    ) -> None:
        super().__init__(pair("kernel_shape", kernel_shape), stride, pad)
        self.mode = choice("mode", mode, ("max", "average"))
        count_padding = flag("count_padding", count_padding)
        if mode == "max" and count_padding:
            raise ValueError("count_padding is for mode 'average' only: mode 'max' ignores the padding")
        self.count_padding = count_padding

    def _checked(self, x: Array) -> Array:
        checks.floating("Pool2D", x=x)
        if x.ndim != 4:
            raise ValueError(f"{self!r} takes images (N, H, W, C), got shape {x.shape}")
        return x

    def _run(self, x: Array) -> tuple[Any, Any]:
        if self.mode == "max":
            return max_pooling.pool(x, self.window)
        return pooling.average_pool(x, self.window, self.count_padding), None

    def _run_backward(self, dout: Array, kept: Any, shape: tuple[int, int, int, int]) -> Array:
        if self.mode == "max":
            return max_pooling.pool_backward(dout, kept, shape, self.window)
        return pooling.average_pool_backward(dout, shape, self.window, self.count_padding)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise ValueError(f"takes images (H, W, C), got {shape}")
        return (*self.window.over((shape[0], shape[1])).output, shape[2])

    def describe(self) -> str:
        return f"{self.mode}, {self.window}" + (", padding counted" if self.count_padding else "")
