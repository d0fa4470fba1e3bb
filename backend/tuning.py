"""Constants that were found by measuring, each with its reason.

Measured in 2026 on two cores of a 2.6 GHz Xeon with AVX-512, NumPy 2 and its OpenBLAS, unless a comment says otherwise.
Results have the same bits for any number of threads; where a constant decides how a sum is cut, changing it changes the
last bits. The constants of matrix products are in ``kernels.gemm``, next to the code that they steer.
"""

from __future__ import annotations

COLUMN_BYTES = {"numpy": 1 << 22, "cupy": 1 << 28}
"""The most that what is made of one part of a batch may take.

That is the columns of a convolution on a GPU, the patches of Winograd's, and the sums of a depthwise one without C. On
the CPU it is little enough to stay near a core's L2 cache, and enough for a product to be worth handing to a thread; a
GPU wants few, large launches.
"""

WORTH_HALVING = 1 << 20
"""Bytes made of a part of a batch that pay for making two parts of it. It decides how sums are cut."""

WORTH_CUTTING = 1 << 18
"""Bytes that a C kernel reads and writes, some 10 µs of work, which pay for handing a piece to another thread."""

PRODUCTS_PER_BYTE = 4
"""Products that a C kernel makes in about the time in which it reads or writes a byte of memory."""

PARTIAL_SUM_BYTES = 16 << 20
"""The most that all partial sums of one result may take."""

SMALL_BYTES = 1 << 16
"""Smaller arrays are not pooled: below this the allocator's own cache is warm, and a look into the pool costs more."""

POOL_SLACK = 3
"""A pooled buffer is handed out for arrays of at least a third of its size: layers of different sizes then share
scratch memory."""

POOL_IDLE_BYTES = 1 << 30
"""Bytes of idle pooled buffers that are kept; beyond it the oldest are freed."""

POOL_TRIM_EVERY = 256
"""Requests between two looks at all pooled buffers, which cost some microseconds."""
