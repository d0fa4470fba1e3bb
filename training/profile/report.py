"""The table of a profile: each layer and phase as it was measured, next to what the cost model says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from training.profile.cost import Work
from training.profile.steps import Profile, ProfileRow
from training.terminal.tables import table

if TYPE_CHECKING:
    from rich.table import Table

Works = Mapping[tuple[str, str], Work]


def table_of(found: Profile, works: Works, with_rates: bool) -> Table:
    """Return the table of a profile: a row for each layer and phase, and the step.

    Args:
        works: the cost of a step by the model, by layer and phase.
        with_rates: False where the time is not that of the work, so that bytes and operations over time mean nothing.
    """
    rows = found.rows()
    total = ProfileRow(
        "step",
        "",
        sum(row.operations for row in rows),
        sum(row.nanoseconds for row in rows),
        sum(row.bytes for row in rows),
    )
    whole = sum(works.values(), Work())
    cells: list[tuple[str, ...]] = [
        ("layer", "phase", "calls", "ms", "share", "MB", "GB/s", "least MB", "MFLOP", "GFLOP/s")
    ]
    for row in (*rows, total):
        work = whole if row is total else works.get((row.layer, row.phase))
        measured = _numbers(row, found.steps, total, with_rates)
        cells.append((row.layer, row.phase, *measured, *_model(work, row, found.steps, with_rates)))
    return table(cells, words=2)


def meanwhile(found: Profile) -> Iterator[str]:
    """Yield a line for each thing that other threads did."""
    for (thread, name), nanoseconds in found.other_threads().items():
        yield f"meanwhile, on thread {thread}: {name}, {1e-6 * nanoseconds / found.steps:.3f} ms a step"


def _numbers(row: ProfileRow, steps: int, total: ProfileRow, with_rates: bool) -> tuple[str, ...]:
    """Return calls, milliseconds, share, MB and GB/s of a step; "-" where no operation was called."""
    rate = f"{row.bytes / max(row.nanoseconds, 1):.1f}" if with_rates else "-"
    return (
        f"{row.operations / steps:.4g}",
        f"{1e-6 * row.nanoseconds / steps:,.3f}",
        f"{row.nanoseconds / max(total.nanoseconds, 1):.1%}",
        *((f"{row.bytes / steps / 1e6:,.3f}", rate) if row.operations else ("-", "-")),
    )


def _model(work: Work | None, row: ProfileRow, steps: int, with_rates: bool) -> tuple[str, ...]:
    """Return least bytes, operations, and their rate over the measured time; "-" where the model has none."""
    if work is None:
        return ("-",) * 3
    rate = f"{steps * work.flops / max(row.nanoseconds, 1):,.1f}" if with_rates else "-"
    return f"{work.nbytes / 1e6:,.3f}", f"{work.flops / 1e6:,.3f}", rate
