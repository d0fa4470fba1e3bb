"""Define the settings of a run and their defaults. Imports nothing heavy: commands show them in their help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EVALUATION_BATCH = 1000
"""Most samples in a batch of an evaluation. The loss depends on it in the last bits."""

EVALUATION_FACTOR = 20
"""Most samples in a batch of an evaluation for each in a batch of the training: memory may be short for both."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run. None means the optimizer's own default of lr and weight_decay; no patience, no clip_norm."""

    dataset: str = "mnist10k"
    model: str = "ConvNet"
    epochs: int = 6
    batch_size: int = 50
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float | None = 0.003  # for adamw; other optimizers have their own
    schedule: str = "warmup-cosine"
    weight_decay: float | None = 0.05  # for adamw; other optimizers have their own
    clip_norm: float | None = None
    precision: str = "fp32"
    patience: int | None = None
    seed: int = 0
    checkpoint_every: str = "1e"
    keep_checkpoints: int = 2

    @classmethod
    def chosen(cls, **options: Any) -> Settings:
        """Return the settings that the options name. The default optimizer gets the defaults that belong to it."""
        if options["optimizer"] == cls.optimizer:
            for name in ("lr", "weight_decay"):
                options[name] = getattr(cls, name) if options[name] is None else options[name]
        return cls(**options)


DEFAULTS = Settings()
"""Settings of ``xpnet train`` without options."""
