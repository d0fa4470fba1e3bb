"""The data and models that commands are given by name: their options' types, and how they are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import training.data
from training.cli.common import Choice, UserError, in_words, user_errors
from training.data import Data
from training.files import clipped
from training.files.arrays import SUFFIXES
from training.files.opening import not_a_link, stored_path
from training.files.printable import printable
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.models import MODELS, Network
from training.models.indices import NO_DATA, check_for_commands
from training.models.layer_file import SUFFIX, check_layer_file
from training.models.loading import load_network
from training.terminal.bars import Bar, bar
from training.zoo import NETWORKS, PLACE_NETWORKS


class ModelName(Choice):
    """The type of an option that takes a model: a name in any case, or a TOML file of layers.

    A network of the zoo that the data of commands cannot feed is refused with the reason.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as xpnet writes it, or the path of the file as it is; or fail in words.

        A file is read here, so that a wrong type or argument is told before data are read, which may take minutes.
        """
        if not str(value).endswith(SUFFIX):
            known = {name.casefold(): name for name in PLACE_NETWORKS if name not in self.choices}
            if name := known.get(str(value).casefold()):
                self.fail(f"{name} makes scores of each pixel or step, {NO_DATA}", param, ctx)
            return super().convert(value, param, ctx)
        if not Path(value).is_file():
            self.fail(f"there is no file {printable(value)}", param, ctx)
        try:
            check_layer_file(Path(value))
        except (ValueError, OSError) as error:
            self.fail(in_words(error), param, ctx)
        return str(value)


MODEL = ModelName([*MODELS, *NETWORKS], case_sensitive=False)
ANY_MODEL = ModelName([*MODELS, *NETWORKS, *PLACE_NETWORKS], case_sensitive=False)


def load_data(
    settings: Settings,
    data_dir: Path | None,
    show_progress: bool,
    channels: int | None = None,
    download: bool = True,
) -> Data:
    """Load a data set by name, or open data by path, with the parts that the settings want.

    Args:
        channels: 1 to read pictures in gray, 3 in color; None by what they are.
        download: files of a named set that are found nowhere.

    Raises:
        UserError: they are neither found nor can they be downloaded, or they are damaged; the message says what.
    """
    val = settings.val or None if settings.best_on == "val" else None
    with user_errors():
        if settings.data is None:
            data = training.data.load(settings.dataset, data_dir, download=download, progress=show_progress).as_data()
            return data.with_parts(val, None, settings.seed)
        with _bar(show_progress) as progress:
            size = None if settings.size is None else tuple(map(int, settings.size.split("x")))
            data = training.data.open(
                stored_path(settings.data),
                size=size,  # type: ignore[arg-type]
                channels=channels,
                target=settings.target,
                target_kind=settings.target_kind,
                progress=progress,
            )
        return data.with_parts(val, settings.test or None, settings.seed)


def run_data(folder: Path) -> dict[str, Any]:
    """Return the settings that say what the run in a folder was trained on; empty if it is not the folder of a run.

    Raises:
        UserError: its config.json is damaged.
    """
    if not (folder / "config.json").is_file():
        return {}
    with user_errors():
        settings = RunFolder(folder).load_config().get("settings")
        known = settings if isinstance(settings, dict) else {}
        found = {name: known[name] for name in _KINDS if known.get(name) is not None}
        for name, value in found.items():
            if not isinstance(value, _KINDS[name]):
                raise ValueError(f"{folder / 'config.json'}: setting {name} is {clipped(value)}")
        return found


_KINDS: dict[str, type | tuple[type, ...]] = {
    "dataset": str, "data": str, "size": str, "target": str, "target_kind": str, "val": (int, float),
    "test": (int, float), "best_on": str, "seed": int,
}  # fmt: skip


def with_classes(data: Data, network: Network) -> Data:
    """Return the data with the classes of a network in its order, which may be more.

    Raises:
        UserError: the network does not know one of the classes.
    """
    names = (network.config or {}).get("classes")
    if not names or data.kind == "regression" or tuple(names) == data.classes:
        return data
    if set(data.classes) <= set(names):
        return data.with_classes(names)
    if data.classes == tuple(map(str, range(len(names)))):
        return data  # numbered: labels, whose names only the model knows
    unknown = next(name for name in data.classes if name not in names)
    raise UserError(f"{data.name} has the class {clipped(unknown)}, which the model does not know")


@contextmanager
def _bar(is_shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar of the pictures that are looked at."""
    done = 0
    with bar("pictures", unit="pictures") if is_shown else Bar() as shown:

        def progress(count: int, total: int) -> None:
            nonlocal done
            done += count
            shown.update(done, f"pictures {done:,} of {total:,}", total=total)

        yield progress


def find_model(run: Path | None) -> Path:
    """Return the file of the model that ``run`` names: itself, that of the run in this folder, or of the newest run.

    Raises:
        UserError: there is no such file.
    """
    with user_errors():
        if run is None:
            return RunFolder.newest().model
        model = not_a_link(RunFolder(run).model) if run.is_dir() else run
        if not model.is_file():
            raise FileNotFoundError(f"there is no model in {run}" if run.is_dir() else f"there is no file {run}")
        return model


def load_model(file: Path, allow_import: bool) -> Network:
    """Load the network of a file of xpnet's own, or import one from ONNX.

    Raises:
        ValueError: its name has another ending, it is damaged, or needs the package onnx, which is not installed.
        OSError: it cannot be read.
    """
    if file.suffix not in (*SUFFIXES, ".onnx"):
        raise ValueError(f"expected the name of a model to end in .safetensors or .onnx, got {file.name!r}")
    if file.suffix != ".onnx":
        return load_network(file, allow_import)
    from training.interop.onnx_import import from_onnx

    try:
        return from_onnx(file)
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        if str(error).startswith(str(file)):
            raise
        raise ValueError(f"{file}: {error}") from error


def check_fit(network: Network, data: Data) -> None:
    """Check that a network takes the inputs of the data and has their number of classes.

    Raises:
        UserError: inputs, a table's columns or the number of classes do not fit, or the network takes indices.
    """
    with user_errors():
        check_for_commands(network)
        known = (network.config or {}).get("columns")
        if known and data.columns is not None and known != list(data.columns.features):
            raise ValueError(
                f"the model takes the columns {clipped(known)}; {data.name} has {clipped(list(data.columns.features))}"
            )
        try:
            network.layers.output_shape(data.shape)
        except ValueError as error:
            raise ValueError(f"the model does not take the inputs of {data.name}, {data.shape}: {error}") from error
        if network.classes != data.outputs:
            what = "classes" if data.classes else "outputs"
            raise ValueError(f"the model has {network.classes} {what}; {data.name} has {data.outputs}")
