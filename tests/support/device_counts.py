"""Counts of the emulated CUDA device for each layer and phase of a training step.

As a program in the device's COUNT mode it prints the bytes of networks as JSON.
"""

import json
import sys

import backend
from tests.support import networks
from tests.support.fresh import counted
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import Adam
from training.profile.meter import example_batch, readings_of_a_step

BATCH = 8


def launches():
    """Return kernels and cuBLAS products so far."""
    import cuda_on_cpu

    counters = cuda_on_cpu.counters()
    return counters["kernel_launches"] + counters["cublas_calls"]


def moved_bytes():
    """Return the bytes moved so far: 32 for each sector that a warp requested, and those of products, copies and
    fills."""
    import cuda_on_cpu

    counters = cuda_on_cpu.counters()
    sectors = sum(
        kernel[f"{kind}_sectors"] for kernel in cuda_on_cpu.kernels().values() for kind in ("load", "store", "atomic")
    )
    return 32 * sectors + counters["cublas_bytes"] + 2 * counters["d2d_bytes"] + counters["memset_bytes"]


def readings(network, samples, read):
    """Return a meter's readings of a step that is not the first, and the optimizer: everything is compiled and
    cached."""
    optimizer = Adam()
    scaler = LossScaler() if network.params.flat.dtype == "float16" else None
    readings_of_a_step(network, optimizer, *example_batch(network, 1), read, scaler)
    return readings_of_a_step(network, optimizer, *example_batch(network, samples), read, scaler), optimizer


def bytes_by_layer(*cases):
    """Return bytes that a step of each network moves, counted in a process for each: {case: {(layer, phase): bytes}}.

    A case is a network's name, a blank and a dtype.
    """
    found = json.loads(counted("device_counts", *cases))
    return {case: {tuple(place.split()): count for place, count in places.items()} for case, places in found.items()}


def main(*cases):
    found = {}
    with backend.use("cuda"):
        for case in cases:
            name, dtype = case.split()
            places, _ = readings(networks.NETWORKS[name]().astype(dtype), BATCH, moved_bytes)
            found[case] = {" ".join(place): count for place, count in places.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
