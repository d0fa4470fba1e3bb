"""``python -m bench kernels``: time every kernel on a GPU, compared with the least bytes that it has to move."""
