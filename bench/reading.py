"""Count the lines that one reads to follow a convolution, in Python and in C, and the Python calls of a training step.

The functions that run are recorded, and their lines counted in the source, with decorators and docstrings, each line
once. Of C the files of the kernels that run are counted whole, with those that they include.
"""

from __future__ import annotations

import ast
import gc
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import click
import numpy as np

import layers
from backend import threads, use, workspace
from kernels.core import native
from layers import Affine, Convolution, Pooling, Relu, Sequential
from training.models import Network
from training.optim import Adam

_ROOT = Path(layers.__file__).parent.parent  # of the code that runs, which may be installed
_OURS = tuple(str(_ROOT / folder) for folder in ("backend", "kernels", "layers", "training"))


def watch(action: Callable[[], Any], see: Callable[[FrameType], None]) -> None:
    """Call ``see`` with the frame of each call of xpnet's functions while ``action`` runs in this thread.

    No garbage is collected meanwhile: the finalizers of what the process left behind before are not the action's.
    """

    def on_event(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_OURS):
            see(frame)

    was_enabled = gc.isenabled()
    gc.disable()
    sys.setprofile(on_event)
    try:
        action()
    finally:
        sys.setprofile(None)
        if was_enabled:
            gc.enable()


def calls_of(action: Callable[[], Any]) -> dict[CodeType, int]:
    """Return the number of calls of each of xpnet's functions while ``action`` runs in this thread."""
    counts: Counter[CodeType] = Counter()
    watch(action, lambda frame: counts.update([frame.f_code]))
    return counts


def lines_of(codes: list[CodeType]) -> dict[str, int]:
    """Return the number of lines of the functions by file. A nested function is part of the outer one."""
    found: dict[str, set[int]] = {}
    for name in {code.co_filename for code in codes}:
        starts = {code.co_firstlineno for code in codes if code.co_filename == name}
        for node in ast.walk(ast.parse(Path(name).read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if {node.lineno, first} & starts:
                    lines = found.setdefault(str(Path(name).relative_to(_ROOT)), set())
                    lines.update(range(first, (node.end_lineno or node.lineno) + 1))
    return {name: len(lines) for name, lines in sorted(found.items())}


def c_files_of(action: Callable[[], Any]) -> list[Path]:
    """Return the C files of the kernels that ``action`` calls in this thread, with those that they include."""
    found: list[Path] = []

    def note(frame: FrameType) -> None:
        kernel = frame.f_locals.get("self")
        if isinstance(kernel, native.Function):
            found.append(native.FOLDER / kernel.file)

    watch(action, note)
    for file in found:  # grows on the way
        included = re.findall(r'^#include "(.+)"', file.read_text(encoding="utf-8"), re.MULTILINE)
        for name in included:
            beside = file.parent / name
            found.append(beside if beside.exists() else native.FOLDER / name)
    return sorted(set(found))


def read_convolution(in_c: bool = False) -> dict[str, int]:
    """Return the lines on the path of a convolution layer, forward and backward, by file: in NumPy, or by C kernels."""
    layer = Convolution.of(3, 4, 3, pad=1)
    x = np.ones((2, 3, 8, 8), np.float32)

    def both_ways() -> None:
        layer.backward(layer.forward(x))

    with native.enabled(in_c):
        both_ways()
        files = c_files_of(both_ways) if in_c else []
        of_c = {str(file.relative_to(_ROOT)): len(file.read_text("utf-8").splitlines()) for file in files}
        return lines_of(list(calls_of(both_ways))) | of_c


def calls_of_a_step() -> dict[CodeType, int]:
    """Return the calls of one training step of convolution, relu, pooling and affine with Adam, batch 100."""
    workspace.clear()  # what the process left there is not looked at during the step
    network = Network(
        Sequential(Convolution.of(1, 8, 5), Relu(), Pooling(2, 2, stride=2), Affine.of(1152, 10)), (1, 28, 28)
    )
    optimizer, x, t = Adam(), np.ones((100, 1, 28, 28), np.float32), np.arange(100) % 10

    def step() -> None:
        network.step_gradients(x, t)
        optimizer.update(network.params, network.grads)

    step()
    return calls_of(step)


@click.command("reading")
def reading() -> None:
    """Count the lines on the path of a convolution, and the Python calls of a training step."""
    use("cpu")
    before = threads.limit()
    threads.set_limit(1)
    try:
        with native.checked(False):  # a test's checks are no part of a step
            ways = {"NumPy": read_convolution()} | ({"C": read_convolution(True)} if native.available() else {})
            calls = calls_of_a_step()
    finally:
        threads.set_limit(before)
    for way, lines in ways.items():
        for name, count in lines.items():
            click.echo(f"{name:<40}{count:>6}")
        click.echo(f"a convolution in {way}, forward and backward: {sum(lines.values())} lines in {len(lines)} files\n")
    files = {code.co_filename for code in calls}
    click.echo(f"a training step: {sum(calls.values())} calls of {len(calls)} functions in {len(files)} files")
