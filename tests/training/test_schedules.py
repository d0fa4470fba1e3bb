import math

import numpy as np
import pytest

from training.optim import schedules
from training.optim.schedules import ConstantSchedule, CosineSchedule, StepSchedule, Warmup


def test_constant():
    schedule = ConstantSchedule(0.1)
    assert [schedule(step) for step in (0, 1, 10**6)] == [0.1, 0.1, 0.1]


def test_step_drops_after_every_so_many_steps():
    schedule = StepSchedule(0.8, every=3, factor=0.5)
    assert [schedule(step) for step in range(8)] == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]
    assert StepSchedule(1.0, every=1)(2) == pytest.approx(0.01)


def test_cosine_against_known_angles():
    schedule = CosineSchedule(1.0, steps=12)
    expected = {0: 1.0, 2: 0.5 + math.sqrt(3) / 4, 4: 0.75, 6: 0.5, 8: 0.25, 12: 0.0}
    for step, rate in expected.items():
        assert schedule(step) == pytest.approx(rate, abs=1e-15)
    rates = [schedule(step) for step in range(13)]
    assert rates == sorted(rates, reverse=True)


def test_cosine_ends_at_final_lr_and_stays_there():
    schedule = CosineSchedule(1.0, steps=10, final_lr=0.25)
    assert schedule(0) == 1.0
    assert schedule(5) == pytest.approx(0.625)
    assert [schedule(step) for step in (10, 11, 1000)] == [0.25, 0.25, 0.25]


def test_warmup_climbs_linearly_then_starts_the_schedule_from_its_step_0():
    after = StepSchedule(0.8, every=2, factor=0.5)
    schedule = Warmup(after, steps=4)
    assert [schedule(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [schedule(step) for step in range(4, 9)] == [after(step) for step in range(5)]


def test_warmup_of_no_steps_is_the_schedule():
    after = CosineSchedule(0.3, steps=5)
    assert [Warmup(after, 0)(step) for step in range(7)] == [after(step) for step in range(7)]


@pytest.mark.parametrize("name", schedules.NAMES)
@pytest.mark.parametrize("total_steps", [1, 2, 19, 20, 1000])
def test_by_name_gives_python_floats_between_0_and_the_peak(name, total_steps):
    schedule = schedules.by_name(name, np.float64(0.1), total_steps)
    rates = [schedule(step) for step in range(total_steps + 2)]
    assert all(type(rate) is float for rate in rates)
    assert all(0 <= rate <= 0.1 for rate in rates)
    assert max(rates) == pytest.approx(0.1)


def test_by_name_shapes_fit_the_total():
    assert schedules.by_name("constant", 0.1, 300)(299) == 0.1
    step = schedules.by_name("step", 1.0, 300)
    assert [step(s) for s in (0, 99, 100, 199, 200, 299)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = schedules.by_name("cosine", 1.0, 300)
    assert (cosine(0), cosine(150), cosine(300)) == pytest.approx((1.0, 0.5, 0.0))
    warmup = schedules.by_name("warmup-cosine", 1.0, 300)
    assert [warmup(s) for s in (0, 14, 15, 300)] == pytest.approx([1 / 15, 1.0, 1.0, 0.0])


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'constant', 'step', 'cosine', 'warmup-cosine', got 'linear'"):
        schedules.by_name("linear", 0.1, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSchedule(-0.1), "lr .*-0.1"),
        (lambda: ConstantSchedule(float("nan")), "lr .*nan"),
        (lambda: StepSchedule(0.1, every=0), "every .*0"),
        (lambda: StepSchedule(0.1, every=5, factor=-1.0), "factor .*-1.0"),
        (lambda: CosineSchedule(0.1, steps=0), "steps .*0"),
        (lambda: CosineSchedule(0.1, steps=2.5), "steps .*2.5"),
        (lambda: CosineSchedule(0.1, steps=5, final_lr=float("inf")), "final_lr .*inf"),
        (lambda: Warmup(ConstantSchedule(0.1), steps=-1), "steps .*-1"),
        (lambda: schedules.by_name("step", 0.1, 0), "total_steps .*0"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
