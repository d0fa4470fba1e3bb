import math

import numpy as np
import pytest

import backend
from backend import xp
from training.models.parameters import ParameterDict
from training.optim.clipping import clip_gradients, gradient_norm

SHAPES = {"W1": (3, 4), "b1": (4,), "scale": (), "none": (0, 3), "W2": (2, 3, 2, 2)}
ELEMENTS = 12 + 4 + 1 + 24
DTYPES = ["float16", "float32", "float64"]


def flat_dict(arrays):
    """The arrays as a ParameterDict: copied into one buffer."""
    first = next(iter(arrays.values()))
    params = ParameterDict({name: array.shape for name, array in arrays.items()}, first.dtype, xp)
    params.update(arrays)
    return params


def draw(dtype, shapes=SHAPES):
    rng = np.random.default_rng(5)
    return {name: backend.asarray(np.asarray(rng.normal(size=s), dtype)) for name, s in shapes.items()}


def to_host(arrays):
    return {name: backend.asnumpy(array).copy() for name, array in arrays.items()}


def plain_norm(arrays):
    return math.sqrt(math.fsum(float(x) ** 2 for array in to_host(arrays).values() for x in array.reshape(-1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [dict, flat_dict])
def test_scales_to_the_norm_and_returns_the_norm_before(device, dtype, make):
    grads = make(draw(dtype))
    arrays, before, expected = dict(grads), to_host(grads), plain_norm(grads)
    norm = clip_gradients(grads, max_norm=0.5)
    assert norm.shape == ()
    assert norm.dtype == "float64"
    assert backend.array_module(norm) is backend.array_module(grads["W1"])
    # A float64 sum of n squares is off by n eps at most, its root by half of that.
    assert float(norm) == pytest.approx(expected, rel=ELEMENTS * np.finfo("float64").eps)
    for name, array in grads.items():
        assert array is arrays[name]
        assert array.dtype == dtype
        # The factor and the product are each rounded once (float16 has subnormals, so an absolute term, too).
        np.testing.assert_allclose(
            backend.asnumpy(array).astype("float64"),
            before[name].astype("float64") * (0.5 / expected),
            rtol=2 * np.finfo(dtype).eps,
            atol=float(np.finfo(dtype).smallest_subnormal),
        )
    # Every element is off by eps at most of itself, so the norm is, too.
    assert plain_norm(grads) == pytest.approx(0.5, rel=2 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("make", [dict, flat_dict])
def test_gradients_within_the_norm_keep_their_bits(device, make):
    grads = make(draw("float32"))
    before, norm = to_host(grads), plain_norm(grads)
    clip_gradients(grads, max_norm=norm * (1 + 1e-12))
    for name, array in grads.items():
        np.testing.assert_array_equal(backend.asnumpy(array), before[name])


def test_pythagoras_across_arrays(device):
    grads = {"a": xp.asarray([3.0, 0.0], dtype="float32"), "b": xp.asarray(4.0, dtype="float32")}
    assert float(clip_gradients(grads, 1.0)) == 5.0
    np.testing.assert_allclose(backend.asnumpy(grads["a"]), np.asarray([0.6, 0.0], "float32"), rtol=1e-7)
    np.testing.assert_allclose(backend.asnumpy(grads["b"]), np.float32(0.8), rtol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_squares_do_not_overflow(device, dtype):
    # In float64 there is no wider type to square in: half the exponent range is all there is.
    largest = 1e150 if dtype == "float64" else float(np.finfo(dtype).max)
    grads = {"W": xp.full(100, largest, dtype)}
    norm = clip_gradients(grads, max_norm=1.0)
    assert float(norm) == pytest.approx(10 * largest, rel=1e-12)
    if dtype == "float32":
        # 1 / norm is below the smallest normal float32: devices that flush such numbers to 0 give 0.
        assert float(xp.abs(grads["W"]).max()) <= 0.1001
    else:
        assert plain_norm(grads) == pytest.approx(1.0, rel=2 * float(np.finfo(dtype).eps))


def test_strided_gradients(device):
    base = xp.asarray(np.arange(24.0).reshape(4, 6))
    grads = {"W": base[:, ::2].T}
    assert float(clip_gradients(grads, 1.0)) == pytest.approx(math.sqrt(sum(i * i for i in range(0, 24, 2))), rel=1e-14)
    assert plain_norm(grads) == pytest.approx(1.0, rel=1e-14)
    np.testing.assert_array_equal(backend.asnumpy(base)[:, 1::2], np.arange(24.0).reshape(4, 6)[:, 1::2])


@pytest.mark.parametrize("grads", [{}, {"W": np.zeros((0, 3), "float32")}])
def test_no_elements_have_norm_0(device, grads):
    assert float(clip_gradients({name: backend.asarray(g) for name, g in grads.items()}, 1.0)) == 0.0


def test_zero_gradients_stay_zero(device):
    grads = {"W": xp.zeros(5, "float32")}
    assert float(clip_gradients(grads, 1.0)) == 0.0
    assert backend.asnumpy(grads["W"]).tolist() == [0.0] * 5


def test_a_nan_makes_every_gradient_nan(device):
    grads = {"W": xp.asarray([1.0, float("nan")], dtype="float32"), "b": xp.ones(2, "float32")}
    assert math.isnan(float(clip_gradients(grads, 1.0)))
    assert all(np.isnan(backend.asnumpy(array)).all() for array in grads.values())


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply:RuntimeWarning")  # inf · 0, on NumPy
def test_an_infinity_becomes_nan_and_the_finite_become_0(device):
    grads = {"W": xp.asarray([1.0, -float("inf")], dtype="float32"), "b": xp.ones(2, "float32")}
    assert float(clip_gradients(grads, 1.0)) == math.inf
    np.testing.assert_array_equal(backend.asnumpy(grads["W"]), [0.0, np.nan])
    np.testing.assert_array_equal(backend.asnumpy(grads["b"]), [0.0, 0.0])


@pytest.mark.parametrize("make", [dict, flat_dict])
def test_the_norm_alone_changes_nothing(device, make):
    grads = make(draw("float32"))
    before = to_host(grads)
    assert float(gradient_norm(grads)) == pytest.approx(plain_norm(grads), rel=1e-13)
    for name, array in grads.items():
        np.testing.assert_array_equal(backend.asnumpy(array), before[name])


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_norm_that_cannot_be_reached_is_refused(max_norm):
    grads = {"W": np.ones(3)}
    with pytest.raises(ValueError, match="max_norm must be a finite number, above 0, got"):
        clip_gradients(grads, max_norm)
    assert grads["W"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("bad", "message"), [([1.0], "is list"), (np.ones(2, "int32"), "is of dtype int32"), (2.0, "is float")]
)
def test_what_is_no_float_array_is_named_before_anything_changes(bad, message):
    grads = {"W": np.ones(3), "b": bad}
    with pytest.raises(TypeError, match=rf"grads\['b'\] {message}"):
        clip_gradients(grads, 0.1)
    assert grads["W"].tolist() == [1, 1, 1]


@pytest.mark.gpu
def test_clipping_waits_for_nothing():
    emulator = pytest.importorskip("cuda_on_cpu", reason="counts need the emulated device")
    with backend.use("cuda"):
        grads = flat_dict(draw("float32"))
        clip_gradients(grads, 0.5)
        emulator.reset()
        clip_gradients(grads, 0.1)
        counted = emulator.counters()
    assert counted["synchronizations"] == counted["d2h_calls"] == counted["h2d_calls"] == 0
    assert counted["kernel_launches"] > 0
