"""Show how initial weights shape the activations, from "Deep Learning from Scratch", chapter 6.

A thousand random samples of 100 numbers go through five affine layers of 100 units. With sigmoid and a standard
deviation of 1 the activations saturate at 0 and 1, where the gradient vanishes; with 0.01 all of them are 0.5, so that
the units are redundant; with Xavier's they stay spread out. With relu they shrink from layer to layer under Xavier's
initialization, but not under He's.

    python -m examples.activation_histograms
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy

from backend import asnumpy, random
from examples.common import out_option, prepare, save_plot
from layers import Affine, Relu, Sigmoid
from layers.initializers import Init
from training.cli.common import device_option
from training.loop.figures import QUIET_COLOUR, TEST_COLOUR, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES: dict[str, tuple[type, Init]] = {
    "sigmoid, std 1": (Sigmoid, 1.0),
    "sigmoid, std 0.01": (Sigmoid, 0.01),
    "sigmoid, Xavier": (Sigmoid, "xavier"),
    "relu, std 0.01": (Relu, 0.01),
    "relu, Xavier": (Relu, "xavier"),
    "relu, He": (Relu, "he"),
}


TOP = 15
"""Height at which bars are cut off, in %: next to a bar of 100 the others would be invisible."""


def activations(kind: type, init: Init, samples: int = 1000, units: int = 100, layers: int = 5) -> list[numpy.ndarray]:
    """Return the activations (samples, units) after each layer, on the host."""
    random.seed(0)
    x = random.normal((samples, units))
    found = []
    for _ in range(layers):
        x = kind().forward(Affine.of(units, units, init).forward(x))
        found.append(asnumpy(x))
    return found


def plot(found: dict[str, list[numpy.ndarray]]) -> Figure:
    """Return a row of histograms for each case, a column for each layer."""
    figure = blank(11, 1.7 * len(found) + 0.4)
    panels = figure.subplots(len(found), len(next(iter(found.values()))), sharex=True, sharey=True, squeeze=False)
    panels[0, 0].set_ylim(0, TOP)
    figure.suptitle(f"activations in 30 bins; bars end at {TOP} %", fontsize=10)
    for row, (name, layers) in zip(panels, found.items(), strict=True):
        for number, (axes, values) in enumerate(zip(row, layers, strict=True), 1):
            axes.hist(values.ravel(), bins=30, range=(0, 1), weights=numpy.full(values.size, 100 / values.size))
            axes.set_title(f"layer {number}: std {values.std():.2g}", fontsize=9, color=QUIET_COLOUR)
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"{name}\n% of activations", fontsize=9, color=TEST_COLOUR)
    for axes in panels[-1]:
        axes.set_xlabel("activation", fontsize=9)
    return figure


@click.command()
@out_option("activation_histograms")
@device_option
def main(out: Path, device: str) -> None:
    """Draw the activations of five layers for six choices of activation and initial weights."""
    prepare(device, out)
    found = {name: activations(*case) for name, case in CASES.items()}
    click.echo("standard deviation of the activations after layer 1 … 5")
    for name, layers in found.items():
        click.echo(f"  {name:<18}" + "".join(f"{values.std():10.2g}" for values in layers))
    save_plot(plot(found), out)


if __name__ == "__main__":
    main()
