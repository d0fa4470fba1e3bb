"""The cost model by numbers that one can count by hand, and what it makes of layers that it does not know."""

from dataclasses import astuple

import numpy as np
import pytest

from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Convolution,
    ConvolutionTranspose,
    Embedding,
    Layer,
    MultiHeadAttention,
    Pooling,
    PositionalEmbedding,
    PositionalEncoding,
    PositionwiseAffine,
    Relu,
    Residual,
    Sequential,
    Skip,
    SoftmaxWithLoss,
    Tanh,
    parameter,
)
from tests.support import networks
from training.models import DeepConvNet, Network, SimpleConvNet, TwoLayerNet
from training.optim import optimizers
from training.optim.optimizers import SGD, AdaGrad, Adam, AdamW, Momentum
from training.profile.cost import GPUS, Batch, Cost, Gpu, Work, cost_of, cost_of_step, formula

FLOAT = np.dtype("float32")


class Scale(Layer):
    """A layer of a user's own."""

    k, dk = parameter()

    def __init__(self, k):
        self.k = k

    def forward(self, x):
        return self.save(x * self.k, x)

    def backward(self, dout):
        (x,) = self.saved(dout)
        self.dk = (dout * x).sum(axis=0)
        return dout * self.k


class Clipped(Relu):
    """A layer of a user's own that does something else than its base."""

    def forward(self, x):
        return np.minimum(super().forward(x), 6)


class Renamed(Relu):
    """A layer of a user's own that does what its base does."""


def rows(cost):
    return {row.name: row for row in cost.rows}


def test_a_two_layer_network_counted_by_hand():
    cost = cost_of_step(TwoLayerNet(784, 50, 10), 100, SGD())
    found = rows(cost)
    assert list(found) == ["Affine1", "Relu1", "Affine2", "loss", "optimizer"]
    first, relu, second = (found[name] for name in ("Affine1", "Relu1", "Affine2"))
    products = 2 * 100 * 784 * 50
    # The bias, and the Relu behind, which is done along with it and leaves a mask.
    assert first.work["forward"] == Work(products, 2 * 5000, 4 * (78400 + 39200 + 50 + 5000) + 5000)
    # The gradient of the data is not made: one product, the mask applied, and the sum of a bias's gradient.
    assert first.work["backward"] == Work(products, 2 * 5000, 4 * (78400 + 5000 + 39200 + 50) + 5000)
    products = 2 * 100 * 50 * 10
    assert second.work["backward"] == Work(2 * products, 1000, 4 * (5000 + 1000 + 500 + 10 + 500 + 5000))
    assert relu.work == {}
    assert [first.kept, relu.kept, second.kept] == [4 * 78400, 5000, 4 * 5000]
    assert [first.parameters, relu.parameters, second.parameters] == [39250, 0, 510]
    assert (first.shape, second.shape) == ((50,), (10,))
    assert cost.parameters == 39760
    assert found["optimizer"].work["update"] == Work(0, 2 * 39760, 3 * 4 * 39760)
    assert cost.memory["optimizer state"] == 0


def test_a_convolution_counted_by_hand():
    layer = Convolution.of(16, 32, 3, pad=1)
    x = Batch(10, (16, 28, 28), FLOAT)
    forward, backward, *_ = cost = cost_of(layer, x)
    pixels, weights = 10 * 28 * 28, 32 * 16 * 9
    assert forward.product_flops == 2 * pixels * weights
    assert forward.nbytes == 4 * (pixels * 16 + weights + 32 + pixels * 32)
    assert backward.product_flops == 2 * forward.product_flops
    assert backward.nbytes == 4 * (2 * pixels * 16 + pixels * 32 + 2 * weights + 32)
    assert cost.keeps_input
    layer.input_gradient = False
    assert cost_of(layer, x).backward.product_flops == forward.product_flops


@pytest.mark.parametrize("causal", [False, True])
def test_attention_counted_by_hand(causal):
    """Four products with weights, two of the heads forward and five backward, which makes the scores again."""
    layer, x = MultiHeadAttention.of(12, 3, causal), Batch(10, (8, 12), FLOAT)
    forward, backward, kept, keeps_input, _ = cost_of(layer, x)
    weights, scores = 2 * 10 * 8 * 12 * 48, 10 * 8 * 8 // (2 if causal else 1)
    assert forward.product_flops == weights + 2 * (2 * scores * 12)
    assert backward.product_flops == 2 * weights + 5 * (2 * scores * 12)
    assert kept == 4 * (4 * 10 * 8 * 12 + 10 * 3 * 8)  # q, k, v, y and a number of each row
    assert keeps_input
    layer.input_gradient = False
    assert backward.product_flops - cost_of(layer, x).backward.product_flops == 2 * 10 * 8 * 12 * 36


