"""Compile CUDA source for the active device."""

from __future__ import annotations

from typing import Any


class KernelError(RuntimeError):
    """A kernel that does not compile or cannot be built here; the message quotes the compiler."""


def compiled(code: str, name: str, described: str) -> Any:
    """Return the kernel ``name`` of a text, compiled, as CuPy's RawKernel; CuPy keeps the result on disk.

    CuPy compiles and loads a text once: all kernels of a file have one text, so only the first compiles.

    Args:
        code: CUDA source that includes nothing.
        name: of the function in it.
        described: the file and what it is compiled for, for errors.

    Raises:
        KernelError: it does not compile, or the compiler is missing.
    """
    import cupy

    kernel = cupy.RawKernel(code, name)
    try:
        kernel.compile()
    except cupy.cuda.compiler.CompileException as error:
        raise KernelError(f"kernel {name} in {described} does not compile:\n{error}") from error
    except (ImportError, RuntimeError) as error:
        if hasattr(error, "status"):  # an error of the driver
            raise
        where = f"kernel {name} in {described} cannot be compiled here"
        raise KernelError(f"{where}: {error}; xpnet devices says what to install") from error
    return kernel
