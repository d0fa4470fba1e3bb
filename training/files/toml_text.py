"""Read TOML, and write the part of it that settings need: names with texts, numbers, truth values, and lists."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.files.errors import FileError, shortened

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20
"""The most bytes that are parsed."""


def read(file: Path) -> dict[str, Any]:
    """Return what a TOML file holds; errors as of ``read_content`` and ``parse``."""
    return parse(file, read_content(file))


def read_content(file: Path) -> bytes:
    """Return the bytes of a TOML file.

    Raises:
        FileError: it is longer than ``MAX_BYTES``.
        OSError: it cannot be read.
    """
    with open(file, "rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise FileError(f"{file}: more than {MAX_BYTES:,} bytes; expected the settings of a run")
    return content


def parse(file: Path, content: bytes) -> dict[str, Any]:
    """Return what the bytes of a TOML file hold.

    Bytes that are not UTF-8 are read as Python reads those of a file's name (``os.fsdecode``), so that every path can
    be kept.

    Raises:
        FileError: they are not TOML.
    """
    try:
        return tomllib.loads(content.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
    except RecursionError as error:
        raise FileError(f"{file}: TOML nested too deeply") from error
    except ValueError as error:
        raise FileError(f"{file}: not TOML: {shortened(error)}") from error


def dump(values: Mapping[str, Any]) -> bytes:
    """Return values as TOML, one line each in their order. Those that are None are left out: TOML lacks it.

    Args:
        values: texts, whole numbers, numbers, truth values, and lists of these, by names of letters, digits, - and _.
    """
    lines = [f"{name} = {_text(value)}\n" for name, value in values.items() if value is not None]
    return "".join(lines).encode("utf-8", "surrogateescape")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML has JSON's escapes
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value)
