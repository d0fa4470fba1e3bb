"""A convolution by hand, in all its numbers and in all its shapes."""

from examples.convolution_by_hand import TEXT_LARGE, TEXT_OUTPUT, by_layer, large, main, walk_through
from tests.support.example_checks import output_of

WALK_THROUGH = """\
input x, 3x3:
    0   1   2
    3   4   5
    6   7   8
filter w, 2x2:
    0   1
    2   3
output: (3 - 2) / 1 + 1 = 2 rows and columns, of one window each:
  window (0, 0): 0*0 + 1*1 + 3*2 + 4*3 = 19   text 19
  window (0, 1): 1*0 + 2*1 + 4*2 + 5*3 = 25   text 25
  window (1, 0): 3*0 + 4*1 + 6*2 + 7*3 = 37   text 37
  window (1, 1): 4*0 + 5*1 + 7*2 + 8*3 = 43   text 43
the windows as columns (im2col), 4x4:
    0   1   3   4
    1   2   4   5
    3   4   6   7
    4   5   7   8
the filter as a row, times the columns:
   19  25  37  43
the output, 2x2:
   19  25
   37  43
backward, from a gradient of ones; dw is its row times the turned columns, 2x2:
    8  12
   20  24
the gradient of the columns is the filter as a column times that row, 4x4:
    0   0   0   0
    1   1   1   1
    2   2   2   2
    3   3   3   3
added up where windows overlap (col2im) it is dx, 3x3:
    0   1   1
    2   6   4
    2   5   3"""


def test_the_walk_through(device):
    assert walk_through() == WALK_THROUGH


def test_the_layer_makes_the_same_numbers(device):
    y, dw, dx = by_layer()
    assert y.tolist() == [list(row) for row in TEXT_OUTPUT] == [[19, 25], [37, 43]]
    assert dw.tolist() == [[8, 12], [20, 24]]
    assert dx.tolist() == [[0, 1, 1], [2, 6, 4], [2, 5, 3]]


def test_the_large_one_has_the_texts_shapes(device):
    """Sums of 363 products in another order differ by 363·eps·Σ|x·w| at most, about 1e-4 of the largest output."""
    shapes, error = large()
    assert shapes == TEXT_LARGE
    assert error < 1e-4


def test_prints_both(device):
    output = output_of(main, "--device", device.kind)
    assert output.startswith(WALK_THROUGH)
    rows = [line.split()[-2:] for line in output.splitlines() if "x" in line and line.startswith("  ")]
    assert [row for row in rows if row[0] == row[1]] == [
        [size, size] for size in ("363x3025", "96x363", "96x3025", "55x55x96")
    ]
