"""Names that programs import from ``training`` itself."""

import pytest

import training
from tests.support.fresh import fresh


def test_every_name_is_there_and_is_the_one_of_its_module():
    from training.loop.trainer import Trainer
    from training.models import SimpleConvNet

    for name in training.__all__:
        assert callable(getattr(training, name)), name
    assert training.Trainer is Trainer
    assert training.SimpleConvNet is SimpleConvNet
    assert set(training.__all__) <= set(dir(training))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'training' has no attribute 'Adan'"):
        _ = training.Adan


def test_importing_it_loads_nothing_until_a_name_is_used():
    said = fresh("import sys, training; print('numpy' in sys.modules); training.Adam(); print('numpy' in sys.modules)")
    assert said.split() == ["False", "True"]


def test_the_names_that_people_have_typed_keep_working():
    from training.models import SimpleConvNet
    from training.optimizers import Adam

    assert Adam is training.Adam
    assert SimpleConvNet is training.SimpleConvNet
