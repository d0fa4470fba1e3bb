"""A training step, layer by layer: where the time goes.

Every sample is one whole step; the table shows medians, so one disturbed step does not show. On a GPU each layer is
waited for, which the training loop does not do: there the sum is more than a step takes.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

import click
import numpy as np

from backend import asarray, current_device, random, synchronize, threads
from training.cli.common import choose_compute
from training.models import MODELS, build
from training.network import Network
from training.optimizers import Adam

ARGUMENTS = {
    "TwoLayerNet": {"input_size": 784, "hidden_size": 50, "output_size": 10},
    "MultiLayerNet": {"input_size": 784, "hidden_size_list": [512, 512], "output_size": 10},
}
WARM_UP = 3


@click.command("layers")
@click.option("--model", type=click.Choice(list(MODELS)), default="ConvNet", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=100, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=30, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", "thread_count", type=click.IntRange(1), help="All cores where not given.")
def by_layer(model: str, batch_size: int, steps: int, device: str, thread_count: int | None) -> None:
    """Time a training step of xpnet on random images, by layer and phase."""
    choose_compute(device, thread_count)
    network = build({"model": model, "arguments": ARGUMENTS.get(model, {})})
    x = random.uniform((batch_size, *network.input_dim))
    t = asarray(np.arange(batch_size, dtype="int32") % network.classes)
    optimizer = Adam()
    with threads.single_threaded_blas():  # as the training loop does
        samples = [_step(network, optimizer, x, t) for _ in range(steps + WARM_UP)][WARM_UP:]
    _report(model, batch_size, {name: statistics.median(s[name] for s in samples) for name in samples[0]})


def _step(network: Network, optimizer: Adam, x: Any, t: Any) -> dict[tuple[str, str], float]:
    """Seconds of one step by (layer, phase)."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)

    def timed(name: str, phase: str, function: Any, *arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
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


def _report(model: str, batch_size: int, seconds: dict[tuple[str, str], float]) -> None:
    total = sum(seconds.values())
    names = list(dict.fromkeys(name for name, _ in seconds))
    click.echo(f"{model}, batch {batch_size}, {current_device()}, {threads.limit()} thread(s)")
    click.echo(f"{'layer':<24}{'forward ms':>12}{'backward ms':>13}{'update ms':>11}{'share':>8}")
    for name in names:
        phases = [seconds.get((name, phase), 0.0) for phase in ("forward", "backward", "update")]
        cells = [f"{1e3 * s:.3f}" if s else "" for s in phases]
        click.echo(f"{name:<24}{cells[0]:>12}{cells[1]:>13}{cells[2]:>11}{sum(phases) / total:>8.1%}")
    click.echo(f"{'step':<24}{1e3 * total:>12.3f} ms = {batch_size / total:,.0f} images/s")
