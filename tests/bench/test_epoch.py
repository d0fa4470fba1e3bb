import numpy as np
import pytest

from bench import epoch
from training.data import Dataset, load


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    digits = load("mnist10k")
    train, test = slice(0, 230), slice(0, 100)
    few = Dataset(
        "mnist10k",
        digits.classes,
        digits.train_images[train],
        digits.train_labels[train],
        digits.test_images[test],
        digits.test_labels[test],
    )
    monkeypatch.setattr(epoch, "load", lambda name: few)


def test_an_epoch_and_its_parts():
    row = epoch.measure_epoch(1, 2, 1e9)
    assert (row["threads"], row["epochs"], row["dataset"]) == (1, 2, "mnist10k")
    assert row["images_per_second"] == pytest.approx(230 / row["seconds"])
    assert row["step_share"] > 0.2
    assert 0 < row["evaluation_share"] < 1


def test_other_steps_than_the_loops_are_refused(monkeypatch):
    monkeypatch.setattr(epoch, "_bare_steps", lambda settings, data: (1.0, np.zeros(3)))
    with pytest.raises(RuntimeError, match="other parameters than the training loop"):
        epoch.measure_epoch(1, 1, 1)
