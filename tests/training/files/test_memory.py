"""Reading an array takes the array's memory and little more, however it is packed."""

import gzip
import tracemalloc

import numpy as np
import pytest

from training.data import read_idx, write_idx
from training.models import saving

ARRAY = np.random.default_rng(0).integers(0, 4, (8, 1000, 1000), dtype=np.uint8)


def as_gzip(file, array):
    write_idx(file.with_suffix(""), array)
    file.write_bytes(gzip.compress(file.with_suffix("").read_bytes(), 1))


WAYS = {
    "stored.npz": (lambda file, array: np.savez(file, W1=array), lambda file: saving.load_arrays(file)["W1"]),
    "packed.npz": (
        lambda file, array: np.savez_compressed(file, W1=array),
        lambda file: saving.load_arrays(file)["W1"],
    ),
    "a.safetensors": (
        lambda file, array: saving.save_arrays(file, {"W1": array}),
        lambda file: saving.load_arrays(file)["W1"],
    ),
    "images": (write_idx, lambda file: read_idx(file, 3)),
    "images.gz": (as_gzip, lambda file: read_idx(file, 3)),
}


@pytest.mark.parametrize("name", WAYS)
def test_an_array_is_in_the_memory_once(tmp_path, name):
    write, read = WAYS[name]
    write(tmp_path / name, ARRAY)
    read(tmp_path / name)  # what is imported on the way does not count
    tracemalloc.start()
    try:
        found = read(tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, ARRAY)
    assert ARRAY.nbytes < peak < 1.25 * ARRAY.nbytes
