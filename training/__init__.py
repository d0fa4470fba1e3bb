"""Models, data, optimizers, the loop around them, and the ``xpnet`` command.

What a program needs most can be imported from here: ``from training import Network, Trainer, Loader, load, Adam``. Each
name is imported when it is first used, so that ``import training`` stays fast.
"""

from typing import TYPE_CHECKING

from training import _neighbours  # noqa: F401
from training.on_demand import on_demand

if TYPE_CHECKING:
    from training.check.gradients import gradient_check
    from training.data import Dataset, Loader, load, load_mnist
    from training.loop.best_model import BestModel
    from training.loop.callbacks import Callback, EpochResult
    from training.loop.checkpoints import Checkpoints
    from training.loop.early_stopping import EarlyStopping
    from training.loop.logs import CsvLog, TensorBoardLog
    from training.loop.non_finite import NonFiniteError
    from training.loop.progress import ProgressBar
    from training.loop.rate_search import find_learning_rate
    from training.loop.run_folder import RunFolder
    from training.loop.trainer import Trainer
    from training.loop.weight_average import WeightAverage
    from training.models import (
        ConvNet,
        DeepConvNet,
        MultiLayerNet,
        Network,
        SimpleConvNet,
        TwoLayerNet,
        build,
    )
    from training.models.loading import load_network
    from training.optim import SGD, AdaGrad, Adam, AdamW, LossScaler, Momentum, Nesterov, RMSprop, Update
    from training.optim.plateau import PlateauSchedule
    from training.optim.schedules import (
        ConstantSchedule,
        CosineSchedule,
        OneCycleSchedule,
        PolynomialSchedule,
        RestartsSchedule,
        StepSchedule,
        Warmup,
    )

_PLACES = {
    "training.check.gradients": ("gradient_check",),
    "training.data": ("Dataset", "Loader", "load", "load_mnist"),
    "training.loop.best_model": ("BestModel",),
    "training.loop.callbacks": ("Callback", "EpochResult"),
    "training.loop.checkpoints": ("Checkpoints",),
    "training.loop.early_stopping": ("EarlyStopping",),
    "training.loop.logs": ("CsvLog", "TensorBoardLog"),
    "training.loop.non_finite": ("NonFiniteError",),
    "training.loop.progress": ("ProgressBar",),
    "training.loop.rate_search": ("find_learning_rate",),
    "training.loop.run_folder": ("RunFolder",),
    "training.models.loading": ("load_network",),
    "training.loop.trainer": ("Trainer",),
    "training.loop.weight_average": ("WeightAverage",),
    "training.models": (
        "ConvNet", "DeepConvNet", "MultiLayerNet", "Network", "SimpleConvNet", "TwoLayerNet", "build",
    ),
    "training.optim": ("SGD", "AdaGrad", "Adam", "AdamW", "LossScaler", "Momentum", "Nesterov", "RMSprop", "Update"),
    "training.optim.plateau": ("PlateauSchedule",),
    "training.optim.schedules": (
        "ConstantSchedule", "CosineSchedule", "OneCycleSchedule", "PolynomialSchedule", "RestartsSchedule",
        "StepSchedule", "Warmup",
    ),
}  # fmt: skip
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "BestModel",
    "Callback",
    "Checkpoints",
    "ConstantSchedule",
    "ConvNet",
    "CosineSchedule",
    "CsvLog",
    "Dataset",
    "DeepConvNet",
    "EarlyStopping",
    "EpochResult",
    "Loader",
    "LossScaler",
    "Momentum",
    "MultiLayerNet",
    "Nesterov",
    "Network",
    "NonFiniteError",
    "OneCycleSchedule",
    "PlateauSchedule",
    "PolynomialSchedule",
    "ProgressBar",
    "RMSprop",
    "RestartsSchedule",
    "RunFolder",
    "SimpleConvNet",
    "StepSchedule",
    "TensorBoardLog",
    "Trainer",
    "TwoLayerNet",
    "Update",
    "Warmup",
    "WeightAverage",
    "build",
    "find_learning_rate",
    "gradient_check",
    "load",
    "load_mnist",
    "load_network",
]

__getattr__, __dir__ = on_demand(globals(), _MODULES)
