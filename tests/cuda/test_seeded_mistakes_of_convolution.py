"""The tests of the convolution on tensor cores find mistakes: each is put into its source, and must be found.

On the emulated device only, where a copy that is not waited for and a tile that is read too early show at every run.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from kernels import implicit_gemm
from kernels.batch_statistics import joined
from kernels.core.tensor_tiles import BACKWARD_INPUT, BACKWARD_WEIGHT, FORWARD, KERNELS, Variant
from kernels.core.window import Window
from tests.support.implicit_cases import Case, arrays, run, truth

pytestmark = pytest.mark.gpu

PLAIN = Case(2, 9, 11, 16, 16, Window(3, 1, 1))  # as a halo: so are all below with 16 channels, at a stride of 1
MANY = Case(3, 8, 7, 48, 48, Window(3, 1, 1))
DILATED = Case(2, 9, 11, 16, 16, Window(3, 1, 2, 2))
BY_TAP = Case(2, 9, 11, 12, 12, Window(3, 1, 1))
STRIDED = Case(1, 8, 9, 8, 12, Window(3, 2, (1, 0, 0, 1)))
GROUPED = Case(1, 8, 7, 8, 16, Window(3, 1, 1), groups=2)
PARTS = Case(5, 17, 13, 4, 4, Window(3, 1, 1))
FEW = Case(1, 7, 6, 3, 10, Window(3, 1, 1))


class Mistake(NamedTuple):
    """``new`` in place of every ``old`` in the kernel of one product; small whole numbers, or normal ones."""

    product: int
    old: str
    new: str
    case: Case = PLAIN
    dtype: str = "float32"
    small: bool = True


MISTAKES = {
    "one wait too few": Mistake(FORWARD, '"n"(STAGES - 2)', '"n"(STAGES - 1)'),
    "no commit": Mistake(FORWARD, "cp.async.commit_group;", ""),
    "loads the tile that is read": Mistake(FORWARD, "load(reading == 0 ? STAGES - 1 : reading - 1)", "load(reading)"),
    "rows of a fragment swapped": Mistake(FORWARD, "threadIdx.x % 16) * DEEP; }", "threadIdx.x % 8) * DEEP; }", BY_TAP),
    "depth of a fragment swapped": Mistake(BACKWARD_WEIGHT, "8 * step + r / 2 * 4", "8 * step + r % 2 * 4", BY_TAP),
    "columns of a fragment": Mistake(FORWARD, "(k + 4 * r) *", "(k + 4 * (3 - r)) *"),
    "not transposed": Mistake(BACKWARD_WEIGHT, "load_matrices<!A_DEEP>", "load_matrices<false>", BY_TAP, "float16"),
    "column not masked": Mistake(FORWARD, " | 1u << (16 + place.b);", ";", BY_TAP),
    "row not masked": Mistake(FORWARD, "1u << (place.a & 15) | ", "", BY_TAP),
    "tap carried wrongly": Mistake(FORWARD, "if (place.b >= taps_across) place.b -= taps_across, ++place.a;", "", FEW),
    "channel carried wrongly": Mistake(FORWARD, "place.c -= in, ++place.b;", "place.c -= in;", FEW),
    "padding of a halo": Mistake(FORWARD, "w >= 0 && w < across.size", "w < across.size"),
    "images of a halo": Mistake(FORWARD, "pixel.image * image_lines + pixel.h", "pixel.image * down.rows + pixel.h"),
    "first tap of a halo": Mistake(BACKWARD_INPUT, "reading.a * down.step - low_down", "reading.a * down.step"),
    "second place of a halo": Mistake(FORWARD, "(1 - place.c / BK % 2)", "(place.c / BK % 2)", MANY),
    "the first place alone": Mistake(BACKWARD_INPUT, "(reading.c / BK % 2 * lines", "(0 * lines", MANY),
    "channels copied too early": Mistake(FORWARD, "place.b != STAGES - 1", "place.b != 0", MANY),
    "filters of other channels": Mistake(FORWARD, "place.first += BK - down", "place.first -= down", MANY),
    "rows of a tap's fragment": Mistake(BACKWARD_WEIGHT, "* ROW + r % 2 * 8])", "* ROW + (1 - r % 2) * 8])"),
    "columns of a tap's fragment": Mistake(BACKWARD_WEIGHT, "own_b[(8 * step + 4 * r)", "own_b[(8 * step + 4 - 4 * r)"),
    "a tap's fragment not transposed": Mistake(BACKWARD_WEIGHT, "load_matrices<true>(\n                of_a",
                                               "load_matrices<false>(\n                of_a", dtype="float16"),
    "taps one line apart": Mistake(BACKWARD_WEIGHT, "line = g.dilation_height * width;", "line = width;", DILATED),
    "no place between lines": Mistake(BACKWARD_WEIGHT, "g.width + max(max(g.pad_left, beyond_right), 0)", "g.width"),
    "no line between images": Mistake(BACKWARD_WEIGHT, "g.height + max(max(g.pad_top, beyond_below), 0)", "g.height"),
    "places that are no windows": Mistake(BACKWARD_WEIGHT, "&& pixel.w < g.out_width", ""),
    "lines before the first": Mistake(BACKWARD_WEIGHT, "INDEX image = pixel.image - 1;", "INDEX image = pixel.image;"),
    "a warp's steps left out": Mistake(BACKWARD_WEIGHT, "w < WM - 1; ++w) sum +=", "w < WM - 2; ++w) sum +="),
    "a step of the pixels": Mistake(BACKWARD_WEIGHT, "move(of_x, tile, width, lines);", "", MANY),
    "taps of a remainder": Mistake(BACKWARD_INPUT, "-(every * dilation / stride)", "-every", STRIDED),
    "first tap of a remainder": Mistake(BACKWARD_INPUT, "% stride) ++first;", "% stride) first = taps;", STRIDED),
    "pixel of a remainder": Mistake(BACKWARD_INPUT, "* scale_across + rest_across", "* scale_across", STRIDED),
    "group of the source": Mistake(FORWARD, "* all_in + group * in;", "* all_in;", GROUPED),
    "group of the filters": Mistake(BACKWARD_INPUT, "* all_in + group * in + place.c;", "* all_in + place.c;",
                                       GROUPED),
    "half of a tile": Mistake(FORWARD, "+ lane / 4 + 8 * half", "+ lane / 4 + 4 * half"),
    "end of a part": Mistake(BACKWARD_WEIGHT, "? begin + part_pixels : windows", "? windows : windows", PARTS),
    "window carried wrongly": Mistake(BACKWARD_WEIGHT, "ow -= g.out_width, ++oh;", "ow -= g.out_width;", BY_TAP),
    "pixel carried wrongly": Mistake(FORWARD, "pixel.w -= width, ++pixel.h;", "pixel.w -= width;"),
    "one part left out": Mistake(BACKWARD_WEIGHT, "p < part_count; p += 8", "p < part_count - 1; p += 8", PARTS),
    "a thread's bias left out": Mistake(BACKWARD_WEIGHT, "i < THREADS; i += BN", "i < THREADS - BN; i += BN"),
    "a small product left out": Mistake(FORWARD, "multiply(part[i], small_a[step][i], big_b[step]);", ";", small=False),
    "another left out": Mistake(BACKWARD_INPUT, "multiply(part[i], big_a[step][i], small_b[step]);", ";", small=False),
}  # fmt: skip


def wrong(mistake):
    """Return whether the numbers of a mistake's product are wrong: not exact, or above the bound for normal numbers."""
    given = arrays(mistake.case, mistake.dtype, mistake.small)
    of_product = {FORWARD: (0, 1), BACKWARD_INPUT: (1, 2), BACKWARD_WEIGHT: (2, 4)}[mistake.product]
    pairs = list(zip(truth(mistake.case, *given), run(mistake.case, *given), strict=True))[slice(*of_product)]
    if mistake.small:
        return not all(np.array_equal(found, expected.astype(mistake.dtype)) for expected, found in pairs)
    return not all(abs(found - expected).max() < 4e-7 * abs(expected).max() for expected, found in pairs)


