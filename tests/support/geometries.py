"""Small windows and images of every kind for hypothesis, as a ``Window`` and as the oracles' numbers."""

from typing import Any, NamedTuple

from hypothesis import strategies as st

from kernels.core.window import Window
from tests.support import checks, oracles


class WindowCase(NamedTuple):
    """One geometry: a window over a batch of images, and the data to make the arrays of a test."""

    shape: tuple[int, int, int, int]
    arguments: dict[str, Any]
    pads: tuple[int, int, int, int]
    dtype: str
    layout: str
    seed: int

    @property
    def window(self) -> Window:
        return Window(**self.arguments)

    @property
    def geometry(self) -> oracles.Geometry:
        given = self.arguments
        pair = lambda value: value if isinstance(value, tuple) else (value, value)  # noqa: E731
        return oracles.Geometry(
            pair(given["kernel"]),
            pair(given["stride"]),
            self.pads,
            pair(given["dilation"]),
            given["rounding"] == "ceil",
        )

    @property
    def output(self) -> tuple[int, int]:
        rows, columns = oracles.grid(self.geometry, self.shape[2:])
        return len(rows), len(columns)


def named(shape, window, dtype="float32"):
    """Return the case of a window over images of a shape, contiguous."""
    pads = window.over(shape[2:]).pads
    arguments = {
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": pads,
        "dilation": window.dilation,
        "rounding": window.rounding,
    }
    return WindowCase(shape, arguments, pads, dtype, "contiguous", 0)


def _sizes(*numbers):
    one = st.sampled_from(numbers)
    return st.one_of(one, st.tuples(one, one))


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


NUMBERS = st.one_of(st.integers(0, 3), st.tuples(*[st.integers(0, 3)] * 2))
PADDINGS = st.one_of(NUMBERS, st.tuples(*[st.integers(0, 3)] * 4), st.sampled_from(["same", "valid"]))


@st.composite
def cases(
    draw,
    channels=None,
    ceil=False,
    dtypes=checks.DTYPES,
    layouts=checks.LAYOUTS,
    no_empty_window=False,
    dilations=(1, 1, 2, 3),
    paddings=PADDINGS,
):
    """Return geometries in which at least one window fits.

    Args:
        dilations: steps between taps.
        paddings: strategy for the padding.
        channels: strategy for C.
        ceil: include ``rounding="ceil"``.
        no_empty_window: only geometries in which each window holds at least one pixel, as pooling needs.

    """
    kernel, stride, dilation = draw(_sizes(1, 2, 3, 4)), draw(_sizes(1, 1, 2, 3, 4)), draw(_sizes(*dilations))
    padding = draw(paddings)
    rounding = draw(st.sampled_from(["floor", "ceil"])) if ceil else "floor"
    image, pads = [], []
    for axis in (0, 1):
        k, s, d = (_pair(value)[axis] for value in (kernel, stride, dilation))
        if padding == "same":
            size = draw(st.integers(1, 9))
            before, after = oracles.same_pads(size, k, s, d)
        else:
            before, after = _sides(padding, axis)
            least = max((k - 1) * d + 1 - before - after, 1)
            size = draw(st.integers(least, max(9, least)))
        image.append(size)
        pads += [before, after]
    case = WindowCase(
        (draw(st.sampled_from([0, 1, 2, 2, 3])), draw(st.integers(1, 5) if channels is None else channels), *image),
        {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "rounding": rounding},
        tuple(pads),
        draw(st.sampled_from(dtypes)),
        draw(st.sampled_from(layouts)),
        draw(st.integers(0, 1000)),
    )
    if no_empty_window and not _has_no_empty_window(case):
        # Without padding every window holds a pixel.
        arguments = {**case.arguments, "padding": "valid", "rounding": "floor"}
        fits = tuple(max(a, b) for a, b in zip(image, case.window.extent, strict=True))
        case = case._replace(arguments=arguments, pads=(0, 0, 0, 0), shape=(*case.shape[:2], *fits))
    return case


def _sides(padding, axis):
    if padding == "valid":
        return 0, 0
    if isinstance(padding, int):
        return padding, padding
    return (padding[axis], padding[axis]) if len(padding) == 2 else padding[2 * axis : 2 * axis + 2]


def _has_no_empty_window(case):
    met = {(oh, ow) for oh, ow, *_ in oracles.pixels(case.geometry, case.shape[2:])}
    return len(met) == case.output[0] * case.output[1]
