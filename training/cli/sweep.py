"""``xpnet sweep``: search for the settings of a training."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from training.cli.common import UserError, count_from, in_words, user_errors
from training.cli.config import check_value
from training.files import json_text, toml_text
from training.files.durable import write_atomically
from training.files.printable import printable
from training.loop.run_folder import RunFolder, json_line
from training.sweep.plan import Plan
from training.sweep.space import OneOf
from training.sweep.study import DATABASE, Study, require_optuna
from training.sweep.trial import TrialError, run_trial

PLAN = "sweep.json"
_OWN = ("out", "quiet", "json")  # the sweep gives these to its runs
_SHARED_ONLY = ("device", "threads", "graph", "log", "checkpoint_every", "keep_checkpoints")
_PATHS = ("data", "data_dir", "init")


@click.command("sweep")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file: options of xpnet train that all runs share, and the table [search] of those to search.",
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="SWEEP", help="Go on with a sweep, by its folder.")
@click.option("--trials", type=count_from(1), help="How many runs there are to be, in place of the file's number.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the sweep, new or empty.  [default: runs/<time>-sweep]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per run and a last one.")
@click.pass_context
def command(
    context: click.Context,
    config: Path | None,
    resume: Path | None,
    trials: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Search for the settings of a training: optuna chooses those of one run after another.

    Each run is one of xpnet train, with a folder of its own in that of the sweep; runs that are worse than most others
    after as many epochs are ended early. Figures show the runs, their settings, and which of these matter.
    """
    with user_errors():
        require_optuna()
        if (config is None) == (resume is None):
            raise UserError("give --config FILE for a new sweep, or --resume SWEEP to go on with one")
        if resume is not None and out is not None:
            raise UserError("--out conflicts with --resume: a sweep keeps its folder")
        plan = _read(config) if config is not None else _plan_of(Path(resume or ""))
        plan = plan if trials is None else replace(plan, trials=trials)
        kept = RunFolder.create(out, name="sweep") if resume is None else RunFolder.reopen(resume)
        context.call_on_close(kept.close)
        folder = kept.path
        write_atomically(folder / PLAN, json_text.dump(plan.as_dict(), indent=2).encode())
        study = Study(folder, plan)
        context.call_on_close(study.close)
    try:
        _search(study, plan, folder, as_json)
    except KeyboardInterrupt:
        click.echo(f"Interrupted; go on with: xpnet sweep --resume {shlex.quote(printable(folder))}", err=True)
        raise
    best = study.best
    if best is None:
        raise click.ClickException("no run came to its end")
    undrawn = study.draw(folder)
    for name, reason in undrawn.items():
        click.echo(f"Not drawn: {name} ({reason})", err=True)
    run = folder / _name(best.number)
    if as_json:
        click.echo(
            json_line({"best": best.value, "settings": best.params, "run": str(run), "trials": len(study.ended)})
        )
    else:
        click.echo(f"best: {plan.metric} {_shown(plan, best.value)} with {_settings(best.params)}; {printable(run)}")


def _search(study: Study, plan: Plan, folder: Path, as_json: bool) -> None:
    """Make the runs that are missing."""
    first = len(study.ended) + 1
    while (number := len(study.ended) + 1) <= plan.trials:
        start = time.perf_counter()
        trial, settings = study.ask()
        values: list[float] = []

        def goes_on(epoch: dict[str, Any], trial: Any = trial, values: list[float] = values) -> bool:
            values.append(plan.value(epoch))
            trial.report(values[-1], epoch["epoch"])
            return not trial.should_prune()

        outcome: dict[str, Any] = {"trial": number, **settings}
        try:
            is_whole = run_trial({**plan.shared, **settings}, folder / _name(trial.number), goes_on)
        except TrialError as error:
            if error.code == 2 and number == first:  # and all others would be wrong, too
                study.fail(trial, "")
                raise UserError(f"the first run, with {_settings(settings)}: {error}") from error
            study.fail(trial, str(error))
            outcome["failed"] = str(error)
        except ValueError as error:
            study.fail(trial, "")
            raise UserError(str(error)) from error
        except BaseException:
            study.fail(trial, "")
            raise
        else:
            value = min(values) if plan.falls else max(values)
            outcome |= {plan.metric: value, "epochs": len(values), "pruned": not is_whole}
            if is_whole:
                study.complete(trial, value)
            else:
                study.prune(trial)
        outcome |= {"seconds": time.perf_counter() - start, "run": str(folder / _name(trial.number))}
        if as_json:
            click.echo(json_line(outcome))
        else:
            is_best = study.best is not None and study.best.number == trial.number
            click.echo(_line(plan, number, outcome, settings) + ("  best" if is_best else ""))


def _read(file: Path) -> Plan:
    content = toml_text.read(file)
    try:
        plan = Plan.read(content, check_value_of_train)
    except ValueError as error:
        raise UserError(f"{printable(file)}: {in_words(error)}") from error
    for name in plan.search:
        if name in _SHARED_ONLY:
            raise UserError(f"{printable(file)}: search.{name}: runs with different {name} do not compare")
    shared = {name: _absolute(name, value) for name, value in plan.shared.items()}
    search = {
        name: OneOf(tuple(_absolute(name, value) for value in choice.values)) if isinstance(choice, OneOf) else choice
        for name, choice in plan.search.items()
    }
    return replace(plan, shared=shared, search=search)


def _absolute(name: str, value: Any) -> Any:
    """Return a path as an absolute one, so that the sweep goes on from any folder; other values as they are."""
    is_path = name in _PATHS or (name == "model" and str(value).endswith(".toml"))
    return os.path.abspath(value) if is_path else value


def _plan_of(folder: Path) -> Plan:
    file = folder / PLAN
    for needed in (PLAN, DATABASE):
        if not (folder / needed).is_file():
            raise UserError(f"{printable(folder)}: not the folder of a sweep, it has no {needed}")
    try:
        return Plan.read(json_text.parse(file.read_bytes()), check_value_of_train)
    except ValueError as error:
        raise UserError(f"{printable(file)}: {in_words(error)}") from error


def check_value_of_train(name: str, value: Any) -> str:
    """Return the name of an option of ``xpnet train`` if a value is right for it.

    Raises:
        ValueError: there is no such option, or the value is not right.
    """
    from training.cli.train import command as train

    key = check_value(train, name, value)
    if key in _OWN:
        raise ValueError(f"{key}: the sweep sets it itself for each of its runs")
    return key


def _name(number: int) -> str:
    return f"trial-{number:04}"


def _line(plan: Plan, number: int, outcome: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    if "failed" in outcome:
        said = f"failed: {outcome['failed']}"
    else:
        ending = f", ended after epoch {outcome['epochs']}" if outcome["pruned"] else ""
        said = f"{plan.metric} {_shown(plan, outcome[plan.metric])}{ending}"
    return f"run {number}/{plan.trials}  {said}  {_settings(settings)}  {outcome['seconds']:.1f} s"


def _shown(plan: Plan, value: float | None) -> str:
    value = value or 0.0
    return f"{100 * value:.2f} %" if plan.metric == "accuracy" else f"{value:.4g}"


def _settings(settings: Mapping[str, Any]) -> str:
    shown = (
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in settings.items()
    )
    return " ".join(shown)
