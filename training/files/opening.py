"""Opens files in a folder where anybody may have put something else in their place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)  # with NONBLOCK a pipe that nobody writes to is opened, too, and refused


def not_a_link(file: Path) -> Path:
    """Return a file of a run folder as it was given.

    Raises:
        OSError: it is a symbolic link, which might lead anywhere.
    """
    if file.is_symlink():
        raise OSError(errno.ELOOP, "a symbolic link; the files of a run folder are not followed elsewhere", str(file))
    return file


def open_own(file: Path) -> BinaryIO:
    """Open a file of a run folder for reading.

    Raises:
        OSError: it is a symbolic link, a pipe or a device, or it cannot be read.
    """
    handle = os.open(not_a_link(file), _FLAGS)  # no link even where one has just been put there
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "Not a regular file", str(file))
    return os.fdopen(handle, "rb")
