"""Count the instructions of the tensor-core kernels' inner loops: ``python -m bench issue``.

A speed test without a GPU. A warp scheduler of a GPU issues one instruction a cycle, and an A100's tensor cores take 8
cycles for an ``mma.sync`` of 16x8x8 TF32 or 16x8x16 float16 numbers. So a loop of n instructions, m of them HMMA, can
reach at most the share 8·m/n of the tensor cores' peak, however well its latencies are hidden.

The kernels are compiled by NVRTC and disassembled by ``nvdisasm`` (``pip install nvidia-cuda-nvdisasm``); neither needs
a GPU or a driver.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

from kernels.core import tensor_tiles
from kernels.core.tensor_tiles import KERNELS, Variant
from tests.support import nvrtc
from training.cli.common import UserError
from training.terminal.tables import aligned

ARCHITECTURES = (80, 90, 100, 120)

TABLE = Path(__file__).with_name("issue.json")
"""By kernel and architecture, instructions of the inner loop and how many of them are HMMA, as they were written."""

GROWTH = 1.05
"""The largest ratio of instructions for each HMMA to that of ``TABLE``."""

A100, CYCLES = 80, 8  # an A100's architecture, and its cycles for an HMMA


class Loop(NamedTuple):
    """The instructions of an inner loop, and those of them that multiply on tensor cores."""

    instructions: int
    products: int

    @property
    def ceiling(self) -> float:
        """Return the share of an A100's tensor-core peak that it can reach at most."""
        return min(1.0, CYCLES * self.products / self.instructions)


def variants() -> list[Variant]:
    """Return the texts that are counted: those of the table of registers, and float32 by one product of TF32."""
    known = tensor_tiles.variants()
    return [*(variant._replace(passes=1) for variant in known if variant.dtype == "float32"), *known]


@functools.cache
def disassembler() -> str | None:
    """Return the path of nvdisasm, from the wheel or on the PATH; None if it is not installed."""
    found = sorted(path for folder in sys.path for path in Path(folder or ".").glob("nvidia/cu*/bin/nvdisasm"))
    return str(found[-1]) if found else shutil.which("nvdisasm")


def count(variant: Variant, architecture: int) -> Loop:
    """Return the inner loop of a kernel: the largest one that has HMMA instructions.

    Raises:
        ValueError: there is none.
    """
    program = disassembler()
    assert program is not None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(nvrtc.machine_code(variant.code, architecture))
        file.flush()
        text = subprocess.run([program, "-c", file.name], capture_output=True, text=True, check=True).stdout
    name = KERNELS[variant.product]
    (body,) = (part for part in re.split(r"\.section\s+\.text\.", text)[1:] if part.startswith(f"{name},"))
    found = [Loop(len(loop), sum(each.startswith("HMMA") for each in loop)) for loop in _loops(body)]
    inner = [loop for loop in found if loop.products]
    if not inner:
        raise ValueError(f"{variant} on sm_{architecture}: no loop has an HMMA instruction")
    return max(inner)


def _loops(body: str) -> Iterable[list[str]]:
    """Yield the instructions from each label to each branch back to it."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    for line in body.splitlines():
        if label := re.match(r"\s*(\.L_x_\w+):", line):
            labels[label[1]] = len(instructions)
        if instruction := re.search(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]+)(.*)", line):
            instructions.append(instruction[1])
            target = re.search(r"`\((\.L_x_\w+)\)", instruction[2])
            if target and instruction[1].startswith("BRA") and target[1] in labels:
                yield instructions[labels[target[1]] :]


def count_all(chosen: list[Variant], architectures: tuple[int, ...]) -> dict[tuple[Variant, int], Loop]:
    """Count many kernels for many architectures."""
    jobs = [(variant, architecture) for variant in chosen for architecture in architectures]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # the compiler releases the GIL
        return dict(zip(jobs, pool.map(lambda job: count(*job), jobs), strict=True))


def growth(loops: dict[tuple[Variant, int], Loop], table: dict[str, dict[str, list[int]]]) -> list[str]:
    """Return a line for each loop with more instructions for an HMMA than ``GROWTH`` times the table's."""
    lines = []
    for (variant, architecture), loop in loops.items():
        known = table.get(str(variant), {}).get(str(architecture))
        if known is None:
            lines.append(f"{variant} on sm_{architecture} is not in {TABLE.name}; --write adds it")
        elif loop.instructions / loop.products > GROWTH * known[0] / known[1]:
            lines.append(
                f"{variant} on sm_{architecture}: {loop.instructions} instructions for {loop.products} HMMA, "
                f"expected about {known[0]} for {known[1]}"
            )
    return lines


def as_table(loops: dict[tuple[Variant, int], Loop]) -> str:
    """Return a line for each kernel: instructions / HMMA by architecture, and the ceiling on an A100."""
    architectures = sorted({architecture for _, architecture in loops})
    lines = [["kernel", *(f"sm_{architecture}" for architecture in architectures), "of an A100's peak"]]
    for variant in dict.fromkeys(variant for variant, _ in loops):
        found = [loops[variant, architecture] for architecture in architectures]
        ceiling = f"{loops[variant, A100].ceiling:.0%}" if A100 in architectures else ""
        lines.append([str(variant), *(f"{loop.instructions}/{loop.products}" for loop in found), ceiling])
    return "\n".join(aligned(lines))


@click.command("issue")
@click.option("--only", metavar="WORDS", default="", help="Kernels whose line begins with this, as conv_forward.")
@click.option(
    "--check", is_flag=True, help="Fail where a loop has more instructions for an HMMA than the table, by 5 %."
)
@click.option("--write", is_flag=True, help=f"Write the counts to the table, {TABLE.name}.")
def issue(only: str, check: bool, write: bool) -> None:
    """Count the instructions in the inner loops of the tensor-core kernels, for sm_80, sm_90, sm_100 and sm_120.

    A line has instructions and, behind the slash, how many of them are HMMA; and the share of an A100's tensor-core
    peak that issuing them allows. Needs NVRTC and nvdisasm, and no GPU.
    """
    if nvrtc.library() is None:
        raise UserError(nvrtc.MISSING)
    if disassembler() is None:
        raise UserError("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm (no GPU needed)")
    chosen = [variant for variant in variants() if str(variant).startswith(only)]
    if not chosen:
        raise UserError(f"no kernel begins with {only!r}; there are, for one, {variants()[0]}")
    loops = count_all(chosen, ARCHITECTURES)
    click.echo(as_table(loops))
    known = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    if write:
        known = known if only else {}
        for (variant, architecture), loop in loops.items():
            known.setdefault(str(variant), {})[str(architecture)] = list(loop)
        rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(known.items()))
        TABLE.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
    elif check and (grown := growth(loops, known)):
        raise click.ClickException("\n".join(grown))
