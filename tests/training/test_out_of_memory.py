"""A batch too large for the memory: one clear error, and training goes on with a smaller one in the same process."""

import contextlib

import numpy as np
import pytest
from PIL import Image

import backend
from backend import OutOfMemoryError, asarray, asnumpy, blas, xp
from backend.graphs import Recorder
from layers import Affine, Layer, Sequential
from tests.support.checks import thread_limit
from tests.support.command_line import xpnet
from tests.support.fresh import fresh
from tests.support.product_calls import Refusing
from training.data import Loader
from training.loop.evaluation import predict
from training.loop.trainer import Trainer
from training.models import DeepConvNet, Network
from training.optim.optimizers import Adam

ROOM = 12 << 20
LARGE, SMALL = 96, 4  # the large batch passes some layers before it fails: what these keep must be let go
SLACK = 1 << 16  # bytes: loss, totals and such


@pytest.fixture(params=["limit", "device"])
def room(request, monkeypatch):
    """A device with 12 MiB left: by the limit of CuPy's pool, or truly."""
    with backend.use("cuda"):
        monkeypatch.setattr(blas, "WORKSPACE_BYTES", 1 << 20)  # each stream's would take all of it
        monkeypatch.setattr(blas._cublas(), "contexts", {})
        blas.prepare()  # a real handle takes more than is left below
        Recorder()  # and so does that of the stream of graphs
        pool, runtime = xp.get_default_memory_pool(), xp.cuda.runtime
        pool.free_all_blocks()
        before, block = pool.get_limit(), None
        if request.param == "limit":
            pool.set_limit(pool.total_bytes() + ROOM)
        else:
            block = runtime.malloc(runtime.memGetInfo()[0] - ROOM)
        yield pool
        if block is not None:
            runtime.free(block)
        pool.set_limit(before)


def samples(count):
    rng = np.random.default_rng(3)
    return rng.random((count, 1, 28, 28), dtype="float32"), rng.integers(0, 10, count)


def network():
    backend.random.seed(5)
    return DeepConvNet()


def trainer(net, count, batch_size, test_batch_size=SMALL):
    images, labels = samples(count)
    return Trainer(
        net,
        Loader(images, labels, batch_size),
        Loader(images, labels, test_batch_size, shuffle=False),
        Adam(),
        epochs=1,
    )


def assert_same_as_if_nothing_had_failed(net):
    """Trains on with a small batch, beside a network that never saw the large one."""
    twin = network()
    for each in (net, twin):
        backend.random.seed(7)
        (result,) = trainer(each, 2 * SMALL, SMALL).train()
        assert np.isfinite([result.loss, result.test_loss]).all()
    assert np.array_equal(asnumpy(net.params.flat), asnumpy(twin.params.flat))
    assert np.isfinite(asnumpy(net.params.flat)).all()


@pytest.mark.gpu
def test_training_goes_on_with_a_smaller_batch(room):
    net = network()
    start, used = net.params.flat.copy(), room.used_bytes()
    try:
        trainer(net, LARGE, LARGE).train()
    except OutOfMemoryError as error:  # the rest while it is being handled, when its traceback still lives
        text = str(error)
        assert f"a smaller batch (this one has {LARGE:,} samples)" in text
        assert "backend.tuning.COLUMN_BYTES['cupy']" in text
        assert "Out of memory allocating" in text
        assert "the largest block to be had is" in text
        assert (net.params.flat == start).all()
        assert room.used_bytes() <= used + start.nbytes + SLACK
        assert_same_as_if_nothing_had_failed(net)
    else:
        pytest.fail("the large batch found room")


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["gradient", "loss", "predict"])
def test_in_a_loop_of_ones_own(room, method):
    """A network's methods tell and let go by themselves."""
    net = network()
    x, t = map(asarray, samples(LARGE))
    start, used = net.params.flat.copy(), room.used_bytes()
    with pytest.raises(OutOfMemoryError, match=rf"a smaller batch \(this one has {LARGE:,} samples\)"):
        net.predict(x) if method == "predict" else getattr(net, method)(x, t)
    assert room.used_bytes() <= used + start.nbytes + SLACK
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        net.layers.backward(xp.ones((LARGE, 10), "float32"))
    twin = network()
    gradients = []
    for each in (net, twin):
        backend.random.seed(7)
        gradients.append(asnumpy(each.gradient(x[:SMALL], t[:SMALL]).flat))
    assert np.array_equal(*gradients)


