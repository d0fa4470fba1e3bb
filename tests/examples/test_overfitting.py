"""300 images are learned by heart; weight decay and dropout narrow the gap to the test images."""

from examples.overfitting import CASES, accuracies, main, plot
from tests.support.example_checks import check_plot, check_png, output_of, some_digits


def test_decay_and_dropout_narrow_the_gap(tmp_path):
    found = accuracies(*some_digits(300, 500), epochs=100)
    assert list(found) == list(CASES)
    training, test, gap = {}, {}, {}
    for name, rows in found.items():
        assert rows.shape == (101, 2)
        training[name], test[name] = rows[-10:].mean(axis=0)
        gap[name] = training[name] - test[name]
    assert training["as it is"] > 0.98
    assert gap["as it is"] > 0.2
    assert gap["weight decay 0.1"] < gap["as it is"] - 0.02
    assert gap["dropout 0.2"] < gap["as it is"] - 0.02
    check_plot(plot(found), tmp_path, "epoch", "accuracy in %")


def test_command(tmp_path):
    out = output_of(main, "--images", 100, "--epochs", 1, "--out", tmp_path / "a.png")
    assert all(name in out for name in CASES)
    check_png(tmp_path / "a.png")
