"""Weights of other frameworks, in and out."""

from training.interop.keras_weights import from_keras
from training.interop.torch_weights import from_torch, to_torch

__all__ = ["from_keras", "from_torch", "to_torch"]
