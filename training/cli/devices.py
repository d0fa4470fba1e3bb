"""``xpnet devices``: list the devices of this machine, and what is missing."""

from __future__ import annotations

import click

from backend.devices import describe
from kernels.core import native
from training.cli.common import json_option, user_errors
from training.files import json_text


@click.command("devices")
@json_option
def command(as_json: bool) -> None:
    """Show the CPU, its BLAS, the GPUs, MPI and NCCL, and what is missing with the remedy.

    MPI and NCCL join several processes and GPUs in one training; one device needs neither.
    """
    with user_errors():
        found = describe()
        library = native.library()
        problem = native.refusal()
    found["cpu"]["kernels"] = {"level": library.level, "problem": problem, "remedy": library.remedy}
    if as_json:
        click.echo(json_text.dump(found, indent=2))
        return
    cpu, cuda = found["cpu"], found["cuda"]
    click.echo(f"cpu     {cpu['model']}, {cpu['cores']} cores, {cpu['threads']} threads used")
    for blas in cpu["blas"]:
        click.echo(f"        {blas['name']} {blas['version']} ({blas['architecture']}), {blas['threads']} threads")
    click.echo(f"        NumPy computes: {problem}" if problem else f"        C kernels for {library.processor}")
    if library.remedy:
        click.echo(f"        remedy: {library.remedy}")
    for gpu in cuda["gpus"]:
        size = f"{gpu['memory'] / 2**30:.1f} GiB"
        click.echo(f"cuda:{gpu['index']}  {gpu['model']}, compute capability {gpu['compute_capability']}, {size}")
    if cuda["gpus"]:
        click.echo(f"        CuPy {cuda['cupy_version']}")
    mpi, nccl = found["mpi"], found["nccl"]
    if mpi["library"]:
        click.echo(f"mpi     {_at(mpi['library'], mpi['path'])}, mpi4py {mpi['mpi4py']}")
    if mpi["launcher"]:
        click.echo(f"        processes are started by {_at(mpi['launcher_version'], mpi['launcher'])}")
    if nccl["version"]:
        click.echo(f"nccl    {_at(nccl['version'], nccl['path'])}")
    for name, report in (("cuda", cuda), ("mpi", mpi), ("nccl", nccl)):
        if report["problem"]:
            click.echo(f"{name:<8}not usable: {report['problem']}")
        if report["problem"] and not (name == "nccl" and cuda["problem"]):  # its remedy is that of cuda
            click.echo(f"        remedy: {report['remedy']}")


def _at(name: str, path: str) -> str:
    """Return a name and where it lies, as far as both are known."""
    return f"{name} ({path})" if name and path else name or path
