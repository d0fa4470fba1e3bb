"""Compare the model of the all-reduce with MPI's on this machine: ``python -m bench all-reduce``.

The link is measured by a step of a ring, in which every rank sends a part of its buffer to its neighbour while it
receives another; a line through the steps' times gives bandwidth and latency. With them the model of
``training.profile.cost.links`` gives the time of an all-reduce, which is then measured. What the model leaves out, the
additions and the cache, is what the ratio shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from bench.ranks import launch
from bench.report import check_folder
from training.cli.common import user_errors
from training.files.durable import write_output
from training.profile.cost.links import Link, ring_seconds
from training.terminal.tables import aligned

SIZES = (1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22)
"""Bytes of the buffers."""

RING = {"OMPI_MCA_coll_tuned_use_dynamic_rules": "1", "OMPI_MCA_coll_tuned_allreduce_algorithm": "4"}
RING_OF_MPICH = {"MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM": "ring"}
"""The settings under which Open MPI and MPICH reduce along a ring, whatever the size."""

LIMIT = 120.0
"""Seconds after which a measurement that has not ended is given up."""


class Times(NamedTuple):
    """Seconds for a buffer of ``nbytes``: of one step of a ring, of a blocking all-reduce and of one with a request."""

    nbytes: int
    step: float
    blocking: float
    requested: float


@click.command("all-reduce")
@click.option("--ranks", "counts", multiple=True, type=click.IntRange(2, 64), default=(2, 3, 4), show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
def all_reduce(counts: tuple[int, ...], json_file: Path | None) -> None:
    """Compare the model of the all-reduce with MPI's, and print this machine's --link for `xpnet summary`."""
    with user_errors():
        check_folder(json_file)
        found = {count: measured(count) for count in counts}
    links = {count: fitted(count, times) for count, times in found.items()}
    lines = [["ranks", "KiB", "step µs", "model µs", "all-reduce µs", "ratio", "Iallreduce µs", "ratio"]]
    for count, times in found.items():
        for each in times:
            model = ring_seconds(each.nbytes, count, links[count])
            cells = [f"{1e6 * each.step:.1f}", f"{1e6 * model:.1f}"]
            for seconds in (each.blocking, each.requested):
                cells += [f"{1e6 * seconds:.1f}", f"{seconds / model:.2f}"]
            lines.append([str(count), f"{each.nbytes // 1024}", *cells])
    for line in aligned(lines, words=0):
        click.echo(line)
    for count, link in links.items():
        click.echo(f"{count} ranks: --link {link.bandwidth / 1e9:.3g}:{1e6 * link.latency:.3g}")
    if json_file:
        rows = {str(count): [each._asdict() for each in times] for count, times in found.items()}
        fits = {str(count): link._asdict() for count, link in links.items()}
        write_output(json_file, (json.dumps({"times": rows, "links": fits}, indent=1) + "\n").encode())


def measured(ranks: int, rounds: int = 15) -> list[Times]:
    """Measure with so many ranks on this machine, as ``measure_rank`` does.

    Raises:
        ValueError: mpirun is missing, or the ranks failed or did not end; the message has what they said last.
    """
    command = launch.mpirun(ranks, "bench.ranks.all_reduce", str(rounds))
    try:
        done = subprocess.run(
            command,
            env=launch.environment(ranks, **RING, **RING_OF_MPICH),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{ranks} ranks did not end within {LIMIT:g} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]
        raise ValueError(f"{' '.join(command)} ended with {done.returncode}: {last}")
    return [Times(**row) for row in json.loads(done.stdout)]


def fitted(ranks: int, times: list[Times]) -> Link:
    """Return the link whose steps are nearest to those measured, by the sum of squares of the relative errors."""
    parts = np.array([each.nbytes / ranks for each in times])
    steps = np.array([each.step for each in times])
    columns = np.stack([np.ones_like(parts), parts], axis=1) / steps[:, None]
    latency, seconds_a_byte = np.linalg.lstsq(columns, np.ones_like(steps))[0]
    return Link("measured", float(1 / seconds_a_byte), float(max(latency, 0.0)))


def measure_rank(rounds: int, sizes: tuple[int, ...] = SIZES, seconds: float = 0.05) -> list[Times]:
    """Measure as one of the ranks that mpirun started.

    Args:
        rounds: turns that every figure is measured in; the least of the medians counts, since other programs only add.
        seconds: about how long a turn takes.
    """
    from mpi4py import MPI

    world: Any = MPI.COMM_WORLD
    works = {nbytes: _works(world, np.zeros(nbytes // 4, "float32")) for nbytes in sizes}
    turns = [
        {nbytes: [_median(world, work, seconds) for work in works[nbytes]] for nbytes in sizes} for _ in range(rounds)
    ]
    least = {nbytes: np.min([turn[nbytes] for turn in turns], axis=0).tolist() for nbytes in sizes}
    return [Times(nbytes, ring / world.size, *others) for nbytes, (ring, *others) in least.items()]


def _works(world: Any, numbers: Any) -> list[Callable[[], None]]:
    """Return as many steps of a ring as there are ranks, and the two all-reduces of the numbers."""
    from mpi4py import MPI

    count, rank = world.size, world.rank
    left, right = (rank - 1) % count, (rank + 1) % count
    parts = np.array_split(numbers, count)

    def ring() -> None:
        for number in range(count):
            world.Sendrecv(parts[(rank - number) % count], right, 0, parts[(rank - number - 1) % count], left, 0)

    return [
        ring,
        lambda: world.Allreduce(MPI.IN_PLACE, numbers, MPI.SUM),
        lambda: world.Iallreduce(MPI.IN_PLACE, numbers, MPI.SUM).Wait(),
    ]


def _median(world: Any, work: Callable[[], None], seconds: float) -> float:
    """Return the median of the slowest rank's seconds; all ranks do the work equally often."""
    from mpi4py import MPI

    def once() -> float:
        world.Barrier()
        start = time.perf_counter()
        work()
        return float(world.allreduce(time.perf_counter() - start, MPI.MAX))

    once()
    repeats = min(200, max(5, int(seconds / once())))
    return float(np.median([once() for _ in range(repeats)]))


if __name__ == "__main__":
    from mpi4py import MPI

    times = measure_rank(int(sys.argv[1]))
    if MPI.COMM_WORLD.rank == 0:
        json.dump([each._asdict() for each in times], sys.stdout)
