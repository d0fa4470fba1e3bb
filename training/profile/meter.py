"""Readings by layer and phase of a training step: seconds, or whatever else a clock or counter reads."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import numpy

from backend import asarray, random, synchronize, threads
from backend.recording import Recorder
from backend.types import Array
from kernels.core.layout import copy_channels_last
from training.loop.step import UPDATE
from training.loop.trainer import STEP
from training.models.network import Network
from training.models.outputs import places_in
from training.optim.loss_scaling import LossScaler
from training.optim.optimizer import Optimizer
from training.optim.update import Update
from training.profile.launches import LaunchCounter
from training.profile.steps import LOOP, Profile

Readings = dict[tuple[str, str], int]
"""Readings by layer (``"Residual1.body.Convolution1"``) and phase (forward, backward, or update)."""

_WARM_UP = 3


def example_batch(network: Network, samples: int) -> tuple[Array, Array]:
    """Return random samples and targets for a network, on the active device and in the network's dtype.

    Samples of a network that begins with an ``Embedding`` are indices. Scores of steps and pixels get a label each.
    """
    if network.index_count is not None:
        x = (random.uniform((samples, *network.input_dim), "float64") * network.index_count).astype("int32")
    else:
        x = random.uniform((samples, *network.input_dim)).astype(network.params.flat.dtype, copy=False)
    if network.last_layer.target_kind == "classes":
        places = places_in(network.output_dim)
        t = numpy.arange(samples * math.prod(places), dtype="int32").reshape(samples, *places) % network.classes
    else:
        t = numpy.arange(samples * network.classes).reshape(samples, -1) % 2 * numpy.float32(1)
    return copy_channels_last(x) if x.ndim == 4 else x, asarray(t)


def readings_of_a_step(
    network: Network,
    optimizer: Optimizer,
    x: Array,
    t: Array,
    clock: Callable[[], int],
    scaler: LossScaler | None = None,
) -> Readings:
    """Make one training step and return by how much a clock or counter goes on in each layer and phase.

    What a layer's sublayers take is theirs alone. A Relu that is fused with the layer before it counts for that layer.

    Args:
        network, optimizer: parameters change, as in training.
        x, t: a batch and its labels, on the active device.
        clock: read where layers and operations begin and end, such as ``time.perf_counter_ns``.
        scaler: for a float16 network.
    """
    with threads.single_threaded_blas(), Recorder(clock) as recorder, STEP:  # BLAS as in the training loop
        update = Update(optimizer, scaler=scaler)
        network.step_gradients(x, t, update.loss_scale)
        with UPDATE:
            update.step(network.params, network.grads)
    rows = Profile(1, 0.0, recorder.events).rows()
    return {(row.layer, row.phase): row.nanoseconds for row in rows if row.layer != LOOP}


def launches_of_a_step(
    network: Network, optimizer: Optimizer, x: Array, t: Array, scaler: LossScaler | None = None
) -> Readings:
    """Return the kernel launches of each layer and phase in a step on a GPU, after one in which kernels are compiled.

    Raises:
        NoCounterError: launches cannot be counted.
    """
    readings_of_a_step(network, optimizer, x, t, time.perf_counter_ns, scaler)
    with LaunchCounter() as counter:
        return readings_of_a_step(network, optimizer, x, t, counter, scaler)


def seconds_of_a_step(
    network: Network, optimizer: Optimizer, x: Array, t: Array, steps: int, scaler: LossScaler | None = None
) -> dict[tuple[str, str], float]:
    """Return the median seconds of each layer and phase over ``steps`` steps, after three that are not counted.

    On a GPU each operation is waited for, which the training loop does not do: there the sum is more than a step takes.
    """

    def clock() -> int:
        synchronize()
        return time.perf_counter_ns()

    samples = [readings_of_a_step(network, optimizer, x, t, clock, scaler) for _ in range(_WARM_UP + steps)][_WARM_UP:]
    return {place: 1e-9 * statistics.median(sample[place] for sample in samples) for place in samples[0]}
