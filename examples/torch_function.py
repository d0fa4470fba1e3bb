"""Use layers of xpnet inside PyTorch: a convolution and a ReLU as a ``torch.autograd.Function``, without a copy.

Images, outputs, gradients and parameters are the same memory for both libraries: PyTorch's optimizer moves the weights
in the layers. ``LayersFunction`` is all that is needed. A layer keeps what its latest forward computed, so its backward
has to come before its next forward, and its output must not be changed in place.

    python -m examples.torch_function
"""

from __future__ import annotations

from typing import Any

import click

try:
    import torch
except ModuleNotFoundError:
    raise SystemExit("this example needs PyTorch; remedy: pip install torch") from None

from backend import from_dlpack, random
from examples.common import load_digits, option, prepare
from layers import Convolution, Layer, Relu, Sequential
from training.cli.common import device_option


class LayersFunction(torch.autograd.Function):
    """The function of a layer, for PyTorch: of x and of the layer's parameters, which PyTorch has to know."""

    @staticmethod
    def forward(ctx: Any, layers: Layer, x: Any, *parameters: Any) -> Any:
        ctx.layers = layers
        return torch.from_dlpack(layers.forward(from_dlpack(x.detach())))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Any) -> Any:
        dx = torch.from_dlpack(ctx.layers.backward(from_dlpack(dy)))
        return None, dx, *map(torch.from_dlpack, ctx.layers.grads.values())


class LayersModule(torch.nn.Module):
    """A layer as a module, with the layer's own parameters."""

    def __init__(self, layers: Layer) -> None:
        super().__init__()
        self.layers = layers
        self.weights = torch.nn.ParameterList(map(torch.from_dlpack, layers.params.values()))

    def forward(self, x: Any) -> Any:
        """Return the output for images ``x``."""
        return LayersFunction.apply(self.layers, x, *self.weights)


def model(dtype: str = "float32") -> Any:
    """Return a convolution and a ReLU of xpnet, then a linear layer of PyTorch, for digits of 28x28."""
    ours = Sequential(Convolution.of(1, 8, 5, stride=2, dtype=dtype), Relu())
    linear = torch.nn.Linear(8 * 12 * 12, 10, dtype=getattr(torch, dtype))
    return torch.nn.Sequential(LayersModule(ours), torch.nn.Flatten(), linear)


def train(network: Any, images: Any, labels: Any, steps: int, batch_size: int = 100) -> list[float]:
    """Take steps of PyTorch's SGD, each on the next images; return the losses before each."""
    optimizer, losses = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9), []
    for step in range(steps):
        part = slice(step * batch_size, (step + 1) * batch_size)
        loss = torch.nn.functional.cross_entropy(network(images[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@click.command()
@option("--steps", type=click.IntRange(1, 80), default=40, help="Steps of 100 images.")
@device_option
def main(steps: int, device: str) -> None:
    """Train a convolution of xpnet and a linear layer of PyTorch together on digits."""
    prepare(device)
    random.seed(0)
    torch.manual_seed(0)
    (x, t), (x_test, t_test) = load_digits(flatten=False)
    images, labels, images_test, labels_test = map(torch.from_dlpack, (x, t, x_test, t_test))
    network = model().to(images.device)
    losses = train(network, images, labels.long(), steps)
    right = (network(images_test).argmax(1) == labels_test).double().mean()
    click.echo(f"loss {losses[0]:.4f} before the first step, {losses[-1]:.4f} before the last")
    click.echo(f"{float(right):.1%} of {len(images_test):,} test images right after {steps} steps")


if __name__ == "__main__":
    main()
