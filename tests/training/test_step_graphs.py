"""Steps by CUDA graph: the bits of eager steps, whatever changes between them; what cannot be captured runs eagerly."""

import gc
import itertools
import logging
import re
import threading
import weakref

import numpy as np
import pytest

import backend
from backend import random, xp
from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    Layer,
    LayerNormalization,
    Permute,
    PositionalEmbedding,
    PositionalEncoding,
    Relu,
    Relu6,
    Reshape,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
)
from training.data import Loader
from training.loop.trainer import Trainer
from training.models import Network, build_for
from training.optim import optimizers
from training.optim.loss_scaling import LossScaler
from training.optim.schedules import by_name as schedule
from training.optim.schedules import observe
from training.optim.update import Update
from training.zoo.transformer import encoder, mean_of_positions

pytestmark = pytest.mark.gpu

BATCH, SAMPLES = 4, 18  # four batches and a smaller last one
DENSE, IMAGES = (12,), (2, 6, 6)


@pytest.fixture(autouse=True)
def _cuda():
    with backend.use("cuda"):
        yield


def dense(*extra):
    layers = [Affine.of(12, 16), BatchNormalization.of(16), Relu(), Dropout(0.3), *extra, Affine.of(16, 5)]
    return Network(Sequential(*layers), DENSE)


def convolutions(*extra):
    layers = [
        Convolution.of(2, 4, 3, pad=1), BatchNormalization.of(4), Relu(), Convolution.of(4, 6, 3, stride=2), Relu(),
        Dropout(0.2), *extra, Affine.of(24, 5),
    ]  # fmt: skip
    return Network(Sequential(*layers), IMAGES)


def residual():
    body = Sequential(Convolution.of(2, 4, 3, stride=2, pad=1), BatchNormalization.of(4), Tanh())
    shortcut = Sequential(Convolution.of(2, 4, 1, stride=2), LayerNormalization.of((4, 3, 3)))
    blocks = [Residual(body, shortcut), Relu(), Residual(Sequential(Convolution.of(4, 4, 3, pad=1), Sigmoid()))]
    return Network(Sequential(*blocks, GlobalAveragePooling(), Affine.of(4, 5)), IMAGES)


def transformer():
    """Patches of images as sequences, with learned positions and waves."""
    patches = Convolution.of(2, 8, 2, stride=2), Reshape((8, 9)), Permute((2, 1))
    positions = PositionalEmbedding.of(9, 8), PositionalEncoding(9, 8)
    return Network(
        Sequential(
            *patches, *positions, *encoder(1, 8, 2, 12, causal=True), *mean_of_positions((9, 8)), Affine.of(8, 5)
        ),
        IMAGES,
    )


def recurrent():
    """The rows of images as sequences."""
    cells = RNN.of(6, 8), LSTM.of(8, 5), GRU.of(5, 4)
    return Network(Sequential(Reshape((12, 6)), *cells, Flatten(), Affine.of(48, 5)), IMAGES)


def trainer(
    make=dense, optimizer="adam", dtype="float32", scaler=None, graph=True, rate="warmup-cosine", clip_norm=None
):
    random.seed(0)
    network = make().astype(dtype)
    numbers = np.random.default_rng(1)
    images = numbers.integers(0, 256, (SAMPLES, *network.input_dim), dtype=np.uint8)
    labels = numbers.integers(0, network.classes, SAMPLES)
    return Trainer(
        network,
        Loader(images, labels, BATCH, dtype=dtype),
        Loader(images, labels, SAMPLES, shuffle=False, dtype=dtype),
        Update(
            optimizers.by_name(optimizer),
            schedule=schedule(rate, 0.05, 20) if rate else None,
            clip_norm=clip_norm,
            scaler=scaler,
        ),
        graph=graph,
    )


def take(made, steps, between=lambda made: None):
    """Take steps, with an evaluation after each epoch, and note all that they lead to."""
    seen = []
    while made.step < steps:
        epoch = made.step // len(made.train_loader) + 1
        for step in made.steps(epoch):
            between(made)
            if step >= steps:
                break
        seen.append(made.running_totals().get().tolist())
        seen.append(made.evaluate(made.test_loader))
    return seen


def everything(made):
    """The bits of every array that a step changes, and the counters."""
    arrays = {"params": made.network.params.flat, "grads": made.network.grads.flat, **made.network.state}
    arrays.update(made.optimizer.state_dict())
    if made.update.scaler is not None:
        arrays["control"] = made.update.scaler.control
    bits = {name: backend.asnumpy(array).tobytes() for name, array in arrays.items()}
    return bits, made.random.state, made.step, made.samples


