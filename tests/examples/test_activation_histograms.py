"""Saturated, all alike, spread, gone, shrinking, kept: what six choices do to the activations."""

from examples.activation_histograms import CASES, activations, main, plot
from tests.support.example_checks import check_plot, check_png, output_of


def test_activations_go_as_the_text_says(tmp_path):
    found = {name: activations(*case) for name, case in CASES.items()}
    assert all(layer.shape == (1000, 100) for layers in found.values() for layer in layers)
    saturated = found["sigmoid, std 1"][-1]
    assert ((saturated < 0.1) | (saturated > 0.9)).mean() > 0.6
    alike = found["sigmoid, std 0.01"][-1]
    assert abs(alike - 0.5).max() < 0.06
    spread = found["sigmoid, Xavier"][-1]
    assert 0.1 < spread.std() < 0.3
    assert (abs(spread - 0.5) > 0.1).mean() > 0.25
    # A layer of standard deviation s multiplies the root of the mean square by s·√(n/2): 0.07 of 0.01, 0.71 of
    # Xavier's, 1 of He's.
    root = {name: (layers[-1] ** 2).mean() ** 0.5 for name, layers in found.items()}
    assert root["relu, std 0.01"] < 1e-5
    assert 0.1 < root["relu, Xavier"] < 0.25
    assert 0.7 < root["relu, He"] < 1.4
    check_plot(plot(found), tmp_path, "activation", "relu, He\n% of activations")


def test_command(tmp_path, monkeypatch):
    monkeypatch.delitem(CASES, "relu, He")
    out = output_of(main, "--out", tmp_path / "a.png")
    assert [line.split("  ")[1] for line in out.splitlines()[1:-1]] == list(CASES)
    check_png(tmp_path / "a.png")
