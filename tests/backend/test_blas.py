"""Products by the project's own cuBLAS calls, against NumPy in float64."""

import itertools
import threading
import time

import numpy as np
import pytest

from backend import DeviceError, OutOfMemoryError, allow_tf32, blas, use
from tests.support import product_calls
from tests.support.product_calls import Refusing

pytestmark = pytest.mark.gpu

DTYPES = {
    "float16": ("f2", "f2"),
    "float32": ("f4", "f4"),
    "float64": ("f8", "f8"),
    "float16 into float32": ("f2", "f4"),
}


@pytest.fixture(autouse=True)
def _cuda():
    with use("cuda"):
        yield
        allow_tf32(False)


@pytest.fixture
def cp():
    import cupy

    return cupy


@pytest.fixture
def fresh_contexts(cp, monkeypatch):
    """cuBLAS without any handle: the next product makes one, by a library that a test may replace.

    The pool has a limit, so that asking for the largest block is quick.
    """
    pool = cp.get_default_memory_pool()
    before = pool.get_limit()
    pool.set_limit(pool.total_bytes() + (64 << 20))

    def refuse(**statuses):
        monkeypatch.setattr(blas._cublas(), "contexts", {})
        library = Refusing(blas._cublas().library, **statuses)
        monkeypatch.setattr(blas._cublas(), "library", library)
        return library

    yield refuse
    pool.set_limit(before)


