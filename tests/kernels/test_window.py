"""Window: output sizes, paddings and refusals, by counting windows one after the other."""

import pickle
import re
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.core.window import Window
from tests.support import oracles
from tests.support.geometries import cases


@given(cases(ceil=True))
def test_output_size_is_the_number_of_windows(case):
    assert case.window.over(case.shape[2:]).output == case.output


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3), st.integers(1, 3), st.booleans())
def test_output_size_is_the_documented_formula_of_pytorch(size, kernel, stride, padding, dilation, up):
    """torch.nn.MaxPool2d: ⌊or⌈(L + 2p - d(k-1) - 1) / s⌉ + 1; in ceil mode no window starts in the right padding."""
    padding = min(padding, kernel // 2)  # PyTorch's own condition
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        return
    expected = (ceil if up else floor)(Fraction(room, stride)) + 1
    if up and (expected - 1) * stride >= size + padding:
        expected -= 1
    window = Window(kernel, stride, padding, dilation, "ceil" if up else "floor")
    assert window.over((size, size)).output == (expected, expected)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_same_gives_the_input_over_the_stride(height, width, kernel, stride, dilation):
    window = Window(kernel, stride, "same", dilation)
    assert window.over((height, width)).output == (ceil(height / stride), ceil(width / stride))
    expected = [oracles.same_pads(size, kernel, stride, dilation) for size in (height, width)]
    assert window.over((height, width)).pads == (*expected[0], *expected[1])


def test_same_puts_the_odd_row_and_column_last():
    assert Window((2, 4), 1, "same").over((5, 5)).pads == (0, 1, 1, 2)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (2, (2, 2, 2, 2)),
        ((1, 2), (1, 1, 2, 2)),
        ((0, 1, 2, 3), (0, 1, 2, 3)),
        ("valid", (0, 0, 0, 0)),
        ([1, 0], (1, 1, 0, 0)),
    ],
)
def test_padding_in_all_its_forms(padding, expected):
    window = Window(3, padding=padding)
    assert window.padding == expected
    assert window.over((7, 8)).pads == expected


@given(cases(ceil=True))
def test_covering_pads_reach_to_the_last_window(case):
    top, bottom, left, right = case.window.over(case.shape[2:]).covering_pads
    rows, columns = oracles.grid(case.geometry, case.shape[2:])
    extent_rows, extent_columns = case.window.extent
    assert (-top, -left) == (rows[0], columns[0])
    assert rows[-1] + extent_rows == case.shape[2] + bottom
    assert columns[-1] + extent_columns == case.shape[3] + right


@given(cases())
def test_extent_is_the_span_of_the_taps(case):
    geometry = oracles.Geometry(case.geometry.kernel, dilation=case.geometry.dilation)
    first = [(row, column) for oh, ow, _, _, row, column in oracles.pixels(geometry, (10, 10)) if oh == ow == 0]
    assert case.window.extent == (max(row for row, _ in first) + 1, max(column for _, column in first) + 1)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_overlaps_where_windows_share_a_pixel(fh, fw, sh, sw, dilation):
    window = Window((fh, fw), (sh, sw), dilation=dilation)
    holders = {}
    geometry = oracles.Geometry((fh, fw), (sh, sw), dilation=(dilation, dilation))
    for oh, ow, _, _, row, column in oracles.pixels(geometry, (20, 20)):
        holders.setdefault((row, column), set()).add((oh, ow))
    shared = any(len(windows) > 1 for windows in holders.values())
    if dilation == 1:
        assert window.overlaps == shared
    else:
        assert window.overlaps or not shared  # dilated windows may interleave and count as overlapping


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.integers(1, 3))
def test_transposed_size_is_the_smallest_image_of_that_output(output, kernel, stride, padding, dilation):
    window = Window(kernel, stride, padding, dilation)
    counts = [len(oracles.starts(size, kernel, stride, padding, padding, dilation)) for size in range(60)]
    if counts[0] < output:
        size = counts.index(output)
        assert window.transposed_size((output, output)) == (size, size)
    else:
        with pytest.raises(ValueError, match=f"leaves no image for an output of {output}x{output}"):
            window.transposed_size((output, output))


def test_transposed_size_takes_each_axis_for_itself():
    assert Window((3, 2), (2, 1), (1, 0, 0, 1), (1, 3)).transposed_size((4, 5)) == (8, 7)


