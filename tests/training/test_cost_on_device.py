"""The cost model against what the emulated CUDA device counts: launches, bytes, and what is kept for backward."""

import networks
import pytest
from device_counts import BATCH, bytes_by_layer, launches, readings

import backend
from kernels.core import tiling
from training.optim.optimizers import Adam
from training.profile.cost import cost_of_step
from training.profile.layer_phases import example_batch, named_layers

pytestmark = pytest.mark.gpu

WINOGRAD_MATRICES = 36
"""That the device counts one by one, where cuBLAS is called once."""

FACTORS = {
    # Of 3x3 filters: a number is read, written and read again for each of nine taps, as columns are made and
    # multiplied. Of the 5x5 ones, the output has more numbers than the input.
    "Convolution": {"forward": 3 * 9, "backward": 3 * 9},
    # W is copied into the order of channels-last memory, a number of 4 bytes in a sector of 32 each: once for forward,
    # and its gradient back. float16 is summed in float32, in an array of its own.
    "Affine": {"forward": 3.5, "backward": 2.25},
    # Statistics and result are two passes, those of a Relu behind it two more; a thread reads its column's numbers.
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
"""How many times the least bytes a layer may ask for, at the kernels' own accesses (so that what comes from a cache
counts, too), with the reason. A sector of 32 bytes is allowed besides for each of eight arrays, to begin with."""

CASES = [*(f"{name} float32" for name in networks.MODELS), "ConvNet float16"]


@pytest.fixture(autouse=True)
def _on_the_emulated_device():
    pytest.importorskip("cuda_on_cpu", reason="launches and bytes are counted on the emulated device only")
    with backend.use("cuda"):
        yield


def expected_launches(cost):
    return {(row.name, phase): work.launches for row in cost.rows for phase, work in row.work.items()}


def counted_launches(network, samples):
    found, optimizer = readings(network, samples, launches)
    return found, cost_of_step(network, samples, optimizer)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if "winograd" not in name])
def test_launches_are_those_that_the_device_counts(name, dtype):
    found, cost = counted_launches(networks.NETWORKS[name]().astype(dtype), 8)
    assert not cost.unknown
    assert found == expected_launches(cost)


@pytest.mark.parametrize("samples", [1, 60])
@pytest.mark.parametrize(
    "name", ["TwoLayerNet", "groups", "convolution to a wide affine", "poolings", "normalisations"]
)
def test_launches_depend_on_the_batch_as_the_device_counts(name, samples):
    found, cost = counted_launches(networks.NETWORKS[name](), samples)
    assert found == expected_launches(cost)


@pytest.mark.parametrize("cap", [3000, 40000])
@pytest.mark.parametrize("name", ["ConvNet", "strides", "1x1", "groups", "depthwise", "transposed", "same", "residual"])
def test_launches_under_a_small_cap_of_columns(name, cap, monkeypatch):
    monkeypatch.setitem(tiling.COLUMN_BYTES, "cupy", cap)
    found, cost = counted_launches(networks.NETWORKS[name](), 7)
    assert found == expected_launches(cost)


@pytest.mark.parametrize("cap", [1 << 28, 40000])
@pytest.mark.parametrize("name", ["winograd", "winograd that fits"])
def test_launches_of_winograd(name, cap, monkeypatch):
    monkeypatch.setitem(tiling.COLUMN_BYTES, "cupy", cap)
    found, cost = counted_launches(networks.NETWORKS[name](), 8)
    expected = expected_launches(cost)
    assert found.keys() == expected.keys()
    for place, count in found.items():
        more = count - expected[place]
        assert more % (WINOGRAD_MATRICES - 1) == 0, place
        assert (more > 0) == (place[0].startswith("Convolution")), place


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_what_is_kept_for_backward_is_what_the_layers_hold(name, dtype):
    network = networks.NETWORKS[name]().astype(dtype)
    x, t = example_batch(network, 8)
    network.step_gradients(x, t)
    seen, held = set(), {}
    start, end = network.params.flat.data.ptr, network.params.flat.data.ptr + network.params.flat.nbytes
    for layer, one in named_layers(network):
        arrays = [array for array in one._kept or () if hasattr(array, "data")]
        own = {array.data.ptr: array.nbytes for array in arrays if not start <= array.data.ptr < end}
        held[layer] = sum(nbytes for pointer, nbytes in own.items() if pointer not in seen)
        seen |= own.keys()
    assert held == {row.name: row.kept for row in cost_of_step(network, 8, Adam()).rows if row.name != "optimizer"}


def peak_of_steps(make_network, samples):
    """The most bytes that arrays took in a network's life of two steps, and its cost."""
    import cupy

    class Peak(cupy.cuda.MemoryHook):
        name = "peak"
        sizes, most = {}, 0

        def malloc_postprocess(self, **block):
            self.sizes[block["pmem_id"]] = block["size"]
            self.most = max(self.most, sum(self.sizes.values()))

        def free_postprocess(self, **block):
            self.sizes.pop(block["pmem_id"], None)

    with Peak() as peak:
        network = make_network()
        _, optimizer = readings(network, samples, launches)
        return peak.most, cost_of_step(network, samples, optimizer)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", networks.MODELS)
def test_memory_is_the_least_that_a_step_needs_and_near_what_it_takes(name, dtype):
    peak, cost = peak_of_steps(lambda: networks.NETWORKS[name]().astype(dtype), 8)
    assert 0.85 * peak < sum(cost.memory.values()) <= peak


@pytest.fixture(scope="module")
def moved():
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
