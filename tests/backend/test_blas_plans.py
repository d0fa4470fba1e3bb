"""The arguments for cuBLAS address a matrix's elements; checked in NumPy's memory instead of a GPU's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.blas_plans import Plan, plan_product


def form(array):
    return array.shape, array.strides, array.dtype.char


def as_cublas_reads(array, transposed, leading, step, count, rows, columns):
    """The stack of matrices at the array's address by flag, leading dimension and step."""
    unit = array.itemsize
    down, along = (1, leading) if transposed else (leading, 1)
    return np.lib.stride_tricks.as_strided(array, (count, rows, columns), (step * unit, down * unit, along * unit))


@st.composite
def views(draw, shape):
    """A view of that shape of a larger array: axes in any order, with gaps, reversed or broadcast."""
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1])) for _ in shape]
    margins = [draw(st.integers(0, 2)) for _ in shape]
    order = draw(st.permutations(range(len(shape))))
    broadcast = draw(st.sampled_from([None, None, None, *range(len(shape))]))
    lengths = [n * abs(step) + margin for n, step, margin in zip(shape, steps, margins, strict=True)]
    base = np.arange(np.prod(lengths), dtype="f4").reshape([lengths[axis] for axis in order])
    base = base.transpose(np.argsort(order))
    view = base[tuple(slice(None, None, step) for step in steps)]
    view = view[tuple(slice(0, 1 if axis == broadcast else n) for axis, n in enumerate(shape))]
    return np.broadcast_to(view, shape)


@st.composite
def products(draw):
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    stack = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    return draw(views((*stack, m, k))), draw(views((*stack, k, n))), draw(views((*stack, m, n)))


def is_readable(array):
    """Return whether cuBLAS can read a matrix: unit stride along rows or columns, and the next line after it."""
    rows, columns = array.shape[-2:]
    down, along = (stride // array.itemsize for stride in array.strides[-2:])
    by_rows = (columns == 1 or along == 1) and (rows == 1 or down >= columns)
    by_columns = (rows == 1 or down == 1) and (columns == 1 or along >= rows)
    return by_rows or by_columns


@given(products())
def test_operands_are_found_where_they_lie(product):
    a, b, out = product
    plan = plan_product(form(a), form(b), form(out), None)
    stack = out.shape[:-2]
    if any(plan.copied):
        if not stack:
            assert plan.copied == tuple(not is_readable(x) or min(x.strides) < 0 for x in product)
        return
    left, right = (b.swapaxes(-1, -2), a.swapaxes(-1, -2)) if plan.swapped else (a, b)
    target = out.swapaxes(-1, -2) if plan.swapped else out
    n, m, k = plan.sizes
    assert plan.matrices == np.prod(stack, dtype=int)
    arrays, shapes = (right, left, target), ((k, n), (m, k), (m, n))
    flags, extents = (*plan.flags, 0), (plan.extents[1], plan.extents[0], plan.extents[2])
    for array, shape, flag, leading, step, extent in zip(
        arrays, shapes, flags, plan.leading, plan.steps, extents, strict=True
    ):
        read = as_cublas_reads(array, flag, leading, step, plan.matrices, *shape)
        np.testing.assert_array_equal(read, array.reshape(plan.matrices, *shape))
        low, high = np.lib.array_utils.byte_bounds(array)
        assert extent == high - low
        assert leading >= shape[0 if flag else 1]


@pytest.mark.parametrize("stack", [(), (3,), (2, 3)])
def test_contiguous_operands_are_never_copied(stack):
    a, b, out = np.ones((*stack, 4, 5), "f4"), np.ones((5, 6), "f4"), np.ones((*stack, 4, 6), "f4")
    for x in (a, a.swapaxes(-1, -2).copy().swapaxes(-1, -2)):
        for y in (b, b.T.copy().T):
            for z in (None, form(out)):
                assert not any(plan_product(form(x), form(y), z, None).copied)


def test_a_stack_of_results_that_lie_on_each_other_is_copied():
    a, b = np.ones((3, 4, 5), "f4"), np.ones((5, 6), "f4")
    out = np.lib.stride_tricks.as_strided(np.ones((4, 6), "f4"), (3, 4, 6), (0, 24, 4))
    assert plan_product(form(a), form(b), form(out), None).copied == (False, False, True)


def test_sizes_beyond_cublas():
    many = 2**31
    thin = ((many, 1), (4, 4), "f")
    with pytest.raises(ValueError, match=r"cuBLAS takes at most 2,147,483,647 rows.*\(2147483648, 1\) float32"):
        plan_product(thin, ((1, 1), (4, 4), "f"), None, None)
    far = ((2, 2), (4 * many, 4), "f")
    assert isinstance(plan_product(far, ((2, 2), (8, 4), "f"), None, None), Plan)
    assert plan_product(far, ((2, 2), (8, 4), "f"), None, None).copied == (True, False, False)
