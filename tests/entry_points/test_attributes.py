"""Hyper-parameters that are set later: checked as in constructors, and what was refused leaves the old value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.checks import Hyperparameter, real
from layers import BatchNormalization, Dropout
from tests.support.entry_points import entry_points
from training.optim.optimizers import Adam
from training.optim.schedules import ConstantSchedule, CosineSchedule, StepSchedule, Warmup

CLASSES = [entry for entry in entry_points() if isinstance(entry.function, type)]
ATTRIBUTES = [
    (entry, name)
    for entry in CLASSES
    for name in sorted({key for kind in entry.function.__mro__ for key in vars(kind)})
    if isinstance(next(vars(kind)[name] for kind in entry.function.__mro__ if name in vars(kind)), Hyperparameter)
]


def test_the_attributes_are_found():
    found = {(entry.function, name) for entry, name in ATTRIBUTES}
    assert {(Adam, "lr"), (Adam, "beta2"), (Dropout, "dropout_ratio"), (BatchNormalization, "eps")} <= found


@pytest.mark.parametrize(("entry", "name"), ATTRIBUTES, ids=str)
def test_an_attribute_takes_every_form_and_refuses_what_is_no_number(entry, name):
    thing = entry.call()
    for form in (float, np.float64, np.float32, np.float16, np.array):
        setattr(thing, name, form(0.25))
        assert (getattr(thing, name), type(getattr(thing, name))) == (0.25, float)
    for wrong in (None, "0.1", True, [0.1], np.ones(2), 1j, object()):
        with pytest.raises(TypeError, match=f"{type(thing).__name__}: {name} must be"):
            setattr(thing, name, wrong)
    for wrong in (float("nan"), np.inf, -0.5, 10**400):
        with pytest.raises(ValueError, match=f"{type(thing).__name__}: {name} must be"):
            setattr(thing, name, wrong)
    assert getattr(thing, name) == 0.25
    with pytest.raises(AttributeError):
        getattr(type(thing), name)


SCHEDULES = [
    ConstantSchedule(0.5),
    StepSchedule(0.5, every=2),
    CosineSchedule(0.5, steps=4),
    Warmup(CosineSchedule(0.5, steps=4), steps=2),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_schedule_takes_a_step_in_every_form(schedule):
    for step in range(8):
        expected = schedule(step)
        assert type(expected) is float
        assert {schedule(form(step)) for form in (np.int64, np.uint8, np.array)} == {expected}
    for wrong in (None, "1", 1.5, True, [1], np.ones(2)):
        with pytest.raises(TypeError, match="step must be a whole number"):
            schedule(wrong)
    with pytest.raises(ValueError, match="step must be a whole number"):
        schedule(-1)


@given(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["least", "most", "above", "below"]),
    st.floats(-2, 2),
)
def test_a_range_holds_what_its_words_say(value, word, bound):
    holds = {"least": value >= bound, "most": value <= bound, "above": value > bound, "below": value < bound}[word]
    if np.isfinite(value) and holds:
        assert real("x", value, **{word: bound}) == value
    else:
        with pytest.raises(ValueError, match=r"^x must be a finite number, (at least|at most|above|below) \S+, got "):
            real("x", value, **{word: bound})
