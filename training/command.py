"""The entry point of the command ``xpnet``: it imports next to nothing before it has set what Ctrl-C does."""

import signal


def program() -> None:
    """Run the command ``xpnet``. Before and after ``training.cli.main`` has its handlers, Ctrl-C just ends it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from training.distributed.launch import launched

    if place := launched():
        from training.distributed.supervisor import watch

        watch(place)
    from training.cli import main

    main()
