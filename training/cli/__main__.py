"""``python -m training.cli`` is ``xpnet``."""

from training.command import program

program()
