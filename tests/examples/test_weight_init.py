"""First weights: He's learn fastest, those of 0.01 not at all."""

import pytest

from examples.common import loss_curves
from examples.weight_init import losses, main
from tests.support.example_checks import check_plot, check_png, error_of, output_of, some_digits


def test_he_is_ahead_of_xavier_and_small_weights_stand_still(tmp_path):
    train, _ = some_digits(2000)
    found = losses(train, steps=300)
    late = {name: values[-50:].mean() for name, values in found.items()}
    assert late["He"] < 0.7 * late["Xavier"]
    assert late["Xavier"] < 0.9 * late["std 0.01"]
    assert 2.25 < late["std 0.01"] < 2.35  # ln 10 = 2.303: as good as guessing
    check_plot(loss_curves(found, top=2.5), tmp_path, "step", "cross-entropy loss (smoothed)")


def test_command(tmp_path):
    out = output_of(main, "--steps", 12, "--out", tmp_path / "a.png")
    assert all(name in out for name in ("std 0.01", "Xavier", "He"))
    check_png(tmp_path / "a.png")


def test_what_cannot_be_done_is_said_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("examples.weight_init.losses", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}: " in error_of(main, "--out", tmp_path / "file" / "a.png")
    assert "'abacus'" in error_of(main, "--device", "abacus")
