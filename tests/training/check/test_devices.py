"""``xpnet check``, operation by operation: that it passes what is right."""

import math

import layers
from training.check import CheckRow, cases, compare, devices
from training.check.devices import severity


def test_the_cpu_agrees_with_itself():
    """Every case runs, in every dtype, within its bounds against float64."""
    rows = list(compare("cpu"))
    assert [row.operation for row in rows if not row.passed] == []
    assert {row.operation for row in rows} == {case.operation for case in cases()}
    assert all(row.cases >= 3 for row in rows)


def test_every_layer_with_arithmetic_is_among_the_operations(monkeypatch):
    used = set()
    for kind in vars(layers).values():
        if isinstance(kind, type) and issubclass(kind, layers.Layer):
            new = kind.__new__
            monkeypatch.setattr(kind, "__new__", lambda cls, *a, new=new, **k: used.add(cls) or new(cls))
    list(compare("cpu", ("float32",)))
    without = {layers.Layer, layers.Loss, layers.Sequential, layers.Residual, layers.Skip}  # they call others
    assert {kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, layers.Layer)} == (
        {kind for kind in used if kind.__module__.startswith("layers")} | without
    )


def test_a_row_is_wrong_beyond_its_tolerance():
    assert CheckRow("x", 1, 2.0, 2.0, "y").passed
    assert not CheckRow("x", 1, 2.1, 2.0, "y").passed
    assert not CheckRow("x", 1, math.inf, 2.0, "y").passed
    assert not CheckRow("x", 1, math.nan, 2.0, "y").passed
    assert max([(3.0, 100.0), (1.0, 0.0), (9.0, 10.0)], key=lambda each: severity(*each)) == (1.0, 0.0)


def test_an_operation_that_raises_is_wrong_and_the_others_are_still_run(monkeypatch):
    def broken(dtype):
        if dtype == "float32":
            raise RuntimeError("an illegal memory access\nwas encountered")
        return {}

    monkeypatch.setattr(
        devices, "cases", lambda: iter([devices.CheckCase("broken", broken, lambda dtype: {}), *list(cases())[:1]])
    )
    broken_row, other = compare("cpu")
    assert not broken_row.passed
    assert broken_row.worst == "RuntimeError: an illegal memory access, float32"
    assert other.passed
