"""In float16 a network says what it says in float32."""

import numpy as np
import pytest

from backend import asnumpy
from examples import half_precision
from examples.common import load_digits
from examples.half_precision import infer, main, margins, plot, train
from tests.support.example_checks import check_plot, check_png, error_of, output_of, some_digits
from training.models import DeepConvNet


def check_agreement(single, half):
    """Scores move by roundings only, and a class changes only where two scores are that close."""
    moved = abs(half.scores - single.scores).max(axis=1)
    assert moved.max() > 0  # it was another precision
    # float16 rounds to 2⁻¹¹ = 5e-4 of a value, here in a dozen layers, of which the roundings partly cancel.
    assert moved.max() < 0.01 * abs(single.scores).max()
    changed = half.scores.argmax(axis=1) != single.scores.argmax(axis=1)
    assert (2 * moved >= margins(single.scores))[changed].all()
    assert half.parameter_bytes == single.parameter_bytes / 2


def test_accuracy_stays(tmp_path):
    data, (x, t) = some_digits(1000, 300, flatten=False)
    network = train(data, steps=30, batch_size=50)
    single, half = infer(network, x, "float32"), infer(network, x, "float16")
    assert network.params.flat.dtype == np.float16
    check_agreement(single, half)
    assert single.accuracy(t) > 0.3  # it has learned something that could be lost
    assert half.accuracy(t) == pytest.approx(single.accuracy(t), abs=0.01)
    assert single.accuracy(t) == pytest.approx((single.scores.argmax(axis=1) == asnumpy(t)).mean())
    figure = plot(single, half)
    check_plot(figure, tmp_path, "highest score less the second, in float32", "largest change of a score, float16")


@pytest.mark.data
def test_the_book_s_trained_network_keeps_its_accuracy(data_dir):
    _, (x, t) = load_digits("mnist", data_dir, flatten=False)
    x, t = x[:2000], t[:2000]
    network = DeepConvNet()
    network.load_params(data_dir / "book" / "deep_convnet.npz")
    single, half = infer(network, x, "float32"), infer(network, x, "float16")
    check_agreement(single, half)
    assert single.accuracy(t) > 0.95
    assert half.accuracy(t) == pytest.approx(single.accuracy(t), abs=0.001)  # 2 of 2,000


def test_margin_is_the_highest_score_less_the_second():
    assert margins(np.array([[1.0, 4.0, 2.5], [3.0, -1.0, 3.0]])).tolist() == [1.5, 0.0]


def test_command_trains_or_takes_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(half_precision, "load_digits", lambda *_, flatten: some_digits(100, 50, flatten))
    monkeypatch.setattr(half_precision, "train", lambda data, steps: train(data, 1, 10))
    DeepConvNet().save_params(tmp_path / "weights.npz")
    for options, first in (((), "training for"), (("--weights", tmp_path / "weights.npz"), " ")):
        out = output_of(main, "--out", tmp_path / "a.png", *options)
        assert out.startswith(first)
        assert "of 50 images change class" in out
        check_png(tmp_path / "a.png")
    assert "there is no file" in error_of(main, "--out", tmp_path / "a.png", "--weights", tmp_path / "none.npz")
