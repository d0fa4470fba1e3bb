"""The CUDA kernels as they stand in the ``.cu`` files, found by their declarations."""

from kernels.catalog import DTYPES, Variant, files, kernels_of, variants

__all__ = ["DTYPES", "Variant", "files", "kernels_of", "variants"]
