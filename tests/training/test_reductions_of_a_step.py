"""Training steps launch no reduction of CuPy: on a real GPU these are other kernels than on the emulated device."""

import numpy as np
import pytest

import backend
from layers import HingeLoss, HuberLoss, MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss
from tests.support import networks
from training.data import Loader
from training.loop.trainer import Trainer
from training.models import Network
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import Adam
from training.optim.schedules import CosineSchedule
from training.optim.update import Update
from training.profile.meter import example_batch

pytestmark = pytest.mark.gpu

ELEMENTWISE = {"cupy_where", "cupy_take", "cupy_arange", "cupy_clip", "cupy_fill"}
"""Kernels of CuPy without types in their names that add nothing up. Those of ufuncs have types: cupy_add__float32_…"""

LOSSES = {
    "label smoothing": lambda: SoftmaxWithLoss(label_smoothing=0.1, ignore_index=3),
    "hinge": HingeLoss,
}


@pytest.fixture(autouse=True)
def _on_the_emulated_device():
    pytest.importorskip("cuda_on_cpu", reason="kernels are known by name on the emulated device only")
    with backend.use("cuda"):
        yield


def reductions(work):
    """Return the names of CuPy's kernels in ``work`` that may be reductions."""
    import cuda_on_cpu

    cuda_on_cpu.reset()
    work()
    return {name for name in cuda_on_cpu.kernels() if name.startswith("cupy_") and "__" not in name} - ELEMENTWISE


def step(network, dtype, clip_norm):
    scaler = LossScaler() if dtype == "float16" else None
    update = Update(Adam(), clip_norm=clip_norm, scaler=scaler)
    x, t = example_batch(network, 8)
    network.step_gradients(x, t, update.loss_scale)
    update.step(network.params, network.grads)


@pytest.mark.parametrize(("dtype", "clip_norm"), [("float32", None), ("float16", 1.0)])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_of_every_layer(name, dtype, clip_norm):
    network = networks.NETWORKS[name]().astype(dtype)
    assert reductions(lambda: step(network, dtype, clip_norm)) == set()


@pytest.mark.parametrize("loss", [*LOSSES.values(), SigmoidWithLoss, MeanSquaredError, HuberLoss])
def test_of_every_loss(loss):
    plain = networks.NETWORKS["TwoLayerNet"]()
    network = Network(plain.layers, plain.input_dim, loss=loss())
    x, t = example_batch(plain, 8)
    if not isinstance(network.last_layer, (SoftmaxWithLoss, HingeLoss)):
        t = (t[:, None] == backend.xp.arange(10)).astype("float32")
    assert reductions(lambda: network.step_gradients(x, t)) == set()


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(("dtype", "clip_norm"), [("float32", None), ("float16", 1.0)])
def test_of_a_whole_step_of_a_trainer(dtype, clip_norm, graph):
    """With the loader, the callbacks, the totals of the epoch and the schedule; eagerly, and as a replayed graph."""
    network = networks.NETWORKS["SimpleConvNet"]().astype(dtype)
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (24, *network.input_dim), "uint8")
    loader = Loader(images, numbers.integers(0, 10, 24), 4, dtype=dtype)
    scaler = LossScaler() if dtype == "float16" else None
    update = Update(Adam(), CosineSchedule(0.01, 6), clip_norm, scaler)
    trainer = Trainer(network, loader, loader, update, graph=graph)
    steps = trainer.steps(1)
    for _ in range(4):  # the first reads the parameters, the third is captured and compared
        next(steps)
    assert reductions(lambda: next(steps)) == set()
    assert trainer.running_totals().get()[2] == 20


def test_a_reduction_of_cupy_is_seen():
    x = backend.xp.ones((4, 5), "float32")
    for name in ("sum", "max", "mean", "argmax", "prod", "all"):
        assert reductions(getattr(x, name)) == {f"cupy_{name}"}
