"""Join what ``bench/on_gpu.sh`` measured into one table and one file: ``python -m bench gpu-table FOLDER``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.report import write_json
from training.cli.common import user_errors
from training.terminal.tables import aligned

FIGURES = ("machine", "check", "host", "steps", "kernels", "convolutions")
"""The files of figures, without ``.json``, that stages leave in the folder."""

Figures = dict[str, Any]


def read(folder: Path) -> Figures:
    """Return what the stages of a run left: ``stages``, each with seconds and exit code, and the ``FIGURES``.

    The figures of a stage that failed, or did not run, are None.

    Raises:
        OSError: there is no ``stages.tsv``, which the script writes.
    """
    lines = [line.split("\t") for line in (folder / "stages.tsv").read_text(encoding="utf-8").splitlines()]
    stages = {name: {"seconds": int(seconds), "exit": int(code)} for name, seconds, code in lines}
    return {"schema": 1, "stages": stages, **{name: _figures(folder / f"{name}.json") for name in FIGURES}}


def _figures(file: Path) -> Any:
    """Return what a file has; None if it is missing, or was not written to its end."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def table(figures: Figures) -> str:
    """Return all as one table for a terminal: a line for each figure."""
    lines = [["what", "which", "figure", "compared with"]]
    for name, stage in figures["stages"].items():
        lines.append(
            ["stage", name, f"{stage['seconds']} s", "" if not stage["exit"] else f"FAILED: exit {stage['exit']}"]
        )
    for model, step in _part(figures, "host", "steps", {}).items():
        if step["graph_us"] is not None:
            lines.append(["host", model, f"{step['enqueue_us']:,.0f} us eager", f"{step['graph_us']:,.0f} us by graph"])
    for row in _part(figures, "steps", "rows", []):
        ways = f"{row['eager_us']:,.0f} us eager", f"{row['graph_us']:,.0f} us by graph"
        lines.append(["step", f"{row['model']} {row['precision']}", *ways])
    copied = _part(figures, "kernels", "copy", {}).get("gbps")
    for row in _part(figures, "kernels", "rows", []):
        if row["block"] in (None, 256):
            which = f"{row['operation']}, {row['shape']}, {row['dtype']}"
            share = f"{row['gbps']:,.0f} GB/s, {row['gbps'] / copied:.0%} of a copy"
            lines.append(["kernel", which, f"{row['us']:,.1f} us", share])
    lines += _convolutions(_part(figures, "convolutions", "rows", []))
    return "\n".join(aligned(lines, words=4))


def _part(figures: Figures, stage: str, name: str, default: Any) -> Any:
    return (figures[stage] or {}).get(name, default)


def _convolutions(rows: list[Figures]) -> list[list[str]]:
    """Return a line for each implicit product, with the other ways beside it."""
    lines = []
    for row in (row for row in rows if row["way"] == "implicit"):
        same = [each for each in rows if all(each[key] == row[key] for key in ("layer", "product", "precision"))]
        others = [f"{each['us']:,.1f} us by {each['way']}" for each in same if each is not row]
        share = f", {row['of_peak']:.0%} of the peak" if row["of_peak"] else ""
        which = f"{row['layer']}, {row['product']}, {row['precision']}"
        lines.append(
            ["convolution", which, f"{row['us']:,.1f} us, {row['tflops']:.1f} TFLOP/s{share}", "; ".join(others)]
        )
    return lines


@click.command("gpu-table")
@click.argument("folder", type=click.Path(path_type=Path))
def gpu_table(folder: Path) -> None:
    """Print the figures of a run of bench/on_gpu.sh as one table; write it and results.json into its folder."""
    with user_errors():
        figures = read(folder)
        text = table(figures)
        (folder / "table.txt").write_text(text + "\n", encoding="utf-8")
        write_json(figures, folder / "results.json")
    click.echo(text)
