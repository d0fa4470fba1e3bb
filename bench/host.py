"""Measure the host's cost of a training step on a CUDA device: ``python -m bench host``.

Small networks on a GPU wait for Python. The time to enqueue a step is measured with an idle device at its start, so
that no launch waits for a full queue, and also the time until the device is done; and the time to launch a step of the
``Trainer`` by CUDA graph, its bookkeeping included, on a batch that lies on the device. On the emulated device the
command needs its dry mode, in which work is counted and not done: only Python and CuPy remain.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy

from backend import asarray, random, synchronize, xp
from bench import machine
from bench.gpu.graph_steps import graph_step
from bench.kernels.measure import describe_gpu
from bench.reading import calls_of
from bench.report import check_folder, write_json
from kernels.core.layout import channels_last
from training.cli.common import choose_compute, count_from, user_errors
from training.models import ConvNet, DeepConvNet, SimpleConvNet, TwoLayerNet, build_for
from training.optim import SGD, Adam, Momentum
from training.profile.launches import LaunchCounter, NoCounterError
from training.terminal.tables import aligned

MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "TwoLayerNet": lambda: (TwoLayerNet(784, 50, 10), SGD(0.1)),
    "SimpleConvNet": lambda: (SimpleConvNet(), Adam()),
    "ConvNet": lambda: (ConvNet(), Adam()),
    "DeepConvNet": lambda: (DeepConvNet(), Adam()),
    "ResNet-20": lambda: (build_for("ResNet20", (3, 32, 32), 10), Momentum()),
}
"""The networks, each with the optimizer that it is usually trained with."""

SCHEMA = 1

TABLE = Path(__file__).with_name("host.json")
"""Python calls and launches of a step of each model, as they were when the file was written."""

COUNTS = ("calls", "launches", "graph_calls")
"""The figures of a ``Step`` that ``TABLE`` has."""

GROWTH = 1.1
"""The largest ratio of a model's figures to its row in ``TABLE``."""

_WARM = 5  # steps: the first ones compile, plan launches and fill the memory pool


@dataclass(frozen=True)
class Step:
    """The host's cost of one training step.

    Attributes:
        calls: of Python functions of xpnet.
        launches: of kernels and cuBLAS, where the device counts them, else None.
        products: the launches by cuBLAS.
        copies: fills and copies of memory.
        enqueue_us: best time to enqueue the step; None where nothing was timed.
        median_us: the median of these times.
        synchronized_us: best time until the device is done.
        graph_calls: of Python functions of xpnet in a step by CUDA graph.
        graph_us: best time of such a step on the host, without the loader.
    """

    calls: int
    launches: int | None = None
    products: int | None = None
    copies: int | None = None
    enqueue_us: float | None = None
    median_us: float | None = None
    synchronized_us: float | None = None
    graph_calls: int | None = None
    graph_us: float | None = None


def training_step(model: str, batch: int) -> Callable[[], None]:
    """Return the training step of a model on a batch that lies on the active device."""
    random.seed(0)
    network, optimizer = MODELS[model]()
    x = xp.zeros((batch, *network.input_dim), "float32")
    if x.ndim == 4:
        x = channels_last(x)
    t = asarray(numpy.arange(batch, dtype="int32") % 10)

    def step() -> None:
        network.step_gradients(x, t)
        optimizer.update(network.params, network.grads)

    return step


def measure(model: str, batch: int, samples: int) -> Step:
    """Count a step of ``model``, eager and by graph, and time each ``samples`` times; 0 only counts."""
    step = training_step(model, batch)
    for _ in range(_WARM):
        step()
    synchronize()
    counted = _device_counts(step)
    calls = sum(calls_of(step).values())
    by_graph = graph_step(*MODELS[model](), batch, computes=not _is_dry())
    by_graph()
    graph_calls = sum(calls_of(by_graph).values())
    if not samples:
        return Step(calls, **counted, graph_calls=graph_calls)
    enqueued, finished = _times(step, samples)
    return Step(
        calls,
        **counted,
        enqueue_us=min(enqueued),
        median_us=statistics.median(enqueued),
        synchronized_us=min(finished),
        graph_calls=graph_calls,
        graph_us=min(_times(by_graph, samples)[0]),
    )


def _times(step: Callable[[], object], samples: int) -> tuple[list[float], list[float]]:
    """Return the microseconds to enqueue each of some steps on an idle device, and those until the device is done."""
    enqueued, finished = [], []
    gc.collect()
    for _ in range(samples):
        synchronize()
        begin = time.perf_counter()
        step()
        middle = time.perf_counter()
        synchronize()
        enqueued.append(1e6 * (middle - begin))
        finished.append(1e6 * (time.perf_counter() - begin))
    return enqueued, finished


def _is_dry() -> bool:
    return emulated_device() is not None and os.environ.get("CUDA_ON_CPU_DRY") == "1"


