"""The commands in processes of their own: Ctrl-C, pipes, what is imported, and the limit on threads."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from command_line import QUICK

import backend
from training.run_folder import RunFolder, load_network

# A shell that runs tests in the background lets its children ignore Ctrl-C; this undoes it.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from training.cli import main
main(prog_name="xpnet")
"""


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=True, **options
    )


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_keeps_the_best_model_and_says_where(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with start("train", *QUICK, "--epochs", 100_000, "--out", folder.path) as process:
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(
        rf"Interrupted: the best model so far, of epoch \d+, is in {re.escape(str(folder.model))}\n", err
    )
    assert out.splitlines()[-1].startswith("best: ")
    assert load_network(folder.model).classes == 10
    assert folder.figure("learning_curves").is_file()


def test_a_closed_pipe_ends_the_command_quietly(tmp_path):
    with start("train", *QUICK, "--epochs", 100_000, "--json", "--out", tmp_path / "run") as process:
        assert json.loads(process.stdout.readline())["epoch"] == 1
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("folder ")  # the header, and nothing after it


def test_threads_are_held_to_the_number_given(tmp_path):
    if backend.threads.limit() == 1:
        pytest.skip("there is one thread anyhow")
    python("-m", "training.cli", "train", *QUICK, "--epochs", 1, "--threads", 1, "--out", tmp_path / "run")
    config = RunFolder(tmp_path / "run").load_config()
    assert config["threads"] == 1
    assert [blas["threads"] for blas in config["blas"]] == [1]


def test_help_imports_nothing_heavy():
    program = """
import sys
from training.cli import main
try:
    main(["--help"])
except SystemExit:
    heavy = {"numpy", "cupy", "matplotlib", "PIL", "pooch", "tqdm", "safetensors", "threadpoolctl", "backend"}
    print(sorted(heavy & set(sys.modules)))
"""
    assert python("-c", program).stdout.splitlines()[-1] == "[]"


def test_training_does_without_pyplot_and_its_global_state(tmp_path):
    program = """
import sys
from training.cli import main
try:
    main(["train", "--quiet", "--model", "TwoLayerNet", "--epochs", "1"])
except SystemExit:
    print("matplotlib.figure" in sys.modules, "matplotlib.pyplot" in sys.modules, "pooch" in sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MPLBACKEND")}
    assert python("-c", program, cwd=tmp_path, env=environment).stdout.splitlines()[-1] == "True False False"
