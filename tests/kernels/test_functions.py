"""exp, log and tanh of the C kernels against NumPy in the next wider type, over all numbers."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from kernels.core import build_native

NAMES = {"float32": "float", "float64": "double"}
BOUNDS = {"exp": 1.2, "exp_negative": 1.2, "log": 1.0, "tanh": 2.0}  # units in the last place, as functions.h says
COUNT = 1 << 18


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """Return a function that computes ``name`` of x by the C code for one level of this processor."""
    pytest.importorskip("ziglang", reason="needs the C compiler of ziglang")
    target = build_native.this_target()
    if target is None:
        pytest.skip("there are no C kernels for this machine")
    path = tmp_path_factory.mktemp("functions") / "functions.lib"
    build_native.build(target, path, files=[Path(__file__).with_name("functions.c")])
    library = ctypes.CDLL(str(path))
    own = library.xpnet_level()

    def compute(name, x, level):
        x = np.append(x, np.zeros(-len(x) % 16, x.dtype))
        y = np.empty_like(x)
        function = library[f"{name}_{NAMES[x.dtype.name]}_{level}"]
        function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_longlong(len(x)))
        return y

    compute.levels = [level.name for level in target.levels if own == 8 or int(level.name[1:]) <= own]
    return compute


def every(dtype):
    """Numbers of every exponent and sign, NaN and infinities among them, and more of them near 0 and 1."""
    rng = np.random.default_rng(0)
    bits = {"float32": np.uint32, "float64": np.uint64}[dtype]
    anything = rng.integers(0, np.iinfo(bits).max, COUNT, bits, endpoint=True).view(dtype)
    edges = np.array(
        [0, np.inf, np.nan, 1, 2, 0.5, 88.7228, 88.7229, 103.97, 103.98, 104, 709.78, 745.13, 745.14], dtype
    )
    near = np.nextafter(np.array([1, 0.70710678118654752, 0, np.finfo(dtype).tiny], dtype), np.array(2, dtype))
    parts = [anything, edges, near, rng.uniform(-1, 3, COUNT), rng.uniform(-110, 90, COUNT)]
    if dtype == "float64":
        parts.append(rng.uniform(-750, 712, COUNT))
    numbers = np.concatenate([part.astype(dtype) for part in parts])
    return np.concatenate([numbers, -numbers])


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_number(functions, name, dtype):
    x = every(dtype)
    if name == "exp_negative":
        x = x[~(x > 0)]
    exact = getattr(np, name.removesuffix("_negative"))(x.astype("float64" if dtype == "float32" else "longdouble"))
    rounded = exact.astype(dtype)
    finite = np.isfinite(rounded)
    unit = np.spacing(abs(rounded[finite])).astype(exact.dtype)
    for level in functions.levels:
        y = functions(name, x, level)[: len(x)]
        np.testing.assert_array_equal(y[~finite], rounded[~finite])
        np.testing.assert_array_equal(np.signbit(y[~np.isnan(y)]), np.signbit(rounded[~np.isnan(y)]))
        assert (abs(y[finite] - exact[finite]) / unit).max() <= BOUNDS[name]


def test_zeros_and_ones_are_exact(functions):
    for dtype in NAMES:
        zeros, one = np.array([0.0, -0.0], dtype), np.ones(1, dtype)
        for level in functions.levels:
            assert functions("exp", zeros, level)[:2].tolist() == [1, 1]
            assert functions("exp_negative", zeros, level)[:2].tolist() == [1, 1]
            assert np.signbit(functions("tanh", zeros, level)[:2]).tolist() == [False, True]
            assert functions("log", zeros, level)[:2].tolist() == [-np.inf, -np.inf]
            assert not np.signbit(functions("log", one, level)[0])
