"""Train a two-layer convolutional network of functional layers, as in university courses: each layer is a pair
``out, cache = …_forward(…)`` and ``…_backward(dout, cache)``; parameters and gradients are in dictionaries.

It shows the outputs that courses give for checks of their first functions, the network's gradients compared with
numerical ones, cases where naive versions go wrong, and training on a few hundred digits.

    python -m examples.functional_layers
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import click
import numpy as np

from backend import asarray, asnumpy, random, xp
from backend.types import Array
from examples.common import count, load_digits, option, prepare
from layers import numerical_gradient
from layers.compat import course
from training.cli.common import device_option

Arrays = dict[str, Array]

CONV = {"stride": 1, "pad": (5 - 1) / 2}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}

TEXT_CONV = ((-0.08759809, -0.10987781), (-0.18387192, -0.2109216))
TEXT_AFFINE = ((1.49834967, 1.70660132, 1.91485297), (3.25553199, 3.5141327, 3.77273342))
TEXT_LOSS = math.log(10)
"""The loss of ten equal scores."""


def course_checks() -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return the first checks of the courses, over evenly spaced numbers: (name, our result, the text's)."""
    x, w, b = _steps((2, 3, 4, 4), -0.1, 0.5), _steps((3, 3, 4, 4), -0.2, 0.3), _steps((3,), -0.1, 0.2)
    conv, _ = course.conv_forward(x, w, b, {"stride": 2, "pad": 1})
    x, w, b = _steps((2, 4, 5, 6), -0.1, 0.5), _steps((120, 3), -0.2, 0.3), _steps((3,), -0.3, 0.1)
    affine, _ = course.affine_forward(x, w, b)
    loss, _ = course.softmax_loss(xp.zeros((5, 10)), xp.arange(5))
    return [
        ("conv_forward, first image and filter", asnumpy(conv)[0, 0], np.array(TEXT_CONV)),
        ("affine_forward", asnumpy(affine), np.array(TEXT_AFFINE)),
        ("softmax_loss of equal scores", asnumpy(loss), np.array(TEXT_LOSS)),
    ]


def corrections() -> list[tuple[str, Any]]:
    """Return cases where naive versions fail or give wrong numbers: (name, the shape or numbers of our result)."""
    x, w, b = xp.ones((1, 1, 6, 7)), xp.ones((1, 1, 3, 3)), xp.zeros(1)
    out, cache = course.conv_forward(x, w, b, {"stride": 1, "pad": (3 - 1) / 2})
    dx, _, _ = course.conv_backward(out, cache)
    tie, tie_cache = course.max_pool_forward(xp.ones((1, 1, 2, 2)), POOL)
    wide, _ = course.max_pool_forward(x, {"pool_height": 2, "pool_width": 3, "stride": 2})
    return [
        ("a pad of (3 - 1) / 2, a float: conv_forward of 6x7, filter 3x3", out.shape[2:]),
        ("the padding's gradient is cut off: conv_backward", dx.shape[2:]),
        ("a tie counts once: max_pool_backward over four equal pixels", course.max_pool_backward(tie, tie_cache)),
        ("windows that are not square: max_pool_forward of 6x7, 2x3 at stride 2", wide.shape[2:]),
        ("im2col of one image 1x6x7 with them", course.im2col(x[0], 2, 3, stride=2).shape),
    ]


def _steps(shape: tuple[int, ...], first: float, last: float) -> Array:
    return asarray(np.linspace(first, last, math.prod(shape)).reshape(shape))


