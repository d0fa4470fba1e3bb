"""The bytes that whole steps move on the emulated CUDA device, against the least of the cost model.

Both figures are ratios to the least bytes: of all requests, and of the sectors that each launch touches, once
(``tests/support/step_bytes.py``). A real GPU's memory moves what its caches leave: between the two, or less where a
launch finds in the cache what the one before it wrote.
"""

import pytest

from tests.support import step_bytes

pytestmark = pytest.mark.gpu

MOST = {("ResNet-20", 2): (1.76, 1.23), ("DeepConvNet", 8): (2.3, 1.29)}
"""The largest ratios of requested and of distinct bytes to the least, by network and batch."""


@pytest.mark.parametrize(("name", "samples"), MOST)
def test_a_step_moves_a_stated_factor_of_the_least_bytes_at_most(name, samples):
    pytest.importorskip("cuda_on_cpu", reason="bytes are counted on the emulated device only")
    found = step_bytes.bytes_by_kernel(name, samples)
    assert all(requests >= distinct for requests, distinct in found["moved"].values()), found
    requests, distinct = (sum(way) / found["least"] for way in zip(*found["moved"].values(), strict=True))
    assert 1 < distinct <= MOST[name, samples][1], found
    assert distinct < requests <= MOST[name, samples][0], found
