"""Simulate a disk that fails at the Nth operation, and the files that a power cut leaves.

This works in this process and on any system, for Python code that writes files by the functions of ``os``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_Derived = TypeVar("_Derived", bound="Disk")


class Disk:
    """Observer of the operations of ``os`` that change files below a folder, inside a ``with``.

    Derive from it and override ``before`` or ``done``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = os.path.abspath(folder)
        self._real: dict[str, Any] = {}
        self._files: dict[int, str] = {}

    def before(self, name: str, argument: Any) -> None:
        """Handle the start of an operation; an OSError raised here becomes the operation's.

        ``argument`` is the path, or the file's number, or for "write" a function that writes the first half.
        """

    def done(self, name: str, path: str, argument: Any) -> None:
        """Handle the end of a successful operation."""

    def real(self, name: str) -> Any:
        """Return the function of ``os`` itself."""
        return self._real[name]

    def __enter__(self: _Derived) -> _Derived:
        for name in ("open", "write", "fsync", "close", "replace", "unlink", "mkdir", "ftruncate"):
            self._real[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"_{name}"))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)

    def _is_ours(self, path: Any) -> bool:
        return not isinstance(path, int) and f"{os.path.abspath(os.fsdecode(path))}/".startswith(f"{self.folder}/")

    def _open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if not self._is_ours(path):
            return self._real["open"](path, flags, *arguments, **options)
        writes = flags & _WRITING
        if writes:
            self.before("open", path)
        is_new = not os.path.lexists(path)
        handle = self._real["open"](path, flags, *arguments, **options)
        self._files[handle] = os.path.abspath(os.fsdecode(path))
        if writes and is_new:
            self.done("create", self._files[handle], None)
        return handle

    def _write(self, handle: int, content: Any) -> int:
        if handle not in self._files:
            return self._real["write"](handle, content)
        self.before("write", lambda: self._write_half(handle, content))
        count = self._real["write"](handle, content)
        self.done("write", self._files[handle], bytes(content[:count]))
        return count

    def _write_half(self, handle: int, content: Any) -> None:
        half = bytes(content)[: len(content) // 2]
        self._real["write"](handle, half)
        self.done("write", self._files[handle], half)

    def _fsync(self, handle: int) -> None:
        if handle in self._files:
            self.before("fsync", handle)
        self._real["fsync"](handle)
        if handle in self._files:
            self.done("fsync", self._files[handle], None)

    def _close(self, handle: int) -> None:
        ours = self._files.pop(handle, None)
        self._real["close"](handle)
        if ours is not None:
            self.before("close", handle)

    def _ftruncate(self, handle: int, length: int) -> None:
        self._real["ftruncate"](handle, length)
        if handle in self._files:
            self.done("truncate", self._files[handle], length)

    def _replace(self, source: Any, target: Any, **options: Any) -> None:
        if self._is_ours(target):
            self.before("replace", target)
        self._real["replace"](source, target, **options)
        if self._is_ours(target):
            old, new = (os.path.abspath(os.fsdecode(path)) for path in (source, target))
            for handle, path in self._files.items():
                if path == old:
                    self._files[handle] = new
            self.done("replace", old, new)

    def _unlink(self, path: Any, **options: Any) -> None:
        self._real["unlink"](path, **options)
        if self._is_ours(path):
            self.done("unlink", os.path.abspath(os.fsdecode(path)), None)

    def _mkdir(self, path: Any, *arguments: Any, **options: Any) -> None:
        if self._is_ours(path):
            self.before("mkdir", path)
        self._real["mkdir"](path, *arguments, **options)
        if self._is_ours(path):
            self.done("mkdir", os.path.abspath(os.fsdecode(path)), None)


class FailingDisk(Disk):
    """Disk that calls ``fail`` at the Nth operation (0, 1, …) that could need space; with ``for_good`` at all later
    ones, too.

    Args:
        fail: called with the name of the operation and its argument, as ``Disk.before`` is.

    Attributes:
        count: operations so far.
    """

    def __init__(
        self, folder: str | Path, fail: Callable[[str, Any], None], number: int = -1, for_good: bool = False
    ) -> None:
        super().__init__(folder)
        self._fail = fail
        self._number = number
        self._for_good = for_good
        self.count = 0

    def before(self, name: str, argument: Any) -> None:
        number = self.count
        self.count += 1
        if number == self._number or (self._for_good and 0 <= self._number < number and name != "close"):
            self._fail(name, argument)


@dataclass
class _Inode:
    now: bytes = b""
    on_disk: bytes = b""

    def left(self, kept: str) -> bytes:
        """Return the content after a power cut, which keeps nothing, zeros, half or all of the bytes that are not
        synced."""
        if not self.now.startswith(self.on_disk):
            return self.on_disk if kept in ("nothing", "zeros") else self.now
        rest = self.now[len(self.on_disk) :]
        return (
            self.on_disk
            + {"nothing": b"", "zeros": bytes(len(rest)), "half": rest[: len(rest) // 2], "all": rest}[kept]
        )


class RecordingDisk(Disk):
    """Disk that records operations for ``power_cuts``, the possible files after a power cut at any moment.

    Attributes:
        log: (operation, path, argument); the program under test may add ("note", "", anything).
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.log: list[tuple[str, str, Any]] = []

    def done(self, name: str, path: str, argument: Any) -> None:
        self.log.append((name, path, argument))

    def power_cuts(self) -> Iterator[tuple[int, str, dict[str, bytes | None]]]:
        """Yield every possible state: length of the log, a description, and the files (None is a folder).

        Changes of names are on the disk, in their order, up to some moment after the last fsync of their folder. The
        bytes of a file are those of its last fsync, followed by nothing, zeros, half or all of the rest.
        """
        for length in range(len(self.log) + 1):
            names, pending, _ = self._replay(length)
            for reached in range(len(pending) + 1):
                for kept in ("nothing", "zeros", "half", "all"):
                    found = dict(names)
                    for change in pending[:reached]:
                        _rename(found, *change)
                    files = {path: None if inode is None else inode.left(kept) for path, inode in found.items()}
                    words = f"cut after operation {length}, {reached} of {len(pending)} names kept, {kept} of the bytes"
                    yield length, words, files

    def final(self) -> dict[str, bytes | None]:
        """Return the files after the recorded operations; a difference from the real ones shows an unrecorded write."""
        return {path: None if inode is None else inode.now for path, inode in self._replay(len(self.log))[2].items()}

    def _replay(self, length: int) -> tuple[dict[str, _Inode | None], list[tuple], dict[str, _Inode | None]]:
        """Return the names on the disk, the changes of names that may be lost, and the names that a running program
        sees."""
        on_disk: dict[str, _Inode | None] = {}
        now: dict[str, _Inode | None] = {}
        pending: list[tuple] = []
        for name, path, argument in self.log[:length]:
            inode = now.get(path)
            if name in ("create", "mkdir", "replace", "unlink"):
                made = {"create": _Inode(), "mkdir": None}.get(name)
                change = (name, path, argument, made)
                pending.append(change)
                _rename(now, *change)
            elif name == "fsync" and inode is None:  # a folder
                kept = [change for change in pending if os.path.dirname(change[1]) != path]
                for change in pending:
                    if change not in kept:
                        _rename(on_disk, *change)
                pending = kept
            elif inode is not None and name == "fsync":
                inode.on_disk = inode.now
            elif inode is not None and name == "write":
                inode.now += argument
            elif inode is not None and name == "truncate":
                inode.now = inode.now[:argument]
        return on_disk, pending, now


def _rename(names: dict[str, _Inode | None], name: str, path: str, argument: Any, made: _Inode | None) -> None:
    if name in ("create", "mkdir"):
        names[path] = made
    elif name == "unlink":
        names.pop(path, None)
    elif path in names:
        names[argument] = names.pop(path)
