"""Downloads a data set whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from training.data.idx import DataError, read_idx, write_idx
from training.data.sources import FILES, Source
from training.files import leftovers
from training.files.durable import sync_folder


def cache_dir() -> Path:
    """The user's cache folder for data sets: ``XPNET_CACHE_DIR``, else the platform's (~/.cache/xpnet, …)."""
    chosen = os.environ.get("XPNET_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("xpnet"))


def fetch(source: Source, folder: Path, *, progress: bool = True) -> None:
    """Downloads the four files of ``source`` with a progress bar each, and writes them into ``folder``, unpacked.

    Plain IDX is the cache of the converted arrays: it is read with no conversion, in a third of the time that MNIST's
    gzipped files take.

    Every file is tried at each mirror in turn until one gives the content with the right checksum. The files
    are gathered in a temporary folder beside ``folder`` and moved there when all four are right, so an error
    or Ctrl-C leaves nothing behind.

    Raises:
        DataError: no mirror has given a file; the message says what each answered.
    """
    made = [parent for parent in (folder.parent, *folder.parent.parents) if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        leftovers.remove(folder.parent)
        temporary = folder.parent / leftovers.new_name(".download")
        temporary.mkdir(mode=0o700)
        try:
            for (name, ndim), sha256 in zip(FILES, source.sha256, strict=True):
                array = _fetch_file(source, temporary / f"{name}.gz", ndim, sha256, progress)
                write_idx(temporary / name, array)
            folder.mkdir(exist_ok=True)
            for name, _ in FILES:
                os.replace(temporary / name, folder / name)
            sync_folder(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except BaseException:
        with suppress(OSError):  # not empty: somebody else uses it by now
            for parent in made:
                parent.rmdir()
        raise


def _fetch_file(source: Source, target: Path, ndim: int, sha256: str, progress: bool) -> np.ndarray:
    reasons = []
    for mirror in source.mirrors:
        url = mirror + target.name
        try:
            _transfer(url, target, progress)
            return read_idx(target, ndim, sha256=sha256)
        except (OSError, DataError) as error:  # requests' exceptions are OSErrors
            reasons.append(f"\n  {url}: {str(error).removeprefix(f'{target}: ')}")
    raise DataError(f"{target.name} of {source.title} could not be downloaded:{''.join(reasons)}")


def _transfer(url: str, target: Path, progress: bool) -> None:
    from pooch import HTTPDownloader
    from tqdm import tqdm

    bar: Any = False
    if progress:
        # Pooch sets the total once it knows it; until then one is needed, as it asks whether the bar is true.
        bar = tqdm(total=1, desc=target.name, unit="B", unit_scale=True, leave=False)
    try:
        HTTPDownloader(progressbar=bar, chunk_size=1 << 16)(url, str(target), None)
    finally:
        if bar is not False:
            bar.close()
