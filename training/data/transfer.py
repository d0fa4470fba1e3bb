"""Download a file from an untrusted server, bounded in size and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue

from training.terminal.bars import Bar, bar

PIECE = 8192
STALL_SECONDS = 30.0
"""Seconds after which a transfer is given up if less than a piece has come."""

LEAST_SECONDS, LEAST_RATE = 60.0, 20_000
"""The time limit of a transfer: this many seconds, plus one for each this many bytes of the file."""


class TransferError(OSError):
    """A server did not send a file; the message has the reason."""


def transfer(url: str, target: Path, most: int, *, progress: bool = False) -> None:
    """Write the response of a server for ``url`` into ``target``, without decoding content encodings.

    Args:
        most: the largest number of bytes of the file.
        progress: show a progress bar.

    Raises:
        TransferError: the server cannot be reached, answers with an error, sends too much, stops or is too slow.
        OSError: the file cannot be written.
    """
    stream = _Stream(url)
    seconds = LEAST_SECONDS + most / LEAST_RATE
    try:
        with target.open("wb") as file, bar(target.name, unit="B") if progress else Bar() as shown:
            received = 0
            for piece in stream.pieces(seconds):
                announced, content = (piece, b"") if isinstance(piece, int) else (0, piece)
                received += len(content)
                if max(announced, received) > most:
                    raise TransferError(f"sends more than {most:,} bytes")
                file.write(content)
                shown.update(received, total=announced or None)
    finally:
        stream.cancel()


class _Stream:
    """The response of a server, received in another thread.

    A server that hangs, also during name lookup or handshake, blocks only that thread. An abandoned thread ends when
    the server sends something, or with the process.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._queue: Queue[int | bytes | Exception | None] = Queue(16)
        self._cancelled = threading.Event()

    def pieces(self, seconds: float) -> Iterator[int | bytes]:
        """Yield the number of bytes that the server announces, if it does, and the bytes, piece by piece.

        Raises:
            TransferError: the connection failed, or receiving takes longer than ``seconds``.
        """
        import requests  # noqa: F401  (here: its import is not the server's time)

        try:
            threading.Thread(target=self._receive, name="xpnet-download", daemon=True).start()
        except RuntimeError as error:
            raise TransferError(f"no thread can be started to receive it: {error}") from error
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
        except Exception as error:  # three libraries raise their own classes
            self._put(error)

    def _sent(self) -> Iterator[int | bytes]:
        import requests

        headers = {"Accept-Encoding": "identity"}  # the file is packed already
        timeout = (STALL_SECONDS, STALL_SECONDS)
        with requests.get(self._url, stream=True, timeout=timeout, headers=headers) as response:
            response.raise_for_status()
            announced = response.headers.get("Content-Length", "")
            if announced.isascii() and announced.isdigit() and len(announced) < 20:
                yield int(announced)
            yield from response.raw.stream(PIECE, decode_content=False)

    def _put(self, piece: int | bytes | Exception | None) -> bool:
        """Pass something on; return False if nobody waits for more."""
        while not self._cancelled.is_set():
            with suppress(Full):
                self._queue.put(piece, timeout=0.1)
                return True
        return False
