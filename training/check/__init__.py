"""Compare a device with the CPU: operation by operation, and step by step in a training."""

from training.check.bounds import Bound
from training.check.cases import CheckCase, cases
from training.check.devices import CheckRow, compare
from training.check.lockstep import (
    TRAININGS,
    Divergence,
    LockstepResult,
    check_network,
    train_file_in_lockstep,
    train_in_lockstep,
)

__all__ = [
    "TRAININGS",
    "Bound",
    "CheckCase",
    "CheckRow",
    "Divergence",
    "LockstepResult",
    "cases",
    "check_network",
    "compare",
    "train_file_in_lockstep",
    "train_in_lockstep",
]
