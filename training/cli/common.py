"""What the commands share: options, errors in one line, the choice of device and data, and which model is meant."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from training.files.printable import one_line, printable

if TYPE_CHECKING:
    from backend import Device
    from training.data import Dataset
    from training.models import Network


MOST = 10_000_000
"""What an option can count to: more images, steps or epochs than any machine gets through."""


def count_from(least: int) -> click.IntRange:
    """The type of an option that counts something: a whole number from ``least`` to :data:`MOST`."""
    return click.IntRange(least, MOST)


class Real(click.FloatRange):
    """The type of an option that takes a number: bounded, at most 1e30 where nothing less is said, and not NaN."""

    def __init__(self, least: float, most: float = 1e30, *, min_open: bool = False) -> None:
        super().__init__(least, most, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number, or fail with what is wrong with it."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("must be a finite number, got nan", param, ctx)
        return number


class UserError(click.ClickException):
    """Something that the user can mend: one line on standard error and exit code 2."""

    exit_code = 2


@contextmanager
def user_errors() -> Iterator[None]:
    """Tells the errors of what it encloses as errors of the user.

    For preparations, whose errors are about options and files. A ValueError of the training itself would be a bug
    and shall show its traceback.
    """
    from backend import DeviceError

    try:
        yield
    except (DeviceError, OSError, ValueError) as error:
        raise failure(error) from error


def failure(error: Exception, more: str = "") -> click.ClickException:
    """An error as one line. Its exit code is 1 where the disk is full, which no option mends, and else 2."""
    from training.files.durable import is_disk_full

    kind = click.ClickException if is_disk_full(error) else UserError
    return kind(in_words(error) + more)


def in_words(error: BaseException) -> str:
    """What an error says, for people, in one line; what a terminal would obey in it is escaped."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{name}{error.strerror}"
    return one_line(str(error)) or type(error).__name__


class Name(click.ParamType):
    """One of some names, in upper or lower case. They are asked for only when needed: that may import much."""

    name = "name"

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self._names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = {name.lower(): name for name in self._names()}
        if str(value).lower() not in names:
            self.fail(f"{value!r} is none of {', '.join(names.values())}", param, ctx)
        return names[str(value).lower()]

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(self._names())}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self._names() if name.lower().startswith(incomplete.lower())]


def dataset_names() -> Sequence[str]:
    """The data sets that there are."""
    from training.data import NAMES

    return NAMES


def model_names() -> Sequence[str]:
    """The models whose sizes follow from the data."""
    from training.models import MODELS

    return [name for name in MODELS if name != "MultiLayerNet"]


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
    help="A run's folder or a .safetensors file.  [default: the newest run in runs/]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@dataclass(frozen=True)
class Compute:
    """Where it is computed: ``no_gpu`` is the reason and remedy where auto found none, else empty."""

    device: Device
    no_gpu: str
    threads: int

    def __str__(self) -> str:
        return f"{self.device} (no GPU: {self.no_gpu})" if self.no_gpu else str(self.device)


def choose_compute(device: str, threads: int | None) -> Compute:
    """Makes ``device`` the active one and holds this process's CPU work, BLAS included, to ``threads``.

    Raises:
        UserError: the device does not exist or cannot be used.
    """
    import backend

    with user_errors():
        if threads is not None:
            from threadpoolctl import threadpool_limits

            backend.threads.set_limit(threads)
            threadpool_limits(threads, user_api="blas")
        no_gpu = ""
        if device == "auto":  # asked here, not by `use`, which would log the reason: it goes into the output
            report = backend.inspect_cuda()
            device = "cuda" if report.usable else "cpu"
            no_gpu = "" if report.usable else str(report)
        backend.use(device)
        return Compute(backend.current_device(), no_gpu, backend.threads.limit())


def load_data(name: str, data_dir: Path | None, show_progress: bool) -> Dataset:
    """A data set by name; files that are found nowhere are downloaded.

    Raises:
        UserError: it is not to be had.
    """
    from training.data import load

    with user_errors():
        return load(name, data_dir, download=True, progress=show_progress)


def find_model(run: Path | None) -> Path:
    """The file of the model that ``run`` means: itself, that of the run in this folder, or of the newest run."""
    from training.files.opening import not_a_link
    from training.loop.run_folder import RunFolder

    with user_errors():
        if run is None:
            return RunFolder.newest().model
        model = not_a_link(RunFolder(run).model) if run.is_dir() else run
        if not model.is_file():
            raise FileNotFoundError(f"there is no model in {run}" if run.is_dir() else f"there is no file {run}")
        return model


def check_fit(network: Network, data: Dataset) -> None:
    """Refuses data that a network does not take.

    Raises:
        UserError: images or number of classes do not fit.
    """
    with user_errors():
        try:
            network.layers.output_shape(data.input_dim)
        except ValueError as error:
            raise ValueError(f"the model does not take the images of {data.name}, {data.input_dim}: {error}") from error
        if network.classes != len(data.classes):
            raise ValueError(f"the model tells {network.classes} classes apart; {data.name} has {len(data.classes)}")
