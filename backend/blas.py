"""Multiply matrices by cuBLAS, called through ctypes with a handle and a workspace for each stream.

CuPy refuses its own cuBLAS calls while a stream is captured, takes back a workspace that was set, cannot add a
product to what is in ``out``, and rounds float16 products to float16. All four are given here:

- operands are read where they lie: a transposed or sliced matrix is a flag and a leading dimension, and only what
  cuBLAS cannot describe (both strides larger than one element, negative or zero strides) is copied;
- sums are float32 for float16 and float32, float64 for float64; ``tf32.allow`` alone rounds operands to TF32;
- the first product in a stream makes the stream's handle and workspace, or ``prepare`` does, before arrays take the
  memory. After it, a product neither allocates (beyond its result) nor waits, and can be captured.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

import numpy

from backend import memory, tf32
from backend.active import current_device
from backend.blas_library import load
from backend.blas_plans import Plan, plan_product
from backend.types import Array

WORKSPACE_BYTES = 32 << 20
"""NVIDIA's recommendation for Hopper; older GPUs take up to 4 MiB of it."""

_NOT_INITIALIZED, _ALLOCATION_FAILED = 1, 3
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_STATUS = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
    16: "CUBLAS_STATUS_LICENSE_ERROR",
}

_ROOM_FOR_A_HANDLE = 256 << 20
"""Free bytes at which a handle that cannot be made does not lack memory: its kernels and its own memory take less."""

_NO_REDUCED_PRECISION = 16
"""The math mode that keeps partial sums of float16 products in float32."""

_DEFAULT_ALGORITHM = -1
_FLOAT32, _FLOAT32_BY_TF32, _FLOAT64 = 68, 77, 70  # cublasComputeType_t
_pointer, _long = ctypes.c_void_p, ctypes.c_longlong  # other arguments are ints: declared types would double the time
_PER_THREAD_STREAM = 2  # one address for a stream of each thread's own