def compare(steps=20, between=lambda made: None, **settings):
    """Take the steps by graph and eagerly; return the trainer that did it by graph."""
    runs = []
    for graph in (False, True):
        scale = settings.get("scaler")
        made = trainer(**{**settings, "scaler": scale() if scale else None, "graph": graph})
        runs.append((take(made, steps, between), everything(made)))
    assert runs[0][1][0].keys() == runs[1][1][0].keys()
    assert [name for name, bits in runs[0][1][0].items() if bits != runs[1][1][0][name]] == []
    assert runs[0] == runs[1]
    return made


def graphs_of(made):
    return made._graphs.shapes


# ---------------------------------------------------------------- bits
@pytest.mark.parametrize("optimizer", optimizers.NAMES)
def test_every_optimizer_gives_the_bits_of_eager_steps(optimizer):
    made = compare(optimizer=optimizer, clip_norm=0.5)
    assert graphs_of(made) == [(4, 12), (2, 12)]
    assert not made._graphs.refusal


@pytest.mark.parametrize("rate", ["warmup-plateau", "one-cycle", "restarts", "polynomial"])
def test_every_schedule_gives_the_bits_of_eager_steps(rate):
    """A plateau is told of an epoch that is no better between two steps."""
    scores = itertools.cycle([0.5, 0.4, 0.3, 0.2])
    made = compare(rate=rate, between=lambda made: observe(made.update.schedule, next(scores)))
    assert graphs_of(made)


def test_convolutions_give_the_bits_of_eager_steps():
    made = compare(make=convolutions, optimizer="momentum")
    assert graphs_of(made) == [(4, 2, 6, 6), (2, 2, 6, 6)]


@pytest.mark.parametrize(
    "name", ["TwoLayerNet", "SimpleConvNet", "ConvNet", "DeepConvNet", "residual", "transformer", "recurrent"]
)
def test_every_model_gives_the_bits_of_eager_steps(name):
    own = {"residual": residual, "transformer": transformer, "recurrent": recurrent}
    make = own.get(name) or (lambda: build_for(name, (1, 12, 12), 5))
    made = compare(make=make, optimizer="adam", steps=12)
    assert len(graphs_of(made)) == 1


def as_pytorch():
    """Layers as PyTorch computes them, and as networks of the zoo have them."""
    width = BatchNormalization(xp.ones(4, "float32"), xp.zeros(4, "float32"), unbiased=True)
    layers = Convolution.of(1, 4, 3, bias=False), width, Relu6(), Reshape((4, 100, 1)), Permute((2, 1, 3))
    mixed = Convolution.of(100, 6, 1), Dropout(0.3, inverted=True)
    return Network(Sequential(*layers, *mixed, Affine.of(24, 5)), (1, 12, 12))


def test_layers_as_pytorch_computes_them_give_the_bits_of_eager_steps():
    made = compare(make=as_pytorch, optimizer="momentum", steps=12)
    assert len(graphs_of(made)) == 1


def allow_tf32():
    try:
        backend.allow_tf32()
    except backend.DeviceError as error:
        pytest.skip(f"{error}")


@pytest.mark.parametrize("optimizer", optimizers.NAMES)
def test_tf32_gives_the_bits_of_eager_steps(optimizer):
    allow_tf32()
    assert graphs_of(compare(make=convolutions, optimizer=optimizer, steps=12))


@pytest.mark.parametrize(
    ("optimizer", "clip_norm"), [("adam", 0.5), *((optimizer, None) for optimizer in optimizers.NAMES)]
)
def test_loss_scaling_gives_the_bits_of_eager_steps(optimizer, clip_norm):
    """Steps are skipped, the scale falls and rises, and Adam's corrections count on the device."""
    scaler = lambda: LossScaler(2.0**24, 3)  # noqa: E731
    made = compare(optimizer=optimizer, dtype="float16", scaler=scaler, clip_norm=clip_norm)
    assert graphs_of(made)
    _, skipped = made.update.scaler.read()
    assert skipped >= 2
    assert made.optimizer.t == 20


def test_a_step_is_one_launch():
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="launches are counted by the emulated device only")
    made = trainer()
    take(made, 15)
    steps = made.steps(4)
    next(steps)
    cuda_on_cpu.reset()
    for _ in range(3):
        next(steps)
    counted = cuda_on_cpu.counters()
    steps.close()
    assert counted["graph_launches"] == 3
    assert counted["kernel_launches"] == counted["cublas_calls"] == counted["malloc_calls"] == 0
    assert counted["h2d_calls"] == 3, "the numbers"
    assert counted["d2h_calls"] == 3, "the losses"
    assert counted["d2d_calls"] == 6, "the batches"


# ---------------------------------------------------------------- what happens between steps
def at(step, action):
    return lambda made: action(made) if made.step == step else None


