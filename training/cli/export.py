"""``xpnet export``: write a trained model in the format of other programs."""

from __future__ import annotations

from pathlib import Path

import click

from training.cli.common import UserError, allow_import_option, choose_compute, user_errors
from training.cli.inputs import find_model
from training.files.printable import printable
from training.models.loading import load_network


@click.command("export")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--onnx", is_flag=True, help="As ONNX, opset 17, with the normalization of its inputs inside.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: the model's with the ending of the format]",
)
@allow_import_option
def command(run: Path | None, onnx: bool, out: Path | None, allow_import: bool) -> None:
    """Write a trained model in the format of other programs.

    RUN is the folder of a run or a .safetensors file; by default the newest run in runs/. An ONNX model takes batches
    of any size of float32 inputs: pictures (batch, C, H, W) in 0 to 1, or rows. It computes in evaluation, and returns
    scores before a softmax or sigmoid, or numbers in their own unit.
    """
    from training.interop.onnx_export import export_onnx

    if not onnx:
        raise UserError("expected a format: --onnx")
    choose_compute("cpu", None)
    with user_errors():
        model = find_model(run)
        network = load_network(model, allow_import)
        file = out or model.with_suffix(".onnx")
        try:
            export_onnx(network, file)
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from error
    click.echo(f"{network.title} as ONNX in {printable(file)}, {file.stat().st_size:,} bytes")
