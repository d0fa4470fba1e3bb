"""Save everything that a training needs to go on, and go on from it, to the same bits.

A checkpoint is a file of sections (``training.files.sections``): ``run`` (step, place in the epoch, sums, history),
``data``, ``params``, ``state`` (running statistics), ``optimizer``, ``scaler``, ``schedule``, ``random`` (the trainer's
generator, the program's, and NumPy's), one for each callback with a state, and ``config``. Shuffling needs no state: an
epoch's order follows from the loader's seed and the epoch's number.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from backend import asarray, asnumpy, checks, is_array, random
from training.files import FileError, clipped
from training.files.opening import not_a_link
from training.files.sections import Sections, read_sections, write_sections
from training.loop.callbacks import Callback, EpochResult
from training.loop.epoch_table import History
from training.models.saving import check_fit
from training.optim.loss_scaling import LossScaler

if TYPE_CHECKING:
    from training.data import Loader
    from training.loop.trainer import Trainer

FOLDER = "checkpoints"
"""The folder of checkpoints in a run's folder."""

_RUN: dict[str, type] = {
    **dict.fromkeys(("step", "samples", "updates", "batches", "skipped_before"), int),
    **dict.fromkeys(("totals", "history"), numpy.ndarray),
    "position": list,
    "seconds": float,
    "is_stopped": bool,
    "optimizer": str,
}

_NUMPY = "MT19937"  # NumPy's global generator, unless the program has replaced it


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
        _check_entries(file, sections)
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
    _check(trainer, sections)
    history = _checked_progress(trainer, sections)
    try:
        update.optimizer.load_state_dict(sections["optimizer"])
    except TypeError as error:
        raise ValueError(f"the checkpoint's optimizer: {error}") from error
    if update.scaler is not None:
        update.scaler.load_state_dict(sections["scaler"])
    if "schedule" in sections:
        update.schedule.load_state_dict(sections["schedule"])  # type: ignore[union-attr]
    for name, callback in _named(trainer.callbacks):
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
        numpy.random.set_state((_NUMPY, drawn["key"], *drawn["numpy"]))


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
        "data": {"train": trainer.train_loader.identity(), "test": trainer.test_loader.identity()},
        "params": network.params,
        "state": network.state,
        "optimizer": _state_of("optimizer", update.optimizer),
        "random": {"trainer": trainer.random.state, "program": random.current().state, **_numpy_state()},
    }
    if update.scaler is not None:
        sections["scaler"] = update.scaler.state_dict()
    if state := _schedule_state(trainer):
        sections["schedule"] = state
    for name, callback in _named(trainer.callbacks):
        if state := callback.state_dict():
            sections[name] = state
    return {section: _on_host(entries) for section, entries in sections.items()}


def _check_entries(file: Path, sections: Sections) -> None:
    expected: dict[str, dict[str, type]] = {
        "run": _RUN,
        "data": dict.fromkeys(("train", "test"), dict),
        "params": {},
        "optimizer": {},
    }
    expected["random"] = dict.fromkeys(("trainer", "program"), dict)
    for section, entries in expected.items():
        for name, kind in entries.items():
            if type(sections.get(section, {}).get(name)) is not kind:
                raise FileError(f"{file} lacks the {name} of section {section}: it is not a checkpoint of a training")
        if section not in sections:
            raise FileError(f"{file} lacks the section {section}: it is not a checkpoint of a training")


def _on_host(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asnumpy(value) if is_array(value) else value for name, value in entries.items()}


def _state_of(kind: str, owner: Any) -> dict[str, Any]:
    if not hasattr(owner, "state_dict") or not hasattr(owner, "load_state_dict"):
        raise TypeError(f"the {kind} {type(owner).__name__} cannot be saved: it has no state_dict and load_state_dict")
    return owner.state_dict()


def _schedule_state(trainer: Trainer) -> dict[str, Any]:
    schedule = trainer.update.schedule
    return _state_of("schedule", schedule) if hasattr(schedule, "state_dict") else {}


def _numpy_state() -> dict[str, Any]:
    state = numpy.random.get_state(legacy=False)
    if not isinstance(state, dict) or state["bit_generator"] != _NUMPY:
        return {}
    return {"key": state["state"]["key"], "numpy": [state["state"]["pos"], state["has_gauss"], state["gauss"]]}