def test_state_that_is_restored_between_steps():
    kept = {}

    def keep_or_restore(made):
        if made.step == 6:
            kept["optimizer"] = made.optimizer.state_dict()
            kept["random"] = made.random.state
            kept["params"] = made.network.params.flat.copy()
        if made.step == 13:
            made.optimizer.load_state_dict(kept["optimizer"])
            made.random.state = kept["random"]
            made.network.params.flat[...] = kept["params"]

    assert graphs_of(compare(30, keep_or_restore))


def test_a_loss_scale_that_is_restored_between_steps():
    kept = {}

    def keep_or_restore(made):
        if made.step == 6:
            kept["scaler"] = made.update.scaler.state_dict()
        if made.step == 13:
            made.update.scaler.load_state_dict(kept["scaler"])

    made = compare(30, keep_or_restore, dtype="float16", scaler=lambda: LossScaler(2.0**24, 3))
    assert graphs_of(made)


def test_tf32_that_is_allowed_between_steps():
    allow_tf32()

    def allow(made):
        backend.allow_tf32(made.step >= 12)
        assert made.step != 13 or made._graphs is None or not graphs_of(made), "steps are captured anew"

    assert graphs_of(compare(24, allow, make=convolutions, optimizer="sgd"))


def test_a_network_that_moves_to_the_cpu_and_back():
    def move(made):
        made.network.to("cpu")
        made.network.to("cuda")

    assert graphs_of(compare(30, at(12, move)))


@pytest.mark.parametrize(
    "change",
    [
        lambda made: setattr(made.network.layers[3], "dropout_ratio", 0.6),
        lambda made: setattr(made.network.last_layer, "ignore_index", 2),
        lambda made: setattr(made.network.last_layer, "class_weights", (1.0, 3.0, 0.0, 1.0, 2.0)),
        lambda made: setattr(made.network.last_layer, "label_smoothing", 0.1),
        lambda made: setattr(made, "parts", 2),
        lambda made: setattr(made.network.layers[1], "momentum", 0.5),
        lambda made: setattr(made.update, "clip_norm", 0.01),
        lambda made: setattr(made.optimizer, "weight_decay", 0.1),
        lambda made: setattr(made.optimizer, "beta1", 0.5),
        lambda made: setattr(made.optimizer, "eps", 0.1),
        lambda made: random.seed(5),
        lambda made: setattr(made.random, "state", {"seed": 9, "stream": 1, "position": 1 << 50}),
        lambda made: made.network.predict(xp.zeros((3, 12), "float32")),
    ],
    ids=[
        "dropout",
        "ignored label",
        "class weights",
        "label smoothing",
        "parts",
        "batch norm",
        "clipping",
        "weight decay",
        "beta1",
        "eps",
        "seed",
        "random state",
        "prediction",
    ],
)
def test_settings_that_change_between_steps(change):
    assert graphs_of(compare(26, at(13, change), clip_norm=1.0, rate=None))


def test_growth_interval_that_changes():
    settings = {"dtype": "float16", "scaler": lambda: LossScaler(2.0**10, 4)}
    made = compare(26, at(13, lambda made: setattr(made.update.scaler, "growth_interval", 1)), **settings)
    assert made.update.scaler.scale > 2.0**16


def test_a_profile_runs_eagerly():
    made = trainer()
    take(made, 15)

    class Listener:
        names = ()

        def push(self, entered, about):
            self.names = (*self.names, entered.name)

        def pop(self, results=()):
            pass

    listener = Listener()
    with backend.profiling.listen(listener):
        next(made.steps(4))
    assert "forward" in listener.names


def test_two_trainers_take_turns():
    alone = [trainer(optimizer="adam"), trainer(make=convolutions, optimizer="sgd")]
    for made in alone:
        take(made, 15)
    together = [trainer(optimizer="adam"), trainer(make=convolutions, optimizer="sgd")]
    for epoch in (1, 2, 3):
        for _ in zip(*(made.steps(epoch) for made in together), strict=True):
            pass
        for made in together:
            made.evaluate(made.test_loader)
    for made, other in zip(alone, together, strict=True):
        assert everything(made) == everything(other)
        assert graphs_of(other)


def test_two_trainers_at_once():
    alone = [trainer(optimizer="adam"), trainer(optimizer="sgd")]
    for made in alone:
        take(made, 25)
    made, errors = [trainer(optimizer="adam"), trainer(optimizer="sgd")], []

    def run(one):
        try:
            with backend.use("cuda"):
                take(one, 25)
                backend.synchronize()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for one, other in zip(made, alone, strict=True):
        assert everything(one) == everything(other)
        assert graphs_of(one)


