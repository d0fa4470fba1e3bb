"""Weight gradients by im2col and cuBLAS: parts are added up by the products themselves, in float32 for float16."""

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy, tuning
from kernels import implicit_gemm
from kernels.convolution import convolution_backward_weight
from kernels.core.layout import channels_last
from kernels.core.window import Window
from tests.support import product_calls
from tests.support.checks import assert_same, whole

pytestmark = pytest.mark.gpu

FLOAT32 = 0  # cudaDataType_t


@pytest.fixture(autouse=True)
def _by_columns(monkeypatch):
    monkeypatch.setattr(implicit_gemm, "refusal", lambda *_: "the test is of the other way")
    with backend.use("cuda"):
        yield


def gradient(x, dy, weight_shape, groups=1, out=None):
    return convolution_backward_weight(channels_last(x), channels_last(dy), weight_shape, Window(1), groups, out)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("groups", [1, 2])
def test_each_part_and_group_is_one_product(monkeypatch, dtype, groups):
    """All but the first add to what is in their result: no sum is launched besides, and nothing is copied."""
    x, dy = whole((6, 4, 5, 5), dtype), whole((6, 8, 5, 5), dtype, 1)
    expected = np.zeros((8, 4 // groups))
    for group in range(groups):
        own, theirs = slice(group * 8 // groups, (group + 1) * 8 // groups), slice(group * 4 // groups, 8)
        images = asnumpy(x)[:, theirs].astype("float64")[:, : 4 // groups]
        expected[own] = np.einsum("nfhw,nchw->fc", asnumpy(dy)[:, own].astype("float64"), images)
    monkeypatch.setitem(tuning.COLUMN_BYTES, "cupy", 2 * 25 * 4 // groups * x.dtype.itemsize)  # two images a part
    with product_calls.recorded() as calls:
        found = gradient(x, dy, (8, 4 // groups, 1, 1), groups)
    assert_same(found, expected.reshape(8, -1, 1, 1), dtype)
    assert [name for name, _ in calls.calls] == ["cublasGemmEx"] * 3 * groups
    assert [_factor(arguments[13]) for _, arguments in calls.calls] == [0] * groups + [1] * 2 * groups
    if dtype == "float16":
        assert {arguments[15] for _, arguments in calls.calls} == {FLOAT32}


def _factor(pointer):
    return pointer._obj.value


@pytest.mark.parametrize("parts", [1, 4])
def test_float16_is_rounded_once(monkeypatch, parts):
    """The sum of the first half alone is beyond float16."""
    x = np.ones((4, 1, 20, 20), "float16")
    x[2:] = -1
    x[3, 0, 0, 0] = 7
    dy = asarray(np.full((4, 1, 20, 20), 100, "float16"))
    monkeypatch.setitem(tuning.COLUMN_BYTES, "cupy", 4 * 400 * 2 // parts)
    assert asnumpy(gradient(asarray(x), dy, (1, 1, 1, 1))).item() == 800


def test_a_gradient_is_captured(monkeypatch):
    from backend.graphs import Recorder

    x, dy, out = whole((4, 3, 5, 5)), whole((4, 2, 5, 5), seed=1), asarray(np.zeros((2, 3, 1, 1), "float32"))
    monkeypatch.setitem(tuning.COLUMN_BYTES, "cupy", 25 * 3 * 4)
    expected = asnumpy(gradient(x, dy, (2, 3, 1, 1)))
    recorder = Recorder()
    graph = recorder.capture(lambda: gradient(x, dy, (2, 3, 1, 1), out=out))
    for _ in range(2):
        out.fill(5)
        graph.launch()
        assert_same(out, expected)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nothing_is_added_beside_the_products(monkeypatch, dtype):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="kernels are known by name on the emulated device only")
    x, dy = channels_last(whole((6, 4, 5, 5), dtype)), channels_last(whole((6, 8, 5, 5), dtype, 1))
    monkeypatch.setitem(tuning.COLUMN_BYTES, "cupy", 25 * 4 * x.dtype.itemsize)
    cuda_on_cpu.reset()
    gradient(x, dy, (8, 4, 1, 1))
    assert not [name for name in cuda_on_cpu.kernels() if name.startswith("cupy_add")]
