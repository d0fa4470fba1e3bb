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
    """Show the CPU, its BLAS, the GPUs, and what is missing with the remedy."""
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
    if cuda["problem"]:
        click.echo(f"cuda    not usable: {cuda['problem']}")
        click.echo(f"        remedy: {cuda['remedy']}")
