"""Right devices, which ``xpnet check`` must not call wrong; ``python -m bench faults right_devices`` tries many."""

import pytest

from bench.faults import right_devices

KERNELS = right_devices.runnable()


def test_kernels_differ():
    assert set(KERNELS) <= set(right_devices.CORES)
    assert len(KERNELS) > 1 or "Prescott" in KERNELS


@pytest.mark.parametrize("core", [KERNELS[0], KERNELS[-1]])
def test_blas_of_every_kind_is_right(core):
    results = right_devices.train(core, seed=1, steps=2)
    assert [result["divergence"] for result in results] == [None, None]
    assert all(0 < result["share"] < 0.5 for result in results)


def test_what_is_called_wrong_is_a_line(monkeypatch):
    monkeypatch.setattr(right_devices, "runnable", lambda: ["Haswell", "SkylakeX"])
    monkeypatch.setattr(
        right_devices, "train", lambda core, seed, steps: [{"divergence": (core, seed) == ("SkylakeX", 4) or None}]
    )
    assert list(right_devices.run(5, 3)) == [None, None, None, "SkylakeX, seed 4: [{'divergence': True}]", None]
