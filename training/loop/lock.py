"""Lock a folder against a second process that writes to it. The lock ends with the process, even after a kill."""

from __future__ import annotations

import errno
import os
import weakref
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
"""The lock's file: it is there as long as the folder is locked, and after a kill until the folder is locked again."""

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)


class FolderLock:
    """Lock of a folder, held until ``release`` or until the object is deleted.

    On a file system without locks, the existence of the lock's file is the lock; after a kill you must delete it.

    Raises:
        FileExistsError: another process, or another object of this one, holds it.
        OSError: the lock's file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / NAME
        while True:
            handle, is_new = _open(file)
            try:
                held = _try_lock(handle)
                if held is None and not is_new:
                    raise FileExistsError(
                        f"another training may be running in {folder}; if none is, remove {file} (a killed one left it)"
                    )
                if held is False:
                    raise FileExistsError(f"another training is running in {folder}")
                if _is_file_of(handle, file):
                    break
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # its holder has just deleted the file
        self._release = weakref.finalize(self, _unlock, handle, file, os.getpid())

    def release(self) -> None:
        """Unlock the folder and delete the lock's file, once."""
        self._release()


def _open(file: Path) -> tuple[int, bool]:
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(file, flags | os.O_CREAT, 0o666), False


def _try_lock(handle: int) -> bool | None:
    """Try to lock without waiting. Return True or False, or None if the file system has no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError as error:
        return False if error.errno in _BUSY else None
    return True


def _is_file_of(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(file))
    except FileNotFoundError:
        return False


def _unlock(handle: int, file: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child has a copy of the handle, and must not delete the parent's file
        with suppress(OSError):
            if fcntl is not None and _is_file_of(handle, file):  # Windows cannot delete an open file
                os.unlink(file)
    with suppress(OSError):
        os.close(handle)
