"""Read and write files of every kind that xpnet uses.

Files are written as a whole or not at all (``training.files.durable``). A file that is read may come from anyone: a
reader takes memory and time in proportion to the file's size, and reports any damage as a ``FileError`` that says what
was expected and what was found.
"""

from training.files.errors import FileError, clipped

__all__ = ["FileError", "clipped"]
