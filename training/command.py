"""Starts the command ``xpnet``, and imports next to nothing before it has said what Ctrl-C does."""

import signal


def program() -> None:
    """Is the command ``xpnet``: before and after ``training.cli.main`` has its handlers, Ctrl-C just ends it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from training.cli import main

    main(prog_name="xpnet")
