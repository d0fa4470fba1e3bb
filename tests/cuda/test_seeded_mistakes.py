"""That the checks on the host find mistakes: each is put into the source of a kernel, and has to be found."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import host_kernels
import kernel_operations as run
import pytest
from host_kernels import MEMORY, RACES

pytestmark = pytest.mark.skipif(not host_kernels.available(), reason=host_kernels.MISSING)


class Mistake(NamedTuple):
    """``new`` in place of the first ``old`` in a file; words is what a sanitizer says, or None for wrong numbers."""

    operation: Callable
    file: str
    old: str
    new: str
    words: str | None = None


_PIXEL = "image[((n * height + h) * width + w) * channels + c]"
_REUSE = "__syncthreads(); /* before anyone writes to of_warp again */"
_SHUFFLE = "value = combine(value, __shfl"
_BEYOND = "heap-buffer-overflow"

MISTAKES = {
    "index one too far": Mistake(run.max_pool, "pooling.cu", "* channels + c]", "* channels + c + 1]", _BEYOND),
    "loop one too long": Mistake(run.scatter, "col2im.cu", "i < (count)", "i <= (count)", _BEYOND),
    "upper bound left out": Mistake(run.gather, "col2im.cu", "y < 0 || oh >= out_height ||", "y < 0 ||", _BEYOND),
    "lower bound left out": Mistake(run.gather, "col2im.cu", "x < 0 || ow >= out_width", "ow >= out_width"),
    "bound one too far": Mistake(run.max_pool, "pooling.cu", "w >= width", "w > width"),
    "first pixel left out": Mistake(run.max_pool, "pooling.cu", "w < 0 ||", "w <= 0 ||"),
    "last maximum wins": Mistake(run.max_pool, "pooling.cu", "value > best", "value >= best"),
    "NaN loses": Mistake(run.max_pool, "pooling.cu", "(value != value && best == best)", "false"),
    "taps descending": Mistake(
        run.gather, "col2im.cu", "int b = 0; b < kernel_width; ++b", "int b = kernel_width - 1; b >= 0; --b"
    ),
    "set instead of added": Mistake(run.max_pool_backward, "pooling.cu", "sum += widen(dy", "sum = widen(dy"),
    "no atomic": Mistake(
        run.scatter, "col2im.cu", f"atomicAdd(&{_PIXEL}, widen(columns[i]))", f"{_PIXEL} += widen(columns[i])",
        "data race",
    ),
    "no barrier": Mistake(run.batch_normalization, "batch_norm.cu", "__syncthreads();", "", "data race"),
    "no barrier before reuse": Mistake(run.cross_entropy_of_shares, "softmax.cu", _REUSE, "", "data race"),
    "barrier for one": Mistake(
        run.batch_normalization, "batch_norm.cu", "__syncthreads();", "if (t == 0) __syncthreads();"
    ),
    "shuffle for half a warp": Mistake(
        run.cross_entropy, "softmax.cu", _SHUFFLE, f"if (threadIdx.x % 32 < 16) {_SHUFFLE}"
    ),
    "a wrong constant": Mistake(run.dropout_mask, "philox.cu", "0xCD9E8D57u", "0xCD9E8D58u"),
    "signed overflow": Mistake(
        run.im2col_hwc, "im2col.cu", "digit += step + carry;", "digit += step + carry + 2147483647;", "overflow"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found(name):
    mistake = MISTAKES[name]
    operation = next(each for each in run.OPERATIONS if each.run is mistake.operation)
    sanitizer = RACES if mistake.words == "data race" else MEMORY
    mutant = host_kernels.Program(mistake.file, sanitizer, edits=[(mistake.old, mistake.new)])

    def check():
        with contextlib.closing(mutant):
            for case in run.EXAMPLES:
                run.check(operation, case, lambda _: mutant, seed=case.seed, block=64)

    with pytest.raises(AssertionError) as found:
        check()
    if mistake.words:
        assert isinstance(found.value, host_kernels.SanitizerError)
        assert mistake.words in str(found.value)
