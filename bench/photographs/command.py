"""``python -m bench photographs``."""

from __future__ import annotations

from pathlib import Path

import click

from backend import use
from bench.photographs import SEED
from training.cli.common import Real, count_from, user_errors
from training.cli.inputs import find_model


@click.command("photographs")
@click.option(
    "--run", type=click.Path(path_type=Path), help="A run of `xpnet train`, or its model.  [default: the newest run]"
)
@click.option("--count", type=count_from(1), default=100, show_default=True, help="Pictures of each kind.")
@click.option("--least", type=Real(0, 1), default=0.95, show_default=True, help="Share right of a kind.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=SEED, show_default=True, help="Of the photographs.")
@click.pass_context
def photographs(context: click.Context, run: Path | None, count: int, least: float, seed: int) -> None:
    """Measure how well `xpnet predict` reads photographs of digits.

    Draws test images of mnist10k with a pen on paper: in shadow, on ruled paper, thick, thin, with specks, … and
    pictures that show no digit, which it should doubt. Ends with exit code 1 where a kind has too few right.
    """
    from bench.photographs.measure import score_digits, score_nonsense
    from training.data import load
    from training.models.loading import load_network

    use("cpu")
    with user_errors():
        network = load_network(find_model(run))
        data = load()
        failed, right, total = False, 0, 0
        for score in score_digits(network, data, count, seed=seed):
            low = score.right < least * score.count
            failed |= low
            right, total = right + score.right, total + score.count
            click.echo(
                f"{score.kind:<18} {score.right / score.count:7.1%} right  {score.doubted / score.count:7.1%} doubted"
                + "  TOO FEW" * low
            )
        click.echo(f"{'all':<18} {right / total:7.1%} right of {total}")
        for score in score_nonsense(network, data, count):
            click.echo(f"{score.kind:<18} no digit       {score.doubted / score.count:7.1%} doubted")
    context.exit(1 if failed else 0)
