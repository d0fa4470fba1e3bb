"""Names that programs import from ``training.interop``."""

import pytest

from tests.support.fresh import fresh
from training import interop


def test_every_name_is_there_and_is_the_one_of_its_module():
    from training.interop.onnx_export import to_onnx

    for name in interop.__all__:
        assert callable(getattr(interop, name)), name
    assert interop.to_onnx is to_onnx
    assert set(interop.__all__) <= set(dir(interop))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'training\.interop' has no attribute 'from_tensorflow'"):
        _ = interop.from_tensorflow


def test_onnx_is_loaded_by_a_call():
    said = fresh(
        "import sys\nfrom training import interop\nprint('training.interop.onnx_export' in sys.modules)\n"
        "for name in interop.__all__:\n    getattr(interop, name)\nprint('onnx' in sys.modules)"
    )
    assert said.split() == ["False", "False"]
