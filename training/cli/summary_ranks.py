"""The part of ``xpnet summary`` about several devices: ``--ranks`` and ``--link``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import click

from training.cli.common import UserError, user_errors
from training.files.printable import printable
from training.profile.cost import StepCost
from training.profile.cost.links import NAMES, Cluster, cluster_of
from training.profile.cost.ranks import BUCKET_BYTES, DEVICES, Bucket, RanksStep, backward_seconds, buckets_of, step_on
from training.terminal.tables import aligned

DEFAULT_GPU = "h100"
"""The GPU whose backward is taken where neither ``--gpu`` nor ``--measure`` is given."""


class Ranks(NamedTuple):
    """What ``--ranks`` and ``--link`` ask for: a number of devices and what joins them."""

    devices: int
    link: str
    cluster: Cluster


class RanksCost(NamedTuple):
    """Steps on 2 to 1,024 devices, those asked for among them; ``place`` is where a device's own times are from."""

    ranks: Ranks
    place: str
    buckets: list[Bucket]
    backward: float
    alone: float
    rows: list[RanksStep]


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--ranks`` and ``--link`` to a command."""
    link = click.option(
        "--link",
        metavar="NAME",
        help=f"What joins the devices: {', '.join(NAMES)}, or GB/s:µs, such as 2.5:30. nvlink: eight GPUs a node and "
        "InfiniBand between nodes; the others: one device a node.",
    )
    ranks = click.option(
        "--ranks",
        type=click.IntRange(2, DEVICES[-1]),
        help="Add the time of the gradients' all-reduce on so many devices, and on 2 to 1,024. The backward that it "
        f"hides under is that of --gpu, or measured by --measure.  [default: {DEFAULT_GPU}'s]",
    )
    return ranks(link(command))


def asked(ranks: int | None, link: str | None, gpu: str | None) -> Ranks | None:
    """Return what the options ask for; None where they were not given.

    Args:
        gpu: the GPU whose NVLink it is; None if the devices are no GPUs.

    Raises:
        UserError: one option lacks the other, or there is no such link.
    """
    if ranks is None and link is None:
        return None
    if link is None:
        raise UserError(f"--ranks {ranks} needs --link: {', '.join(NAMES)}, or GB/s:µs, such as 2.5:30")
    if ranks is None:
        raise UserError(f"--link {printable(link)} needs --ranks, the number of devices")
    with user_errors():
        return Ranks(ranks, link, cluster_of(link.lower(), gpu))


def cost_on(ranks: Ranks, cost: StepCost, seconds: Mapping[tuple[str, str], float], place: str) -> RanksCost:
    """Return the cost of a step on several devices.

    Args:
        seconds: of a step of one device, by layer and phase.
        place: where these are from.
    """
    counts = sorted({*DEVICES, ranks.devices})
    rows = [step_on(count, cost, seconds, ranks.cluster, BUCKET_BYTES) for count in counts]
    return RanksCost(ranks, place, buckets_of(cost, seconds), backward_seconds(seconds), sum(seconds.values()), rows)


def lines(found: RanksCost) -> list[str]:
    """Return the lines that ``xpnet summary`` prints."""
    devices, cluster = found.ranks.devices, found.ranks.cluster
    joined = str(cluster.between)
    if cluster.node > 1:
        joined = f"{cluster.inside}, {cluster.node} devices a node, {joined} between nodes"
    nbytes = sum(bucket.nbytes for bucket in found.buckets)
    count = len(found.buckets)
    (row,) = (row for row in found.rows if row.devices == devices)
    table = [["devices", "nodes", "all-reduce µs", "not hidden µs", "step µs", "efficiency"]]
    for each in found.rows:
        times = [f"{1e6 * time:,.1f}" for time in (each.all_reduce, each.exposed, each.step)]
        table.append([f"{each.devices:,}", f"{each.nodes:,}", *times, f"{100 * each.efficiency:.1f} %"])
    return [
        "",
        f"ring all-reduce of {nbytes / 1e6:,.3f} MB of gradients in {count} bucket{'s' * (count != 1)}, over {joined}",
        f"backward, which it hides under: {1e6 * found.backward:,.1f} µs of a step of {1e6 * found.alone:,.1f} µs "
        f"({found.place})",
        f"on {devices:,} devices: {1e6 * row.all_reduce:,.1f} µs of all-reduce, of which {1e6 * row.exposed:,.1f} µs "
        f"are not hidden; {devices * row.efficiency:,.1f} times the samples a second of one device",
        *aligned(table, words=0),
    ]


def record(found: RanksCost) -> dict[str, Any]:
    """Return the same for JSON, in seconds and bytes."""
    cluster = found.ranks.cluster
    links = {"between": cluster.between, **({"inside": cluster.inside} if cluster.node > 1 else {})}
    return {
        "devices": found.ranks.devices,
        "link": found.ranks.link,
        "devices_a_node": cluster.node,
        "links": {place: link._asdict() for place, link in links.items()},
        "times_of": found.place,
        "backward_seconds": found.backward,
        "step_seconds": found.alone,
        "buckets": [bucket._asdict() for bucket in found.buckets],
        "steps": [row._asdict() for row in found.rows],
    }