def test_positions_counted_by_hand():
    x = Batch(10, (8, 12), FLOAT)
    forward, backward, *kept = cost_of(PositionwiseAffine.of(12, 5), x)
    assert forward == Work(2 * 80 * 12 * 5, 80 * 5, 4 * (80 * 12 + 12 * 5 + 5 + 80 * 5))
    assert backward.product_flops == 2 * forward.product_flops
    assert kept == [0, True, False]
    for layer, learned in ((PositionalEncoding(8, 12), 0), (PositionalEmbedding.of(8, 12), 1)):
        forward, backward, *kept = cost_of(layer, x)
        assert forward == Work(0, 960, 4 * (960 + 96 + 960))
        assert backward == Work(0, 960 * learned, 4 * (960 + 960 + 96 * learned))
        assert kept == [0, False, False]


def test_a_transposed_convolution_is_the_convolution_back():
    back, x = ConvolutionTranspose.of(32, 16, 3, pad=1), Batch(10, (32, 28, 28), FLOAT)
    forward = cost_of(back, x).forward
    there = cost_of(Convolution.of(16, 32, 3, pad=1), Batch(10, (16, 28, 28), FLOAT)).forward
    assert forward.product_flops == there.product_flops
    assert forward.nbytes == cost_of(back, x).backward.nbytes - x.nbytes - back.W.nbytes


def test_winograd_counted_by_hand():
    """36 products of a 4×4 tile's channels and filters, and the transforms by 6×6 and 4×6 matrices."""
    layer = Convolution.of(16, 32, 3, pad=1)
    layer.winograd = True
    tiles = 10 * 7 * 7
    multiplied = 36 * tiles * 16 * 32
    transformed = 36 * 36 * tiles * 16 + 16 * 36 * tiles * 32 + 9 * 36 * 16 * 32
    forward = cost_of(layer, Batch(10, (16, 28, 28), FLOAT)).forward
    assert forward.product_flops == 2 * (multiplied + transformed)


def test_published_operations_of_a_network():
    """VGG-16 has 15.5 billion multiplications with additions (Canziani, Paszke and Culurciello, 2017, and others)."""
    channels, image, total = 3, 224, 0
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layer = Convolution(np.broadcast_to(np.float32(0), (filters, channels, 3, 3)), np.zeros(filters, "f"), 1, 1)
            total += cost_of(layer, Batch(1, (channels, image, image), FLOAT)).forward.product_flops
            channels = filters
        image //= 2
    for inputs, outputs in ((25088, 4096), (4096, 4096), (4096, 1000)):
        layer = Affine(np.broadcast_to(np.float32(0), (inputs, outputs)), np.zeros(outputs, "f"))
        total += cost_of(layer, Batch(1, (inputs,), FLOAT)).forward.product_flops
    assert total / 2 == pytest.approx(15.5e9, rel=0.005)


def test_float16_halves_the_bytes_and_keeps_sums_and_masters_wide():
    single = cost_of_step(SimpleConvNet(), 10, Adam())
    half = cost_of_step(SimpleConvNet().astype("float16"), 10, Adam())
    for phase in ("forward", "backward"):
        one, other = (rows(cost)["Affine2"].work[phase] for cost in (single, half))
        assert one.nbytes == 2 * other.nbytes
        assert one.flops == other.flops
    assert half.memory["parameters"] == 2 * half.parameters
    assert half.memory["optimizer state"] == 3 * 4 * half.parameters  # m, v and the parameters themselves
    update = rows(half)["optimizer"].work["update"]
    assert update.nbytes == half.parameters * (3 * 2 + 2 * 3 * 4 + 2)  # the gradients are looked at once before


def test_weight_decay_is_work():
    plain, decaying = (cost_of_step(TwoLayerNet(6, 5, 3), 2, SGD(weight_decay=decay)) for decay in (0.0, 0.1))
    flops = [rows(cost)["optimizer"].work["update"].flops for cost in (plain, decaying)]
    assert flops[1] == 2 * flops[0] == 4 * plain.parameters
    decoupled = [rows(cost_of_step(TwoLayerNet(6, 5, 3), 2, AdamW(weight_decay=decay))) for decay in (0.0, 0.1)]
    assert decoupled[0]["optimizer"] == decoupled[1]["optimizer"]  # the formula has it


