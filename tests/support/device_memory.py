"""The most memory of a GPU that CuPy's arrays take at once."""


def peak_bytes():
    """Return a context in whose ``most`` are the bytes that arrays made inside it took at once, so far."""
    import cupy

    class Peak(cupy.cuda.MemoryHook):
        name = "peak"

        def __init__(self):
            super().__init__()
            self.sizes, self.most = {}, 0

        def malloc_postprocess(self, **block):
            self.sizes[block["pmem_id"]] = block["size"]
            self.most = max(self.most, sum(self.sizes.values()))

        def free_postprocess(self, **block):
            self.sizes.pop(block["pmem_id"], None)

    return Peak()
