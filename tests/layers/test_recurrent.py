"""RNN, LSTM and GRU, against their formulas one sample after the other, whose derivatives are complex steps."""

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy, random
from layers import GRU, LSTM, RNN
from tests.support.checks import assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle

KINDS = {"RNN": (RNN, 1), "LSTM": (LSTM, 4), "GRU": (GRU, 3)}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def states_of(kind, p, x):
    """Return the states (N, T, H) by the formulas of PyTorch's documentation; any of the numbers may be complex."""
    (samples, steps, _), hidden = x.shape, len(p["Wh"])
    states = np.zeros((samples, steps, hidden), np.result_type(x, *p.values()))
    for sample in range(samples):
        h = c = np.zeros(hidden)
        for step in range(steps):
            a, b = x[sample, step] @ p["Wx"] + p["bx"], h @ p["Wh"] + p["bh"]
            if kind == "RNN":
                h = np.tanh(a + b)
            elif kind == "LSTM":
                i, f, g, o = np.split(a + b, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
                z = sigmoid(az + bz)
                h = (1 - z) * np.tanh(an + sigmoid(ar + br) * bn) + z * h
            states[sample, step] = h
    return states


def amplified(p, x):
    """Return a bound on how much of an error of one step's sums may grow in the others, times the largest sum."""
    of_inputs = (abs(x) @ abs(p["Wx"])).max(initial=0) + abs(p["bx"]).max() + abs(p["bh"]).max()
    of_states = abs(p["Wh"]).sum(axis=0).max()
    return (of_inputs + of_states) * (1 + of_states) ** x.shape[1]


def oracle(kind):
    def forward(p, x):
        terms = (sum(map(len, (p["Wx"], p["Wh"]))) + 8) * x.shape[1]
        return Expected(states_of(kind, p, x), amplified(p, x), terms, 2)

    def backward(p, dout, x):
        given, found, tiny = {"x": x, **p}, {}, 1e-40
        for name, array in given.items():
            gradient = np.zeros(array.shape)
            for place in np.ndindex(array.shape):
                moved = array.astype(complex)
                moved[place] += 1j * tiny
                changed = {**given, name: moved}
                gradient[place] = (states_of(kind, {key: changed[key] for key in p}, changed["x"]).imag * dout).sum()
            gradient /= tiny
            terms = (sum(map(len, (p["Wx"], p["Wh"]))) + 16) * x.shape[1] * len(x)
            found[name] = Expected(gradient, amplified(p, x) * (1 + abs(dout).sum()), terms, 4)
        return found

    return Oracle(forward, backward)


def case(kind, samples, steps, inputs, hidden):
    made, gates = KINDS[kind]

    def make(draw):
        shapes = (inputs, gates * hidden), (hidden, gates * hidden), (gates * hidden,), (gates * hidden,)
        return made(*(draw(*shape) / 2 for shape in shapes))

    shape = samples, steps, inputs
    return LayerCase(f"{kind} {shape} to {hidden}", make, shape, oracle(kind))


CASES = [case(kind, *sizes) for kind in KINDS for sizes in ((3, 4, 2, 3), (2, 1, 3, 2), (1, 3, 1, 1))]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_gives_no_state(device, kind):
    layer = KINDS[kind][0].of(3, 5)
    y = layer.forward(normal((2, 0, 3)))
    assert y.shape == (2, 0, 5)
    assert layer.backward(y).shape == (2, 0, 3)
    assert not any(asnumpy(gradient).any() for gradient in layer.grads.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_knows_those_before_it_alone(device, kind):
    layer, x = KINDS[kind][0].of(3, 5), asnumpy(normal((2, 6, 3)))
    changed = x.copy()
    changed[:, 4:] += 1
    before, after = (asnumpy(layer.forward(asarray(each))) for each in (x, changed))
    assert_same(after[:, :4], before[:, :4])
    assert (after[:, 4:] != before[:, 4:]).any(axis=2).all()
    dout = np.zeros((2, 6, 5), "float32")
    dout[:, 3] = 1
    dx = asnumpy(layer.backward(asarray(dout)))
    assert not dx[:, 4:].any()
    assert dx[:, :4].any(axis=2).all()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_mix(device, kind):
    layer, x = KINDS[kind][0].of(3, 5, dtype="float64"), normal((4, 6, 3), "float64")
    together = asnumpy(layer.forward(x))
    for sample in range(4):
        alone = asnumpy(layer.forward(x[sample : sample + 1]))[0]
        np.testing.assert_allclose(alone, together[sample], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_large_sums_do_not_overflow(device, kind):
    layer, x = KINDS[kind][0].of(3, 5), normal((2, 4, 3)) * 1e4
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = layer.forward(x)
        dx = layer.backward(y)
    assert np.isfinite(asnumpy(y)).all()
    assert np.isfinite(asnumpy(dx)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_and_first_layers_leave_gradients_out(device, kind):
    layer, x = KINDS[kind][0].of(3, 5), normal((2, 4, 3))
    layer.frozen = True
    y = layer.forward(x)
    expected = asnumpy(layer.backward(y))
    assert layer.grads == {}
    layer.frozen, layer.input_gradient = False, False
    layer.forward(x)
    assert layer.backward(y) is None
    assert list(layer.grads) == ["Wx", "Wh", "bx", "bh"]
    layer.input_gradient = True
    layer.forward(x)
    assert_same(layer.backward(y), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_of_draws_weights_and_no_biases(kind):
    made, gates = KINDS[kind]
    with backend.use("cpu"):
        random.seed(0)
        layer = made.of(100, 64, dtype="float64")
        assert layer.Wx.shape == (100, 64 * gates)
        assert layer.Wh.shape == (64, 64 * gates)
        assert layer.hidden == 64
        assert abs(layer.Wx.std() * 10 - 1) < 0.05
        assert abs(layer.Wh.std() * 8 - 1) < 0.05
        assert not layer.bx.any()
        assert not layer.bh.any()
        assert repr(layer) == f"{kind}(100 → 64)"


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: RNN(*map(np.ones, ((3, 4), (4, 5), 4, 4))), ValueError, r"RNN needs Wx \(D, H\), Wh \(H, H\), bx and bh"),
    (lambda: LSTM(*map(np.ones, ((3, 4), (4, 4), 4, 4))), ValueError, r"LSTM needs Wx \(D, 4·H\), Wh \(H, 4·H\), bx"),
    (lambda: GRU(*map(np.ones, ((3, 6), (2, 6), 6, 5))), ValueError, r"got \(3, 6\), \(2, 6\), \(6,\) and \(5,\)"),
    (lambda: GRU(np.ones((0, 6)), *map(np.ones, ((2, 6), 6, 6))), ValueError, "GRU needs Wx"),
    (lambda: GRU(*(np.ones(()) for _ in range(4))), ValueError, "GRU needs Wx"),
    (lambda: RNN(np.ones((3, 2), "int64"), *map(np.ones, ((2, 2), 2, 2))), TypeError, "Wx as a floating-point array"),
    (lambda: RNN.of(3, 2).forward(np.ones((4, 5, 2), "float32")), ValueError, r"takes sequences \(T, 3\), got \(5, 2"),
    (lambda: RNN.of(3, 2).forward(np.ones((4, 3), "float32")), ValueError, r"takes sequences \(T, 3\), got \(3,\)"),
    (lambda: RNN.of(3, 2).forward(np.ones((4, 5, 3), "int64")), TypeError, "RNN needs x as a floating-point array"),
    (lambda: LSTM.of(0, 2), ValueError, "inputs must be a whole number"),
    (lambda: LSTM.of(2, 2.5), TypeError, "hidden must be a whole number"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, words):
    with backend.use("cpu"), pytest.raises(error, match=words):
        make()
