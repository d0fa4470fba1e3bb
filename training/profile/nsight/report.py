"""The table of kernels by phase and layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from training.profile.nsight.rows import PHASES, KernelRow, total
from training.terminal.tables import aligned

NAMES = 3
NAME_WIDTH = 48


def table(
    rows: Sequence[KernelRow],
    peak_gb_s: float | None,
    steps: int = 1,
    least: Mapping[tuple[str, str], int] | None = None,
) -> str:
    """Return a line for each phase and layer, one below it for each of its kernels if there are several, and the total.

    Args:
        rows: of ``training.profile.nsight.run``.
        peak_gb_s: the GPU's memory bandwidth in 1e9 bytes a second, for rows with bytes and without a percentage.
        steps: how many steps were captured: the table is of one of them.
        least: the least bytes that a step must move, by phase and layer: shown where the tool counts none.

    Raises:
        ValueError: ``steps`` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"expected at least one captured step, got steps={steps}")
    groups: dict[tuple[str, str], list[KernelRow]] = {}
    for row in sorted(rows, key=lambda row: PHASES.index(row.phase) if row.phase in PHASES else len(PHASES)):
        groups.setdefault((row.phase, row.layer), []).append(row)
    sums = {key: _with_least(total(group), (least or {}).get(key), steps) for key, group in groups.items()}
    of_step = "/step" if steps > 1 else ""
    lines: list[tuple[str, ...]] = [
        ("phase", "layer", "kernel", f"launches{of_step}", f"us{of_step}", f"MB{of_step}", "GB/s", "% of peak")
    ]
    for (phase, layer), group in groups.items():
        several = len(group) > 1
        kernel = f"{len(group)} kernels" if several else _shortened(group[0].kernel)
        lines.append((phase or "-", layer or "-", kernel, *_numbers(sums[phase, layer], peak_gb_s, steps)))
        if several:
            lines += [("", "", f"  {_shortened(row.kernel)}", *_numbers(row, peak_gb_s, steps)) for row in group]
    lines.append(("total", "", "", *_numbers(total(list(sums.values())), peak_gb_s, steps)))
    return "\n".join(line.rstrip() for line in aligned(lines, words=NAMES))


def _with_least(row: KernelRow, least: int | None, steps: int) -> KernelRow:
    return row if row.bytes is not None or least is None else replace(row, bytes=float(least * steps))


def _numbers(row: KernelRow, peak_gb_s: float | None, steps: int) -> tuple[str, ...]:
    """Return launches, time, bytes, throughput and percentage; "-" for what is not known."""
    rate = row.bytes / row.seconds / 1e9 if row.bytes is not None and row.seconds else None
    percent = row.percent_of_peak
    if percent is None and rate is not None and peak_gb_s:
        percent = 100 * rate / peak_gb_s
    return (
        f"{row.calls / steps:,.6g}",
        f"{row.seconds / steps * 1e6:,.1f}",
        "-" if row.bytes is None else f"{row.bytes / steps / 1e6:,.3f}",
        "-" if rate is None else f"{rate:,.1f}",
        "-" if percent is None else f"{percent:.1f}",
    )


def _shortened(kernel: str) -> str:
    return kernel if len(kernel) <= NAME_WIDTH else kernel[: NAME_WIDTH - 1] + "…"
