"""The shopping bills of the book's computational graphs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.graph_by_hand import TEXT_APPLES, TEXT_FRUIT, apples, apples_and_oranges, main
from tests.support.example_checks import error_of, output_of


@pytest.mark.parametrize(("graph", "text"), [(apples, TEXT_APPLES), (apples_and_oranges, TEXT_FRUIT)])
def test_price_and_gradients_are_the_texts(device, graph, text):
    """Up to rounding: of the decimal 1.1, and of at most three products and a sum."""
    found = graph()
    assert list(found) == list(text)
    for name, value in found.items():
        assert abs(value - text[name]) <= 5 * np.finfo("float64").eps * text[name], name


def test_prints_ours_beside_the_texts(device):
    rows = [line.split() for line in output_of(main, "--device", device.kind).splitlines() if line.startswith("  ")]
    values = [row for row in rows if "ours" not in row]
    assert len(values) == len(TEXT_APPLES) + len(TEXT_FRUIT)
    assert all(row[-2] == row[-1] for row in values)


def test_runs_from_the_checkout():
    command = [sys.executable, "-m", "examples.graph_by_hand", "--device", "cpu"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "715     715" in done.stdout


def test_an_unknown_device_is_an_error_in_words():
    assert "abacus" in error_of(main, "--device", "abacus")
