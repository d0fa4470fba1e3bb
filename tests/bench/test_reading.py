"""The count of lines and calls."""

import gc
import re
from pathlib import Path

import pytest

from bench import reading
from kernels.core import native
from kernels.core.dtypes import acc_dtype
from kernels.core.window import pair


def test_calls_are_counted_by_function_and_only_ours():
    counts = reading.calls_of(lambda: [acc_dtype("float32"), acc_dtype("float16"), Path("x").name])
    assert {code.co_name: count for code, count in counts.items()} == {"acc_dtype": 2}


def test_finalizers_of_garbage_are_not_counted():
    class Left:
        def __init__(self):
            self.me = self

        def __del__(self):
            acc_dtype("float32")

    def action():
        Left()
        return [[] for _ in range(1000)]

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert not reading.calls_of(action)
    finally:
        gc.set_threshold(*threshold)


def test_lines_are_those_of_the_source():
    (lines,) = reading.lines_of([acc_dtype.__code__]).items()
    assert lines == ("kernels/core/dtypes.py", 4)
    assert set(reading.lines_of([acc_dtype.__code__, pair.__code__])) == {
        "kernels/core/dtypes.py",
        "kernels/core/window.py",
    }


def test_the_command_counts_a_convolution_and_a_step(bench):
    result = bench("reading")
    assert result.code == 0, result.err
    assert "kernels/convolution.py" in result.out
    lines = re.search(r"a convolution in NumPy, forward and backward: (\d+) lines in (\d+) files", result.out)
    calls = re.search(r"a training step: (\d+) calls", result.out)
    assert int(lines[1]) <= 560
    assert int(lines[2]) <= 19
    assert int(calls[1]) <= 500


@pytest.mark.skipif(not native.available(), reason="the C kernels were not built")
def test_c_files_are_those_of_the_kernels_that_run_and_what_they_include():
    files = reading.read_convolution(in_c=True)
    assert {"kernels/convolution.c", "kernels/convolution_weight.c", "kernels/core/vectors.h"} <= set(files)
    assert files["kernels/convolution.c"] == len((native.FOLDER / "convolution.c").read_text("utf-8").splitlines())
    assert not {"kernels/im2col.c", "kernels/core/build_native.py"} & set(files)
