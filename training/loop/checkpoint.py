"""Save everything that a training needs to go on, and go on from it, to the same bits.

A checkpoint is a file of sections (``training.files.sections``): ``run`` (step, place in the epoch, sums, history),
``data``, ``params``, ``state`` (running statistics), ``optimizer``, ``scaler``, ``schedule``, ``random`` (the trainer's
generator, the program's, and NumPy's), one for each callback with a state, and ``config``. Shuffling needs no state: an
epoch's order follows from the loader's seed and the epoch's number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from backend import asarray, asnumpy, is_array, random
from training.files import FileError
from training.files.opening import not_a_link
from training.files.sections import Sections, read_sections, write_sections
from training.loop.checkpoint_checks import (
    NUMPY,
    check_entries,
    check_training,
    checked_progress,
    named,
    schedule_state,
    state_of,
)
from training.loop.epoch_table import History

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

FOLDER = "checkpoints"
"""The folder of checkpoints in a run's folder."""


def save(trainer: Trainer, file: str | Path, config: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint atomically: even after a power cut the file is the old one or the new one.

    Args:
        trainer: between two steps.
        file: ``*.safetensors``.
        config: anything JSON can hold, for whoever reads it.

    Raises:
        TypeError: the optimizer or the schedule has a state and no ``state_dict``, or a callback's cannot be written.
        OSError: the file cannot be written.
    """
    write_sections(Path(file), {**_capture(trainer), "config": dict(config or {})})


def read(path: str | Path) -> Sections:
    """Return the sections of a checkpoint: a file, or the newest one in a run's folder.

    Raises:
        FileNotFoundError: there is none.
        FileError: it is damaged or not a checkpoint; the message names the one before it, if there is one.
        OSError: it cannot be read.
    """
    file = find(path)
    try:
        sections = read_sections(not_a_link(file))
        check_entries(file, sections)
    except FileError as error:
        files = list_files(file.parent)
        before = files[: files.index(file)] if file in files else []
        remedy = f"; the checkpoint before it is {before[-1]}" if before else "; there is none before it"
        raise FileError(f"{error}{remedy}") from error
    return sections


def find(path: str | Path) -> Path:
    """Return the file that ``path`` is, or the newest checkpoint in the run's folder, or folder of checkpoints, that it
    is.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"there is no checkpoint {path}")
        return path
    files = list_files(path / FOLDER) or list_files(path)
    if not files:
        raise FileNotFoundError(f"there is no checkpoint in {path}")
    return files[-1]


def list_files(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest last; none if there is no folder."""
    return sorted(folder.glob("step-[0-9]*.safetensors"), key=lambda file: (len(file.name), file.name))


def file_name(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"step-{step:08d}.safetensors"


def restore(trainer: Trainer, sections: Sections) -> None:
    """Bring a trainer, made with the same arguments as the saved one, into its state.

    The program's generator and NumPy's get their state back, too. The number of epochs stays the trainer's.

    Raises:
        ValueError: network, data, optimizer or callbacks are not those of the checkpoint; nothing is changed.
    """
    network, update, run = trainer.network, trainer.update, sections["run"]
    check_training(trainer, sections)
    history = checked_progress(trainer, sections)
    try:
        update.optimizer.load_state_dict(sections["optimizer"])
    except TypeError as error:
        raise ValueError(f"the checkpoint's optimizer: {error}") from error
    if update.scaler is not None:
        update.scaler.load_state_dict(sections["scaler"])
    if "schedule" in sections:
        update.schedule.load_state_dict(sections["schedule"])  # type: ignore[union-attr]
    for name, callback in named(trainer.callbacks):
        if name in sections:
            callback.load_state_dict(sections[name])
    for own, saved in ((network.params, sections["params"]), (network.state, sections.get("state", {}))):
        for name, array in saved.items():
            own[name][...] = asarray(array)
    trainer.so_far.resume(run["batches"], run["seconds"], run["skipped_before"])
    trainer.so_far.totals[...] = asarray(run["totals"])
    trainer.step, trainer.samples, update.t = run["step"], run["samples"], run["updates"]
    trainer.history, trainer.is_stopped = History(history), run["is_stopped"]
    trainer.position = tuple(run["position"])
    drawn = sections["random"]
    trainer.random.state, random.current().state = drawn["trainer"], drawn["program"]
    if "numpy" in drawn:
        numpy.random.set_state((NUMPY, drawn["key"], *drawn["numpy"]))


def _capture(trainer: Trainer) -> Sections:
    network, update, so_far = trainer.network, trainer.update, trainer.so_far
    lines = "\n".join(json.dumps(result.as_dict()) for result in trainer.history)
    sections: Sections = {
        "run": {
            "step": trainer.step,
            "samples": trainer.samples,
            "updates": update.t,
            "position": trainer.position,
            "batches": so_far.batches,
            "seconds": so_far.seconds,
            "skipped_before": so_far.skipped_before,
            "is_stopped": trainer.is_stopped,
            "optimizer": type(update.optimizer).__name__,
            "totals": so_far.totals,
            "history": numpy.frombuffer(lines.encode(), "uint8"),
        },
        "data": {
            "train": trainer.train_loader.identity(),
            "test": trainer.test_loader.identity(),
            "mark": trainer.train_loader.mark(),
        },
        "params": network.params,
        "state": network.state,
        "optimizer": state_of("optimizer", update.optimizer),
        "random": {"trainer": trainer.random.state, "program": random.current().state, **_numpy_state()},
    }
    if update.scaler is not None:
        sections["scaler"] = update.scaler.state_dict()
    if state := schedule_state(trainer):
        sections["schedule"] = state
    for name, callback in named(trainer.callbacks):
        if state := callback.state_dict():
            sections[name] = state
    return {section: _on_host(entries) for section, entries in sections.items()}


def _on_host(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asnumpy(value) if is_array(value) else value for name, value in entries.items()}


def _numpy_state() -> dict[str, Any]:
    state = numpy.random.get_state(legacy=False)
    if not isinstance(state, dict) or state["bit_generator"] != NUMPY:
        return {}
    return {"key": state["state"]["key"], "numpy": [state["state"]["pos"], state["has_gauss"], state["gauss"]]}
