"""Recurrent layers over sequences: RNN, LSTM and GRU, with PyTorch's formulas and order of gates."""

from __future__ import annotations

from typing import Any, ClassVar

from backend import array_module, workspace, xp
from backend.checks import LARGEST_SIZE, array_shape, whole
from backend.types import Array
from kernels.activations import tanh, tanh_backward
from kernels.affine import affine
from kernels.gemm import matmul
from kernels.gru import gru_step, gru_step_backward
from kernels.lstm import lstm_step, lstm_step_backward
from kernels.sums import column_sums
from layers import checks
from layers.base import Layer, Shape
from layers.initializers import Init, weights
from layers.parameters import as_parameter, parameter


class _Recurrent(Layer):
    """The base of the recurrent layers: a product for the inputs of all steps, then one step after the other.

    Inside, arrays are (T, N, …), so that a step's rows are contiguous. A subclass computes ``_steps`` and
    ``_steps_backward`` from the sums of the inputs, x·Wx + bx, and those of the states, h·Wh + bh.
    """

    Wx, dWx = parameter()
    Wh, dWh = parameter()
    bx, dbx = parameter()
    bh, dbh = parameter()

    gates: ClassVar[int] = 1
    """Numbers that are computed for each unit, whose columns lie side by side in the weights."""

    def __init__(self, Wx: Array, Wh: Array, bx: Array, bh: Array) -> None:
        name = type(self).__name__
        checks.floating(name, Wx=Wx, Wh=Wh, bx=bx, bh=bh)
        hidden = Wh.shape[0] if Wh.ndim else 0
        columns = (self.gates * hidden,)
        right = Wh.ndim == Wx.ndim == 2 and Wh.shape[1:] == Wx.shape[1:] == bx.shape == bh.shape == columns
        if not right or not Wx.size:
            each = f"{self.gates}·H" if self.gates > 1 else "H"
            given = f"{Wx.shape}, {Wh.shape}, {bx.shape} and {bh.shape}"
            raise ValueError(f"{name} needs Wx (D, {each}), Wh (H, {each}), bx and bh ({each},), got {given}")
        self.Wx, self.Wh, self.bx, self.bh = Wx, Wh, bx, bh

    @classmethod
    def of(cls, inputs: int, hidden: int, init: Init = "xavier", dtype: Any = "float32") -> Any:
        """Return a layer of that size with fresh weights and zero biases.

        Raises:
            TypeError: a size is not a whole number, or ``dtype`` not floating.
            ValueError: a size is not positive, or ``init`` is unknown.
        """
        inputs, hidden = whole("inputs", inputs, 1, LARGEST_SIZE), whole("hidden", hidden, 1, LARGEST_SIZE)
        columns = cls.gates * hidden
        shape = array_shape("(inputs, hidden)", (inputs, columns))
        Wx, Wh = weights(shape, inputs, init, dtype), weights((hidden, columns), hidden, init, dtype)
        return cls(Wx, Wh, xp.zeros(columns, dtype), xp.zeros(columns, dtype))

    @property
    def hidden(self) -> int:
        """The number of units."""
        return len(self.Wh)

    def forward(self, x: Array) -> Array:
        x = as_parameter(type(self).__name__, x, self.Wx)
        checks.input_shape(self, x)
        samples, steps, inputs = x.shape
        library = array_module(x)
        rows = library.ascontiguousarray(x.swapaxes(0, 1)).reshape(steps * samples, inputs)
        sums = affine(rows, self.Wx, self.bx)[0].reshape(steps, samples, len(self.bx))
        states = workspace.empty((steps + 1, samples, self.hidden), x.dtype)  # the first is before all steps
        states[0] = 0
        kept = self._steps(sums, states)
        return self.save(library.array(states[1:].swapaxes(0, 1), order="C"), rows, states, *kept)

    def backward(self, dout: Array) -> Array | None:
        rows, states, *kept = self.saved(dout)
        steps, samples, hidden = len(states) - 1, states.shape[1], self.hidden
        dout = array_module(dout).ascontiguousarray(dout.swapaxes(0, 1))
        of_inputs, of_states = self._steps_backward(dout, states, *kept)
        dinputs, dstates = (sums.reshape(steps * samples, len(self.bx)) for sums in (of_inputs, of_states))
        if not self.frozen:
            matmul(rows.T, dinputs, out=self.gradient("Wx"))
            matmul(states[:-1].reshape(steps * samples, hidden).T, dstates, out=self.gradient("Wh"))
            column_sums(dinputs, out=self.gradient("bx"))
            column_sums(dstates, out=self.gradient("bh"))
        if not self.input_gradient:
            return None
        dx = matmul(dinputs, self.Wx.T).reshape(steps, samples, len(self.Wx))
        return array_module(dx).array(dx.swapaxes(0, 1), order="C")

    def output_shape(self, shape: Shape) -> Shape:
        steps, _ = checks.sequence_shape(shape, len(self.Wx))
        return steps, self.hidden

    def describe(self) -> str:
        return f"{len(self.Wx)} → {self.hidden}"

    def _steps(self, sums: Array, states: Array) -> tuple[Array, ...]:
        """Compute the states of all steps into ``states`` (T + 1, N, H); return what backward needs besides.

        Args:
            sums: x·Wx + bx, (T, N, gates·H).
        """
        raise NotImplementedError

    def _steps_backward(self, dout: Array, states: Array, *kept: Array) -> tuple[Array, Array]:
        """Return the gradients of the inputs' and of the states' sums, (T, N, gates·H), from the last step on.

        Args:
            dout: the gradients of the states that forward returned, (T, N, H).
        """
        raise NotImplementedError

    def _of_states(self, h: Array) -> Array:
        """Return h·Wh + bh."""
        return affine(h, self.Wh, self.bh)[0]


