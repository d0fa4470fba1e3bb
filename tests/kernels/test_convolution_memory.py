"""The scratch memory of a convolution of large images."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import backend
from backend import tuning
from kernels import convolution as convolution_module
from kernels import im2col as im2col_module
from kernels.convolution import convolution, convolution_backward_input, convolution_backward_weight
from kernels.core import native
from kernels.core.window import Window


@pytest.mark.parametrize("stride", [1, 2])
def test_columns_stay_under_their_cap_for_large_images(monkeypatch, stride):
    """A batch of 64 images of 224×224; what is not a result is scratch of at most COLUMN_BYTES."""
    scratch, results = [], set()

    def empty(shape, dtype):
        array = np.empty(shape, dtype)
        if array.size not in results:
            scratch.append(array.nbytes)
        return array

    for each in (convolution_module, im2col_module):
        monkeypatch.setattr(each, "workspace", SimpleNamespace(empty=empty))
    window, channels = Window(3, stride, 1), 3 if stride == 1 else 32
    images = 64 if stride == 1 else 2  # one image's columns are more than the cap then: 29 MB
    with backend.use("cpu"), native.enabled(False):  # the kernels in C make no columns
        x, weight = np.ones((images, channels, 224, 224), "float32"), np.ones((4, channels, 3, 3), "float32")
        y = (images, 4, *window.over((224, 224)).output)
        results |= {math.prod(y), x.size}
        dy = convolution(x, weight, np.ones(4, "float32"), window)
        assert dy.shape == y
        convolution_backward_weight(x, dy, weight.shape, window)
        dx = convolution_backward_input(dy, weight, x.shape, window)
    assert len(scratch) > 3 * images
    assert max(scratch) <= tuning.COLUMN_BYTES["numpy"]
    assert dy[0, 0, 5, 5] == 9 * channels + 1
    assert dx[0, 0, 100, 101] == (4 * 9 if stride == 1 else 4 * 2) * dy[0, 0, 5, 5]
