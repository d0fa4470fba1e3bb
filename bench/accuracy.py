"""Repeat a run of ``xpnet train`` in PyTorch, to compare accuracy and time: ``python -m bench accuracy RUN``.

PyTorch gets the run's initial weights, its batches with the same random changes in the same order, its learning rates
and its number of epochs. Its own are the arithmetic and the order of sums, the draws of dropout, and the optimizer's
details: its momentum is multiplied by the rate of the step, xpnet's by that of the step in which a gradient came.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from backend import threads, use
from bench.sides import installed, load
from training.cli.common import UserError, count_from, user_errors
from training.cli.inputs import load_data
from training.data import Data
from training.loop.recipe import build_trainer, evaluated_part, evaluation_batch
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.loop.trainer import Trainer

OTHERS = ("accumulate", "clip_norm", "ema", "freeze", "init", "loss", "patience")
"""Settings that this loop has nothing of: a run with one of them is refused."""


@click.command("accuracy")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--threads", "count", type=click.IntRange(1, 4096), help="Threads.  [default: the run's]")
@click.option("--epochs", type=count_from(1), help="End after so many epochs of the run's schedule.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per epoch and a last one.")
def accuracy(run: Path, count: int | None, epochs: int | None, as_json: bool) -> None:
    """Repeat a run of `xpnet train` for classes in PyTorch, and compare accuracy and seconds.

    PyTorch trains the same network from the same weights on the same batches with the same recipe, images
    in channels-last memory. Seconds are those of the epochs, their evaluations included.
    """
    if not installed("torch"):
        raise UserError("not installed: torch; the extra `bench` of xpnet has the peers")
    with user_errors():
        folder = RunFolder(run)
        config = folder.load_config()
        settings = run_settings(config)
        use("cpu")
        count = count or config["threads"] or threads.limit()
        threads.set_limit(count)
        load("torch").set_threads(count)
        kept = config["settings"].get("data_dir")
        data = load_data(settings, None if kept is None else Path(kept), show_progress=False)
        if data.kind != "classification":
            raise ValueError(f"only runs for classes are repeated in PyTorch, got {data.kind}")
        trainer = build_trainer(settings, data, graph=False)
        epochs = min(epochs or settings.epochs, settings.epochs)

        def after_epoch(**row: Any) -> None:
            click.echo(json.dumps(row) if as_json else _epoch_line(row, epochs))

        found = repeat(trainer, data, settings, epochs, after_epoch)
        done = folder.load_metrics()
    known = config.get("results") or {}
    ours = {"best_epoch": known.get("best_epoch")}
    ours["test_accuracy"] = known.get("best_test_accuracy" if settings.best_on == "test" else "test_accuracy")
    ours |= {"epochs": len(done), "seconds": sum(row["seconds"] for row in done)}
    if as_json:
        click.echo(json.dumps({"torch": found, "xpnet": ours, "threads": count}))
    else:
        for name, each in (("xpnet", ours), ("PyTorch", found)):
            click.echo(
                f"{name:<8} {_percent(each['test_accuracy'])} of the test data, epoch {each['best_epoch']} of "
                f"{each['epochs']}, {each['seconds']:.0f} s"
            )


def _epoch_line(row: dict[str, Any], epochs: int) -> str:
    shares = "  ".join(f"{name} {_percent(row[name])}" for name in row if name.endswith("_accuracy"))
    return f"epoch {row['epoch']:>3} of {epochs}  {shares.replace('_accuracy', '')}  {row['seconds']:.1f} s"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.2f} %"


def run_settings(config: dict[str, Any]) -> Settings:
    """Return the settings of a run, of those that PyTorch's loop can have.

    Raises:
        ValueError: the run has a setting that this loop lacks.
    """
    if config.get("ranks", 1) != 1:
        raise ValueError(
            f"the repetition in PyTorch is one process: expected a run of one, got {config['ranks']} ranks"
        )
    known = {field.name for field in fields(Settings)}
    settings = Settings(**{name: value for name, value in config["settings"].items() if name in known})
    usual = Settings()
    lacking = [name for name in OTHERS if getattr(settings, name) != getattr(usual, name)]
    if lacking or settings.precision != "fp32":
        names = ", ".join(lacking) or f"precision {settings.precision}"
        raise ValueError(f"the repetition in PyTorch has no {names}: expected a run without")
    if "plateau" in settings.schedule:
        raise ValueError(
            f"the repetition in PyTorch has no schedule {settings.schedule}, which goes by xpnet's results"
        )
    return settings


def repeat(
    trainer: Trainer, data: Data, settings: Settings, epochs: int, after_epoch: Callable[..., None]
) -> dict[str, Any]:
    """Train PyTorch's network as ``trainer`` would train its own. Return its accuracies and seconds.

    Raises:
        ValueError: the network has a layer that the bench has no counterpart of.
    """
    import torch
    from torch.nn import functional

    from bench.sides import torch as side

    network = trainer.network
    images = len(data.shape) == 3
    memory: Any = torch.channels_last if images else torch.contiguous_format
    model = torch.nn.Sequential(*side.modules_of(network.layers, images)).to(memory_format=memory)
    rule = optimizer_of(settings, trainer, model)
    schedule, part = trainer.update.schedule, evaluated_part(settings, data)
    batch = evaluation_batch(settings.batch_size)
    loaders = {name: data.loader(name, batch, shuffle=False) for name in {part, "test"}}

    def tensor(x: Any) -> Any:
        tensor = torch.from_numpy(x)
        return tensor.contiguous(memory_format=memory) if images else tensor

    def measured(name: str) -> float:
        model.eval()
        right = total = 0
        with torch.inference_mode():
            for x, t in loaders[name].epoch(0):
                right += int((model(tensor(x)).argmax(1) == torch.from_numpy(t)).sum())
                total += len(t)
        return right / total

    best, kept, step, seconds = (-1.0, 0), None, 0, 0.0
    for epoch in range(epochs):
        model.train()
        begin = time.perf_counter()
        for x, t in trainer.train_loader.epoch(epoch):
            for group in rule.param_groups:
                group["lr"] = schedule(step) if schedule else group["lr"]
            rule.zero_grad(set_to_none=True)
            target = torch.from_numpy(t)  # classes, or shares of them after mixup
            loss = functional.cross_entropy(
                model(tensor(x)),
                target if target.is_floating_point() else target.long(),
                label_smoothing=settings.label_smoothing,
            )
            loss.backward()
            rule.step()
            step += 1
        reached = measured(part)
        took = time.perf_counter() - begin
        seconds += took
        after_epoch(**{"epoch": epoch + 1, "loss": loss.item(), f"{part}_accuracy": reached, "seconds": took})
        if reached > best[0]:
            best, kept = (reached, epoch + 1), copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return {"best_epoch": best[1], "test_accuracy": measured("test"), "epochs": epochs, "seconds": seconds}


def optimizer_of(settings: Settings, trainer: Trainer, model: Any) -> Any:
    """Return PyTorch's optimizer of the run's name, with the numbers of the run's.

    Raises:
        ValueError: PyTorch has none of that name with the same formula.
    """
    import torch

    own: Any = trainer.optimizer
    numbers: dict[str, Any] = {"lr": own.lr, "weight_decay": own.weight_decay}
    match settings.optimizer:
        case "adam" | "adamw":
            kind: Any = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
            numbers |= {"betas": (own.beta1, own.beta2), "eps": own.eps, "fused": True}
        case "sgd":
            kind = torch.optim.SGD
        case "momentum" | "nesterov":
            kind = torch.optim.SGD
            numbers |= {"momentum": own.momentum, "nesterov": settings.optimizer == "nesterov"}
        case other:
            raise ValueError(f"the repetition in PyTorch has no optimizer {other}")
    return kind(model.parameters(), **numbers)
