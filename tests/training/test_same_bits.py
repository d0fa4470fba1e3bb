"""The same seed gives the same bits, from one version of the code to the next.

``parameter_hashes.json`` holds what ten steps of every model with every optimizer came to, computed by NumPy. A change
that is meant to alter numbers (a new default, another order of a sum) says so and writes the table again:

    OPENBLAS_CORETYPE=Haswell NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" XPNET_DEVICE=cpu XPNET_THREADS=1 \
        XPNET_NATIVE=0 python tests/support/ten_steps.py > tests/training/parameter_hashes.json
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ten_steps

RECORDED = json.loads((Path(__file__).parent / "parameter_hashes.json").read_text())


def test_ten_steps_of_every_model_with_every_optimizer_end_in_the_recorded_bits():
    done = subprocess.run(
        [sys.executable, ten_steps.__file__],
        env={**os.environ, **ten_steps.PINNED},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    if seen["environment"] != RECORDED["environment"]:
        pytest.skip(f"hashes are recorded for {RECORDED['environment']}; this is {seen['environment']}")
    assert seen["hashes"] == RECORDED["hashes"]
