"""Losses and metrics at the command line, models that predict numbers, and files of any network."""

import json
import textwrap

import numpy as np
import pytest

from layers import Affine, Relu, Sequential
from tests.support.command_line import xpnet
from training.loop.run_folder import RunFolder
from training.models import Network
from training.models.loading import load_network


@pytest.fixture
def houses(tmp_path, monkeypatch):
    """A table with a number to predict, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    rows = np.column_stack([x, x @ [1, 2, -1] + 3])
    np.savetxt("houses.csv", rows, "%.4f", ",", header="a,b,c,price", comments="")
    return tmp_path


def test_numbers_of_a_table_are_learned_and_measured_by_one_command(houses):
    source = ("--data", "houses.csv", "--target", "price", "--epochs", "3", "--out", "run")
    result = xpnet("train", *source, "--loss", "huber", "--metrics", "r2", "--metrics", "mae")
    assert result.code == 0, result.err
    line = next(line for line in result.out.splitlines() if line.startswith("epoch 3/3"))
    assert "val r2 " in line
    assert "val mae " in line
    assert "accuracy" not in line
    assert "nan" not in result.out
    assert [file.name for file in (houses / "run").glob("*.png")] == ["learning_curves.png"]
    network = load_network("run/model.safetensors")
    assert repr(network.last_layer) == "HuberLoss(delta 1)"
    lines = RunFolder("run").load_metrics()
    assert [set(each["metrics"]) for each in lines] == [{"r2", "mae"}] * 3
    assert lines[0]["val_accuracy"] is None
    measured = json.loads(xpnet("evaluate", "run", "--json").out)
    assert {"mae", "r2"} <= set(measured)
    assert measured["samples"] == 12
    assert "accuracy" not in measured
    assert xpnet("evaluate", "run", "--metrics", "f1").err.startswith("Error: metric 'f1' measures predicted classes")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--loss", "hinge"), "the loss hinge is for classes; houses has values to predict"),
        (("--label-smoothing", "0.1"), "label smoothing is for the softmax loss, got 0.1 with mean-squared"),
        (("--metrics", "f1"), "metric 'f1' measures predicted classes or labels"),
        (("--metrics", "auc"), "metrics must be a Metric or one of 'accuracy', "),
        (("--loss", "softmax"), "the loss softmax is for classes"),
    ],
)
def test_a_loss_that_does_not_fit_is_one_line(houses, options, words):
    result = xpnet("train", "--data", "houses.csv", "--target", "price", "--epochs", "1", *options)
    assert result.code == 2
    assert words in result.err
    assert result.err.count("\n") == 1
    assert not (houses / "runs").exists()


def classes(path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 2))
    np.savetxt(path, np.column_stack([x, x[:, 0] > 0]), "%.4f", ",", header="a,b,label", comments="")


def test_losses_of_classes(houses):
    classes("points.csv")
    source = ("--data", "points.csv", "--target", "label", "--target-kind", "classification", "--epochs", "2")
    for number, options in enumerate((("--loss", "hinge"), ("--label-smoothing", "0.2", "--metrics", "confusion"))):
        result = xpnet("train", *source, "--out", f"run{number}", *options)
        assert result.code == 0, result.err
    assert load_network("run1/model.safetensors").last_layer.label_smoothing == 0.2
    assert RunFolder("run1").load_config()["settings"]["label_smoothing"] == 0.2
    assert np.shape(RunFolder("run1").load_metrics()[0]["metrics"]["confusion"]) == (2, 2)
    hinge = json.loads(xpnet("evaluate", "run0", "--json", "--metrics", "per-class").out)
    assert set(hinge["metrics"]["per-class"]) == {"precision", "recall", "f1"}
    assert [each["class"] for each in hinge["classes"]] == load_network("run0/model.safetensors").config["classes"]


def test_a_network_of_ones_own_is_evaluated_by_the_command(houses):
    """Its file says what it is; a class of one's own is imported from the current folder, if that is allowed."""
    classes("points.csv")
    (houses / "own_layers.py").write_text(
        textwrap.dedent(
            """
            from layers import Relu

            class Mine(Relu):
                pass
            """
        )
    )
    plain = Network(Sequential(Affine.of(2, 4), Relu(), Affine.of(4, 2)), (2,))
    plain.save_params("plain.safetensors")
    source = ("--data", "points.csv", "--target", "label", "--target-kind", "classification", "--json")
    measured = json.loads(xpnet("evaluate", "plain.safetensors", *source).out)
    assert measured["model"] == "Network"
    assert measured["samples"] == 90
    description = plain.description()
    description["architecture"]["layers"]["Relu1"]["type"] = "own_layers:Mine"
    from training.models import saving

    saving.save_arrays("mine.safetensors", dict(plain.params), description)
    refused = xpnet("evaluate", "mine.safetensors", *source)
    assert refused.code == 2
    assert "layer own_layers:Mine, a class that is not xpnet's: allow_import=True, or --allow-import" in refused.err
    assert json.loads(xpnet("evaluate", "mine.safetensors", "--allow-import", *source).out) == {
        **measured,
        "file": "mine.safetensors",
    }


def test_a_network_of_ones_own_is_summarized(houses):
    network = Network(Sequential(Affine.of(3, 5), Relu(), Affine.of(5, 1)), (3,), loss="huber")
    network.save_params("own.safetensors")
    shown = xpnet("summary", "own.safetensors", "--batch-size", "10")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("Network (own.safetensors) on 3 rows, batch 10, fp32, AdamW")
    assert "parameters  26\n" in shown.out
    assert "not known" not in shown.out
    record = json.loads(xpnet("summary", "own.safetensors", "--json", "--measure").out)
    assert record["parameters"] == 26
    both = xpnet("summary", "own.safetensors", "--model", "ConvNet")
    assert both.code == 2
    assert both.err == "Error: own.safetensors says which model it is: leave --model and --dataset out\n"


def test_a_model_says_how_it_was_trained(houses):
    source = ("--data", "houses.csv", "--target", "price", "--epochs", "2", "--out", "run", "--quiet")
    assert xpnet("train", *source).code == 0
    record = load_network("run/model.safetensors").config["training"]
    best = next(line for line in reversed(RunFolder("run").load_metrics()) if line["best"])
    assert record["epochs"] == 2
    assert record["epoch"] == best["epoch"]
    assert record["val_loss"] == best["val_loss"]
    assert "seconds" not in record
