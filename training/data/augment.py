"""Change training samples at random, on the device: by the same random numbers, and to the same bits, on every one.

What happens to a sample depends on the seed, the epoch and the sample's index in the data alone: not on the batch it
comes in, nor on a number of threads. (Mixing is with the neighbor in the batch.) Random numbers are Philox's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy

from backend import array_module, asnumpy, checks, random
from backend.types import Array
from layers import Loss
from layers.base import Shape

AUGMENT_STREAM = 5 << 60
"""The numbers of epoch k are those of the seed's stream ``AUGMENT_STREAM + k``, far from those of other purposes."""


class Change(ABC):
    """A random change of samples.

    Attributes:
        draws: how many random numbers it takes for each sample.
        mixes: it makes rows (n, classes) of labels.
        keeps_places: every pixel stays where it is, so that labels of pixels stay right.
    """

    draws = 1
    mixes = False
    keeps_places = False

    @abstractmethod
    def apply(self, x: Array, t: Array, u: numpy.ndarray, classes: int) -> tuple[Array, Array]:
        """Return changed samples and targets, in new arrays.

        Args:
            x: images as they are stored, (n, H, W, C).
            t: labels (n,), or rows (n, classes).
            u: (n, draws) random numbers, uniform from 0 to below 1, on the host.
            classes: number of classes.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, vars(self).values()))})"


class Flip(Change):
    """Mirror half of the images, left to right."""

    def apply(self, x: Array, t: Array, u: numpy.ndarray, classes: int) -> tuple[Array, Array]:
        columns = numpy.arange(x.shape[2])
        return _gathered(x, numpy.arange(x.shape[1])[None], numpy.where(u < 0.5, columns[::-1], columns)), t


class Crop(Change):
    """Pad images by a share of their size with zeros, and cut their size out at a random place: a shift.

    Args:
        share: of height and width that is padded on each side, from 0 to 1.
    """

    draws = 2

    def __init__(self, share: float = 0.125) -> None:
        self.share = checks.real("share", share, least=0, most=1)

    def apply(self, x: Array, t: Array, u: numpy.ndarray, classes: int) -> tuple[Array, Array]:
        places = []
        for axis, size in enumerate(x.shape[1:3]):
            pad = round(self.share * size)
            places.append(numpy.arange(size) + (u[:, axis : axis + 1] * (2 * pad + 1)).astype(int) - pad)
        return _gathered(x, *places), t


class Turn(Change):
    """Rotate and scale images about their center, with bilinear interpolation and zeros beyond the border.

    Args:
        degrees: the largest rotation, either way.
        scale: the largest change of size: 0.1 for 0.9 to 1.1 times.
    """

    draws = 2

    def __init__(self, degrees: float = 10.0, scale: float = 0.1) -> None:
        self.degrees = checks.real("degrees", degrees, least=0, most=180)
        self.scale = checks.real("scale", scale, least=0, below=1)

    def apply(self, x: Array, t: Array, u: numpy.ndarray, classes: int) -> tuple[Array, Array]:
        height, width = x.shape[1:3]
        angle = ((2 * u[:, 0] - 1) * math.radians(self.degrees))[:, None, None]
        factor = (1 + (2 * u[:, 1] - 1) * self.scale)[:, None, None]
        down = numpy.arange(height)[None, :, None] - (height - 1) / 2
        across = numpy.arange(width)[None, None, :] - (width - 1) / 2
        rows = (numpy.cos(angle) * down - numpy.sin(angle) * across) / factor + (height - 1) / 2
        columns = (numpy.sin(angle) * down + numpy.cos(angle) * across) / factor + (width - 1) / 2
        top, left = numpy.floor(rows).astype(int), numpy.floor(columns).astype(int)
        out = array_module(x).zeros_like(x)
        for lower in (0, 1):
            for right in (0, 1):
                weight = abs(1 - lower - (rows - top)) * abs(1 - right - (columns - left))
                out += _taken(x, top + lower, left + right) * _on(x, weight.astype(x.dtype)[..., None])
        return out, t


class Cutout(Change):
    """Set a square at a random place to zero (DeVries and Taylor, 2017).

    Args:
        share: side of the square as a share of the image's.
    """

    draws = 2
    keeps_places = True

    def __init__(self, share: float = 0.25) -> None:
        self.share = checks.real("share", share, least=0, most=1)

    def apply(self, x: Array, t: Array, u: numpy.ndarray, classes: int) -> tuple[Array, Array]:
        inside = _box(x, u, numpy.full(len(x), self.share))
        return x * _on(x, (~inside).astype(x.dtype)[..., None]), t


class Color(Change):
    """Change brightness, contrast and, of color images, saturation: each image in its own way.

    Args:
        strength: the largest change: 0.2 for contrasts and saturations of 0.8 to 1.2 times, and brightness by 0.2
            either way.
    """

    draws = 3
    keeps_places = True

    def __init__(self, strength: float = 0.2) -> None:
        self.strength = checks.real("strength", strength, least=0, below=1)

    def apply(self, x: Array, t: Array, u: numpy.ndarray, classes: int) -> tuple[Array, Array]:
        changes = (2 * u - 1) * self.strength + [1, 0, 1]
        factor, added, saturation = (_on(x, each.astype(x.dtype)[:, None, None, None]) for each in changes.T)
        if x.shape[-1] == 3:
            gray = (x[..., :1] + x[..., 1:2] + x[..., 2:]) / 3
            x = gray + (x - gray) * saturation
        return x * factor + added, t


class Mixup(Change):
    """Mix each sample, and its label, with its neighbor in the batch, in a random ratio (Zhang et al., 2018)."""

    mixes = True

    def apply(self, x: Array, t: Array, u: numpy.ndarray, classes: int) -> tuple[Array, Array]:
        share = _on(x, u.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)))
        return share * x + (1 - share) * _neighbors(x), _mixed(t, u[:, 0], classes)


class CutMix(Change):
    """Replace a rectangle by that of the neighbor in the batch, and mix the labels by its area (Yun et al., 2019)."""

    draws = 3
    mixes = True

    def apply(self, x: Array, t: Array, u: numpy.ndarray, classes: int) -> tuple[Array, Array]:
        inside = _box(x, u, numpy.sqrt(u[:, 2]))
        kept = _on(x, inside[..., None])
        mixed = array_module(x).where(kept, _neighbors(x), x)
        return mixed, _mixed(t, 1 - inside.mean(axis=(1, 2)), classes)


CHANGES: dict[str, type[Change]] = {
    "flip": Flip, "crop": Crop, "turn": Turn, "cutout": Cutout, "color": Color, "mixup": Mixup, "cutmix": CutMix
}  # fmt: skip
"""The changes by name."""


class Augmentation:
    """Random changes of the training samples, one after the other.

    Args:
        changes: names of ``CHANGES``, or ``Change`` objects.
        classes: number of classes.
        samples: number of samples in the data.
        seed: of the random numbers, 0 ≤ seed < 2⁶⁴.

    Raises:
        TypeError, ValueError: there is no such change, or an argument is of another kind or out of range.
    """

    def __init__(self, changes: Sequence[str | Change], classes: int, samples: int, seed: int = 0) -> None:
        self.changes = [
            change if isinstance(change, Change) else CHANGES[checks.choice("changes", change, tuple(CHANGES))]()
            for change in changes
        ]
        self.classes = checks.whole("classes", classes, 1, checks.LARGEST_SIZE)
        self.samples = checks.whole("samples", samples, 1, checks.LARGEST_COUNT)
        self.seed = random.Generator(seed, AUGMENT_STREAM).state["seed"]  # raises if it is out of range
        self._drawn: tuple[int, numpy.ndarray] = (-1, numpy.empty((0, 0)))

    def __call__(self, x: Array, t: Array, epoch: int, indices: numpy.ndarray) -> tuple[Array, Array]:
        """Return the changed batch of an epoch, in new arrays.

        Args:
            x: (n, C, H, W).
            t: labels (n,).
            epoch: from 0.
            indices: of the samples in the data, on the host.
        """
        numbers, first = self._numbers(epoch)[indices], 0
        stored = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
        for change in self.changes:
            stored, t = change.apply(stored, t, numbers[:, first : first + change.draws], self.classes)
            first += change.draws
        return (stored.transpose(0, 3, 1, 2) if x.ndim == 4 else stored), t

    def check_loss(self, loss: Loss, outputs: Shape) -> None:
        """Raise a ValueError if labels would be wrong after a change.

        Those of pixels or steps, with outputs of several axes, would stay where they are while pixels move; mixed ones
        are not taken by every loss.
        """
        for change in self.changes:
            name = type(change).__name__.lower()
            if len(outputs) > 1 and not change.keeps_places:
                kept = ", ".join(name for name, kind in CHANGES.items() if kind.keeps_places)
                raise ValueError(
                    f"{name} moves or mixes pixels and not their labels: of a network with scores of steps or pixels "
                    f"the augmentation can be {kept}"
                )
            if not change.mixes:
                continue
            try:
                loss.check_targets(numpy.full((1, *outputs), 1 / outputs[0], "float32"), (1, *outputs))
            except ValueError as error:
                raise ValueError(f"{name} mixes labels, which {loss!r} does not take: leave one of them out") from error

    def __repr__(self) -> str:
        return f"Augmentation({self.changes}, classes={self.classes}, samples={self.samples}, seed={self.seed})"

    def _numbers(self, epoch: int) -> numpy.ndarray:
        """Return the random numbers of all samples in an epoch: float64 (samples, draws), on the host."""
        if self._drawn[0] != epoch:
            draws = sum(change.draws for change in self.changes)
            words = asnumpy(random.Generator(self.seed, AUGMENT_STREAM + epoch).bits(self.samples * draws))
            self._drawn = epoch, (words * 2.0**-32).reshape(self.samples, draws)
        return self._drawn[1]


def standard(shape: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the changes that suit most data: mirrored and shifted color, shifted and turned gray images.

    Raises:
        ValueError: rows of a table have no standard changes.
    """
    if len(shape) != 3:
        raise ValueError(f"augmentation is for images (C, H, W), got inputs of {tuple(shape)}")
    return ("flip", "crop") if shape[0] == 3 else ("crop", "turn")


