"""Damaged and hostile files: every reader reads them or refuses them with a message, in bounded memory.

Files of each kind are damaged byte by byte, and the configs inside them value by value. A reader may return, or raise a
ValueError (for a profiler's export, a ToolError) that names the file, or an OSError, but no other error; and it must
not change the state of the process.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import logging
import random
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import backend
from training.data.idx import read_idx
from training.loop.run_folder import RunFolder
from training.models import ConvNet, DeepConvNet, MultiLayerNet, SimpleConvNet, TwoLayerNet, saving
from training.models.loading import load_network
from training.models.named import ConvParam
from training.profile.nsight import ToolError, compute, systems

_CONV: ConvParam = {"filter_num": 2, "filter_size": 3, "pad": 1, "stride": 1}

NETWORKS: tuple[Callable[[], Any], ...] = (
    lambda: TwoLayerNet(4, 3, 2),
    lambda: MultiLayerNet(4, [3, 3], 2, weight_init_std=0.1),
    lambda: SimpleConvNet((1, 6, 6), _CONV, 5, 3),
    lambda: DeepConvNet((1, 8, 8), _CONV, _CONV, _CONV, _CONV, _CONV, _CONV, 4, 3),
    lambda: ConvNet((1, 12, 12), (2, 2, 2), 0.5, 3),
)

VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 2**31, 2**62, 2**64, 10**400, -(2**63), 1.5, 1e308, -0.0),
    *(None, True, False, "", "he", "xavier", "relu", "x" * 5000, "\ud800", "\x1b[2J", "float16", "S1000000000", "O"),
    *([], {}, [1], [1, 28, 28], [[1]], [0] * 11_000, {"a": 1}, {"filter_num": 1}, {"": {}}),
)
"""The replacements of values in a fuzzed config."""

BYTES = (0, 1, 0x20, 0x22, 0x2C, 0x2D, 0x30, 0x39, 0x5B, 0x7B, 0x7F, 0x80, 0xFE, 0xFF)


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    """Yield for each of ``count`` files None, or a line that says what is wrong with the reader."""
    draw = random.Random(seed)
    # Its own seed for the initial weights, so that the files do not depend on earlier draws.
    backend.random.seed(seed)
    with tempfile.TemporaryDirectory() as temporary:
        kinds = (_Configs(), _Models(), _Archives(), _Images(), _RunFolders(), _Metrics(), _Exports())
        for number in range(count):
            kind = kinds[number % len(kinds)]
            yield trial(kind, Path(temporary), draw)


def trial(kind: Any, folder: Path, draw: random.Random) -> str | None:
    """Write one damaged file and read it."""
    file, content = kind.damaged(folder, draw)
    file.unlink(missing_ok=True)  # some systems sync an overwritten file to the disk at once, which is slow
    file.write_bytes(content)
    before = process_state()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        failure = None
        try:
            kind.read(file)
        except OSError:
            pass
        except (ValueError, ToolError) as error:
            if str(file) not in str(error):
                failure = f"the message does not name the file: {error}"
            elif len(str(error)) > 2000 or "\n" in str(error):
                failure = f"the message has {len(str(error))} letters: {str(error)[:200]!r}"
        except Exception as error:
            failure = repr(error)[:300]
    if failure is None and warned:
        failure = f"warned: {warned[0].message}"
    if failure is None and process_state() != before:
        failure = f"the process was {before} and is {process_state()}"
    return None if failure is None else f"{failure}; {file.name}, {content[:400]!r}"


def process_state() -> tuple[Any, ...]:
    """Return the state that reading a file must not change."""
    return backend.random.default.state, str(backend.current_device()), np.geterr(), np.geterrcall()


class _Configs:
    """Intact safetensors files whose config has some values replaced."""

    def __init__(self) -> None:
        self._networks = [network() for network in NETWORKS]

    def damaged(self, folder: Path, draw: random.Random) -> tuple[Path, bytes]:
        network = draw.choice(self._networks)
        config = copy.deepcopy(network.config) | {"dataset": "mnist", "classes": ["a", "b"], "input_dim": [1, 2, 2]}
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            _exchange(config, draw)
        text = json.dumps(config if draw.random() > 0.02 else draw.choice(VALUES))
        if draw.random() < 0.1:
            text = text.replace("1", draw.choice(("NaN", "-Infinity", "1e999", "[" * 3000)))
        from safetensors.numpy import save

        arrays = {name: np.asarray(array) for name, array in {**network.params, **network.state}.items()}
        if draw.random() < 0.2:
            name = draw.choice(list(arrays))
            arrays[name] = draw.choice((arrays[name][:0], arrays[name].astype("f8") * 1e300, np.ones((), "f2")))
        return folder / "model.safetensors", save(arrays, {"xpnet": text})

    def read(self, file: Path) -> None:
        load_network(file)


class _Models:
    """Models, damaged byte by byte."""

    def __init__(self) -> None:
        self._contents = []
        with tempfile.TemporaryDirectory() as folder:
            for network in NETWORKS:
                network().save_params(Path(folder, "model.safetensors"))
                self._contents.append(Path(folder, "model.safetensors").read_bytes())

    def damaged(self, folder: Path, draw: random.Random) -> tuple[Path, bytes]:
        return folder / "model.safetensors", damage(draw.choice(self._contents), draw)

    def read(self, file: Path) -> None:
        load_network(file)


class _Archives:
    """Damaged ``.npz`` files, stored and compressed."""

    def damaged(self, folder: Path, draw: random.Random) -> tuple[Path, bytes]:
        stream = io.BytesIO()
        save = draw.choice((np.savez, np.savez_compressed))
        save(stream, W1=np.zeros((20, 30), "f4"), b1=np.asfortranarray(np.ones((3, 4))), n=np.int8(3))
        return folder / "arrays.npz", damage(stream.getvalue(), draw)

    def read(self, file: Path) -> None:
        saving.load_arrays(file)


class _Images:
    """Damaged IDX files, plain and gzipped."""

    def damaged(self, folder: Path, draw: random.Random) -> tuple[Path, bytes]:
        damaged = damage(bytes.fromhex("00000803 00000003 00000004 00000005") + bytes(range(60)), draw)
        if draw.random() < 0.5:
            damaged = gzip.compress(damaged, mtime=0)
            damaged = damaged if draw.random() < 0.5 else damage(damaged, draw)
        return folder / "images", damaged

    def read(self, file: Path) -> None:
        read_idx(file, 3)


class _RunFolders:
    """The damaged config of a run."""

    def damaged(self, folder: Path, draw: random.Random) -> tuple[Path, bytes]:
        config = {"settings": {"lr": 0.1, "epochs": 3}, "model": copy.deepcopy(TWO_LAYERS), "threads": 2}
        _exchange(config, draw)
        return folder / "config.json", damage(json.dumps(config).encode(), draw)

    def read(self, file: Path) -> None:
        RunFolder(file.parent).load_config()


class _Metrics:
    """The damaged metrics of a run: the reader skips damaged lines without an error."""

    def damaged(self, folder: Path, draw: random.Random) -> tuple[Path, bytes]:
        whole = "".join(json.dumps({"epoch": epoch, "loss": 0.1, "best": True}) + "\n" for epoch in (1, 2, 3))
        return folder / "metrics.jsonl", damage(whole.encode(), draw)

    def read(self, file: Path) -> None:
        log = logging.getLogger("xpnet")
        before, log.disabled = log.disabled, True
        try:
            records = RunFolder(file.parent).load_metrics()
        except ValueError as error:
            raise AssertionError(str(error)) from error
        finally:
            log.disabled = before
        assert all(isinstance(record, dict) for record in records)


class _Exports:
    """Damaged exports of Nsight Systems and Nsight Compute."""

    def damaged(self, folder: Path, draw: random.Random) -> tuple[Path, bytes]:
        if draw.random() < 0.3:
            return compute.export_file(folder), damage(_RAW_PAGE.encode(), draw)
        file = systems.export_file(folder)
        file.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as database:
            database.executescript(_DATABASE)
        return file, damage(file.read_bytes(), draw)

    def read(self, file: Path) -> None:
        (compute if file.suffix == ".csv" else systems).read(file.parent, None)


_RAW_PAGE = (
    '==PROF== x\n"ID","Kernel Name","thread Domain:Push/Pop_Range:Msg","gpu__time_duration.sum",'
    '"dram__bytes.sum","dram__throughput.avg.pct_of_peak_sustained_elapsed"\n"","","","us","Kbyte","%"\n'
    '"0","im2col(float *)","4  ""xpnet:step:none"" ""xpnet:forward:int64"" ","4.00","10.24","50.5"\n'
)

_DATABASE = """
PRAGMA page_size = 512;
CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE NVTX_EVENTS (start INT, end INT, eventType INT, text TEXT, globalTid INT, textId INT, domainId INT);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INT, end INT, globalTid INT, correlationId INT);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INT, end INT, correlationId INT, globalPid INT, demangledName INT);
INSERT INTO StringIds VALUES (1, 'im2col(float *)'), (2, 'step'), (3, 'forward');
INSERT INTO NVTX_EVENTS VALUES (0, NULL, 75, 'xpnet', 16777221, NULL, 1), (10, 20, 59, NULL, 16777221, 2, 1),
    (11, NULL, 59, NULL, 16777221, 3, 1);
INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (12, 13, 16777221, 7);
INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (20, 23, 7, 16777216, 1);
"""

TWO_LAYERS = {"model": "TwoLayerNet", "arguments": {"input_size": 4, "hidden_size": 3, "output_size": 2}}


def _exchange(config: Any, draw: random.Random) -> None:
    """Replace, remove or add one value, at any depth."""
    while True:
        keys = list(config) if isinstance(config, dict) else list(range(len(config)))
        if not keys:
            return
        key = draw.choice(keys)
        if isinstance(config[key], (dict, list)) and draw.random() < 0.8:
            config = config[key]
            continue
        action = draw.random()
        if action < 0.1:
            del config[key]
        elif action < 0.2 and isinstance(config, dict):
            config[draw.choice(("hidden_size", "depth", "", "dtype"))] = draw.choice(VALUES)
        else:
            config[key] = copy.deepcopy(draw.choice(VALUES))
        return


def damage(content: bytes, draw: random.Random) -> bytes:
    """Replace, remove, repeat or add some bytes, mostly in the first part of a file, its header."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        if not damaged:
            break
        place = draw.randrange(draw.choice((len(damaged), min(len(damaged), 64), min(len(damaged), 400))))
        match draw.randrange(6):
            case 0:
                damaged[place] ^= 1 << draw.randrange(8)
            case 1:
                damaged[place] = draw.choice(BYTES)
            case 2:
                del damaged[place:]
            case 3:
                del damaged[place : place + draw.randrange(1, 9)]
            case 4:
                damaged[place:place] = damaged[place : place + draw.randrange(1, 65)]
            case 5:
                damaged[place : place + 8] = draw.choice((bytes(8), b"\xff" * 8, (2**62).to_bytes(8, "little")))
    return bytes(damaged)
