"""The options that say what a model learns, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from training.cli.common import Choice, Real
from training.loop.settings import DEFAULTS, LOSSES

METRICS_HELP = (
    "A further measure of the evaluated data; may be repeated: top5 (any number), precision, recall, f1, iou, "
    "per-class or confusion for classes; precision, recall, f1, iou or per-class for labels; mae or r2 for numbers."
)

metrics_option = click.option("--metrics", metavar="NAME", multiple=True, help=METRICS_HELP)

LOSS_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--loss",
        type=Choice(LOSSES),
        help="What is minimized.  [default: softmax for classes, sigmoid for labels, mean-squared for numbers]",
    ),
    click.option(
        "--label-smoothing",
        type=Real(0, 0.99),
        default=DEFAULTS.label_smoothing,
        help="Share of each label that is spread over all classes, with the softmax loss.",
    ),
    metrics_option,
)
