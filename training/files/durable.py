"""Write files durably: as a whole or not at all, and on the disk when the call returns.

Every file that xpnet writes goes through here. A kill, a full disk or a power cut leaves either the old file or the new
one.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from training.files import leftovers

_BINARY = getattr(os, "O_BINARY", 0)  # without it Windows converts line ends
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(
    os, "O_NONBLOCK", 0
)  # and do not wait for a pipe that someone put there
_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO") if hasattr(errno, name))


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that the disk cannot be written: no space, a quota, a limit, or a broken disk."""
    return isinstance(error, OSError) and error.errno in _FULL


def write_atomically(file: str | Path, content: bytes | memoryview) -> None:
    """Write a file atomically: a temporary file in the same folder, fsync, rename, fsync of the folder.

    A link or anything else with the file's name is replaced, not followed. The first write into a folder removes the
    temporary files that dead processes left there.

    Raises:
        OSError: the file cannot be written; the error names ``file``, whose old content is unchanged.
    """
    file = Path(file)
    with _naming(file):
        leftovers.remove_once(file.parent)
        temporary = file.parent / leftovers.new_name(".xpnet")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY | _NO_LINK, 0o666)
        try:
            try:
                _write(handle, content)
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, file)
        except BaseException:
            with suppress(OSError):  # the next start removes it
                os.unlink(temporary)
            raise
        sync_folder(file.parent)


def write_output(file: str | Path, content: bytes) -> None:
    """Write a file that the user has named: links are followed, and a pipe or a device is written to directly.

    Raises:
        OSError: the file cannot be written; the content of an existing file is unchanged.
    """
    try:
        is_special = not (stat.S_ISREG(mode := os.stat(file).st_mode) or stat.S_ISDIR(mode))
    except FileNotFoundError:
        is_special = False
    if not is_special:
        write_atomically(os.path.realpath(file), content)
        return
    with _naming(Path(file)), open(file, "wb", buffering=0) as stream:
        _write(stream.fileno(), content)


def append_line(file: str | Path, line: str) -> None:
    """Append a line of text to a file; it is on the disk when this returns.

    If a power cut left an incomplete last line, a line break goes before the new line.

    Raises:
        OSError: the file cannot be written, or is a link or not a regular file; its content is unchanged.
    """
    file = Path(file)
    content = f"{line}\n".encode()
    with _naming(file):
        is_new = not os.path.lexists(file)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY | _NO_LINK, 0o666)
        try:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EINVAL, "Not a regular file")
            if state.st_size:
                os.lseek(handle, -1, os.SEEK_END)
                if os.read(handle, 1) != b"\n":
                    content = b"\n" + content
            if state.st_nlink > 1:  # the other name may be that of another user's file, or of a backup
                os.lseek(handle, 0, os.SEEK_SET)
                write_atomically(file, _read(handle) + content)
                return
            try:
                _write(handle, content)
                os.fsync(handle)
            except OSError:
                with suppress(OSError):  # the reader drops an incomplete line
                    os.ftruncate(handle, state.st_size)
                raise
        finally:
            os.close(handle)
        if is_new:
            sync_folder(file.parent)


def make_folder(folder: Path) -> None:
    """Make a folder that does not exist yet, and its parents.

    Raises:
        FileExistsError: something has its name.
        OSError: the folder cannot be made.
    """
    os.makedirs(folder.parent, exist_ok=True)
    os.mkdir(folder)
    with _naming(folder):
        sync_folder(folder.parent)


def sync_folder(folder: str | Path) -> None:
    """Sync a folder's entries to the disk, as far as the file system and the permissions allow it.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if is_disk_full(error):
            raise


class _naming:  # noqa: N801  (reads as a statement)
    """Context in which an OSError gets the name of the file to be written, instead of the temporary one's."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno is not None and error.filename != str(self._file):
            raise OSError(error.errno, error.strerror, str(self._file)) from error


def _write(handle: int, content: bytes | memoryview) -> None:
    left = memoryview(content).cast("B")
    while left:
        left = left[os.write(handle, left) :]


def _read(handle: int) -> bytes:
    with open(handle, "rb", closefd=False) as stream:
        return stream.read()
