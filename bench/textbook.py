"""Convolutional networks as textbooks teach them: im2col, np.dot and col2im on (N, C, H, W), nothing reused.

The lower bound of the comparison: plain NumPy in float32, written for reading and not for speed.
"""

from __future__ import annotations

import numpy as np


def im2col(x, size, stride, pad):
    """Return the windows of (N, C, H, W) as rows (N·OH·OW, C·size·size)."""
    n, c, h, w = x.shape
    oh, ow = (h + 2 * pad - size) // stride + 1, (w + 2 * pad - size) // stride + 1
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    columns = np.zeros((n, c, size, size, oh, ow), x.dtype)
    for i in range(size):
        for j in range(size):
            columns[:, :, i, j] = padded[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride]
    return columns.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, c * size * size)


def col2im(columns, shape, size, stride, pad):
    """Add rows of windows back into an image of ``shape``."""
    n, c, h, w = shape
    oh, ow = (h + 2 * pad - size) // stride + 1, (w + 2 * pad - size) // stride + 1
    windows = columns.reshape(n, oh, ow, c, size, size).transpose(0, 3, 4, 5, 1, 2)
    image = np.zeros((n, c, h + 2 * pad + stride - 1, w + 2 * pad + stride - 1), columns.dtype)
    for i in range(size):
        for j in range(size):
            image[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride] += windows[:, :, i, j]
    return image[:, :, pad : pad + h, pad : pad + w]


class Affine:
    def __init__(self, W, b):
        self.params, self.grads = {"W": W.copy(), "b": b.copy()}, {}

    def forward(self, x):
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        return np.dot(self.x, self.params["W"]) + self.params["b"]

    def backward(self, dout):
        self.grads["W"] = np.dot(self.x.T, dout)
        self.grads["b"] = np.sum(dout, axis=0)
        return np.dot(dout, self.params["W"].T).reshape(self.shape)


class Convolution:
    def __init__(self, W, b, stride, pad):
        self.params, self.grads = {"W": W.copy(), "b": b.copy()}, {}
        self.stride, self.pad = stride, pad

    def forward(self, x):
        W, b = self.params["W"], self.params["b"]
        filters, _, size, _ = W.shape
        n, _, h, w = x.shape
        oh, ow = (h + 2 * self.pad - size) // self.stride + 1, (w + 2 * self.pad - size) // self.stride + 1
        self.x = x
        self.columns = im2col(x, size, self.stride, self.pad)
        self.matrix = W.reshape(filters, -1).T
        out = np.dot(self.columns, self.matrix) + b
        return out.reshape(n, oh, ow, filters).transpose(0, 3, 1, 2)

    def backward(self, dout):
        W = self.params["W"]
        dout = dout.transpose(0, 2, 3, 1).reshape(-1, len(W))
        self.grads["b"] = np.sum(dout, axis=0)
        self.grads["W"] = np.dot(self.columns.T, dout).T.reshape(W.shape)
        return col2im(np.dot(dout, self.matrix.T), self.x.shape, W.shape[2], self.stride, self.pad)


class Pooling:
    def __init__(self, size, stride, pad):
        self.params, self.grads = {}, {}
        self.size, self.stride, self.pad = size, stride, pad

    def forward(self, x):
        n, c, h, w = self.shape = x.shape
        oh = (h + 2 * self.pad - self.size) // self.stride + 1
        ow = (w + 2 * self.pad - self.size) // self.stride + 1
        columns = im2col(x, self.size, self.stride, self.pad).reshape(-1, self.size * self.size)
        self.argmax = np.argmax(columns, axis=1)
        return np.max(columns, axis=1).reshape(n, oh, ow, c).transpose(0, 3, 1, 2)

    def backward(self, dout):
        dout = dout.transpose(0, 2, 3, 1)
        columns = np.zeros((dout.size, self.size * self.size), dout.dtype)
        columns[np.arange(dout.size), self.argmax] = dout.flatten()
        return col2im(columns, self.shape, self.size, self.stride, self.pad)


class Relu:
    def __init__(self):
        self.params, self.grads = {}, {}

    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout):
        dx = dout.copy()
        dx[self.mask] = 0
        return dx


class Dropout:
    def __init__(self, ratio):
        self.params, self.grads = {}, {}
        self.ratio = ratio

    def forward(self, x):
        self.mask = np.random.rand(*x.shape) > self.ratio
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class BatchNormalization:
    """Batch normalization of each channel of (N, C, H, W)."""

    def __init__(self, gamma, beta):
        self.params, self.grads = {"gamma": gamma.copy(), "beta": beta.copy()}, {}
        self.running_mean, self.running_var = np.zeros_like(gamma), np.ones_like(gamma)

    def forward(self, x):
        self.shape = x.shape
        rows = x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
        mean = rows.mean(axis=0)
        self.centered = rows - mean
        variance = np.mean(self.centered**2, axis=0)
        self.std = np.sqrt(variance + 1e-5)
        self.normalized = self.centered / self.std
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean
        self.running_var = 0.9 * self.running_var + 0.1 * variance
        return self._images(self.params["gamma"] * self.normalized + self.params["beta"])

    def backward(self, dout):
        rows = dout.transpose(0, 2, 3, 1).reshape(-1, dout.shape[1])
        self.grads["beta"] = rows.sum(axis=0)
        self.grads["gamma"] = np.sum(self.normalized * rows, axis=0)
        dnormalized = self.params["gamma"] * rows
        dcentered = dnormalized / self.std
        dstd = -np.sum(dnormalized * self.centered / (self.std * self.std), axis=0)
        dvariance = 0.5 * dstd / self.std
        dcentered += 2.0 / len(rows) * self.centered * dvariance
        return self._images(dcentered - np.sum(dcentered, axis=0) / len(rows))

    def _images(self, rows):
        n, c, h, w = self.shape
        return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)


class SoftmaxWithLoss:
    def forward(self, x, t):
        x = x - np.max(x, axis=1, keepdims=True)
        self.y = np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True)
        self.t = t
        return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)

    def backward(self):
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dx / len(self.t)


class SGD:
    def update(self, params, grads):
        for key in params:
            params[key] -= 0.01 * grads[key]


class Adam:
    def __init__(self):
        self.t, self.m, self.v = 0, {}, {}

    def update(self, params, grads):
        if not self.m:
            self.m = {key: np.zeros_like(value) for key, value in params.items()}
            self.v = {key: np.zeros_like(value) for key, value in params.items()}
        self.t += 1
        rate = float(0.001 * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t))
        for key in params:
            self.m[key] += 0.1 * (grads[key] - self.m[key])
            self.v[key] += 0.001 * (grads[key] ** 2 - self.v[key])
            params[key] -= rate * self.m[key] / (np.sqrt(self.v[key]) + 1e-8)
