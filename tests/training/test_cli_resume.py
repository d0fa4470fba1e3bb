"""``xpnet train --resume``: it goes on to the same bits, keeps the run's settings, and says what it cannot do."""

import json
import os
import signal
import sys

import numpy as np
import pytest

import backend
from bench.faults import resumes, tiny_run
from kernels.core import native
from tests.support.command_line import xpnet
from training.files.durable import is_disk_full
from training.loop import checkpoint
from training.loop.lock import FolderLock
from training.loop.run_folder import RunFolder
from training.optim.update import Update

OPTIONS = ["--model", "TwoLayerNet", "--batch-size", "6", "--epochs", "3", "--device", "cpu", "--threads", "1"]


@pytest.fixture(autouse=True)
def _tiny(tmp_path, monkeypatch):
    """A data set of a dozen images: two steps in an epoch."""
    monkeypatch.chdir(tmp_path)
    with tiny_run.tiny():
        yield


def interrupted(monkeypatch, folder, step, *options, number=signal.SIGTERM):
    """Start a run, and send it a signal in the middle of a step."""
    original, steps = Update.step, iter(range(1, 100))

    def signalled(update, params, grads):
        if next(steps) == step:
            signal.raise_signal(number)
        original(update, params, grads)

    with monkeypatch.context() as patch:
        patch.setattr(Update, "step", signalled)
        return xpnet("train", *OPTIONS, "--out", folder, *options)


@pytest.fixture
def undisturbed(tmp_path):
    result = xpnet("train", *OPTIONS, "--out", tmp_path / "undisturbed")
    assert (result.code, result.err) == (0, "")
    return resumes.what_is_left(tmp_path / "undisturbed")


@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_a_run_that_was_told_to_end_goes_on_to_the_same_bits(tmp_path, monkeypatch, undisturbed, step):
    folder = tmp_path / "a run"
    result = interrupted(monkeypatch, folder, step)
    assert result.code == 143
    assert result.err.startswith("Interrupted by SIGTERM: ")
    assert result.err.endswith(f"; go on with: xpnet train --resume '{folder}'\n")
    assert checkpoint.find(folder).name == checkpoint.file_name(step)
    result = xpnet("train", "--resume", folder)
    assert (result.code, result.err) == (0, "")
    assert f"resumed  after step {step}, in epoch {min(3, 1 + (step - 1) // 2)} of 3\n" in result.out
    assert resumes.what_is_left(folder) == undisturbed
    config = RunFolder(folder).load_config()
    assert [note["step"] for note in config["resumed"]] == [step]
    result = xpnet("train", "--resume", folder)
    assert (result.code, result.err) == (0, "")
    remedy = f"a new run begins with its model by: xpnet train --init '{folder}'"
    assert result.out == f"{folder} has ended: nothing is left to do; {remedy}\n"
    assert resumes.what_is_left(folder) == undisturbed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_other_signals_save_as_well(tmp_path, monkeypatch, number, code):
    before = signal.signal(number, signal.default_int_handler)
    try:
        assert interrupted(monkeypatch, tmp_path / "run", 3, number=number).code == code
    finally:
        signal.signal(number, before)
    assert checkpoint.find(tmp_path / "run").name == checkpoint.file_name(3)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path, undisturbed):
    folder = RunFolder.create(tmp_path / "run")
    config = RunFolder(tmp_path / "undisturbed").load_config()
    del config["ended"]
    folder.save_config(config)
    folder.add_metrics({"epoch": 1, "what": "was not in a checkpoint"})
    folder.close()
    assert xpnet("train", "--resume", folder.path).code == 0
    assert resumes.what_is_left(folder.path) == undisturbed


def test_what_came_after_the_checkpoint_is_undone(tmp_path, monkeypatch, undisturbed):
    folder = RunFolder(tmp_path / "run")
    interrupted(monkeypatch, folder.path, 3)
    folder.add_metrics({"epoch": 2, "from": "a step that is made again"})
    folder.model.write_bytes(b"the model of a later epoch")
    folder.figure("filters").write_bytes(b"old")
    assert xpnet("train", "--resume", folder.path).code == 0
    assert resumes.what_is_left(folder.path) == undisturbed


def test_a_damaged_checkpoint_is_one_error_and_the_one_before_it_is_taken_when_said(tmp_path, monkeypatch, undisturbed):
    folder = tmp_path / "run"
    interrupted(monkeypatch, folder, 5, "--checkpoint-every", "2")
    newest = checkpoint.find(folder)
    newest.write_bytes(newest.read_bytes()[:-1])
    before = folder / checkpoint.FOLDER / checkpoint.file_name(4)
    result = xpnet("train", "--resume", folder)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"Error: {newest} is not a .safetensors file of arrays: its header announces")
    assert result.err.endswith(f"; the checkpoint before it is {before}\n")
    result = xpnet("train", "--resume", before)
    assert (result.code, result.err) == (0, "")
    assert "resumed  after step 4, " in result.out
    assert resumes.what_is_left(folder)["model"] == undisturbed["model"]
    assert RunFolder(folder).load_config()["settings"]["checkpoint_every"] == "2"


