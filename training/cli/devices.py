"""``xpnet devices``: what this machine can compute on, and what it lacks."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import click

from training.cli.common import json_option, user_errors
from training.files import json_text


@click.command("devices")
@json_option
def command(as_json: bool) -> None:
    """Show the CPU, its BLAS, the GPUs, and what is missing with the remedy."""
    found = inspect()
    if as_json:
        click.echo(json_text.dump(found, indent=2))
        return
    cpu, cuda = found["cpu"], found["cuda"]
    click.echo(f"cpu     {cpu['model']}, {cpu['cores']} cores, {cpu['threads']} threads used")
    for blas in cpu["blas"]:
        click.echo(f"        {blas['name']} {blas['version']} ({blas['architecture']}), {blas['threads']} threads")
    for gpu in cuda["gpus"]:
        size = f"{gpu['memory'] / 2**30:.1f} GiB"
        click.echo(f"cuda:{gpu['index']}  {gpu['model']}, compute capability {gpu['compute_capability']}, {size}")
    if cuda["gpus"]:
        click.echo(f"        CuPy {cuda['cupy_version']}")
    if cuda["problem"]:
        click.echo(f"cuda    not usable: {cuda['problem']}")
        click.echo(f"        remedy: {cuda['remedy']}")


def inspect() -> dict[str, Any]:
    """What was found, ready for JSON."""
    import backend

    with user_errors():
        threads = backend.threads.limit()
    cpu = {
        "model": backend.devices.describe_cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "blas": backend.devices.describe_blas(),
    }
    return {"cpu": cpu, "cuda": asdict(backend.inspect_cuda())}
