"""The cost model against what the emulated CUDA device counts: bytes, and what is kept for backward."""

import pytest

import backend
from layers import Sequential
from layers.base import walk
from tests.support import networks
from tests.support.device_counts import BATCH, bytes_by_layer, launches, readings
from tests.support.device_memory import peak_bytes
from training.optim.optimizers import Adam
from training.profile.cost import cost_of_step
from training.profile.meter import example_batch

pytestmark = pytest.mark.gpu

FACTORS = {
    # Of 3x3 filters: a number is asked for at each of nine taps, and again by each block of 64 columns of the result.
    # With few pixels the filters count, too, which each block of 64 or 128 rows asks for.
    "Convolution": {"forward": 11, "backward": 15.5},
    # W is copied into the order of channels-last memory, a number of 4 bytes in a sector of 32 each: once for forward,
    # and its gradient back. float16 is summed in float32, in an array of its own.
    "Affine": {"forward": 3.5, "backward": 2.25},
    # Statistics and result are two passes; a thread reads its column's numbers, and all ranges' sums of it.
    "BatchNormalization": {"forward": 3.25, "backward": 2.5},
    # The mask is made from the output, which is read again; in backward it becomes a mask of bits, written and read.
    "Relu": {"forward": 1.5, "backward": 1.5},
    "Tanh": {"forward": 1.25, "backward": 3.5},  # three operations, each of which reads and writes
    "Dropout": {"forward": 1.75, "backward": 1.5},
    # 30 channels of a pixel do not begin with a sector.
    "Pooling": {"forward": 1.6, "backward": 1.6},
    # Ten scores are not whole sectors, and read three times; those of float16 become float32 before.
    "SoftmaxWithLoss": {"forward": 6.0, "backward": 3.0},
    # One array is read again, since a pointer between might have changed it: from the cache.
    "Adam": {"update": 1.25},
}
"""The largest ratio of requested to least bytes of a layer, counting accesses that the cache serves, with the reason. A
sector of 32 bytes is allowed besides for each of eight arrays, to begin with."""

CASES = [*(f"{name} float32" for name in networks.MODELS), "ConvNet float16"]


@pytest.fixture(autouse=True)
def _on_the_emulated_device():
    pytest.importorskip("cuda_on_cpu", reason="bytes are counted on the emulated device only")
    with backend.use("cuda"):
        yield


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_what_is_kept_for_backward_is_what_the_layers_hold(name, dtype):
    network = networks.NETWORKS[name]().astype(dtype)
    x, t = example_batch(network, 8)
    network.loss(x, t, train_flg=True)
    network.layers.backward(network.last_layer.backward())  # a training step forgets each layer
    seen, held = set(), {}
    start, end = network.params.flat.data.ptr, network.params.flat.data.ptr + network.params.flat.nbytes
    layers = [(place, one) for place, one in walk(network.layers) if type(one) is not Sequential]
    for layer, one in [*layers, ("loss", network.last_layer)]:
        arrays = [array for array in one._kept or () if hasattr(array, "data")]
        own = {array.data.ptr: array.nbytes for array in arrays if not start <= array.data.ptr < end}
        held[layer] = sum(nbytes for pointer, nbytes in own.items() if pointer not in seen)
        seen |= own.keys()
    assert held == {row.name: row.kept for row in cost_of_step(network, 8, Adam()).rows if row.name != "optimizer"}


def peak_of_steps(make_network, samples):
    """The most bytes that arrays took in a network's life of two steps, and its cost."""
    with peak_bytes() as peak:
        network = make_network()
        _, optimizer = readings(network, samples, launches)
        return peak.most, cost_of_step(network, samples, optimizer)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", networks.MODELS)
def test_memory_is_the_least_that_a_step_needs(name, dtype):
    peak, cost = peak_of_steps(lambda: networks.NETWORKS[name]().astype(dtype), 8)
    assert 0.4 * peak < sum(cost.memory.values()) <= peak  # columns, transposed copies and gradients come on top


@pytest.fixture(scope="module")
def moved():
    pytest.importorskip("cuda_on_cpu", reason="bytes are counted on the emulated device only")
    return bytes_by_layer(*CASES)


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_the_least_at_least_and_a_stated_factor_of_it_at_most(case, moved):
    name, dtype = case.split()
    network = networks.NETWORKS[name]().astype(dtype)
    for row in cost_of_step(network, BATCH, Adam()).rows:
        for phase, work in row.work.items():
            counted, sectors_begun = moved[case][row.name, phase], 32 * 8
            assert counted >= work.nbytes, (row.name, phase)
            assert counted <= FACTORS[row.kind][phase] * work.nbytes + sectors_begun, (row.name, phase)
