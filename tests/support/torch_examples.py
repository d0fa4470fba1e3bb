"""Small networks of which tests/training/interop/torch has what PyTorch computes, for tests without PyTorch.

    PYTHONPATH=. python -m tests.support.torch_examples

writes that file again, with PyTorch: weights and batches are drawn anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from layers import (
    GRU,
    LSTM,
    Affine,
    BatchNormalization,
    Convolution,
    Embedding,
    Pooling,
    PositionwiseAffine,
    Relu,
    Residual,
    Sequential,
)
from training.models import Network
from training.models.outputs import places_in
from training.zoo.transformer import vision_transformer

FILE = Path(__file__).parents[1] / "training" / "interop" / "torch" / "examples.npz"
STEPS, SAMPLES = 5, 8
RATES = {"images": 0.02, "sequences": 0.2, "attention": 0.1}
"""Learning rates at which every array moves far more than it may differ, and rounding grows little."""


def conv_norm(channels, filters):
    return [Convolution.of(channels, filters, 3, pad=1, bias=False), BatchNormalization.of(filters)]


def of_images():
    residual = Residual(Sequential(*conv_norm(6, 6), Relu(), *conv_norm(6, 6)))
    layers = *conv_norm(3, 6), Relu(), Pooling(2, 2, stride=2), residual, Relu(), Affine.of(6 * 4 * 4, 5)
    return Network(Sequential(*layers), (3, 8, 8))


def of_sequences():
    layers = Embedding.of(11, 6), LSTM.of(6, 8), GRU.of(8, 8), PositionwiseAffine.of(8, 5)
    return Network(Sequential(*layers), (7,))


def of_attention():
    return Network(vision_transformer(1, 8, 2, 12, (3, 8, 8), 5), (3, 8, 8))


NETWORKS: dict[str, Callable[[], Network]] = {
    "images": of_images,
    "sequences": of_sequences,
    "attention": of_attention,
}
"""Functions that make the networks, for a state of PyTorch's."""


def read(name):
    """Return what the file has of a network.

    Returns:
        Arrays by name: x and t, batches of ``STEPS`` steps of SGD with momentum 0.9, and x has one more; ``scores`` of
        that one before the steps and ``trained_scores`` after them, in evaluation; and the dictionaries ``before`` and
        ``after``, each a state of PyTorch's.
    """
    with np.load(FILE, allow_pickle=False) as file:
        found = {key.partition("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/")}
    states = {
        which: {key.removeprefix(f"{which}/"): found[key] for key in found if key.startswith(f"{which}/")}
        for which in ("before", "after")
    }
    return {key: array for key, array in found.items() if "/" not in key} | states


def batch(network, samples, seed, dtype="float32"):
    """Return random samples and labels that a network takes."""
    rng = np.random.default_rng(seed)
    shape = samples, *network.input_dim
    x = rng.integers(0, network.index_count, shape) if network.takes_indices else rng.standard_normal(shape, dtype)
    return x, rng.integers(0, network.classes, (samples, *places_in(network.output_dim)))


def assert_near(found, expected, tolerance):
    """Compare with the largest number expected, or 1."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert float(abs(found - expected).max()) <= tolerance * max(1, float(abs(expected).max()))


def compute(name, before, x, t):
    """Return what PyTorch computes of a network with a state, as ``read`` does, without x, t and ``before``."""
    import torch

    from tests.support import torch_sequence_twins, torch_twins

    twins = {
        "images": torch_twins.of_images,
        "sequences": lambda: torch_sequence_twins.recurrent(11, 6, 8, 5),
        "attention": lambda: torch_sequence_twins.vision_transformer(1, 8, 2, 12, 4, 5),
    }
    torch.set_num_threads(1)
    twin = twins[name]()
    if before:
        twin.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in before.items()})
    else:
        torch_twins.renewed(twin)
    found = {"before": {key: tensor.numpy().copy() for key, tensor in twin.state_dict().items()}}
    found["scores"] = torch_twins.scores(twin, x[-1])
    torch_twins.take_steps(twin, zip(x[:-1], t, strict=True), RATES[name])
    found["after"] = {key: tensor.numpy().copy() for key, tensor in twin.state_dict().items()}
    found["trained_scores"] = torch_twins.scores(twin, x[-1])
    return found


def main():
    import torch

    torch.manual_seed(0)
    kept: dict[str, Any] = {}
    for name, make in NETWORKS.items():
        batches = [batch(make(), SAMPLES, seed) for seed in range(STEPS + 1)]
        x, t = (np.stack(arrays) for arrays in zip(*batches, strict=True))
        x = x if x.dtype.kind == "i" else (x * 16).round() / 16  # of few different numbers, which fill less
        t = t[:-1]
        found = compute(name, None, x, t)
        states = {f"{which}/{key}": array for which in ("before", "after") for key, array in found.pop(which).items()}
        kept |= {f"{name}/{key}": array for key, array in ({"x": x, "t": t} | found | states).items()}
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **kept)


if __name__ == "__main__":
    main()