def fresh(
    filters: int, image: tuple[int, int, int], classes: int, weight_scale: float = 0.001, dtype: str = "float32"
) -> Arrays:
    """Return the parameters of a network for images (C, H, W); see ``scores``.

    With a small ``weight_scale`` the first scores are nearly equal, and the first loss is the logarithm of the number
    of classes.
    """
    c, h, w = image
    inputs = filters * (h // 2) * (w // 2)
    return {
        "gamma": xp.ones(c, dtype),
        "beta": xp.zeros(c, dtype),
        "w1": random.normal((filters, c, 5, 5), math.sqrt(2 / (c * 25)), dtype),
        "b1": xp.zeros(filters, dtype),
        "w2": random.normal((inputs, classes), weight_scale, dtype),
        "b2": xp.zeros(classes, dtype),
    }


def scores(params: Arrays, x: Array, bn_param: dict, dropout_param: dict) -> tuple[Array, list[Any]]:
    """Return scores (N, classes) of batch norm - conv - relu - 2x2 max pool - dropout - affine, and the caches."""
    caches: list[Any] = [None] * 6
    out, caches[0] = course.spatial_batchnorm_forward(x, params["gamma"], params["beta"], bn_param)
    out, caches[1] = course.conv_forward(out, params["w1"], params["b1"], CONV)
    out, caches[2] = course.relu_forward(out)
    out, caches[3] = course.max_pool_forward(out, POOL)
    out, caches[4] = course.dropout_forward(out, dropout_param)
    out, caches[5] = course.affine_forward(out, params["w2"], params["b2"])
    return out, caches


def loss_and_gradients(params: Arrays, x: Array, y: Array, bn_param: dict, dropout_param: dict) -> tuple[Array, Arrays]:
    """Return the mean loss of a batch, and its gradients by the parameters' names; ``"x"`` is that of the images."""
    out, caches = scores(params, x, bn_param, dropout_param)
    loss, dout = course.softmax_loss(out, y)
    grads: Arrays = {}
    dout, grads["w2"], grads["b2"] = course.affine_backward(dout, caches[5])
    dout = course.dropout_backward(dout, caches[4])
    dout = course.max_pool_backward(dout, caches[3])
    dout = course.relu_backward(dout, caches[2])
    dout, grads["w1"], grads["b1"] = course.conv_backward(dout, caches[1])
    grads["x"], grads["gamma"], grads["beta"] = course.spatial_batchnorm_backward(dout, caches[0])
    return loss, grads


def gradient_errors() -> dict[str, float]:
    """Return the largest difference between gradient and numerical gradient, over the largest gradient, by name.

    The network is small and in float64; a seed fixes dropout's mask.
    """
    random.seed(0)
    params = fresh(filters=2, image=(1, 6, 6), classes=3, weight_scale=0.5, dtype="float64")
    x, y = random.normal((3, 1, 6, 6), dtype="float64"), xp.asarray([2, 0, 1])
    dropout_param = {"mode": "train", "p": 0.8, "seed": 1}

    def loss(_: Array) -> Array:
        out, _caches = scores(params, x, {"mode": "train"}, dropout_param)
        return course.softmax_loss(out, y)[0]

    _, grads = loss_and_gradients(params, x, y, {"mode": "train"}, dropout_param)
    errors = {}
    for name, array in {**params, "x": x}.items():
        numerical = numerical_gradient(loss, array)
        errors[name] = float(abs(grads[name] - numerical).max() / abs(numerical).max())
    return errors


def train(
    x: Array, y: Array, test_x: Array, test_y: Array, epochs: int, filters: int = 16
) -> Iterator[tuple[float, ...]]:
    """Train by gradient descent, batches of 50, rate 0.03; yield (mean loss, training accuracy, test accuracy)."""
    random.seed(0)
    params = fresh(filters, x.shape[1:], classes=10)
    bn_param, dropout_param = {"mode": "train"}, {"mode": "train", "p": 0.5}
    for _ in range(epochs):
        losses = []
        order = random.permutation(len(x))
        for first in range(0, len(x), 50):
            batch = asarray(order[first : first + 50])
            loss, grads = loss_and_gradients(params, x[batch], y[batch], bn_param, dropout_param)
            losses.append(loss)  # stays on the device, so that no step waits
            for name, array in params.items():
                array -= 0.03 * grads[name]
        yield (
            float(xp.stack(losses).mean()),
            *(accuracy(params, bn_param, *data) for data in ((x, y), (test_x, test_y))),
        )


def accuracy(params: Arrays, bn_param: dict, x: Array, y: Array) -> float:
    """Return the share of images that are classified correctly."""
    out, _ = scores(params, x, {**bn_param, "mode": "test"}, {"mode": "test", "p": 1})
    return float((out.argmax(axis=1) == y).mean())


def digits(training: int) -> tuple[Array, Array, Array, Array]:
    """Return the first ``training`` training digits of the package, and all its test digits."""
    (x, y), (test_x, test_y) = load_digits(flatten=False)
    return x[:training], y[:training], test_x, test_y


@click.command()
@option("--images", type=click.IntRange(1, 10000), default=800, help="Training images.")
@option("--epochs", type=count, default=10)
@device_option
def main(images: int, epochs: int, device: str) -> None:
    """Check the functional layers as courses do, then train a network of them."""
    prepare(device)
    click.echo(f"{'':38}{'ours':>36}{'text':>36}")
    for name, ours, text in course_checks():
        for row, (one, other) in enumerate(zip(np.atleast_2d(ours), np.atleast_2d(text), strict=True)):
            click.echo(f"{'' if row else name:38}{_shown(one):>36}{_shown(other):>36}")
    click.echo("\n|gradient - numerical gradient|, largest over largest gradient")
    for name, error in gradient_errors().items():
        click.echo(f"  {name:6}{error:.1e}")
    click.echo("\nwhere naive versions go wrong")
    for what, found in corrections():
        click.echo(f"  {what:72}{found if isinstance(found, tuple) else asnumpy(found).ravel().tolist()}")
    click.echo(f"\n{images} digits: epoch   loss  training    test")
    for epoch, measured in enumerate(train(*digits(images), epochs), 1):
        click.echo("{:17}{:8.4f}{:9.2%}{:9.2%}".format(epoch, *measured))


def _shown(row: np.ndarray) -> str:
    return " ".join(f"{value:.8f}" for value in row)


if __name__ == "__main__":
    main()
