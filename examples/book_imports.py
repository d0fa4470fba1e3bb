"""Rewrite the imports of programs of the book *Deep Learning from Scratch*, so that they run on xpnet.

Every Python file below SOURCE is copied to TARGET with only its imports changed; other files are copied unchanged.
``common.NAME`` and ``dataset.mnist`` become ``training.compat.book.NAME`` and ``….mnist``; with ``--device`` NumPy,
matplotlib's pyplot and pickle become those of ``training.compat.book``, too, which put arrays on a GPU and give host
arrays to plots and files.

    python -m examples.book_imports deep-learning-from-scratch on-xpnet
    cd on-xpnet/ch07 && python train_convnet.py
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click

PACKAGE = "training.compat.book"
"""The package of the book's modules."""

_MODULES = [
    (r"^(\s*)from common\.(\w+) import ", rf"\1from {PACKAGE}.\2 import "),
    (r"^(\s*)import common\.(\w+) as ", rf"\1import {PACKAGE}.\2 as "),
    (r"^(\s*)from common import ", rf"\1from {PACKAGE} import "),
    (r"^(\s*)from dataset\.mnist import ", rf"\1from {PACKAGE}.mnist import "),
    (r"^(\s*)from dataset import mnist\b", rf"\1from {PACKAGE} import mnist"),
]
_END = r"(?=[ \t]*(?:#|\r?$))"  # nothing else is imported on that line
_LIBRARIES = [
    (rf"^(\s*)import numpy as np{_END}", rf"\1from {PACKAGE} import np"),
    (rf"^(\s*)import matplotlib\.py(?:plot|lab) as plt{_END}", rf"\1from {PACKAGE} import pyplot as plt"),
    (rf"^(\s*)from matplotlib import pyplot as plt{_END}", rf"\1from {PACKAGE} import pyplot as plt"),
    (r"^(\s*)from matplotlib\.image import imread\b", rf"\1from {PACKAGE}.pyplot import imread"),
    (rf"^(\s*)import pickle( as \w+)?{_END}", rf"\1from {PACKAGE} import pickle\2"),
]


def convert(text: str, device: bool = False) -> str:
    """Return a program's text with its imports changed.

    Args:
        text: the program.
        device: also change the imports of NumPy, pyplot and pickle, so that arrays are on the active device.
    """
    for pattern, replacement in [*_MODULES, *(_LIBRARIES if device else [])]:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", is_flag=True, help="Change NumPy's, pyplot's and pickle's imports, too: arrays on a GPU.")
def main(source: Path, target: Path, device: bool) -> None:
    """Copy the programs below SOURCE to TARGET with their imports changed."""
    if target.exists():
        raise click.UsageError(f"{target} is there already: name a folder that is not")
    changed = 0
    for path in sorted(path for path in source.rglob("*") if path.is_file() and ".git" not in path.parts):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".py":
            shutil.copyfile(path, copy)
            continue
        try:
            text = path.read_bytes().decode("utf-8")  # line ends stay as they are
        except UnicodeDecodeError as error:
            raise click.ClickException(f"{path} is no UTF-8 text: {error}") from None
        converted = convert(text, device)
        copy.write_bytes(converted.encode("utf-8"))
        changed += converted != text
    click.echo(f"{changed} programs changed, in {target}")


if __name__ == "__main__":
    main()
