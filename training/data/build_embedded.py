"""Build the embedded data set from full MNIST: ``python -m training.data.build_embedded FOLDER``.

FOLDER has the four IDX files of MNIST, plain or gzipped. The first 10,000 training and the first 2,000 test
images with their labels are written in the same format, gzipped; the SHA-256 sums of the uncompressed
contents are printed and compared with the published ones. The compressed bytes depend on the version of zlib.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from training.data.datasets import load
from training.data.idx import DataError, check_sha256, write_idx
from training.data.sources import EMBEDDED, FILES, SOURCES

TRAINING_IMAGES = 10_000
TEST_IMAGES = 2_000


def build(data_dir: Path, out: Path) -> dict[str, bytes]:
    """Write the four files into ``out``.

    Returns:
        The uncompressed content of each by the file's name.

    Raises:
        DataError: MNIST is not found in ``data_dir``, or its checksums differ from the published ones.
    """
    mnist = load("mnist", data_dir)
    parts = (
        mnist.train_images[:TRAINING_IMAGES, 0],
        mnist.train_labels[:TRAINING_IMAGES],
        mnist.test_images[:TEST_IMAGES, 0],
        mnist.test_labels[:TEST_IMAGES],
    )
    out.mkdir(parents=True, exist_ok=True)
    return {f"{name}.gz": write_idx(out / f"{name}.gz", part) for (name, _), part in zip(FILES, parts, strict=True)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the files and print their checksums; exit with 1 if they differ from those in ``training.data.sources``."""
    parser = argparse.ArgumentParser(prog="python -m training.data.build_embedded", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with the four files of MNIST")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "embedded", help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        contents = build(options.folder, options.out)
        for name, content in contents.items():
            print(f"{hashlib.sha256(content).hexdigest()}  {(options.out / name).stat().st_size:>8}  {name}")
        for (name, content), expected in zip(contents.items(), SOURCES[EMBEDDED].sha256, strict=True):
            check_sha256(content, expected, options.out / name)
    except DataError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