def _named(callbacks: list[Callback]) -> list[tuple[str, Callback]]:
    """Return the callbacks with the names of their sections: their classes', numbered from the second of a class on."""
    counts: Counter[str] = Counter()
    named = []
    for callback in callbacks:
        kind = type(callback).__name__
        counts[kind] += 1
        named.append((f"callback {kind}{counts[kind] if counts[kind] > 1 else ''}", callback))
    return named


def _result(line: str) -> EpochResult:
    try:
        return EpochResult(**json.loads(line))
    except TypeError as error:
        raise ValueError(f"the checkpoint has results of another version of xpnet: {error}") from None


def _checked_progress(trainer: Trainer, sections: Sections) -> list[EpochResult]:
    """Check the numbers and the random states, which no other object checks, and return the history.

    Raises:
        ValueError: one of them is not what this program writes.
    """
    run, drawn = sections["run"], sections["random"]
    for name in ("step", "samples", "updates", "skipped_before"):
        checks.whole(f"the checkpoint's {name}", run[name], 0)
    checks.whole("the checkpoint's batches", run["batches"], 0, len(trainer.train_loader))
    if run["totals"].shape != (3,) or run["totals"].dtype != "float64" or len(run["position"]) != 2:
        raise ValueError("the checkpoint's totals must be float64 [3], and its position two numbers")
    for owner in ("trainer", "program"):
        random.Generator().state = drawn[owner]
    try:
        if "numpy" in drawn:
            position, has_gauss, gauss = drawn["numpy"]
            state: Any = (_NUMPY, drawn.get("key"), position, has_gauss, gauss)
            numpy.random.RandomState().set_state(state)
    except (TypeError, IndexError) as error:
        raise ValueError(f"the checkpoint's state of NumPy's generator is none: {error}") from None
    return [_result(line) for line in run["history"].tobytes().decode().splitlines()]


def _check(trainer: Trainer, sections: Sections) -> None:
    """Raise a ValueError unless a trainer is made like the one that was saved."""
    network, optimizer = trainer.network, trainer.update.optimizer
    for kind, loader in (("train", trainer.train_loader), ("test", trainer.test_loader)):
        _check_data(kind, loader, sections["data"][kind])
    for own, saved in ((network.params, sections["params"]), (network.state, sections.get("state", {}))):
        check_fit("the checkpoint", saved, {name: array.shape for name, array in own.items()})
        for name, array in own.items():
            if array.dtype != saved[name].dtype:
                raise ValueError(
                    f"the checkpoint does not fit the network: {name} is {saved[name].dtype} in it, {array.dtype} here"
                )
    expected, given = sections["run"]["optimizer"], type(optimizer).__name__
    if expected != given:
        raise ValueError(f"the checkpoint is of a training with {expected}, expected {given}")
    for key, value in sections["optimizer"].items():
        name = key.partition(".")[2]
        shape = getattr(network.params.get(name), "shape", None)
        if isinstance(value, numpy.ndarray) and name and value.shape != shape:
            raise ValueError(f"the checkpoint has {clipped(key)} of {value.shape}, expected {shape}")
    if trainer.update.scaler is not None and "scaler" in sections:
        LossScaler().load_state_dict(sections["scaler"])
    if ("scaler" in sections) != (trainer.update.scaler is not None):
        said = ("a", "none") if "scaler" in sections else ("no", "one")
        raise ValueError(f"the checkpoint is of a training with {said[0]} loss scale; this one has {said[1]}")
    if ("schedule" in sections) != bool(_schedule_state(trainer)):
        said = ("a", "none") if "schedule" in sections else ("no", "one")
        raise ValueError(f"the checkpoint is of a training with {said[0]} state of a schedule; this one has {said[1]}")
    if "schedule" in sections:
        try:
            copy.deepcopy(trainer.update.schedule).load_state_dict(sections["schedule"])  # type: ignore[union-attr]
        except TypeError as error:
            raise ValueError(f"the checkpoint's schedule: {error}") from error
    own_names = {name for name, _ in _named(trainer.callbacks)}
    lost = [
        name.removeprefix("callback ") for name in sections if name.startswith("callback ") and name not in own_names
    ]
    if lost:
        raise ValueError(f"the checkpoint has the state of callbacks that this training lacks: {', '.join(lost)}")


def _check_data(kind: str, loader: Loader, saved: Mapping[str, Any]) -> None:
    own = json.loads(json.dumps(loader.identity()))  # tuples are lists in the file
    different = [name for name in own if own[name] != saved.get(name)]
    if different:
        name = different[0]
        given = f"{name} is {clipped(saved.get(name))} in it, {clipped(own[name])} here"
        raise ValueError(f"the checkpoint is of other {kind} data: {given}")
