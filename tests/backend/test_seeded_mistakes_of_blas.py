"""The tests of the products find mistakes: each is put into the source of ``backend``, and must be found."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import pytest

from backend import blas, blas_plans, use
from tests.backend import test_blas as tests
from tests.backend.test_blas import cp, fresh_contexts  # noqa: F401  (fixtures)
from tests.support import product_calls

pytestmark = pytest.mark.gpu


class Mistake(NamedTuple):
    """``new`` in place of the first ``old`` in a module, and the test that finds it, with its further arguments."""

    module: object
    old: str
    new: str
    test: Callable
    arguments: tuple = ()


MISTAKES = {
    "beta left out": Mistake(
        blas, "_scalar(beta, kind)", "_scalar(0.0, kind)", tests.test_groups_of_channels_need_no_copies
    ),
    "beta always 1": Mistake(blas, "_scalar(beta, kind)", "_scalar(1.0, kind)", tests.test_vectors_and_stacks, (
        (5, 6), (6,), "f4",
    )),
    "leading dimensions swapped": Mistake(
        blas, "(lda, ldb, ldc), (data", "(ldb, lda, ldc), (data",
        tests.test_operands_are_read_and_written_where_they_lie, ("float32",),
    ),
    "transposition swapped": Mistake(
        blas_plans, "flags=(second.transposed, first.transposed)", "flags=(first.transposed, second.transposed)",
        tests.test_operands_are_read_and_written_where_they_lie, ("float32",),
    ),
    "column-major result not swapped": Mistake(
        blas_plans, "swapped = bool(target.transposed)", "swapped = False",
        tests.test_operands_are_read_and_written_where_they_lie, ("float32",),
    ),
    "steps of a stack swapped": Mistake(
        blas, "next_a, next_b, next_c = map", "next_b, next_a, next_c = map", tests.test_stacks_of_every_layout
    ),
    "overlap not seen": Mistake(
        blas, "if (start < first + first_bytes and first < end) or", "if", tests.test_out_that_overlaps_an_operand,
        ("spy",),
    ),
    "float16 summed in float16": Mistake(
        blas, "_FLOAT64 if kind == \"d\" else _FLOAT32", "_FLOAT64 if kind == \"d\" else 64",
        tests.test_float16_sums_are_float32,
    ),
    "TF32 without being asked": Mistake(
        blas, "self._has_tf32 and tf32.is_allowed()", "self._has_tf32", tests.test_tf32_is_asked_for_where_it_was_named,
        ("spy",),
    ),
    "a handle for all streams": Mistake(
        blas, "key = cublas.get_device(), stream,", "key = cublas.get_device(), 0,",
        tests.test_every_stream_has_a_handle_and_a_workspace,
    ),
    "a handle for all threads' streams": Mistake(
        blas, "threading.get_ident() if", "0 if", tests.test_a_stream_of_each_thread_has_a_handle_for_each
    ),
    "no lock": Mistake(
        blas, "self._lock = threading.Lock()", "self._lock = __import__(\"contextlib\").nullcontext()",
        tests.test_products_in_one_stream_take_turns, ("monkeypatch",),
    ),
    "stale workspace": Mistake(
        blas, "self._set_up(\"cublasSetMathMode\", _NO_REDUCED_PRECISION)",
        "self._set_up(\"cublasSetMathMode\", _NO_REDUCED_PRECISION); self._set_up(\"cublasSetStream_v2\", stream)",
        tests.test_a_workspace_is_set_after_the_stream_which_takes_it_back, ("fresh_contexts",),
    ),
    "a handle is not destroyed": Mistake(
        blas, "self._library.cublasDestroy_v2(self._handle)", "pass",
        tests.test_a_handle_that_cannot_be_set_up_is_destroyed, ("fresh_contexts", "cublasSetMathMode"),
    ),
    "idle memory is not let go": Mistake(
        blas, "cupy.get_default_memory_pool().free_all_blocks()", "pass",
        tests.test_a_handle_that_lacks_memory_gets_what_the_pool_holds_idle, ("fresh_contexts",),
    ),
    "lack of memory is another error": Mistake(
        blas, "if is_full or status == _ALLOCATION_FAILED", "if is_full",
        tests.test_a_product_that_lacks_memory_names_the_call_and_the_figures, ("fresh_contexts",),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def emulated():
    pytest.importorskip("cuda_on_cpu", reason="mistakes are seeded on the emulated device only")
    with use("cuda"):
        yield


def run_again(module, old="", new=""):
    """Execute a module's source in its own namespace, with a change: other modules see the new functions."""
    source = inspect.getsource(module)
    assert old in source, f"{module.__name__} has no {old!r} any more"
    exec(compile(source.replace(old, new, 1), module.__file__, "exec"), vars(module))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found(name, request):
    import cupy

    mistake = MISTAKES[name]

    def run_test():
        with product_calls.recorded() as calls:
            given = {"spy": calls}
            arguments = [given.get(word) or _fixture(request, word) for word in mistake.arguments]
            mistake.test(cupy, *arguments)

    run_test()  # without the mistake it passes
    try:
        run_again(mistake.module, mistake.old, mistake.new)
        if mistake.module is not blas:
            run_again(blas)
        with pytest.raises((AssertionError, pytest.fail.Exception, blas.BlasError)):
            run_test()
    finally:
        for module in (blas_plans, blas):
            run_again(module)


def _fixture(request, word):
    return request.getfixturevalue(word) if word in ("monkeypatch", "fresh_contexts", "spy") else word
