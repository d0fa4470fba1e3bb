"""Clipping gradients by their global norm (Pascanu, Mikolov & Bengio 2013, section 3.2)."""

from collections.abc import Mapping

import numpy

from backend import array_module
from backend.checks import instance, real
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.loss_scale import clip_factor
from kernels.sums import square_sum


def check_max_norm(name: str, max_norm: float) -> float:
    """Return ``max_norm`` as a float; raise an error, which calls it ``name``, unless it is positive and finite."""
    return real(name, max_norm, above=0)


def gradient_norm(grads: Mapping[str, Array]) -> Array:
    """Return the L2 norm over all elements of all arrays, as one vector.

    Squares are summed in float64 whatever the dtype: a float32 square overflows from 1.8e19 on, and exploding
    gradients are what clipping is for. The order of the sum follows from the layout alone, so the same
    gradients give the same bits; a flat buffer and separate arrays may differ in the last few.

    Args:
        grads: floating-point arrays by name. Of a ``ParameterDict`` the ``.flat`` buffer is read.

    Returns:
        A 0-d float64 array on the device of the gradients; nothing waits for the device. It is 0 without elements, NaN
        where any is NaN, otherwise inf where any is infinite.

    Raises:
        TypeError: a value is not a floating-point array, or host and device arrays are mixed.
    """
    arrays = _arrays(grads)
    xp = array_module(*arrays)
    norm = xp.zeros((), numpy.float64)
    for array in arrays:
        xp.add(norm, square_sum(array), out=norm)
    return xp.sqrt(norm, out=norm)


def clip_gradients(grads: Mapping[str, Array], max_norm: float) -> Array:
    """Scale all gradients by max_norm / norm, in place, where their global L2 norm exceeds ``max_norm``.

    The comparison runs on the device, so nothing waits. Gradients within the norm keep their bits: they
    are multiplied by exactly 1. A norm that is not finite shows: a NaN makes every gradient NaN, and
    with an infinity the infinite elements become NaN and the finite ones 0.

    Args:
        grads: as for ``gradient_norm``; its arrays are changed.
        max_norm: the largest norm allowed; positive and finite.

    Returns:
        The norm before clipping, a 0-d float64 array on the device of the gradients.

    Raises:
        ValueError: ``max_norm`` is not positive and finite.
        TypeError: it is not a number; or as for ``gradient_norm``.

    Examples:
        >>> from backend import xp
        >>> from training.optim import clip_gradients
        >>> grads = {"W": xp.array([6.0, 8.0])}
        >>> float(clip_gradients(grads, 5.0)), grads["W"].tolist()
        (10.0, [3.0, 4.0])
    """
    max_norm = check_max_norm("max_norm", max_norm)
    norm = gradient_norm(grads)
    arrays = _arrays(grads)
    xp = array_module(norm)
    factor = clip_factor(norm, max_norm)
    if xp is numpy and factor == 1:  # a product with 1 would change no bit
        return norm
    for array in arrays:
        xp.multiply(array, factor.astype(acc_dtype(array.dtype)), out=array)
    return norm


def _arrays(grads: Mapping[str, Array]) -> list[Array]:
    instance("grads", grads, Mapping, "a dictionary of arrays")
    for name, array in grads.items():
        if getattr(getattr(array, "dtype", None), "kind", None) != "f":
            what = f"of dtype {array.dtype}" if hasattr(array, "dtype") else type(array).__name__
            raise TypeError(f"grads[{name!r}] is {what}; clipping needs floating-point arrays")
    flat = getattr(grads, "flat", None)
    return list(grads.values()) if flat is None else [flat]
