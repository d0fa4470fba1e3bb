"""Steps of an LSTM and a GRU by their definitions; whole sequences are compared in tests/layers/test_recurrent.py."""

import numpy as np
import pytest

from backend import asnumpy, xp
from kernels.core import native
from kernels.gru import gru_step, gru_step_backward
from kernels.lstm import lstm_step, lstm_step_backward
from tests.support.checks import assert_same, frozen, normal, thread_limit

SIZES = [(1, 1), (3, 7), (2, 8), (5, 16), (4, 33), (0, 4)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def columns(sums, gates):
    return np.split(sums, gates, axis=1)


def lstm_by_hand(of_inputs, of_states, before):
    i, f, g, o = columns(of_inputs + of_states, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c = f * before + i * g
    return np.concatenate([i, f, g, o], axis=1), c, np.tanh(c), o * np.tanh(c)


def lstm_backward_by_hand(dout, dh, dc, gates, before, squashed):
    i, f, g, o = columns(gates, 4)
    dh = dout + dh
    dc = dc + dh * o * (1 - squashed**2)
    slopes = dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g**2), dh * squashed * o * (1 - o)
    return np.concatenate(slopes, axis=1), dc * f


def gru_by_hand(of_inputs, of_states, before):
    (ar, az, an), (br, bz, bn) = columns(of_inputs, 3), columns(of_states, 3)
    r, z = sigmoid(ar + br), sigmoid(az + bz)
    n = np.tanh(an + r * bn)
    return np.concatenate([r, z, n], axis=1), bn, (1 - z) * n + z * before


def gru_backward_by_hand(dout, dproduct, carried, gates, products, before):
    r, z, n = columns(gates, 3)
    dh = dout + carried + dproduct
    dn = dh * (1 - z) * (1 - n**2)
    dz, dr = dh * (before - n) * z * (1 - z), dn * products * r * (1 - r)
    return np.concatenate([dr, dz, dn], axis=1), np.concatenate([dr, dz, dn * r], axis=1), dh * z


class Lstm:
    """A step and its backward with numbers drawn anew: what is given, and what is written."""

    gates = 4
    forward, backward = staticmethod(lstm_by_hand), staticmethod(lstm_backward_by_hand)

    @staticmethod
    def step(given, outs):
        lstm_step(*given, *outs)

    @staticmethod
    def step_backward(dout, dh, dc, kept, before, dsums):
        gates, squashed = kept
        lstm_step_backward(dout, dh, dc, gates, before, squashed, dsums[0])


class Gru:
    gates = 3
    forward, backward = staticmethod(gru_by_hand), staticmethod(gru_backward_by_hand)

    @staticmethod
    def step(given, outs):
        gru_step(*given, *outs)

    @staticmethod
    def step_backward(dout, dh, dc, kept, before, dsums):
        gates, products = kept
        gru_step_backward(dout, dh, dc, gates, products, before, *dsums)


KINDS = pytest.mark.parametrize("kind", [Lstm, Gru])


def forward(kind, samples, hidden, dtype="float32", scale=1.0):
    """Return what a step is given and what it wrote, on the device."""
    wide = (samples, kind.gates * hidden)
    drawn = enumerate((wide, wide, (samples, hidden)))
    given = [normal(shape, "float64", seed=seed) * scale for seed, shape in drawn]
    given = [each.astype(dtype) for each in given]
    shapes = [wide, *[(samples, hidden)] * (kind.gates - 1)]
    outs = [xp.full(shape, np.nan, dtype) for shape in shapes]
    with frozen(*given):
        kind.step(given, outs)
    return given, outs


def backward(kind, given, outs, later=True):
    """Return the arrays that a backward was given, and what it wrote: gradients of sums, and what goes on."""
    before, dtype = given[2], given[2].dtype
    dout, dh, dc = (normal(before.shape, dtype, seed=seed) for seed in (5, 6, 7))
    kept = [outs[0], outs[2] if kind is Lstm else outs[1]]
    dsums = [xp.full(outs[0].shape, np.nan, dtype) for _ in range(1 if kind is Lstm else 2)]
    after = dc.copy()
    with frozen(dout, dh, before, *kept):
        kind.step_backward(dout, dh if later else None, after, kept, before, dsums)
    numbers = (dout, dh if later else xp.zeros_like(dh), dc, *kept)
    arguments = (*numbers[:4], before, kept[1]) if kind is Lstm else (*numbers, before)
    return arguments, [*dsums, after]


@KINDS
@pytest.mark.parametrize(("dtype", "units"), [("float64", 16), ("float32", 16), ("float16", 4)])
def test_a_step_is_its_definition(device, kind, dtype, units):
    eps = np.finfo(dtype).eps
    for samples, hidden in SIZES:
        given, outs = forward(kind, samples, hidden, dtype)
        exact = kind.forward(*(asnumpy(each).astype("longdouble") for each in given))
        for own, right in zip(outs, exact, strict=True):
            assert own.dtype == dtype
            assert np.abs(asnumpy(own) - right).max(initial=0) <= units * eps * max(1, np.abs(right).max(initial=0))


@KINDS
@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize(("dtype", "units"), [("float64", 16), ("float32", 16), ("float16", 4)])
def test_gradients_are_their_definitions(device, kind, dtype, units, later):
    eps = np.finfo(dtype).eps
    for samples, hidden in SIZES:
        arguments, written = backward(kind, *forward(kind, samples, hidden, dtype), later)
        exact = kind.backward(*(asnumpy(each).astype("longdouble") for each in arguments))
        for own, right in zip(written, exact, strict=True):
            assert own.dtype == dtype
            assert np.abs(asnumpy(own) - right).max(initial=0) <= units * eps * max(1, np.abs(right).max(initial=0))


@KINDS
def test_gradients_are_those_of_the_step(device, kind):
    """By central differences in float64: of Σ h·weights, with respect to the sums and to what was before."""
    given, outs = forward(kind, 3, 5, "float64")
    dout = normal((3, 5), "float64", seed=5)
    kept = [outs[0], outs[2] if kind is Lstm else outs[1]]
    dsums = [xp.zeros(outs[0].shape, "float64") for _ in range(1 if kind is Lstm else 2)]
    going_on = xp.zeros((3, 5), "float64")
    kind.step_backward(dout, None, going_on, kept, given[2], dsums)
    weights, given = asnumpy(dout), [asnumpy(each) for each in given]
    for place, analytic in enumerate((dsums[0], dsums[-1], going_on)):
        numeric = np.zeros_like(given[place])
        for index in np.ndindex(numeric.shape):
            total = []
            for sign in (1, -1):
                moved = [each.copy() for each in given]
                moved[place][index] += sign * 1e-5
                total.append((kind.forward(*moved)[-1] * weights).sum())
            numeric[index] = (total[0] - total[1]) / 2e-5
        np.testing.assert_allclose(asnumpy(analytic), numeric, atol=1e-8)


@KINDS
def test_large_sums_and_nan(device, kind):
    given, outs = forward(kind, 2, 9, scale=1e30)
    assert all(np.isfinite(asnumpy(each)).all() for each in (outs[0], *outs[2:3]))
    given = [each.copy() for each in given]
    given[0][1, 4] = np.nan
    kind.step(given, outs)
    states = asnumpy(outs[-1])
    assert np.isnan(states[1, 4])
    assert not np.isnan(np.delete(states.ravel(), 13)).any()


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_c_computes_the_bits_of_the_twins(kind, dtype, monkeypatch):
    """The twins' own sigmoid and tanh are C's here."""
    if not native.available():
        pytest.skip(f"no C kernels: {native.refusal()}")
    given, outs = forward(kind, 7, 19, dtype)
    computed = [*outs, *backward(kind, given, outs)[1]]
    monkeypatch.setattr("kernels.lstm.implementation", lambda x, on_numpy, *others: on_numpy)
    monkeypatch.setattr("kernels.gru.implementation", lambda x, on_numpy, *others: on_numpy)
    given, outs = forward(kind, 7, 19, dtype)
    for one, other in zip([*outs, *backward(kind, given, outs)[1]], computed, strict=True):
        assert_same(one, other)


@KINDS
def test_threads_change_no_bit(device, kind, monkeypatch):
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 64)
    results = []
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            given, outs = forward(kind, 37, 19)
            results.append([*outs, *backward(kind, given, outs)[1]])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_same(one, other)


@KINDS
def test_what_does_not_fit_is_refused(device, kind):
    given, outs = forward(kind, 3, 5)
    name, several = ("an LSTM", 4) if kind is Lstm else ("a GRU", 3)
    before = [each.copy() for each in outs]
    for place in range(3):
        wrong = [*given]
        wrong[place] = wrong[place][:, :-1].copy()
        words = rf"a step of {name} needs arrays \(N, H\) and, of gates, \(N, {several}·H\), got "
        with pytest.raises(ValueError, match=words):
            kind.step(wrong, outs)
    for own, kept in zip(outs, before, strict=True):
        assert_same(own, kept)