# ---------------------------------------------------------------- what cannot be captured
class Own(Layer):
    """A layer of a user's: passes on what it gets."""

    def forward(self, x):
        self.look(x)
        return self.save(x)

    def backward(self, dout):
        return dout

    def look(self, x):
        pass


class Reads(Own):
    def look(self, x):
        float((x * x).sum())


class Remembers(Own):
    def look(self, x):
        self.norm = float((x * x).sum())


class Counts(Own):
    calls = 0

    def look(self, x):
        self.calls += 1


class CountsHidden(Own):
    def __init__(self):
        self.calls = [0]

    def forward(self, x):
        self.calls[0] += 1
        return self.save(x * (1 + self.calls[0]))


class Rolls(Own):
    def forward(self, x):
        return self.save(x * np.float32(self.rng.random()))

    rng = np.random.default_rng(0)


class Draws(Own):
    def forward(self, x):
        return self.save(x + random.uniform(x.shape))


class Multiplies(Own):
    def forward(self, x):
        return self.save(x @ xp.eye(16, dtype=x.dtype))


REFUSALS = {
    Reads: r"Reads\.look \(test_step_graphs\.py, line \d+\): .*D2H",
    Remembers: r"a step changes .*Remembers.*\.norm",
    Counts: r"a step changes .*Counts.*\.calls",
    CountsHidden: "a replay differs from an eager step in",
    Rolls: "a replay differs from an eager step in",
    Draws: r"Draws\.forward \(test_step_graphs\.py, line \d+\): .*random numbers cannot be captured",
    Multiplies: r"Multiplies\.forward \(test_step_graphs\.py, line \d+\): .*cuBLAS",
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_layer_that_cannot_be_captured_is_named_and_trained_eagerly(kind, caplog):
    runs = []
    for graph in (False, True):
        Rolls.rng = np.random.default_rng(0)
        made = trainer(make=lambda: dense(kind()), graph=graph)
        with caplog.at_level(logging.WARNING, "xpnet"):
            take(made, 8 if kind in (CountsHidden, Rolls) else 20)
        runs.append(everything(made))
    assert len([record for record in caplog.records if "CUDA graphs" in record.message]) == 1
    assert "training steps are not run as CUDA graphs: " in caplog.text
    assert re.search(REFUSALS[kind], made._graphs.refusal)
    assert not graphs_of(made)
    if kind not in (CountsHidden, Rolls):  # their own count has gone on in the capture
        assert runs[0] == runs[1]
    steps = made.steps(9)
    next(steps)
    steps.close()


def test_a_layer_of_ones_own_that_can_be_captured_is():
    assert graphs_of(compare(make=lambda: dense(Own())))


def test_an_own_layer_whose_number_changes_between_steps():
    class Scales(Own):
        factor = 2.0

        def __init__(self):
            self.factor = 1.0

        def forward(self, x):
            return self.save(x * self.factor)

    def change(made):
        made.network.layers[4].factor = 1.0 + made.step // 10

    assert graphs_of(compare(30, change, make=lambda: dense(Scales())))


@pytest.mark.parametrize("step", [1, 3, 10])
def test_exhausted_memory_drops_the_graphs_and_later_steps_go_on(step):
    """In an eager step, in the one that is captured, and in an eager one beside a graph: of the smaller last batch."""
    is_full = []

    class Exhausts(Own):
        def forward(self, x):
            if is_full:
                raise MemoryError("full")
            return self.save(x)

    made = trainer(make=lambda: dense(Exhausts()))
    before = []
    steps = made.steps(1)
    for _ in range(step):
        before.append(made.network.params.flat.copy())
        if made.step + 1 == step:
            break
        try:
            next(steps)
        except StopIteration:
            steps = made.steps(2)
            next(steps)
    assert graphs_of(made) == ([(4, 12)] if step == 10 else [])
    is_full.append(True)
    with pytest.raises(MemoryError, match="full"):
        next(steps)
    assert not graphs_of(made)
    assert (made.network.params.flat == before[-1]).all()
    is_full.clear()
    take(made, 25)
    assert graphs_of(made)


def test_the_memory_of_graphs_is_free_as_soon_as_the_trainer_is():
    made = trainer()
    take(made, 15)
    recorder = weakref.ref(made._graphs._recorder)  # has the pool
    gc.disable()
    try:
        del made
        assert recorder() is None
    finally:
        gc.enable()


def test_an_optimizer_of_ones_own_trains_eagerly():
    class Own(optimizers.SGD):
        def update(self, params, grads, control=None):
            params.flat -= 0.1 * grads.flat
            self.t += 1

    made = trainer()
    made = Trainer(made.network, made.train_loader, made.test_loader, Own())
    take(made, 12)
    assert made._graphs is None