@pytest.mark.gpu
@pytest.mark.parametrize("room", ["limit"], indirect=True)
def test_no_memory_for_the_handle_of_cublas(room, monkeypatch):
    """The handle is made before the first step takes memory: figures and advice are those of every other lack."""
    net = network()
    used, start = room.used_bytes(), net.params.flat.copy()
    monkeypatch.setattr(blas._cublas(), "contexts", {})
    monkeypatch.setattr(blas._cublas(), "library", Refusing(blas._cublas().library, cublasCreate_v2=[3, 3]))
    failing = trainer(net, 4 * SMALL, SMALL)
    with pytest.raises(OutOfMemoryError) as raised:
        failing.train()
    text = str(raised.value)
    assert text.startswith("cublasCreate_v2 failed with CUBLAS_STATUS_ALLOC_FAILED (3) for a new handle; CuPy's pool")
    assert "the largest block to be had is" in text
    assert f"a smaller batch (this one has {SMALL} samples)" in text
    assert failing.step == 0
    assert (net.params.flat == start).all()
    assert room.used_bytes() <= used + start.nbytes + SLACK
    assert_same_as_if_nothing_had_failed(net)


class Hungry(Layer):
    """A layer whose backward needs more than there is."""

    def forward(self, x):
        return self.save(x * 2)

    def backward(self, dout):
        return xp.empty(2 * ROOM, "uint8")


@pytest.mark.gpu
def test_too_large_for_the_backward_alone(room):
    net = Network(Sequential(Affine.of(784, 10), Hungry()), (784,))
    x, t = map(asarray, samples(SMALL))
    x = x.reshape(SMALL, 784)
    assert np.isfinite(float(net.loss(x, t)))
    with pytest.raises(OutOfMemoryError, match=rf"this one has {SMALL} samples"):
        net.step_gradients(x, t)
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        net.last_layer.backward()


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["epoch", "evaluate", "predict"])
def test_evaluation_tells_as_well(room, where):
    net = network()
    slow = trainer(net, LARGE, SMALL, LARGE)
    used = room.used_bytes()
    slow.train_loader = Loader(*samples(SMALL), SMALL)
    run = {
        "epoch": slow.train,
        "evaluate": lambda: slow.evaluate(slow.test_loader),
        "predict": lambda: predict(net, slow.test_loader),
    }[where]
    with pytest.raises(OutOfMemoryError, match=rf"this one has {LARGE:,} samples"):
        run()
    assert room.used_bytes() <= used + 3 * net.params.flat.nbytes + SLACK  # Adam's state among it
    assert net.accuracy(*map(asarray, samples(SMALL))) >= 0


@pytest.mark.gpu
def test_a_batch_that_does_not_even_fit_as_data(room):
    net = network()
    large = trainer(net, 1, 1)
    images, labels = samples(1)
    large.train_loader = Loader(images.repeat(12_000, axis=0), labels.repeat(12_000), 12_000)
    with pytest.raises(OutOfMemoryError, match=r"a smaller batch \(this one has 12,000 samples\)"):
        large.train()
    assert_same_as_if_nothing_had_failed(net)


@pytest.mark.gpu
def test_the_command_says_it_in_one_line(room, tmp_path):
    run = tmp_path / "run"
    result = xpnet("train", "--device", "cuda", "--batch-size", 100_000, "--epochs", 1, "--out", run, "--quiet")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert line.startswith("Error: Out of memory allocating")
    assert "this one has 9,000 samples" in line
    assert "give a smaller --model or --batch-size (for the evaluation it counts 20 times, up to 1000)" in line
    assert line.endswith("no model has been written")
    assert not (run / "model.safetensors").exists()
    with backend.use("cuda"):
        network().save_params(tmp_path / "deep.npz")
    options = ("--device", "cuda", "--model", "DeepConvNet", "--batch-size", 2000)
    result = xpnet("evaluate", tmp_path / "deep.npz", *options)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "this one has 2,000 samples" in line
    assert line.endswith("give a smaller --batch-size")


