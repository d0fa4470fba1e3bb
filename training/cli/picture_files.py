"""The pictures that a command is given: files, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from training.data.formats.folders import ENDINGS
from training.files.printable import printable


def picture_files(given: Iterable[Path]) -> list[Path]:
    """Return the files that are meant: a file is itself, a folder all pictures in it and below, in order of names.

    What is neither and has ``*``, ``?`` or ``[`` is a pattern, in which ``**`` stands for any folders.

    Raises:
        ValueError: a folder has no pictures, or no file matches a pattern.
    """
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in ENDINGS and file.is_file()]
            if not found:
                raise ValueError(f"{printable(path)} has no pictures, whose names end in {', '.join(sorted(ENDINGS))}")
            files += found
        elif path.exists() or not glob.has_magic(str(path)):
            files.append(path)
        else:
            matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            found = [file for file in matches if file.is_file()]
            if not found and any(sign in str(path) for sign in "*?"):
                raise ValueError(f"no file matches {printable(path)}")
            files += found or [path]  # brackets may be part of a name: a file that does not exist is told when read
    return files
