"""The one error of pictures."""


class ImageError(ValueError):
    """A picture that cannot be used; the message says why and, from a function that takes a path, names the file."""
