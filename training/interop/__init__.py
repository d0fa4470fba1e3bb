"""Weights of other frameworks, in and out."""

from training.interop.torch_weights import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]
