"""Sums over the ranks' GPUs by NCCL, in a stream beside the computation, eagerly and in a captured graph."""

from __future__ import annotations

import warnings
from typing import Any

from training.distributed.communicator import Ranks, RanksError


def is_available() -> bool:
    """Return whether CuPy finds NCCL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's, where it is missing
        from cupy.cuda import nccl
    return bool(nccl.available)


class StreamSums:
    """Sums of device arrays, by NCCL.

    Raises:
        RanksError: NCCL refuses: two ranks have one GPU, say.
    """

    def __init__(self, ranks: Ranks) -> None:
        import cupy
        from cupy.cuda import nccl

        self._ranks = ranks
        self._cupy: Any = cupy
        self._nccl: Any = nccl
        self._kinds = {"float16": nccl.NCCL_FLOAT16, "float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}
        unique = ranks.share(nccl.get_unique_id() if ranks.rank == 0 else None)
        try:
            self._communicator = nccl.NcclCommunicator(ranks.size, unique, ranks.rank)
        except nccl.NcclError as error:
            raise RanksError(f"rank {ranks.rank}: NCCL: {error}") from error
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._ready, self._done = (cupy.cuda.Event(disable_timing=True) for _ in range(2))

    def start(self, array: Any) -> None:
        """Start to sum a contiguous array over the ranks, in place, once the current stream has computed it."""
        self._ranks.count += 1
        self._ready.record(self._cupy.cuda.get_current_stream())
        self._stream.wait_event(self._ready)
        kind = self._kinds[array.dtype.name]
        self._communicator.allReduce(
            array.data.ptr, array.data.ptr, array.size, kind, self._nccl.NCCL_SUM, self._stream.ptr
        )

    def progress(self) -> None:
        """Do nothing: NCCL works by itself."""

    def wait(self) -> None:
        """Let the current stream wait for all that was started; the host does not."""
        self._done.record(self._stream)
        self._cupy.cuda.get_current_stream().wait_event(self._done)
