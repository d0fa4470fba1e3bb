"""Count the bytes that each kernel of a training step moves on the emulated CUDA device, in two ways.

``requests``: 32 for each sector of each request of a warp, as often as it is asked for; caches serve most repeats.
``distinct``: 32 for each sector that a launch touches, once: what moves where caches serve all repeats within a launch,
and none from launch to launch. Products of cuBLAS count each operand once, copies are read and written, in both.
As a program in the device's COUNT mode this prints them as JSON, with the least bytes of the cost model.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import backend
from tests.support.fresh import counted
from training.models import DeepConvNet, build_for
from training.optim.optimizers import Adam, Momentum
from training.optim.update import Update
from training.profile.cost import cost_of_step
from training.profile.meter import example_batch

STEPS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "ResNet-20": (partial(build_for, "ResNet20", (3, 32, 32), 10), Momentum),
    "DeepConvNet": (DeepConvNet, Adam),
}
"""Networks and optimizers."""


def bytes_by_kernel(name, samples):
    """Return {"least": bytes of the cost model, "moved": {kernel: (requests, distinct)}} of a step, in a process of
    its own."""
    return json.loads(counted("step_bytes", name, str(samples)))


def main(name, samples):
    import cuda_on_cpu

    make_network, make_optimizer = STEPS[name]
    with backend.use("cuda"):
        network, optimizer = make_network(), make_optimizer()
        update = Update(optimizer)
        x, t = example_batch(network, int(samples))
        for _ in range(2):  # the first compiles, and makes what is kept from step to step
            cuda_on_cpu.reset()
            network.step_gradients(x, t)
            update.step(network.params, network.grads)
    counters, moved = cuda_on_cpu.counters(), {}
    for kernel, row in cuda_on_cpu.kernels().items():
        moved[kernel] = [
            32 * sum(row[f"{kind}_{way}"] for kind in ("load", "store", "atomic")) for way in ("sectors", "distinct")
        ]
    others = {
        "cuBLAS": counters["cublas_bytes"],
        "copies": 2 * counters["d2d_bytes"],
        "fills": counters["memset_bytes"],
    }
    moved |= {name: [nbytes, nbytes] for name, nbytes in others.items()}
    print(json.dumps({"least": cost_of_step(network, int(samples), optimizer).total.nbytes, "moved": moved}))


if __name__ == "__main__":
    main(*sys.argv[1:])
