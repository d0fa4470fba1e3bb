"""A training step, layer by layer: where the time goes (``training.profile.layer_phases``)."""

from __future__ import annotations

import click

from backend import current_device, threads
from training.cli.common import choose_compute, count_from
from training.models import MODELS, build
from training.optim.optimizers import Adam
from training.profile.layer_phases import OPTIMIZER, example_batch, named_layers, seconds_of_a_step

ARGUMENTS = {
    "TwoLayerNet": {"input_size": 784, "hidden_size": 50, "output_size": 10},
    "MultiLayerNet": {"input_size": 784, "hidden_size_list": [512, 512], "output_size": 10},
}


@click.command("layers")
@click.option("--model", type=click.Choice(list(MODELS)), default="ConvNet", show_default=True)
@click.option("--batch-size", type=count_from(1), default=100, show_default=True)
@click.option("--steps", type=count_from(1), default=30, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", "thread_count", type=count_from(1), help="All cores where not given.")
def by_layer(model: str, batch_size: int, steps: int, device: str, thread_count: int | None) -> None:
    """Time a training step of xpnet on random images, by layer and phase."""
    choose_compute(device, thread_count)
    network = build({"model": model, "arguments": ARGUMENTS.get(model, {})})
    seconds = seconds_of_a_step(network, Adam(), *example_batch(network, batch_size), steps)
    _report(model, batch_size, [*(name for name, _ in named_layers(network)), OPTIMIZER], seconds)


def _report(model: str, batch_size: int, names: list[str], seconds: dict[tuple[str, str], float]) -> None:
    total = sum(seconds.values())
    click.echo(f"{model}, batch {batch_size}, {current_device()}, {threads.limit()} thread(s)")
    click.echo(f"{'layer':<24}{'forward ms':>12}{'backward ms':>13}{'update ms':>11}{'share':>8}")
    for name in names:
        phases = [seconds.get((name, phase), 0.0) for phase in ("forward", "backward", "update")]
        cells = [f"{1e3 * s:.3f}" if s else "" for s in phases]
        click.echo(f"{name:<24}{cells[0]:>12}{cells[1]:>13}{cells[2]:>11}{sum(phases) / total:>8.1%}")
    click.echo(f"{'step':<24}{1e3 * total:>12.3f} ms = {batch_size / total:,.0f} images/s")
