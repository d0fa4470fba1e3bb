"""Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
easy as 1, 2, 3" (SC 2011), written over whole arrays of counters.

A block of four 32-bit words depends only on a 128-bit counter and a 64-bit key: any thread on any device can compute
any element, in any order, with the same result.
"""

from typing import Any

from backend.active import xp

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers, section 3.3 and Random123's philox.h
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # Weyl increments of the key: golden ratio and sqrt(3) - 1
_ROUNDS = 10
_MASK = 0xFFFFFFFF

Words = tuple[Any, Any, Any, Any]


def philox4x32_10(counter: Words, key: tuple[int, int], library: Any = xp) -> Words:
    """Apply the ten rounds to arrays of counters.

    Args:
        counter: four uint64 arrays of one shape, each value below 2³², least significant word first. They
            are overwritten.
        key: two words below 2³².
        library: the array library of the counters.

    Returns:
        Four uint64 arrays with values below 2³²: the output words in order.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    product0, product1 = library.empty_like(c0), library.empty_like(c0)
    for _ in range(_ROUNDS):
        library.multiply(c0, _M0, out=product0)
        library.multiply(c2, _M1, out=product1)
        # (c0, c1, c2, c3) ← (high(c2·M1) ^ c1 ^ k0, low(c2·M1), high(c0·M0) ^ c3 ^ k1, low(c0·M0))
        library.right_shift(product1, 32, out=c0)
        library.bitwise_xor(c0, c1, out=c0)
        library.bitwise_xor(c0, k0, out=c0)
        library.right_shift(product0, 32, out=c2)
        library.bitwise_xor(c2, c3, out=c2)
        library.bitwise_xor(c2, k1, out=c2)
        library.bitwise_and(product1, _MASK, out=c1)
        library.bitwise_and(product0, _MASK, out=c3)
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def words(key: tuple[int, int], stream: int, first: int, count: int, library: Any = xp) -> Any:
    """Return ``count`` blocks of output words, uint32 (count, 4).

    Block i belongs to the counter whose low 64 bits are ``first + i`` and whose high 64 bits are ``stream``.
    """
    out = library.empty((count, 4), library.uint32)
    for begin in range(0, count, _CHUNK):
        size = min(_CHUNK, count - begin)
        low = library.arange(first + begin, first + begin + size, dtype=library.uint64)
        counter = (
            low & _MASK,
            low >> 32,
            library.full(size, stream & _MASK, library.uint64),
            library.full(size, stream >> 32, library.uint64),
        )
        for column, word in enumerate(philox4x32_10(counter, key, library)):
            out[begin : begin + size, column] = word
    return out


_CHUNK = 1 << 20
"""Counters to process at a time, which limits scratch memory to 48 MiB."""
