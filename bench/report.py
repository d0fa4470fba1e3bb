"""Show results as a table, as JSON and as a chart."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from training.files.durable import write_output
from training.terminal.tables import aligned

SCHEMA = 1

Results = dict[str, Any]
"""``{"schema", "machine", "settings", "steps": […], "memory": […], "epochs": […]}``: plain numbers and words."""


class ResultsError(ValueError):
    """A file was not written by ``write_json``."""


def check_folder(file: Path | None) -> None:
    """Check, before anything is measured, that a file can be written after it.

    Raises:
        ValueError: the file's folder does not exist.
    """
    if file and not file.parent.is_dir():
        raise ValueError(f"{file}: the folder {file.parent} does not exist")


def write_json(results: Results, file: Path) -> None:
    """Write results for ``read_json``."""
    write_output(file, (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(file: Path) -> Results:
    """Read the results that ``write_json`` wrote.

    Raises:
        ResultsError: the file holds something else.
        OSError: it cannot be read.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{file}: not JSON: {error}") from error
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != SCHEMA:
        raise ResultsError(f"{file}: expected results of schema {SCHEMA}, got {schema!r}")
    missing = {"steps", "memory"} - results.keys()
    if missing:
        raise ResultsError(f"{file}: lacks {', '.join(sorted(missing))}")
    return results


def header(results: Results) -> str:
    """Return a description of the machine in a few lines."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    blas = "; ".join(" ".join(str(word) for word in each.values() if word) for each in machine["blas"])
    lines = [f"{machine['processor']}, {machine['cores']} cores, {machine['system']}", f"BLAS: {blas}", versions]
    if machine["unset"]:
        lines.append(f"unset for this process: {machine['unset']}")
    if not machine["sees_pressure"]:
        lines.append("no /proc/pressure/cpu: samples that other programs disturb count, too")
    return "\n".join(lines)


def table(results: Results) -> str:
    """Return all results as text: ms are medians ± half the interquartile range, ratios are xpnet divided by the
    peer."""
    parts = [_grid(results["steps"], "ms"), *map(_note, results["steps"])]
    if any(each["disturbed"] for row in results["steps"] for each in row["sides"].values()):
        parts.append("!: too few undisturbed samples, figures are of all samples")
    if results["memory"]:
        parts += ["", f"peak memory of a step, by {results['memory'][0]['by']}", _grid(results["memory"], "mib")]
    parts += ["", *map(_epoch_line, results["epochs"])] if results["epochs"] else []
    return "\n".join(part for part in parts if part is not None)


def chart(results: Results, file: Path) -> None:
    """Draw the ratio of xpnet to each peer, a bar for each workload, a panel for each number of threads.

    Raises:
        OSError: the file cannot be written.
        ValueError: its suffix is not that of a picture format.
    """
    from matplotlib.figure import Figure

    counts = list(dict.fromkeys(row["threads"] for row in results["steps"]))
    longest = max(len(_rows_of(results, count)) for count in counts)
    figure = Figure(figsize=(6 * len(counts), 1.5 + 0.55 * longest), layout="constrained")
    panels = figure.subplots(1, len(counts), squeeze=False, sharex=True)[0]
    for axes, count in zip(panels, counts, strict=True):
        _panel(axes, _rows_of(results, count), f"{count} thread{'s' * (count > 1)}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(len(labels), 1))
    figure.suptitle("time of xpnet / time of the peer: left of the line xpnet is faster")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=file.suffix.removeprefix("."), dpi=120)
    write_output(file, drawn.getvalue())


def _panel(axes: Any, rows: list[dict[str, Any]], title: str) -> None:
    peers = list(dict.fromkeys(peer for row in rows for peer in row["ratios"]))
    height = 0.8 / max(len(peers), 1)
    for number, peer in enumerate(peers):
        found = [(place, row["ratios"][peer]) for place, row in enumerate(rows) if peer in row["ratios"]]
        places = [place + (number - (len(peers) - 1) / 2) * height for place, _ in found]
        widths = [ratio - 1 for _, ratio in found]
        bars = axes.barh(places, widths, height, left=1, label=peer, color=f"C{number}")
        axes.bar_label(bars, [f"{ratio:.2f}" for _, ratio in found], fontsize=7, padding=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15)
    axes.set_yticks(range(len(rows)), [row["workload"] for row in rows])
    axes.invert_yaxis()
    axes.set_title(title)


def _rows_of(results: Results, count: int) -> list[dict[str, Any]]:
    return [row for row in results["steps"] if row["threads"] == count]


def _grid(rows: list[dict[str, Any]], unit: str) -> str | None:
    if not rows:
        return None
    sides = list(dict.fromkeys(side for row in rows for side in row["sides"]))
    lines = [
        ["workload", "threads", f"xpnet {unit}"] + [cell for side in sides[1:] for cell in (f"{side} {unit}", "ratio")]
    ]
    for row in rows:
        cells = [row["workload"], str(row["threads"])]
        for side in sides:
            figures = row["sides"].get(side)
            cells.append(_cell(figures, unit) if figures else "")
            if side != sides[0]:
                cells.append(f"{row['ratios'][side]:.2f}" if figures else "")
        lines.append(cells)
    return "\n".join(aligned(lines))


def _cell(figures: dict[str, Any], unit: str) -> str:
    if unit == "mib":
        return f"{figures['mib']:.1f}"
    low, high = figures["quartiles_ms"]
    spread = 50 * (high - low) / figures["ms"]
    return f"{figures['ms']:.3f} ±{spread:3.0f} %{'!' if figures['disturbed'] else ' '}"


def _note(row: dict[str, Any]) -> str | None:
    """Return notes on a row: the ways that were chosen, the samples that do not count."""
    sides = row["sides"]
    said = [f"{name} {each['way']}" for name, each in sides.items() if each["way"] not in ("", "contiguous")]
    discarded = sum(each["discarded"] for each in sides.values())
    if discarded:
        said.append(f"{discarded} of {discarded + sum(each['samples'] for each in sides.values())} samples disturbed")
    return f"  {row['workload']}, {row['threads']}: {', '.join(said)}" if said else None


def _epoch_line(row: dict[str, Any]) -> str:
    return (
        f"epoch of {row['model']} on {row['dataset']}, {row['threads']} thread(s): {row['seconds']:.1f} s, "
        f"{row['images_per_second']:,.0f} images/s; step {row['step_share']:.1%}, "
        f"loop and loader {row['loop_share']:.1%}, evaluation and saving {row['evaluation_share']:.1%}; "
        f"the loop costs {row['loop_over_step']:+.1%} of the steps ({row['epochs']} epochs)"
        + ("" if row["pressure"] is None else f"; {row['pressure']:.0%} of the time a thread waited")
    )
