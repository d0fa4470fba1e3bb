"""Draw random numbers with the same bits on NumPy and CuPy: dropout masks, initial weights and shuffles agree.

The state of a generator is three integers, so it fits in a checkpoint. The module's functions draw from the
``current`` generator: the given one inside ``using``, the thread's own in a thread that called ``seed``, and otherwise
the process's, which starts at seed 0: a program that never seeds is still reproducible. A ``training.Trainer`` has its
own generator, so that runs in several threads do not disturb each other.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy

from backend import checks, draws
from backend.active import xp
from backend.arrays import asarray
from backend.draws import Part
from backend.forking import held_while_forking
from backend.graph_numbers import refuse_capture
from backend.philox import words

Shape = int | tuple[int, ...]

_FORKED_BLOCKS = 1 << 40  # more than a run draws: dropout of a million numbers in each of four million steps

_LARGEST = (1 << 64) - 1  # seed, stream, position

_moving = held_while_forking(threading.Lock())
"""Held while a position advances, so that threads that share a generator never get the same numbers. All generators
share it, so that they can be copied."""


class Generator:
    """A stream of random numbers from Philox4x32-10.

    Args:
        seed: 0 ≤ seed < 2⁶⁴, the key.
        stream: 0 ≤ stream < 2⁶⁴; streams of one seed are independent of each other.

    Raises:
        TypeError: an argument is not a number (or, for a method, not a shape or a floating dtype).
        ValueError: a number is out of range, or a shape is too large for any machine. Nothing is drawn then.

    Examples:
        >>> from backend.random import Generator
        >>> generator = Generator(seed=7)
        >>> generator.permutation(5)
        array([4, 1, 0, 2, 3])
        >>> generator
        Generator(seed=7, stream=0, position=3)
    """

    def __init__(self, seed: int = 0, stream: int = 0) -> None:
        self.state = {"seed": seed, "stream": stream, "position": 0}
        self._part: Part | None = None
        self._whole_began = 0

    @contextmanager
    def drawing_part(self, first: int, rows: int, whole: int, again: bool) -> Iterator[None]:
        """Draw for a part of a batch what a draw for the whole batch would give its rows.

        A draw inside the ``with`` is of as many numbers for each row, row by row, and passes over the numbers of the
        other rows, too: after any part the generator is where the whole batch leaves it.

        Args:
            first, rows: the rows of the part.
            whole: the rows of the batch.
            again: another part of the batch was drawn for before this one: go back to where that began.
        """
        before, self._part = self._part, Part(first, rows, whole, int(again))
        try:
            yield
        finally:
            self._part = before

    @contextmanager
    def back_on_error(self) -> Iterator[None]:
        """Go back to the numbers before a ``with`` that an exception ends: what is tried again draws the same."""
        before = self.state
        try:
            yield
        except BaseException:
            self.state = before
            raise

    def take_part(self) -> Part | None:
        """Return the part that the next draw is for, to be given to ``reserve``; None for whole batches."""
        part = self._part
        if part is not None:
            self._part = part._replace(draw=2)
        return part

    def is_aligned(self, count: int) -> bool:
        """Return whether the next draw of ``count`` words begins with a block of four, as ``reserve`` needs it."""
        part = self._part
        return part is None or part.words(count)[1] % 4 == 0

    @property
    def state(self) -> dict[str, int]:
        """``seed``, ``stream`` and ``position`` (blocks of four words drawn so far); set it to go back."""
        return {"seed": self._seed, "stream": self._stream, "position": self._position}

    @state.setter
    def state(self, state: dict[str, int]) -> None:
        if not isinstance(state, dict) or state.keys() != {"seed", "stream", "position"}:
            raise checks.refusal(ValueError, "state", "a dictionary of 'seed', 'stream' and 'position'", state)
        self._seed, self._stream, self._position = (
            checks.whole(name, state[name], 0, _LARGEST) for name in ("seed", "stream", "position")
        )

    def fork(self) -> Generator:
        """Return a generator that continues this one's numbers; this one passes over the next 2⁴⁰ blocks of four words.

        Both then draw different numbers, as long as the new one draws fewer than that.
        """
        child = Generator(self._seed, self._stream)
        with _moving:
            child._position = self._position
            self._position = (self._position + _FORKED_BLOCKS) % (1 << 64)
        return child

    def bits(self, count: int) -> Any:
        """Return ``count`` random 32-bit words: uint32 (count,), on the active device."""
        return self._words(checks.whole("count", count, 0, checks.LARGEST_COUNT), xp)

    def uniform(self, shape: Shape = (), dtype: Any = "float32") -> Any:
        """Return numbers uniform in [0, 1), multiples of 2⁻¹¹, 2⁻²⁴ or 2⁻⁵³ (float16, 32, 64), on the active device."""
        shape, dtype = checks.array_shape("shape", shape), checks.floating_dtype("dtype", dtype)
        return draws.uniform(self.bits(math.prod(shape) * draws.words_of(dtype)), dtype).reshape(shape)

    def normal(self, shape: Shape = (), scale: float = 1.0, dtype: Any = "float32") -> Any:
        """Return normal numbers with mean 0 and standard deviation ``scale`` (Box and Muller, 1958), on the active
        device.

        They are computed on the host in float64 and rounded once, since logarithms of different libraries differ in the
        last bit: initial weights are the same everywhere.
        """
        shape, dtype = checks.array_shape("shape", shape), checks.floating_dtype("dtype", dtype)
        scale = checks.real("scale", scale, least=0, most=float(numpy.finfo(dtype).max) / 8)  # draws go up to 6.7
        count = math.prod(shape)
        values = draws.normal(self._words(count + count % 2, numpy))
        values *= scale
        return asarray(values[:count].reshape(shape).astype(dtype))

    def permutation(self, count: int) -> numpy.ndarray:
        """Return the numbers 0 … count - 1 in random order: int64 (count,), always on the host.

        It sorts 64-bit random keys; equal keys (probability 2⁻⁶⁴ for a pair) keep their order.
        """
        count = checks.whole("count", count, 0, checks.LARGEST_COUNT)
        keys = self._words(2 * count, numpy).view(numpy.uint64)
        return numpy.argsort(keys, kind="stable")

    def reserve(self, count: int, part: Part | None = None) -> tuple[int, int, int]:
        """Skip the blocks of the next ``count`` words, for a kernel that generates them itself.

        Args:
            part: what ``take_part`` returned; it is called if None is given.

        Returns:
            seed, stream, and the position of the first of the ⌈count / 4⌉ skipped blocks.

        Raises:
            ValueError: ``count`` is negative, or more than the stream has left, or the words of a part do not begin
                with a block (see ``is_aligned``); nothing is skipped.
        """
        count = checks.whole("count", count, 0, checks.LARGEST_COUNT)
        refuse_capture("random numbers")
        if part is None:
            if not self.is_aligned(count):
                raise ValueError(f"a part's words must begin with a block of four, got {count:,} words of {self._part}")
            part = self.take_part()
        return self._seed, self._stream, self._skip(count, part)[0]

    def _skip(self, count: int, part: Part | None) -> tuple[int, int]:
        """Move on by a draw of ``count`` words. Return its first block, and the place of its first word there."""
        whole, offset = (count, 0) if part is None else part.words(count)
        with _moving:
            first = self._whole_began if part is not None and part.draw == 1 else self._position
            after = first + -(-whole // 4)
            if after > _LARGEST + 1:
                raise ValueError(
                    f"count must be what the stream has left, 4 * {_LARGEST + 1 - first:,} words, got {count:,}"
                )
            if part is not None and part.draw == 0:
                self._whole_began = first
            self._position = after
        return first + offset // 4, offset % 4

    def _words(self, count: int, library: Any) -> Any:
        count = checks.whole("count", count, 0, checks.LARGEST_COUNT)
        refuse_capture("random numbers")
        before = self._position
        first, skipped = self._skip(count, self.take_part())
        after, key = self._position, (self._seed & 0xFFFFFFFF, self._seed >> 32)
        try:
            drawn = words(key, self._stream, first, -(-(skipped + count) // 4), library)
        except BaseException:  # such as no memory: the words were not drawn
            with _moving:
                if self._position == after:  # else another thread has drawn the next ones
                    self._position = before
            raise
        return drawn.reshape(-1)[skipped : skipped + count]

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, stream={self._stream}, position={self._position})"


default = Generator(0)
"""The generator of the process."""

_current: ContextVar[Generator | None] = ContextVar("current", default=None)


def current() -> Generator:
    """Return the generator that this thread's draws come from."""
    return _current.get() or default


