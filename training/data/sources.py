"""The named data sets: files, checksums, classes, and the addresses that publish them."""

from __future__ import annotations

from dataclasses import dataclass

FILES = (
    ("train-images-idx3-ubyte", 3),
    ("train-labels-idx1-ubyte", 1),
    ("t10k-images-idx3-ubyte", 3),
    ("t10k-labels-idx1-ubyte", 1),
)
"""Name and number of axes of the four files of every set, in the order of ``Source.sha256``."""

INPUT_DIM = (1, 28, 28)
"""Shape (C, H, W) of an image of every set."""

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Source:
    """A data set of labelled images in four IDX files.

    Attributes:
        title: its name in messages.
        classes: the names of its labels 0, 1, ….
        sha256: of the uncompressed contents, in the order of ``FILES``.
        mirrors: addresses, tried in turn, to which a file's name with ``.gz`` is appended; empty for the set that is
        part
            of this package. The checksums make plain http safe.
        sizes: of the uncompressed contents in bytes, in the same order; a larger download is refused.
    """

    title: str
    classes: tuple[str, ...]
    sha256: tuple[str, str, str, str]
    mirrors: tuple[str, ...] = ()
    sizes: tuple[int, int, int, int] = (47_040_016, 60_008, 7_840_016, 10_008)


EMBEDDED = "mnist10k"
"""The data set that is part of this package: the first 10,000 training and first 2,000 test images of MNIST."""

SOURCES = {
    EMBEDDED: Source(
        title="the embedded part of MNIST",
        classes=DIGITS,
        sha256=(
            "2889698e6bc3614913e76901316712919d1998fc2b44512451bfe65bc1e668b1",
            "651e38e2ac0632f5113ec18f1df4977117f953197819034009971a6675a0df78",
            "3f6bd66dee48df299584c67669bceee490faa25f931496bd7473b42106d7daed",
            "7b098e5f6a3065807cebeabf36fb1724a8aff19f2673ac08b4923e0e8c715bce",
        ),
        sizes=(7_840_016, 10_008, 1_568_016, 2_008),
    ),
    "mnist": Source(
        title="MNIST",
        classes=DIGITS,
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": Source(
        title="Fashion-MNIST",
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
}
