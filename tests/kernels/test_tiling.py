"""Cutting of a batch: every output row is in exactly one part, columns stay within their limit, and threads have no
effect."""

import itertools
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.core import tiling
from kernels.core.tiling import Part
from tests.support.checks import column_bytes, thread_limit, whole

CUPY = SimpleNamespace(__name__="cupy")  # cutting needs the library's name alone
LIBRARIES = st.sampled_from([np, CUPY])
SIZES = (st.integers(0, 70), st.integers(1, 40), st.integers(0, 3000))


def _length(where):
    return where.stop - where.start


def covered(pieces):
    return [
        (image, row)
        for part in pieces
        for image in range(part.images.start, part.images.stop)
        for row in range(part.rows.start, part.rows.stop)
    ]


@given(*SIZES, LIBRARIES, st.integers(1, 1 << 16))
def test_parts_cover_every_row_once_and_in_order(images, rows, row_bytes, library, cap):
    with column_bytes(cap):
        pieces = tiling.cut(images, rows, row_bytes, library)
    assert covered(pieces) == list(itertools.product(range(images), range(rows)))
    assert all(part.images.start < part.images.stop and part.rows.start < part.rows.stop for part in pieces)


@given(*SIZES, LIBRARIES, st.integers(1, 1 << 16))
def test_columns_stay_under_the_cap(images, rows, row_bytes, library, cap):
    with column_bytes(cap):
        pieces = tiling.cut(images, rows, row_bytes, library)
    for part in pieces:
        size = _length(part.images) * _length(part.rows) * row_bytes
        alone = _length(part.images) == 1 == _length(part.rows)
        assert size <= cap or alone  # one row of one image is the least there is


def test_an_image_too_large_is_cut_into_bands_of_near_equal_height():
    with column_bytes(1000):
        pieces = tiling.cut(2, 10, 300, np)
    assert [_length(part.rows) for part in pieces] == [2, 3, 2, 3] * 2
    assert {(part.images.start, part.images.stop) for part in pieces} == {(0, 1), (1, 2)}


def test_a_small_batch_stays_whole_and_a_large_one_serves_many_cores():
    assert tiling.cut(100, 4, 16, np) == [Part(slice(0, 100), slice(0, 4))]
    assert len(tiling.cut(20, 28, 28 * 25 * 4, np)) == 2
    assert len(tiling.cut(2560, 28, 28 * 25 * 4, np)) >= 32


def test_a_gpu_gets_few_large_parts():
    assert tiling.cut(256, 28, 28 * 25 * 4, CUPY) == [Part(slice(0, 256), slice(0, 28))]


def test_the_cut_does_not_depend_on_the_threads():
    for images in (37, 64, 600):
        cuts = []
        for count in (1, 2, 5):
            with thread_limit(count):
                cuts.append(tiling.cut(images, 28, 28 * 25 * 4, np))
        assert len(cuts[0]) > 1
        assert cuts[0] == cuts[1] == cuts[2]


@given(st.integers(0, 60), st.integers(0, 1 << 26))
def test_partial_sums_keep_order_and_bound_their_results(count, result_bytes):
    pieces = [Part(slice(i, i + 1), slice(0, 1)) for i in range(count)]
    groups = tiling.partial_sums(pieces, result_bytes)
    assert [part for group in groups for part in group] == pieces
    assert all(groups)
    assert len(groups) <= 16
    assert len(groups) * result_bytes <= max(16 << 20, 2 * result_bytes)


def test_run_calls_every_item_once(device):
    lock, seen = threading.Lock(), []

    def note(item):
        with lock:
            seen.append(item)

    with thread_limit(3):
        tiling.parallel_for(note, list("abcdefg"), whole((2,)))
    assert sorted(seen) == list("abcdefg")


@pytest.mark.gpu
def test_run_on_a_gpu_goes_in_turn_on_one_thread():
    import backend

    with backend.use("cuda"):
        seen = []
        tiling.parallel_for(lambda item: seen.append((item, threading.get_ident())), [3, 1, 2], whole((2,)))
    assert seen == [(item, threading.get_ident()) for item in (3, 1, 2)]


def test_run_passes_the_exception_on(device):
    def fail(item):
        raise ArithmeticError(f"item {item}")

    with pytest.raises(ArithmeticError, match="item"):
        tiling.parallel_for(fail, [1, 2, 3], whole((2,)))
