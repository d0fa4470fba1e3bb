"""Numbers that the options of `xpnet` take: within bounds, so that none keeps a machine busy for ever."""

import click
import pytest

from tests.support.command_line import OUT_OF_ALL_BOUNDS, number_options
from training.cli import group


@pytest.mark.parametrize("option", number_options(group))
@pytest.mark.parametrize("value", OUT_OF_ALL_BOUNDS)
def test_refuses_a_number_out_of_all_bounds(option, value):
    with pytest.raises(click.BadParameter):
        option.type.convert(value, option, None)
