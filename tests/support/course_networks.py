"""The networks that students of the course write, made only of names of ``layers.compat.course``."""

import itertools
import math
from typing import Any

import numpy as np

import backend
from layers.compat import course


class TwoLayerNet:
    """affine - relu - affine - softmax."""

    def __init__(self, input_dim=3072, hidden_dim=100, num_classes=10, weight_scale=1e-3, reg=0.0, rng=np.random):
        self.reg = reg
        self.params = {
            "W1": backend.asarray(weight_scale * rng.randn(input_dim, hidden_dim)),
            "b1": backend.asarray(np.zeros(hidden_dim)),
            "W2": backend.asarray(weight_scale * rng.randn(hidden_dim, num_classes)),
            "b2": backend.asarray(np.zeros(num_classes)),
        }

    def loss(self, X, y=None):
        p, grads = self.params, {}
        hidden, first = course.affine_relu_forward(X, p["W1"], p["b1"])
        scores, second = course.affine_forward(hidden, p["W2"], p["b2"])
        if y is None:
            return scores
        loss, dout = course.softmax_loss(scores, y)
        dout, grads["W2"], grads["b2"] = course.affine_backward(dout, second)
        _, grads["W1"], grads["b1"] = course.affine_relu_backward(dout, first)
        return regularized(loss, grads, p, self.reg), grads


class FullyConnectedNet:
    """(affine - [batch or layer norm] - relu - [dropout]) for each hidden layer - affine - softmax."""

    def __init__(
        self,
        hidden_dims,
        input_dim=3072,
        num_classes=10,
        dropout=1,
        normalization=None,
        reg=0.0,
        weight_scale=1e-2,
        dtype=np.float32,
        seed=None,
        rng=np.random,
        **norm_param,
    ):
        self.reg, self.dtype, self.layers = reg, dtype, len(hidden_dims) + 1
        self.normalization = normalization or ""
        self.dropout_param = {"mode": "train", "p": dropout, "seed": seed} if dropout != 1 else None
        self.norm_params = [{"mode": "train", **norm_param} for _ in hidden_dims]
        self.params = {}
        sizes = [input_dim, *hidden_dims, num_classes]
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes), 1):
            self.params[f"W{i}"] = weight_scale * rng.randn(inputs, outputs)
            self.params[f"b{i}"] = np.zeros(outputs)
            if self.normalization and i < self.layers:
                self.params[f"gamma{i}"], self.params[f"beta{i}"] = np.ones(outputs), np.zeros(outputs)
        self.params = {name: backend.asarray(value.astype(dtype)) for name, value in self.params.items()}

    def loss(self, X, y=None):
        p, grads, caches, mode = self.params, {}, [], "test" if y is None else "train"
        forward: Any
        backward: Any
        forward, backward = {
            "batchnorm": (course.affine_bn_relu_forward, course.affine_bn_relu_backward),
            "layernorm": (course.affine_ln_relu_forward, course.affine_ln_relu_backward),
            "": (course.affine_relu_forward, course.affine_relu_backward),
        }[self.normalization]
        names = [name for name in ("W", "b", "gamma", "beta") if f"{name}1" in p]
        out = X.astype(self.dtype)
        for i, norm_param in enumerate(self.norm_params, 1):
            norm_param["mode"] = mode
            more = [norm_param] if self.normalization else []
            out, cache = forward(out, *(p[f"{name}{i}"] for name in names), *more)
            dropped = None
            if self.dropout_param:
                self.dropout_param["mode"] = mode
                out, dropped = course.dropout_forward(out, self.dropout_param)
            caches.append((cache, dropped))
        scores, last = course.affine_forward(out, p[f"W{self.layers}"], p[f"b{self.layers}"])
        if y is None:
            return scores
        loss, dout = course.softmax_loss(scores, y)
        dout, grads[f"W{self.layers}"], grads[f"b{self.layers}"] = course.affine_backward(dout, last)
        for i, (cache, dropped) in reversed(list(enumerate(caches, 1))):
            if dropped:
                dout = course.dropout_backward(dout, dropped)
            dout, *of_parameters = backward(dout, cache)
            grads.update(zip((f"{name}{i}" for name in names), of_parameters, strict=True))
        return regularized(loss, grads, p, self.reg), grads


class ThreeLayerConvNet:
    """conv - relu - 2x2 max pool - affine - relu - affine - softmax."""

    def __init__(
        self,
        input_dim=(3, 32, 32),
        num_filters=32,
        filter_size=7,
        hidden_dim=100,
        num_classes=10,
        weight_scale=1e-3,
        reg=0.0,
        dtype=np.float32,
        rng=np.random,
    ):
        channels, height, width = input_dim
        self.reg = reg
        self.params = {
            "W1": weight_scale * rng.randn(num_filters, channels, filter_size, filter_size),
            "b1": np.zeros(num_filters),
            "W2": weight_scale * rng.randn(math.prod((num_filters, height // 2, width // 2)), hidden_dim),
            "b2": np.zeros(hidden_dim),
            "W3": weight_scale * rng.randn(hidden_dim, num_classes),
            "b3": np.zeros(num_classes),
        }
        self.params = {name: backend.asarray(value.astype(dtype)) for name, value in self.params.items()}

    def loss(self, X, y=None):
        p, grads = self.params, {}
        conv_param = {"stride": 1, "pad": (p["W1"].shape[2] - 1) // 2}
        pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
        out, first = course.conv_relu_pool_forward(X, p["W1"], p["b1"], conv_param, pool_param)
        out, second = course.affine_relu_forward(out, p["W2"], p["b2"])
        scores, third = course.affine_forward(out, p["W3"], p["b3"])
        if y is None:
            return scores
        loss, dout = course.softmax_loss(scores, y)
        dout, grads["W3"], grads["b3"] = course.affine_backward(dout, third)
        dout, grads["W2"], grads["b2"] = course.affine_relu_backward(dout, second)
        _, grads["W1"], grads["b1"] = course.conv_relu_pool_backward(dout, first)
        return regularized(loss, grads, p, self.reg), grads


def regularized(loss, grads, params, reg):
    """Return the loss plus half the regularization times the squares of all weights; add its gradients in place."""
    for name in grads:
        if name.startswith("W"):
            loss = loss + 0.5 * reg * (params[name] ** 2).sum()
            grads[name] += reg * params[name]
    return loss
