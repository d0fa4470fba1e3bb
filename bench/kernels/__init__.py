"""``python -m bench kernels``: every kernel on a GPU, by itself, against the least bytes that it has to move."""