class RNN(_Recurrent):
    """Recurrent layer (Elman, 1990): h(t) = tanh(x(t)·Wx + bx + h(t - 1)·Wh + bh), with h(0) = 0.

    ``forward`` takes sequences (N, T, D) and returns the states of all steps, (N, T, H); ``backward`` goes back through
    all T steps, no further. The same as ``torch.nn.RNN(D, H, batch_first=True)``, whose weights are the transposes.

    Args:
        Wx: (D, H), floating.
        Wh: (H, H).
        bx, bh: (H,).

    Raises:
        TypeError: they are not floating arrays of one dtype and library.
        ValueError: their shapes do not fit together.

    Examples:
        >>> from backend import xp
        >>> from layers import RNN
        >>> layer = RNN.of(3, 5)
        >>> layer, layer.forward(xp.zeros((2, 7, 3), "float32")).shape
        (RNN(3 → 5), (2, 7, 5))
    """

    def _steps(self, sums: Array, states: Array) -> tuple[Array, ...]:
        for step, own in enumerate(sums):
            states[step + 1] = tanh(own + self._of_states(states[step]))
        return ()

    def _steps_backward(self, dout: Array, states: Array, *kept: Array) -> tuple[Array, Array]:
        dsums = workspace.empty(dout.shape, dout.dtype)
        dh: Any = 0
        for step in reversed(range(len(dout))):
            dsums[step] = tanh_backward(dout[step] + dh, states[step + 1])
            dh = matmul(dsums[step], self.Wh.T) if step else 0
        return dsums, dsums


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; with forget gates, Gers et al., 2000).

    With the gates i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of the four parts of x(t)·Wx + bx + h(t - 1)·Wh + bh:
    c(t) = f·c(t - 1) + i·g and h(t) = o·tanh(c(t)), where c(0) = h(0) = 0.

    ``forward`` takes sequences (N, T, D) and returns the states h of all steps, (N, T, H); ``backward`` goes back
    through all T steps, no further. The same as ``torch.nn.LSTM(D, H, batch_first=True)``, whose weights are the
    transposes.

    Args:
        Wx: (D, 4·H), floating; columns of the gates i, f, g, o.
        Wh: (H, 4·H).
        bx, bh: (4·H,).

    Raises:
        TypeError: they are not floating arrays of one dtype and library.
        ValueError: their shapes do not fit together.

    Examples:
        >>> from backend import xp
        >>> from layers import LSTM
        >>> layer = LSTM.of(3, 5)
        >>> layer, layer.forward(xp.zeros((2, 7, 3), "float32")).shape
        (LSTM(3 → 5), (2, 7, 5))
    """

    gates = 4

    def _steps(self, sums: Array, states: Array) -> tuple[Array, ...]:
        steps, samples, _ = sums.shape
        gates, cells = workspace.empty(sums.shape, sums.dtype), workspace.empty(states.shape, states.dtype)
        squashed = workspace.empty((steps, samples, self.hidden), states.dtype)
        cells[0] = 0
        for step in range(steps):
            of_states = self._of_states(states[step])
            results = gates[step], cells[step + 1], squashed[step], states[step + 1]
            lstm_step(sums[step], of_states, cells[step], *results)
        return gates, cells, squashed

    def _steps_backward(self, dout: Array, states: Array, *kept: Array) -> tuple[Array, Array]:
        gates, cells, squashed = kept
        dsums, dc = workspace.empty(gates.shape, gates.dtype), workspace.zeros(dout.shape[1:], dout.dtype)
        dh = None
        for step in reversed(range(len(dout))):
            lstm_step_backward(dout[step], dh, dc, gates[step], cells[step], squashed[step], dsums[step])
            dh = matmul(dsums[step], self.Wh.T) if step else None
        return dsums, dsums


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al., 2014), with the reset gate behind the product, as PyTorch and cuDNN have it.

    With the parts of a = x(t)·Wx + bx and b = h(t - 1)·Wh + bh for the gates r, z and n: r = sigmoid(a + b),
    z = sigmoid(a + b), n = tanh(a + r·b) and h(t) = (1 - z)·n + z·h(t - 1), where h(0) = 0.

    ``forward`` takes sequences (N, T, D) and returns the states of all steps, (N, T, H); ``backward`` goes back through
    all T steps, no further. The same as ``torch.nn.GRU(D, H, batch_first=True)``, whose weights are the transposes.

    Args:
        Wx: (D, 3·H), floating; columns of the gates r, z, n.
        Wh: (H, 3·H).
        bx, bh: (3·H,).

    Raises:
        TypeError: they are not floating arrays of one dtype and library.
        ValueError: their shapes do not fit together.

    Examples:
        >>> from backend import xp
        >>> from layers import GRU
        >>> layer = GRU.of(3, 5)
        >>> layer, layer.forward(xp.zeros((2, 7, 3), "float32")).shape
        (GRU(3 → 5), (2, 7, 5))
    """

    gates = 3

    def _steps(self, sums: Array, states: Array) -> tuple[Array, ...]:
        steps, samples, _ = sums.shape
        gates = workspace.empty(sums.shape, sums.dtype)
        products = workspace.empty((steps, samples, self.hidden), states.dtype)  # of the states, for n
        for step in range(steps):
            of_states = self._of_states(states[step])
            gru_step(sums[step], of_states, states[step], gates[step], products[step], states[step + 1])
        return gates, products

    def _steps_backward(self, dout: Array, states: Array, *kept: Array) -> tuple[Array, Array]:
        gates, products = kept
        of_inputs, of_states = (workspace.empty(gates.shape, gates.dtype) for _ in range(2))
        carried, dproduct = workspace.zeros(dout.shape[1:], dout.dtype), None
        for step in reversed(range(len(dout))):
            kept_of_step = gates[step], products[step], states[step]
            gru_step_backward(dout[step], dproduct, carried, *kept_of_step, of_inputs[step], of_states[step])
            dproduct = matmul(of_states[step], self.Wh.T) if step else None
        return of_inputs, of_states
