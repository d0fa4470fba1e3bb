"""Functions that take a dictionary, network, loader or array raise one error that names any other object."""

import numpy as np
import pytest

import backend
from backend import random
from kernels import activations, convolution, gemm, max_pooling, pooling
from kernels import softmax as scores
from kernels.core.window import Window
from layers import Affine, Relu, Residual, Sequential, col2im, im2col
from training.check.gradients import gradient_check
from training.data import Loader
from training.loop import evaluation
from training.models import TwoLayerNet
from training.models import named as models
from training.models.accuracy import correct_count
from training.models.network import Network
from training.models.parameters import ParameterDict
from training.optim import clipping, optimizers, schedules
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import SGD, Adam

X, T, W = np.ones((5, 4), "float32"), np.array([0, 1, 0, 1, 0]), np.ones((3, 2), "float32")
IMAGE = np.ones((1, 1, 4, 4))


def network():
    return TwoLayerNet(4, 3, 2)


def state(**changed):
    return SGD().state_dict() | changed


CALLS = [
    ("params", lambda: SGD().update(None, {})),
    ("params", lambda: SGD().update([W], [W])),
    ("grads", lambda: SGD().update({"W": W}, None)),
    ("grads", lambda: SGD().update({"W": W}, {"W": "a"})),
    ("params", lambda: Adam().update({"W": W.astype(complex)}, {"W": W.astype(complex)})),
    ("saved", lambda: SGD().load_state_dict(None)),
    ("t must", lambda: SGD().load_state_dict(state(t=1.5))),
    ("t must", lambda: SGD().load_state_dict(state(t=float("nan")))),
    ("lr must", lambda: SGD().load_state_dict(state(lr=None))),
    ("m.W", lambda: Adam().load_state_dict({**Adam().state_dict(), "m.W": 3, "v.W": 3})),
    ("saved", lambda: LossScaler().load_state_dict(None)),
    ("grads", lambda: clipping.gradient_norm(None)),
    ("grads", lambda: clipping.clip_gradients([W], 1)),
    ("layers", lambda: Network(None, (4,))),
    ("input_dim", lambda: Network(Sequential(Affine.of(4, 2)), "ab")),
    ("input_dim", lambda: Network(Sequential(Affine.of(4, 2)), (0,))),
    ("x must", lambda: network().predict(None)),
    ("x must", lambda: network().predict([[1.0, 2, 3, 4]])),
    ("x must", lambda: network().loss(None, T)),
    ("x must", lambda: network().gradient("x", T)),
    ("labels", lambda: network().loss(X, None)),
    ("scale", lambda: network().step_gradients(X, T, scale=None)),
    ("scale", lambda: network().step_gradients(X, T, scale=np.ones(3))),
    ("scores", lambda: correct_count(None, T)),
    ("device", lambda: network().to(None)),
    ("network", lambda: evaluation.predict(None, None)),
    ("samples", lambda: evaluation.predict(network(), None)),
    ("images", lambda: Loader(None, T, 1)),
    ("images", lambda: Loader([[1, 2], [3]], T, 1)),
    ("labels", lambda: Loader(X, None, 1)),
    ("config", lambda: models.build(None)),
    ("model", lambda: models.build({"model": ["TwoLayerNet"]})),
    ("shapes", lambda: ParameterDict(None, "float32", np)),
    ("name", lambda: optimizers.by_name(["sgd"])),
    ("name", lambda: schedules.by_name({}, 0.1, 3)),
    ("model", lambda: gradient_check(None, X)),
    ("x must", lambda: gradient_check(Affine.of(4, 2), "abc")),
    ("array", lambda: backend.copy_to_host(None)),
    ("state", lambda: setattr(random.default, "state", None)),
    ("x must", lambda: scores.softmax([1.0, 2])),
    ("labels", lambda: scores.softmax_cross_entropy(X, None)),
    ("x must", lambda: activations.relu([1.0])),
    ("x must", lambda: activations.sigmoid(np.ones(3, int))),
    ("x must", lambda: activations.gelu(np.ones(3, int))),
    ("b must", lambda: activations.add(X, None)),
    ("b must", lambda: gemm.matmul(X, [1])),
    ("window", lambda: max_pooling.max_pool(IMAGE, None)),
    ("window", lambda: pooling.average_pool(IMAGE, (2, 2))),
    ("weight", lambda: convolution.convolution(IMAGE, None, None, Window(2))),
    ("bias", lambda: convolution.convolution(IMAGE, np.ones((1, 1, 2, 2)), "b", Window(2))),
    ("numbers", lambda: im2col(None, 2, 2)),
    ("input_shape", lambda: col2im(np.ones((9, 4)), (1, 1, 4), 2, 2)),
    ("body", lambda: Residual(None)),
    ("shortcut", lambda: Residual(Relu(), "x")),
    ("name must", lambda: Sequential({1: Relu()})),
    ("Layer", lambda: Sequential(Relu)),
    ("mode", lambda: Relu().train("x")),
    ("name must", lambda: Affine.of(3, 2).bind("Q", W, W)),
    ("value", lambda: Affine.of(3, 2).bind("W", None, W)),
]


@pytest.mark.parametrize(("word", "call"), CALLS)
def test_an_object_of_another_kind_is_named(word, call):
    before = random.default.state
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(random.default.state[key] == before[key] for key in ("seed", "stream"))
