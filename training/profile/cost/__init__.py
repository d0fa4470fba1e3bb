"""A cost model of training: what a step takes, layer by layer and phase by phase, known without running it.

``cost_of_step`` counts floating-point operations, the least bytes that must move, kernel launches and memory;
``Gpu`` makes a time of them, that of the roofline model. Launches and memory are those of a GPU; on a CPU
operations are the same, and least bytes but for max pooling, which keeps its winners in fewer there. A layer of one's
own says what it costs with ``formula``; without, it is shown as not known and is in no total.
"""

from training.profile.cost import convolutions, elementwise, products  # noqa: F401  (they declare what the layers cost)
from training.profile.cost.gpus import GPUS, LAUNCH_SECONDS, Gpu
from training.profile.cost.model import Row, StepCost, cost_of_step
from training.profile.cost.work import Array, Cost, Work, cost_of, formula

__all__ = [
    "GPUS",
    "LAUNCH_SECONDS",
    "Array",
    "Cost",
    "Gpu",
    "Row",
    "StepCost",
    "Work",
    "cost_of",
    "cost_of_step",
    "formula",
]
