"""Calls of C kernels: their arguments, the threads that share them, and what happens where they cannot be called."""

import contextlib
import ctypes
import json
import re
from pathlib import Path

import numpy as np
import pytest

from kernels import activations
from kernels.core import build_native, native
from kernels.core.native import Function
from tests.conftest import require_c_kernels
from tests.support import c_kernels
from tests.support.checks import assert_same
from tests.support.fresh import fresh

SOURCE = Path(__file__).with_name("vectors.c")
ROWS, COLUMNS = 3, 5


# -- arguments -----------------------------------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path_factory):
    """Return a function that calls ``arguments`` of vectors.c with good arguments, but for those that it is given."""
    c_kernels.require_compiler()
    handle = c_kernels.compiled(str(SOURCE), str(tmp_path_factory.getbasetemp()))
    function = Function(str(SOURCE), "arguments")

    def called(dtype="float32", **others):
        arguments = given(dtype) | others
        function(np.dtype(dtype), *arguments.values())
        return arguments

    with c_kernels.as_library(handle, c_kernels.own_levels()[-1]):
        called.function = function
        yield called


def given(dtype="float32"):
    """Good arguments of the function ``arguments``, by name."""
    return {
        "x": np.arange(ROWS * COLUMNS, dtype=dtype).reshape(ROWS, COLUMNS),
        "y": np.zeros(ROWS, dtype),
        "sums": np.zeros(COLUMNS, np.promote_types(dtype, "float32")),
        "keep": np.array([True, False, True]),
        "rows": ROWS,
        "columns": COLUMNS,
        "step": -2,
        "factor": 0.5,
    }


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_good_arguments_arrive(call, dtype):
    result = call(dtype)
    assert_same(result["y"], np.array([-1, 0.5, 4], dtype))
    assert_same(result["sums"], np.arange(5, dtype=result["sums"].dtype))
    assert_same(result["x"], given(dtype)["x"])


def test_arrays_that_may_be_missing(call):
    result = call(sums=None, keep=None)
    assert result["y"].tolist() == [-2, 0.5, 3]


def test_an_array_that_is_only_read_may_be_read_only(call):
    x, keep = given()["x"], given()["keep"]
    x.flags.writeable = keep.flags.writeable = False
    assert call(x=x, keep=keep)["y"].tolist() == [-1, 0.5, 4]


def test_arrays_without_elements(call):
    result = call(x=np.zeros((0, 5), "float32"), y=np.zeros(0, "float32"), keep=np.zeros(0, bool), sums=None, rows=0)
    assert result["y"].size == 0


def frozen(array):
    array.flags.writeable = False
    return array


REFUSED = {
    "another type": ("x", given("float64")["x"], TypeError, "x of arguments in .* must be float32, got float64"),
    "integers": ("y", np.zeros(ROWS, "int32"), TypeError, "y of arguments in .* must be float32, got int32"),
    "another order of bytes": ("x", given()["x"].astype(">f4"), TypeError, "must be float32, got >f4"),
    "sums in half precision": ("sums", np.zeros(COLUMNS, "float16"), TypeError, "must be float32, got float16"),
    "no mask": ("keep", np.zeros(ROWS, "float32"), TypeError, "keep of .* must be uint8, got float32"),
    "too few": ("y", np.zeros(ROWS - 1, "float32"), ValueError, "y of .* must have 3 elements, got 2"),
    "too many": ("x", np.zeros(16, "float32"), ValueError, "x of .* must have 15 elements, got 16"),
    "too few of a missing one": ("sums", np.zeros(4, "float32"), ValueError, "sums of .* must have 5 elements, got 4"),
    "a list": ("x", [1.0] * 15, TypeError, "x of .* must be an array, got list"),
    "none": ("y", None, TypeError, "y of .* must be an array, got NoneType"),
    "a wide number": ("step", 1 << 31, ValueError, f"step of .* must fit into 32 bits, got {1 << 31}"),
}


