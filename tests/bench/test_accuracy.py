"""``python -m bench accuracy RUN``: a run of ``xpnet train`` is repeated in PyTorch."""

import json

import numpy as np
import pytest

from backend import random
from bench import sides
from layers import Affine, BatchNormalization, Convolution, Dropout, Pooling, Sequential
from tests.support.command_line import QUICK, xpnet

with_torch = pytest.mark.skipif(not sides.installed("torch"), reason="torch is not installed")


def train(folder, *options):
    result = xpnet("train", "--out", folder, "--epochs", "2", "--quiet", *options)
    assert result.code == 0, result.err
    return folder


@with_torch
def test_pytorch_learns_from_the_same_batches_as_much(bench, tmp_path):
    run = train(tmp_path / "run", *QUICK)
    result = bench("accuracy", run, "--json")
    assert result.code == 0, result.err
    *epochs, last = map(json.loads, result.out.splitlines())
    own = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in epochs] == [1, 2]
    for row, ours in zip(epochs, own, strict=True):
        assert row["val_accuracy"] == pytest.approx(ours["val_accuracy"], abs=0.003)
    assert last["torch"]["test_accuracy"] == pytest.approx(last["xpnet"]["test_accuracy"], abs=0.003)
    assert last["torch"]["epochs"] == last["xpnet"]["epochs"] == 2
    assert last["xpnet"]["seconds"] == pytest.approx(sum(row["seconds"] for row in own))


@with_torch
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_every_optimizer_makes_the_steps_of_pytorchs(optimizer, bench, tmp_path):
    options = ["--model", "twolayernet", "--schedule", "constant", "--lr", "0.002", "--weight-decay", "0.01"]
    run = train(tmp_path / "run", *options, "--optimizer", optimizer)
    result = bench("accuracy", run, "--epochs", "1", "--json")
    assert result.code == 0, result.err
    first = json.loads(result.out.splitlines()[0])
    own = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["val_accuracy"] == pytest.approx(own["val_accuracy"], abs=0.003)


@with_torch
def test_epochs_are_lines_and_both_are_told(bench, tmp_path):
    result = bench("accuracy", train(tmp_path / "run", *QUICK), "--epochs", "1")
    epoch, own, torch = result.out.splitlines()
    assert epoch.startswith("epoch   1 of 1  val 9")
    assert own.startswith("xpnet    ")
    assert " of the test data, epoch 2 of 2, " in own
    assert torch.startswith("PyTorch  ")
    assert " of the test data, epoch 1 of 1, " in torch


@with_torch
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--ema", "0.9"], "the repetition in PyTorch has no ema: expected a run without"),
        (["--clip-norm", "1", "--accumulate", "2"], "has no accumulate, clip_norm: expected a run without"),
        (["--optimizer", "rmsprop"], "the repetition in PyTorch has no optimizer rmsprop"),
        (["--precision", "fp16"], "has no precision fp16"),
        (["--schedule", "plateau"], "has no schedule plateau, which goes by xpnet's results"),
    ],
)
def test_what_is_not_repeated_is_named(options, reason, bench, tmp_path):
    result = bench("accuracy", train(tmp_path / "run", "--model", "twolayernet", *options))
    assert (result.code, result.out) == (2, "")
    assert reason in result.err


@with_torch
@pytest.mark.parametrize("layers", [
    lambda: [Affine.of(48, 5), Dropout(0.25), Affine.of(5, 3)], lambda: [Affine.of(48, 3), Dropout(0.5, inverted=True)],
    lambda: [Convolution.of(3, 6, 2, dilation=2, groups=3), Pooling(2, 2, 2, rounding="ceil"), Affine.of(6, 3)],
    lambda: [Affine.of(48, 6), BatchNormalization.of(6), Affine.of(6, 3)],
])  # fmt: skip
def test_modules_compute_what_the_layers_do(layers):
    import torch

    from bench.sides.torch import modules_of

    random.seed(0)
    layers = Sequential(*layers())
    modules = torch.nn.Sequential(*modules_of(layers, True)).eval()
    x = np.random.default_rng(0).standard_normal((4, 3, 4, 4)).astype("float32")
    with torch.no_grad():
        found = modules(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, layers.eval().forward(x), rtol=1e-5, atol=1e-6)


@with_torch
def test_a_residual_connection_whose_body_ends_in_a_relu(bench, tmp_path):
    """It is not added to in place: the backward of the ReLU reads what it made."""
    file = tmp_path / "net.toml"
    file.write_text(
        'layers = [{ type = "Pooling", pool_h = 2, pool_w = 2, stride = 2 },'
        ' { type = "Residual", body = [{ type = "Convolution", filters = 1, size = 3, pad = 1 }, { type = "Relu" }] },'
        ' { type = "Affine", outputs = "classes" }]',
        encoding="utf-8",
    )
    run = train(tmp_path / "run", *QUICK[2:], "--model", file)
    result = bench("accuracy", run, "--json")
    assert result.code == 0, result.err
    last = json.loads(result.out.splitlines()[-1])
    assert last["torch"]["test_accuracy"] == pytest.approx(last["xpnet"]["test_accuracy"], abs=0.003)


@with_torch
def test_a_run_of_several_ranks_is_refused(bench, tmp_path):
    run = train(tmp_path / "run", "--model", "twolayernet")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "ranks": 2}))
    result = bench("accuracy", run)
    assert (result.code, result.out) == (2, "")
    assert "the repetition in PyTorch is one process: expected a run of one, got 2 ranks" in result.err


@with_torch
def test_a_run_whose_best_epoch_is_chosen_by_the_test_data(bench, tmp_path):
    run = train(tmp_path / "run", *QUICK, "--best-on", "test")
    result = bench("accuracy", run, "--epochs", "1", "--json")
    assert result.code == 0, result.err
    results = json.loads((run / "config.json").read_text())["results"]
    assert json.loads(result.out.splitlines()[-1])["xpnet"]["test_accuracy"] == results["best_test_accuracy"]


def test_without_pytorch_the_extra_is_named(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.accuracy.installed", lambda peer: False)
    result = bench("accuracy", tmp_path)
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: not installed: torch; the extra `bench` of xpnet has the peers\n"
