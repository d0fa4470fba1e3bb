"""Read MNIST as in *Deep Learning from Scratch*, chapter 3: files, conversion steps, cache, and load_mnist.

First, step by step, how a downloaded file becomes the array that a network takes, on the 10,000 digits that come with
xpnet: gzip to IDX, IDX to uint8, pixels to float32, images to rows, labels to one-hot rows. The cache is the unpacked
IDX file, which a download leaves: reading it needs no conversion, and unlike a pickle it holds numbers only. Then it
shows what ``load_mnist`` returns for each of its options.

    python -m examples.mnist_reader
"""

from __future__ import annotations

import gzip
import importlib.resources
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from backend import asnumpy
from backend.types import Array
from examples.common import option, out_option, prepare, save_plot
from training.cli.common import data_dir_option, device_option, user_errors
from training.cli.data_options import DATASET
from training.data import load_mnist, read_idx, write_idx
from training.loop.figures import blank, mosaic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EMBEDDED = importlib.resources.files("training.data") / "embedded"
OPTIONS: tuple[dict[str, bool], ...] = ({}, {"flatten": False}, {"normalize": False}, {"one_hot_label": True})
"""Arguments of ``load_mnist``, one option at a time."""
TEXT_SHAPES = ("(60000, 784)", "(60000,)", "(10000, 784)", "(10000,)")
TEXT_FIRST_LABEL = 5


def conversion_steps() -> dict[str, Any]:
    """Return the result of every step from the training files in the package to a network's input, by name, in
    order."""
    images_file, labels_file = (EMBEDDED / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    steps: dict[str, Any] = {"gzip file": images_file.read_bytes()}
    steps["IDX file"] = content = gzip.decompress(steps["gzip file"])
    steps["its header"] = content[:16]
    steps["array"] = images = np.frombuffer(content, np.uint8, offset=16).reshape(np.frombuffer(content[4:16], ">u4"))
    steps["with a channel"] = images[:, None]
    steps["normalize"] = normalized = images[:, None].astype(np.float32) / 255
    steps["flatten"] = normalized.reshape(len(images), -1)
    steps["labels"] = labels = read_idx(labels_file, 1)
    steps["one_hot_label"] = np.eye(10, dtype=np.float32)[labels]
    return steps


def cache_round_trip(folder: Path) -> tuple[bool, float, float]:
    """Read the package's gzipped training images, write the cache into ``folder``, and read the cache.

    Returns:
        Whether the cache gives the same array, and the seconds that each reading took.
    """
    packed, cache = EMBEDDED / "train-images-idx3-ubyte.gz", folder / "train-images-idx3-ubyte"
    start = time.perf_counter()
    images = read_idx(packed, 3)
    unpacked = time.perf_counter()
    write_idx(cache, images)
    written = time.perf_counter()
    again = read_idx(cache, 3)
    end = time.perf_counter()
    return np.array_equal(images, again), unpacked - start, end - written


def summary(array: Array) -> str:
    """Return a text with the shape, dtype and range of an array, or the length and first bytes of a file's content."""
    if isinstance(array, bytes):
        return f"{len(array):,} bytes: {array[:16].hex(' ', 4)}{' ...' if len(array) > 16 else ''}"
    return f"{array.shape!s:18} {array.dtype!s:8} {float(array.min()):g} ... {float(array.max()):g}"


def plot(images: np.ndarray) -> Figure:
    """Return a figure of images (N, H, W), ten in a row."""
    figure = blank(6, 6)
    axes = figure.subplots()
    axes.imshow(mosaic(images, columns=10), cmap="gray", interpolation="nearest")
    axes.set_axis_off()
    return figure


@click.command()
@option("--dataset", type=DATASET, default="mnist", help="What load_mnist reads.")
@data_dir_option
@out_option("mnist_reader")
@device_option
def main(dataset: str, data_dir: Path | None, out: Path, device: str) -> None:
    """Show how MNIST's files become arrays, and what load_mnist returns."""
    prepare(device, out)
    click.echo("10,000 training images, from the file to the network:")
    for name, result in conversion_steps().items():
        click.echo(f"  {name:16}{summary(result)}")
    with tempfile.TemporaryDirectory() as folder:
        same, unpacking, reading = cache_round_trip(Path(folder))
    click.echo(f"  {'cache':16}the same: {same}; read in {1000 * reading:.1f} ms, gzipped {1000 * unpacking:.1f} ms")
    for options in OPTIONS:
        with user_errors():
            train, test = load_mnist(**options, dataset=dataset, data_dir=data_dir)
        if not options:
            _compare((*train, *test), dataset)
            digits = asnumpy(train[0][:100]).reshape(-1, 28, 28)
        words = ", ".join(f"{name}={value}" for name, value in options.items())
        click.echo(f"  {words or 'the default':20}{summary(train[0]):46}{summary(train[1])}")
    save_plot(plot(digits), out)


def _compare(arrays: tuple[Array, ...], dataset: str) -> None:
    click.echo(f"\n{f'load_mnist, {dataset}:':38}{'ours':>14}{'text':>14}")
    for name, array, text in zip(("x_train", "t_train", "x_test", "t_test"), arrays, TEXT_SHAPES, strict=True):
        click.echo(f"  {name:36}{array.shape!s:>14}{text:>14}")
    click.echo(f"  {'label of the first training image':36}{int(arrays[1][0]):>14}{TEXT_FIRST_LABEL:>14}")
    click.echo("\nx_train and t_train by option:")


if __name__ == "__main__":
    main()
