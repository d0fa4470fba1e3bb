"""Find out whether a launcher such as mpirun has started this process as one of several. Imports nothing heavy."""

from __future__ import annotations

import os
from typing import NamedTuple

_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("PMIX_RANK", "SLURM_NTASKS"),  # srun --mpi=pmix
)


class Launched(NamedTuple):
    """The rank that a launcher has given this process, and the number of ranks."""

    rank: int
    size: int


def launched() -> Launched | None:
    """Return this process's place among those that a launcher has started; None without one, or for a single one."""
    for rank, size in _VARIABLES:
        found = [os.environ.get(name, "") for name in (rank, size)]
        if all(number.isdecimal() for number in found) and int(found[1]) > 1:
            return Launched(int(found[0]), int(found[1]))
    return None
