"""The commands in processes of their own: Ctrl-C, pipes, what is imported, and the limit on threads."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

import backend
from tests.support.command_line import QUICK
from training.loop.run_folder import RunFolder
from training.models.loading import load_network

FIGURES = ("learning_curves", "confusion_matrix", "worst_mistakes", "filters")
FILES = (
    "checkpoints",
    "config.json",
    "config.toml",
    "metrics.jsonl",
    "model.safetensors",
    *(f"{name}.png" for name in FIGURES),
)

PATIENCE = 600
"""Seconds to wait for a process: a loaded machine takes a minute where an idle one takes three seconds."""

# A shell that runs tests in the background lets its children ignore Ctrl-C; this undoes it.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from training.cli import main
main()
"""


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=True, **options
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
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert re.fullmatch(
        rf"Interrupted: the best model so far, of epoch \d+, is in {re.escape(str(folder.model))}; "
        rf"go on with: xpnet train --resume {re.escape(str(folder.path))}\n",
        err,
    )
    assert out.splitlines()[-1].startswith("best: ")
    assert load_network(folder.model).classes == 10
    assert folder.figure("learning_curves").is_file()


def test_a_closed_pipe_does_not_stop_a_training(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with start("train", *QUICK, "--epochs", 3, "--json", "--out", folder.path) as process:
        assert json.loads(process.stdout.readline())["epoch"] == 1
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=PATIENCE)
    assert process.returncode == 0
    assert err.splitlines()[-1].startswith("folder ")  # the header, and nothing after it
    assert [epoch["epoch"] for epoch in folder.load_metrics()] == [1, 2, 3]
    assert sorted(os.listdir(folder.path)) == sorted(FILES)


def test_a_closed_pipe_ends_another_command_quietly():
    with start("summary") as process:
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "")


SHELL = f"exec {sys.executable} -m training.cli train {' '.join(QUICK)} --epochs 2 --out run"


@pytest.mark.parametrize("streams", [">&- 2>&- <&-", ">/dev/full 2>&1"])
def test_closed_and_full_streams_do_not_stop_a_training(tmp_path, streams):
    if "/dev/full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    done = subprocess.run(
        ["sh", "-c", f"{SHELL} {streams}"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    folder = RunFolder(tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(folder.path)) == sorted(FILES)
    assert len(folder.load_metrics()) == 2
    assert load_network(folder.model).classes == 10  # nothing printed has gone into a file


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["train --help", "summary --json"])
def test_output_that_cannot_be_written_is_told_in_one_line(command):
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m training.cli {command} >/dev/full"],
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
    )
    assert done.stderr == b"Error: standard output: No space left on device\n"
    assert done.returncode == 1
    silent = f"exec {sys.executable} -m training.cli {command} >/dev/full 2>&1"
    assert subprocess.run(["sh", "-c", silent], timeout=PATIENCE).returncode == 1


def test_sigterm_ends_a_training_like_ctrl_c(tmp_path):
    name = "SIGTERM"
    folder = RunFolder(tmp_path / "run")
    with start("train", *QUICK, "--epochs", 100_000, "--json", "--out", folder.path) as process:
        process.stdout.readline()
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + getattr(signal, name)
    assert re.fullmatch(
        rf"Interrupted by {name}: the best model so far, of epoch \d+, is in {re.escape(str(folder.model))}; "
        rf"go on with: xpnet train --resume {re.escape(str(folder.path))}",
        err.splitlines()[-1],
    )
    assert json.loads(out.splitlines()[-1])["interrupted"] is True
    assert sorted(os.listdir(folder.path)) == sorted(FILES)
    assert load_network(folder.model).classes == 10


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    """The first waits for a step that takes longer than anybody has patience."""
    program = f"""
import time
from training.models import network
network.Network.step_gradients = lambda *arguments: (print("in a step", flush=True), time.sleep({2 * PATIENCE}))
{INTERRUPTIBLE}"""
    command = [sys.executable, "-c", program, "train", *QUICK, "--quiet", "--out", tmp_path / "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in a step\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "")
    RunFolder.create(tmp_path / "other").close()


def test_a_signal_before_the_training_ends_in_one_line():
    program = f"""
import time
from training.cli import common
import training.cli.train as train
train.choose_compute = lambda *arguments: (print("before", flush=True), time.sleep({2 * PATIENCE}))
{INTERRUPTIBLE}"""
    for number, said in ((signal.SIGINT, "Interrupted."), (signal.SIGTERM, "Interrupted by SIGTERM.")):
        command = [sys.executable, "-c", program, "train"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "before\n"
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + number
        assert err.split() == said.split()


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
    heavy = {"numpy", "cupy", "matplotlib", "PIL", "requests", "rich", "tqdm", "safetensors", "threadpoolctl"}
    heavy.add("backend")
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
    print("matplotlib.figure" in sys.modules, "matplotlib.pyplot" in sys.modules, "requests" in sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MPLBACKEND")}
    assert python("-c", program, cwd=tmp_path, env=environment).stdout.splitlines()[-1] == "True False False"


AWKWARD_MOMENTS = {
    "while a class is made": "class Owner:\n        here = Named()",  # Python before 3.12 raises a RuntimeError then
    "as output is written out": "streams.drain = Named()",
}


@pytest.mark.parametrize("moment", AWKWARD_MOMENTS)
def test_a_signal_before_or_behind_the_work_is_one_line_too(moment):
    program = f"""
import os
import signal
import click
from training import cli
from training.cli import streams
from training.command import program

class Named:
    def __call__(self):
        self.__set_name__()

    def __set_name__(self, *names):
        os.kill(os.getpid(), signal.SIGTERM)

@click.command()
def command():
    {AWKWARD_MOMENTS[moment]}

cli.Commands.get_command = lambda *names: command
program()
"""
    done = subprocess.run([sys.executable, "-c", program, "train"], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr.strip()) == (143, "Interrupted by SIGTERM.")


def test_a_signal_after_the_last_epoch_says_where_the_model_is(tmp_path):
    program = """
import os
import signal
from training.cli import console
from training.command import program

console.Console.end = lambda *arguments: os.kill(os.getpid(), signal.SIGTERM)
program()
"""
    command = [sys.executable, "-c", program, "train", *QUICK, "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    model = tmp_path / "run" / "model.safetensors"
    said = rf"Interrupted after the training; the best model so far, of epoch \d+, is kept in {re.escape(str(model))}"
    assert done.returncode == 143
    assert re.fullmatch(said, done.stderr.strip()), done.stderr
    load_network(model)


def test_the_program_says_what_ctrl_c_does_before_it_imports_anything_large():
    code = "import sys, training.command; print({'click', 'numpy', 'training.cli'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