CONFLICTS = {
    "--epochs 4": "--epochs 4 conflicts with the run, which has 3: leave the option out, or begin a new run with its "
    "model by --init, since the learning rates are planned for all epochs",
    "--lr 0.5": "--lr 0.5 conflicts with the run, which has 0.003: leave the option out",
    "--clip-norm 1": "--clip-norm 1.0 conflicts with the run, which has no value: leave the option out",
    "--model convnet": "--model ConvNet conflicts with the run, which has TwoLayerNet: leave the option out",
    "--device cuda:1": "--device cuda:1 conflicts with the run, which has cpu: leave the option out",
    "--out other": "--out conflicts with --resume: a run goes on in its folder",
}


def test_options_that_conflict_with_the_run_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupted(monkeypatch, folder, 3)
    before = resumes.what_is_left(folder)
    for options, message in CONFLICTS.items():
        result = xpnet("train", "--resume", folder, *options.split())
        assert (result.code, result.out, result.err) == (2, "", f"Error: {message}\n")
    monkeypatch.setenv("XPNET_DEVICE", "cuda")
    message = "XPNET_DEVICE=cuda conflicts with the run, which has cpu: unset the variable"
    assert xpnet("train", "--resume", folder).err == f"Error: {message}\n"
    monkeypatch.delenv("XPNET_DEVICE")
    assert resumes.what_is_left(folder) == before
    same = ["--epochs", "3", "--model", "twolayernet", "--device", "cpu", "--checkpoint-every", "1", "--quiet"]
    assert xpnet("train", "--resume", folder, *same).code == 0
    (option, message), *_ = CONFLICTS.items()
    assert xpnet("train", "--resume", folder, *option.split()).err == f"Error: {message}\n"  # of a run that has ended


def test_what_is_no_run_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no checkpoint")
    for path, words in {
        "nowhere": "there is no folder of a run nowhere",
        "empty": "empty has neither a checkpoint nor a config.json: it is not the folder of a run, or the run was "
        "killed before it began; begin it again by --out empty",
        "file": "file is not a checkpoint of a run: expected the run's folder, or a file in its folder checkpoints",
    }.items():
        result = xpnet("train", "--resume", path)
        assert (result.code, result.out, result.err) == (2, "", f"Error: {words}\n")
    assert os.listdir("empty") == []
    interrupted(monkeypatch, tmp_path / "run", 3)
    file = tmp_path / "run" / "config.json"
    for config, words in (("{", "not JSON"), ('{"settings": []}', "expected objects")):
        for other in checkpoint.list_files(tmp_path / "run" / checkpoint.FOLDER):
            other.unlink()
        file.write_text(config)
        result = xpnet("train", "--resume", "run")
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert words in result.err
    file.write_text(json.dumps({"settings": {"speed": 9}, "device": {"name": "cpu"}}))
    assert "the setting 'speed', which this version of xpnet does not know" in xpnet("train", "--resume", "run").err


@pytest.mark.parametrize(
    ("current", "given"),
    [
        (".", "run/checkpoints"),
        ("run", "."),
        ("run/checkpoints", "."),
        ("run/checkpoints", "step-00000003.safetensors"),
    ],
)
def test_a_run_is_found_from_each_of_its_folders(tmp_path, monkeypatch, undisturbed, current, given):
    interrupted(monkeypatch, tmp_path / "run", 3)
    monkeypatch.chdir(tmp_path / current)
    assert xpnet("train", "--resume", given).code == 0
    assert resumes.what_is_left(tmp_path / "run") == undisturbed


def test_a_file_beside_the_checkpoints_is_refused_and_its_folders_are_left_alone(tmp_path, monkeypatch):
    interrupted(monkeypatch, tmp_path / "run", 3)
    lock = FolderLock(tmp_path)  # of another training, which the refusal must not speak of
    result = xpnet("train", "--resume", "run/model.safetensors")
    lock.release()
    words = "expected the run's folder, or a file in its folder checkpoints"
    assert (result.code, result.err) == (2, f"Error: run/model.safetensors is not a checkpoint of a run: {words}\n")


def test_the_config_is_taken_from_the_checkpoint_if_it_is_lost(tmp_path, monkeypatch, undisturbed):
    interrupted(monkeypatch, tmp_path / "run", 3)
    (tmp_path / "run" / "config.json").unlink()
    assert xpnet("train", "--resume", "run").code == 0
    assert resumes.what_is_left(tmp_path / "run") == undisturbed


def test_a_folder_that_another_process_trains_in_is_refused(tmp_path, monkeypatch):
    interrupted(monkeypatch, tmp_path / "run", 3)
    lock = FolderLock(tmp_path / "run")
    for options in (["--resume", "run"], [*OPTIONS, "--out", "run"]):
        result = xpnet("train", *options)
        assert (result.code, result.err) == (2, "Error: another training is running in run\n")
    lock.release()
    result = xpnet("train", *OPTIONS, "--out", "run")
    assert (result.code, result.err) == (2, "Error: run exists and is not an empty folder; a run needs a new one\n")
    assert xpnet("train", "--resume", "run").code == 0


