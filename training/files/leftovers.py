"""Temporary files and folders whose names say whose they are, so that those of dead processes can be removed.

A name holds a mark of the machine, the process's number, and when that process began, as a number may come again:
``.xpnet-3f9a01bc-4711-5d02c1ee118a42-9b1c6f0d``.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

PREFIXES = (".xpnet", ".download")

_NAME = re.compile(rf"(?:{'|'.join(map(re.escape, PREFIXES))})-([0-9a-f]{{8}})-(\d{{1,10}})-([0-9a-f]+)-[0-9a-f]{{8}}")
_UNKNOWN = "0"
_cleaned: set[tuple[int, str]] = set()


def new_name(prefix: str) -> str:
    """Return a name that no other has, for something that this process removes or renames before it ends."""
    process = os.getpid()
    return f"{prefix}-{_machine(process)}-{process}-{_birth(process)}-{secrets.token_hex(4)}"


def remove(folder: str | Path) -> None:
    """Remove what processes of this machine that have ended left in a folder, and nothing else.

    What cannot be removed, or read, stays: a leftover must not keep anybody from working.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match and _has_ended(match[1], int(match[2]), match[3]):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):  # another process is as quick, or it belongs to somebody else
                        os.unlink(entry.path)


def remove_once(folder: str | Path) -> None:
    """``remove``, at this process's first call for the folder."""
    key = (os.getpid(), os.path.abspath(folder))
    if key not in _cleaned:
        _cleaned.add(key)
        remove(folder)


def _has_ended(machine: str, process: int, birth: str) -> bool:
    """Return whether a process is known to have ended; not where another machine or container has to be asked."""
    if machine != _machine(os.getpid()) or os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it exists, and belongs to somebody else
        pass
    now = _birth(process)
    return _UNKNOWN not in (birth, now) and birth != now


@lru_cache(maxsize=1)  # anew after a fork, where nothing but the process's number may have changed
def _machine(process: int) -> str:
    """Return a mark of this machine, and of the container if this is one: process numbers mean nothing beyond."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]


def _birth(process: int) -> str:
    """When a living process began, as hexadecimal digits; "0" where the system does not tell.

    Of a process that has ended and is only kept for its parent to ask, another than it had.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        state, start = fields[0], int(fields[19])
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return "dead" if state in "ZX" else f"{int(boot, 16):08x}{start:x}"
    except (OSError, ValueError, IndexError):
        return _UNKNOWN