@pytest.fixture(autouse=True)
def emulated():
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="mistakes are seeded on the emulated device only")
    with backend.use("cuda"):
        yield
    cuda_on_cpu.reset()
    implicit_gemm._compiled.cache_clear()
    implicit_gemm._checked.cache_clear()


def seeded(old, new, product):
    """Return the property ``Variant.code`` with a mistake in the kernel of a product."""
    original = Variant.code.fget

    def code(variant):
        text = original(variant)
        if variant.product != product:
            return text
        assert old in text, f"{KERNELS[product]} has no {old!r} any more"
        return text.replace(old, new)

    return property(code)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found(name, monkeypatch):
    import cupy

    mistake = MISTAKES[name]
    assert not wrong(mistake), "the source is wrong without a mistake"
    implicit_gemm._compiled.cache_clear()
    implicit_gemm._checked.cache_clear()
    monkeypatch.setattr(Variant, "code", seeded(mistake.old, mistake.new, mistake.product))
    with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):  # an address that no array has: found, too
        assert wrong(mistake)


MEASURED = {
    "rows beyond the last": ("if (row + 16 * r + 8 * half < rows) mean", "mean"),
    "mean of a whole tile": ("(int)min((INDEX)BM, rows - first_row)", "BM"),
    "lanes left out": ("step = 4; step < 32; step *= 2", "step = 4; step < 16; step *= 2"),
    "a warp left out": ("w < WM; ++w) own", "w < WM - 1; ++w) own"),
    "squares of the numbers": ("[2 * half + k] - mean[j][k];", "[2 * half + k];"),
    "moments of another tile": ("(INDEX)blockIdx.x * all_out + group * out", "group * out"),
    "moments of another group": ("* all_out + group * out + first_column;", "* all_out + first_column;"),
}


