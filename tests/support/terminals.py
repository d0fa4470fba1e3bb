"""Stand-ins for terminals."""

import io
import re


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True

    @property
    def lines(self):
        """What was written, without colors, each drawing of a bar as a line of its own."""
        return plain_lines(self.getvalue())


def plain_lines(written):
    """Return the lines of what was written on a terminal, those that were drawn over among them, without colors."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", re.sub(r"\x1b\[[0-9]*[AK]", "\n", written))
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]
