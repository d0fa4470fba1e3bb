"""The scratch memory of a convolution of many large images by NumPy."""

import tracemalloc

import numpy as np
import pytest

import backend
from backend import workspace
from kernels.convolution import convolution, convolution_backward_input, convolution_backward_weight
from kernels.core import native
from kernels.core.window import Window


@pytest.mark.parametrize(("stride", "channels"), [(1, 3), (2, 12)])
def test_the_columns_of_one_image_are_in_memory_at_a_time(stride, channels):
    """Beside its result an operation on 12 images of 224×224 takes less than the columns of three: 16 of 65 MB."""
    window, images = Window(3, stride, 1), 12
    column_bytes = 9 * channels * (224 // stride) ** 2 * 4

    def scratch_of(compute):
        workspace.clear()
        tracemalloc.start()
        try:
            result = compute()
            return result, tracemalloc.get_traced_memory()[1] - result.nbytes
        finally:
            tracemalloc.stop()

    with backend.use("cpu"), native.enabled(False):  # the kernels in C make no columns
        x, weight = np.ones((images, channels, 224, 224), "float32"), np.ones((4, channels, 3, 3), "float32")
        x = backend.asarray(x.transpose(0, 2, 3, 1).copy()).transpose(0, 3, 1, 2)  # nothing has to be copied
        bias = np.ones(4, "float32")
        y, forward = scratch_of(lambda: convolution(x, weight, bias, window))
        _, of_weight = scratch_of(lambda: convolution_backward_weight(x, y, weight.shape, window))
        dx, of_input = scratch_of(lambda: convolution_backward_input(y, weight, x.shape, window))
    assert max(forward, of_weight, of_input) < 3 * column_bytes
    assert min(forward, of_weight, of_input) > column_bytes  # nothing is left out of the count
    assert y[0, 0, 5, 5] == 9 * channels + 1
    assert dx[0, 0, 100, 101] == (4 * 9 if stride == 1 else 4 * 2) * y[0, 0, 5, 5]
