"""``xpnet predict``: classify image files with a trained model."""

from __future__ import annotations

from pathlib import Path

import click
from numpy import isfinite

from backend import asarray, asnumpy
from layers import softmax
from training.cli.common import (
    UserError,
    choose_compute,
    count_from,
    device_option,
    in_words,
    run_option,
    threads_option,
    user_errors,
)
from training.cli.inputs import find_model
from training.data.pictures import ImageError, Preparation, read_picture
from training.files import json_text
from training.files.printable import printable
from training.loop.non_finite import in_parameters
from training.loop.recipe import normalization_of
from training.models import Network
from training.models.loading import load_network


@click.command("predict")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@run_option
@click.option("--top", type=count_from(1), default=1, help="How many classes to name, the likeliest first.")
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
    """Classify image files: PNG, JPEG, BMP, GIF, WebP and TIFF, of any size.

    Each gets a line with its class, the class's probability and, where the picture does not look like the training
    images, a warning. Pictures are prepared as the model's training images were: for digits the figure is looked for,
    dark on bright or bright on dark, whatever the light; for images of your own they are only brought to size.
    """
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
    if classify.preparation.name == "none" and not as_json:
        size = "x".join(map(str, classify.preparation.shape[1:]))
        click.echo(f"Note: the model knows no preparation of its pictures; they are only resized to {size}", err=True)
    failed = False
    for image in images:
        try:
            ranking, warnings = classify(image)
        except (OSError, ValueError) as error:
            failed = True
            click.echo(f"Error: {in_words(error)}", err=True)
            continue
        if as_json:
            classes = [{"class": label, "probability": probability} for label, probability in ranking[:top]]
            name, how = click.format_filename(image), classify.preparation.name
            more = {"top": classes, "warnings": warnings, "preparation": how}
            click.echo(json_text.dump({"image": name, **classes[0], **more}))
        else:
            shares = [f"{printable(label)} {100 * probability:.2f} %" for label, probability in ranking[:top]]
            warning = f"   WARNING: {', '.join(warnings)}" if warnings else ""
            click.echo(f"{printable(image)}: {'   '.join(shares)}{warning}")
    if failed:
        context.exit(UserError.exit_code)


class Classifier:
    """Maps an image file to the classes with their probabilities, the likeliest first, and warnings.

    Attributes:
        preparation: how pictures are made into the network's input.

    Raises:
        ValueError: the network takes no pictures, its file does not say of what size or says it wrongly, or it has a
            parameter that is not finite; of a call, the picture cannot be used or the network's scores are not finite.
    """

    def __init__(self, network: Network) -> None:
        if found := in_parameters(network):
            raise ValueError(f"the model cannot classify: {found}")
        config = network.config or {}
        self.preparation = Preparation.from_config(config, tuple(config.get("input_dim", network.input_dim)))
        self._normalization = normalization_of(network)
        self._network = network
        self._names = config.get("classes") or [str(label) for label in range(network.classes)]

    def __call__(self, file: Path) -> tuple[list[tuple[str, float]], list[str]]:
        picture = read_picture(file)
        try:
            prepared = self.preparation(picture)
        except ImageError as error:
            raise ImageError(f"{printable(file)}: {error}") from error
        image = prepared.image
        if self._normalization is not None:
            image = self._normalization.apply(image.transpose(1, 2, 0)).transpose(2, 0, 1)
        probabilities = asnumpy(softmax(self._network.predict(asarray(image[None]))))[0]
        if not isfinite(probabilities).all():
            raise ValueError(f"{file}: the model's scores are not finite, though its parameters are: they overflow")
        order = (-probabilities).argsort(kind="stable")
        return [(self._names[label], float(probabilities[label])) for label in order], list(prepared.warnings)
