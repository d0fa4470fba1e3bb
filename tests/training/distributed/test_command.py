"""``mpirun xpnet train``: the files of one process, one message where a rank fails, and how it goes on."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import xpnet
from tests.training.distributed.launch import finished, started
from training.loop import checkpoint

MODULE = "tests.training.distributed.command"
OWN = ("raise", "memory", "option")
"""Faults that their rank tells itself; of the others all know, and the first one tells."""

WITHIN = 10
"""Seconds in which all ranks end where one fails, apart from the time that starting takes."""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Data that load fast: 300 rows of four numbers and a class, and others of another last row."""
    folder = tmp_path_factory.mktemp("table")
    numbers = np.random.default_rng(0).standard_normal((300, 4)).round(3)
    lines = [",".join(map(str, row)) + f",{'ab'[int(row[0] > 0)]}" for row in numbers]
    for name, last in (("table.csv", lines[-1]), ("other.csv", "1,2,3,4,a")):
        (folder / name).write_text("\n".join(["a,b,c,d,kind", *lines[:-1], last]) + "\n")
    return folder


def options(table, out, epochs=4):
    return [
        "train", "--data", str(table / "table.csv"), "--epochs", str(epochs), "--batch-size", "10",
        "--checkpoint-every", "20", "--out", str(out), "--json",
    ]  # fmt: skip


def train(ranks, *arguments, **variables):
    return started(ranks, *arguments, module=MODULE, **variables)


def leaves(root):
    """Return the last processes of a tree by their rank: those that train."""
    found, todo = {}, [root]
    while todo:
        pid = todo.pop()
        try:
            children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in
                        (task / "children").read_text().split()]  # fmt: skip
            own = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        todo += children
        ranks = [each for each in own if each.startswith(("PMI_RANK=", "OMPI_COMM_WORLD_RANK="))]
        if ranks and not children:
            found[int(ranks[0].partition("=")[2])] = pid
    return found


def wait_for_a_checkpoint(folder):
    end = time.monotonic() + 60
    while not list(folder.glob("checkpoints/step-*.safetensors")):
        assert time.monotonic() < end
        time.sleep(0.05)


def metrics(folder):
    timed = ("seconds", "images_per_second")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in timed} for line in lines]


def same(folder, other):
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert metrics(folder) == metrics(other)


@pytest.fixture(scope="module")
def alone(table, tmp_path_factory):
    """A run of one process, each step of which has the samples of two ranks in two parts."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert xpnet(*options(table, folder), "--accumulate", "2", "--device", "cpu").code == 0
    return folder


def test_two_ranks_write_what_one_process_writes(table, alone, tmp_path):
    """And rank 0 alone prints."""
    code, out, err = finished(train(2, *options(table, tmp_path / "run")))
    assert code == 0, err
    assert [json.loads(line).get("epoch") for line in out.splitlines()] == [1, 2, 3, 4, None]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["ranks"] == 2
    same(tmp_path / "run", alone)


def test_ranks_keep_the_cores_that_a_launcher_has_bound_to_them(table, tmp_path):
    folder = tmp_path / "run"
    code, _, err = finished(train(2, *options(table, folder, epochs=1), CORES="0,1,2,3 4,5,6", XPNET_THREADS=""))
    assert code == 0, err
    assert json.loads((folder / "config.json").read_text())["threads"] == 4


def test_a_killed_rank_ends_all_and_the_run_goes_on(table, alone, tmp_path):
    """With one process, as many ranks, or more. The first two have the same bits; the kill is told by name."""
    began = time.monotonic()
    code, _, err = finished(train(2, *options(table, tmp_path / "run"), FAULT="kill 1"))
    assert time.monotonic() - began < 2 * WITHIN
    assert code != 0
    assert err.count("Error: ") == 1
    assert (
        "Error: rank 1 of 2 was killed by SIGKILL, as the kernel does where memory is exhausted; all ranks end" in err
    )
    assert checkpoint.read(tmp_path / "run")["run"]["step"] == 24
    for ranks in (1, 2, 3):
        folder = shutil.copytree(tmp_path / "run", tmp_path / str(ranks))
        code, _, err = finished(train(ranks, "train", "--resume", str(folder), "--quiet"))
        assert code == 0, err
        if ranks < 3:
            same(folder, alone)
        for found, expected in zip(metrics(folder), metrics(alone), strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("fault", "rank", "message"),
    [
        ("raise", 1, "rank 1 of 3: RuntimeError: a bug of this rank"),
        ("memory", 2, "give a smaller --model or --batch-size"),
        ("version", 1, "rank 1 has another version of xpnet than rank 0: expected "),
        ("arguments", 2, "rank 2 has another arguments than rank 0: expected {'lr': 0.003}, got {'lr': 0.5}"),
        ("data", 1, "rank 1 has another training data than rank 0: expected {'inputs': "),
        ("gpus", 2, "rank 2 has another number of GPUs than rank 0: expected 0, got 1"),
        ("option", 1, "rank 1 of 3: Invalid value for '--lr'"),
    ],
)
def test_a_rank_that_fails_ends_all_with_one_message(table, tmp_path, fault, rank, message):
    folder = tmp_path / "run"
    began = time.monotonic()
    variables = {"FAULT": f"{fault} {rank}", "OTHER_DATA": str(table / "other.csv")}
    code, _, err = finished(train(3, *options(table, folder, epochs=1000), **variables))
    assert time.monotonic() - began < 3 * WITHIN
    assert code != 0
    assert err.count("Error: ") == 1 + err.count("RuntimeError: ")
    assert message in err
    assert f"Error: rank {rank if fault in OWN else 0} of 3: " in err
    if fault in ("raise", "memory"):
        assert checkpoint.read(folder)["run"]["step"] > 0


def test_a_rank_that_does_not_answer_is_named(table, tmp_path):
    variables = {"FAULT": "hang 2", "XPNET_RANKS_TIMEOUT": "2"}
    code, _, err = finished(train(3, *options(table, tmp_path / "run"), **variables))
    assert code != 0
    assert "rank 2 did not answer rank 0 for 2 s, as the ranks summed gradients" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_one_rank_stops_all_after_the_same_step(table, tmp_path, number):
    folder = tmp_path / "run"
    process = train(2, *options(table, folder, epochs=1000))
    wait_for_a_checkpoint(folder)
    os.kill(leaves(process.pid)[1], number)
    code, _, err = finished(process)
    assert code == 128 + number
    assert err.count("Interrupted") == 1
    assert "go on with: xpnet train --resume" in err
    assert len(list(folder.glob("checkpoints/*"))) >= 2
    shutil.rmtree(folder)


def test_ranks_end_where_the_launcher_is_killed(table, tmp_path):
    """Saved, as by SIGTERM, or killed; none goes on alone."""
    folder = tmp_path / "run"
    process = train(2, *options(table, folder, epochs=1000))
    wait_for_a_checkpoint(folder)
    training = leaves(process.pid)
    assert sorted(training) == [0, 1]
    process.kill()
    end = time.monotonic() + WITHIN
    while any(Path(f"/proc/{pid}").exists() for pid in training.values()):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.communicate()
    assert checkpoint.read(folder)["run"]["step"] > 0
