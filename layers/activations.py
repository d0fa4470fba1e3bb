"""The elementwise layers. Each keeps the least that its gradient needs."""

from __future__ import annotations

from backend.checks import Hyperparameter
from backend.types import Array
from kernels import activations
from kernels.masking import masked
from layers import checks
from layers.base import Layer


class Relu(Layer):
    """Rectified linear unit: y = max(x, 0). Its gradient at 0 is 0.

    Examples:
        >>> from backend import xp
        >>> from layers import Relu
        >>> layer = Relu()
        >>> layer.forward(xp.asarray([[-1.0, 0.0, 2.0]]))
        array([[0., 0., 2.]])
        >>> layer.backward(xp.ones((1, 3)))
        array([[0., 0., 1.]])
    """

    def forward(self, x: Array) -> Array:
        checks.floating("Relu", x=x)
        y, positive = activations.relu(x)
        return self.save(y, positive)

    def backward(self, dout: Array) -> Array:
        (positive,) = self.saved(dout)
        return masked(dout, positive() if callable(positive) else positive)


class Relu6(Layer):
    """Rectified linear unit up to 6: y = min(max(x, 0), 6) (Krizhevsky, "Convolutional deep belief networks", 2010).

    Its gradient at 0 and at 6 is 0.
    """

    def forward(self, x: Array) -> Array:
        checks.floating("Relu6", x=x)
        y, between = activations.relu6(x)
        return self.save(y, between)

    def backward(self, dout: Array) -> Array:
        (between,) = self.saved(dout)
        return masked(dout, between)


class LeakyRelu(Layer):
    """Leaky ReLU: y = x where x > 0, else slope·x (Maas, Hannun and Ng, 2013).

    Args:
        slope: from 0, which makes a ``Relu``, to 1.

    Raises:
        TypeError: the slope is not a number.
        ValueError: it is out of its range.
    """

    slope = Hyperparameter(least=0, most=1)

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def forward(self, x: Array) -> Array:
        checks.floating("LeakyRelu", x=x)
        y, positive = activations.leaky_relu(x, slope=self.slope)
        return self.save(y, positive)

    def backward(self, dout: Array) -> Array:
        (positive,) = self.saved(dout)
        return activations.leaky_relu_backward(dout, positive, slope=self.slope)

    def describe(self) -> str:
        return f"slope {self.slope:g}"


class Sigmoid(Layer):
    """Logistic function: y = 1 / (1 + exp(-x))."""

    def forward(self, x: Array) -> Array:
        checks.floating("Sigmoid", x=x)
        y = activations.sigmoid(x)
        return self.save(y, y)

    def backward(self, dout: Array) -> Array:
        (y,) = self.saved(dout)
        return activations.sigmoid_backward(dout, y)


class Tanh(Layer):
    """Hyperbolic tangent: y = tanh(x)."""

    def forward(self, x: Array) -> Array:
        checks.floating("Tanh", x=x)
        y = activations.tanh(x)
        return self.save(y, y)

    def backward(self, dout: Array) -> Array:
        (y,) = self.saved(dout)
        return activations.tanh_backward(dout, y)


class Gelu(Layer):
    """Gaussian error linear unit: y = x·Φ(x), in its tanh approximation (Hendrycks and Gimpel, 2016, section 2)."""

    def forward(self, x: Array) -> Array:
        checks.floating("Gelu", x=x)
        return self.save(activations.gelu(x), x)

    def backward(self, dout: Array) -> Array:
        (x,) = self.saved(dout)
        return activations.gelu_backward(dout, x)
