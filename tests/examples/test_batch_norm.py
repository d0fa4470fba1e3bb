"""Batch normalization learns where the same network without it does not."""

from examples.batch_norm import SCALES, accuracies, build, main, plot
from tests.support.example_checks import check_plot, check_png, output_of, some_digits


def test_normalization_learns_faster_at_small_and_at_large_scales(tmp_path):
    train, _ = some_digits(1000)
    scales = (SCALES[0], SCALES[5], SCALES[7])  # 1, 0.046 and 0.014
    found = accuracies(train, scales, epochs=6)
    assert tuple(found) == scales
    for with_it, without in found.values():
        assert len(with_it) == len(without) == 7
        assert without[-1] < 0.15  # guessing
        assert with_it[-1] > without[-1] + 0.1
    assert min(found[scale][0][-1] for scale in scales[1:]) > 0.6
    check_plot(plot(found), tmp_path, "epoch", "training accuracy in %")


def test_sixteen_scales_from_1_to_1e_4():
    assert len(SCALES) == 16
    assert (SCALES[0], round(SCALES[-1], 12)) == (1.0, 1e-4)
    weights = build(SCALES[3], True).params["W1"]
    assert abs(weights.std() / SCALES[3] - 1) < 0.02


def test_command(tmp_path):
    out = output_of(main, "--images", 100, "--epochs", 1, "--out", tmp_path / "a.png")
    assert len(out.splitlines()) == 2 + 16 + 1
    check_png(tmp_path / "a.png")
