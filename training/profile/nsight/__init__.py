"""A training run under NVIDIA's profilers: which kernels each layer launches in each phase, and what they cost.

``run`` starts a command under Nsight Systems (``nsys``: times, at a run's own speed) or Nsight Compute (``ncu``: bytes
and shares of the peak too, from the GPU's counters, each kernel alone and repeated), reads what the tool exports and
gives rows; ``table`` prints them. The command calls cudaProfilerStart and cudaProfilerStop around the steps to look at,
and names what it does by push/pop ranges in the NVTX domain ``xpnet`` (``backend.profiling``).

Written from the documentation, without a GPU: the command lines of Nsight Systems 2025 (user guide, "CLI Profile
Command Switch Options" and "CLI Stats Command Switch Options") and Nsight Compute 2025 ("Command Line Options"), and
the formats that ``systems`` and ``compute`` describe.
"""

from training.profile.nsight.errors import ToolError
from training.profile.nsight.report import table
from training.profile.nsight.rows import Row
from training.profile.nsight.tools import REPLACED, SUCCESSORS, choose, report_file, run

__all__ = ["REPLACED", "SUCCESSORS", "Row", "ToolError", "choose", "report_file", "run", "table"]
