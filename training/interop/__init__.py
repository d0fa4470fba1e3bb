"""Weights and networks of other frameworks, in and out.

The functions for ONNX are imported when they are first used, and the package ``onnx`` when one of them is called.
"""

from typing import TYPE_CHECKING

from training.interop.keras_weights import from_keras
from training.interop.torch_weights import from_torch, to_torch
from training.on_demand import on_demand

if TYPE_CHECKING:
    from training.interop.onnx_export import export_onnx, to_onnx
    from training.interop.onnx_import import from_onnx, layers_from_onnx

_MODULES = {
    "export_onnx": "training.interop.onnx_export",
    "from_onnx": "training.interop.onnx_import",
    "layers_from_onnx": "training.interop.onnx_import",
    "to_onnx": "training.interop.onnx_export",
}

__all__ = ["export_onnx", "from_keras", "from_onnx", "from_torch", "layers_from_onnx", "to_onnx", "to_torch"]

__getattr__, __dir__ = on_demand(globals(), _MODULES)