class BlasError(RuntimeError):
    """A call of cuBLAS that failed: which one, with what shapes, and the status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def gemm(a: Array, b: Array, out: Array | None = None, beta: float = 0.0, dtype: Any = None) -> Array:
    """Return ``a`` @ ``b`` + ``beta`` · ``out``, written into ``out`` if it is given.

    Runs in the current stream, and may be captured. The inputs are not changed; ``out`` may overlap them.

    Args:
        a: (M, K), or a stack (…, M, K), or a vector (K,); float16, float32 or float64.
        b: (K, N), or a stack (…, K, N), or a vector (K,), of ``a``'s dtype. Leading axes broadcast.
        out: (…, M, N) with any strides. What is in it does not matter if ``beta`` is 0.
        beta: factor of what is in ``out``.
        dtype: of the result; by default ``out``'s, or else the operands'. float16 operands can give float32.

    Raises:
        BlasError: cuBLAS refuses the product; the message has the call, the shapes and the status.
        DeviceError: cuBLAS cannot be loaded.
        MemoryError: no memory is left for the handle, the workspace, the result or a copy.
        TypeError: an operand is not a CuPy array, or cuBLAS does not multiply these dtypes.
        ValueError: the shapes do not fit each other, or ``beta`` is given without ``out``.
    """
    cublas = _cublas()
    ndarray = cublas.ndarray
    if not (isinstance(a, ndarray) and isinstance(b, ndarray) and (out is None or isinstance(out, ndarray))):
        given = ", ".join(type(array).__name__ for array in (a, b, out) if array is not None)
        raise TypeError(f"a matrix product on the GPU takes CuPy arrays; got {given}")
    if beta and out is None:
        raise ValueError(f"beta {beta} is a factor of what is in `out`; got no `out`")
    plan = plan_product(
        (a.shape, a.strides, a.dtype.char),
        (b.shape, b.strides, b.dtype.char),
        None if out is None else (out.shape, out.strides, out.dtype.char),
        None if dtype is None else numpy.dtype(dtype).char,
    )
    result: Any = cublas.cupy.empty(plan.shape, plan.dtype) if out is None else out
    if not result.size:
        return result
    if not plan.inner:  # nothing is added up
        result[...] = result * beta if beta else 0
        return result
    if any(plan.copied):
        return _by_copies(plan, plan.copied, a, b, result, beta)
    left: Any = b if plan.swapped else a
    right: Any = a if plan.swapped else b
    start, first, second = result.data.ptr, left.data.ptr, right.data.ptr
    first_bytes, second_bytes, bytes_ = plan.extents
    end = start + bytes_
    if (start < first + first_bytes and first < end) or (start < second + second_bytes and second < end):
        return _by_copies(plan, (False, False, True), a, b, result, beta)
    context().multiply(plan, first, second, start, beta)
    return result


def _by_copies(plan: Plan, copied: tuple[bool, bool, bool], a: Any, b: Any, out: Any, beta: float) -> Any:
    """Multiply C-contiguous copies of what cuBLAS cannot describe; an ``out`` that is copied is written at the end."""
    cupy = _cublas().cupy
    if copied[0]:
        a = (a if a.ndim == 1 else cupy.broadcast_to(a, plan.stack + a.shape[-2:])).copy()
    if copied[1]:
        b = (b if b.ndim == 1 else cupy.broadcast_to(b, plan.stack + b.shape[-2:])).copy()
    if not copied[2]:
        return gemm(a, b, out, beta)
    out[...] = gemm(a, b, out.copy() if beta else cupy.empty(out.shape, out.dtype), beta)
    return out


def context() -> Context:
    """Return the handle and workspace of the current device and stream; make them at the first call.

    They live as long as the process: a captured graph refers to its stream's workspace.

    Raises:
        BlasError: cuBLAS cannot be started.
        MemoryError: no memory is left for the handle or the workspace.
    """
    cublas = _cublas()
    stream = cublas.get_stream().ptr
    key = cublas.get_device(), stream, threading.get_ident() if stream == _PER_THREAD_STREAM else 0
    found = cublas.contexts.get(key)
    if found is None:
        with cublas.lock:
            found = cublas.contexts.get(key)
            if found is None:
                found = cublas.contexts[key] = Context(cublas, stream)
    return found


def prepare() -> None:
    """Make the handle and the workspace of the current stream, if the active device is a GPU; errors as ``context``."""
    if current_device().kind == "cuda":
        context()


class Context:
    """cuBLAS's handle and workspace for one stream of one device. Made by ``context``."""

    def __init__(self, cublas: _Cublas, stream: int) -> None:
        cupy = cublas.cupy
        self._library = cublas.library
        # A product can be several launches that hand on parts through the workspace: another thread's must not come
        # between them, even in the same stream. Two threads on one stream got wrong numbers on an H200.
        self._lock = threading.Lock()
        self._has_tf32 = int(cupy.cuda.Device().compute_capability) >= 80
        self._handle = self._new_handle(cupy)
        try:
            # Not from a pool: a private one would end with its graph, and a pool's limit is for arrays.
            self._workspace = _allocate(cupy, WORKSPACE_BYTES)
            self._set_up("cublasSetStream_v2", ctypes.c_void_p(stream))
            workspace = ctypes.c_void_p(self._workspace.ptr), ctypes.c_size_t(WORKSPACE_BYTES)
            self._set_up("cublasSetWorkspace_v2", *workspace)  # after the stream, which takes it back
            self._set_up("cublasSetMathMode", _NO_REDUCED_PRECISION)
        except BaseException:
            self._library.cublasDestroy_v2(self._handle)
            raise

    def multiply(self, plan: Plan, left: int, right: int, out: int, beta: float) -> None:
        """Launch the product that ``plan`` describes, of matrices at three addresses.

        Raises:
            BlasError: cuBLAS refuses it.
            MemoryError: it finds no memory.
        """
        kind = plan.kind
        if kind == "f":
            compute = _FLOAT32_BY_TF32 if self._has_tf32 and tf32.is_allowed() else _FLOAT32
        else:
            compute = _FLOAT64 if kind == "d" else _FLOAT32
        one, factor = _scalar(1.0, kind), _scalar(beta, kind)
        # cuBLAS is column-major: outᵀ = rightᵀ @ leftᵀ.
        (turn_a, turn_b), (n, m, k), (lda, ldb, ldc), (data, result) = plan.flags, plan.sizes, plan.leading, plan.types
        a, b, c = _pointer(right), _pointer(left), _pointer(out)
        if plan.matrices == 1:
            name = "cublasGemmEx"
            with self._lock:
                status = self._library.cublasGemmEx(
                    self._handle, turn_a, turn_b, n, m, k, one, a, data, lda, b, data, ldb, factor, c, result, ldc,
                    compute, _DEFAULT_ALGORITHM,
                )  # fmt: skip
        else:
            name = "cublasGemmStridedBatchedEx"
            next_a, next_b, next_c = map(_long, plan.steps)
            with self._lock:
                status = self._library.cublasGemmStridedBatchedEx(
                    self._handle, turn_a, turn_b, n, m, k, one, a, data, lda, next_a, b, data, ldb, next_b,
                    factor, c, result, ldc, next_c, plan.matrices, compute, _DEFAULT_ALGORITHM,
                )  # fmt: skip
        if status:
            raise _error(name, status, _described(plan, beta))

    def _new_handle(self, cupy: Any) -> ctypes.c_void_p:
        """Return a handle; where memory is missing, CuPy's pool lets go of what it holds idle."""
        handle, create = ctypes.c_void_p(), self._library.cublasCreate_v2
        status = create(ctypes.byref(handle))
        if status in (_NOT_INITIALIZED, _ALLOCATION_FAILED):
            cupy.get_default_memory_pool().free_all_blocks()
            status = create(ctypes.byref(handle))
        if status:  # which may be NOT_INITIALIZED, too, if its kernels find no memory
            is_full = status == _NOT_INITIALIZED and cupy.cuda.runtime.memGetInfo()[0] < _ROOM_FOR_A_HANDLE
            raise _error("cublasCreate_v2", status, "for a new handle", is_full)
        return handle

    def _set_up(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(self._handle, *arguments)
        if status:
            raise _error(name, status, f"in a new handle with a workspace of {WORKSPACE_BYTES:,} bytes")


class _Cublas:
    """The library and what is asked of CuPy at every product."""

    def __init__(self) -> None:
        import cupy

        self.cupy: Any = cupy
        self.ndarray: type = cupy.ndarray
        self.get_stream = cupy.cuda.get_current_stream
        self.get_device = cupy.cuda.runtime.getDevice
        self.library = load(cupy)
        self.contexts: dict[tuple[int, int, int], Context] = {}
        self.lock = threading.Lock()


@functools.cache
def _cublas() -> _Cublas:
    return _Cublas()


def _allocate(cupy: Any, size: int) -> Any:
    """Return device memory that no pool holds; where none is left, CuPy's pool lets go of what it holds idle.

    Raises:
        MemoryError: CuPy's own, if that is not enough.
    """
    out_of_memory, pool = cupy.cuda.runtime.CUDARuntimeError, cupy.get_default_memory_pool()
    for is_last in (False, True):
        try:
            return cupy.cuda.Memory(size)
        except out_of_memory as error:
            if error.status != _OUT_OF_MEMORY:
                raise
            if is_last:
                raise cupy.cuda.memory.OutOfMemoryError(size, pool.total_bytes()) from error
            pool.free_all_blocks()
    raise AssertionError  # not reached


@functools.lru_cache(maxsize=64)
def _scalar(value: float, kind: str) -> Any:
    """Return a pointer to a number on the host, which cuBLAS reads at the call."""
    return ctypes.byref(ctypes.c_double(value) if kind == "d" else ctypes.c_float(value))


def _described(plan: Plan, beta: float) -> str:
    n, m, k = plan.sizes
    products = f"{plan.matrices} products " if plan.matrices > 1 else ""
    kinds = f"{numpy.dtype(plan.kind)} into {numpy.dtype(plan.dtype)}"
    right, left, out = plan.leading
    leading = f"leading dimensions {left}, {right} and {out}"
    return f"for {products}({m}, {k}) @ ({k}, {n}) of {kinds}, beta {beta}, {leading}"


def _error(name: str, status: int, what: str, is_full: bool = False) -> Exception:
    text = f"{name} failed with {_STATUS.get(status, 'an unknown status')} ({status}) {what}"
    return memory.exhausted(text) if is_full or status == _ALLOCATION_FAILED else BlasError(text, status)
