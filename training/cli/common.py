"""Options, one-line errors and the choice of device that the commands share. What loads layers is in ``inputs``."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from threadpoolctl import threadpool_limits

import backend
from backend import Device, DeviceError
from kernels.core import native
from training.cli.nearest import nearest
from training.files.durable import is_disk_full
from training.files.printable import one_line, printable

MOST = 10_000_000
"""The largest number that an option takes as a count: more images, steps or epochs than any machine gets through."""


def count_from(least: int) -> click.IntRange:
    """Return the type of an option that counts something: a whole number from ``least`` to :data:`MOST`."""
    return click.IntRange(least, MOST)


class Choice(click.Choice[str]):
    """The type of an option that takes one of some names; the nearest is named where another is given."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return what is wrong with a value, in words."""
        said = super().get_invalid_choice_message(value, ctx)
        near = nearest(str(value), self.choices)
        return f"{said.rstrip('.')}: did you mean {near}?" if near else said


class Real(click.FloatRange):
    """The type of an option that takes a number: bounded, at most 1e30 where nothing less is said, and not NaN."""

    def __init__(self, least: float, most: float = 1e30, *, min_open: bool = False, max_open: bool = False) -> None:
        super().__init__(least, most, min_open=min_open, max_open=max_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number, or fail with what is wrong with it."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("must be a finite number, got nan", param, ctx)
        return number


class Interval(click.ParamType):
    """The type of an option that says how often: steps as in 200, minutes as in 5m, epochs as in 1e."""

    name = "interval"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or fail with what is wrong with it."""
        from training.loop.checkpoints import Checkpoints

        try:
            return str(Checkpoints("", every=str(value)).every)
        except ValueError as error:
            self.fail(str(error).removeprefix("every "), param, ctx)


class UserError(click.ClickException):
    """An error that the user can correct: one line on standard error and exit code 2."""

    exit_code = 2


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise the errors of what it encloses as errors of the user.

    For preparations, whose errors are about options and files. A ValueError of the training itself is a bug and shows
    its traceback.
    """
    try:
        yield
    except (DeviceError, OSError, ValueError) as error:
        raise failure(error) from error


def failure(error: Exception, more: str = "") -> click.ClickException:
    """Return an error as one line. Its exit code is 1 where the disk is full, which no option mends, and else 2."""
    kind = click.ClickException if is_disk_full(error) else UserError
    return kind(in_words(error) + more)


def in_words(error: BaseException) -> str:
    """Return the message of an error in one line; control characters in it are escaped."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{name}{error.strerror}"
    return one_line(str(error)) or type(error).__name__


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder with the data set's four IDX files, plain or gzipped.  [default: $XPNET_DATA_DIR, then the cache "
    "folder, to which missing files are downloaded]",
)
device_option = click.option(
    "--device",
    default="auto",
    envvar="XPNET_DEVICE",
    metavar="[auto|cpu|cuda|cuda:N]",
    help="Where to compute; auto takes a GPU if one works.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 4096),
    envvar="XPNET_THREADS",
    help="Threads on the CPU, BLAS included.  [default: one for each core]",
)
run_option = click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="A run's folder, a .safetensors or an .onnx file.  [default: the newest run in runs/]",
)
allow_import_option = click.option(
    "--allow-import",
    is_flag=True,
    expose_value=True,
    callback=lambda context, parameter, value: _with_current_folder(value),
    help="Import layers of your own that the model's file names. That runs their code: for files that you trust.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _with_current_folder(allowed: bool) -> bool:
    """Let modules in the current folder be imported, where that is allowed. Return ``allowed``."""
    if allowed and "" not in sys.path:
        sys.path.insert(0, "")
    return allowed


@dataclass(frozen=True)
class Compute:
    """The device and the number of threads; ``no_gpu`` is the reason and remedy where auto found no GPU, else empty."""

    device: Device
    no_gpu: str
    threads: int

    def __str__(self) -> str:
        return f"{self.device} (no GPU: {self.no_gpu})" if self.no_gpu else str(self.device)


def choose_compute(device: str, threads: int | None) -> Compute:
    """Make ``device`` the active one and limit this process's CPU work, BLAS included, to ``threads``.

    Raises:
        UserError: the device does not exist or cannot be used.
    """
    with user_errors():
        if threads is not None:
            backend.threads.set_limit(threads)
            threadpool_limits(threads, user_api="blas")
        no_gpu = ""
        if device == "auto":  # asked here, not by `use`, which would log the reason: it goes into the output
            report = backend.inspect_cuda()
            device = "cuda" if report.usable else "cpu"
            no_gpu = "" if report.usable else str(report)
        backend.use(device)
        native.library()  # where the environment asks for a level that does not exist
        return Compute(backend.current_device(), no_gpu, backend.threads.limit())
