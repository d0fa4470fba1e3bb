"""``xpnet evaluate``: measure a trained model on test data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from layers.initializers import unfilled
from training.cli.common import (
    UserError,
    choose_compute,
    count_from,
    data_dir_option,
    device_option,
    json_option,
    threads_option,
    user_errors,
)
from training.cli.inputs import DATASET, MODEL, check_fit, find_model, load_data
from training.data import EMBEDDED, Dataset, Loader
from training.files import json_text
from training.files.printable import printable
from training.loop.evaluation import Predictions, predict
from training.loop.non_finite import NonFiniteError
from training.loop.recipe import build_network
from training.loop.settings import EVALUATION_BATCH
from training.models import Network
from training.models.loading import load_network
from training.profile.tables import aligned


@click.command("evaluate")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--model", type=MODEL, help="What an .npz file holds the parameters of.")
@click.option("--dataset", type=DATASET, help="Test data.  [default: the run's]")
@data_dir_option
@click.option("--batch-size", type=count_from(1), default=EVALUATION_BATCH, help="Images computed at a time.")
@device_option
@threads_option
@json_option
def command(
    run: Path | None,
    model: str | None,
    dataset: str | None,
    data_dir: Path | None,
    batch_size: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure a model on test data: loss, accuracy, and each class.

    RUN is the folder of a run, a .safetensors file or, with --model, an .npz file; by default the newest run in runs/.
    """
    file = find_model(run)
    choose_compute(device, threads)
    if file.suffix == ".npz":
        data = load_data(dataset or EMBEDDED, data_dir, show_progress=not as_json)
        network = _from_npz(file, model, data)
    else:
        network = _from_safetensors(file, model)
        known = dataset or (network.config or {}).get("dataset", EMBEDDED)
        data = load_data(known, data_dir, show_progress=not as_json)
    check_fit(network, data)
    try:
        predictions = predict(network, Loader(data.test_images, data.test_labels, batch_size, shuffle=False))
    except NonFiniteError as error:
        raise click.ClickException(f"{click.format_filename(file)}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{error}; give a smaller --batch-size") from error
    if as_json:
        click.echo(json_text.dump(_record(file, network, data, predictions)))
    else:
        _print(_record(file, network, data, predictions))


def _from_npz(file: Path, model: str | None, data: Dataset) -> Network:
    if model is None:
        raise UserError(f"{file} does not say which model it is: name it, as in --model SimpleConvNet")
    with user_errors():
        with unfilled():
            network = build_network(model, data)
        network.load_params(file)
    return network


def _from_safetensors(file: Path, model: str | None) -> Network:
    with user_errors():
        network = load_network(file)
    if model is not None and model != type(network).__name__:
        raise UserError(f"{file} is a {type(network).__name__}, not a {model}")
    return network


def _record(file: Path, network: Network, data: Dataset, predictions: Predictions) -> dict[str, Any]:
    confusion = predictions.confusion()
    classes = [
        {"class": name, "correct": int(row[label]), "samples": int(row.sum())}
        for label, (name, row) in enumerate(zip(data.classes, confusion, strict=True))
    ]
    return {
        "file": str(file),
        "model": type(network).__name__,
        "dataset": data.name,
        "loss": predictions.loss,
        "accuracy": predictions.accuracy,
        "correct": predictions.correct,
        "samples": len(predictions.labels),
        "classes": classes,
    }


def _print(record: dict[str, Any]) -> None:
    click.echo(f"model     {record['model']}, {printable(record['file'])}")
    click.echo(f"data      {record['dataset']}, {record['samples']:,} test images")
    click.echo(f"loss      {record['loss']:.4f}")
    click.echo(f"accuracy  {_share(record)}, {record['correct']:,} of {record['samples']:,} correct")
    click.echo()
    lines = [(one["class"], f"{one['correct']:,}", f"{one['samples']:,}", _share(one)) for one in record["classes"]]
    for line in aligned([("class", "correct", "of", "accuracy"), *lines]):
        click.echo(line)


def _share(record: dict[str, Any]) -> str:
    return f"{100 * record['correct'] / record['samples']:.2f} %" if record["samples"] else "-"