def emulated_device() -> Any:
    """Return the module ``cuda_on_cpu`` where the active device is emulated by it, else None."""
    try:
        import cuda_on_cpu
    except ImportError:
        return None
    return cuda_on_cpu if cuda_on_cpu.is_active() else None


def _device_counts(step: Callable[[], None]) -> dict[str, int]:
    """Return what the emulated device counts of a step; on a GPU the launches, where CUPTI is installed."""
    cuda_on_cpu = emulated_device()
    if cuda_on_cpu is None:
        try:
            with LaunchCounter() as launches:
                step()
            return {"launches": launches()}
        except NoCounterError as error:
            click.echo(f"launches are not counted: {error}", err=True)
            return {}
    before = cuda_on_cpu.counters()
    step()
    counts = {name: count - before[name] for name, count in cuda_on_cpu.counters().items()}
    copies = ("memset_calls", "d2d_calls", "h2d_calls", "d2h_calls")
    return {
        "launches": counts["kernel_launches"] + counts["cublas_calls"] + counts["graph_launches"],
        "products": counts["cublas_calls"],
        "copies": sum(counts[name] for name in copies),
    }


def growth(steps: dict[str, Step], table: dict[str, dict[str, int]]) -> list[str]:
    """Return a line for each count that is more than ``GROWTH`` times the table's, or not in the table."""
    lines = []
    for model, step in steps.items():
        for what in COUNTS:
            count, allowed = getattr(step, what), table.get(model, {}).get(what)
            if count is None:
                continue
            if allowed is None:
                lines.append(f"{model}: {_words(what)} are not in {TABLE.name}; --write adds them")
            elif count > GROWTH * allowed:
                most = f"at most {GROWTH:.1f} times {allowed:,} {_words(what)} a step"
                lines.append(f"{model}: expected {most}, got {count:,}")
    return lines


def _words(what: str) -> str:
    return what.replace("graph_calls", "calls by graph")


def as_table(steps: dict[str, Step]) -> str:
    """Return the steps as lines for a terminal; what was neither counted nor timed is a dash."""
    times_of = ["enqueue us", "median", "us/launch", "until done us", "by graph us"]
    lines = [["model", "calls", "launches", "cuBLAS", "copies", *times_of]]
    for model, step in steps.items():
        each = step.enqueue_us / step.launches if step.enqueue_us and step.launches else None
        counts = (step.calls, step.launches, step.products, step.copies)
        times = (step.enqueue_us, step.median_us, each, step.synchronized_us, step.graph_us)
        cells = ["-" if count is None else f"{count:,}" for count in counts]
        lines.append([model, *cells, *("-" if time is None else f"{time:,.1f}" for time in times)])
    return "\n".join(aligned(lines))


models_option = click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(list(MODELS), case_sensitive=False),
    default=tuple(MODELS),
    metavar="NAME",
    help=f"One of {', '.join(MODELS)}; may be repeated.  [default: all]",
)


@click.command("host")
@models_option
@click.option("--batch", type=count_from(1), default=128, show_default=True, help="Samples of a step.")
@click.option("--samples", type=count_from(1), default=200, show_default=True, help="Steps that are timed.")
@click.option(
    "--check", is_flag=True, help="Time nothing; fail where a count is over the table's by more than a tenth."
)
@click.option("--write", is_flag=True, help=f"Time nothing; write the counts to the table, {TABLE.name}.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
def host(models: tuple[str, ...], batch: int, samples: int, check: bool, write: bool, json_file: Path | None) -> None:
    """Measure what a training step on a GPU costs the host.

    For each model: the Python calls of xpnet in a step, the time to enqueue the step while the device is idle, the
    time until the device is done, and the host's time for a step by CUDA graph, without the loader. Launches are
    counted by CUPTI, where it is installed. The emulated device counts them itself, cuBLAS calls and copies too; there
    the command belongs into the dry mode (CUDA_ON_CPU_DRY=1).
    """
    with user_errors():
        check_folder(json_file)
    choose_compute("cuda", None)
    if emulated_device() is not None and not _is_dry():
        click.echo("the emulated device computes, which takes minutes a step: set CUDA_ON_CPU_DRY=1", err=True)
    steps = {}
    for model in models:
        click.echo(model, err=True)
        steps[model] = measure(model, batch, 0 if check or write else samples)
    click.echo(as_table(steps))
    if json_file:
        rows = {model: asdict(step) for model, step in steps.items()}
        described = {"machine": machine.describe(["xpnet"]), "gpu": describe_gpu()}
        write_json({"schema": SCHEMA, **described, "batch": batch, "steps": rows}, json_file)
    known = json.loads(TABLE.read_text(encoding="utf-8"))
    if write:
        known |= {model: {what: getattr(step, what) for what in COUNTS} for model, step in steps.items()}
        TABLE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    elif check:
        grown = growth(steps, known)
        if grown:
            raise click.ClickException("\n".join(grown))
