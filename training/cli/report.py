"""``xpnet report``: describe a run in one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from training.cli.common import (
    allow_import_option,
    choose_compute,
    data_dir_option,
    device_option,
    threads_option,
    user_errors,
)
from training.cli.inputs import check_fit, load_data, run_data, with_classes
from training.data import EMBEDDED, Data
from training.files.durable import write_atomically, write_output
from training.files.printable import printable
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.models import Network


@click.command("report")
@click.argument("run", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: report.html in RUN]"
)
@click.option("--data", type=click.Path(path_type=Path), help="Where the run's data lie now, if they have moved.")
@data_dir_option
@allow_import_option
@device_option
@threads_option
def command(
    run: Path | None,
    out: Path | None,
    data: Path | None,
    data_dir: Path | None,
    allow_import: bool,
    device: str,
    threads: int | None,
) -> None:
    """Describe a run in one HTML page: curves, classes, mistakes, filters, settings, machine.

    RUN is the folder of a run; by default the newest in runs/. The page is a single file that needs no network. The
    model is evaluated on the run's data: on the test part if the run has ended, else on the part that its epochs were
    evaluated on. Nothing is downloaded: where the data are not at hand, the page says so.
    """
    from training.report.findings import Findings
    from training.report.page import render

    with user_errors():
        folder = RunFolder.newest() if run is None else RunFolder(run)
        if not folder.path.is_dir():
            raise FileNotFoundError(f"there is no folder {folder.path}")
        choose_compute(device, threads)
        found = Findings.of(folder, lambda network: _data(folder, network, data, data_dir), allow_import)
        file = out or folder.path / "report.html"
        write = write_output if out else write_atomically  # a run's own files are not links
        write(file, render(found).encode())
    for text in found.missing:
        click.echo(printable(text), err=True)
    click.echo(f"report {printable(file)}")


def _data(folder: RunFolder, network: Network, path: Path | None, data_dir: Path | None) -> Data:
    """Load the data of a run.

    Raises:
        ValueError, OSError: they are not there, or do not fit the network.
    """
    config = network.config or {}
    try:
        known = run_data(folder.path) or {"dataset": config.get("dataset", EMBEDDED)}
        if path is not None:
            known["data"] = str(path)
        shape = config.get("input_dim", network.input_dim)
        channels = shape[0] if len(shape) == 3 else None
        if known.get("data") is not None and channels is not None:
            known["size"] = f"{shape[1]}x{shape[2]}"
        settings = Settings(**known)
        stored = folder.load_config().get("settings") if (folder.path / "config.json").is_file() else None
        kept = stored.get("data_dir") if isinstance(stored, dict) else None
        if data_dir is None and isinstance(kept, str):
            data_dir = Path(kept)
        data = with_classes(load_data(settings, data_dir, False, channels, download=False), network)
        check_fit(network, data)
    except click.ClickException as error:
        raise ValueError(error.format_message()) from error
    return data
