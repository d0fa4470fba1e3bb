"""``python -m training.cli`` is ``xpnet``."""

from training.cli import program

program()
