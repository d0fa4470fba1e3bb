"""thinc 9: affine layers, no convolution. Products run in its own single-threaded BLIS or in NumPy's BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
from thinc.api import Adam, CategoricalCrossentropy, Optimizer, Relu, Softmax, chain, use_ops

from backend.types import Array
from bench.sides.base import Case, Side


class Thinc(Side):
    name = "thinc"

    def ways(self, operation: str, images: bool) -> tuple[str, ...]:
        return ("blis", "numpy")

    def training(self, network: Any, x: Array, t: Array, optimizer: str, way: str = "") -> Case | None:
        affine = [layer for layer in network.layers.layers.values() if type(layer).__name__ == "Affine"]
        kinds = {type(layer).__name__ for layer in network.layers.layers.values()}
        if kinds != {"Affine", "Relu"}:
            return None
        with use_ops("numpy", use_blis=way == "blis"):
            sizes = [layer.W.shape for layer in affine]
            hidden = [Relu(nI=inputs, nO=outputs) for inputs, outputs in sizes[:-1]]
            model = chain(*hidden, Softmax(nI=sizes[-1][0], nO=sizes[-1][1]))
            model.initialize()
        for part, layer in zip(model.layers, affine, strict=True):
            part.set_param("W", np.ascontiguousarray(layer.W.T))
            part.set_param("b", layer.b.copy())
        first, before = model.layers[0], affine[0].W.copy()
        # No clipping, decay or averages: the other sides' steps have none.
        plain: dict[str, Any] = {"L2": 0.0, "grad_clip": 0.0, "use_averages": False}
        rule = Adam(0.001, eps=1e-8, **plain) if optimizer == "adam" else Optimizer(0.01, beta1=0.0, beta2=0.0, **plain)
        cost = CategoricalCrossentropy()

        def step() -> None:
            probabilities, backward = model.begin_update(x)
            gradient, _ = cost(probabilities, t)  # its loss is another number, the squared gradient
            backward(gradient)
            model.finish_update(rule)  # which sets the gradients to zero: the update shows them

        return Case(step, lambda: {"update": first.get_param("W").T - before})


SIDE = Thinc()