def test_transposed_size_needs_numbers():
    with pytest.raises(ValueError, match="'same' does not fix"):
        Window(3, padding="same").transposed_size((4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0}, "kernel must be a whole number from 1 to .*, got 0"),
        ({"kernel": (3, -1)}, r"kernel\[1\] must be a whole number from 1 to .*, got -1"),
        ({"kernel": 2.5}, "kernel must be a whole number .*, got 2.5"),
        ({"kernel": (3, 3.0)}, r"kernel\[1\] must be a whole number .*, got 3.0"),
        ({"kernel": "3"}, "kernel must be a whole number .*, got '3'"),
        ({"kernel": (1, 2, 3)}, r"kernel .* pair .*\(1, 2, 3\)"),
        ({"kernel": 3, "stride": 0}, "stride must be a whole number from 1 .*, got 0"),
        ({"kernel": 3, "stride": (1, 2, 3)}, "stride .* pair"),
        ({"kernel": 3, "dilation": 0}, "dilation must be a whole number from 1 .*, got 0"),
        ({"kernel": 3, "dilation": None}, "dilation must be a whole number .*, got None"),
        ({"kernel": 3, "padding": -1}, "padding must be a whole number from 0 .*, got -1"),
        ({"kernel": 3, "padding": (1, 2, 3)}, r"padding .* four numbers.*\(1, 2, 3\)"),
        ({"kernel": 3, "padding": 0.5}, "padding must be a whole number .*, got 0.5"),
        ({"kernel": 3, "padding": "full"}, "'same', 'valid', got 'full'"),
        ({"kernel": 3, "rounding": "up"}, "'floor', 'ceil', got 'up'"),
    ],
)
def test_impossible_numbers_are_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Window(**arguments)


@pytest.mark.parametrize(
    ("window", "image", "message"),
    [
        (Window((5, 1)), (4, 9), "window of 5 does not fit the image's height: 4 + padding 0 + 0 = 4"),
        (
            Window((1, 3), padding=(0, 0, 0, 1)),
            (9, 1),
            "width: 1 + padding 0 + 1 = 2 (kernel 1x3, padding (0, 0, 0, 1), image 9x1)",
        ),
        (Window(3, dilation=4), (8, 20), "window of 9 does not fit the image's height: 8"),
        (Window(2, padding="same"), (0, 3), "height: 0"),
    ],
)
def test_a_window_that_does_not_fit_is_refused_with_its_numbers(window, image, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        window.over(image)


def test_a_kernel_larger_than_the_image_fits_with_padding():
    assert Window(4, padding=2).over((1, 2)).output == (2, 3)


def test_a_window_keeps_its_geometries_but_not_without_end():
    window = Window(3)
    assert window.over((5, 6)) is window.over([5, 6])
    for size in range(3, 3000):
        window.over((size, 3))
    assert len(window._geometries) <= 256
    assert pickle.loads(pickle.dumps(window)) == window


@given(cases(ceil=True))
def test_mirroring_twice_is_no_change(case):
    """The input gradient of the input gradient is the convolution itself, where windows reach every pixel."""
    geometry = case.window.over(case.shape[2:])
    if geometry.mirrored is not None:
        assert geometry.mirrored.output == geometry.image
        back = geometry.mirrored.mirrored
        assert back is None or (back.pads, back.output) == (geometry.covering_pads, geometry.output)


def test_numbers_of_numpy_are_numbers():
    assert Window(np.int64(3), (np.int32(1), np.uint8(2)), np.int8(1)) == Window((3, 3), (1, 2), (1, 1, 1, 1))


def test_equal_windows_are_one_key():
    assert len({Window(3), Window((3, 3), 1, 0), Window(3, padding="valid"), Window(2)}) == 2


def test_a_window_cannot_be_changed():
    with pytest.raises(AttributeError):
        Window(3).kernel = (2, 2)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window((3, 5)), "kernel 3x5"),
        (Window(3, 2, 1), "kernel 3x3, stride 2, padding 1"),
        (Window(3, (1, 2), "same", 2, "ceil"), "kernel 3x3, stride (1, 2), padding same, dilation 2, rounding ceil"),
        (Window(1, padding=(1, 0)), "kernel 1x1, padding (1, 1, 0, 0)"),
    ],
)
def test_text_shows_what_is_not_default(window, text):
    assert str(window) == text
