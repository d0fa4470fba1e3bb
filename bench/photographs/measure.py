"""Count the photographs that a model classifies correctly, and the pictures without a digit that it doubts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy

from backend import asarray, asnumpy
from bench.photographs import SEED
from bench.photographs.draw import KINDS, Page, draw
from bench.photographs.nonsense import NONSENSE
from training.data import Dataset
from training.data.pictures import ImageError, Picture, Preparation
from training.models import Network


@dataclass(frozen=True)
class Score:
    """The result for one kind of picture.

    Attributes:
        kind: its name.
        count: pictures.
        right: digits that were classified correctly.
        doubted: pictures that were refused, or gave a warning.
    """

    kind: str
    count: int
    right: int
    doubted: int


def photographs(data: Dataset, kind: str, count: int, seed: int = SEED) -> Iterator[tuple[Page, int]]:
    """Yield pages with a test image of ``data``, and its label; they depend on the seed and the kind only."""
    rng = numpy.random.default_rng([seed, *kind.encode()])
    for chosen in rng.integers(len(data.test_labels), size=count):
        yield _as_bytes(draw(data.test_images[chosen, 0], kind, rng)), int(data.test_labels[chosen])


def score_digits(
    network: Network, data: Dataset, count: int, kinds: Sequence[str] = tuple(KINDS), seed: int = SEED
) -> Iterator[Score]:
    """Classify ``count`` photographs of each kind."""
    preparation = _preparation(network)
    for kind in kinds:
        images, labels, doubted = [], [], 0
        for page, label in photographs(data, kind, count, seed):
            try:
                prepared = preparation(Picture(page, (page.shape[0], page.shape[1])))
            except ImageError:
                doubted += 1
                continue
            images.append(prepared.image)
            labels.append(label)
            doubted += bool(prepared.warnings)
        classes = asnumpy(network.predict(asarray(numpy.stack(images)))).argmax(axis=1) if images else []
        yield Score(kind, count, int(numpy.equal(classes, labels).sum()), doubted)


def score_nonsense(network: Network, data: Dataset, count: int) -> Iterator[Score]:
    """Classify ``count`` pictures of each kind that do not show exactly one digit."""
    preparation = _preparation(network)
    for kind, make in NONSENSE.items():
        rng = numpy.random.default_rng([SEED, *kind.encode()])
        doubted = 0
        for _ in range(count):
            page = _as_bytes(make(data.test_images[:, 0], rng))
            try:
                doubted += bool(preparation(Picture(page, (page.shape[0], page.shape[1]))).warnings)
            except ImageError:
                doubted += 1
        yield Score(kind, count, 0, doubted)


def _preparation(network: Network) -> Preparation:
    config = network.config or {}
    return Preparation.from_config(config, tuple(config.get("input_dim", network.input_dim)))


def _as_bytes(page: Page) -> Page:
    """Return a page with its pixels rounded to bytes, as in a file."""
    return numpy.rint(page.clip(0, 1) * 255).astype(numpy.float32) / 255
