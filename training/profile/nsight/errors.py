"""What goes wrong with a tool, in one line with the remedy."""


class ToolError(RuntimeError):
    """A profiler is missing, may not do its work, or exported what cannot be read; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
