"""``python -m bench kernels``."""

from __future__ import annotations

import fnmatch
import time
from pathlib import Path
from typing import Any

import click

from backend import OutOfMemoryError, memory
from bench import machine
from bench.kernels import measure, report
from bench.kernels.case import KernelCase
from bench.kernels.stopwatch import Stopwatch
from bench.report import check_folder, write_json
from bench.workloads import DisagreementError
from kernels.core.launch import BLOCK
from training.cli.common import Real, UserError, choose_compute, count_from, user_errors

_BLOCKS = (32, 64, 128, 256, 512, 1024)


class _Blocks(click.ParamType):
    """Sizes of blocks, with commas between."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in value.split(",")]
        for word in words:
            if word not in map(str, _BLOCKS):
                self.fail(f"{word!r} is no size of a block: {', '.join(map(str, _BLOCKS))}", param, ctx)
        return tuple(sorted({int(word) for word in words}))


@click.command("kernels")
@click.option("--only", metavar="PATTERN", default="*", help="Operations or kernels with this in their name; * is any.")
@click.option(
    "--block",
    "blocks",
    type=_Blocks(),
    default="64,128,256,512",
    show_default=True,
    help="Threads in a block; the library's own 256 are always measured.",
)
@click.option("--repeats", type=count_from(1), default=30, show_default=True, help="Samples of each.")
@click.option("--seconds", type=Real(0), help="No further operation after so long.  [default: all]")
@click.option("--tiny", is_flag=True, help="Tiny shapes: to see that it runs; the times say nothing.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
def kernels(
    only: str, blocks: tuple[int, ...], repeats: int, seconds: float | None, tiny: bool, json_file: Path | None
) -> None:
    """Time every kernel on a GPU, in blocks of several sizes.

    Kernels run as the operations that launch them, one by one. An operation's values are compared with the CPU's first:
    a wrong one ends the run with exit code 1. Each sample has other random inputs than the one before, and an empty L2
    cache. GB/s are the bytes that the operation cannot but read or write over the time between two events of the GPU.
    """
    with user_errors():
        check_folder(json_file)
    chosen = _chosen(measure.cases(tiny), only)
    choose_compute("cuda", None)
    stopwatch, begin = Stopwatch(), time.perf_counter()
    results: report.Results = {
        "schema": report.SCHEMA,
        "machine": machine.describe(["xpnet"]),
        "gpu": measure.describe_gpu(),
        "settings": {"repeats": repeats, "blocks": list(blocks), "own_block": BLOCK, "tiny": tiny},
        "copy": measure.bandwidth(stopwatch, repeats, tiny),
        "rows": [],
    }
    for number, case in enumerate(chosen, 1):
        if seconds is not None and time.perf_counter() - begin > seconds:
            click.echo(f"left out after {seconds:g} s: {len(chosen) - number + 1} of {len(chosen)}", err=True)
            break
        click.echo(f"{number} of {len(chosen)}: {case}", err=True)
        try:
            with memory.guard(lambda: "measure fewer operations, with --only"):
                results["rows"] += measure.measure(case, blocks, repeats, stopwatch)
        except DisagreementError as error:
            raise click.ClickException(str(error)) from error
        except OutOfMemoryError as error:
            raise UserError(f"{case}: {error}") from error
    click.echo(f"{report.header(results)}\n\n{report.table(results)}")
    if json_file:
        write_json(results, json_file)


def _chosen(cases: list[KernelCase], only: str) -> list[KernelCase]:
    pattern = f"*{only.lower()}*"
    chosen = [
        case
        for case in cases
        if any(fnmatch.fnmatchcase(name.lower(), pattern) for name in (case.operation, *case.kernels))
    ]
    if not chosen:
        operations = ", ".join(dict.fromkeys(case.operation for case in cases))
        raise UserError(f"no operation or kernel has {only!r} in its name; there are {operations}")
    return chosen
