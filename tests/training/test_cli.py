"""The commands in this process: what they print, what they leave behind, and how they fail."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import backend
from backend import collectives
from backend.collectives import MpiReport, NcclReport
from kernels.core import native
from layers import SoftmaxWithLoss
from tests.support.command_line import QUICK, xpnet
from training.cli import COMMANDS, main
from training.data import load
from training.loop.recipe import build_trainer
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.models import MODELS, TwoLayerNet
from training.models.loading import load_network

FIGURES = ["confusion_matrix", "filters", "learning_curves", "worst_mistakes"]


def train_quickly(out, *arguments):
    result = xpnet("train", *QUICK, "--epochs", 1, "--out", out, *arguments)
    assert (result.code, result.err) == (0, "")
    return RunFolder(out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs and what it printed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = xpnet("train", *QUICK, "--epochs", 2, "--seed", 1, "--out", folder)
    assert (result.code, result.err) == (0, "")
    return RunFolder(folder), result.out


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Runs without --out stay in the test's folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _no_figures(monkeypatch):
    """For tests of other things: drawing takes a second."""
    monkeypatch.setattr("training.cli.run.draw_figures", lambda *_: None)


def test_train_prints_a_header_a_line_per_epoch_and_the_end(trained):
    folder, out = trained
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "model",
        "data",
        "classes",
        "device",
        "threads",
        "folder",
        *2 * ["epoch"],
        "best:",
    ]
    assert "TwoLayerNet, 39,760 parameters" in lines[0]
    assert "9,000 training, 1,000 validation, 2,000 test images 1x28x28" in lines[1]
    assert lines[2].startswith("classes  10, labels 0 to 9, the largest has 1.31 times the smallest: 0 901, 1 1,014, ")
    assert lines[5].endswith(str(folder.path))
    best = folder.load_metrics()[-1]
    assert f"{100 * best['val_accuracy']:.2f} % of the validation images right, in epoch 2 of 2" in lines[-1]


@pytest.mark.usefixtures("_no_figures")
def test_the_books_way_trains_on_all_images_and_chooses_by_the_test_images(tmp_path):
    result = xpnet("train", *QUICK, "--epochs", 1, "--best-on", "test", "--out", tmp_path / "run")
    (metrics,) = RunFolder(tmp_path / "run").load_metrics()
    assert "10,000 training, 2,000 test images" in result.out
    line = f"best: {100 * metrics['test_accuracy']:.2f} % of the test images right, in epoch 1 of 1; last: "
    assert result.out.splitlines()[-1].startswith(line)
    record = json.loads(xpnet("evaluate", tmp_path / "run", "--json").out)
    assert (record["loss"], record["accuracy"]) == (metrics["test_loss"], metrics["test_accuracy"])


def test_a_run_leaves_settings_metrics_model_and_figures(trained):
    folder, _ = trained
    files = {
        "checkpoints",
        "config.json",
        "config.toml",
        "metrics.jsonl",
        "model.safetensors",
        *(f"{name}.png" for name in FIGURES),
    }
    assert {path.name for path in folder.path.iterdir()} == files
    config = folder.load_config()
    assert config["settings"] == {
        "dataset": "mnist10k",
        "data": None,
        "size": None,
        "target": None,
        "target_kind": None,
        "val": 0.1,
        "test": 0.1,
        "best_on": "val",
        "augment": None,
        "loss": None,
        "metrics": [],
        "label_smoothing": 0.0,
        "model": "TwoLayerNet",
        "epochs": 2,
        "batch_size": 50,
        "accumulate": 1,
        "optimizer": "adamw",
        "lr": 0.003,
        "schedule": "warmup-cosine",
        "weight_decay": 0.05,
        "clip_norm": None,
        "precision": "fp32",
        "patience": None,
        "seed": 1,
        "init": None,
        "freeze": None,
        "ema": None,
        "log": [],
        "checkpoint_every": "1e",
        "keep_checkpoints": 2,
        "compress": "none",
        "sync_batch_norm": False,
        "data_dir": None,
    }
    assert config["versions"]["numpy"] == np.__version__
    assert config["device"]["name"] == backend.current_device().name
    assert config["blas"]
    assert [metrics["epoch"] for metrics in folder.load_metrics()] == [1, 2]
    network = load_network(folder.model)
    assert network.config["classes"] == list("0123456789")
    assert network.config["dataset"] == "mnist10k"
    for name in FIGURES:
        with Image.open(folder.figure(name)) as image:
            image.load()
            assert min(image.size) > 400


@pytest.mark.usefixtures("_no_figures")
def test_the_model_kept_is_that_of_the_best_epoch(tmp_path):
    folder = train_quickly(
        tmp_path / "run", *["--epochs", "3", "--lr", "0.2", "--schedule", "constant", "--best-on", "test"]
    )  # unsteady
    metrics = folder.load_metrics()
    accuracies = [epoch["test_accuracy"] for epoch in metrics]
    assert [epoch["best"] for epoch in metrics] == [
        a > max(accuracies[:i], default=0) for i, a in enumerate(accuracies)
    ]
    data = load()
    x = data.test_images.astype(np.float32) / 255
    assert load_network(folder.model).accuracy(backend.asarray(x), backend.asarray(data.test_labels)) == max(accuracies)


@pytest.mark.usefixtures("_no_figures")
def test_the_same_seed_gives_the_same_run_bit_for_bit(tmp_path):
    def run(name, seed):
        backend.random.seed(99)  # whatever was drawn before
        folder = train_quickly(tmp_path / name, "--seed", seed)
        times = ("seconds", "images_per_second")
        metrics = [{k: v for k, v in epoch.items() if k not in times} for epoch in folder.load_metrics()]
        return metrics, folder.model.read_bytes()

    first = run("first", 5)
    assert run("again", 5) == first
    metrics, model = run("other", 6)
    assert metrics != first[0]
    assert model != first[1]


@pytest.mark.usefixtures("_no_figures")
def test_json_has_an_object_per_epoch_and_one_at_the_end(tmp_path):
    result = xpnet("train", *QUICK, "--epochs", 2, "--json", "--out", tmp_path / "run")
    *epochs, end = [json.loads(line) for line in result.out.splitlines()]
    assert epochs == RunFolder(tmp_path / "run").load_metrics()
    assert (end["best_epoch"], end["epochs"], end["interrupted"]) == (2, 2, False)
    assert end["best_val_accuracy"] == epochs[1]["val_accuracy"]
    record = json.loads(xpnet("evaluate", tmp_path / "run", "--json").out)
    assert (end["test_accuracy"], end["test_loss"]) == (record["accuracy"], record["loss"])
    assert end["folder"] == str(tmp_path / "run")
    assert result.err.startswith("model ")  # the header, for people
    kept = RunFolder(tmp_path / "run").load_config()["results"]
    assert kept == {name: end[name] for name in end if name not in ("seconds", "folder", "interrupted")}


@pytest.mark.usefixtures("_no_figures")
def test_after_an_interruption_no_test_result_is_told_or_kept(tmp_path, monkeypatch):
    def interrupt(callback, trainer, result):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.loop.checkpoints.Checkpoints.on_epoch_end", interrupt)
        result = xpnet("train", *QUICK, "--epochs", 2, "--json", "--out", tmp_path / "run")
    end = json.loads(result.out.splitlines()[-1])
    assert (result.code, end["best_epoch"], end["interrupted"]) == (130, 1, True)
    assert not {"test_accuracy", "test_loss"} & end.keys()
    assert not {"results", "ended"} & RunFolder(tmp_path / "run").load_config().keys()
    assert xpnet("train", "--resume", tmp_path / "run", "--quiet").code == 0
    results = RunFolder(tmp_path / "run").load_config()["results"]
    assert results["test_accuracy"] == json.loads(xpnet("evaluate", tmp_path / "run", "--json").out)["accuracy"]


@pytest.mark.usefixtures("_no_figures")
def test_quiet_prints_the_end_only(tmp_path):
    result = xpnet("train", *QUICK, "--epochs", 1, "--quiet")
    assert result.err == ""
    assert re.fullmatch(
        r"best: .* in epoch 1 of 1; on the test data, .* s; runs/\d{8}-\d{6}-TwoLayerNet-mnist10k\n", result.out
    )


@pytest.mark.usefixtures("_no_figures")
def test_another_optimizer_has_its_own_learning_rate(tmp_path):
    folder = tmp_path / "run"
    result = xpnet("train", "--model", "TwoLayerNet", "--epochs", 1, "--optimizer", "sgd", "--out", folder)
    assert result.code == 0
    assert RunFolder(folder).load_config()["settings"]["lr"] == 0.01


@pytest.mark.usefixtures("_no_figures")
@pytest.mark.parametrize(
    "model", [name.upper() for name in (*MODELS, "LeNet5")]
)  # the zoo is tried in tests/training/zoo
def test_every_model_trains(model, tmp_path, monkeypatch):
    data = load()
    small = type(data)(
        "mnist10k", data.classes, *(part[:200] for part in vars(data).values() if hasattr(part, "shape"))
    )
    monkeypatch.setattr("training.data.load", lambda *_, **__: small)
    folder = tmp_path / "run"
    assert xpnet("train", "--model", model, "--epochs", 1, "--out", folder, "--clip-norm", 1, "--patience", 1).code == 0
    assert xpnet("evaluate", folder).code == 0


@pytest.mark.gpu
def test_train_and_evaluate_on_a_gpu(tmp_path):
    with backend.use("cuda"):
        folder = train_quickly(tmp_path / "run", "--device", "cuda", "--batch-size", 1000, "--best-on", "test")
        assert folder.load_config()["device"]["name"] == "cuda:0"
        result = xpnet("evaluate", folder.path, "--device", "cuda", "--json")
    assert json.loads(result.out)["accuracy"] == folder.load_metrics()[-1]["test_accuracy"]


def test_ctrl_c_before_the_first_epoch_ended_keeps_the_weights(tmp_path, monkeypatch):
    steps = iter(range(5))

    def step(trainer, x, t):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        trainer.network.params["b1"] += 1

    monkeypatch.setattr("training.loop.trainer.Trainer._train_step", step)
    result = xpnet("train", *QUICK, "--json", "--quiet", "--out", tmp_path / "run")
    model = tmp_path / "run" / "model.safetensors"
    assert result.code == 130
    how = f"go on with: xpnet train --resume {tmp_path / 'run'}"
    assert result.err == f"Interrupted: no epoch had ended; the model as it was is in {model}; {how}\n"
    end = json.loads(result.out)
    assert (end["best_epoch"], end["epochs"], end["interrupted"]) == (None, 0, True)
    assert (backend.asnumpy(load_network(model).params["b1"]) == 5).all()


def test_a_loss_that_is_not_finite_ends_training(tmp_path):
    arguments = ["--model", "SimpleConvNet", "--optimizer", "sgd", "--lr", "1e30", "--out", tmp_path / "run"]
    result = xpnet("train", "--quiet", *arguments)
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch(r"Error: the loss is nan at step 2 \(epoch 1.*\n", result.err)


def test_a_bug_shows_its_traceback(tmp_path, monkeypatch):
    def broken(trainer, x, t):
        raise ValueError("a bug")

    monkeypatch.setattr("training.loop.trainer.Trainer._train_step", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["train", *QUICK, "--quiet", "--out", str(tmp_path / "run")])


@pytest.mark.parametrize(("batch_size", "evaluated"), [(1, 20), (49, 980), (50, 1000), (2000, 1000)])
def test_a_smaller_batch_makes_the_evaluation_need_less(batch_size, evaluated):
    trainer = build_trainer(Settings(model="TwoLayerNet", batch_size=batch_size), load().as_data())
    assert trainer.train_loader.largest_batch == batch_size
    assert trainer.test_loader.largest_batch == evaluated


def test_evaluate_agrees_with_the_training(trained):
    folder, out = trained
    record = json.loads(xpnet("evaluate", folder.path, "--json").out)
    said = f"on the test data, used this once: {100 * record['accuracy']:.2f} %, {record['correct']:,} of 2,000; "
    assert said in out.splitlines()[-1]
    assert (record["model"], record["dataset"], record["samples"]) == ("TwoLayerNet", "mnist10k", 2000)
    assert record["correct"] == round(2000 * record["accuracy"]) == sum(c["correct"] for c in record["classes"])
    assert [c["samples"] for c in record["classes"]] == np.bincount(load().test_labels).tolist()


def test_evaluate_prints_a_table(trained):
    folder, _ = trained
    lines = xpnet("evaluate", folder.model).out.splitlines()
    assert re.fullmatch(r"accuracy  \d\d\.\d\d %, 1,\d{3} of 2,000 correct", lines[3])
    assert [line.split()[0] for line in lines[6:]] == list("0123456789")
    correct, of, share = lines[6].split()[1:4]
    assert share == f"{100 * int(correct) / int(of):.2f}"


def test_evaluate_takes_the_newest_run_and_book_files(trained, tmp_path):
    folder, _ = trained
    expected = json.loads(xpnet("evaluate", folder.path, "--json").out)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").symlink_to(folder.path, target_is_directory=True)
    newest = json.loads(xpnet("evaluate", "--json").out)
    load_network(folder.model).save_params(tmp_path / "params.npz")
    from_npz = json.loads(xpnet("evaluate", tmp_path / "params.npz", "--model", "TwoLayerNet", "--json").out)
    assert expected.pop("file") == str(folder.model)
    assert newest.pop("file") == "runs/one/model.safetensors"
    assert from_npz.pop("file") == str(tmp_path / "params.npz")
    assert newest == from_npz == expected


def test_devices(monkeypatch):
    remedy = backend.CudaReport(problem="no CUDA device is visible", remedy="look for it")
    monkeypatch.setattr("backend.inspect_cuda", lambda: remedy)
    found = json.loads(xpnet("devices", "--json").out)
    assert found["cuda"]["problem"] == "no CUDA device is visible"
    assert found["cpu"]["threads"] == backend.threads.limit()
    out = xpnet("devices").out
    assert found["cpu"]["model"] in out
    assert f"{found['cpu']['blas'][0]['name']} {found['cpu']['blas'][0]['version']}" in out
    assert "not usable: no CUDA device is visible\n        remedy: look for it\n" in out
    gpu = backend.devices.Gpu(1, "Some GPU", "9.0", 80 * 2**30)
    monkeypatch.setattr("backend.inspect_cuda", lambda: backend.CudaReport((gpu,), "14.2.0"))
    monkeypatch.setattr(collectives, "inspect_nccl", lambda cuda: NcclReport("2.25.1", "/opt/libnccl.so.2"))
    result = xpnet("devices")
    assert result.code == 0
    assert "cuda:1  Some GPU, compute capability 9.0, 80.0 GiB\n        CuPy 14.2.0\n" in result.out
    assert "nccl    2.25.1 (/opt/libnccl.so.2)\n" in result.out


def test_devices_says_which_mpi_and_nccl_or_what_is_missing(monkeypatch):
    no_gpu = backend.CudaReport(problem="no driver", remedy="get one")
    monkeypatch.setattr("backend.inspect_cuda", lambda: no_gpu)
    found = MpiReport("4.1.2", "Open MPI v5.0.11", "/opt/libmpi.so", "/opt/mpirun", "mpirun (Open MPI) 5.0.11")
    monkeypatch.setattr(collectives, "inspect_mpi", lambda: found)
    out = xpnet("devices").out
    assert "mpi     Open MPI v5.0.11 (/opt/libmpi.so), mpi4py 4.1.2\n" in out
    assert "        processes are started by mpirun (Open MPI) 5.0.11 (/opt/mpirun)\n" in out
    assert out.endswith("nccl    not usable: there is no usable CUDA GPU\n")
    assert out.count("remedy: get one") == 1
    monkeypatch.setattr(collectives, "inspect_mpi", lambda: MpiReport(problem="no MPI", remedy="install it"))
    assert "mpi     not usable: no MPI\n        remedy: install it\n" in xpnet("devices").out
    said = json.loads(xpnet("devices", "--json").out)
    assert said["mpi"]["remedy"] == "install it"
    assert said["nccl"]["remedy"] == "get one"


def test_devices_says_which_c_kernels_compute_or_why_none(monkeypatch):
    library = native.Library(object(), "v4")
    monkeypatch.setattr(native, "library", lambda: library)
    monkeypatch.setattr(native, "_on", True)
    assert "        C kernels for x86-64-v4\n" in xpnet("devices").out
    assert json.loads(xpnet("devices", "--json").out)["cpu"]["kernels"] == {"level": "v4", "problem": "", "remedy": ""}
    monkeypatch.setattr(native, "_on", False)
    assert "        NumPy computes: XPNET_NATIVE=0\n" in xpnet("devices").out
    monkeypatch.setattr(native, "_on", True)
    library = native.Library(None, reason="the C kernels were not built", remedy="build them")
    out = xpnet("devices").out
    assert "        NumPy computes: the C kernels were not built\n        remedy: build them\n" in out


def test_a_level_that_does_not_exist_is_one_line(tmp_path, monkeypatch):
    native.library.cache_clear()
    monkeypatch.setattr(native, "_asked", "v5")
    for arguments in (("devices",), ("train", *QUICK, "--epochs", 1, "--out", tmp_path / "run")):
        result = xpnet(*arguments)
        assert result.code == 2
        assert result.err == "Error: XPNET_NATIVE is 0, 1 or one of v3, v4, arm64, not 'v5'\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_no_figures")
def test_auto_says_why_there_is_no_gpu(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("backend.inspect_cuda", lambda: backend.CudaReport(problem="no driver", remedy="get one"))
    with backend.use("cpu"):
        result = xpnet("train", *QUICK, "--epochs", 1, "--device", "auto", "--out", tmp_path / "run")
    assert result.out.count("no driver") == 1
    assert "device   cpu (no GPU: no driver; remedy: get one)\n" in result.out
    assert not caplog.records


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--epochs", "0"], "'--epochs': 0 is not in the range"),
        (
            ["train", "--model", "LeNet"],
            "'LeNet' is not one of 'twolayernet', 'multilayernet', 'simpleconvnet', ",
        ),
        (["train", "--optimizer", "lion"], "'lion' is not one of 'sgd', "),
        (["train", "--lr", "nan"], "'--lr': must be a finite number"),
        (["train", "--seed", "-1"], "-1 is not in the range"),
        (["train", "--device", "tpu"], "got 'tpu'"),
        (["train", "--threads", "0"], "0 is not in the range"),
        (["train", "--out", "."], "exists and is not an empty folder"),
        (["train", "--out", "file"], "exists and is not an empty folder"),
        (["train", "--speed", "9"], "No such option"),
        (["evaluate"], "no run with a model in runs/"),
        (["evaluate", "nothing"], "there is no file nothing"),
        (["evaluate", "."], "there is no model in ."),
        (["evaluate", "file"], "got 'file'"),
        (["evaluate", "empty.safetensors"], "empty.safetensors is not a .safetensors file"),
        (["evaluate", "own.safetensors"], "own.safetensors does not say which model it is: the class"),
        (["evaluate", "own.npz"], "own.npz does not say which model it is: name it"),
        (["evaluate", "own.npz", "--model", "TwoLayerNet"], "own.npz does not fit the network: expected W1 of"),
        (
            ["evaluate", "small.safetensors"],
            "the model does not take the inputs of mnist10k, (1, 28, 28): layer 'Affine1'",
        ),
        (["predict", "file", "--run", "small.safetensors"], "an image file gives (1, H, W) in gray"),
        (["predict", "file", "--run", "own.npz"], "predict needs a run or a .safetensors file"),
        (["predict"], "Missing argument 'INPUT...'"),
        (["quit"], "No such command 'quit': xpnet --help lists the commands"),
        (["trian"], "No such command 'trian': did you mean train?"),
        (["train", "--model", "convnt"], "'wideresnet28-10': did you mean ConvNet?"),
        (["train", "--schedule", "one-cylce"], "'one-cycle': did you mean one-cycle?"),
        (["train", "--log", "tensorbord"], "'tensorboard': did you mean tensorboard?"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, tmp_path):
    (tmp_path / "file").write_text("no model")
    (tmp_path / "empty.safetensors").touch()
    network = TwoLayerNet(4, 3, 10)
    network.save_params("small.safetensors")
    network.config = None
    network.last_layer = type("Local", (SoftmaxWithLoss,), {"__qualname__": "f.<locals>.Local"})()
    network.save_params("own.safetensors")
    network.save_params("own.npz")
    result = xpnet(*arguments)
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(r"Error: [^\n]+\n", result.err)
    assert message in result.err
    assert not (tmp_path / "runs").exists()


def test_data_that_is_not_there_is_told_before_anything_is_made(tmp_path):
    result = xpnet("train", "--dataset", "mnist", "--data-dir", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert result.code == 2
    assert result.err.startswith("Error: MNIST was not found")
    assert not (tmp_path / "run").exists()


def test_help_and_version():
    assert xpnet().out == xpnet("--help").out
    assert all(f"  {name} " in xpnet("-h").out for name in COMMANDS)
    assert "One of sgd, momentum, nesterov, " in " ".join(xpnet("train", "--help").out.split())
    assert re.fullmatch(r"xpnet \d+\.\d+\.\d+\S*\n", xpnet("--version").out)
