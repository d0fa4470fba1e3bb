"""One operation a file, over NumPy or CuPy arrays in channels-last memory; see ``kernels.core.layout``."""
