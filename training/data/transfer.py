"""Transfers a file from a server that may send anything, at any pace: bounded in size and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue

PIECE = 8192
STALL_SECONDS = 30.0
"""A transfer of which less than a piece comes in so long is given up."""

LEAST_SECONDS, LEAST_RATE = 60.0, 20_000
"""A transfer may take so many seconds, and one more for each of so many bytes that the file may have."""


class TransferError(OSError):
    """A server did not send a file; the message says what it did instead."""


def transfer(url: str, target: Path, most: int, *, progress: bool = False) -> None:
    """Write what a server sends for ``url`` into ``target``, as it is sent: content encodings are left as they are.

    Args:
        most: bytes that the file may have.
        progress: show a progress bar.

    Raises:
        TransferError: the server cannot be reached, answers with an error, sends too much, stops or is too slow.
        OSError: the file cannot be written.
    """
    from tqdm import tqdm

    stream = _Stream(url)
    seconds = LEAST_SECONDS + most / LEAST_RATE
    bar = tqdm(desc=target.name, unit="B", unit_scale=True, leave=False, disable=not progress)
    try:
        with target.open("wb") as file:
            received = 0
            for piece in stream.pieces(seconds):
                announced, content = (piece, b"") if isinstance(piece, int) else (0, piece)
                received += len(content)
                if max(announced, received) > most:
                    raise TransferError(f"sends more than {most:,} bytes")
                if announced:
                    bar.reset(announced)
                file.write(content)
                bar.update(len(content))
    finally:
        stream.cancel()
        bar.close()


class _Stream:
    """What a server sends, received in a thread of its own.

    Whatever the server does or leaves undone, looking up its name and shaking hands among it, it holds up that thread
    alone. A thread that is given up ends when the server next sends something, or with the process.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._queue: Queue[int | bytes | Exception | None] = Queue(16)
        self._cancelled = threading.Event()

    def pieces(self, seconds: float) -> Iterator[int | bytes]:
        """Yield the number of bytes that the server announces, if it does, and the bytes, piece by piece.

        Raises:
            TransferError: there is no more to be had, or it takes longer than ``seconds``.
        """
        import requests  # noqa: F401  (here: its import is not the server's time)

        try:
            threading.Thread(target=self._receive, name="xpnet-download", daemon=True).start()
        except RuntimeError as error:
            raise TransferError(f"there is no thread to receive it: {error}") from error
        now = time.monotonic()
        end, stalled, since = now + seconds, now + STALL_SECONDS, 0
        while True:
            piece: int | bytes | Exception | None = b""
            with suppress(Empty):
                piece = self._queue.get(timeout=max(0.0, min(end, stalled) - now))
            now = time.monotonic()
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise TransferError(" ".join(str(piece).split())[:300] or type(piece).__name__) from piece
            if now >= end:
                raise TransferError(f"is not done after {seconds:,.0f} s")
            since += PIECE if isinstance(piece, int) else len(piece)
            if since >= PIECE:
                stalled, since = now + STALL_SECONDS, 0
            elif now >= stalled:
                raise TransferError(f"sends less than {PIECE:,} bytes in {STALL_SECONDS:g} s")
            yield piece

    def cancel(self) -> None:
        """Let the thread end."""
        self._cancelled.set()

    def _receive(self) -> None:
        try:
            for piece in self._sent():
                if not self._put(piece):
                    return
            self._put(None)
        except Exception as error:  # of three libraries, each with its own
            self._put(error)

    def _sent(self) -> Iterator[int | bytes]:
        import requests

        headers = {"Accept-Encoding": "identity"}  # packed once is enough
        timeout = (STALL_SECONDS, STALL_SECONDS)
        with requests.get(self._url, stream=True, timeout=timeout, headers=headers) as response:
            response.raise_for_status()
            announced = response.headers.get("Content-Length", "")
            if announced.isascii() and announced.isdigit() and len(announced) < 20:
                yield int(announced)
            yield from response.raw.stream(PIECE, decode_content=False)

    def _put(self, piece: int | bytes | Exception | None) -> bool:
        """Hand something over; False where nobody waits for more."""
        while not self._cancelled.is_set():
            with suppress(Full):
                self._queue.put(piece, timeout=0.1)
                return True
        return False
