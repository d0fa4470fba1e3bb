"""Correct devices that ``xpnet check`` must accept: trainings in lockstep, of many seeds, with all OpenBLAS kernels.

A trial is a process in which BLAS uses the kernels of one kind of processor, each in turn. The device is the GPU if
there is one, real or emulated; else the CPU in float32, which is compared with float64 in the same way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from typing import Any

CORES = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "Cooperlake")
"""The values of ``OPENBLAS_CORETYPE``, for kernels that need SSE3 to AVX-512."""

STEPS = 50
"""Steps of each training, the default of ``xpnet check``."""

_CORE = """
import json, numpy, threadpoolctl
print(json.dumps([pool.get("architecture") for pool in threadpoolctl.threadpool_info()]))
"""
_TRAIN = """
import dataclasses, json, sys
from backend import inspect_cuda
from training.check import TRAININGS, train_in_lockstep
seed, steps = int(sys.argv[1]), int(sys.argv[2])
device = "cuda" if inspect_cuda().usable else "cpu"
results = [train_in_lockstep(device, steps, model, optimizer, seed) for model, optimizer in TRAININGS]
print(json.dumps([dataclasses.asdict(result) for result in results]))
"""


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    """Train with one kind of kernel after the other, then with the next seed."""
    cores = runnable()
    for trial in range(count):
        core, own_seed = cores[trial % len(cores)], seed + trial // len(cores)
        wrong = [result for result in train(core, own_seed, STEPS) if result["divergence"] is not None]
        yield f"{core}, seed {own_seed}: {wrong}" if wrong else None


def runnable() -> list[str]:
    """Return the ``CORES`` for which BLAS reports different kernels on this machine."""
    taken = {str(_run(core, _CORE)): core for core in reversed(CORES)}
    return sorted(taken.values(), key=CORES.index)


def train(core: str, seed: int, steps: int) -> list[dict[str, Any]]:
    """Return the results of the trainings that ``xpnet check`` makes, in a process with the kernels of ``core``."""
    return _run(core, _TRAIN, str(seed), str(steps))


def _run(core: str, program: str, *arguments: str) -> Any:
    environment = {**os.environ, "OPENBLAS_CORETYPE": core}
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"a training with the kernels of {core} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])
