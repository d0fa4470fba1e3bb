"""Recognize the parts of data by names: train, val, test."""

from __future__ import annotations

import re
from pathlib import Path

SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""The names that files and folders of each part have."""

_PARTS = {spelling: part for part, spellings in SPELLINGS.items() for spelling in spellings}


def part_of(name: str) -> str | None:
    """Return the part that a name means, in upper or lower case: "Validation" is "val"; None if it means none."""
    return _PARTS.get(name.lower())


def part_folders(folder: Path) -> dict[str, Path]:
    """Return the folders in a folder that have the name of a part, by part."""
    return {part: entry for entry in sorted(folder.iterdir()) if (part := part_of(entry.name)) and entry.is_dir()}


def part_in(name: str) -> tuple[str, str]:
    """Return the part that a word of a name means, and the other words: "x_train" is ("train", "x").

    A name without such a word belongs to the training part.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    for place, word in enumerate(words):
        if word in _PARTS:
            return _PARTS[word], "_".join(words[:place] + words[place + 1 :])
    return "train", "_".join(words)
