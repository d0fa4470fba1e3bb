"""``xpnet train --resume``: go on with a run, whose settings come from its checkpoint."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from training.cli.common import UserError, user_errors
from training.cli.ranks import joined
from training.distributed.launch import launched
from training.files import clipped
from training.files.opening import stored_path
from training.files.printable import printable
from training.files.sections import Sections
from training.loop import checkpoint
from training.loop.checkpoint_checks import named
from training.loop.run_folder import RunFolder, json_line
from training.loop.trainer import Trainer

CHANGEABLE = ("data", "data_dir", "log", "checkpoint_every", "keep_checkpoints")
"""Settings that may be given anew, since no number depends on them."""

_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


@dataclass(frozen=True)
class ResumedRun:
    """A run that goes on.

    Attributes:
        folder: of the run, locked; None on other ranks than rank 0.
        config: what ``config.json`` holds.
        sections: of the checkpoint; None where the run was killed before its first one, and begins again.
    """

    folder: RunFolder | None
    config: dict[str, Any]
    sections: Sections | None

    @property
    def has_ended(self) -> bool:
        """Return True if the run has done all it should."""
        return "ended" in self.config

    def other_bits(self, now: Mapping[str, Any]) -> str:
        """Return what is not as it was when the run began, and may change the last bits; empty if nothing is.

        Args:
            now: the config that the run would have if it began here.
        """

        def seen(config: Mapping[str, Any]) -> dict[str, Any]:
            versions, device = config.get("versions") or {}, config.get("device") or {}
            blas = [f"{each.get('version')} for {each.get('architecture')}" for each in config.get("blas") or []]
            found = {name: versions.get(name) for name in ("xpnet", "numpy", "cupy")}
            kernels = config.get("kernels", "NumPy")
            return {**found, "BLAS": ", ".join(blas), "kernels": kernels, "device": device.get("model")}

        before, after = seen(self.config), seen(now)
        changed = [f"{name} was {clipped(before[name])}, is {clipped(after[name])}" for name in before]
        return "; ".join(words for name, words in zip(before, changed, strict=True) if before[name] != after[name])

    def restore(self, trainer: Trainer) -> dict[str, Any]:
        """Bring a trainer with all its callbacks into the state of the run. Return the run's config, with a note of it.

        Raises:
            ValueError: it is another training than the run's.
        """
        known, own = self.config.get("model") or {}, trainer.network.config or {}
        if known.get("layers_sha256") != own.get("layers_sha256"):
            raise ValueError(f"the file of layers of {trainer.network.title} has changed since the run began")
        if self.sections is not None:
            checkpoint.restore(trainer, self.sections if self.folder else _without_others(self.sections, trainer))
        note = {"at": datetime.now().astimezone().isoformat(timespec="seconds"), "step": trainer.step}
        return {**self.config, "resumed": [*self.config.get("resumed", []), note]}


def open_run(path: Path) -> ResumedRun:
    """Open and lock a run by its folder, by its folder of checkpoints, or by one of them, and read the checkpoint.

    Raises:
        UserError: there is no such run, another process trains in it, or a file of it is damaged.
    """
    with user_errors():
        folder = RunFolder.reopen(_folder_of(path))
        file: Path | None = path
        if not path.is_file():
            files = checkpoint.list_files(folder.checkpoints)
            file = files[-1] if files else None
        sections = None if file is None else checkpoint.read(file)
        try:
            config = folder.load_config()
        except FileNotFoundError:
            if sections is None:
                raise UserError(
                    f"{path} has neither a checkpoint nor a config.json: it is not the folder of a run, or the run was "
                    f"killed before it began; begin it again by --out {path}"
                ) from None
            config = {}
        if sections is not None:
            config = {**sections["config"], **{name: config[name] for name in ("ended", "resumed") if name in config}}
        return ResumedRun(folder, config, sections)


def _folder_of(path: Path) -> Path:
    """Return the folder of a run that is given, or that has the checkpoint or the folder of checkpoints given.

    Raises:
        UserError: it is another file.
    """
    folder = path.parent if path.is_file() else path
    if folder.absolute().name == checkpoint.FOLDER and (path.is_file() or checkpoint.list_files(folder)):
        return folder.parent if folder.name else folder.absolute().parent
    if path.is_file():
        raise UserError(
            f"{path} is not a checkpoint of a run: expected the run's folder, or a file in its folder "
            f"{checkpoint.FOLDER}"
        )
    return path


def _open_together(path: Path) -> ResumedRun:
    """Open a run on rank 0, which gives the others what it reads; as ``open_run`` does without ranks."""
    ranks = joined()
    if ranks is None:
        return open_run(path)
    run = open_run(path) if ranks.rank == 0 else None
    config, sections = ranks.share(None if run is None else (run.config, run.sections))
    return run or ResumedRun(None, config, sections)


def _without_others(sections: Sections, trainer: Trainer) -> Sections:
    """Return sections without those of callbacks that only rank 0 has."""
    own = {name for name, _ in named(trainer.callbacks)}
    return {name: each for name, each in sections.items() if not name.startswith("callback ") or name in own}


def resumable(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--resume`` to a command: the other options get the values that the run was started with.

    The function is called with the run, or None, as ``run``.
    """

    @click.option(
        "--resume",
        metavar="RUN",
        type=click.Path(path_type=Path),
        help="Go on with the run in this folder, or from this one of its checkpoints. Its settings are kept.",
    )
    @functools.wraps(function)
    def call(*arguments: Any, resume: Path | None, **options: Any) -> None:
        run = None if resume is None else _open_together(resume)
        if run is not None and run.folder is not None:
            click.get_current_context().call_on_close(run.folder.close)
        if run is not None:
            options = stored_options(click.get_current_context(), options, run.config)
        if run is not None and run.has_ended:
            if run.folder is None:
                return
            folder = printable(run.folder.path)
            record = {"folder": str(run.folder.path), "ended": run.config["ended"]}
            said = f"{folder} has ended: nothing is left to do"
            if run.folder.model.is_file():
                said += f"; a new run begins with its model by: xpnet train --init {shlex.quote(folder)}"
            click.echo(json_line(record) if options["as_json"] else said)
            return
        function(*arguments, run=run, **options)

    return call


