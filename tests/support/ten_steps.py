"""Make ten training steps of every model with every optimizer, and hash the final parameters and state.

As a program it prints the hashes and their environment as JSON. The last bits of a product depend on the
BLAS library and on the processor's kernels in it, so ``PINNED`` fixes both to kernels that every x86-64
processor with AVX2 can run, and computes by NumPy alone.
"""

import hashlib
import json
import platform

PINNED = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "XPNET_DEVICE": "cpu",
    "XPNET_THREADS": "1",
    "XPNET_NATIVE": "0",
}
STEPS, BATCH = 10, 20


def environment():
    """Return what the bits depend on: processor type, NumPy, and the BLAS library with its kernels."""
    import numpy
    import threadpoolctl

    blas = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
    used = ", ".join(f"{info['internal_api']} {info['version']} {info.get('architecture')}" for info in blas)
    return f"{platform.machine()}, numpy {numpy.__version__}, {used}"


def train(model, optimizer):
    """Return the hash after ten steps of the model with this name."""
    import backend
    from training.data import load
    from training.models import build
    from training.optim.optimizers import by_name

    digits = load("mnist10k")
    count = STEPS * BATCH
    images, labels = digits.train_images[:count].astype("float32") / 255, digits.train_labels[:count].astype("int32")
    backend.random.seed(0)
    sizes = {
        "TwoLayerNet": {"input_size": 784, "hidden_size": 30, "output_size": 10},
        "MultiLayerNet": {"input_size": 784, "hidden_size_list": [30, 20], "output_size": 10},
    }
    network = build({"model": model, "arguments": sizes.get(model, {})})
    stepper = by_name(optimizer)
    for first in range(0, count, BATCH):
        batch = slice(first, first + BATCH)
        stepper.update(network.params, network.gradient(images[batch], labels[batch]))
    arrays = {**network.params, **network.state}
    content = b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))
    return hashlib.sha256(content).hexdigest()[:16]


def main():
    """Print the environment, and the hash of each model and optimizer."""
    from training.models import MODELS
    from training.optim.optimizers import NAMES

    hashes = {f"{model}, {optimizer}": train(model, optimizer) for model in MODELS for optimizer in NAMES}
    print(json.dumps({"environment": environment(), "hashes": hashes}, indent=1))


if __name__ == "__main__":
    main()
