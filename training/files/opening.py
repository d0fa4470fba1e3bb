"""Open files safely in a folder where anyone may have replaced them by something else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)  # with NONBLOCK, opening a pipe does not wait for its writer


def not_a_link(file: Path) -> Path:
    """Return a file of a run folder unchanged if it is not a symbolic link.

    Raises:
        OSError: it is a symbolic link, which might point anywhere.
    """
    if file.is_symlink():
        raise OSError(errno.ELOOP, "a symbolic link; links in a run folder are not followed", str(file))
    return file


def open_own(file: Path) -> BinaryIO:
    """Open a file of a run folder for reading.

    Raises:
        OSError: it is a symbolic link, a pipe or a device, or it cannot be read.
    """
    handle = os.open(not_a_link(file), _FLAGS)  # not a link, even if one was put there just now
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "Not a regular file", str(file))
    return os.fdopen(handle, "rb")


def stored_path(text: str) -> str:
    """Return a path that a file of a run holds; where this system's encoding lacks a letter, as the bytes of UTF-8."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text
