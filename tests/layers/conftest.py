"""Every test of an operation runs three ways from one body: NumPy, C kernels, CUDA kernels."""

import pytest


@pytest.fixture
def device(way):
    return way
