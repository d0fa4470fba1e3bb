"""GPU tests without a GPU are skipped with one loud line, or fail if a GPU is required."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = "tests/backend/test_arrays.py"


@pytest.fixture
def run(tmp_path):
    """Runs the GPU tests of one file in a process whose CuPy does not import."""
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text('raise ImportError("hidden by a test")\n')

    def in_process(**variables):
        inherited = {name: value for name, value in os.environ.items() if name != "XPNET_REQUIRE_GPU"}
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [
                sys.executable,
                *["-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "-q", FILE],
            ],
            cwd=ROOT,
            env={**inherited, "PYTHONPATH": path, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return in_process


def test_without_a_gpu_they_are_skipped_and_one_line_says_so(run):
    done = run()
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "GPU TESTS" in line]
    found = re.fullmatch(r"(\d+) GPU TESTS DID NOT RUN: CuPy does not import \(.*hidden by a test\); remedy: .+", line)
    assert found, line
    assert re.search(rf"^{found[1]} skipped, \d+ deselected in ", done.stdout, re.MULTILINE)
    assert int(found[1]) > 0


def test_where_a_gpu_is_required_they_fail(run):
    done = run(XPNET_REQUIRE_GPU="1")
    assert done.returncode == 1, done.stdout
    last = done.stdout.splitlines()[-1]
    assert "skipped" not in last
    assert "passed" not in last
    assert re.search(r"\d+ (failed|errors?)", last)
    assert "DeviceError: cuda:0 cannot be used: CuPy does not import" in done.stdout
    assert "DID NOT RUN" not in done.stdout
