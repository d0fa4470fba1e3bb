"""The shapes of scores: of a sample, of each step of a sequence, or of each pixel of an image."""

from __future__ import annotations

from layers import Loss
from layers.base import Shape


def classes_in(shape: Shape) -> int | None:
    """Return how many scores there are in each place, for the shape of a sample's scores; None if it is no such shape.

    Examples:
        >>> from training.models.outputs import classes_in
        >>> classes_in((10,)), classes_in((50, 65)), classes_in((2, 128, 128))  # a row; (T, classes); (classes, H, W)
        (10, 65, 2)
    """
    if len(shape) not in (1, 2, 3):
        return None
    return shape[0] if len(shape) == 3 else shape[-1]


def places_in(shape: Shape) -> Shape:
    """Return the places with scores, for the shape of a sample's scores: (T,) steps, (H, W) pixels, or () for a row.

    Examples:
        >>> from training.models.outputs import places_in
        >>> places_in((10,)), places_in((50, 65)), places_in((2, 128, 96))
        ((), (50,), (128, 96))
    """
    return shape[1:] if len(shape) == 3 else shape[:-1]


def checked_classes(shape: Shape, input_dim: Shape) -> int:
    """Return ``classes_in(shape)``, of what a network makes of a sample; raise a ValueError that names both if None."""
    classes = classes_in(shape)
    if classes is None:
        raise ValueError(
            "a network ends in (outputs,), a row of numbers, or in scores of steps (T, classes) or of pixels "
            f"(classes, H, W); its layers make {shape} of {input_dim}"
        )
    return classes


def check_loss(owner: str, loss: Loss, shape: Shape) -> None:
    """Raise a ValueError that names ``owner`` unless a loss takes what a network makes of a sample."""
    if len(shape) > 1 and not loss.takes_places:
        raise ValueError(
            f"{owner}: {type(loss).__name__} takes (outputs,), a row of numbers of each sample, got {shape}; "
            "SoftmaxWithLoss takes scores of steps (T, classes) and of pixels (classes, H, W)"
        )
    loss.check_outputs(owner, classes_in(shape) or 0)
