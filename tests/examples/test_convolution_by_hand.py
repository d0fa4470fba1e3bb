"""A convolution by hand, in all its numbers and in all its shapes."""

import numpy as np
from checks import assert_same
from click.testing import CliRunner

import backend
from backend import xp
from examples.convolution_by_hand import TEXT_LARGE, by_layer, large, main, walk_through
from layers import Convolution

WALK_THROUGH = """\
input x, 3x3:
    1   2   3
    4   5   6
    7   8   9
filter w, 2x2:
    1   2
    3   4
output: (3 - 2) / 1 + 1 = 2 rows and columns, of one window each:
  window (0, 0): 1*1 + 2*2 + 4*3 + 5*4 = 37
  window (0, 1): 2*1 + 3*2 + 5*3 + 6*4 = 47
  window (1, 0): 4*1 + 5*2 + 7*3 + 8*4 = 67
  window (1, 1): 5*1 + 6*2 + 8*3 + 9*4 = 77
the windows as columns (im2col), 4x4:
    1   2   4   5
    2   3   5   6
    4   5   7   8
    5   6   8   9
the filter as a row, times the columns:
   37  47  67  77
the output, 2x2:
   37  47
   67  77
backward, from a gradient of ones; dw is its row times the turned columns, 2x2:
   12  16
   24  28
the gradient of the columns is the filter as a column times that row, 4x4:
    1   1   1   1
    2   2   2   2
    3   3   3   3
    4   4   4   4
added up where windows overlap (col2im) it is dx, 3x3:
    1   3   2
    4  10   6
    3   7   4"""


def test_the_walk_through(device):
    assert walk_through() == WALK_THROUGH


def test_the_layer_makes_the_same_numbers(device):
    y, dw, dx = by_layer()
    assert y.tolist() == [[37, 47], [67, 77]]
    assert dw.tolist() == [[12, 16], [24, 28]]
    assert dx.tolist() == [[1, 3, 2], [4, 10, 6], [3, 7, 4]]


def test_another_printed_example(device):
    """Zhang, Lipton, Li and Smola, "Dive into Deep Learning", section 7.2, figure 7.2.1."""
    x, w = (backend.asarray(np.arange(n * n, dtype="float32").reshape(1, 1, n, n)) for n in (3, 2))
    assert_same(Convolution(w, xp.zeros(1, "float32")).forward(x), np.float32([[[[19, 25], [37, 43]]]]))


def test_the_large_one_has_the_texts_shapes(device):
    """Sums of 363 products in another order differ by 363·eps·Σ|x·w| at most, about 1e-4 of the largest output."""
    shapes, error = large()
    assert shapes == TEXT_LARGE
    assert error < 1e-4


def test_prints_both(device):
    output = CliRunner().invoke(main, ["--device", device.kind], catch_exceptions=False).output
    assert output.startswith(WALK_THROUGH)
    rows = [line.split()[-2:] for line in output.splitlines() if "x" in line and line.startswith("  ")]
    assert [row for row in rows if row[0] == row[1]] == [
        [size, size] for size in ("363x3025", "96x363", "96x3025", "55x55x96")
    ]
