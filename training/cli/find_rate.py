"""``xpnet train --find-lr``: look for a learning rate instead of training."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from training.cli.common import UserError
from training.cli.config import FILE, dump
from training.files.durable import write_atomically
from training.files.printable import printable
from training.loop import figures
from training.loop.non_finite import NonFiniteError
from training.loop.rate_search import RateSearch, find_learning_rate
from training.loop.run_folder import RunFolder, json_line
from training.loop.trainer import Trainer


def find_rate(trainer: Trainer, folder: RunFolder, config: Mapping[str, Any], as_json: bool) -> None:
    """Search, write plot, losses and settings into the folder, and print the suggestion.

    Raises:
        ClickException: the first loss is not finite, or a batch is too large.
        OSError: a file cannot be written.
    """
    try:
        found = find_learning_rate(trainer)
    except BaseException as error:
        folder.close()
        with suppress(OSError):
            folder.path.rmdir()  # it is empty
        if isinstance(error, NonFiniteError):
            raise click.ClickException(str(error)) from error
        if isinstance(error, MemoryError):
            raise UserError(f"{error}; give a smaller --model or --batch-size") from error
        raise
    write_atomically(folder.searched, json_line(asdict(found)).encode())
    figures.save(found.figure(), folder.figure("learning_rates"))
    write_atomically(folder.path / FILE, dump(config))
    folder.save_config({**config, "ended": datetime.now().astimezone().isoformat(timespec="seconds")})
    if as_json:
        click.echo(json_line({**asdict(found), "folder": str(folder.path)}))
    else:
        click.echo(_in_words(found, folder))


def _in_words(found: RateSearch, folder: RunFolder) -> str:
    plot = f"plot: {printable(folder.figure('learning_rates'))}"
    if found.suggestion is None:
        return (
            f"no learning rate suggested: the loss did not fall from {found.rates[0]:g} to {found.rates[-1]:g}; {plot}"
        )
    rate = f"{found.suggestion:.2g}"
    command = f"xpnet train --config {shlex.quote(printable(folder.path))} --lr {rate}"
    return f"suggested learning rate: {rate}, where the loss falls fastest; {plot}; train with: {command}"
