"""The error class of pictures."""


class ImageError(ValueError):
    """An unusable picture; the message says why and, from a function that takes a path, names the file."""