@pytest.mark.gpu
def test_every_command_ends_with_one_line(room, tmp_path):
    """Here the parameters themselves find no room."""
    with backend.use("cpu"):
        network().save_params(tmp_path / "deep.safetensors")
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((28, 28), "uint8")).save(image)
    taken = []
    for size in (1 << 20, 1 << 14):
        with contextlib.suppress(MemoryError):
            while True:
                taken.append(xp.empty(size, "uint8"))
    result = xpnet("predict", "--run", tmp_path / "deep.safetensors", "--device", "cuda", image)
    taken.clear()
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert line.startswith("Error: Out of memory allocating")


# The address space is limited once everything is loaded and every thread has run.
ON_THE_HOST = """
import resource
import numpy as np
import backend
from backend import OutOfMemoryError
from training.data import Loader
from training.models import DeepConvNet
from training.optim.optimizers import Adam
from training.loop.trainer import Trainer

backend.use("cpu")
rng = np.random.default_rng(3)
images, labels = rng.random((4096, 1, 28, 28), dtype="float32"), rng.integers(0, 10, 4096)

def network():
    backend.random.seed(5)
    return DeepConvNet()

def train(net, count, batch_size):
    test = Loader(images[:8], labels[:8], 8, shuffle=False)
    return Trainer(net, Loader(images[:count], labels[:count], batch_size), test, Adam(), epochs=1).train()

def seeded(net):
    backend.random.seed(7)
    return train(net, 32, 8)

net, twin = network(), network()
seeded(twin)
(size,) = [int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize")]
resource.setrlimit(resource.RLIMIT_AS, (size + (128 << 20), -1))
start = net.params.flat.copy()
try:
    train(net, 4096, 4096)
except OutOfMemoryError as error:
    assert (net.params.flat == start).all()
    seeded(net)
    assert (net.params.flat == twin.params.flat).all() and np.isfinite(net.params.flat).all()
    print(error)
"""


def test_on_the_host():
    said = fresh(ON_THE_HOST)
    assert said.startswith("Unable to allocate ")
    assert "recycled buffers hold" in said
    assert said.endswith("to need less: a smaller batch (this one has 4,096 samples)")


def test_a_network_on_the_host_tells_of_a_batch_that_no_memory_holds():
    net = network()
    many = np.broadcast_to(np.float32(0), (1 << 44, 1, 28, 28))
    with pytest.raises(OutOfMemoryError, match=r"^Unable to allocate .*this one has 17,592,186,044,416 samples"):
        net.predict(many)
    assert_same_as_if_nothing_had_failed(net)


def test_forgetting_frees_what_a_forward_kept():
    net = network()
    x, t = samples(64)
    threads = backend.threads.limit()
    backend.threads.set_limit(1)  # a helper thread lets go of its last part a moment after it was waited for
    backend.workspace.clear()
    net.loss(x, t)
    assert backend.workspace.held_bytes()[0] > 64 * 28 * 28 * 16 * 4
    net.forget()
    assert backend.workspace.held_bytes()[0] == 0
    backend.threads.set_limit(threads)
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        net.layers.backward(np.ones((64, 10), "float32"))
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        net.last_layer.backward()
    assert_same_as_if_nothing_had_failed(net)


def test_a_training_step_forgets_each_layer_once_its_backward_is_done():
    net = network()
    x, t = samples(64)
    held = []
    with thread_limit(1):
        backend.workspace.clear()
        backend.random.seed(1)
        expected = {name: gradient.copy() for name, gradient in net.gradient(x, t).items()}
        assert backend.workspace.held_bytes()[0] == 0
        backend.random.seed(1)
        net.loss(x, t, train_flg=True)
        held.append(backend.workspace.held_bytes()[0])
        net.layers.backward(
            net.last_layer.backward(), lambda _: held.append(backend.workspace.held_bytes()[0]), forgetting=True
        )
    assert held[-1] < held[0] / 2
    for name, gradient in net.grads.items():
        np.testing.assert_array_equal(gradient, expected[name])
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        net.layers.backward(np.ones((64, 10), "float32"))
    with pytest.raises(TypeError, match="forgetting"):
        net.layers.backward(np.ones((64, 10), "float32"), forgetting="yes")
