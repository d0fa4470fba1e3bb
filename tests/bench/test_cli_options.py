"""Numbers that the options of `python -m bench` take."""

import click
import pytest

from bench.cli import main
from tests.support.command_line import OUT_OF_ALL_BOUNDS, number_options


@pytest.mark.parametrize("option", number_options(main))
@pytest.mark.parametrize("value", OUT_OF_ALL_BOUNDS)
def test_refuses_a_number_out_of_all_bounds(option, value):
    with pytest.raises(click.BadParameter):
        option.type.convert(value, option, None)
