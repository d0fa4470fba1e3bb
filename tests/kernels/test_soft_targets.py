"""Soft targets against their definition, label by label; the losses with them are tested in tests/layers."""

import numpy as np
import pytest

from backend import asarray, asnumpy
from kernels.soft_targets import soft_targets
from tests.support.checks import assert_close, frozen, thread_limit

OPTIONS = {
    "plain": {},
    "smoothing": {"smoothing": 0.1},
    "weights": {"weights": True},
    "ignored class": {"ignore_index": 1},
    "all": {"smoothing": 0.3, "weights": True, "ignore_index": 99},
}


def by_hand(t, classes, smoothing=0.0, weights=None, ignore_index=None):
    weights = np.ones(classes) if weights is None else np.float64(weights)
    targets, total = np.zeros((len(t), classes)), 0.0
    for row, label in enumerate(t):
        if label == ignore_index:
            continue
        total += weights[label]
        for c in range(classes):
            targets[row, c] = ((1 - smoothing) * (c == label) + smoothing / classes) * weights[c]
    return targets * (len(t) / total if total else 0), total


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["uint8", "int64", "uint64"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_label(device, dtype, kind, name):
    rng = np.random.default_rng(0)
    for samples, classes in ((1, 2), (3, 5), (20, 33), (7, 16), (30, 100)):
        options = dict(OPTIONS[name])
        t = rng.integers(0, classes, samples).astype(kind)
        if options.get("ignore_index") == 99:
            t[1::3] = 99
        if "weights" in options:
            options["weights"] = rng.random(classes).astype(dtype)
        expected, total = by_hand(t.astype(int), classes, **options)
        given = {key: asarray(value) if key == "weights" else value for key, value in options.items()}
        labels = asarray(t)
        with frozen(labels):
            targets, weight = soft_targets(labels, (samples, classes), dtype, **given)
        assert (targets.dtype, weight.dtype, weight.shape) == (dtype, dtype, ())
        # the total is a sum of up to 30 numbers, and each target has four roundings
        assert_close(weight, total, dtype, terms=30, magnitude=total)
        assert_close(targets, expected, dtype, terms=30, magnitude=expected, roundings=6)


def test_none_but_ignored_labels(device):
    targets, weight = soft_targets(asarray(np.full(3, 7)), (3, 4), "float32", smoothing=0.1, ignore_index=7)
    assert not asnumpy(targets).any()
    assert float(weight) == 0


def test_targets_of_another_dtype_are_refused(device):
    """In float16 the sum of the weights of 70,000 labels would be infinite, and all targets 0."""
    with pytest.raises(TypeError, match="soft_targets needs float32 or float64, got float16"):
        soft_targets(asarray(np.zeros(70_000, "int32")), (70_000, 2), "float16", smoothing=0.1)


def test_threads_change_no_bit(device, monkeypatch):
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 64)
    t = asarray(np.arange(37) % 10)
    results = []
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            results.append(asnumpy(soft_targets(t, (37, 10), "float32", smoothing=0.1)[0]))
    assert all((result == results[0]).all() for result in results)


@pytest.mark.parametrize(("t", "message"), [([0, 4], "label 4 at index 1"), ([-1, 0], "label -1 at index 0")])
def test_a_label_out_of_range_is_named_on_the_host(t, message):
    with pytest.raises(ValueError, match=message):
        soft_targets(np.array(t), (2, 4), "float32", smoothing=0.1)
