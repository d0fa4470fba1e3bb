import math

import numpy as np
import pytest

from training.optim import schedules
from training.optim.plateau import PlateauSchedule
from training.optim.schedules import (
    ConstantSchedule,
    CosineSchedule,
    OneCycleSchedule,
    PolynomialSchedule,
    RestartsSchedule,
    StepSchedule,
    Warmup,
)


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


@pytest.mark.parametrize("power", [0, 0.9, 1, 2])
def test_polynomial_is_a_power_of_what_is_left(power):
    schedule = PolynomialSchedule(0.8, steps=10, power=power, final_lr=0.1)
    for step in range(10):
        assert schedule(step) == pytest.approx(0.1 + 0.7 * ((10 - step) / 10) ** power)
    assert schedule(10) == schedule(99) == pytest.approx(0.1 if power else 0.8)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_restarts_are_the_cosines_of_sgdr(factor):
    """T_cur and T_i by the closed form of a geometric series, as PyTorch's CosineAnnealingWarmRestarts has them."""
    schedule, first = RestartsSchedule(1.0, steps=5, factor=factor, final_lr=0.2), 5
    for step in range(200):
        n = step // first if factor == 1 else int(math.log(step / first * (factor - 1) + 1 + 1e-12, factor))
        begin = first * n if factor == 1 else first * (factor**n - 1) // (factor - 1)
        expected = 0.2 + 0.8 * (1 + math.cos(math.pi * (step - begin) / (first * factor**n))) / 2
        assert schedule(step) == pytest.approx(expected)
    assert [schedule(step) for step in (0, 5, 5 + 5 * factor)] == [1.0, 1.0, 1.0]
    assert 0.2 <= schedule(10**15) <= 1.0


@pytest.mark.parametrize("steps", [10, 20, 1000])
@pytest.mark.parametrize(("rise", "start", "end"), [(0.3, 25, 1e4), (0.5, 10, 100)])
def test_one_cycle_is_pytorchs(steps, rise, start, end):
    """OneCycleLR of PyTorch 2: cosines from max/div to max at pct·total - 1, and to initial/final_div at total - 1."""
    schedule, initial = OneCycleSchedule(0.6, steps, rise, start, end), 0.6 / start
    phases = [(0, rise * steps - 1, initial, 0.6), (rise * steps - 1, steps - 1, 0.6, initial / end)]
    for step in range(steps):
        begin, stop, low, high = phases[step > phases[0][1]]
        share = (step - begin) / (stop - begin)
        assert schedule(step) == pytest.approx(high + (low - high) / 2 * (1 + math.cos(math.pi * share)), rel=1e-9)
    assert schedule(steps + 5) == schedule(steps - 1) == pytest.approx(initial / end)


@pytest.mark.parametrize("rise", [0, 0.01, 1])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_few_steps_or_of_one_side_has_the_peak(steps, rise):
    rates = [OneCycleSchedule(0.6, steps, rise)(step) for step in range(steps)]
    assert max(rates) == pytest.approx(0.6)


def reduced(scores, lr, factor, patience, final_lr, threshold):
    """The rates after each score, by the counts of PyTorch's ReduceLROnPlateau (mode "max", absolute threshold)."""
    best, bad, rates = -math.inf, 0, []
    for score in scores:
        if score > best + threshold:
            best, bad = score, 0
        else:
            bad += 1
        if bad > patience:
            lr, bad = max(lr * factor, final_lr), 0
        rates.append(lr)
    return rates


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("threshold", [0, 0.05])
def test_plateau_reduces_as_the_rule_says(patience, threshold):
    scores = [round(float(n), 2) for n in np.random.default_rng(patience).random(60)] + [math.nan] * 5
    schedule = PlateauSchedule(0.5, factor=0.3, patience=patience, final_lr=1e-4, threshold=threshold)
    rates = []
    for score in scores:
        schedule.observe(score)
        rates.append(schedule(0))
    assert rates == reduced(scores, 0.5, 0.3, patience, 1e-4, threshold)
    assert rates[-1] < 0.5


def test_plateau_never_raises_the_rate_to_the_final_one():
    schedule = PlateauSchedule(0.1, patience=0, final_lr=0.2)
    schedule.observe(1.0)
    schedule.observe(1.0)
    assert schedule(0) == 0.1


def test_plateau_goes_on_from_its_state_also_within_a_warmup():
    for make in (lambda: PlateauSchedule(0.5, patience=1), lambda: Warmup(PlateauSchedule(0.5, patience=1), steps=2)):
        whole, first, second = make(), make(), make()
        scores = [0.1, 0.3, 0.3, 0.2, 0.4, 0.3, 0.3, 0.3]
        for score in scores[:3]:
            first.observe(score)
        second.load_state_dict(first.state_dict())
        for score in scores:
            whole.observe(score)
        for score in scores[3:]:
            second.observe(score)
        assert second.state_dict() == whole.state_dict()
        assert [second(step) for step in range(4)] == [whole(step) for step in range(4)]
        assert whole(9) < 0.5
    assert Warmup(ConstantSchedule(0.1), 3).state_dict() == {}
    Warmup(ConstantSchedule(0.1), 3).observe(0.5)
    Warmup(lambda step: 0.1, 3).observe(0.5)


@pytest.mark.parametrize(
    "saved",
    [{}, {"rate": 0.1, "best": 0.5}, {"rate": -1.0, "best": 0.5, "waited": 0}, {"rate": 0.1, "best": 0, "waited": -1}],
)
def test_a_state_of_another_kind_changes_nothing(saved):
    schedule = PlateauSchedule(0.5)
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=r"not a state of PlateauSchedule|rate|waited"):
        schedule.load_state_dict(saved)
    assert schedule.state_dict() == before


@pytest.mark.parametrize("name", [name for name in schedules.NAMES if name.startswith("warmup-")])
def test_a_name_with_warmup_climbs_over_a_twentieth_of_the_steps(name):
    schedule, after = schedules.by_name(name, 0.8, 100), schedules.by_name(name.removeprefix("warmup-"), 0.8, 95)
    assert [schedule(step) for step in range(5)] == pytest.approx([0.16, 0.32, 0.48, 0.64, 0.8])
    assert [schedule(step) for step in range(5, 100)] == [after(step) for step in range(95)]


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
    with pytest.raises(ValueError, match=r"'constant', 'step', 'cosine', .*'one-cycle', got 'linear'"):
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
        (lambda: PolynomialSchedule(0.1, steps=5, power=-1), "power .*-1"),
        (lambda: RestartsSchedule(0.1, steps=5, factor=0), "factor .*0"),
        (lambda: RestartsSchedule(0.1, steps=5, factor=1.5), "factor .*1.5"),
        (lambda: OneCycleSchedule(0.1, steps=5, rise=1.5), "rise .*1.5"),
        (lambda: OneCycleSchedule(0.1, steps=5, start=0.5), "start .*0.5"),
        (lambda: PlateauSchedule(0.1, factor=1.5), "factor .*1.5"),
        (lambda: PlateauSchedule(0.1, patience=-1), "patience .*-1"),
        (lambda: schedules.by_name("step", 0.1, 0), "total_steps .*0"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
