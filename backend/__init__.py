"""Choose the array library, NumPy or CuPy, and hide what differs between the two.

``xp`` is the active library; ``use`` chooses it. Nothing here touches a GPU, or imports CuPy, until the first array
is made.
"""

from backend import checks, memory, profiling, random, threads, workspace
from backend.active import allow_tf32, current_device, use, xp
from backend.arrays import (
    array_module,
    asarray,
    asnumpy,
    is_array,
    require_active,
    require_arrays,
    require_plain,
    require_same_device,
    synchronize,
)
from backend.devices import CudaReport, Device, DeviceError, inspect_cuda
from backend.foreign import from_dlpack
from backend.memory import OutOfMemoryError
from backend.transfer import DeviceCopy, HostCopy, copy_to_device, copy_to_host, empty_pinned

__all__ = [
    "CudaReport",
    "Device",
    "DeviceCopy",
    "DeviceError",
    "HostCopy",
    "OutOfMemoryError",
    "allow_tf32",
    "array_module",
    "asarray",
    "asnumpy",
    "checks",
    "copy_to_device",
    "copy_to_host",
    "current_device",
    "empty_pinned",
    "from_dlpack",
    "inspect_cuda",
    "is_array",
    "memory",
    "profiling",
    "random",
    "require_active",
    "require_arrays",
    "require_plain",
    "require_same_device",
    "synchronize",
    "threads",
    "use",
    "workspace",
    "xp",
]
