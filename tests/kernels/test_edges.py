"""Arguments at the edges: images without pixels, huge windows, shapes that do not fit, any dtype of a mask."""

import numpy as np
import pytest

from backend import asnumpy, workspace, xp
from kernels import activations, affine, batch_norm, batch_norm_backward, optimizers, soft_targets, winograd
from kernels import convolution as direct
from kernels.core.window import Window
from kernels.gemm import matmul, matmul_native
from kernels.im2col import im2col
from tests.support.checks import normal

FAR = (1 << 31) - 1


@pytest.fixture
def filled(monkeypatch):
    """Let fresh memory hold NaN: what a kernel leaves out is seen."""
    empty = workspace.empty

    def with_nan(shape, dtype="float32"):
        array = empty(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else 1)
        return array

    monkeypatch.setattr(workspace, "empty", with_nan)


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("image", [(4, 0), (0, 4), (0, 0)])
def test_an_image_without_pixels_has_windows_of_padding(way, image, channels):
    x, window = xp.zeros((2, channels, *image), "float32"), Window(2, padding=1)
    weight, bias = xp.ones((5, channels, 2, 2), "float32"), xp.arange(5, dtype="float32")
    y = direct.convolution(x, weight, bias, window)
    assert (asnumpy(y) == np.arange(5)[:, None, None]).all()
    assert direct.convolution_backward_input(y, weight, x.shape, window).shape == x.shape
    assert not asnumpy(direct.convolution_backward_weight(x, y, weight.shape, window)).any()


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("stride", [5, 1 << 16, FAR])
def test_a_stride_beyond_the_image_leaves_no_pixel_out(way, stride):
    weight = xp.ones((8, 8, 1, 1), "float32")
    dx = asnumpy(
        direct.convolution_backward_input(xp.full((1, 8, 1, 1), 2, "float32"), weight, (1, 8, 4, 4), Window(1, stride))
    )
    expected = np.zeros((1, 8, 4, 4), "float32")
    expected[:, :, 0, 0] = 16
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("groups", [1, 8])
def test_a_single_tap_may_be_dilated_by_any_step(way, groups):
    x, window = normal((1, 8, 3, 3), "float32"), Window(1, 2, padding=3, dilation=FAR)
    x, weight = xp.asarray(x), xp.ones((8, 8 // groups, 1, 1), "float32")
    plain = Window(1, 2, padding=3)
    for operation in (
        lambda window: im2col(x, window),
        lambda window: direct.convolution(x, weight, None, window, groups),
        lambda window: direct.convolution_backward_input(
            x[:, :, :1].repeat(5, 2)[..., :1].repeat(5, 3), weight, x.shape, window, groups
        ),
        lambda window: direct.convolution_backward_weight(
            x, xp.ones((1, 8, 5, 5), "float32"), weight.shape, window, groups
        ),
    ):
        np.testing.assert_array_equal(asnumpy(operation(window)), asnumpy(operation(plain)))


@pytest.mark.usefixtures("in_c")
def test_padded_images_too_large_to_count_are_refused():
    with pytest.raises(ValueError, match="too large for kernels"):
        im2col(np.ones((1, 1, 3, 3), "float32"), Window(1, 1 << 30, padding=1 << 30))


@pytest.mark.parametrize("convolution", ["direct", "depthwise", "winograd"])
def test_what_rounds_to_zero_is_not_positive(way, convolution):
    x, groups = xp.full((1, 8, 5, 5), 1e-4, "float16"), 8 if convolution == "depthwise" else 1
    weight = xp.zeros((8, 8 // groups, 3, 3), "float16")
    weight[:, 0, 1, 1] = 1e-4  # 1e-8 is less than float16's smallest number
    module = winograd if convolution == "winograd" else direct
    y, positive = module.convolution(x, weight, None, Window(3, padding=1), groups, relu=True)
    assert not asnumpy(y).any()
    assert not asnumpy(positive).any()


@pytest.mark.parametrize("step", [1, 2])
def test_normalize_writes_a_mask_of_any_strides(way, step):
    x, ones = xp.asarray(normal((6, 5), "float32")), xp.ones(5, "float32")
    positive = xp.zeros((6, 5 * step), bool)[:, ::step]
    y, _ = batch_norm.normalize(x, 0 * ones, ones, ones, 0 * ones, 0.0, positive)
    np.testing.assert_array_equal(asnumpy(positive), asnumpy(y) > 0)
    with pytest.raises(TypeError, match="positive must be bool, got int32"):
        batch_norm.normalize(x, 0 * ones, ones, ones, 0 * ones, 0.0, positive.astype("int32"))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32"])
def test_a_mask_of_another_dtype_is_one(way, dtype):
    dy = xp.asarray(normal((6, 40), "float32"))
    mask = xp.asarray(np.random.default_rng(0).integers(0, 3, (6, 40)).astype(dtype))
    kept = xp.where(mask != 0, dy, 0)
    np.testing.assert_array_equal(asnumpy(affine.bias_gradient(dy, mask, xp.empty(40, "float32"))), asnumpy(kept))
    halved = xp.where(mask != 0, dy, dy / 2)
    np.testing.assert_array_equal(asnumpy(activations.leaky_relu_backward(dy, mask, 0.5)), asnumpy(halved))


def test_vectors_of_another_length_are_refused(way):
    x, ones, few = xp.ones((6, 40), "float32"), xp.ones(40, "float32"), xp.ones(1, "float32")
    for function in (batch_norm_backward.normalize_backward, batch_norm_backward.normalize_backward_fixed):
        with pytest.raises(ValueError, match=r"mean, inverse and gamma must have shape \(40,\)"):
            function(x, x, ones, few, ones)
    with pytest.raises(ValueError, match=r"weights must have shape \(40,\), got \(1,\)"):
        soft_targets.soft_targets(xp.asarray([0, 1]), (2, 40), "float32", weights=few)
    for average, values in ((ones, few), (few, ones)):
        with pytest.raises(ValueError, match="values must have the shape of the average"):
            optimizers.move_towards(average, values, 0.5)


@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("operand", ["a", "b"])
def test_a_product_may_replace_an_operand(operand):
    a, b = normal((100, 100), "float32"), normal((100, 100), "float32", 1)
    expected = matmul(a, b)
    assert matmul(a, b, out={"a": a, "b": b}[operand]) is {"a": a, "b": b}[operand]
    np.testing.assert_array_equal(a if operand == "a" else b, expected)


@pytest.mark.usefixtures("in_c")
def test_matrices_too_large_to_count_are_refused():
    no_columns = np.empty((1 << 31, 0), "float32")
    with pytest.raises(ValueError, match="at most 2,147,483,647 rows and columns"):
        matmul_native(no_columns, np.empty((0, 0), "float32"), None, None)
