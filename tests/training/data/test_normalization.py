"""The mean and standard deviation of samples, and their use in batches."""

import numpy as np
import pytest

from backend import asnumpy
from training.data import Loader, Normalization, normalization
from training.data.inputs import MappedInputs


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(9, 3, 4, 5), (9, 6)])
@pytest.mark.parametrize("lazy", [False, True])
def test_agrees_with_numpy_in_float64(monkeypatch, block, dtype, shape, lazy):
    monkeypatch.setattr(normalization, "BLOCK_BYTES", block)
    x = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    wide = x.astype("float64") / (255 if dtype == "uint8" else 1)
    axes = (0, 2, 3) if len(shape) == 4 else 0
    found = Normalization.of(MappedInputs(x) if lazy else x)
    np.testing.assert_allclose(found.mean, wide.mean(axis=axes), rtol=1e-12)
    np.testing.assert_allclose(found.std, wide.std(axis=axes), rtol=1e-12)


def test_equal_numbers_keep_their_distance_from_the_mean():
    assert Normalization.of(np.full((7, 2), 0.1)).std == (1.0, 1.0)
    assert Normalization.of(np.full((7, 1, 2, 2), 9, "uint8")).std == (1.0,)


@pytest.mark.parametrize("given_dtype", ["uint8", "float64"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_are_normalized_with_the_same_bits_everywhere(device, given_dtype, dtype, prefetch):
    images = (np.random.default_rng(0).random((10, 3, 4, 5)) * 255).astype(given_dtype)
    known = Normalization((0.3, 0.5, 0.7), (0.1, 0.2, 0.3))
    loader = Loader(images, np.arange(10), 4, shuffle=False, dtype=dtype, normalization=known, prefetch=prefetch)
    wide = np.dtype("float64") if given_dtype == "float64" else np.promote_types(dtype, "float32")
    x = images.transpose(0, 2, 3, 1).astype(wide)
    x = np.divide(x, 255, dtype=wide) if given_dtype == "uint8" else x
    expected = ((x - np.array(known.mean, wide)) / np.array(known.std, wide)).astype(dtype).transpose(0, 3, 1, 2)
    batches = [asnumpy(x) for x, _ in loader]
    assert {batch.dtype for batch in batches} == {np.dtype(dtype)}
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    np.testing.assert_array_equal(asnumpy(loader.batch(0, 1)[0]), expected[4:8])


def test_config_and_back():
    known = Normalization((0.25, 0.5), (0.125, 1.0))
    assert Normalization.from_config(known.as_config(), 2) == known


@pytest.mark.parametrize(
    "config",
    [
        None, {}, {"mean": [0.0, 1.0]}, {"mean": [0.0], "std": [1.0]}, {"mean": [0.0, True], "std": [1.0, 1.0]},
        {"mean": [0.0, float("nan")], "std": [1.0, 1.0]}, {"mean": [0.0, 0.0], "std": [1.0, 0.0]},
        {"mean": [0.0, 10**400], "std": [1.0, 1.0]}, {"mean": "ab", "std": [1.0, 1.0]},
    ],
)  # fmt: skip
def test_damaged_configs_are_refused(config):
    with pytest.raises(ValueError, match="the model's normalization: expected"):
        Normalization.from_config(config, 2)
