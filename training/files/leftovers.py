"""Name temporary files and folders by their process, and remove the ones of dead processes.

A name holds a hash of the machine, the process's number, and its start time, since numbers are reused:
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
    """Return a unique name for a file or folder that this process removes or renames before it ends."""
    process = os.getpid()
    return f"{prefix}-{_machine(process)}-{process}-{_birth(process)}-{secrets.token_hex(4)}"


def remove(folder: str | Path) -> None:
    """Remove the temporary files that ended processes of this machine left in a folder.

    Errors are ignored: a leftover must not stop the program.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match and _has_ended(match[1], int(match[2]), match[3]):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):  # another process removed it, or it belongs to another user
                        os.unlink(entry.path)


def remove_once(folder: str | Path) -> None:
    """Call ``remove`` at this process's first call for the folder."""
    key = (os.getpid(), os.path.abspath(folder))
    if key not in _cleaned:
        _cleaned.add(key)
        remove(folder)


def _has_ended(machine: str, process: int, birth: str) -> bool:
    """Return whether a process is known to have ended; False for a process of another machine or container."""
    if machine != _machine(os.getpid()) or os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it exists, and belongs to another user
        pass
    now = _birth(process)
    return _UNKNOWN not in (birth, now) and birth != now


@lru_cache(maxsize=1)  # computed again after a fork, which may change only the process's number
def _machine(process: int) -> str:
    """Return a hash of this machine, and of the container if it is one: process numbers are unique in it only."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]


def _birth(process: int) -> str:
    """Return the start time of a living process in hexadecimal digits; "0" if the system does not tell it.

    A zombie process gets another start time than it had while alive.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        state, start = fields[0], int(fields[19])
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return "dead" if state in "ZX" else f"{int(boot, 16):08x}{start:x}"
    except (OSError, ValueError, IndexError):
        return _UNKNOWN
