"""``xpnet kernels``: list the kernels of the ``.cu`` files and what they use, and compile them ahead of use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

import backend
from backend.devices import parse
from kernels.core import catalog
from kernels.core.catalog import Resources, Variant
from kernels.core.compiling import KernelError
from training.cli.common import UserError, json_option, user_errors
from training.files import json_text
from training.terminal.bars import bar
from training.terminal.tables import show, table


@click.command("kernels")
@click.option("--build", is_flag=True, help="Compile all of them now, before training needs them.")
@click.option("--device", default="cuda", show_default=True, help="cuda or cuda:<index>: the GPU to compile for.")
@json_option
def command(build: bool, device: str, as_json: bool) -> None:
    """List the .cu files' kernels: registers on each architecture, shared memory and spills; or compile them.

    Registers are those of a thread, shared memory is a block's; memory and spills are the most bytes on any
    architecture. These figures come with xpnet and need no GPU. The list is of kernels with 32-bit indices; JSON and
    --build have those with 64 bits too. CuPy keeps what it compiles on disk, so that --build is quick the next time.
    Sums and elementwise operations, optimizers among them, are not listed: CuPy compiles their kernels when first used.
    """
    with user_errors():
        if device.partition(":")[0] != "cuda":
            raise ValueError(f"kernels are compiled for cuda or cuda:<index>, not for {device!r}")
        parse(device)
    built = _build(device) if build else None
    known = catalog.read_table()
    rows = catalog.resources(known)
    if as_json:
        head = {"compiler": f"NVRTC {known['compiler']}", "options": known["options"], "build": built}
        click.echo(json_text.dump({**head, "kernels": [_record(row) for row in rows]}, indent=2))
    elif built is not None:
        click.echo(
            f"{built['variants']} variants (file, dtype, width of indices) compiled for {built['gpu']} in "
            f"{built['seconds']:.1f} s"
        )
    else:
        click.echo(
            f"NVRTC {known['compiler']}, 32-bit indices; under a number, registers on that architecture (90: sm_90)"
        )
        show(table(_cells(rows), words=2))
        if unknown := sorted({row.variant.file for row in rows if row.registers is None}):
            click.echo(f"no figures for {', '.join(unknown)}: new, or changed since they were taken")


def _build(device: str) -> dict[str, Any]:
    """Compile every variant; return how many, for which GPU, and in how many seconds.

    Raises:
        UserError: there is no such GPU, or a kernel does not compile for it.
    """
    variants = catalog.variants()
    try:
        with backend.use(device) as active:
            start = time.perf_counter()
            _compile(variants)
            seconds = time.perf_counter() - start
    except (backend.DeviceError, KernelError) as error:
        raise UserError(str(error)) from error
    return {"gpu": str(active), "variants": len(variants), "seconds": seconds}


def _compile(variants: Sequence[Variant]) -> None:
    with bar("kernels", len(variants), interval=0.0) as shown:
        for place, variant in enumerate(variants):
            shown.update(place, str(variant), f"{place} of {len(variants)}")
            variant.compile()


def _record(row: Resources) -> dict[str, Any]:
    return {
        "kernel": row.kernel,
        "file": row.variant.file,
        "dtype": row.variant.dtype,
        "index_bits": row.variant.index_bits,
        "registers": row.registers,
        "shared": row.shared,
        "stack": row.stack,
        "spilled": row.spilled,
    }


def _cells(rows: Sequence[Resources]) -> list[tuple[str, ...]]:
    """Return the heads, and a line for each kernel with 32-bit indices."""
    architectures = sorted({architecture for row in rows for architecture in row.registers or ()})
    cells = [("kernel", "dtype", *map(str, architectures), "shared", "spills")]
    for row in (row for row in rows if not row.variant.wide):
        registers = [(row.registers or {}).get(number) for number in architectures]
        figures = ("-" if figure is None else str(figure) for figure in (*registers, row.shared, row.spilled))
        cells.append((row.kernel, row.variant.dtype, *figures))
    return cells
