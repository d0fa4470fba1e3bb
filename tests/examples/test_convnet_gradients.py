"""A convnet's gradients, element by element and along random directions."""

import numpy as np

from examples.common import both_gradients
from examples.convnet_gradients import main, plot, problem
from tests.support.example_checks import check_plot, check_png, output_of


def test_only_steps_over_a_kink_tell_the_two_gradients_apart(tmp_path):
    network, x, t = problem()
    found = both_gradients(network, x, t)
    assert {name: backward.size for name, (backward, _) in found.items()} == {
        "W1": 90,
        "b1": 10,
        "W2": 1600,
        "b2": 10,
        "W3": 100,
        "b3": 10,
    }
    differences = {name: abs(backward - numerical) for name, (backward, numerical) in found.items()}
    # Where nothing switches only rounding is left, about eps·loss/step = 5e-12, and the third derivative.
    assert (differences["W1"] < 1e-9).mean() > 0.9
    assert max(differences[name].max() for name in ("b1", "W2", "b2", "W3", "b3")) < 1e-9
    # A step a thousand times smaller leads over no kink, and its rounding is a thousand times as large.
    kinked = np.argwhere(differences["W1"] > 1e-9)
    assert len(kinked) > 0
    for index in map(tuple, kinked):
        W = network.params["W1"]
        kept = W[index]
        losses = []
        for step in (1e-7, -1e-7):
            W[index] = kept + step
            losses.append(float(network.loss(x, t)))
        W[index] = kept
        assert abs(found["W1"][0][index] - (losses[0] - losses[1]) / 2e-7) < 2e-8
    check_plot(plot(found), tmp_path, "|gradient|, backpropagated", "|backpropagated - numerical|")


def test_a_tiny_convnet_on_every_device(device):
    for backward, numerical in both_gradients(*problem(filters=2, hidden_size=2, size=4)).values():
        assert (abs(backward - numerical) < 1e-9).mean() > 0.9
        assert backward.any()


def test_prints_both_checks(tmp_path):
    out = output_of(main, "--out", tmp_path / "new" / "a.png")
    assert "  b1: " in out
    rows = [line.split() for line in out.splitlines() if line.startswith("  ")]
    along = np.array([row[1:] for row in rows[-16:]], float)
    assert [row[0] for row in rows[-16:]] == [f"{kind}{i}:" for i in range(1, 9) for kind in "Wb"]
    np.testing.assert_allclose(along[:, 0], along[:, 1], rtol=1e-6, atol=2e-9)
    assert f"plot: {tmp_path / 'new' / 'a.png'}" in out
    check_png(tmp_path / "new" / "a.png")
