"""Published peak rates of GPUs, and the least time for some work by the roofline model.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures" (CACM
52(4), 2009). Rates are NVIDIA's own, for dense matrices (data sheets from A100 on print twice as much, "with
sparsity"), with float32 sums where a data sheet has two rates for float16:

========== =================================================================================================
T4         "NVIDIA T4 Tensor Core GPU" data sheet (2019)
V100       "NVIDIA V100 Tensor Core GPU" data sheet (January 2020), SXM2
RTX 3090   "NVIDIA Ampere GA102 GPU Architecture" whitepaper V2.0 (2021), appendix A
A100-80GB  "NVIDIA A100 Tensor Core GPU" data sheet (June 2021), SXM
RTX 4090   "NVIDIA Ada GPU Architecture" whitepaper V2.01 (2023), appendix A
L4         "NVIDIA L4 Tensor Core GPU" data sheet (2023)
L40S       "NVIDIA L40S" data sheet (2023)
H100       "NVIDIA H100 Tensor Core GPU" data sheet (2023), SXM and PCIe
H200       "NVIDIA H200 Tensor Core GPU" data sheet (2024), SXM
B200       "NVIDIA Blackwell" data sheet (2025), each GPU of an HGX B200
========== =================================================================================================
"""

from __future__ import annotations

from typing import NamedTuple

from training.profile.cost.work import Work


class Gpu(NamedTuple):
    """A GPU's peak rates.

    Attributes:
        title: its name.
        float32: operations a second outside of tensor cores.
        tf32: of matrix products of float32 rounded to TF32, in tensor cores; ``float32`` where there are none.
        float16: of matrix products of float16 summed in float32, in tensor cores.
        bandwidth: of its memory, bytes a second.
        capability: its compute capability, 80 for 8.0.
    """

    title: str
    float32: float
    tf32: float
    float16: float
    bandwidth: float
    capability: int

    def seconds(self, work: Work, precision: str) -> float:
        """Return the least seconds for some work: those of its operations or those of its bytes, whichever is longer.

        Args:
            precision: one of ``training.optim.NAMES``; only matrix products are done in it, the rest in float32.
        """
        products = {"fp32": self.float32, "tf32": self.tf32, "fp16": self.float16}[precision]
        computing = work.product_flops / products + work.other_flops / self.float32
        return max(computing, work.nbytes / self.bandwidth)


def _gpu(title: str, float32: float, tf32: float, float16: float, bandwidth: float, capability: int) -> Gpu:
    """Build from TFLOP/s and GB/s, the units of data sheets."""
    return Gpu(title, float32 * 1e12, tf32 * 1e12, float16 * 1e12, bandwidth * 1e9, capability)


GPUS = {
    "t4": _gpu("NVIDIA T4", 8.1, 8.1, 65, 300, 75),
    "v100": _gpu("NVIDIA V100 SXM2", 15.7, 15.7, 125, 900, 70),
    "rtx3090": _gpu("NVIDIA GeForce RTX 3090", 35.6, 35.6, 71, 936, 86),
    "rtx4090": _gpu("NVIDIA GeForce RTX 4090", 82.6, 82.6, 165.2, 1008, 89),
    "a100": _gpu("NVIDIA A100 SXM 80 GB", 19.5, 156, 312, 2039, 80),
    "l4": _gpu("NVIDIA L4", 30.3, 60, 121, 300, 89),
    "l40s": _gpu("NVIDIA L40S", 91.6, 183, 362.05, 864, 89),
    "h100": _gpu("NVIDIA H100 SXM", 67, 494.5, 989.5, 3350, 90),
    "h100-pcie": _gpu("NVIDIA H100 PCIe", 51, 378, 756.5, 2000, 90),
    "h200": _gpu("NVIDIA H200 SXM", 67, 494.5, 989.5, 4800, 90),
    "b200": _gpu("NVIDIA B200 (HGX)", 75, 1100, 2250, 7700, 100),
}
"""The GPUs by their usual short names."""


def named_like(name: str) -> Gpu | None:
    """Return the GPU that a driver calls ``name``, such as "NVIDIA H100 80GB HBM3"; None if it is not among ``GPUS``.

    Examples:
        >>> from training.profile.cost.gpus import named_like
        >>> named_like("NVIDIA H100 PCIe").title
        'NVIDIA H100 PCIe'
    """
    words = name.lower().replace("geforce rtx ", "rtx").replace("-", " ").split()
    fitting = [key for key in GPUS if all(part in words for part in key.split("-"))]
    return GPUS[max(fitting, key=len)] if fitting else None
