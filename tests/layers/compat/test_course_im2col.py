"""im2col and col2im of a batch, windows as columns, against loops."""

import numpy as np
import pytest

from backend import asnumpy
from layers.compat import course
from tests.support.checks import assert_same, assert_separate, frozen, laid_out, whole

CASES = [  # images, window, padding, stride
    ((2, 3, 5, 4), (3, 2), 1, 1),
    ((3, 1, 6, 6), (2, 2), 0, 2),
    ((1, 2, 7, 5), (3, 3), 2, 3),
    ((2, 2, 4, 4), (1, 1), 0, 1),
    ((0, 2, 4, 4), (2, 2), 0, 1),
]
OF_ALL = pytest.mark.parametrize(("shape", "window", "padding", "stride"), CASES)


def places(shape, window, padding, stride):
    """Every number of the columns: its row and column there, and where it lies in the padded images."""
    (n, c, h, w), (fh, fw) = shape, window
    oh, ow = ((size + 2 * padding - field) // stride + 1 for size, field in ((h, fh), (w, fw)))
    for image, channel, a, b in np.ndindex(n, c, fh, fw):
        for i, j in np.ndindex(oh, ow):
            at = (channel * fh + a) * fw + b, (i * ow + j) * n + image
            yield at, (image, channel, i * stride + a, j * stride + b), (c * fh * fw, oh * ow * n)


def padded(x, padding):
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


@OF_ALL
@pytest.mark.parametrize("layout", ["contiguous", "strided", "channels_last"])
@pytest.mark.parametrize("name", ["im2col_indices", "im2col_cython"])
def test_windows_are_columns(device, shape, window, padding, stride, layout, name):
    x = laid_out(whole(shape, "float32", 1), layout)
    with frozen(x):
        columns = getattr(course, name)(x, *window, padding, stride)
    assert_separate(columns, [x])
    assert columns.shape == course.im2col_indices(x, *window, padding, stride).shape
    source = padded(asnumpy(x), padding)
    expected = np.zeros(columns.shape, "float32")
    for at, place, size in places(shape, window, padding, stride):
        assert size == columns.shape
        expected[at] = source[place]
    assert_same(columns, expected)


@OF_ALL
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_columns_are_added_up(device, shape, window, padding, stride, dtype):
    columns = whole(asnumpy(course.im2col_indices(whole(shape), *window, padding, stride)).shape, dtype, 2)
    summed = np.zeros(padded(np.zeros(shape), padding).shape, dtype)
    host = asnumpy(columns)
    for at, place, _ in places(shape, window, padding, stride):
        summed[place] += host[at]
    rows, width = (slice(padding, summed.shape[axis] - padding) for axis in (2, 3))
    expected = summed[:, :, rows, width]
    with frozen(columns):
        images = course.col2im_indices(columns, shape, *window, padding, stride)
        same = course.col2im_cython(columns, *shape, *window, padding, stride)
    assert_separate((images, same), [columns])
    n, c, h, w = shape
    oh, ow = ((size + 2 * padding - field) // stride + 1 for size, field in ((h, window[0]), (w, window[1])))
    windows = columns.reshape(c, *window, oh, ow, n).transpose(0, 1, 2, 5, 3, 4)
    with frozen(windows):
        again = course.col2im_6d_cython(windows, *shape, *window, padding, stride)
    for actual in (images, same, again):
        assert_same(actual, expected, dtype)


def test_the_default_is_a_padding_of_one(device):
    x = whole((2, 3, 5, 5), "float32", 3)
    columns = course.im2col_indices(x, 3, 3)
    assert columns.shape == (27, 50)
    assert_same(columns, course.im2col_indices(x, 3, 3, 1, 1))
    assert_same(course.col2im_indices(columns, x.shape), course.col2im_indices(columns, x.shape, 3, 3, 1, 1))


@OF_ALL
def test_the_indices_pick_the_windows(device, shape, window, padding, stride):
    x = asnumpy(whole(shape, "float32", 4))
    k, i, j = (asnumpy(index) for index in course.get_im2col_indices(shape, *window, padding, stride))
    picked = padded(x, padding)[:, k, i, j]
    columns = asnumpy(course.im2col_indices(whole(shape, "float32", 4), *window, padding, stride))
    assert_same(picked.transpose(1, 2, 0).reshape(columns.shape), columns)


def ones(*shape):
    return np.ones(shape, "float32")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: course.im2col_indices(ones(3, 4, 4), 2, 2), r"images \(N, C, H, W\), got \(3, 4, 4\)"),
        (lambda: course.im2col_indices([1], 2, 2), "got list"),
        (
            lambda: course.im2col_indices(ones(1, 1, 4, 4), 0, 2),
            r"field_height must be .*, got 0",
        ),
        (lambda: course.im2col_indices(ones(1, 1, 4, 4), 9, 2), "does not fit the image's"),
        (lambda: course.col2im_indices(ones(4, 8), (1, 1, 4, 4), 2, 2, 0, 1), r"needs cols \(4, 9\) .*got \(4, 8\)"),
        (lambda: course.col2im_indices(ones(4, 9), (1, 4, 4), 2, 2, 0), r"shape of images .*not \(1, 4, 4\)"),
        (lambda: course.get_im2col_indices((4, 4), 2, 2), r"shape of images .*not \(4, 4\)"),
        (lambda: course.col2im_6d_cython(ones(4, 9), 1, 1, 4, 4, 2, 2, 0, 1), r"cols \(1, 2, 2, 1, 3, 3\) .*\(4, 9\)"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
