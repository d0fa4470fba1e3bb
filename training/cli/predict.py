"""``xpnet predict``: classify image files, or predict the rows of tables, with a trained model."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import click
from numpy import isfinite

from backend import asarray
from training.cli.common import (
    UserError,
    allow_import_option,
    choose_compute,
    count_from,
    device_option,
    in_words,
    run_option,
    threads_option,
    user_errors,
)
from training.cli.inputs import find_model, load_model
from training.cli.picture_files import picture_files
from training.cli.predict_rows import RowPredictor, is_table, print_rows
from training.cli.prediction import Prediction, Reader
from training.data.pictures import ImageError, Preparation, read_picture
from training.files import json_text
from training.files.printable import printable
from training.loop.non_finite import in_parameters
from training.loop.recipe import normalization_of
from training.models import Network
from training.models.indices import check_for_commands


@click.command("predict")
@click.argument("images", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@run_option
@click.option("--top", type=count_from(1), default=1, help="How many classes to name, the likeliest first.")
@device_option
@threads_option
@allow_import_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image or row.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table with commas, one line per image or row.")
@click.pass_context
def command(
    context: click.Context,
    images: tuple[Path, ...],
    run: Path | None,
    top: int,
    device: str,
    threads: int | None,
    allow_import: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Classify image files: PNG, JPEG, BMP, GIF, WebP and TIFF, of any size; gray or in color, as the model wants them.

    INPUT is a file, a folder, whose pictures are all taken, or a pattern such as 'scans/*.png'. Each gets a line with
    its class and the class's probability, or with its labels or numbers where the model was trained for these, and a
    warning where the picture does not look like the training images.
    Pictures are prepared as the model's training images were: for digits the figure is looked for, dark on bright or
    bright on dark, whatever the light; for images of your own they are only brought to size.

    A model of tables predicts the rows of a .csv or .tsv: INPUT has the feature columns by name, in any order; a target
    and other columns are ignored.
    """
    if as_json and as_csv:
        raise UserError("--json and --csv are two forms of the output: give one of them")
    file = find_model(run)
    choose_compute(device, threads)
    with user_errors():
        if file.suffix == ".npz":
            raise ValueError(f"{file} does not say which model it is; predict needs a run or a .safetensors file")
        files = picture_files(images)
        network = load_model(file, allow_import)
        check_for_commands(network)
        has_tables = any(map(is_table, files))
        if has_tables and not all(map(is_table, files)):
            raise ValueError("expected tables or pictures, got both")
        try:
            classify = None if has_tables else Classifier(network, top)
            predict = RowPredictor(network, top) if has_tables else None
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    if predict is not None:
        print_rows(predict, files, "json" if as_json else "csv" if as_csv else "text")
        return
    assert classify is not None
    if not as_json and not as_csv:
        click.echo(f"Note: {_in_words(classify.preparation)}", err=True)
    show = _as_json if as_json else _Csv() if as_csv else _as_line
    failed = False
    for image in files:
        try:
            prediction, warnings = classify(image)
        except (OSError, ValueError) as error:
            failed = True
            click.echo(f"Error: {in_words(error)}", err=True)
        else:
            click.echo(show(image, prediction, warnings, classify.preparation.name))
    if failed:
        context.exit(UserError.exit_code)


def _in_words(preparation: Preparation) -> str:
    """Return what is done to a picture before the model sees it."""
    if preparation.name == "none":
        size = "x".join(map(str, preparation.shape[1:]))
        return f"pictures are resized to {size}, the size of the training images, and not changed otherwise"
    return f"pictures are prepared as those of {preparation.name}: cut out, inverted where needed, and centered"


def _as_json(image: Path, prediction: Prediction, warnings: list[str], preparation: str) -> str:
    more = {"warnings": warnings, "preparation": preparation}
    return json_text.dump({"image": click.format_filename(image), **prediction.record(), **more})


def _as_line(image: Path, prediction: Prediction, warnings: list[str], preparation: str) -> str:
    warning = f"   WARNING: {', '.join(warnings)}" if warnings else ""
    return f"{printable(image)}: {prediction.in_words()}{warning}"


class _Csv:
    """Makes the lines of a table, the first with the names of its columns."""

    def __init__(self) -> None:
        self._is_first = True

    def __call__(self, image: Path, prediction: Prediction, warnings: list[str], preparation: str) -> str:
        cells = prediction.cells()
        head = ["image", *(name for name, _ in cells), "warnings", "preparation"]
        line = [printable(image), *(text for _, text in cells), "; ".join(warnings), preparation]
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows([head, line] if self._is_first else [line])
        self._is_first = False
        return written.getvalue().removesuffix("\n")


class Classifier:
    """Maps an image file to the network's prediction, and warnings.

    Args:
        top: how many classes to name.

    Attributes:
        preparation: how pictures are made into the network's input.

    Raises:
        ValueError: the network takes no pictures, its file does not say of what size or says it wrongly, or it has a
            parameter that is not finite; of a call, the picture cannot be used or the network's scores are not finite.
    """

    def __init__(self, network: Network, top: int = 1) -> None:
        if found := in_parameters(network):
            raise ValueError(f"the model cannot classify: {found}")
        config = network.config or {}
        self.preparation = Preparation.from_config(config, tuple(config.get("input_dim", network.input_dim)))
        self._normalization, self._network, self._reader = normalization_of(network), network, Reader(network, top)

    def __call__(self, file: Path) -> tuple[Prediction, list[str]]:
        picture = read_picture(file)
        try:
            prepared = self.preparation(picture)
        except ImageError as error:
            raise ImageError(f"{printable(file)}: {error}") from error
        image = prepared.image
        if self._normalization is not None:
            image = self._normalization.apply(image.transpose(1, 2, 0)).transpose(2, 0, 1)
        (predicted,) = self._reader.numbers(self._network.predict(asarray(image[None])))
        if not isfinite(predicted).all():
            raise ValueError(f"{file}: the model's scores are not finite, though its parameters are: they overflow")
        return self._reader.read(predicted.tolist()), list(prepared.warnings)