@contextmanager
def using(generator: Generator) -> Iterator[Generator]:
    """Draw from ``generator`` inside a ``with``, in this thread only.

    Examples:
        >>> from backend import random
        >>> with random.using(random.Generator(7)):
        ...     random.permutation(5)
        array([4, 1, 0, 2, 3])
    """
    token = _current.set(generator)
    try:
        yield generator
    finally:
        _current.reset(token)


def seed(value: int) -> None:
    """Restart the current generator with the seed ``value``.

    A thread other than the main one gets its own generator, so that threads that seed draw the same numbers in any
    order of execution.

    Raises:
        ValueError: ``value`` is out of range, 0 to 2⁶⁴ - 1.

    Examples:
        >>> from backend import random
        >>> random.seed(1)
        >>> first = random.uniform(3)
        >>> random.seed(1)
        >>> bool((random.uniform(3) == first).all())
        True
    """
    value = checks.whole("value", value, 0, _LARGEST)
    if _current.get() is None and threading.current_thread() is not threading.main_thread():
        _current.set(Generator(value))
    else:
        current().state = {"seed": value, "stream": 0, "position": 0}


def bits(count: int) -> Any:
    """Call ``Generator.bits`` of the current generator."""
    return current().bits(count)


def uniform(shape: Shape = (), dtype: Any = "float32") -> Any:
    """Call ``Generator.uniform`` of the current generator."""
    return current().uniform(shape, dtype)


def normal(shape: Shape = (), scale: float = 1.0, dtype: Any = "float32") -> Any:
    """Call ``Generator.normal`` of the current generator."""
    return current().normal(shape, scale, dtype)


def permutation(count: int) -> numpy.ndarray:
    """Call ``Generator.permutation`` of the current generator."""
    return current().permutation(count)


def reserve(count: int) -> tuple[int, int, int]:
    """Call ``Generator.reserve`` of the current generator."""
    return current().reserve(count)