@pytest.mark.parametrize(("name", "value", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_named_while_calls_are_checked(call, name, value, error, words):
    with native.checked(), pytest.raises(error, match=words):
        call(**{name: value})


def test_a_wrong_number_of_arguments_is_refused(call):
    arguments = given().values()
    for wrong in (list(arguments)[:-1], [*arguments, 1]):
        with native.checked(), pytest.raises(TypeError, match=f"takes 8 arguments, got {len(wrong)}"):
            call.function(np.dtype("float32"), *wrong)


ALWAYS_REFUSED = {
    "strided": ("x", np.zeros((ROWS, 2 * COLUMNS), "float32")[:, ::2]),
    "transposed": ("x", np.zeros((COLUMNS, ROWS), "float32").T),
    "strided where it is written": ("y", np.zeros(2 * ROWS, "float32")[::2]),
    "backwards": ("y", np.zeros(ROWS, "float32")[::-1]),
    "read-only where it is written": ("y", frozen(np.zeros(ROWS, "float32"))),
    "read-only where it is written, or missing": ("sums", frozen(np.zeros(COLUMNS, "float32"))),
    "strided and read-only": ("x", frozen(np.zeros((ROWS, 2 * COLUMNS), "float32"))[:, ::2]),
    "strided, or missing": ("keep", np.zeros(2 * ROWS, bool)[::2]),
    "none where it is read": ("x", None),
    "none where it is written": ("y", None),
    "a list": ("x", [1.0]),
    "a fraction": ("rows", 2.5),
    "a text": ("factor", "1"),
}


@pytest.mark.parametrize(("name", "value"), ALWAYS_REFUSED.values(), ids=ALWAYS_REFUSED)
def test_what_would_damage_memory_is_refused_in_every_call(call, monkeypatch, name, value):
    """Also outside of tests, where calls are not checked; nothing was written."""
    monkeypatch.setattr(native, "_checked", False)
    y = given()["y"]
    with pytest.raises((ctypes.ArgumentError, TypeError)):
        call(**{"y": y, name: value})
    assert y.tolist() == [0, 0, 0]


def test_a_missing_argument_is_refused_in_every_call(call, monkeypatch):
    monkeypatch.setattr(native, "_checked", False)
    with pytest.raises(TypeError, match="this function takes at least 8 arguments"):
        call.function(np.dtype("float32"), *list(given().values())[:-1])


def test_a_function_that_the_source_lacks(call):
    with pytest.raises(ValueError, match=r"vectors\.c has no function missing"):
        _ = Function(str(SOURCE), "missing").parameters


# -- whether there is a library ------------------------------------------------------------------------------------


@pytest.fixture
def library():
    """Load the library anew in a test, and again after it."""
    native.library.cache_clear()
    yield native.library
    native.library.cache_clear()


def numpy_computes(words, remedy):
    """Assert that NumPy computes, and that the reason is said with the remedy, or none."""
    assert words in native.refusal()
    assert not native.available()
    assert not native.computes(np.dtype("float32"))
    found = native.library().remedy
    assert ("build_native.py" in found and build_native.COMPILER in found) if remedy else found == ""
    with pytest.raises(RuntimeError, match=re.escape(words)), native.enabled(True):
        pass
    y, positive = activations.relu(np.array([-1, 0, 2], "float32"))
    assert (y.tolist(), positive.tolist()) == ([0, 0, 2], [False, False, True])


def test_a_library_that_was_not_built(library, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "missing.lib")
    numpy_computes("the C kernels were not built", remedy=True)


def test_a_system_that_is_no_target(library, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "missing.lib")
    monkeypatch.setattr(build_native, "TARGETS", {})
    numpy_computes("there are no C kernels for this system", remedy=False)


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(100)])
def test_a_file_that_is_no_library(library, monkeypatch, tmp_path, content):
    path = tmp_path / "native.lib"
    path.write_bytes(content)
    monkeypatch.setattr(native, "LIBRARY", path)
    numpy_computes("the C kernels cannot be loaded: ", remedy=True)


def test_another_library(library, monkeypatch):
    monkeypatch.setattr(native, "LIBRARY", Path(np._core._multiarray_umath.__file__))
    numpy_computes("the C kernels cannot be loaded: ", remedy=True)


@pytest.mark.usefixtures("_built")
def test_a_library_of_other_sources(library, monkeypatch):
    """Its functions may have other parameters than the sources say: calling them would damage memory."""
    monkeypatch.setattr(build_native, "digest", lambda: "0" * 32)
    numpy_computes("the C kernels were built from other sources", remedy=True)


@pytest.mark.usefixtures("_built")
def test_a_processor_that_is_too_old(library, monkeypatch):
    monkeypatch.setattr(native, "_LEVELS", {})
    numpy_computes("this processor is older than x86-64-v3, for which the C kernels are compiled", remedy=False)


@pytest.fixture
def _built():
    require_c_kernels()


SAY = """
import json
import numpy
from kernels import activations
from kernels.core import native
y, _ = activations.relu(numpy.array([-1, 2], "float32"))
found = native.library()
print(json.dumps([native.available(), native.refusal(), found.level, found.processor, y.tolist()]))
"""


def said(value):
    return json.loads(fresh(SAY, XPNET_NATIVE=value))


@pytest.mark.usefixtures("_built")
def test_the_environment_chooses_numpy_or_a_level():
    levels = c_kernels.own_levels()
    names = {"v3": "x86-64-v3", "v4": "x86-64-v4", "arm64": "arm64"}
    for value in (None, "", "1"):
        assert said(value) == [True, "", levels[-1], names[levels[-1]], [0, 2]]
    assert said("0")[:2] == [False, "XPNET_NATIVE=0"]
    assert said("0")[4] == [0, 2]
    for level in levels:
        assert said(level) == [True, "", level, names[level], [0, 2]]
    other = "arm64" if levels[-1] != "arm64" else "v4"
    assert said(other)[:2] == [False, f"XPNET_NATIVE={other}, and this processor is of level {levels[-1]}"]


def test_a_level_that_does_not_exist_is_refused_at_the_first_use():
    assert fresh("import layers; print('imported')", XPNET_NATIVE="v5") == "imported"
    assert "ValueError: XPNET_NATIVE is 0, 1 or one of v3, v4, arm64, not 'v5'" in fresh(
        SAY, fails=True, XPNET_NATIVE="v5"
    )


def test_nothing_is_loaded_by_importing():
    """Neither the library nor its build, nor what that imports."""
    code = (
        "import sys, layers, training; from kernels.core import native; "
        "print(native.library.cache_info().currsize, 'kernels.core.build_native' in sys.modules)"
    )
    assert fresh(code) == "0 False"


@pytest.mark.usefixtures("_built")
def test_enabled_holds_inside_a_with(monkeypatch):
    monkeypatch.setattr(native, "_on", False)
    with native.enabled(True):
        assert native.available()
        with native.enabled(False):
            assert native.refusal() == "XPNET_NATIVE=0"
        assert native.available()
        with contextlib.suppress(KeyError), native.enabled(False):
            raise KeyError
        assert native.available()
    assert not native.available()