def wrong_moments(case):
    """Return whether what is measured of a convolution of normal numbers is wrong."""
    x, filters, bias, _ = arrays(case, "float32", small=False)
    geometry = case.window.over((case.h, case.w))
    y = xp.empty((case.n, *geometry.output, case.fn), "float32")
    moments = implicit_gemm.forward(*map(xp.asarray, (x, filters, bias + 3)), geometry, case.groups, y, None, True)
    rows = asnumpy(y).reshape(-1, case.fn).astype("float64")
    found = map(asnumpy, joined(moments))
    pairs = zip((rows.mean(axis=0), rows.var(axis=0)), found, strict=True)
    return not all(np.allclose(other, expected, rtol=1e-4, atol=1e-4) for expected, other in pairs)


@pytest.mark.parametrize("name", MEASURED)
def test_wrong_moments_are_found(name, monkeypatch):
    case = GROUPED if "group" in name else PLAIN
    assert not wrong_moments(case), "the source is wrong without a mistake"
    implicit_gemm._compiled.cache_clear()
    implicit_gemm._checked.cache_clear()
    monkeypatch.setattr(Variant, "code", seeded(*MEASURED[name], FORWARD))
    assert wrong_moments(case)


_CHECKED = """
import backend
from tests.cuda import test_seeded_mistakes_of_convolution as module
from tests.support import implicit_cases
module.Variant.code = module.seeded({old!r}, {new!r}, {product})
with backend.use("cuda"):
    implicit_cases.run(module.PLAIN, *implicit_cases.arrays(module.PLAIN, "float16"))
    module.wrong_moments(module.PLAIN)
"""


WAITS = '"n"(STAGES - 2) : "memory");'
BARRIERS = {
    "of a tile": (FORWARD, f"{WAITS}\n    __syncthreads();", WAITS),
    "of a weight gradient's tile": (BACKWARD_WEIGHT, f"{WAITS}\n    __syncthreads();", WAITS),
    "before moments": (FORWARD, "__syncthreads();  // the last tile was read", ""),
    "of moments": (FORWARD, "__syncthreads();  // of all warps", ""),
}


@pytest.mark.parametrize("name", BARRIERS)
def test_a_missing_barrier_is_found_in_checked_mode(name):
    """Threads of the emulated device run in step, so that numbers alone do not show it."""
    product, old, new = BARRIERS[name]
    script = _CHECKED.format(old=old, new=new, product=product)
    folders = [str(Path(__file__).parents[2]), os.environ["PYTHONPATH"]]
    environment = os.environ | {"CUDA_ON_CPU_CHECK": "1", "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert f"RACE (shared memory) in kernel {KERNELS[product]}" in done.stdout + done.stderr, done.stderr
