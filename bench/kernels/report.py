"""Show the times of kernels as a table."""

from __future__ import annotations

from typing import Any

from bench.kernels.case import KernelRow
from training.terminal.tables import aligned

SCHEMA = 1

Results = dict[str, Any]
"""``{"schema", "machine", "gpu", "settings", "copy", "rows": […]}``: plain numbers and words. Times are in
microseconds, ``gbps`` are 10⁹ least bytes a second."""


def header(results: Results) -> str:
    """Return a description of the GPU and the machine in a few lines."""
    gpu, machine, copy = results["gpu"], results["machine"], results["copy"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, {gpu['multiprocessors']} multiprocessors, "
        f"{gpu['memory_bytes'] / 2**30:.1f} GiB, L2 cache {gpu['l2_bytes'] / 2**20:.0f} MiB",
        f"CuPy {gpu['cupy']}, CUDA driver {gpu['driver']}, runtime {gpu['runtime']}",
        f"{machine['processor']}, {machine['system']}, {versions}",
        f"a copy moves {copy['gbps']:,.0f} GB/s ({copy['bytes'] / 2**20:,.0f} MiB in {_time(copy)}): 100 % below",
    ]
    lines.append(f'blocks of {results["settings"]["own_block"]} threads; under "at 64": µs in blocks of 64')
    if results["settings"]["tiny"]:
        lines.append("tiny shapes: the values were checked, the times say nothing")
    return "\n".join(lines)


def table(results: Results) -> str:
    """Return all cases as text, then the two ways of col2im, and convolutions next to their parts.

    Times are medians ± half the interquartile range.
    """
    rows = results["rows"]
    parts = [_cases(results), *_notes(rows), "", _launched(rows)]
    for title, lines in (("col2im, gather against scatter, µs", _col2im(rows)), ("convolution, µs", _pieces(rows))):
        if len(lines) > 1:
            parts += ["", title, *aligned(lines, words=3)]
    return "\n".join(parts)


def _cases(results: Results) -> str:
    settings = results["settings"]
    others = [size for size in settings["blocks"] if size != settings["own_block"]]
    names = ["operation", "shape", "dtype", "least MB", "µs", "GB/s", "of copy"]
    lines = [[*names, *(f"at {size}" for size in others)]]
    for own in _own(results["rows"]):
        times = {row["block"]: row for row in results["rows"] if _same(row, own)}
        lines.append([
            own["operation"],
            _size(own),
            own["dtype"],
            f"{own['least_bytes'] / 1e6:.3g}",
            _time(own),
            f"{own['gbps']:.4g}",
            f"{own['gbps'] / results['copy']['gbps']:.0%}",
            *(_other(times.get(size), own, size) for size in others),
        ])  # fmt: skip
    return "\n".join(aligned(lines, words=3))


def _other(row: KernelRow | None, own: KernelRow, size: int) -> str:
    if row is not None:
        return f"{row['us']:.1f}"
    return "" if own["most_threads"] is None else f"at most {own['most_threads']}"


def _own(rows: list[KernelRow]) -> list[KernelRow]:
    """Return the first row of each case, that of the library's own block size."""
    found: list[KernelRow] = []
    for row in rows:
        if not (found and _same(found[-1], row)):
            found.append(row)
    return found


def _same(one: KernelRow, other: KernelRow) -> bool:
    return all(one[key] == other[key] for key in ("operation", "shape", "detail", "dtype"))


def _size(row: KernelRow) -> str:
    return f"{row['shape']}, {row['detail']}" if row["detail"] else row["shape"]


def _time(row: KernelRow) -> str:
    low, high = row["quartiles_us"]
    return f"{row['us']:.1f} ±{50 * (high - low) / row['us']:3.0f} %{'!' if _is_late(row) else ''}"


def _is_late(row: KernelRow) -> bool:
    return 2 * row["late"] > row["samples"]


def _notes(rows: list[KernelRow]) -> list[str]:
    if not any(map(_is_late, rows)):
        return []
    return ["!: most samples began before the host had launched the whole call, and may hold its time"]


def _launched(rows: list[KernelRow]) -> str:
    """Return the kernels of each operation; "or" if the choice depends on the window."""
    found: dict[str, list[str]] = {}
    for row in _own(rows):
        ways = found.setdefault(row["operation"], [])
        names = ", ".join(row["kernels"]) or "of one block size"
        if names not in ways:
            ways.append(names)
    lines = [[operation, " or ".join(ways)] for operation, ways in found.items()]
    return "\n".join(aligned([["operation", "kernels"], *lines], words=2))


def _find(rows: list[KernelRow], like: KernelRow, operation: str) -> KernelRow | None:
    """Return the row of another operation on the same shape and dtype."""
    wanted = (operation, like["shape"], like["dtype"])
    return next((row for row in rows if (row["operation"], row["shape"], row["dtype"]) == wanted), None)


def _col2im(rows: list[KernelRow]) -> list[list[str]]:
    lines = [["order", "shape", "dtype", "gather", "scatter", "scatter / gather", "scatter by"]]
    own = _own(rows)
    for gather in (row for row in own if row["operation"].startswith("col2im gather")):
        order = gather["operation"].split()[-1]
        scatter = _find(own, gather, f"col2im scatter {order}")
        if scatter is not None:
            ratio = scatter["us"] / gather["us"]
            (kernel,) = scatter["kernels"]
            how = "stores" if kernel.endswith("plain") else "atomicAdd"
            cells = [f"{gather['us']:.1f}", f"{scatter['us']:.1f}", f"{ratio:.2f}", how]
            lines.append([order, gather["shape"], gather["dtype"], *cells])
    return lines


def _pieces(rows: list[KernelRow]) -> list[list[str]]:
    lines = [["", "shape", "dtype", "im2col", "GEMM", "TFLOP/s", "sum", "convolution", "convolution / sum"]]
    own = _own(rows)
    for whole in (row for row in own if row["operation"] == "convolution"):
        im2col, gemm = _find(own, whole, "im2col HWC"), _find(own, whole, "GEMM")
        if im2col is not None and gemm is not None:
            total = im2col["us"] + gemm["us"]
            times = [f"{im2col['us']:.1f}", f"{gemm['us']:.1f}", f"{gemm['flops'] / gemm['us'] / 1e6:.3g}"]
            ratio = f"{whole['us'] / total:.2f}"
            lines.append(["", _size(whole), whole["dtype"], *times, f"{total:.1f}", f"{whole['us']:.1f}", ratio])
    return lines
