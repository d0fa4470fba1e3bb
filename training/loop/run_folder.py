"""Write and read the folder of a training run: settings, metrics, best model and figures."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from training.files import FileError, clipped, json_text, leftovers
from training.files.durable import append_line, make_folder, write_atomically
from training.files.opening import not_a_link, open_own
from training.loop import checkpoint, lock
from training.loop.lock import FolderLock
from training.models import Network

RUNS = Path("runs")
"""Where runs are kept unless a folder is named: below the current folder."""

MAX_METRICS, MAX_EPOCHS = 32 << 20, 250_000
"""The most bytes, and the most lines, that ``metrics.jsonl`` is read with."""

_log = logging.getLogger("xpnet")


class RunFolder:
    """Folder of a run: ``config.json``, ``metrics.jsonl``, ``model.safetensors``, figures, and ``checkpoints``.

    ``create`` makes one for a new run, ``reopen`` goes on with one; the constructor opens an existing one. Every file
    is complete and on the disk when its method returns, even after a power cut. The folder itself may be reached
    through symbolic links; its files may not be links: writing replaces one, or refuses it (``metrics.jsonl``), and
    reading refuses it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: FolderLock | None = None

    @classmethod
    def create(cls, path: str | Path | None = None, *, name: str = "run", root: str | Path = RUNS) -> RunFolder:
        """Make the folder ``path``, or ``root/YYYYmmdd-HHMMSS-name``, with a number appended if it exists.

        It is locked until ``close``, or until the object is deleted or the process ends. Temporary files of killed
        runs are deleted, in ``path`` or in all runs below ``root``.

        Raises:
            FileExistsError: ``path`` is a file, or a folder that is not empty or that another run has locked.
            OSError: it cannot be made.
        """
        run = cls(_new_folder(Path(root), name) if path is None else path)
        if path is None:
            for folder in Path(root).iterdir():
                leftovers.remove(folder)
                leftovers.remove(folder / checkpoint.FOLDER)
        else:
            try:
                make_folder(run.path)
            except FileExistsError as error:
                if not os.path.lexists(run.path):  # a parent folder is a file
                    raise NotADirectoryError(errno.ENOTDIR, "Not a folder", error.filename) from None
                if not run.path.is_dir():
                    raise _not_empty(run.path) from None
        run._lock = FolderLock(run.path)
        leftovers.remove(run.path)
        if any(entry.name != lock.NAME for entry in run.path.iterdir()):
            run.close()
            raise _not_empty(run.path)
        return run

    @classmethod
    def reopen(cls, path: str | Path) -> RunFolder:
        """Open the folder of a run that goes on, and lock it as ``create`` does. Temporary files are deleted.

        Raises:
            FileNotFoundError: there is no such folder.
            FileExistsError: another training is running in it.
            OSError: it cannot be locked, or its folder of checkpoints is a link.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise FileNotFoundError(f"there is no folder of a run {path}")
        run._lock = FolderLock(run.path)
        leftovers.remove(run.path)
        leftovers.remove(run.checkpoints)
        return run

    def close(self) -> None:
        """Unlock a folder that ``create`` or ``reopen`` locked; it can still be read and written."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @classmethod
    def newest(cls, root: str | Path = RUNS) -> RunFolder:
        """Return the run below ``root`` whose model was written last.

        Raises:
            FileNotFoundError: none has a model.
        """
        models = [path / "model.safetensors" for path in Path(root).glob("*/")]
        models = [model for model in models if model.is_file() and not model.is_symlink()]
        if not models:
            raise FileNotFoundError(f"no run with a model in {root}/: train one first")
        return cls(max(models, key=lambda model: (model.stat().st_mtime_ns, model.parent.name)).parent)

    @property
    def model(self) -> Path:
        """File of the best model so far."""
        return self.path / "model.safetensors"

    @property
    def searched(self) -> Path:
        """File of a search for a learning rate."""
        return self.path / "learning_rates.json"

    @property
    def profile(self) -> Path:
        """File of a profile of training steps."""
        return self.path / "profile.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints.

        Raises:
            OSError: it is a symbolic link.
        """
        return not_a_link(self.path / checkpoint.FOLDER)

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Write ``config.json``."""
        write_atomically(self.path / "config.json", (json_text.dump(config, indent=2) + "\n").encode())

    def load_config(self) -> dict[str, Any]:
        """Return what ``save_config`` wrote.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read, or is a link.
        """
        return read_object(self.path / "config.json")

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``; it is on the disk when this returns."""
        append_line(self.path / "metrics.jsonl", json_line(metrics))

    def save_metrics(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write ``metrics.jsonl`` anew, unless it holds just these records."""
        content = "".join(f"{json_line(record)}\n" for record in records).encode()
        file = self.path / "metrics.jsonl"
        if not content:
            file.unlink(missing_ok=True)
        elif not file.is_file() or file.is_symlink() or file.read_bytes() != content:
            write_atomically(file, content)

    def load_metrics(self) -> list[dict[str, Any]]:
        """Return what ``add_metrics`` wrote.

        A line that is not a JSON object, torn by a power cut, is skipped; warnings of the logger ``xpnet`` name the
        first ten.

        Raises:
            ValueError: the file has more than ``MAX_METRICS`` bytes or ``MAX_EPOCHS`` lines.
            OSError: it cannot be read, or is a link.
        """
        file = self.path / "metrics.jsonl"
        found, torn = [], 0
        with open_own(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_METRICS:
                raise FileError(f"{file} has {size:,} bytes; of metrics at most {MAX_METRICS:,} are read")
            for number, line in enumerate(json_text.lines(stream), 1):
                if number > MAX_EPOCHS:
                    raise FileError(f"{file} has more than {MAX_EPOCHS:,} lines; no more are read")
                try:
                    record = json_text.parse(line)
                except FileError:
                    record = None
                if isinstance(record, dict):
                    found.append(record)
                elif line:
                    torn += 1
                    if torn <= 10:
                        _log.warning("%s: line %d is torn and was left out: %.40r", file, number, line)
        if torn > 10:
            _log.warning("%s: %d lines in all are torn and were left out", file, torn)
        return found

    def save_model(self, network: Network) -> None:
        """Write ``model.safetensors`` atomically, with the network's ``config`` in its header."""
        network.save_params(self.model)

    def figure(self, name: str) -> Path:
        """Return the file of a figure."""
        return self.path / f"{name}.png"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"


def read_object(file: Path) -> dict[str, Any]:
    """Return the object that a JSON file of a run holds.

    Raises:
        ValueError: the file is damaged, or holds something else.
        OSError: it cannot be read, or is a link.
    """
    with open_own(file) as stream:
        try:
            found = json_text.read(stream)
        except FileError as error:
            raise FileError(f"{file}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds {clipped(found)}, expected an object")
    return found


def _new_folder(root: Path, name: str) -> Path:
    base = root / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    for number in itertools.count(1):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            make_folder(folder)
        except FileExistsError as error:
            if not root.is_dir():  # it, or a parent, is a file
                raise NotADirectoryError(errno.ENOTDIR, "Not a folder", error.filename) from None
            continue
        return folder
    raise AssertionError("numbers do not end")


def _not_empty(folder: Path) -> FileExistsError:
    return FileExistsError(f"{folder} exists and is not an empty folder; a run needs a new one")


def json_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line of JSON. JSON lacks NaN and infinity: they become null."""
    return json_text.dump(record)
