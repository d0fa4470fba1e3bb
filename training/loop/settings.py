"""The settings that make a run what it is. Imports nothing heavy: commands show them in their help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EVALUATION_BATCH = 1000
"""Samples in a batch where nothing is trained, at most. The loss depends on it in the last bits."""

EVALUATION_FACTOR = 20
"""A smaller batch of the training makes that of its evaluation smaller, too: memory may be short of either."""


@dataclass(frozen=True)
class Settings:
    """What makes a run what it is. None is: the optimizer's own default; for patience and clip_norm, without."""

    dataset: str = "mnist10k"
    model: str = "ConvNet"
    epochs: int = 6
    batch_size: int = 50
    optimizer: str = "adamw"
    lr: float | None = 0.003  # with another optimizer than this one, its own
    schedule: str = "warmup-cosine"
    weight_decay: float | None = 0.05  # with another optimizer than this one, its own
    clip_norm: float | None = None
    precision: str = "fp32"
    patience: int | None = None
    seed: int = 0

    @classmethod
    def chosen(cls, **options: Any) -> Settings:
        """The settings that the options name; of the default optimizer also what belongs to it."""
        if options["optimizer"] == cls.optimizer:
            for name in ("lr", "weight_decay"):
                options[name] = getattr(cls, name) if options[name] is None else options[name]
        return cls(**options)


DEFAULTS = Settings()
"""What ``xpnet train`` does with no option."""
