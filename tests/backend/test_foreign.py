"""Arrays of other libraries: shared by pointer where they lie on the active device, refused with a remedy elsewhere."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy, from_dlpack, xp
from backend.foreign import opened
from layers import Affine, Sequential
from training import SGD, Trainer
from training.data import Loader
from training.models import Network


class Tensor:
    """An array of another library, which gives its memory by one protocol."""

    def __init__(self, array, device=None, **more):
        self.array, self.device, self.dtype, self.shape = array, device, array.dtype, array.shape
        vars(self).update(more)


class ByDlpack(Tensor):
    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()


class ByInterface(Tensor):
    @property
    def __array_interface__(self):
        return self.array.__array_interface__


class ByCudaInterface(Tensor):
    @property
    def __cuda_array_interface__(self):
        return self.array.__cuda_array_interface__


def pointer(array):
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def network():
    W = asarray(np.arange(12, dtype="float32").reshape(4, 3))
    return Network(Sequential(Affine(W, xp.ones(3, "float32"))), (4,))


VIEWS = {
    "plain": lambda a: a,
    "transposed": lambda a: a.T,
    "every other": lambda a: a[:, ::2],
    "repeated": lambda a: (
        np.broadcast_to(a[:1], a.shape) if isinstance(a, np.ndarray) else xp.broadcast_to(a[:1], a.shape)
    ),
    "empty": lambda a: a[:, :0],
    "no dimensions": lambda a: a[1, 2, ...],
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("view", VIEWS)
def test_memory_is_shared_with_its_shape_strides_and_dtype(device, dtype, view):
    array = VIEWS[view](xp.arange(20).reshape(4, 5).astype(dtype))
    kinds = (ByDlpack, ByInterface if device.kind == "cpu" else ByCudaInterface)
    for kind in kinds:
        y = from_dlpack(kind(array))
        assert type(y) is xp.ndarray
        assert (y.shape, y.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(asnumpy(y), asnumpy(array))
        if array.size:
            assert pointer(y) == pointer(array)
            assert y.strides == array.strides


def test_own_arrays_are_returned_as_they_are(device):
    x = xp.ones((2, 3))
    assert from_dlpack(x) is x
    assert opened(x) is x
    numbers = [1, 2]
    assert opened(numbers) is numbers


def test_what_may_not_be_written_may_not_be_written_afterwards():
    array = np.arange(3.0)
    array.flags.writeable = False
    with backend.use("cpu"):
        for kind in (ByDlpack, ByInterface):
            assert not from_dlpack(kind(array)).flags.writeable


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3.0, r"x must be an array, got 3.0"),
        ([1.0], r"x must be an array, got \[1.0\]"),
        (object(), r"x must be an array, got <object"),
        (ByDlpack(np.ones(2), requires_grad=True), r"x requires a gradient, .*: give x\.detach\(\)"),
        (ByDlpack(np.ones(2), is_neg=lambda: True), r"opposite sign: give x\.resolve_neg\(\)"),
        (
            ByDlpack(np.ones(2), (2, 1)),
            r"ByDlpack float64\[2\], lies on cuda:1, and the active device is cpu: .*'cuda:1'",
        ),
        (ByDlpack(np.ones(2), (8, 0)), r"lies on a device that xpnet does not compute on \(DLPack's kind 8\)"),
        (SimpleNamespace(__cuda_array_interface__={}), r"lies on cuda, and the active device is cpu"),
        (ByDlpack(np.array(["a"])), r"x must be an array whose memory can be shared, got .*ByDlpack <U1\[1\]"),
        (np.ma.masked_less([1.0, -1], 0), r"masked\.filled\(value\)"),
    ],
)
def test_what_is_refused_says_why(given, message):
    with backend.use("cpu"), pytest.raises(TypeError, match=message):
        from_dlpack(given)


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", "torch.float8_e4m3fn", "float4_e2m1fn", "int4"])
def test_a_dtype_that_numpy_lacks_is_refused(dtype):
    tensor = ByDlpack(np.ones(2))
    tensor.dtype = dtype
    with (
        backend.use("cpu"),
        pytest.raises(TypeError, match=r"must be of a dtype of NumPy, got .*: convert it to float32"),
    ):
        from_dlpack(tensor)


@pytest.mark.gpu
def test_an_array_on_the_other_device_is_refused_and_both_are_named():
    host = np.ones(2, "float32")
    with backend.use("cuda"):
        there = xp.ones(2, "float32")
        for kind in (ByDlpack, ByInterface):
            with pytest.raises(TypeError, match=r"lies on the cpu, and the active device is cuda:0: .*backend.asarray"):
                from_dlpack(kind(host))
            assert pointer(opened(kind(host))) == host.ctypes.data
            assert type(asarray(kind(host))) is xp.ndarray
        with pytest.raises(TypeError, match=r"active device, cuda:0, which computes with cupy"):
            from_dlpack(host)
        with pytest.raises(TypeError, match=r"lies on cuda:1, and the active device is cuda:0"):
            from_dlpack(ByDlpack(there, (2, 1)))
    with backend.use("cpu"):
        for tensor in (ByDlpack(there), ByCudaInterface(there)):
            with pytest.raises(
                TypeError, match=r"lies on cuda(:0)?, and the active device is cpu: .*backend.use\('cuda"
            ):
                asnumpy(tensor)


def test_the_doors_take_them(device):
    model, x = network(), np.arange(20, dtype="float32").reshape(5, 4) / 8
    t, there = np.array([0, 1, 2, 0, 1]), asarray(x)
    scores, loss = asnumpy(model.predict(there)), float(model.loss(there, asarray(t)))
    np.testing.assert_array_equal(asnumpy(model.predict(ByDlpack(there))), scores)
    np.testing.assert_array_equal(asnumpy(model.predict(ByDlpack(x))), scores)  # on a GPU from the host, too
    assert float(model.loss(ByDlpack(there), ByDlpack(asarray(t)))) == loss
    assert float(model.step_gradients(ByDlpack(there), ByDlpack(asarray(t)))) == loss
    assert model.accuracy(ByDlpack(x), ByDlpack(t)) == model.accuracy(x, t)
    batches = [(ByDlpack(x), ByDlpack(t))]
    assert len(Trainer(model, Loader(ByDlpack(x), ByDlpack(t), 2), batches, SGD(), epochs=1).train()) == 1


def test_the_doors_refuse_what_is_refused_and_name_the_argument():
    model, x = network(), np.ones((5, 4), "float32")
    t = np.zeros(5, "int64")
    tracked = ByDlpack(x, requires_grad=True)
    for name, call in (
        ("x", lambda: model.predict(tracked)),
        ("x", lambda: model.loss(tracked, t)),
        ("images", lambda: Loader(tracked, t, 2)),
        ("labels", lambda: Loader(x, ByDlpack(t, requires_grad=True), 2)),
        ("batch 0", lambda: Trainer(model, [(tracked, t)], [(x, t)], SGD())),
    ):
        with pytest.raises(TypeError, match=rf"{name}.* requires a gradient"):
            call()


def test_a_result_is_taken_by_another_library_without_a_copy(device):
    y = network().predict(xp.ones((5, 4), "float32"))
    again = xp.from_dlpack(ByDlpack(y))
    assert pointer(again) == pointer(y)


HAS_TORCH, HAS_JAX = (importlib.util.find_spec(name) is not None for name in ("torch", "jax"))


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; the extra `bench` has it")
class TestTorch:
    def test_memory_is_shared_both_ways(self):
        import torch

        x = torch.arange(20.0).reshape(5, 4)
        with backend.use("cpu"):
            y = from_dlpack(x)
            assert pointer(y) == x.data_ptr()
            assert y.flags.writeable
            scores = network().predict(x)
            back = torch.from_dlpack(scores)
            assert back.data_ptr() == pointer(scores)
            torch.testing.assert_close(back, x @ torch.arange(12.0).reshape(4, 3) + 1)
            images = torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
            assert from_dlpack(images).transpose(0, 2, 3, 1).flags.c_contiguous
            assert from_dlpack(images[:, :, ::2]).shape == (2, 3, 2, 5)
            assert from_dlpack(torch.ones(0, 3)).shape == (0, 3)
            assert from_dlpack(torch.tensor([True, False])).dtype == bool

    def test_what_is_refused(self):
        import torch

        with backend.use("cpu"):
            for tensor, message in (
                (torch.ones(2, requires_grad=True), r"x\.detach\(\)"),
                (torch.ones(2, dtype=torch.bfloat16), r"got torch.Tensor torch.bfloat16\[2\]: convert it to float32"),
                (torch.ones(2, dtype=torch.float8_e4m3fn), "convert it to float32"),
                (torch._neg_view(torch.ones(2)), "resolve_neg"),
                (torch.ones(2, dtype=torch.complex64).conj(), "can be shared, got .*conjugate bit"),
                (torch.eye(2).to_sparse(), "can be shared, got .*torch.strided"),
                (torch.ones(2, device="meta"), "does not compute on|can be shared"),
            ):
                with pytest.raises(TypeError, match=message):
                    from_dlpack(tensor)

    def test_a_training_on_tensors_has_the_bits_of_one_on_arrays(self):
        import torch

        def parameters(convert):
            random = np.random.default_rng(0)
            model, x, t = network(), random.random((10, 4), "float32"), np.arange(10) % 3
            train = Loader(convert(x), convert(t), 4)
            Trainer(model, train, [(convert(x), convert(t))], SGD(), epochs=2).train()
            return model.params.flat

        with backend.use("cpu"):
            np.testing.assert_array_equal(parameters(torch.from_numpy), parameters(np.asarray))


@pytest.mark.skipif(not HAS_JAX, reason="jax is not installed")
def test_arrays_of_jax():
    import jax

    x = jax.numpy.arange(20.0).reshape(5, 4)
    with backend.use("cpu"):
        y = from_dlpack(x)
        assert pointer(y) == x.unsafe_buffer_pointer()
        assert not y.flags.writeable
        np.testing.assert_array_equal(network().predict(x), network().predict(np.asarray(x)))
        with pytest.raises(TypeError, match="convert it to float32"):
            from_dlpack(jax.numpy.ones(2, "bfloat16"))
        with pytest.raises(TypeError, match="x must be an array"):
            jax.jit(from_dlpack)(x)
