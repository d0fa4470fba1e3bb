"""The command line of the bench."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from backend import threads, use
from bench import compare, machine, report
from bench.accuracy import accuracy
from bench.epoch import measure_epoch
from bench.faults.command import faults
from bench.gpu.convolutions import convolutions
from bench.gpu.steps import steps as gpu_steps
from bench.gpu.table import gpu_table
from bench.host import host
from bench.issue import issue
from bench.kernels.command import kernels
from bench.measure import measure
from bench.memory import NAMES as MEMORY_NAMES
from bench.memory import measure_memory
from bench.photographs.command import photographs
from bench.ranges import ranges
from bench.ranks.all_reduce import all_reduce
from bench.ranks.command import ranks
from bench.reading import reading
from bench.sides import PEERS, Side, installed, load
from bench.workloads import DisagreementError, workloads
from training.cli.common import Real, UserError, count_from, in_words
from training.terminal.tables import aligned

PICTURES = (".png", ".svg", ".pdf")


def _help() -> str:
    """Return the help of the command, which lists the workloads."""
    rows = "\n".join(f"{each.name:<12} {each.title}" for each in workloads())
    return f"""Time xpnet on the CPU against its peers, and measure memory and a whole epoch.

    Every side does the same work in float32, one sample in turn in one process. Before it is timed, its values are
    compared with xpnet's: another result is an error. Ratios are xpnet's figure over the peer's.

    \b
{_indented(rows)}
    memory       peak memory of steps of {" and ".join(MEMORY_NAMES)}, in processes of their own
    epoch        an epoch of `xpnet train`: full MNIST where XPNET_DATA_DIR names it, else mnist10k

    Peers: the extra `bench` installs torch, dezero and thinc; where torch would bring CUDA, its own index has smaller
    builds for the CPU. Those that are missing are left out. `textbook` is plain NumPy and always there.

    On a busy machine samples are thrown away: measure on a quiet one.
    """


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


_EVERYTHING = (*(each.name for each in workloads()), "memory", "epoch")


@click.group(invoke_without_command=True, help=_help(), context_settings={"max_content_width": 120})
@click.option(
    "--threads",
    "counts",
    multiple=True,
    type=click.IntRange(1, 4096),
    help="Threads of a run; may be repeated.  [default: a run on 1 and one on all cores]",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(_EVERYTHING, case_sensitive=False),
    default=_EVERYTHING,
    metavar="NAME",
    help="One from above; may be repeated.  [default: all]",
)
@click.option(
    "--peers",
    multiple=True,
    type=click.Choice(PEERS, case_sensitive=False),
    help="One to compare with; may be repeated.  [default: those installed]",
)
@click.option("--repeats", type=count_from(1), default=20, show_default=True, help="Samples of each side.")
@click.option(
    "--seconds",
    type=Real(0),
    default=30.0,
    show_default=True,
    help="No further round of a workload after so long; three are always made.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
@click.option("--chart", "chart_file", type=click.Path(path_type=Path, dir_okay=False), help="Draw the ratios there.")
@click.pass_context
def main(
    context: click.Context,
    counts: tuple[int, ...],
    only: tuple[str, ...],
    peers: tuple[str, ...],
    repeats: int,
    seconds: float,
    json_file: Path | None,
    chart_file: Path | None,
) -> None:
    if context.invoked_subcommand is not None:
        return
    with _user_errors():
        _check_files(json_file, chart_file)
        use("cpu")
        sides = _sides(peers)
        results = _measure(only, sides, tuple(dict.fromkeys(counts or (1, threads.limit()))), repeats, seconds)
        click.echo(f"{report.header(results)}\n\n{report.table(results)}")
        if json_file:
            report.write_json(results, json_file)
        if chart_file and results["steps"]:
            report.chart(results, chart_file)


@main.command("compare")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--tolerance", type=Real(0), default=0.1, show_default=True, help="0.1 is 10 %.")
@click.pass_context
def compare_command(context: click.Context, old: Path, new: Path, tolerance: float) -> None:
    """Compare two files of --json by their ratios to PyTorch.

    Ends with exit code 1 where a ratio has grown by more than the tolerance.
    """
    with _user_errors():
        before, after = report.read_json(old), report.read_json(new)
        try:
            found = compare.changes(before, after)
            lines = [_cells(change, tolerance) for change in found]
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{old} or {new} is damaged: {type(error).__name__}: {error}") from error
        if not found:
            raise ValueError(f"{old} and {new} have no ratio to {compare.PEER} in common")
    for line in aligned(lines):
        click.echo(line)
    worse = [change for change in found if change.growth > tolerance]
    click.echo(f"{len(worse)} of {len(found)} worse by more than {tolerance:.0%}")
    context.exit(1 if worse else 0)


def _cells(change: compare.Change, tolerance: float) -> list[str]:
    """Return a change's cells for the table."""
    verdict = ["WORSE"] * (change.growth > tolerance) + ["disturbed: measure again"] * change.disturbed
    return [change.what, f"{change.old:.2f}", "→", f"{change.new:.2f}", f"{change.growth:+.1%}", "  ".join(verdict)]


main.add_command(ranges)
main.add_command(reading)
main.add_command(host)
main.add_command(issue)
main.add_command(gpu_steps)
main.add_command(kernels)
main.add_command(convolutions)
main.add_command(gpu_table)
main.add_command(faults)
main.add_command(photographs)
main.add_command(all_reduce)
main.add_command(ranks)
main.add_command(accuracy)


def _sides(peers: tuple[str, ...]) -> list[Side]:
    chosen = peers or [peer for peer in PEERS if installed(peer)]
    missing = [peer for peer in chosen if not installed(peer)]
    if missing:
        raise UserError(f"not installed: {', '.join(missing)}; the extra `bench` of xpnet has the peers")
    return [load(name) for name in ("xpnet", *chosen)]


def _measure(
    only: tuple[str, ...], sides: list[Side], counts: tuple[int, ...], repeats: int, seconds: float
) -> report.Results:
    steps, memory, epochs = [], [], []
    for count in counts:
        for workload in workloads():
            if workload.name in only:
                click.echo(f"{workload.name}, {count} thread(s)", err=True)
                steps.append(measure(workload, sides, count, repeats, seconds))
            if workload.name in MEMORY_NAMES and "memory" in only:
                click.echo(f"memory of {workload.name}, {count} thread(s)", err=True)
                memory.append(measure_memory(workload, sides, count))
        if "epoch" in only:
            click.echo(f"epoch, {count} thread(s)", err=True)
            epochs.append(measure_epoch(count, repeats, seconds))
    return {
        "schema": report.SCHEMA,
        "machine": machine.describe([side.name for side in sides]),
        "settings": {"repeats": repeats, "seconds": seconds},
        "steps": steps,
        "memory": memory,
        "epochs": epochs,
    }


def _check_files(json_file: Path | None, chart_file: Path | None) -> None:
    """Check that the files can be written and drawn, before anything is measured.

    Raises:
        ValueError: the folder of a file does not exist, or the chart's name has none of the endings of ``PICTURES``.
    """
    if chart_file and chart_file.suffix not in PICTURES:
        raise ValueError(f"--chart takes a file that ends in {', '.join(PICTURES)}, not {chart_file}")
    for file in (json_file, chart_file):
        report.check_folder(file)


@contextmanager
def _user_errors() -> Iterator[None]:
    """Turn errors that name their reason into one line."""
    try:
        yield
    except (OSError, ValueError, DisagreementError) as error:
        raise UserError(in_words(error)) from error
