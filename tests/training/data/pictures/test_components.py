"""Connected components, sliding windows and runs, against plain loops."""

import numpy as np
import pytest

from training.data.pictures.components import find_components
from training.data.pictures.morphology import blur, closing, disk_dilation, largest, run_lengths, smallest

MASKS = [(shape, share) for shape in [(1, 1), (1, 9), (9, 1), (7, 5), (12, 13)] for share in (0.0, 0.2, 0.5, 0.8, 1.0)]


def flooded(mask):
    """Labels by flood fill."""
    labels, count = np.zeros(mask.shape, int), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        count += 1
        labels[start], stack = count, [start]
        while stack:
            row, column = stack.pop()
            for place in [(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)]:
                inside = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                if inside and mask[place] and not labels[place]:
                    labels[place] = count
                    stack.append(place)
    return labels, count


@pytest.mark.parametrize(("shape", "share"), MASKS)
def test_components_are_those_of_a_flood_fill(shape, share):
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask, image = rng.random(shape) < share, rng.random(shape)
        labels, components = find_components(mask, image)
        expected, count = flooded(mask)
        assert len(components) == count
        assert np.array_equal(labels > 0, mask)
        assert len(set(zip(labels[mask].tolist(), expected[mask].tolist(), strict=True))) == count
        for each in components:
            rows, columns = np.nonzero(labels == each.label)
            assert (each.top, each.left) == (rows.min(), columns.min())
            assert (each.bottom, each.right) == (rows.max() + 1, columns.max() + 1)
            assert each.area == len(rows)
            assert each.mass == pytest.approx(image[labels == each.label].sum())


def test_gaps_between_boxes():
    mask = np.zeros((20, 20), bool)
    mask[2:5, 3:6] = mask[2:5, 10:12] = mask[15, 4] = True
    _, (one, beside, below) = find_components(mask, mask.astype(float))
    assert one.gap(beside) == beside.gap(one) == 4
    assert one.gap(below) == 10
    assert one.gap(one) == 0


@pytest.mark.parametrize("size", [1, 3, 5, 9, 31])
def test_windows_are_those_of_a_loop(size):
    image = np.random.default_rng(1).random((12, 17))
    padded = np.pad(image, size // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    assert np.array_equal(largest(image, size), windows.max(axis=(2, 3)))
    assert np.array_equal(smallest(image, size), windows.min(axis=(2, 3)))


def test_closing_fills_what_is_narrow_and_keeps_edges():
    page = np.ones((60, 60))
    page[:, 30:] = 0.4  # a shadow
    lit = page.copy()
    page[10:50, 20:24] = 0.1
    page[10:50, 40:44] = 0.05
    assert np.array_equal(closing(page, 11), lit)


def test_a_disk_reaches_as_far_as_its_radius():
    image = np.zeros((21, 21))
    image[10, 10] = 1
    y, x = np.mgrid[-10:11, -10:11]
    for radius in (0.5, 1, 2.4, 4):
        assert np.array_equal(disk_dilation(image, radius) > 0, y**2 + x**2 <= radius**2)


def test_a_blur_keeps_the_sum_and_has_its_spread():
    image = np.zeros((41, 41), np.float32)
    image[20, 20] = 1
    blurred = blur(image, 2.0)
    y = np.arange(41) - 20
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert (blurred.sum(axis=1) @ y**2) == pytest.approx(4, rel=0.03)
    assert blur(image, 0) is image


def test_runs_are_counted_along_either_axis():
    mask = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [1, 1, 1, 1]], bool)
    assert run_lengths(mask, 1).tolist() == [[2, 2, 0, 1], [0, 1, 0, 1], [4, 4, 4, 4]]
    assert run_lengths(mask, 0).tolist() == [[1, 3, 0, 3], [0, 3, 0, 3], [1, 3, 1, 3]]
