"""Sum gradients over all ranks while backward computes them.

The gradients of a network lie in one flat buffer, in the order of the layers; backward fills it from its end. As soon
as a bucket at the end is full, its sum over the ranks starts: by MPI on the host, or by NCCL in a stream beside the
computation. The weights by which means are made of sums are summed with them, so that samples count alike on all ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

from backend import array_module
from backend.types import Array
from layers import Layer
from training.distributed.communicator import Ranks, on_host
from training.distributed.host import HostSums, SumsOverHost
from training.distributed.nccl import StreamSums, is_available

if TYPE_CHECKING:
    from training.models.network import Network

_log = logging.getLogger("xpnet")

BUCKET_BYTES = 1 << 20
"""A bucket is summed as soon as it has this many bytes."""

COMPRESSIONS = ("none", "fp16")
"""What gradients can be compressed to on their way."""


class Exchange:
    """Sums the gradients, figures and running statistics of a network's steps over all ranks.

    Args:
        ranks: the ranks.
        network: its gradients are summed.
        compress: "fp16" sends gradients as float16, divided by a power of 2 not less than the number of labels in the
            part.
        state: average the running statistics, which each rank takes of its own samples.
    """

    def __init__(self, ranks: Ranks, network: Network, compress: str = "none", state: bool = True) -> None:
        self.ranks = ranks
        self._network = network
        self.is_compressed = compress == "fp16"
        self._state = [array for array in network.state.values() if array.size] if state else []
        self._begins = _begins(network)
        self._sums = _sums_over(ranks, network.params.flat)
        self.fits_graphs = not isinstance(self._sums, SumsOverHost)
        """Whether a step with these sums can be captured as a CUDA graph."""
        self.waits_on_gpu = isinstance(self._sums, StreamSums)
        """Whether it is the GPU that waits for other ranks, and not the host."""

    def begin(self, sums: Array, weight: int) -> None:
        """Begin with a step.

        Args:
            sums: the flat buffer whose parts ``send`` sums in place.
            weight: the samples of the largest part, or all their steps or pixels where these have labels; the same
                on all ranks; float16 numbers are divided by it.
        """
        self._buffer, self._unsent = sums, sums.size
        self._wire = array_module(sums).empty(sums.size, "float16") if self.is_compressed else sums
        self._scale = 2.0 ** max(weight - 1, 0).bit_length()

    def as_filled(self, add: Callable[[int, int], None]) -> Callable[[Layer], None]:
        """Return what a backward calls after each layer: it sends the buckets that are full.

        Args:
            add: adds the gradients between two places to the flat buffer.
        """

        def filled(layer: Layer) -> None:
            begin = self._begins.get(id(layer))
            if begin is not None and (self._unsent - begin) * self._buffer.itemsize >= BUCKET_BYTES:
                self._send(add, begin)
            self._sums.progress()

        return filled

    def send_rest(self, add: Callable[[int, int], None]) -> None:
        """Send what backward has not sent."""
        if self._unsent:
            self._send(add, 0)

    def sum_now(self, array: Array) -> None:
        """Sum an array over the ranks, in place, before anything that follows."""
        if on_host(array):
            self.ranks.sum(array, "took statistics of a batch")
        else:
            self._sums.start(array)
            self._sums.wait()

    def end(self, figures: Array) -> None:
        """Wait for the sums of the gradients, and of figures and running statistics, in place."""
        xp = array_module(figures)
        self._sums.start(figures)
        state = None
        if self._state:
            state = xp.concatenate([array.reshape(-1) for array in self._state]).astype("float64")
            self._sums.start(state)
        self._sums.wait()
        if self.is_compressed:
            xp.multiply(self._wire, self._scale, out=self._buffer, dtype=self._buffer.dtype)
        if state is None:
            return
        state /= self.ranks.size
        first = 0
        for array in self._state:
            array[...] = state[first : first + array.size].reshape(array.shape)
            first += array.size

    def _send(self, add: Callable[[int, int], None], begin: int) -> None:
        end, self._unsent = self._unsent, begin
        add(begin, end)
        if self.is_compressed:
            part, xp = self._buffer[begin:end], array_module(self._buffer)
            xp.multiply(part, 1 / self._scale, out=self._wire[begin:end], dtype=part.dtype, casting="same_kind")
        self._sums.start(self._wire[begin:end])


def _sums_over(ranks: Ranks, array: Array) -> Any:
    """Return what sums arrays like this one over the ranks."""
    if on_host(array):
        return HostSums(ranks)
    without = [rank for rank, has_nccl in enumerate(ranks.gather(is_available())) if not has_nccl]
    if not without:
        return StreamSums(ranks)
    if ranks.rank == 0:
        _log.warning(
            "CuPy finds no NCCL on rank %s: gradients are summed by MPI in the host's memory, and steps are not run as "
            "CUDA graphs; for the speed of NCCL install nvidia-nccl-cu12 (or -cu13) for all ranks",
            ", ".join(map(str, without)),
        )
    return SumsOverHost(ranks)


def _begins(network: Network) -> dict[int, int]:
    """Return where the gradients of each layer of the chain begin in the flat buffer: those behind it are filled, too.

    Empty where a layer fills gradients that are set to 0 after backward.
    """
    if network.foreign_frozen:
        return {}
    flat, begins = network.grads.flat, {}
    for layer in network.layers.layers.values():
        places = [_address(array) - _address(flat) for array in layer.grads.values()]
        if places:
            begins[id(layer)] = min(places) // flat.itemsize
    return begins


def _address(array: Any) -> int:
    return int(array.ctypes.data if isinstance(array, numpy.ndarray) else array.data.ptr)
