"""Make text safe for a terminal."""

from __future__ import annotations

import os
import unicodedata

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control and format characters, surrogates, unassigned code points, line and paragraph separators."""


def printable(text: str | os.PathLike[str]) -> str:
    r"""Escape the characters that control a terminal, as Python does: ``\x1b``, ``\n``, ``\u202e``.

    Use it for names that come from files: a name must neither move the cursor nor fake a line of output. Bytes of
    a file name that are not valid UTF-8 are shown as ``\udcff``.
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _ESCAPED else character
        for character in os.fspath(text)
    )


def one_line(text: str) -> str:
    """Return a message in one line, safe for a terminal; its line breaks become ``: `` and ``; ``."""
    joined = ""
    for line in map(str.strip, text.splitlines()):
        joined += f" {line}" if joined.endswith((":", ".", ";")) or not joined else f"; {line}" if line else ""
    return printable(joined.strip())
