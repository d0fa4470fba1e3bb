"""Signals at any time to a training in another process: the right exit code, no traceback, and a complete model.

One signal, or two shortly after each other; the training has figures to draw and threads to end.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from training.cli.common import in_words
from training.loop.run_folder import RunFolder
from training.loop.stopping import SIGNALS
from training.models.loading import load_network

OPTIONS = ("--model", "TwoLayerNet", "--batch-size", "50", "--device", "cpu")
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from training.command import program
program()
"""
"""Program like ``xpnet``, but with the default handling of Ctrl-C, which a shell disables for background processes."""


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    chance = random.Random(seed)
    for _ in range(count):
        signals = [chance.choice(SIGNALS) for _ in range(chance.choice((1, 1, 2)))]
        # With many epochs it is training when the signal comes; with one it trains, draws or ends.
        epochs = chance.choice((1, 1, 100_000))
        waits = [chance.uniform(0, 1.5), chance.choice((0.0, 0.001, chance.uniform(0, 0.5)))]
        with tempfile.TemporaryDirectory() as place:
            broken = attempt(Path(place) / "run", epochs, signals, waits)
        names = " and ".join(
            f"{signal.Signals(number).name} after {wait:.3f} s" for number, wait in zip(signals, waits, strict=False)
        )
        yield broken and f"{names}, {epochs} epochs: {broken}"


def attempt(folder: Path, epochs: int, signals: list[signal.Signals], waits: list[float]) -> str | None:
    """Send signals to a training, timed from its first line of output; return what is wrong after that, or None."""
    command = [sys.executable, "-c", PROGRAM, "train", *OPTIONS, "--epochs", str(epochs), "--out", str(folder)]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for number, wait in zip(signals, waits, strict=False):
            time.sleep(wait)
            process.send_signal(number)
        try:
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return "it did not end"
    broken = []
    # While the interpreter starts or shuts down, a signal has its default effect.
    allowed = {128 + number for number in signals} | {-number for number in signals} | ({0} if epochs == 1 else set())
    if process.returncode not in allowed:
        broken.append(f"exit code {process.returncode}")
    if any(word in err for word in ("Traceback", "Exception ignored", "RuntimeError", "Fatal")):
        broken.append(f"it printed {err!r}")
    if len(signals) == 1 and process.returncode == 128 + signals[0] and str(folder / "model.safetensors") not in err:
        broken.append(f"it does not say where the model is: {err!r}")
    if process.returncode in (0, *(128 + number for number in signals[: len(signals) == 1])):
        try:
            load_network(RunFolder(folder).model)
        except (OSError, ValueError) as error:
            broken.append(in_words(error))
    return "; ".join(broken) or None
