"""``python -m bench``: a training step, layer by layer.

Every sample is one whole step; the table shows medians, so one disturbed step does not show. On a GPU each layer is
waited for, which the training loop does not do: there the sum is more than a step takes.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict

import click
import numpy as np

from backend import asarray, current_device, random, synchronize, threads, use
from training.models import MODELS, build
from training.network import Network
from training.optimizers import Adam

ARGUMENTS = {
    "TwoLayerNet": {"input_size": 784, "hidden_size": 50, "output_size": 10},
    "MultiLayerNet": {"input_size": 784, "hidden_size_list": [512, 512], "output_size": 10},
}


@click.command()
@click.option("--model", type=click.Choice(list(MODELS)), default="ConvNet", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=100, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=30, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", "thread_count", type=click.IntRange(1), help="All cores where not given.")
def main(model: str, batch_size: int, steps: int, device: str, thread_count: int | None) -> None:
    """Times a training step of MODEL on random images, by layer and phase."""
    use(device)
    if thread_count:
        threads.set_limit(thread_count)
    network = build({"model": model, "arguments": ARGUMENTS.get(model, {})})
    x = random.uniform((batch_size, *network.input_dim))
    t = asarray(np.arange(batch_size, dtype="int32") % network.classes)
    optimizer = Adam()
    with threads.single_threaded_blas():  # as the training loop does
        samples = [time_step(network, optimizer, x, t) for _ in range(steps + 3)][3:]
    report(model, batch_size, {name: statistics.median(s[name] for s in samples) for name in samples[0]})


def time_step(network: Network, optimizer: Adam, x: object, t: object) -> dict[tuple[str, str], float]:
    """Seconds of one step by (layer, phase)."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)

    def timed(name: str, phase: str, function, *args):
        start = time.perf_counter()
        result = function(*args)
        synchronize()
        seconds[name, phase] = time.perf_counter() - start
        return result

    y = x
    for name, layer in network.layers.layers.items():
        y = timed(name, "forward", layer.forward, y)
    timed("loss", "forward", network.last_layer.forward, y, t)
    gradient = timed("loss", "backward", network.last_layer.backward)
    for name, layer in reversed(network.layers.layers.items()):
        gradient = timed(name, "backward", layer.backward, gradient)
    timed("optimizer", "update", optimizer.update, network.params, network.grads)
    return seconds


def report(model: str, batch_size: int, seconds: dict[tuple[str, str], float]) -> None:
    """Prints the table."""
    total = sum(seconds.values())
    names = list(dict.fromkeys(name for name, _ in seconds))
    print(f"{model}, batch {batch_size}, {current_device()}, {threads.limit()} thread(s)")
    print(f"{'layer':<24}{'forward ms':>12}{'backward ms':>13}{'update ms':>11}{'share':>8}")
    for name in names:
        phases = [seconds.get((name, phase), 0.0) for phase in ("forward", "backward", "update")]
        cells = [f"{1e3 * s:.3f}" if s else "" for s in phases]
        print(f"{name:<24}{cells[0]:>12}{cells[1]:>13}{cells[2]:>11}{sum(phases) / total:>8.1%}")
    print(f"{'step':<24}{1e3 * total:>12.3f} ms = {batch_size / total:,.0f} images/s")


if __name__ == "__main__":
    main()