def test_a_full_disk_says_how_to_go_on(tmp_path, monkeypatch, undisturbed):
    from training.loop import checkpoints

    def full(*arguments):
        raise OSError(28, "No space left on device", str(tmp_path / "run" / "checkpoints"))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.checkpoint, "save", full)
        result = xpnet("train", *OPTIONS, "--out", tmp_path / "run")
    assert result.code == 1
    assert is_disk_full(OSError(28, ""))
    assert result.err == (
        f"Error: {tmp_path / 'run' / 'checkpoints'}: No space left on device; the best model so far, of epoch 1, is "
        f"kept in {tmp_path / 'run' / 'model.safetensors'}; go on with: xpnet train --resume {tmp_path / 'run'}\n"
    )
    assert xpnet("train", "--resume", tmp_path / "run").code == 0
    assert resumes.what_is_left(tmp_path / "run") == undisturbed


def test_a_run_that_ended_early_does_not_train_on(tmp_path, monkeypatch):
    """It was killed as its figures were drawn."""
    result = xpnet("train", *OPTIONS, "--epochs", "50", "--lr", "1e-9", "--patience", "2", "--out", "run")
    epochs = len(RunFolder("run").load_metrics())
    assert (result.code, epochs) == (0, 3)
    config = RunFolder("run").load_config()
    del config["ended"]
    RunFolder("run").save_config(config)
    (tmp_path / "run" / "filters.png").unlink()
    assert xpnet("train", "--resume", "run").code == 0
    assert len(RunFolder("run").load_metrics()) == epochs
    assert (tmp_path / "run" / "filters.png").exists()


@pytest.mark.parametrize("every", ["1e3", "\u0663", "0.5", "0m", ""])
def test_how_often_is_checked(tmp_path, every):
    result = xpnet("train", *OPTIONS, "--checkpoint-every", every)
    words = f"must be steps as in 200, minutes as in 5m or epochs as in 1e, got '{every}'"
    assert (result.code, result.err) == (2, f"Error: Invalid value for '--checkpoint-every': {words}\n")


def test_logs_and_the_average_go_on_with_a_run(tmp_path, monkeypatch):
    options = ["--log", "csv", "--ema", "0.9", "--accumulate", "2", "--batch-size", "3"]
    assert xpnet("train", *OPTIONS, *options, "--out", "undisturbed").code == 0
    interrupted(monkeypatch, tmp_path / "run", 3, *options)
    assert xpnet("train", "--resume", "run").code == 0

    def rows(folder):
        lines = (tmp_path / folder / "metrics.csv").read_text().splitlines()
        return [line.split(",")[:5] for line in lines]

    assert rows("run") == rows("undisturbed")
    assert len(rows("run")) == 4
    assert resumes.what_is_left(tmp_path / "run") == resumes.what_is_left(tmp_path / "undisturbed")


@pytest.mark.parametrize("folder", [["--out", "run"], [], ["--find-lr"]])
def test_a_log_whose_package_is_missing_is_told_before_anything_is_made(tmp_path, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = xpnet("train", *OPTIONS, "--log", "tensorboard", *folder)
    assert list(tmp_path.iterdir()) == []
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: logs for TensorBoard need tensorboardX; remedy: pip install 'xpnet[tensorboard]'\n"


def test_what_may_change_the_bits_is_said(tmp_path, monkeypatch):
    interrupted(monkeypatch, tmp_path / "run", 3)
    folder = RunFolder(tmp_path / "run")
    config = folder.load_config()
    config["versions"]["numpy"] = "1.0"
    kernels, config["kernels"] = config["kernels"], "x86-64-v9"
    folder.save_config(config)
    for file in checkpoint.list_files(folder.checkpoints):
        file.unlink()
    result = xpnet("train", "--resume", "run")
    assert result.code == 0
    numpy, others = f"numpy was '1.0', is '{np.__version__}'", f"kernels was 'x86-64-v9', is '{kernels}'"
    assert result.err == f"note     the last bits may differ from before: {numpy}; {others}\n"
    assert kernels == (native.library().processor if native.available() else "NumPy")


def test_a_run_that_has_ended_says_so_in_json(tmp_path, undisturbed):
    result = xpnet("train", "--resume", tmp_path / "undisturbed", "--json")
    assert json.loads(result.out).keys() == {"folder", "ended"}


@pytest.mark.gpu
def test_a_run_on_a_gpu_goes_on_there(tmp_path, monkeypatch):
    monkeypatch.delenv("XPNET_DEVICE")
    on_gpu = ["--device", "cuda", "--precision", "fp16", "--epochs", "4"]
    with backend.use("cuda"):
        assert xpnet("train", *OPTIONS, *on_gpu, "--out", "undisturbed").code == 0
        interrupted(monkeypatch, tmp_path / "run", 5, *on_gpu, "--no-graph")
        result = xpnet("train", "--resume", "run")
    assert (result.code, result.err) == (0, "")
    assert RunFolder("run").load_config()["device"]["name"] == "cuda:0"
    assert resumes.what_is_left(tmp_path / "run") == resumes.what_is_left(tmp_path / "undisturbed")
