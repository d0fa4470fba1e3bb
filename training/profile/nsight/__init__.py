"""A training run under NVIDIA's profilers: the kernels of each layer in each phase, with their time and bytes.

``run`` starts a command under Nsight Systems (``nsys``: times, at the run's own speed) or Nsight Compute (``ncu``:
bytes and shares of the peak, too, from the GPU's counters, each kernel alone and repeated), reads the tool's export and
returns rows; ``table`` formats them. The command calls cudaProfilerStart and cudaProfilerStop around the steps to
profile, and marks what it does by push/pop ranges in the NVTX domain ``xpnet`` (``backend.profiling``).

Written from NVIDIA's documentation of 2025. The part for ncu has been run on an H200, with Nsight Compute 2025.3; that
for nsys has not been run with the tool yet.
"""

from training.profile.nsight.report import table
from training.profile.nsight.rows import KernelRow, ToolError
from training.profile.nsight.tools import REPLACED, SUCCESSORS, choose, report_file, run

__all__ = ["REPLACED", "SUCCESSORS", "KernelRow", "ToolError", "choose", "report_file", "run", "table"]
