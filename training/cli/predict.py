"""``xpnet predict``: classify image files, or predict the rows of tables, with a trained model."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from numpy import isfinite

from backend import asarray, asnumpy
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
from training.cli.inputs import find_model
from training.cli.picture_files import picture_files
from training.cli.predict_rows import (
    RowPredictor,
    cells_of_numbers,
    in_units,
    is_table,
    labels_in_words,
    numbers_in_words,
    print_rows,
    record_of_labels,
    record_of_numbers,
    targets_of,
)
from training.data.pictures import ImageError, Preparation, read_picture
from training.files import json_text
from training.files.printable import printable
from training.loop.non_finite import in_parameters
from training.loop.recipe import normalization_of, target_normalization_of
from training.models import Network
from training.models.loading import load_network


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
        network = load_network(file, allow_import)
        has_tables = any(map(is_table, files))
        if has_tables and not all(map(is_table, files)):
            raise ValueError("expected tables or pictures, got both")
        try:
            classify = None if has_tables else Classifier(network)
            predict = RowPredictor(network, top) if has_tables else None
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    if predict is not None:
        print_rows(predict, files, "json" if as_json else "csv" if as_csv else "text")
        return
    assert classify is not None
    if not as_json and not as_csv:
        click.echo(f"Note: {_in_words(classify.preparation)}", err=True)
    show: Callable[[Path, Ranking, list[str], str], str]
    if classify.kind == "values":
        show = _numbers_json if as_json else _NumbersCsv() if as_csv else _numbers_line
        top = network.classes
    elif classify.kind == "labels":
        show = _labels_json if as_json else _LabelsCsv() if as_csv else _labels_line
        top = network.classes
    else:
        show = _json if as_json else _Csv(min(top, network.classes)) if as_csv else _line
    failed = False
    for image in files:
        try:
            ranking, warnings = classify(image)
        except (OSError, ValueError) as error:
            failed = True
            click.echo(f"Error: {in_words(error)}", err=True)
        else:
            click.echo(show(image, ranking[:top], warnings, classify.preparation.name))
    if failed:
        context.exit(UserError.exit_code)


Ranking = list[tuple[str, float]]
"""Classes with their probabilities, the likeliest first."""


def _in_words(preparation: Preparation) -> str:
    """Return what is done to a picture before the model sees it."""
    if preparation.name == "none":
        size = "x".join(map(str, preparation.shape[1:]))
        return f"pictures are resized to {size}, the size of the training images, and not changed otherwise"
    return f"pictures are prepared as those of {preparation.name}: cut out, inverted where needed, and centered"


def _json(image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
    classes = [{"class": label, "probability": probability} for label, probability in ranking]
    more = {"top": classes, "warnings": warnings, "preparation": preparation}
    return json_text.dump({"image": click.format_filename(image), **classes[0], **more})


def _line(image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
    shares = [f"{printable(label)} {100 * probability:.2f} %" for label, probability in ranking]
    warning = f"   WARNING: {', '.join(warnings)}" if warnings else ""
    return f"{printable(image)}: {'   '.join(shares)}{warning}"


def _labels_json(image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
    more = {"warnings": warnings, "preparation": preparation}
    return json_text.dump({"image": click.format_filename(image), **record_of_labels(ranking), **more})


def _labels_line(image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
    warning = f"   WARNING: {', '.join(warnings)}" if warnings else ""
    return f"{printable(image)}: {labels_in_words(ranking)}{warning}"


def _numbers_json(image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
    more = {"warnings": warnings, "preparation": preparation}
    return json_text.dump({"image": click.format_filename(image), **record_of_numbers(*_numbers(ranking)), **more})


def _numbers_line(image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
    warning = f"   WARNING: {', '.join(warnings)}" if warnings else ""
    return f"{printable(image)}: {numbers_in_words(*_numbers(ranking))}{warning}"


def _numbers(ranking: Ranking) -> tuple[list[float], list[str]]:
    """Return predicted numbers, and their names where they have names."""
    return [number for _, number in ranking], [name for name, _ in ranking if name]


class _NumbersCsv:
    """Makes the lines of a table of predicted numbers, the first with their names."""

    def __init__(self) -> None:
        self._is_first = True

    def __call__(self, image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
        cells = cells_of_numbers(*_numbers(ranking))
        head = ["image", *cells, "warnings", "preparation"]
        lines = [head] * self._is_first + [[printable(image), *cells.values(), "; ".join(warnings), preparation]]
        self._is_first = False
        return _csv_text(lines)


class _LabelsCsv:
    """Makes the lines of a table with a column for each label, the first with their names."""

    def __init__(self) -> None:
        self._is_first = True

    def __call__(self, image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
        cells = [f"{probability:.6g}" for _, probability in ranking]
        head = ["image", *(printable(label) for label, _ in ranking), "warnings", "preparation"]
        lines = [head] * self._is_first + [[printable(image), *cells, "; ".join(warnings), preparation]]
        self._is_first = False
        return _csv_text(lines)


def _csv_text(lines: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().removesuffix("\n")


class _Csv:
    """Makes the lines of a table, the first with the names of its columns."""

    def __init__(self, top: int) -> None:
        numbers = ["", *map(str, range(2, top + 1))]
        columns = [name for number in numbers for name in (f"class{number}", f"probability{number}")]
        self._head: list[list[Any]] = [["image", *columns, "warnings", "preparation"]]

    def __call__(self, image: Path, ranking: Ranking, warnings: list[str], preparation: str) -> str:
        cells = [cell for label, probability in ranking for cell in (printable(label), f"{probability:.6g}")]
        lines, self._head = [*self._head, [printable(image), *cells, "; ".join(warnings), preparation]], []
        return _csv_text(lines)


class Classifier:
    """Maps an image file to the classes with their probabilities, the likeliest first, or to numbers; and warnings.

    Attributes:
        preparation: how pictures are made into the network's input.
        kind: "classes"; "labels", any number of which are right, and which are not ordered; or "values", numbers in
            their own units by their names, which are empty where they are not known.

    Raises:
        ValueError: the network takes no pictures, its file does not say of what size or says it wrongly, or it has a
            parameter that is not finite; of a call, the picture cannot be used or the network's scores are not finite.
    """

    def __init__(self, network: Network) -> None:
        if found := in_parameters(network):
            raise ValueError(f"the model cannot classify: {found}")
        config = network.config or {}
        self.preparation = Preparation.from_config(config, tuple(config.get("input_dim", network.input_dim)))
        self.kind = network.last_layer.target_kind
        self._target = target_normalization_of(network)
        self._normalization = normalization_of(network)
        self._network = network
        self._names = config.get("classes") or [str(label) for label in range(network.classes)]
        if self.kind == "values":
            self._names = targets_of(network) or [""] * network.classes

    def __call__(self, file: Path) -> tuple[list[tuple[str, float]], list[str]]:
        picture = read_picture(file)
        try:
            prepared = self.preparation(picture)
        except ImageError as error:
            raise ImageError(f"{printable(file)}: {error}") from error
        image = prepared.image
        if self._normalization is not None:
            image = self._normalization.apply(image.transpose(1, 2, 0)).transpose(2, 0, 1)
        scores = self._network.predict(asarray(image[None]))
        probabilities = asnumpy(self._network.last_layer.predictions(scores))[0]
        if self.kind == "values":
            probabilities = in_units(probabilities.astype("float64"), self._target)
        if not isfinite(probabilities).all():
            raise ValueError(f"{file}: the model's scores are not finite, though its parameters are: they overflow")
        order = range(len(probabilities)) if self.kind != "classes" else (-probabilities).argsort(kind="stable")
        return [(self._names[label], float(probabilities[label])) for label in order], list(prepared.warnings)
