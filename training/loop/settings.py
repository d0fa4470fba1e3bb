"""Define the settings of a run and their defaults. Imports nothing heavy: commands show them in their help."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EVALUATION_BATCH = 1000
"""Most samples in a batch of an evaluation. The loss depends on it in the last bits."""

EVALUATION_FACTOR = 20
"""Most samples in a batch of an evaluation for each in a batch of the training: memory may be short for both."""


DEFAULT_MODEL = "ConvNet"
"""The model of images unless another is named."""

LOSSES = ("softmax", "hinge", "sigmoid", "mean-squared", "huber")
"""The losses that a run can be told to use."""

PARTS = ("val", "test")
"""The parts of the data by which the best epoch can be chosen."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run. None means the optimizer's own default of lr and weight_decay; no patience, no clip_norm.

    ``data`` is a path that takes the place of ``dataset``; ``size``, ``target`` and
    ``target_kind`` say how it is read, as for ``training.data.open``. ``val`` and ``test`` are the shares that are
    split off where a part is missing, 0 for none.
    """

    dataset: str = "mnist10k"
    data: str | None = None
    size: str | None = None  # as in 48x64
    target: str | None = None
    target_kind: str | None = None
    val: float = 0.1
    test: float = 0.1
    best_on: str = "val"
    augment: str | None = None  # "standard", or names with commas
    model: str | None = None  # a name or a TOML file of layers; by default by the data: see model_for
    init: str | None = None  # a model's file, whose parameters it begins with
    freeze: str | None = None  # patterns of layers, with commas
    epochs: int = 6
    batch_size: int = 50
    accumulate: int = 1
    loss: str | None = None  # by the data
    label_smoothing: float = 0.0
    metrics: Sequence[str] = ()
    optimizer: str = "adamw"
    lr: float | None = 0.003  # for adamw; other optimizers have their own
    schedule: str = "warmup-cosine"
    weight_decay: float | None = 0.05  # for adamw; other optimizers have their own
    clip_norm: float | None = None
    precision: str = "fp32"
    patience: int | None = None
    seed: int = 0
    ema: float | None = None
    log: tuple[str, ...] = ()
    checkpoint_every: str = "1e"
    keep_checkpoints: int = 2
    compress: str = "none"  # gradients between ranks
    sync_batch_norm: bool = False

    def model_for(self, shape: tuple[int, ...]) -> str:
        """Return the model's name: by default ConvNet for images (C, H, W), MultiLayerNet for rows."""
        return self.model or (DEFAULT_MODEL if len(shape) == 3 else "MultiLayerNet")

    @classmethod
    def chosen(cls, **options: Any) -> Settings:
        """Return the settings that the options name. The default optimizer gets the defaults that belong to it."""
        if options["optimizer"] == cls.optimizer:
            for name in ("lr", "weight_decay"):
                options[name] = getattr(cls, name) if options[name] is None else options[name]
        options["metrics"] = list(options.get("metrics", ()))
        if options.get("data") is not None:
            options["data"] = os.path.abspath(options["data"])
        if options.get("init") is not None:
            options["init"] = os.path.abspath(options["init"])
        if str(options.get("model")).endswith(".toml"):
            options["model"] = os.path.abspath(options["model"])
        return cls(**options)


DEFAULTS = Settings()
"""Settings of ``xpnet train`` without options."""
