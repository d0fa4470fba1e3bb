"""Files of every kind that xpnet writes and reads.

What is written is whole or not there (``training.files.durable``). What is read may have been made by anybody: a
reader takes memory and time in proportion to the file and no more, and whatever is wrong with a file is a
``FileError`` that says what was expected and what was found.
"""

from training.files.errors import FileError, clipped

__all__ = ["FileError", "clipped"]
