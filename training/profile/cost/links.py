"""Published speeds of the links between devices, and the time of a ring all-reduce over them.

The all-reduce of the gradients is the one transfer of a data-parallel step. A ring of n devices makes it in 2(n-1)
steps, in each of which every device sends 1/n of the bytes to its neighbour and receives as much: n-1 steps add, n-1
spread the sums. By the alpha-beta model a step takes the latency α and the bytes at the bandwidth β::

    T = 2(n-1) · (α + bytes / n / β)

Rabenseifner, "Optimization of collective reduction operations" (ICCS 2004); Thakur, Rabenseifner and Gropp,
"Optimization of collective communication operations in MPICH" (IJHPCA 19(1), 2005); Patarasuk and Yuan,
"Bandwidth optimal all-reduce algorithms for clusters of workstations" (JPDC 69(2), 2009).

Over several nodes with m devices each, the devices of a node first add their parts up (m-1 steps), then the nodes make
an all-reduce of each of the m parts, all m at once, each on the network adapter of its device, and at last the devices
of a node exchange the sums (m-1 steps).

Bandwidths are those of one direction, so half of what NVIDIA's data sheets print for NVLink, as peak rates:

=============== ====================================================================================================
NVLink          the data sheets that ``gpus`` names, "NVLink"; of RTX 3090 and H100 PCIe that of the bridge between
                two cards ("NVIDIA Ampere GA102 GPU Architecture" V2.0; "NVIDIA H100 PCIe GPU" product brief PB-11133)
nodes           eight GPUs that NVLink joins, and a network adapter for each, as in "NVIDIA DGX H100/H200 User Guide"
InfiniBand      NDR, 400 Gb/s a port: "NVIDIA ConnectX-7" data sheet; an adapter for each device
Ethernet        25 Gb/s: IEEE Std 802.3by-2016; an adapter for each device, one device a machine
latencies       NCCL 2.30, ``src/graph/tuning.cc``, ``hwLatencies`` of Ring, Simple: NVLINK 3.4 µs, NET 14 µs
=============== ====================================================================================================

What is reached is less: 80 to 95 % of the bandwidth is usual, and TCP on a CPU has a larger latency. ``Link`` takes
measured figures, which ``python -m bench all-reduce`` prints for MPI on a machine.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Link(NamedTuple):
    """A link of a device to its neighbour.

    Attributes:
        title: its name.
        bandwidth: bytes a second that a device sends while it receives as many.
        latency: seconds of a step besides those of its bytes.
    """

    title: str
    bandwidth: float
    latency: float

    def __str__(self) -> str:
        return f"{self.title} ({self.bandwidth / 1e9:g} GB/s, {1e6 * self.latency:g} µs)"


class Cluster(NamedTuple):
    """Devices in nodes.

    Attributes:
        node: devices in a node.
        inside: the link that joins the devices of a node; unused where ``node`` is 1.
        between: the link between devices of two nodes.
    """

    node: int
    inside: Link
    between: Link

    def nodes_of(self, devices: int) -> int:
        """Return the number of nodes for so many devices."""
        return math.ceil(devices / self.node)


NVLINK_LATENCY = 3.4e-6
NETWORK_LATENCY = 14e-6
INFINIBAND = Link("InfiniBand NDR", 400e9 / 8, NETWORK_LATENCY)
ETHERNET = Link("25 Gb/s Ethernet", 25e9 / 8, NETWORK_LATENCY)

_NVLINKS = {
    "v100": ("NVLink 2", 150, 8),
    "rtx3090": ("NVLink 3 bridge", 56.25, 2),
    "a100": ("NVLink 3", 300, 8),
    "h100": ("NVLink 4", 450, 8),
    "h100-pcie": ("NVLink 4 bridge", 300, 2),
    "h200": ("NVLink 4", 450, 8),
    "b200": ("NVLink 5", 900, 8),
}
"""Name, GB/s of one direction and devices joined, by the names of ``GPUS``."""

NAMES = ("nvlink", "infiniband", "ethernet")
"""The links that have a name."""


def cluster_of(link: str, gpu: str | None) -> Cluster:
    """Return the cluster that a link's name stands for.

    Args:
        link: "nvlink": nodes of the devices that NVLink joins (8 or 2), with InfiniBand between them. "infiniband",
            "ethernet": one device a node. "GB/s:µs", such as "2.5:30": a link with this bandwidth and this latency.
        gpu: one of ``GPUS``, whose NVLink it is; None if the devices are no GPUs.

    Raises:
        ValueError: there is no such link, or the GPU has no NVLink.

    Examples:
        >>> from training.profile.cost.links import cluster_of
        >>> cluster = cluster_of("nvlink", "h100")
        >>> cluster.node, str(cluster.inside)
        (8, 'NVLink 4 (450 GB/s, 3.4 µs)')
        >>> cluster_of("2.5:30", None).between.bandwidth
        2500000000.0
    """
    if link == "nvlink":
        if gpu not in _NVLINKS:
            raise ValueError(
                f"link nvlink: expected a GPU that has one: {', '.join(_NVLINKS)}, got {gpu or 'no GPU'}; other links "
                "are infiniband, ethernet and GB/s:µs"
            )
        title, gigabytes, node = _NVLINKS[gpu]
        return Cluster(node, Link(title, gigabytes * 1e9, NVLINK_LATENCY), INFINIBAND)
    flat = {"infiniband": INFINIBAND, "ethernet": ETHERNET}.get(link) or _measured(link)
    return Cluster(1, flat, flat)


def _measured(link: str) -> Link:
    """Return the link of a text "GB/s:µs"."""
    try:
        gigabytes, microseconds = map(float, link.split(":"))
    except ValueError:
        gigabytes, microseconds = 0.0, 0.0
    if not (0 < gigabytes < math.inf and 0 <= microseconds < math.inf):
        raise ValueError(
            f"link: expected {', '.join(NAMES)}, or bandwidth and latency as GB/s:µs, such as 2.5:30, got {link!r}"
        )
    return Link("link", gigabytes * 1e9, microseconds / 1e6)


def ring_seconds(nbytes: float, devices: int, link: Link) -> float:
    """Return the seconds of a ring all-reduce of ``nbytes`` on each of so many devices; 0 for one device.

    Examples:
        >>> from training.profile.cost.links import Link, ring_seconds
        >>> round(ring_seconds(8e6, 4, Link("slow", 1e9, 1e-3)), 6)  # six steps of 1 ms and of 2 MB
        0.018
    """
    return 2 * (devices - 1) * (link.latency + nbytes / devices / link.bandwidth)


def all_reduce_seconds(nbytes: float, devices: int, cluster: Cluster) -> float:
    """Return the seconds of an all-reduce of ``nbytes``: inside of nodes and between them.

    Devices are spread evenly; where the nodes are not equally full, the fullest counts.
    """
    nodes = cluster.nodes_of(devices)
    inside = math.ceil(devices / nodes)
    return ring_seconds(nbytes, inside, cluster.inside) + ring_seconds(nbytes / inside, nodes, cluster.between)
