"""A cost model of training: the work of a step, layer by layer and phase by phase, known without running it.

``cost_of_step`` counts floating-point operations, the least bytes that must move, and memory; ``Gpu`` turns work into
the least time by the roofline model. Operations are those of each layer's definition, whatever kernels carry them out;
a tap that lies on the padding counts. Memory is that of a GPU. A layer outside the library declares its cost with
``formula``; without one it is shown as not known and left out of the totals. How many kernels a step launches is
counted where it runs: ``training.profile.meter``.
"""

from training.profile.cost import layers  # noqa: F401  (declares what the library's layers cost)
from training.profile.cost.gpus import GPUS, Gpu
from training.profile.cost.model import CostRow, StepCost, cost_of_step
from training.profile.cost.work import Batch, Cost, Work, cost_of, formula

__all__ = ["GPUS", "Batch", "Cost", "CostRow", "Gpu", "StepCost", "Work", "cost_of", "cost_of_step", "formula"]