def _on(x: Array, numbers: numpy.ndarray) -> Array:
    return array_module(x).asarray(numbers)


def _gathered(x: Array, rows: numpy.ndarray, columns: numpy.ndarray) -> Array:
    """Return the pixels at rows (n or 1, H) and columns (n, W) of each image, zero beyond the border."""
    return _taken(x, rows[:, :, None], columns[:, None, :])


def _taken(x: Array, rows: numpy.ndarray, columns: numpy.ndarray) -> Array:
    height, width = x.shape[1:3]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    images = numpy.arange(len(x))[:, None, None]
    places = (images * height + rows.clip(0, height - 1)) * width + columns.clip(0, width - 1)
    taken = x.reshape(-1, x.shape[3])[_on(x, places)]
    return taken if inside.all() else taken * _on(x, inside.astype(x.dtype)[..., None])


def _box(x: Array, u: numpy.ndarray, share: numpy.ndarray) -> numpy.ndarray:
    """Return which pixels lie in a box about a random place, with sides of a share of the image's: bool (n, H, W)."""
    inside = numpy.ones((len(x), *x.shape[1:3]), bool)
    for axis, size in enumerate(x.shape[1:3]):
        length = numpy.rint(share * size).astype(int)
        first = (u[:, axis] * size).astype(int) - length // 2
        places = numpy.arange(size)
        within = (places >= first[:, None]) & (places < (first + length)[:, None])
        inside &= within[:, :, None] if axis == 0 else within[:, None, :]
    return inside


def _neighbors(x: Array) -> Array:
    return array_module(x).roll(x, 1, axis=0)


def _mixed(t: Array, share: numpy.ndarray, classes: int) -> Array:
    """Return rows (n, classes): a share of each label, and the rest of the neighbor's."""
    library = array_module(t)
    rows = t if t.ndim == 2 else (t[:, None] == library.arange(classes)).astype("float32")
    share = _on(t, share.astype(rows.dtype)[:, None])
    return share * rows + (1 - share) * _neighbors(rows)
