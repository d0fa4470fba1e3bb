"""Put CuPy's cache of compiled kernels into a test's folder, and list what another process with it compiles.

The folder is set in CuPy itself: an emulated device ignores CUPY_CACHE_DIR.
"""

import json

from tests.support.fresh import fresh

_PROGRAM = """
import sys
import backend
from kernels.col2im import col2im
from kernels.max_pooling import max_pool, max_pool_backward
from kernels.core.window import Window
assert "cupy" not in sys.modules, "importing kernels touched CuPy"
import cupy, json, re
compiler, compiled = cupy.cuda.compiler, []
compiler._set_kernel_cache_backend(type(compiler._kernel_cache_backend)({folder!r}))
right = compiler._NVRTCProgram.compile

def compile(program, *arguments):
    if program.src:  # CuPy compiles an empty text for the version of the compiler
        files = re.findall(r'#line 1 "(.*)"', program.src)
        compiled.append(files[-1] if files else "made by CuPy")
    return right(program, *arguments)

compiler._NVRTCProgram.compile = compile
with backend.use("cuda"):
    window = Window(2)
    image = col2im(cupy.ones((4, 4), "float32"), (1, 1, 3, 3), window)
    y, argmax = max_pool(image, window)
    max_pool_backward(y, argmax, image.shape, window)
print(json.dumps(compiled))
"""


def cache_of(folder):
    """Return a cache in a folder, of the class of CuPy's present one."""
    from cupy.cuda import compiler

    return type(compiler._kernel_cache_backend)(str(folder))


def compiled_in_a_new_process(folder):
    """Return what a process compiles that launches one kernel of col2im.cu and two of pooling.cu: names of ``.cu``
    files, and "made by CuPy" for CuPy's own kernels and for our elementwise ones."""
    return json.loads(fresh(_PROGRAM.format(folder=str(folder)), XPNET_DEVICE="cpu"))
