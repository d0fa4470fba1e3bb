"""The step of a data-parallel training: how much of the all-reduce hides under the backward pass.

Backward fills the flat gradient buffer from its end. As soon as a bucket's worth of it is complete, after a layer, its
all-reduce begins, while backward goes on with the layers before (``training.distributed.exchange``); buckets are
reduced one after the other. What is not done when backward ends delays the optimizer's update, and with it the step.

Every device computes a batch of its own, so that the work of a device does not depend on their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

from training.distributed.exchange import BUCKET_BYTES
from training.profile.cost.links import Cluster, all_reduce_seconds
from training.profile.cost.model import StepCost

DEVICES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""The numbers of devices that a table has."""


class Bucket(NamedTuple):
    """A part of the gradients.

    Attributes:
        nbytes: its size.
        ready: seconds from the start of backward until it is complete.
    """

    nbytes: int
    ready: float


class RanksStep(NamedTuple):
    """A step on so many devices, in seconds.

    Attributes:
        devices: how many.
        nodes: the nodes that they lie in.
        all_reduce: the time of the all-reduce of all buckets.
        exposed: the part of it that is left when backward ends.
        step: the whole step of a device.
        efficiency: the step of one device alone, divided by this one.
    """

    devices: int
    nodes: int
    all_reduce: float
    exposed: float
    step: float
    efficiency: float


def buckets_of(
    cost: StepCost, seconds: Mapping[tuple[str, str], float], bucket_bytes: int = BUCKET_BYTES
) -> list[Bucket]:
    """Return the buckets in the order in which backward completes them.

    Args:
        cost: of the step of one device.
        seconds: by the name of a row and the phase, as in ``cost.works``; what is missing takes no time.
        bucket_bytes: the least size of a bucket, but for the last one. Buckets end with a layer of the chain, such as a
            whole residual block: a large layer makes a large bucket.

    Raises:
        ValueError: ``bucket_bytes`` is not positive.
    """
    if bucket_bytes <= 0:
        raise ValueError(f"bucket_bytes: expected a positive number of bytes, got {bucket_bytes}")
    buckets, clock, waiting = [], 0.0, 0
    for _, rows in groupby(reversed(cost.rows), lambda row: row.name.partition(".")[0]):
        for row in rows:
            clock += seconds.get((row.name, "backward"), 0.0)
            waiting += row.parameters * cost.dtype.itemsize
        if waiting >= bucket_bytes:
            buckets.append(Bucket(waiting, clock))
            waiting = 0
    return [*buckets, Bucket(waiting, clock)] if waiting else buckets


def step_on(
    devices: int, cost: StepCost, seconds: Mapping[tuple[str, str], float], cluster: Cluster, bucket_bytes: int
) -> RanksStep:
    """Return the step of ``devices`` devices of a cluster.

    Args:
        devices: at least 1.
        cost, seconds, bucket_bytes: as for ``buckets_of``.

    Raises:
        ValueError: ``devices`` or ``bucket_bytes`` is not positive.
    """
    if devices < 1:
        raise ValueError(f"devices: expected at least 1, got {devices}")
    backward = backward_seconds(seconds)
    done, total = 0.0, 0.0
    for bucket in buckets_of(cost, seconds, bucket_bytes):
        taken = all_reduce_seconds(bucket.nbytes, devices, cluster)
        done, total = max(done, bucket.ready) + taken, total + taken
    exposed = max(0.0, done - backward)
    alone = sum(seconds.values())
    return RanksStep(
        devices, cluster.nodes_of(devices), total, exposed, alone + exposed, alone / (alone + exposed) if alone else 1.0
    )


def backward_seconds(seconds: Mapping[tuple[str, str], float]) -> float:
    """Return the seconds of the backward pass."""
    return sum(time for (_, phase), time in seconds.items() if phase == "backward")
