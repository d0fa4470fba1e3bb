"""Check that a checkpoint is one, and that it is of a training like the one that goes on from it."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from backend import checks, random
from training.data.loader import CHECKSUMS
from training.files import FileError, clipped
from training.files.sections import Sections
from training.loop.callbacks import Callback, EpochResult
from training.models.saving import check_fit
from training.optim.loss_scaling import LossScaler

if TYPE_CHECKING:
    from training.data import Loader
    from training.loop.trainer import Trainer

_ENTRIES: dict[str, dict[str, type]] = {
    "run": {
        **dict.fromkeys(("step", "samples", "updates", "batches", "skipped_before"), int),
        **dict.fromkeys(("totals", "history"), numpy.ndarray),
        "position": list,
        "seconds": float,
        "is_stopped": bool,
        "optimizer": str,
    },
    "data": {"train": dict, "test": dict, "mark": list},
    "params": {},
    "optimizer": {},
    "random": dict.fromkeys(("trainer", "program"), dict),
}

NUMPY = "MT19937"
"""NumPy's global generator, unless the program has replaced it."""


def check_entries(file: Path, sections: Sections) -> None:
    """Raise a FileError unless a file's sections are those of a checkpoint."""
    for section, entries in _ENTRIES.items():
        for name, kind in entries.items():
            if type(sections.get(section, {}).get(name)) is not kind:
                raise FileError(f"{file} lacks the {name} of section {section}: it is not a checkpoint of a training")
        if section not in sections:
            raise FileError(f"{file} lacks the section {section}: it is not a checkpoint of a training")


def state_of(kind: str, owner: Any) -> dict[str, Any]:
    """Return the state of an optimizer or a schedule; raise a TypeError if it has none to load again."""
    if not hasattr(owner, "state_dict") or not hasattr(owner, "load_state_dict"):
        raise TypeError(f"the {kind} {type(owner).__name__} cannot be saved: it has no state_dict and load_state_dict")
    return owner.state_dict()


def schedule_state(trainer: Trainer) -> dict[str, Any]:
    """Return the state of the trainer's schedule; empty for one without."""
    schedule = trainer.update.schedule
    return state_of("schedule", schedule) if hasattr(schedule, "state_dict") else {}


def named(callbacks: list[Callback]) -> list[tuple[str, Callback]]:
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


def checked_progress(trainer: Trainer, sections: Sections) -> list[EpochResult]:
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
            state: Any = (NUMPY, drawn.get("key"), position, has_gauss, gauss)
            numpy.random.RandomState().set_state(state)
    except (TypeError, IndexError) as error:
        raise ValueError(f"the checkpoint's state of NumPy's generator is none: {error}") from None
    return [_result(line) for line in run["history"].tobytes().decode().splitlines()]


def check_training(trainer: Trainer, sections: Sections) -> None:
    """Raise a ValueError unless a trainer is made like the one that was saved."""
    network, optimizer = trainer.network, trainer.update.optimizer
    for kind, loader in (("train", trainer.train_loader), ("test", trainer.test_loader)):
        _check_data(kind, loader, sections["data"][kind])
    trainer.train_loader.expect(sections["data"]["mark"])
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
    if ("schedule" in sections) != bool(schedule_state(trainer)):
        said = ("a", "none") if "schedule" in sections else ("no", "one")
        raise ValueError(f"the checkpoint is of a training with {said[0]} state of a schedule; this one has {said[1]}")
    if "schedule" in sections:
        try:
            copy.deepcopy(trainer.update.schedule).load_state_dict(sections["schedule"])  # type: ignore[union-attr]
        except TypeError as error:
            raise ValueError(f"the checkpoint's schedule: {error}") from error
    own_names = {name for name, _ in named(trainer.callbacks)}
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
        if name in CHECKSUMS:
            raise ValueError(f"the checkpoint is of other {kind} data: the {name} have changed")
        given = f"{name} is {clipped(saved.get(name))} in it, {clipped(own[name])} here"
        raise ValueError(f"the checkpoint is of other {kind} data: {given}")
