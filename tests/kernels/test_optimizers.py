"""The updates in C against those by NumPy, bit for bit; what they compute is tested in tests/training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import optimizers as compiled
from kernels.core import native
from kernels.loss_scale import FINITE, MULTIPLIER, control
from tests.support.checks import DTYPES, thread_limit
from training.optim import optimizers

pytestmark = pytest.mark.usefixtures("in_c")

ODD = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-40, 6e-8, 1e-310, 65504.0, 3e38, -1e308]


def draw(rng, size, dtype):
    """Numbers of many magnitudes, a quarter of them odd ones."""
    with np.errstate(all="ignore"):
        values = rng.normal(size=size) * 10.0 ** rng.integers(-12, 5, size)
        return np.where(rng.random(size) < 0.25, rng.choice(ODD, size), values).astype(dtype)


def assert_same_bits(actual, expected):
    """Equal, -0 and the smallest numbers included; of a NaN the sign and the payload are the processor's."""
    assert actual.dtype == expected.dtype
    unsigned = f"u{actual.itemsize}"
    finite = np.where(np.isnan(expected), 0, expected.view(unsigned))
    np.testing.assert_array_equal(np.where(np.isnan(actual), 0, actual.view(unsigned)), finite)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))


def steps(name, seed, size, dtype, decay, scaled):
    """Return parameters and state after some steps, the second with parameters set from outside."""
    rng = np.random.default_rng(seed)
    optimizer = optimizers.by_name(name, lr=0.05, weight_decay=decay)
    params = {"W": draw(rng, size, dtype)}
    for step in range(3):
        factor = control(2.0**-3, np) if scaled else None
        if scaled:
            factor[MULTIPLIER], factor[FINITE] = 1.7, step != 1
        gradients = draw(rng, size, dtype)
        gradients.flags.writeable = False
        if step == 1:
            params["W"][::3] = draw(rng, size, dtype)[::3]
        with np.errstate(all="ignore"):
            optimizer.update(params, {"W": gradients}, factor)
    return [params["W"], *(arrays["W"] for arrays in optimizer.state.values())]


@pytest.mark.parametrize("name", optimizers.NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(0, 70),
    decay=st.sampled_from([0.0, 0.3, 1e-60]),
    scaled=st.booleans(),
)
def test_an_update_has_the_bits_of_numpy(name, dtype, seed, size, decay, scaled):
    arguments = (name, seed, size, dtype, decay, scaled)
    with native.enabled(False):
        expected = steps(*arguments)
    with native.enabled(True):
        actual = steps(*arguments)
    for one, other in zip(actual, expected, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_threads_change_no_bit(name, monkeypatch):
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 64)
    with native.enabled(True):
        expected = steps(name, 1, 1003, "float32", 0.1, False)
        for count in (2, 3, 5):
            with thread_limit(count):
                for one, other in zip(steps(name, 1, 1003, "float32", 0.1, False), expected, strict=True):
                    assert_same_bits(one, other)


@pytest.mark.parametrize("kind", ["strided", "swapped", "subclass"])
def test_numpy_updates_what_the_kernels_do_not_take(kind, monkeypatch):
    """Strides, another order of bytes, an optimizer made from another."""
    monkeypatch.setattr(compiled, "update", lambda *arguments: pytest.fail("a C kernel was called"))

    class Sign(optimizers.SGD):
        formula = "p -= lr * sign(g);"

    p, g = np.arange(6.0), np.full(6, 2.0)
    if kind == "strided":
        p, g = np.repeat(p, 2)[::2], np.repeat(g, 2)[::2]
    elif kind == "swapped":
        p, g = p.astype(">f8"), g.astype(">f8")
    with native.enabled(True):
        (Sign if kind == "subclass" else optimizers.SGD)(lr=0.5).update({"p": p}, {"p": g})
    assert p.tolist() == (np.arange(6) - (0.5 if kind == "subclass" else 1)).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 7, 16, 33, 100])
def test_an_average_moves_as_by_numpy(dtype, size):
    rng = np.random.default_rng(size)
    values, wide = draw(rng, size, dtype), "float64" if dtype == "float64" else "float32"
    start, moved = draw(rng, size, wide), []
    for on in (False, True):
        average = start.copy()
        with native.enabled(on), np.errstate(all="ignore"):
            compiled.move_towards(average, values, 0.3)
        moved.append(average)
    assert_same_bits(*moved)
