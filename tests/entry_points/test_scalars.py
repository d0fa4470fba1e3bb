"""A number is taken alike in whatever form it is given: at every public constructor, function and method."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from tests.support.checks import for_all
from tests.support.entry_points import entry_points
from tests.support.outcomes import outcome

REALS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 2.0, -0.5, -1.0, float("nan"), float("inf"))  # exact in float16
WHOLES = (0, 1, 2, 3, 4, 6, -1, 64)

FORMS = {  # of a number, by its kind: other ways to write the same
    "number real": {
        "numpy.float64": np.float64,
        "numpy.float32": np.float32,
        "numpy.float16": np.float16,
        "host array": np.array,
        "float32 host array": lambda value: np.array(value, "float32"),
        "device array": lambda value: backend.xp.asarray(value, "float32"),
        "int": lambda value: int(value) if np.isfinite(value) and value == int(value) else value,
        "numpy.int64": lambda value: np.int64(value) if np.isfinite(value) and value == int(value) else value,
    },
    "number whole": {
        "numpy.int64": np.int64,
        "numpy.int8": np.int8,
        "numpy.uint16": lambda value: np.uint16(value) if value >= 0 else np.int16(value),
        "host array": np.array,
        "int8 host array": lambda value: np.array(value, "int8"),
        "device array": lambda value: backend.xp.asarray(value),
    },
    "flag": {
        "numpy.bool": np.bool_,
        "host array": np.array,
        "device array": lambda value: backend.xp.asarray(value),
        "int": int,
    },
}
VALUES = {"number real": REALS, "number whole": WHOLES, "flag": (False, True)}

ENTRY_POINTS = [entry for entry in entry_points() if any(entry.kind(name) in FORMS for name in entry.parameters)]
SLOW = ("load", "load_mnist")  # half a second each


def test_the_doors_are_found():
    """Of each package some that must be among them; and what is excluded exists."""
    names = {entry.name for entry in entry_points()}
    assert {
        "backend.random.Generator.normal",
        "kernels.batch_norm.normalize",
        "layers.activations.LeakyRelu",
        "layers.affine.Affine.of",
        "layers.compat.nhwc.Conv2D",
        "training.optim.optimizers.AdamW",
        "training.optim.schedules.Warmup",
        "training.loop.trainer.Trainer",
        "training.data.loader.Loader",
    } <= names
    assert len(names) > 80


@pytest.mark.parametrize("entry", [d for d in ENTRY_POINTS if d.function.__name__ not in SLOW], ids=str)
def test_every_form_of_a_number_gives_the_same(device, entry):
    """The same result to the last bit as the plain number, or the same error."""
    names = [name for name in entry.parameters if entry.kind(name) in FORMS]
    kinds = {name: entry.kind(name) for name in names}

    @for_all(
        device,
        st.sampled_from(names).flatmap(
            lambda name: st.tuples(
                st.just(name), st.sampled_from(VALUES[kinds[name]]), st.sampled_from(sorted(FORMS[kinds[name]]))
            )
        ),
        cpu=10,
        cuda=3,
    )
    def check(drawn):
        name, value, form = drawn
        given = FORMS[kinds[name]][form](value)
        assert outcome(lambda: entry.call(**{name: given})) == outcome(lambda: entry.call(**{name: value}))