def stored_options(context: click.Context, options: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the run's settings, device and threads in the place of those that were not given.

    Threads are the run's where as many ranks go on as there were. Others have other shares of the cores.

    Raises:
        UserError: an option was given that differs from the run's, or a setting is not one of this version.
    """
    settings, device = config.get("settings"), config.get("device")
    if not isinstance(settings, dict) or not isinstance(device, dict):
        raise UserError(
            f"the run has the settings {clipped(settings)} and the device {clipped(device)}: expected objects"
        )
    parameters = {str(parameter.name): parameter for parameter in context.command.params}
    found = dict(options)
    given = [name for name in options if context.get_parameter_source(name) in _GIVEN]
    if "out" in given:
        raise UserError("--out conflicts with --resume: a run goes on in its folder")
    for name, value in settings.items():
        if name not in parameters:
            raise UserError(f"the run has the setting {clipped(name)}, which this version of xpnet does not know")
        stored = parameters[name].type_cast_value(context, stored_path(value) if isinstance(value, str) else value)
        if name not in given:
            found[name] = stored
        elif options[name] != stored and name not in CHANGEABLE:
            _refuse(context, parameters[name], options[name], stored)
    name, place = str(device.get("name")), launched()
    kind = name.partition(":")[0]
    if "device" not in given or options["device"] == "auto":
        found["device"] = name if place is None else kind  # the name is rank 0's
    elif options["device"].partition(":")[0] != kind:
        _refuse(context, parameters["device"], options["device"], name)
    if "threads" not in given and config.get("ranks", 1) == (1 if place is None else place.size):
        found["threads"] = parameters["threads"].type_cast_value(context, config.get("threads"))
    return found


def _refuse(context: click.Context, parameter: click.Parameter, given: object, stored: object) -> None:
    said, remedy = f"{parameter.opts[0]} {given}", "leave the option out"
    if parameter.name == "epochs":
        remedy += ", or begin a new run with its model by --init, since the learning rates are planned for all epochs"
    if context.get_parameter_source(str(parameter.name)) is ParameterSource.ENVIRONMENT:
        said, remedy = f"{parameter.envvar}={given}", "unset the variable"
    stored = "no value" if stored is None else stored
    raise UserError(f"{said} conflicts with the run, which has {stored}: {remedy}")
