"""The operations as plain loops in float64, written from their definitions and not from the code under test.

Along an image axis, each window has the position of its first tap: position p with tap k meets pixel p + k·dilation, or
padding if that pixel does not exist. Nothing else is assumed about the geometry of a window.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """A window in numbers only: (rows, columns) pairs, pads as (top, bottom, left, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False


def starts(size, kernel, stride, before, after, dilation, ceil=False):
    """Return the pixel position (negative inside the padding) of the first tap of every window along one axis."""
    end = size + after  # one past the last position a window may use
    positions = []
    position = -before
    while position + (kernel - 1) * dilation < end:
        positions.append(position)
        position += stride
    leftover = positions and positions[-1] + (kernel - 1) * dilation < end - 1
    if ceil and leftover and position < size:
        positions.append(position)
    return positions


def same_pads(size, kernel, stride, dilation):
    """Return (before, after), the least padding that gives ⌈size / stride⌉ windows; an odd one goes after."""
    total = 0
    while len(starts(size, kernel, stride, total // 2, total - total // 2, dilation)) != math.ceil(size / stride):
        total += 1
    return total // 2, total - total // 2


def grid(geometry, image):
    """Return the first-tap rows and columns of all windows over an image (H, W)."""
    (fh, fw), (sh, sw), (top, bottom, left, right), (dh, dw), ceil = geometry
    return starts(image[0], fh, sh, top, bottom, dh, ceil), starts(image[1], fw, sw, left, right, dw, ceil)


def pixels(geometry, image):
    """Yield every pair of a window and an existing pixel in it, taps ascending: (oh, ow, i, j, row, column)."""
    rows, columns = grid(geometry, image)
    for i, j in itertools.product(range(geometry.kernel[0]), range(geometry.kernel[1])):
        for (oh, first_row), (ow, first_column) in itertools.product(enumerate(rows), enumerate(columns)):
            row, column = first_row + i * geometry.dilation[0], first_column + j * geometry.dilation[1]
            if 0 <= row < image[0] and 0 <= column < image[1]:
                yield oh, ow, i, j, row, column


def im2col(x, geometry, order="CHW"):
    """Return the columns (N·OH·OW, C·FH·FW), in the dtype of ``x``."""
    n, c, h, w = x.shape
    rows, columns = grid(geometry, (h, w))
    result = np.zeros((n, len(rows), len(columns), c, *geometry.kernel), x.dtype)
    for oh, ow, i, j, row, column in pixels(geometry, (h, w)):
        for image, channel in itertools.product(range(n), range(c)):
            result[image, oh, ow, channel, i, j] = x[image, channel, row, column]
    if order == "HWC":
        result = result.transpose(0, 1, 2, 4, 5, 3)
    return result.reshape(n * len(rows) * len(columns), c * geometry.kernel[0] * geometry.kernel[1])


def col2im(columns, shape, geometry, order="CHW", dtype=np.float64):
    """Return the sum over each pixel's windows of their element for it, added in ``dtype`` with taps ascending."""
    n, c, h, w = shape
    rows, outs = grid(geometry, (h, w))
    fh, fw = geometry.kernel
    inner = (c, fh, fw) if order == "CHW" else (fh, fw, c)
    held = np.asarray(columns).reshape(n, len(rows), len(outs), *inner)
    if order == "HWC":
        held = held.transpose(0, 1, 2, 5, 3, 4)
    total = np.zeros(shape, dtype)
    for oh, ow, i, j, row, column in pixels(geometry, (h, w)):
        for image, channel in itertools.product(range(n), range(c)):
            total[image, channel, row, column] += held[image, oh, ow, channel, i, j]
    return total


def _connections(weight_shape, groups):
    """Yield the connections of filters and channels: (filter, channel, index of the channel in the filter)."""
    fn, own_channels = weight_shape[:2]
    for f, own in itertools.product(range(fn), range(own_channels)):
        group = f // (fn // groups)
        yield f, group * own_channels + own, own


def convolution(x, weight, bias, geometry, groups=1):
    """Return y[n, f, oh, ow] = Σ x[n, channel, row, column] · weight[f, own, i, j] + bias[f]."""
    x, weight = np.float64(x), np.float64(weight)
    rows, columns = grid(geometry, x.shape[2:])
    y = np.zeros((len(x), len(weight), len(rows), len(columns)))
    for oh, ow, i, j, row, column in pixels(geometry, x.shape[2:]):
        for f, channel, own in _connections(weight.shape, groups):
            for n in range(len(x)):
                y[n, f, oh, ow] += x[n, channel, row, column] * weight[f, own, i, j]
    if bias is not None:
        for f in range(len(weight)):
            y[:, f] += np.float64(bias[f])
    return y


def convolution_backward_input(dy, weight, shape, geometry, groups=1):
    """Return dx: every product of the forward sum adds dy · weight to its pixel."""
    dy, weight = np.float64(dy), np.float64(weight)
    dx = np.zeros(shape)
    for oh, ow, i, j, row, column in pixels(geometry, shape[2:]):
        for f, channel, own in _connections(weight.shape, groups):
            for n in range(shape[0]):
                dx[n, channel, row, column] += dy[n, f, oh, ow] * weight[f, own, i, j]
    return dx


def convolution_backward_weight(x, dy, shape, geometry, groups=1):
    """Return dW: every product of the forward sum adds dy · x to its tap."""
    x, dy = np.float64(x), np.float64(dy)
    dw = np.zeros(shape)
    for oh, ow, i, j, row, column in pixels(geometry, x.shape[2:]):
        for f, channel, own in _connections(shape, groups):
            for n in range(len(x)):
                dw[f, own, i, j] += dy[n, f, oh, ow] * x[n, channel, row, column]
    return dw


def _windows(shape, geometry):
    """Yield every window of every plane: (n, c, oh, ow, [(row, column) of its pixels, taps ascending])."""
    rows, columns = grid(geometry, shape[2:])
    inside: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for oh, ow, _, _, row, column in pixels(geometry, shape[2:]):
        inside.setdefault((oh, ow), []).append((row, column))
    for n, c, oh, ow in itertools.product(*map(range, (shape[0], shape[1], len(rows), len(columns)))):
        yield n, c, oh, ow, inside.get((oh, ow), [])


def max_pool(x, geometry):
    """Return (y, argmax as row·W + column): the first largest pixel of every window, or its first NaN."""
    rows, columns = grid(geometry, x.shape[2:])
    y = np.zeros((*x.shape[:2], len(rows), len(columns)), x.dtype)
    argmax = np.zeros(y.shape, np.int32)
    for n, c, oh, ow, inside in _windows(x.shape, geometry):
        best = inside[0]
        for row, column in inside[1:]:
            pixel, most = float(x[n, c, row, column]), float(x[n, c][best])
            if not math.isnan(most) and (math.isnan(pixel) or pixel > most):
                best = row, column
        y[n, c, oh, ow] = x[n, c][best]
        argmax[n, c, oh, ow] = best[0] * x.shape[3] + best[1]
    return y, argmax


def max_pool_backward(dy, argmax, shape):
    """Return dx: each window's gradient goes to the pixel of its argmax."""
    dx = np.zeros(shape)
    for n, c, oh, ow in itertools.product(*map(range, dy.shape)):
        row, column = divmod(int(argmax[n, c, oh, ow]), shape[3])
        dx[n, c, row, column] += float(dy[n, c, oh, ow])
    return dx


def _shares(shape, geometry, count_padding):
    """Return the number of positions that count in the mean, for every window of a plane."""
    rows, columns = grid(geometry, shape[2:])
    top, bottom, left, right = geometry.pads if count_padding else (0, 0, 0, 0)
    counts = np.zeros((len(rows), len(columns)))
    for (oh, first_row), (ow, first_column) in itertools.product(enumerate(rows), enumerate(columns)):
        for i, j in itertools.product(range(geometry.kernel[0]), range(geometry.kernel[1])):
            row, column = first_row + i * geometry.dilation[0], first_column + j * geometry.dilation[1]
            counts[oh, ow] += -top <= row < shape[2] + bottom and -left <= column < shape[3] + right
    return counts


def average_pool(x, geometry, count_padding=False):
    """Return the mean of the window's pixels; with ``count_padding``, of its pixels and the zeros of the padding."""
    counts = _shares(x.shape, geometry, count_padding)
    y = np.zeros((*x.shape[:2], *counts.shape))
    for n, c, oh, ow, inside in _windows(x.shape, geometry):
        y[n, c, oh, ow] = math.fsum(float(x[n, c, row, column]) for row, column in inside) / counts[oh, ow]
    return y


def average_pool_backward(dy, shape, geometry, count_padding=False):
    """Return dx: each window's gradient is divided equally among its pixels."""
    counts = _shares(shape, geometry, count_padding)
    dx = np.zeros(shape)
    for n, c, oh, ow, inside in _windows(shape, geometry):
        for row, column in inside:
            dx[n, c, row, column] += float(dy[n, c, oh, ow]) / counts[oh, ow]
    return dx


def batch_norm(x, gamma, beta, epsilon):
    """Return (y, mean, variance) for each column of (M, C); the variance is the biased one."""
    m, c = x.shape
    y, means, variances = np.zeros((m, c)), np.zeros(c), np.zeros(c)
    for k in range(c):
        column = [float(value) for value in x[:, k]]
        means[k] = math.fsum(column) / m
        variances[k] = math.fsum((value - means[k]) ** 2 for value in column) / m
        for row, value in enumerate(column):
            normalized = (value - means[k]) / math.sqrt(variances[k] + epsilon)
            y[row, k] = float(gamma[k]) * normalized + float(beta[k])
    return y, means, variances


def batch_norm_backward(dy, x, gamma, epsilon):
    """Return (dx, dgamma, dbeta) by the chain rule, following section 3 of Ioffe and Szegedy."""
    m, c = x.shape
    dx, dgamma, dbeta = np.zeros((m, c)), np.zeros(c), np.zeros(c)
    _, means, variances = batch_norm(x, gamma, gamma, epsilon)
    for k in range(c):
        upstream = [float(value) for value in dy[:, k]]
        deviation = [float(value) - means[k] for value in x[:, k]]
        sigma = math.sqrt(variances[k] + epsilon)
        dgamma[k] = math.fsum(u * d / sigma for u, d in zip(upstream, deviation, strict=True))
        dbeta[k] = math.fsum(upstream)
        dnormalized = [u * float(gamma[k]) for u in upstream]
        dvariance = math.fsum(g * d for g, d in zip(dnormalized, deviation, strict=True)) * -0.5 * sigma**-3
        dmean = math.fsum(-g / sigma for g in dnormalized) + dvariance * math.fsum(-2 * d for d in deviation) / m
        for row in range(m):
            dx[row, k] = dnormalized[row] / sigma + dvariance * 2 * deviation[row] / m + dmean / m
    return dx, dgamma, dbeta


def softmax(x):
    """Return exp(x) / Σ exp(x) of each row of (N, K)."""
    y = np.zeros(x.shape)
    for row, scores in enumerate(x):
        most = max(float(score) for score in scores)
        powers = [math.exp(float(score) - most) for score in scores]
        y[row] = [power / math.fsum(powers) for power in powers]
    return y


def softmax_cross_entropy(x, t):
    """Return the mean over rows of -Σ t·log softmax(x), for labels as indices or as distributions; 0·log 0 is 0."""
    losses = []
    for scores, label in zip(x, t, strict=True):
        scores = [float(score) for score in scores]
        most = max(scores)
        log_total = most + math.log(math.fsum(math.exp(score - most) for score in scores))
        shares = [float(k == label) for k in range(len(scores))] if np.ndim(label) == 0 else map(float, label)
        losses.append(math.fsum(s * (log_total - score) for s, score in zip(shares, scores, strict=True) if s))
    return math.fsum(losses) / len(losses)


def softmax_cross_entropy_backward(x, t):
    """Return the gradient of ``softmax_cross_entropy`` with respect to the scores."""
    dx = softmax(x)
    for row, label in enumerate(t):
        if np.ndim(label) == 0:
            dx[row, label] -= 1
        else:
            dx[row] = dx[row] * math.fsum(map(float, label)) - np.float64(label)
    return dx / len(x)