@pytest.mark.parametrize(
    ("optimizer", "flops"), [(SGD(), 2), (Momentum(), 4), (AdaGrad(), 7), (Adam(), 12), (AdamW(weight_decay=0.1), 14)]
)
def test_the_operations_of_an_update_counted_by_hand(optimizer, flops):
    cost = cost_of_step(TwoLayerNet(6, 5, 3), 2, optimizer)
    assert rows(cost)["optimizer"].work["update"].flops == flops * cost.parameters


def test_every_optimizer_of_the_library_is_known():
    for name in optimizers.NAMES:
        assert not cost_of_step(TwoLayerNet(6, 5, 3), 2, optimizers.by_name(name)).unknown


def test_an_optimizer_with_another_step_is_not_known():
    class Halved(SGD):
        formula = "p -= lr * g / 2;"

    class Renamed(SGD):
        pass

    assert cost_of_step(TwoLayerNet(6, 5, 3), 2, Halved()).unknown == ["optimizer"]
    assert not cost_of_step(TwoLayerNet(6, 5, 3), 2, Renamed()).unknown


def test_totals_are_sums():
    cost = cost_of_step(DeepConvNet(), 8, AdamW())
    works = [work for row in cost.rows for work in row.work.values()]
    for field in ("product_flops", "other_flops", "nbytes"):
        assert getattr(cost.total, field) == sum(getattr(work, field) for work in works)
    assert cost.kept == sum(row.kept for row in cost.rows)
    assert cost.parameters == DeepConvNet().params.flat.size


def test_a_relu_is_done_along_with_the_layer_before_it():
    alone = rows(cost_of_step(Network(Sequential(Tanh(), Relu(), Affine.of(6, 3)), (6,)), 8, Adam()))
    assert "forward" in alone["Relu1"].work
    joined = rows(cost_of_step(DeepConvNet(), 8, Adam()))
    assert [f"Relu{i}" for i in range(1, 8) if "forward" in joined[f"Relu{i}"].work] == []
    network = DeepConvNet()
    alone = cost_of(network.layers["Convolution2"], Batch(8, (16, 28, 28), FLOAT)).forward
    with_relu, mask = joined["Convolution2"].work["forward"], 8 * 16 * 28 * 28
    assert with_relu.nbytes == alone.nbytes + mask


def test_a_layer_that_nobody_declared_is_not_known_and_in_no_total():
    layers = Sequential(Affine.of(6, 5), Scale(np.ones(5, "f")), Clipped(), Renamed(), Affine.of(5, 3))
    network = Network(layers, (6,))
    cost = cost_of_step(network, 4, SGD())
    assert cost.unknown == ["Scale1", "Clipped1"]
    scale = rows(cost)["Scale1"]
    assert (scale.work, scale.kept, scale.shape, scale.parameters) == ({}, 0, (5,), 5)
    assert rows(cost)["Renamed1"].work == {
        "forward": cost_of(Relu(), Batch(4, (5,), FLOAT)).forward,
        "backward": cost_of(Relu(), Batch(4, (5,), FLOAT)).backward,
    }
    without = cost_of_step(Network(Sequential(Affine.of(6, 5), Renamed(), Affine.of(5, 3)), (6,)), 4, SGD())
    updates = [rows(each)["optimizer"].work["update"] for each in (cost, without)]
    assert cost.total.flops - updates[0].flops == without.total.flops - updates[1].flops
    assert cost.parameters == without.parameters + 5


def test_a_layer_of_ones_own_says_what_it_costs(monkeypatch):
    from training.profile.cost import work

    monkeypatch.setattr(work, "_FORMULAS", dict(work._FORMULAS))

    @formula(Scale)
    def scale(layer, x, y):
        forward = Work(other_flops=x.size, nbytes=x.nbytes + layer.k.nbytes + y.nbytes)
        return Cost(forward, Work(other_flops=3 * x.size), kept=7, keeps_input=True)

    network = Network(Sequential(Affine.of(6, 5), Scale(np.ones(5, "f")), Affine.of(5, 3)), (6,))
    cost = cost_of_step(network, 4, SGD())
    row = rows(cost)["Scale1"]
    assert not cost.unknown
    assert row.work["forward"] == Work(0, 20, 4 * (20 + 5 + 20))
    assert row.work["backward"] == Work(0, 60)
    assert row.kept == 7 + 4 * 20


def test_a_composite_of_ones_own_is_not_known_as_a_whole():
    class Twice(Residual):
        def forward(self, x):
            return self.body.forward(super().forward(x))

    network = Network(Sequential(Affine.of(6, 6), Twice(Affine.of(6, 6)), Affine.of(6, 3)), (6,))
    cost = cost_of_step(network, 4, SGD())
    assert cost.unknown == ["Twice1"]
    assert list(rows(cost)) == ["Affine1", "Twice1", "Affine2", "loss", "optimizer"]
    assert cost.parameters == network.params.flat.size


