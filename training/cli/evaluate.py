"""``xpnet evaluate``: measure a trained model on test data."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from layers.initializers import unfilled
from training.cli.common import (
    UserError,
    allow_import_option,
    choose_compute,
    count_from,
    data_dir_option,
    device_option,
    json_option,
    threads_option,
    user_errors,
)
from training.cli.data_options import DATASET, path_options
from training.cli.inputs import MODEL, check_fit, find_model, load_data, load_model, run_data, with_classes
from training.cli.loss_options import metrics_option
from training.data import EMBEDDED, Data
from training.data.collection import KINDS
from training.files import json_text
from training.files.printable import printable
from training.loop.evaluation import Evaluation, Predictions
from training.loop.non_finite import NonFiniteError
from training.loop.recipe import build_network, loader_for, measure
from training.loop.settings import EVALUATION_BATCH, Settings
from training.models import Network
from training.models.metrics import as_metrics
from training.terminal.tables import show, table


@click.command("evaluate")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=MODEL,
    metavar="NAME",
    help=f"What an .npz file holds the parameters of: {', '.join(MODEL.choices)}.",
)
@click.option("--dataset", type=DATASET, help="Test data.  [default: the run's]")
@data_dir_option
@path_options
@metrics_option
@allow_import_option
@click.option("--batch-size", type=count_from(1), default=EVALUATION_BATCH, help="Images computed at a time.")
@device_option
@threads_option
@json_option
def command(
    run: Path | None,
    model: str | None,
    data_dir: Path | None,
    batch_size: int,
    device: str,
    threads: int | None,
    as_json: bool,
    metrics: tuple[str, ...],
    allow_import: bool,
    **options: Any,
) -> None:
    """Measure a model on test data: loss, accuracy, and each class.

    RUN is the folder of a run, a .safetensors or .onnx file, or, with --model, an .npz file; by default the newest run
    in runs/.
    """
    file = find_model(run)
    choose_compute(device, threads)
    wanted = {"data": options.pop("data"), "dataset": options.pop("dataset"), **options}
    if file.suffix == ".npz":
        data = _load(file, None, wanted, data_dir, as_json)
        network = _from_npz(file, model, data)
    else:
        network = _from_its_file(file, model, allow_import)
        data = with_classes(_load(file, network, wanted, data_dir, as_json), network)
    check_fit(network, data)
    part = next(part for part in ("test", "val", "train") if part in data.parts)
    samples = data.parts[part]
    try:
        with user_errors():
            loader = loader_for(network, samples, batch_size)
            as_metrics(metrics, network.last_layer, network.classes)
            found = measure(network, loader, metrics)
        if isinstance(found, Predictions):
            record = _record(file, network, data, part, found)
        else:
            record = _about(file, network, data, part) | {"loss": found.loss, "samples": len(samples)}
            record |= found.metrics if data.kind == "regression" else _of_labels(found, data, part)
    except NonFiniteError as error:
        raise click.ClickException(f"{click.format_filename(file)}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{error}; give a smaller --batch-size") from error
    if as_json:
        click.echo(json_text.dump(record))
    else:
        _print(record)


def _load(file: Path, network: Network | None, wanted: dict[str, Any], data_dir: Path | None, as_json: bool) -> Data:
    """Load the data that the options name, or else those of the run in whose folder the file lies."""
    config = {} if network is None else network.config or {}
    known: dict[str, Any] = {"val": 0.0, "test": 0.0}
    if wanted["data"] is None and wanted["dataset"] is None:
        known = run_data(file.parent) or {"dataset": config.get("dataset", EMBEDDED), **known}
    elif "target" in config and wanted["data"] is not None and wanted["data"].suffix not in (".npz", ".npy"):
        known["target"] = config["target"]
    if network is not None:
        known["target_kind"] = _KINDS[network.last_layer.target_kind]
    given = {name: value for name, value in wanted.items() if value is not None}
    settings = Settings(**{**known, **given})
    shape = config.get("input_dim", () if network is None else network.input_dim)
    if settings.data is not None and len(shape) == 3:
        settings = replace(settings, size=f"{shape[1]}x{shape[2]}")
    shown = sys.stderr.isatty() and not as_json
    return load_data(settings, data_dir, shown, channels=shape[0] if len(shape) == 3 else None)


_KINDS = dict(zip(("classes", "labels", "values"), KINDS, strict=True))
"""The kind of the data for what a network predicts."""


def _from_npz(file: Path, model: str | None, data: Data) -> Network:
    if model is None:
        raise UserError(f"{file} does not say which model it is: name it, as in --model SimpleConvNet")
    with user_errors():
        with unfilled():
            network = build_network(model, data)
        network.load_params(file)
    return network


def _from_its_file(file: Path, model: str | None, allow_import: bool) -> Network:
    with user_errors():
        network = load_model(file, allow_import)
    if model is not None and model != network.title:
        raise UserError(f"{file} is a {network.title}, not a {model}")
    return network


def _record(file: Path, network: Network, data: Data, part: str, predictions: Predictions) -> dict[str, Any]:
    confusion = predictions.confusion()
    classes = [
        {"class": name, "correct": int(row[label]), "samples": int(row.sum())}
        for label, (name, row) in enumerate(zip(data.classes, confusion, strict=True))
    ]
    return {
        **_about(file, network, data, part),
        "loss": predictions.loss,
        "accuracy": predictions.accuracy,
        "correct": predictions.correct,
        "samples": len(predictions.labels),
        "metrics": predictions.metrics,
        "classes": classes,
    }


def _of_labels(found: Evaluation, data: Data, part: str) -> dict[str, Any]:
    """Return the results of a network that predicts labels, those of each label among them."""
    metrics = dict(found.metrics)
    scores, counts = metrics.pop("per-class"), data.counts(part).tolist()
    labels = [
        {"label": name, "samples": counts[place], **{key: scores[key][place] for key in scores}}
        for place, name in enumerate(data.classes)
    ]
    return {"accuracy": found.accuracy, "metrics": metrics, "labels": labels}


def _about(file: Path, network: Network, data: Data, part: str) -> dict[str, Any]:
    return {"file": str(file), "model": network.title, "dataset": data.name, "part": part}


def _print(record: dict[str, Any]) -> None:
    click.echo(f"model     {record['model']}, {printable(record['file'])}")
    click.echo(f"data      {record['dataset']}, {record['samples']:,} samples of the {record['part']} part")
    click.echo(f"loss      {record['loss']:.4f}")
    if "r2" in record:
        click.echo(f"R²        {record['r2']:.4f}")
        if "mae" in record:
            click.echo(f"error     {record['mae']:.6g}, the mean absolute one")
        return
    if "labels" in record:
        click.echo(f"accuracy  {100 * record['accuracy']:.2f} % of the labels")
    else:
        click.echo(f"accuracy  {_share(record)}, {record['correct']:,} of {record['samples']:,} correct")
    for name, value in record["metrics"].items():
        click.echo(f"{name:8}  {f'{value:.4f}' if isinstance(value, float) else json_text.dump(value)}")
    click.echo()
    if "labels" in record:
        rows = [
            (one["label"], f"{one['samples']:,}", *(_percent(one[name]) for name in ("precision", "recall", "f1")))
            for one in record["labels"]
        ]
        show(table([("label", "samples", "precision", "recall", "F1"), *rows]))
        return
    lines = [(one["class"], f"{one['correct']:,}", f"{one['samples']:,}", _share(one)) for one in record["classes"]]
    show(table([("class", "correct", "of", "accuracy"), *lines]))


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share == share else "-"


def _share(record: dict[str, Any]) -> str:
    return f"{100 * record['correct'] / record['samples']:.2f} %" if record["samples"] else "-"
