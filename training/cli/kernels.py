"""``xpnet kernels``: the ``.cu`` files' kernels, what they use, which are compiled, and compiling the others ahead."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from training.cli.common import UserError, json_option, user_errors
from training.files import json_text

if TYPE_CHECKING:
    from kernels.core.catalog import Resources, Variant

_VARIANTS = "variants (file, dtype, width of indices)"


@click.command("kernels")
@click.option("--build", is_flag=True, help="Compile those that are not compiled yet, before training needs them.")
@click.option("--device", default="cuda", show_default=True, help="cuda or cuda:<index>: compiled for which GPU.")
@json_option
def command(build: bool, device: str, as_json: bool) -> None:
    """List the .cu files' kernels: registers on each architecture, shared memory, spills, and which are compiled.

    Registers are those of a thread, shared memory is a block's; memory and spills are the most bytes on any
    architecture. These figures come with xpnet and need no GPU. The list is of kernels with 32-bit indices; JSON and
    --build have those with 64 bits too. Compiled means: CuPy's cache on disk has it, the next process only loads it.
    Sums and elementwise operations, optimizers among them, are not listed: CuPy compiles their kernels when first used.
    """
    from backend.devices import parse
    from kernels.core import catalog

    with user_errors():
        if device.partition(":")[0] != "cuda":
            raise ValueError(f"kernels are compiled for cuda or cuda:<index>, not for {device!r}")
        parse(device)
    built = _build(device) if build else None
    if built and not as_json:
        click.echo(
            f"{built['compiled']} {_VARIANTS} compiled in {built['seconds']:.1f} s; "
            f"{built['already']} were compiled already"
        )
        return
    table = catalog.read_table()
    rows, compiled = catalog.resources(table), _compiled(device)
    if as_json:
        kernels = [_record(row, None if compiled.problem else row.variant in compiled.variants) for row in rows]
        head = {"compiler": f"NVRTC {table['compiler']}", "options": table["options"]}
        state = {"gpu": compiled.gpu or None, "problem": compiled.problem or None, "build": built}
        click.echo(json_text.dump({**head, **state, "kernels": kernels}, indent=2))
        return
    click.echo(f"NVRTC {table['compiler']}, 32-bit indices; under a number, registers on that architecture (90: sm_90)")
    for line in [*_lines(rows, compiled), *_notes(rows, compiled)]:
        click.echo(line)


class _Compiled(NamedTuple):
    """What is compiled for a GPU, or the problem for which that is not known; ``gpu`` says which, with its
    architecture."""

    variants: set[Variant]
    gpu: str
    problem: str


def _build(device: str) -> dict[str, Any]:
    """Compiles what is not compiled yet; how many variants that were, how many were there, and how long it took.

    Raises:
        UserError: there is no such GPU, or a kernel does not compile for it.
    """
    import backend
    from kernels.core import catalog
    from kernels.core.launch import KernelError

    try:
        with backend.use(device):
            start = time.perf_counter()
            cached = catalog.cached(catalog.variants())
            missing = [variant for variant in catalog.variants() if variant not in cached]
            _compile(missing)
            seconds = time.perf_counter() - start
    except (backend.DeviceError, KernelError) as error:
        raise UserError(str(error)) from error
    return {"compiled": len(missing), "already": len(cached), "seconds": seconds}


def _compile(variants: Sequence[Variant]) -> None:
    from tqdm import tqdm

    with tqdm(total=len(variants), leave=False, dynamic_ncols=True, disable=None) as bar:  # None: on a terminal alone
        for variant in variants:
            bar.set_description_str(str(variant))
            variant.compile()
            bar.update()


def _compiled(device: str) -> _Compiled:
    import backend
    from kernels.core import catalog
    from kernels.core.launch import KernelError

    try:
        with backend.use(device) as active:
            capability = backend.inspect_cuda().gpus[active.index].compute_capability
            found = catalog.cached(catalog.variants())
            return _Compiled(found, f"{active}, sm_{capability.replace('.', '')}", "")
    except backend.DeviceError as error:
        return _Compiled(set(), "", f"no GPU: {error}")
    except KernelError as error:
        return _Compiled(set(), "", str(error))


def _record(row: Resources, compiled: bool | None) -> dict[str, Any]:
    file, dtype, _ = row.variant
    return {
        "kernel": row.kernel,
        "file": file,
        "dtype": dtype,
        "index_bits": row.variant.index_bits,
        "registers": row.registers,
        "shared": row.shared,
        "stack": row.stack,
        "spilled": row.spilled,
        "compiled": compiled,
    }


def _lines(rows: Sequence[Resources], compiled: _Compiled) -> Iterator[str]:
    """The list: a line for each kernel with 32-bit indices, and the head."""
    architectures = sorted({architecture for row in rows for architecture in row.registers or ()})
    width = max(len(row.kernel) for row in rows) + 1
    numbers = "".join(f"{architecture:>4}" for architecture in architectures)
    yield f"{'kernel':<{width}}{'dtype':<8}{numbers}{'shared':>8}{'spills':>8}{'compiled':>10}"
    for row in rows:
        if not row.variant.wide:
            registers = "".join(f"{(row.registers or {}).get(number, '-'):>4}" for number in architectures)
            figures = "".join(f"{'-' if figure is None else figure:>8}" for figure in (row.shared, row.spilled))
            word = "-" if compiled.problem else "yes" if row.variant in compiled.variants else "no"
            yield f"{row.kernel:<{width}}{row.variant.dtype:<8}{registers}{figures}{word:>10}"


def _notes(rows: Sequence[Resources], compiled: _Compiled) -> Iterator[str]:
    """What is said below the list."""
    unknown = sorted({row.variant.file for row in rows if row.registers is None})
    if unknown:
        yield f"no figures for {', '.join(unknown)}: new, or changed since they were taken"
    if compiled.problem:
        yield compiled.problem
    else:
        count = len({row.variant for row in rows})
        rest = "" if len(compiled.variants) == count else "; xpnet kernels --build compiles the rest"
        yield f"{compiled.gpu}: {len(compiled.variants)} of {count} {_VARIANTS} are compiled{rest}"
