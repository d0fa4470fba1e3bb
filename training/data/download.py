"""Download a data set completely or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from training.data.idx import DataError, read_idx, write_idx
from training.data.sources import FILES, Source
from training.data.transfer import TransferError, transfer
from training.files import leftovers
from training.files.durable import sync_folder


def cache_dir() -> Path:
    """Return the user's cache folder for data sets: ``XPNET_CACHE_DIR``, else the platform's (~/.cache/xpnet, …)."""
    chosen = os.environ.get("XPNET_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("xpnet"))


def fetch(source: Source, folder: Path, *, progress: bool = True) -> None:
    """Download the four files of ``source`` with a progress bar each, and write them into ``folder``, unpacked.

    Plain IDX files are the cache: reading them needs no conversion and a third of the time of gzipped ones.

    Each file is tried at each mirror in turn until the checksum is right; a mirror that sends too much or is too slow
    is given up. The files are written to a temporary folder next to ``folder`` and moved when all four are right: at
    once if ``folder`` does not exist, else one by one over the old ones. An error or Ctrl-C before that leaves nothing
    behind.

    Raises:
        DataError: no mirror sent a file, the message has each mirror's answer; or ``folder`` is a link, which is not
            followed.
    """
    if folder.is_symlink():
        raise DataError(f"{folder} is a link, which is not followed")
    made = [parent for parent in (folder.parent, *folder.parent.parents) if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        leftovers.remove(folder.parent)
        temporary = folder.parent / leftovers.new_name(".download")
        temporary.mkdir(mode=0o700)
        try:
            ready = temporary / folder.name
            ready.mkdir()
            for (name, ndim), sha256, size in zip(FILES, source.sha256, source.sizes, strict=True):
                array = _fetch_file(source, temporary / f"{name}.gz", ndim, sha256, size, progress)
                write_idx(ready / name, array)
            _move(ready, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except BaseException:
        with suppress(OSError):  # not empty: another program uses it
            for parent in made:
                parent.rmdir()
        raise


def _move(ready: Path, folder: Path) -> None:
    """Move a folder to ``folder``; if that exists, move the files, replacing those of the same names."""
    try:
        ready.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        for name, _ in FILES:
            os.replace(ready / name, folder / name)
        sync_folder(folder)


def _fetch_file(source: Source, target: Path, ndim: int, sha256: str, size: int, progress: bool) -> np.ndarray:
    most = size + size // 1000 + 1000  # unpacked, or incompressible
    reasons = []
    for mirror in source.mirrors:
        url = mirror + target.name
        try:
            transfer(url, target, most, progress=progress)
            return read_idx(target, ndim, sha256=sha256)
        except (TransferError, DataError) as error:
            reasons.append(f"\n  {url}: {str(error).removeprefix(f'{target}: ')}")
    raise DataError(f"{target.name} of {source.title} could not be downloaded:{''.join(reasons)}")
