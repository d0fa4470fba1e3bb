"""``python -m training.cli`` is ``xpnet``."""

from training.cli import main

main(prog_name="xpnet")
