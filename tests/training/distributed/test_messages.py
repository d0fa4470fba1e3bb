"""What a rank that differs from rank 0 is told of."""

import pytest

from training.distributed.alone import Alone
from training.distributed.together import RanksError, require_equal


class Two(Alone):
    """Two ranks, of which the other one gives what it was made with."""

    def __init__(self, other):
        super().__init__()
        self._other = other

    def gather(self, value, what=""):
        return [value, self._other]


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "expected {'b': 2}, got {'b': 3}"),
        ("x" * 500 + "1", "x" * 500 + "2", f"expected …{'x' * 100}1, got …{'x' * 100}2"),
        ("1" + "x" * 500, "2", f"expected 1{'x' * 299}…, got 2"),
    ],
)
def test_a_long_value_is_cut_around_the_difference(own, other, said):
    with pytest.raises(RanksError) as caught:
        require_equal(Two({"network": other}), {"network": own})
    assert str(caught.value) == f"rank 1 has another network than rank 0: {said}"
