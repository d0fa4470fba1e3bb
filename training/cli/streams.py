"""Standard output and standard error that may be closed, broken or full."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def fill_closed() -> None:
    """Give a program that was started with closed streams (``>&-``) silent ones.

    Otherwise the next file that it opens would take a stream's number, and whatever a library prints would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (as long as the process)


def escape_unencodable() -> None:
    r"""Print characters that the encoding of standard output or error lacks as escapes, as in ``\xb2``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def going_on_silently() -> Iterator[None]:
    """Drop what is printed inside where standard output or error cannot be written to, and raise nothing."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Lenient(sys.stdout), _Lenient(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def drain() -> OSError | None:
    """Flush standard output. An error is returned, and the stream drops everything from then on."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        silence(sys.stdout)
        return error if isinstance(error, OSError) else None
    return None


def silence(stream: Any) -> None:
    """Redirect a stream and what it still holds to nowhere: the interpreter would fail to write it at its end."""
    with suppress(OSError, ValueError, AttributeError):  # a stream without a number has nothing left to be written
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


class _Lenient:
    """Wraps a text stream and drops everything after its first error."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._is_broken = False

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # click finds out in this way whether a stream is binary
            raise TypeError(f"write takes str, not {type(text).__name__}")
        if not self._is_broken:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except (OSError, ValueError):
                self._break()
        return len(text)

    def flush(self) -> None:
        if not self._is_broken:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._break()

    def _break(self) -> None:
        self._is_broken = True
        silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # who writes there would have to deal with errors
            raise AttributeError(name)
        return getattr(self._stream, name)
