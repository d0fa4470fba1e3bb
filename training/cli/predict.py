"""``xpnet predict``: what a trained model sees in image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.cli.common import (
    UserError,
    choose_compute,
    device_option,
    find_model,
    in_words,
    run_option,
    threads_option,
    user_errors,
)
from training.console import printable
from training.files import json_text

if TYPE_CHECKING:
    from training.network import Network


@click.command("predict")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@run_option
@click.option("--top", type=click.IntRange(min=1), default=1, help="How many classes to name, the likeliest first.")
@device_option
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image.")
@click.pass_context
def command(
    context: click.Context,
    images: tuple[Path, ...],
    run: Path | None,
    top: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Classify image files: PNG, JPEG and others, of any size, dark on bright or bright on dark.

    Each gets a line with its class and the class's probability.
    """
    from training.run_folder import load_network

    file = find_model(run)
    choose_compute(device, threads)
    with user_errors():
        if file.suffix == ".npz":
            raise ValueError(f"{file} does not say which model it is; predict needs a run or a .safetensors file")
        network = load_network(file)
        try:
            classify = Classifier(network)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    failed = False
    for image in images:
        try:
            ranking = classify(image)[:top]
        except (OSError, ValueError) as error:
            failed = True
            click.echo(f"Error: {in_words(error)}", err=True)
            continue
        if as_json:
            classes = [{"class": label, "probability": probability} for label, probability in ranking]
            click.echo(json_text.dump({"image": click.format_filename(image), **classes[0], "top": classes}))
        else:
            answers = "   ".join(f"{printable(label)} {100 * probability:.2f} %" for label, probability in ranking)
            click.echo(f"{printable(image)}: {answers}")
    if failed:
        context.exit(UserError.exit_code)


class Classifier:
    """From an image file to the classes with their probabilities, the likeliest first.

    Raises:
        ValueError: the network takes no grey images, its file does not say of what size, or it has a parameter that is
            not finite; of a call, the network's scores are not finite.
    """

    def __init__(self, network: Network) -> None:
        from training.images import FASHION_MNIST, MNIST
        from training.non_finite import in_parameters

        if found := in_parameters(network):
            raise ValueError(f"the model cannot classify: {found}")
        config = network.config or {}
        shape = tuple(config.get("input_dim", network.input_dim))
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(f"the model takes {shape}; image files are made into grey images (1, H, W)")
        self._network = network
        self._size = shape[1:]
        self._framing = FASHION_MNIST if config.get("dataset") == "fashion-mnist" else MNIST
        self._names = config.get("classes") or [str(label) for label in range(network.classes)]

    def __call__(self, file: Path) -> list[tuple[str, float]]:
        from numpy import isfinite

        from backend import asarray, asnumpy
        from layers import softmax
        from training.images import load_image

        image = load_image(file, self._size, self._framing)
        probabilities = asnumpy(softmax(self._network.predict(asarray(image[None]))))[0]
        if not isfinite(probabilities).all():
            raise ValueError(f"{file}: the model's scores are not finite, though its parameters are: they overflow")
        order = (-probabilities).argsort(kind="stable")
        return [(self._names[label], float(probabilities[label])) for label in order]
