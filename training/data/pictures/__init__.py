"""Read image files safely, and prepare them in the way that the training images were."""

from training.data.pictures.errors import ImageError
from training.data.pictures.preparation import FASHION_MNIST, FRAMINGS, MNIST, Preparation, Prepared, prepare
from training.data.pictures.reading import FORMATS, Picture, decode, read_picture

__all__ = [
    "FASHION_MNIST",
    "FORMATS",
    "FRAMINGS",
    "MNIST",
    "ImageError",
    "Picture",
    "Preparation",
    "Prepared",
    "decode",
    "prepare",
    "read_picture",
]