def test_a_residual_holds_its_input_once():
    network = Network(Sequential(Affine.of(6, 6), Residual(Affine.of(6, 6), Affine.of(6, 6)), Affine.of(6, 3)), (6,))
    found = rows(cost_of_step(network, 4, SGD()))
    assert list(found)[:4] == ["Affine1", "Residual1.body", "Residual1.shortcut", "Residual1"]
    assert [found[f"Residual1.{part}"].kept for part in ("body", "shortcut")] == [4 * 4 * 6, 0]
    assert found["Residual1"].parameters == 0


def test_a_skip_costs_its_copies_and_its_body():
    network = Network(Sequential(Skip(Affine.of(6, 4)), Affine.of(10, 3)), (6,))
    found = rows(cost_of_step(network, 4, SGD()))
    assert list(found)[:3] == ["Skip1.body", "Skip1", "Affine1"]
    assert (found["Skip1"].parameters, found["Skip1"].shape) == (0, (10,))
    x, y = 4 * 4 * 6, 4 * 4 * 10
    assert [found["Skip1"].work[phase].nbytes for phase in ("forward", "backward")] == [2 * y, 2 * y + x]
    assert found["Affine1"].kept == y


def test_a_layer_that_does_not_fit_is_refused_as_by_the_layer():
    with pytest.raises(ValueError, match=r"takes images \(C, H, W\), got \(6,\)"):
        cost_of(Pooling(2, 2), Batch(4, (6,), FLOAT))


def test_the_roofline_is_the_longer_of_computing_and_moving():
    gpu = Gpu("a GPU", float32=10.0, tf32=20.0, float16=40.0, bandwidth=5.0, capability=80)
    computing = Work(product_flops=400, other_flops=10, nbytes=5)
    assert [gpu.seconds(computing, precision) for precision in ("fp32", "tf32", "fp16")] == [41.0, 21.0, 11.0]
    moving = Work(product_flops=400, other_flops=10, nbytes=1000)
    assert gpu.seconds(moving, "fp32") == 200.0


def test_rates_of_gpus_are_in_order():
    for gpu in GPUS.values():
        assert 1e12 < gpu.float32 <= gpu.tf32 < gpu.float16 < 1e16
        assert 1e11 < gpu.bandwidth < 1e13
    assert GPUS["h100"].bandwidth == 3350e9


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_layer_of_these_networks_is_known(name, dtype):
    cost = cost_of_step(networks.NETWORKS[name]().astype(dtype), 4, Adam())
    assert not cost.unknown
    for row in cost.rows:
        for work in row.work.values():
            assert min(astuple(work)) >= 0
            assert work.nbytes > 0
            assert all(type(figure) is int for figure in astuple(work)), (row.name, work)


def test_an_embedding_reads_the_rows_of_its_indices():
    cost = cost_of(Embedding.of(100, 6), Batch(3, (5,), FLOAT))
    assert cost.forward == Work(0, 0, 15 * 4 + 2 * 90 * 4)
    assert cost.backward == Work(0, 90, 15 * 4 + 90 * 4 + 600 * 4)
    assert cost.kept == 60


@pytest.mark.parametrize(("scores", "labels"), [((4,), ()), ((5, 4), (5,)), ((4, 5, 6), (5, 6))])
def test_a_softmax_loss_keeps_probabilities_and_a_label_of_each_step_or_pixel(scores, labels):
    layer, x = SoftmaxWithLoss(), np.zeros((3, *scores), "float32")
    cost = cost_of(layer, Batch(3, scores, FLOAT))
    layer.forward(x, np.zeros((3, *labels), "int32"))
    probabilities, kept, *_ = layer.saved()
    assert cost.kept == probabilities.nbytes + kept.nbytes
    assert cost.forward.other_flops == 4 * x.size + 2 * kept.size


@pytest.mark.parametrize(("kind", "gates"), [(RNN, 1), (LSTM, 4), (GRU, 3)])
def test_a_recurrent_layer_has_a_product_for_inputs_and_one_for_states(kind, gates):
    layer, x = kind.of(4, 6), Batch(3, (5, 4), FLOAT)
    cost, product = cost_of(layer, x), 2 * 3 * 5 * gates * 6
    assert cost.forward.product_flops == product * (4 + 6)
    assert cost.backward.product_flops == 2 * product * (4 + 6)
    layer.input_gradient = False
    assert cost_of(layer, x).backward.product_flops == product * (4 + 2 * 6)
    layer.forward(np.zeros((3, 5, 4), "float32"))
    assert cost.kept == sum(array.nbytes for array in layer.saved())