def numbers(shape, dtype="f4", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(got, a, b, beta=0.0, before=0.0):
    """Assert that ``got`` is a @ b + beta · before, up to the rounding of its dtype and of its sums."""
    a, b, before = (np.asarray(x, "longdouble") for x in (a, b, before))
    want = np.asarray(a @ b + beta * before)
    scale = np.asarray(abs(a) @ abs(b) + abs(beta * before))
    sums = (2.0**-53 if got.dtype == "f8" else 2.0**-24) * (8 + np.sqrt(max(a.shape[-1], 1)))
    bound = scale * (sums + np.finfo(got.dtype).eps) + np.finfo(got.dtype).tiny
    assert got.shape == want.shape
    error = abs(got.get().astype("longdouble") - want)
    assert (error <= bound).all(), f"error {error.max():.2e}"


LAYOUTS = {
    "rows": lambda buffer, r, c: buffer.reshape(-1)[: r * c].reshape(r, c),
    "columns": lambda buffer, r, c: buffer.reshape(-1)[: r * c].reshape(c, r).T,
    "part of wider rows": lambda buffer, r, c: buffer[3 : 3 + r, 2 : 2 + c],
    "part of longer columns": lambda buffer, r, c: buffer.T[5 : 5 + r, 1 : 1 + c],
    "every second row": lambda buffer, r, c: buffer[: 2 * r : 2, :c],
    "every second column": lambda buffer, r, c: buffer[:r, : 2 * c : 2],
    "upside down": lambda buffer, r, c: buffer[:r, :c][::-1],
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_operands_are_read_and_written_where_they_lie(cp, dtype):
    """Each layout of each operand, with and without what is in out; what lies beside an operand stays as it was."""
    kinds = (DTYPES[dtype][0], *DTYPES[dtype])
    m, k, n = 7, 11, 5
    sources = [cp.asarray(numbers((32, 32), kind, seed)) for seed, kind in enumerate(kinds)]
    ways = list(itertools.product(LAYOUTS, repeat=3))
    for index, three in enumerate(ways if dtype == "float32" else ways[::4]):
        beta = 0.5 * (index % 2)
        buffers = [source.copy() for source in sources]
        a, b, out = (
            LAYOUTS[way](buffer, *shape)
            for way, buffer, shape in zip(three, buffers, ((m, k), (k, n), (m, n)), strict=True)
        )
        before = out.copy()
        assert blas.gemm(a, b, out, beta) is out
        close(out, a.get(), b.get(), beta, before.get())
        out[...] = before
        for buffer, source in zip(buffers, sources, strict=True):
            assert (buffer == source).all(), (three, beta)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_new_arrays_of_the_dtype_asked_for(cp, dtype):
    operands, result = DTYPES[dtype]
    a, b = numbers((9, 33), operands), numbers((33, 4), operands, 1)
    product = blas.gemm(cp.asarray(a), cp.asarray(b), dtype=None if operands == result else result)
    assert product.dtype == result
    assert product.flags.c_contiguous
    close(product, a, b)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((6,), (6, 4)), ((5, 6), (6,)), ((6,), (6,)), ((1, 6), (6, 1)), ((1, 6), (6, 4)), ((5, 1), (1, 4)),
        ((1, 1), (1, 1)), ((3, 5, 6), (3, 6, 4)), ((3, 5, 6), (6, 4)), ((5, 6), (3, 6, 4)), ((1, 5, 6), (3, 6, 4)),
        ((3, 1, 6), (3, 6, 1)), ((2, 3, 5, 6), (2, 3, 6, 4)), ((2, 1, 5, 6), (3, 6, 4)), ((2, 3, 5, 6), (6, 4)),
        ((6,), (2, 3, 6, 4)), ((2, 3, 5, 6), (6,)), ((2, 1, 1, 6), (1, 3, 6, 1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_vectors_and_stacks(cp, first, second, dtype):
    a, b = numbers(first, dtype), numbers(second, dtype, 1)
    close(blas.gemm(cp.asarray(a), cp.asarray(b)), a, b)
    out = cp.asarray(numbers((a @ b).shape, dtype, 2))
    before = out.get()
    close(blas.gemm(cp.asarray(a), cp.asarray(b), out, 1.0), a, b, 1.0, before)


def test_operands_whose_rows_overlap(cp):
    """Windows that slide over a row, and one row in the place of many."""
    x, b = cp.asarray(numbers(20)), cp.asarray(numbers((5, 4), seed=1))
    windows = cp.lib.stride_tricks.as_strided(x, (16, 5), (4, 4))
    row = cp.broadcast_to(x[:5], (16, 5))
    for a in (windows, row):
        close(blas.gemm(a, b), a.get(), b.get())
        close(blas.gemm(b.T, a.T), b.T.get(), a.T.get())


def test_groups_of_channels_need_no_copies(cp):
    """(rows, groups, columns) read and written group by group: the matrices of a stack lie between each other."""
    rows, groups, k, n = 20, 4, 3, 5
    a, b = numbers((rows, groups, k)), numbers((groups, k, n), seed=1)
    out = cp.full((rows, groups, n), np.nan, "f4")
    blas.gemm(cp.asarray(a).transpose(1, 0, 2), cp.asarray(b), out.transpose(1, 0, 2))
    close(out.transpose(1, 0, 2), a.transpose(1, 0, 2), b)
    total = cp.zeros((groups, k, n), "f4")
    for _ in range(2):
        blas.gemm(cp.asarray(a).transpose(1, 2, 0), out.transpose(1, 0, 2), total, 1.0)
    close(total, 2 * a.transpose(1, 2, 0), out.get().transpose(1, 0, 2))


def test_stacks_of_every_layout(cp):
    buffers = cp.asarray(numbers((6, 16, 16))), cp.asarray(numbers((6, 16, 16), seed=1))
    ways = [
        lambda x: x[:3, :4, :4], lambda x: x[::2, :4, :4].swapaxes(1, 2), lambda x: x[::-2, :4, 2:6],
        lambda x: x[:3, ::4, ::4], lambda x: x.transpose(1, 0, 2)[:3, :4, :4], lambda x: x.T[:3, :4, 1:5],
        lambda x: x[0, :4, :4], lambda x: cp.broadcast_to(x[:1, :4, :4], (3, 4, 4)),
        lambda x: x.reshape(2, 3, 16, 16)[:, :, :4, :4],
        lambda x: x.reshape(3, 2, 16, 16).swapaxes(0, 1)[:, :, :4, :4],
    ]  # fmt: skip
    for first, second in itertools.product(ways, repeat=2):
        a, b = first(buffers[0]), second(buffers[1])
        close(blas.gemm(a, b), a.get(), b.get())


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0)])
def test_empty(cp, shape):
    m, k, n = shape
    a, b = cp.ones((m, k), "f4"), cp.ones((k, n), "f4")
    assert blas.gemm(a, b).shape == (m, n)
    out = cp.full((m, n), 7, "f4")
    blas.gemm(a, b, out, 2.0)
    assert (out == (14 if not k else 14 + k)).all()
    out[...] = np.nan
    blas.gemm(a, b, out)
    assert (out == k).all(), "what was in out does not matter without beta"


def test_float16_sums_are_float32(cp):
    ones = cp.ones((1, 5000), "f2")
    assert blas.gemm(ones, ones.T)[0, 0] == 5000, "adding ones in float16 ends at 2048"
    sixty = cp.full((1, 5000), 60, "f2")
    assert cp.isinf(blas.gemm(sixty, sixty.T)[0, 0])
    assert blas.gemm(sixty, sixty.T, dtype="f4")[0, 0] == 5000 * 3600


@pytest.fixture
def spy():
    with product_calls.recorded() as calls:
        yield calls


def test_out_that_overlaps_an_operand(cp, spy):
    x, y = numbers((6, 6)), numbers((6, 6), seed=1)
    for take in ("a", "b"):
        a, b = cp.asarray(x), cp.asarray(y)
        out = a if take == "a" else b
        close(blas.gemm(a, b, out), x, y)
        name, arguments = spy.calls[-1]
        assert name == "cublasGemmEx"
        assert out.data.ptr != arguments[14].value, "cuBLAS itself may write before it has read all"
    wide = cp.asarray(numbers((6, 18)))
    before = wide.get()
    blas.gemm(wide[:, :6], wide[:, 6:12], wide[:, 12:], 1.0)
    close(wide[:, 12:], before[:, :6], before[:, 6:12], 1.0, before[:, 12:])
    assert (wide[:, :12].get() == before[:, :12]).all()
    blas.gemm(wide[:, :6], wide[:, 6:12], wide[:, 3:9])
    close(wide[:, 3:9], before[:, :6], before[:, 6:12])


def test_tf32_is_asked_for_where_it_was_named(cp, spy):
    def compute_type(dtype):
        x = cp.ones((2, 2), dtype)
        blas.gemm(x, x)
        return spy.calls[-1][1][-2]

    assert [compute_type(dtype) for dtype in ("f2", "f4", "f8")] == [68, 68, 70]
    try:
        allow_tf32()
    except DeviceError as error:
        pytest.skip(f"{error}")
    assert [compute_type(dtype) for dtype in ("f2", "f4", "f8")] == [68, 77, 70]


def test_transposed_and_sliced_matrices_are_one_call(cp, spy):
    x, y, out = cp.ones((8, 9), "f4"), cp.ones((8, 9), "f4"), cp.ones((4, 4), "f4")

    def allocate(size):
        raise AssertionError(f"{size} bytes were allocated")

    with cp.cuda.using_allocator(allocate):
        blas.gemm(x[:, 1:5].T, y[:, 2:6], out)
        blas.gemm(x[::2, :4], y[:4, :4].T, out.T)
        blas.gemm(x[:, 0], y, out.ravel()[:9])
    assert [name for name, _ in spy.calls] == ["cublasGemmEx"] * 3


@pytest.mark.parametrize(
    ("first", "second", "out", "error", "message"),
    [
        ((2, 3), (2, 3), None, ValueError, r"as many columns as the second has rows; got \(2, 3\) float32 @ \(2, 3\)"),
        ((2, 3), (3, 4), (4, 2), ValueError, r"the shape \(2, 4\); got .* into \(4, 2\) float32"),
        ((2, 3, 4), (3, 4, 5), None, ValueError, r"leading axes do not broadcast: \(2, 3, 4\) float32 @ \(3, 4, 5\)"),
        ((), (3, 4), None, ValueError, r"vectors, matrices or stacks of matrices; got \(\) float32"),
    ],
)
def test_wrong_shapes(cp, first, second, out, error, message):
    out = None if out is None else cp.ones(out, "f4")
    with pytest.raises(error, match=message):
        blas.gemm(cp.ones(first, "f4"), cp.ones(second, "f4"), out)
    assert out is None or (out == 1).all()


def test_wrong_operands(cp):
    x = cp.ones((2, 2), "f4")
    with pytest.raises(TypeError, match="takes CuPy arrays; got ndarray, ndarray"):
        blas.gemm(x, np.ones((2, 2), "f4"))
    for other in ("f8", "f2", "i4", "c8", "?"):
        with pytest.raises(
            TypeError, match=rf"cuBLAS multiplies .*; got \(2, 2\) float32 @ \(2, 2\) {np.dtype(other)}"
        ):
            blas.gemm(x, x.astype(other))
        with pytest.raises(TypeError, match=rf"into \(2, 2\) {np.dtype(other)}"):
            blas.gemm(x, x, x.astype(other))
    with pytest.raises(TypeError, match="as int32"):
        blas.gemm(x.astype("i4"), x.astype("i4"), dtype="i4")
    with pytest.raises(TypeError, match=r"into \(2, 2\) float32 as float64"):
        blas.gemm(x, x, x, dtype="f8")
    with pytest.raises(ValueError, match=r"beta 1\.0 is a factor of what is in `out`; got no `out`"):
        blas.gemm(x, x, beta=1.0)


def test_an_error_of_cublas_names_the_call_and_the_shapes(cp, monkeypatch):
    monkeypatch.setattr(blas.context(), "_handle", None)
    x = cp.ones((3, 4), "f4")
    with pytest.raises(
        blas.BlasError,
        match=r"cublasGemmEx failed with CUBLAS_STATUS_NOT_INITIALIZED \(1\) for \(4, 3\) @ \(3, 4\) of float32 into "
        r"float32, beta 0.0, leading dimensions 4, 4 and 4",
    ) as raised:
        blas.gemm(x.T, x)
    assert raised.value.status == 1
    with pytest.raises(blas.BlasError, match=r"cublasGemmStridedBatchedEx .* for 2 products \(3, 3\) @ \(3, 3\)"):
        blas.gemm(cp.ones((2, 3, 3), "f4"), cp.ones((3, 3), "f4"))


def test_every_stream_has_a_handle_and_a_workspace(cp):
    streams = [cp.cuda.Stream(non_blocking=True), cp.cuda.Stream()]
    contexts = [blas.context()]
    for stream in streams:
        with stream:
            contexts += [blas.context(), blas.context()]
            x = cp.ones((4, 4), "f4")
            assert (blas.gemm(x, x).get() == 4).all()
    assert len({id(context) for context in contexts}) == 3
    assert len({context._workspace.ptr for context in contexts}) == 3


def test_a_stream_of_each_thread_has_a_handle_for_each(cp):
    """CUDA's per-thread default stream is another one for each thread, at the same address."""
    found = []

    def look():
        with use("cuda"), cp.cuda.Stream.ptds:
            found.append(blas.context())

    look()
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found[0] is not found[1]


def test_threads_multiply_at_the_same_time(cp):
    """In a stream of each thread, and all in one stream."""
    a, b = numbers((40, 60)), numbers((60, 30), seed=1)
    x, y = cp.asarray(a), cp.asarray(b)
    want = blas.gemm(x, y).get()
    cp.cuda.Device().synchronize()
    wrong, shared = [], cp.cuda.Stream(non_blocking=True)

    def multiply(stream):
        with use("cuda"), stream:
            wrong.extend(stream for _ in range(30) if not np.array_equal(blas.gemm(x, y).get(), want))

    streams = [shared, shared, cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)]
    threads = [threading.Thread(target=multiply, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Busy:
    """Stands for the library cuBLAS: notes products that are asked for while another one in the same handle runs."""

    def __init__(self, library):
        self._library, self._running, self.overlaps = library, set(), 0

    def __getattr__(self, name):
        function = getattr(self._library, name)

        def call(handle, *arguments):
            key = getattr(handle, "value", None)
            self.overlaps += key in self._running
            self._running.add(key)
            time.sleep(0.002)  # the other threads run
            status = function(handle, *arguments)
            self._running.discard(key)
            return status

        return call if name in product_calls.PRODUCTS else function


def test_products_in_one_stream_take_turns(cp, monkeypatch):
    """On a GPU a product may be several launches, which hand on parts through the stream's workspace."""
    busy = Busy(blas._cublas().library)
    monkeypatch.setattr(blas._cublas(), "library", busy)
    monkeypatch.setattr(blas._cublas(), "contexts", {})
    x, stack = cp.ones((4, 4), "f4"), cp.ones((2, 4, 4), "f4")

    def multiply():
        with use("cuda"):
            for _ in range(4):
                blas.gemm(x, x)
                blas.gemm(stack, stack)

    threads = [threading.Thread(target=multiply) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not busy.overlaps


def test_a_workspace_is_set_after_the_stream_which_takes_it_back(cp, fresh_contexts):
    library = fresh_contexts()
    blas.context()
    names = ["cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasSetMathMode"]
    assert library.called == names


def test_a_product_is_captured(cp):
    stream = cp.cuda.Stream(non_blocking=True)
    a, b, out = cp.asarray(numbers((5, 6))), cp.asarray(numbers((6, 4), seed=1)), cp.zeros((5, 4), "f4")
    cp.cuda.Device().synchronize()
    with stream:
        blas.gemm(a, b, out)
        out[...] = 0
        stream.begin_capture()
        blas.gemm(a, b, out, 1.0)
        graph = stream.end_capture()
        for _ in range(3):
            graph.launch()
        stream.synchronize()
    close(out, 3 * a.get(), b.get())


def test_a_first_product_takes_what_the_pool_holds_idle(cp, monkeypatch):
    """The workspace is not from CuPy's pool, so that the pool lets go of its memory where no other is left."""
    pool, memory, idle = cp.get_default_memory_pool(), cp.cuda.Memory, 64 << 20
    cp.cuda.alloc(idle)  # let go at once
    held = pool.total_bytes()

    def exhausted_by_the_pool(size):
        if pool.total_bytes() > held - idle:
            raise cp.cuda.runtime.CUDARuntimeError(2)
        return memory(size)

    monkeypatch.setattr(cp.cuda, "Memory", exhausted_by_the_pool)
    monkeypatch.setattr(blas._cublas(), "contexts", {})  # a new stream may have the address of one that is gone
    with cp.cuda.Stream(non_blocking=True):
        assert blas.context()._workspace.size == blas.WORKSPACE_BYTES
    assert pool.total_bytes() <= held - idle


def test_a_handle_that_lacks_memory_gets_what_the_pool_holds_idle(cp, fresh_contexts):
    pool, x = cp.get_default_memory_pool(), cp.ones((2, 2), "f4")
    cp.empty(1 << 20)
    idle = pool.free_bytes()
    assert idle >= 8 << 20
    for status in (1, 3):
        library = fresh_contexts(cublasCreate_v2=[status])
        assert (blas.gemm(x, x) == 2).all()
        assert library.called.count("cublasCreate_v2") == 2
        assert pool.free_bytes() < idle - (7 << 20)  # parts of blocks that other arrays use may be left


@pytest.mark.parametrize(("status", "free", "is_memory"), [(3, 1 << 32, True), (1, 1 << 20, True), (1, 1 << 32, False)])
def test_no_handle(cp, fresh_contexts, monkeypatch, status, free, is_memory):
    """Of two refusals cuBLAS uses one for broken drivers, too: then the free memory decides."""
    library = fresh_contexts(cublasCreate_v2=[status, status])
    monkeypatch.setattr(cp.cuda.runtime, "memGetInfo", lambda: (free, 1 << 33))
    kind = OutOfMemoryError if is_memory else blas.BlasError
    with pytest.raises(
        kind, match=rf"cublasCreate_v2 failed with CUBLAS_STATUS_\w+ \({status}\) for a new handle"
    ) as raised:
        blas.gemm(cp.ones((2, 2), "f4"), cp.ones((2, 2), "f4"))
    if is_memory:
        assert f"{free:,} bytes free of" in str(raised.value)
        assert "the largest block to be had is" in str(raised.value)
    assert not blas._cublas().contexts
    assert "cublasDestroy_v2" not in library.called
    x = cp.ones((2, 2), "f4")
    assert (blas.gemm(x, x) == 2).all()


@pytest.mark.parametrize("name", ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasSetMathMode"])
def test_a_handle_that_cannot_be_set_up_is_destroyed(cp, fresh_contexts, name):
    library, x = fresh_contexts(**{name: [7]}), cp.ones((2, 2), "f4")
    with pytest.raises(blas.BlasError, match=rf"{name} failed with CUBLAS_STATUS_INVALID_VALUE \(7\) in a new handle"):
        blas.gemm(x, x)
    assert library.called[-1] == "cublasDestroy_v2"
    assert not blas._cublas().contexts
    assert (blas.gemm(x, x) == 2).all()


def test_a_product_that_lacks_memory_names_the_call_and_the_figures(cp, fresh_contexts):
    fresh_contexts(cublasGemmEx=[3])
    x = cp.ones((3, 4), "f4")
    with pytest.raises(
        OutOfMemoryError, match=r"cublasGemmEx failed .* \(3\) for \(4, 3\) @ \(3, 4\) of float32 .*; CuPy's pool holds"
    ):
        blas.gemm(x.T, x)
    assert (blas.gemm(x.T, x) == 3).all()


def test_no_memory_for_a_workspace(cp, monkeypatch):
    monkeypatch.setattr(blas, "WORKSPACE_BYTES", 1 << 60)
    monkeypatch.setattr(blas._cublas(), "contexts", {})
    with cp.cuda.Stream(non_blocking=True):
        for _ in range(2):
            with pytest.raises(MemoryError, match="Out of memory allocating 1,152,921,504,606,846,976 bytes"):
                blas.context()
    monkeypatch.undo()
    x = cp.ones((2, 2), "f4")
    assert (blas.gemm(x, x) == 2).all()
