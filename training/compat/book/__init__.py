"""The modules of the book *Deep Learning from Scratch*: its programs run after a change of imports only.

    from common.layers import *          →  from training.compat.book.layers import *
    from dataset.mnist import load_mnist →  from training.compat.book.mnist import load_mnist

and so on for each module ``functions``, ``gradient``, ``layers``, ``multi_layer_net``, ``multi_layer_net_extend``,
``optimizer``, ``trainer`` and ``util`` of the book's ``common``. For a GPU three more imports change,
so that NumPy's names make arrays on the device, and plots and files get arrays on the host:

    import numpy as np                   →  from training.compat.book import np
    import matplotlib.pyplot as plt      →  from training.compat.book import pyplot as plt
    import pickle                        →  from training.compat.book import pickle

Single names can be imported from the package, too: ``from training.compat.book import Affine, Adam, load_mnist``.

Defaults, formulas and random numbers (``numpy.random``) are the book's: the same seed gives its numbers.
"""

import importlib
from typing import Any

from layers.compat.book import np

__all__ = ["np"]

_MODULES = (
    *("functions", "gradient", "layers", "util", "optimizer"),
    *("multi_layer_net", "multi_layer_net_extend", "trainer", "mnist"),
)


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and name not in ("pickle", "pyplot"):  # modules of the package, imported as such
        for module in (importlib.import_module(f"{__name__}.{each}") for each in _MODULES):
            if module.__name__.rpartition(".")[2] == name:
                return module
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
