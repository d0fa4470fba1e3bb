"""Train on a device and on the CPU in lockstep, and check every step of the device.

Two trainings that run freely drift apart even if both are correct: their rounding differs, and sometimes flips a ReLU
or a maximum. Therefore the device gets the CPU's parameters, state, optimizer state and random state before every step,
and makes that one step. The results of each layer are then compared with bounds, computed from the inputs that the
device's *own* layers got: where rounding flipped a ReLU, the next layer is checked on that input. Each bound is that of
one operation against float64 (``training.check.bounds``), and does not grow along the network. Whether each layer got
the output of the layer before it is compared bit for bit. If all links hold, the whole step is correct: batch, outputs,
loss, gradients and update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backend import asnumpy, random, use
from training.check.devices import in_one_line, severity
from training.check.links import Link, links, unchecked, unless
from training.check.replica import Replica
from training.data import Loader, load
from training.models import Network, build_for
from training.models.indices import check_for_commands
from training.models.loading import load_network
from training.profile.meter import example_batch

TRAININGS = (("DeepConvNet", "adam"), ("ConvNet", "momentum"))
"""The models and optimizers that ``xpnet check`` trains: one with pooling and dropout, one with batch normalization."""


@dataclass(frozen=True)
class Divergence:
    """The first wrong result of a device: the fields of ``Link``, and the step, counted from 1.

    If the device raised an error, ``layer`` is empty and ``array`` has the message.
    """

    step: int
    layer: str
    array: str
    error: float
    tolerance: float


@dataclass(frozen=True)
class LockstepResult:
    """The result of a training in lockstep.

    Attributes:
        model, optimizer: the names of what was trained.
        steps: the number of steps made.
        loss_difference: the largest difference of the losses of CPU and device, divided by the CPU's.
        share: the largest error divided by its tolerance.
        divergence: the first error that is too large, or None.
    """

    model: str
    optimizer: str
    steps: int
    loss_difference: float
    share: float
    divergence: Divergence | None = None

    @property
    def passed(self) -> bool:
        """True if every step was right."""
        return self.divergence is None


def train_in_lockstep(
    device: str,
    steps: int = 50,
    model: str = "DeepConvNet",
    optimizer: str = "adam",
    seed: int = 0,
    batch_size: int = 8,
) -> LockstepResult:
    """Train on the CPU and make each step on ``device``, too; stop at the first step that is wrong there.

    Args:
        device: as ``backend.use`` takes it.
        steps: at least 1.
        model: of ``training.models.named.MODELS``.
        optimizer: of ``training.optim.NAMES``.
        seed: of first weights, dropout, and the order of the data (mnist10k).
        batch_size: samples in a step.
    """
    data = load()
    loader = Loader(data.train_images, data.train_labels, batch_size, seed=seed, drop_last=True)

    def make() -> Network:
        random.seed(seed)
        return build_for(model, data.input_dim, len(data.classes))

    return _train(device, steps, model, make, loader, optimizer, seed)


def train_file_in_lockstep(
    device: str, file: Path, steps: int = 50, seed: int = 0, allow_import: bool = False, batch_size: int = 8
) -> LockstepResult:
    """Train the network of a file, in float32 by Adam on random samples, as ``train_in_lockstep`` does.

    Args:
        device, steps, batch_size: as there.
        file: as ``training.models.loading.load_network`` takes it, and ``allow_import``.
        seed: of the samples and dropout.

    Raises:
        ValueError: the file's network cannot be made, or a layer combines others by code of its own.
        OSError: the file cannot be read.
    """

    def make() -> Network:
        return load_network(file, allow_import).astype("float32")

    network = check_network(file, allow_import)
    with use("cpu"):
        random.seed(seed)
        x, t = map(asnumpy, example_batch(network, 8 * batch_size))
        loader = Loader(x, t, batch_size, seed=seed)
    return _train(device, steps, type(network).__name__, make, loader, "adam", seed)


def check_network(file: Path, allow_import: bool = False) -> Network:
    """Return the network of a file on the CPU, in float32; raise unless ``train_file_in_lockstep`` can check it.

    Raises:
        ValueError: it cannot be made, takes indices, or a layer combines others by code of its own.
        OSError: the file cannot be read.
    """
    with use("cpu"):
        network = load_network(file, allow_import).astype("float32")
    check_for_commands(network)
    place = unchecked(network.layers)
    if place is not None:
        raise ValueError(f"{file} cannot be checked: layer {place} combines other layers by code of its own")
    return network


def _train(
    device: str, steps: int, model: str, make: Callable[[], Network], loader: Loader, optimizer: str, seed: int
) -> LockstepResult:
    host, other = (Replica(place, make, optimizer) for place in ("cpu", device))
    random_state, difference, share = random.Generator(seed).state, 0.0, 0.0
    for step in range(1, steps + 1):
        batch = divmod(step - 1, len(loader))
        try:
            other.take_over(host)
            made = other.step(loader, batch, random_state)
        except Exception as error:  # of the device, whatever it is
            divergence = Divergence(step, "", in_one_line(error), math.inf, 0.0)
            return LockstepResult(model, optimizer, step, difference, math.inf, divergence)
        with use("cpu"):
            found = list(links(host, made, *loader.batch(*batch)))
        expected = host.step(loader, batch, random_state)
        found.append(Link("random numbers", "state", unless(made.random_state == expected.random_state), 0.0))
        random_state = expected.random_state
        difference = max(difference, abs(made.loss - expected.loss) / max(abs(expected.loss), 1e-3))
        share = max(share, *(severity(link.error, link.tolerance)[1] for link in found))
        wrong = next((link for link in found if not link.error <= link.tolerance), None)
        if wrong is not None:
            return LockstepResult(model, optimizer, step, difference, share, Divergence(step, *wrong))
    return LockstepResult(model, optimizer, steps, difference, share)
