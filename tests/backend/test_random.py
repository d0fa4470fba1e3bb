"""Random numbers: Philox's published words, what is made of them, and that order and chunks do not matter."""

import math
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asnumpy, philox, random, xp
from backend.random import Generator
from tests.support.checks import assert_same, for_all

DTYPES = ["float16", "float32", "float64"]
WORDS = st.integers(0, 2**32 - 1)
LONG = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]))


def reference(counter, key):
    """Philox4x32-10 in whole numbers of Python, from section 3.3 of Salmon et al. (2011)."""
    r0, l0, r1, l1 = counter[0], counter[1], counter[2], counter[3]
    k0, k1 = key
    for _ in range(10):
        left, right = divmod(0xD2511F53 * r0, 2**32), divmod(0xCD9E8D57 * r1, 2**32)
        r0, l0, r1, l1 = right[0] ^ l0 ^ k0, right[1], left[0] ^ l1 ^ k1, left[1]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [r0, l0, r1, l1]


def block(seed, stream, position):
    """The four words that a generator draws at a position."""
    return reference([*divmod(position, 2**32)[::-1], *divmod(stream, 2**32)[::-1]], divmod(seed, 2**32)[::-1])


KNOWN = [  # Random123 1.14, kat_vectors: counter, key, words
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(device, counter, key, words):
    given = tuple(xp.full((2, 3), word, xp.uint64) for word in counter)
    for out, word in zip(philox.philox4x32_10(given, (key[0], key[1])), words, strict=True):
        assert_same(out, np.full((2, 3), word, np.uint64))
    assert reference(counter, key) == words


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers_of_the_generator(device, counter, key, words):
    generator = Generator(seed=key[0] + (key[1] << 32), stream=counter[2] + (counter[3] << 32))
    generator.state = {**generator.state, "position": counter[0] + (counter[1] << 32)}
    assert asnumpy(generator.bits(4)).tolist() == words


def test_any_key_and_counter(device):
    @for_all(device, LONG, LONG, LONG)
    def check(seed, stream, position):
        generator = Generator(seed, stream)
        generator.state = {"seed": seed, "stream": stream, "position": position}
        count = min(2, 2**64 - position)
        words = generator.bits(4 * count)
        assert words.dtype == "uint32"
        expected = [word for ahead in range(count) for word in block(seed, stream, position + ahead)]
        assert asnumpy(words).tolist() == expected


def test_numbers_do_not_depend_on_how_they_are_drawn(device):
    whole = asnumpy(Generator(7).bits(4 * 40))

    @for_all(device, st.lists(st.integers(0, 5), max_size=8))
    def check(blocks):
        generator = Generator(7)
        drawn = [asnumpy(generator.bits(4 * count)) for count in blocks]
        assert np.concatenate([*drawn, whole[:0]]).tolist() == whole[: 4 * sum(blocks)].tolist()
        assert generator.state["position"] == sum(blocks)


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_numbers_do_not_depend_on_the_size_of_scratch(device, monkeypatch, chunk):
    expected = asnumpy(Generator(3).bits(61))
    monkeypatch.setattr(philox, "_CHUNK", chunk)
    assert_same(asnumpy(Generator(3).bits(61)), expected)


def test_a_draw_takes_whole_blocks(device):
    generator = Generator()
    for count, position in ((0, 0), (1, 1), (4, 2), (5, 4), (8, 6)):
        assert generator.bits(count).shape == (count,)
        assert generator.state["position"] == position


def test_reserved_words_are_passed_over(device):
    generator, other = Generator(5, stream=6), Generator(5, stream=6)
    for count, position in ((1, 0), (0, 1), (8, 1), (5, 3)):
        assert generator.reserve(count) == (5, 6, position)
        other.bits(count)
        assert generator.state == other.state
    assert_same(generator.bits(3), other.bits(3))
    with pytest.raises(ValueError, match="count must be a whole number from 0 to 17592186044416, got -1"):
        generator.reserve(-1)
    assert generator.state == other.state


def test_seeds_and_streams_differ(device):
    drawn = {tuple(asnumpy(Generator(seed, stream).bits(8)).tolist()) for seed in range(8) for stream in range(8)}
    assert len(drawn) == 64


def test_state_brings_the_numbers_back(device):
    generator = Generator(5, stream=6)
    generator.uniform((3, 4))
    state = generator.state
    assert state == {"seed": 5, "stream": 6, "position": 3}
    first = [asnumpy(generator.normal((5,))), generator.permutation(9), asnumpy(generator.uniform((2,), "float64"))]
    other = Generator()
    other.state = state
    again = [asnumpy(other.normal((5,))), other.permutation(9), asnumpy(other.uniform((2,), "float64"))]
    for one, two in zip(first, again, strict=True):
        assert_same(two, one)
    assert repr(other) == f"Generator(seed=5, stream=6, position={generator.state['position']})"


@pytest.mark.parametrize("name", ["seed", "stream", "position"])
@pytest.mark.parametrize("value", [-1, 2**64, 0.5])
def test_a_state_out_of_range_is_refused_and_changes_nothing(name, value):
    generator = Generator(1, 2)
    before = generator.state
    with pytest.raises((TypeError, ValueError), match=rf"{name} must be .* from 0 to 2\*\*64 - 1, got {value}"):
        generator.state = {**before, name: value}
    assert generator.state == before


def test_seeds_out_of_range_are_refused():
    with pytest.raises(ValueError, match="seed must be a whole number"):
        Generator(-1)
    with pytest.raises(ValueError, match="stream must be a whole number"):
        Generator(0, stream=1 << 64)
    with pytest.raises(ValueError, match="value must be a whole number"):
        random.seed(-1)


def test_seeds_may_be_numbers_of_numpy(device):
    assert_same(Generator(np.int64(3), np.uint8(1)).bits(4), Generator(3, 1).bits(4))


# -- uniform -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "shift", "fraction"), [("float16", 21, 11), ("float32", 8, 24)])
def test_uniform_is_the_upper_bits(device, dtype, shift, fraction):
    words = asnumpy(Generator(2).bits(1000)).astype(np.uint64)
    values = Generator(2).uniform((10, 100), dtype)
    assert_same(values, ((words >> np.uint64(shift)) / 2.0**fraction).reshape(10, 100), dtype)


def test_uniform_float64_is_made_of_53_bits(device):
    words = [int(word) for word in asnumpy(Generator(2).bits(200))]
    expected = [((a >> 5) * 2**26 + (b >> 6)) / 2**53 for a, b in zip(words[::2], words[1::2], strict=True)]
    assert asnumpy(Generator(2).uniform(100, "float64")).tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_reaches_zero_and_never_one(device, monkeypatch, dtype):
    for word, check in ((0, lambda u: u == 0), (2**32 - 1, lambda u: 0.999 < u < 1)):
        generator = Generator()
        monkeypatch.setattr(generator, "bits", lambda count, word=word: xp.full(count, word, xp.uint32))
        assert check(float(generator.uniform((), dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), 5, (5,), (0, 3), (2, 3, 4), 0])
def test_shapes_and_dtypes(device, dtype, shape):
    expected = (shape,) if isinstance(shape, int) else shape
    for draw in (Generator().uniform, Generator().normal):
        values = draw(shape, dtype=dtype)
        assert isinstance(values, xp.ndarray)
        assert (values.shape, values.dtype) == (expected, np.dtype(dtype))
    assert Generator().uniform(shape).dtype == Generator().normal(shape).dtype == "float32"


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_other_dtypes_are_refused(device, dtype):
    generator = Generator()
    for draw in (generator.uniform, generator.normal):
        with pytest.raises(TypeError, match=f"dtype must be float16, float32 or float64, got '{dtype}'"):
            draw((2,), dtype=dtype)
    assert generator.state["position"] == 0


# -- normal --------------------------------------------------------------------------------------------------


def test_normal_is_box_and_muller(device):
    words = [int(word) for word in asnumpy(Generator(4).bits(8))]
    expected = []
    for a, b in zip(words[::2], words[1::2], strict=True):
        radius, angle = math.sqrt(-2 * math.log((a + 1) / 2**32)), 2 * math.pi * b / 2**32
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    np.testing.assert_allclose(asnumpy(Generator(4).normal(8, dtype="float64")), expected, rtol=1e-14)
    np.testing.assert_allclose(asnumpy(Generator(4).normal(7, 3.0, "float64")), 3 * np.array(expected[:7]), rtol=1e-14)


def test_normal_is_rounded_once(device):
    exact = asnumpy(Generator(4).normal((50,), 0.1, "float64"))
    for dtype in ("float16", "float32"):
        assert_same(Generator(4).normal((50,), 0.1, dtype), exact, dtype)


def test_normal_is_finite_at_the_ends(device, monkeypatch):
    for word, largest in ((0, math.sqrt(64 * math.log(2))), (2**32 - 1, 0)):
        generator = Generator()
        monkeypatch.setattr(generator, "_words", lambda count, _, word=word: np.full(count, word, np.uint32))
        values = asnumpy(generator.normal((2,), dtype="float64"))
        assert abs(values).max() == pytest.approx(largest, abs=1e-6)


# -- permutation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 4097])
def test_permutation_holds_each_number_once(device, count):
    order = Generator(1).permutation(count)
    assert isinstance(order, np.ndarray)
    assert order.dtype == "int64"
    assert sorted(order.tolist()) == list(range(count))


def test_permutations_are_equally_likely():
    with backend.use("cpu"):
        generator, counts = Generator(9), {}
        for _ in range(2400):
            order = tuple(generator.permutation(4).tolist())
            counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    chi2 = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi2 < 60  # 23 degrees of freedom: above 60 once in 30,000


# -- statistics: at a fixed seed, with bounds that a sound generator misses less than once in 10⁴ -----------


def test_bits_are_balanced():
    with backend.use("cpu"):
        words = Generator(11).bits(1 << 16)
    ones = np.unpackbits(words.view(np.uint8)).reshape(-1, 32)
    assert abs(ones.mean(axis=0) - 0.5).max() < 4.5 * 0.5 / 256  # each of 32 positions, 2¹⁶ draws
    values = np.bincount(words.view(np.uint8), minlength=256)
    chi2 = ((values - 1024.0) ** 2 / 1024).sum()
    assert 160 < chi2 < 360  # 255 degrees of freedom


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_moments_and_neighbours(device, dtype):
    u = asnumpy(Generator(12).uniform((40000,), dtype)).astype(np.float64)
    step = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}[dtype]
    assert abs(u.mean() + step / 2 - 0.5) < 4 * math.sqrt(1 / 12 / 40000)
    assert abs(u.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / 40000)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / 200
    assert 0.0 <= u.min() < 0.001
    assert 0.999 < u.max() < 1


def test_normal_moments_and_neighbours(device):
    z = asnumpy(Generator(13).normal((40000,), 2.0)).astype(np.float64) / 2
    assert abs(z.mean()) < 4 / 200
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / 40000)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / 40000)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / 40000)
    assert abs(np.corrcoef(z[::2], z[1::2])[0, 1]) < 4 / math.sqrt(20000)
    assert (abs(z) < 1).mean() == pytest.approx(0.6827, abs=0.01)


def test_streams_are_not_correlated():
    with backend.use("cpu"):
        a, b = Generator(1, 0).uniform(20000, "float64"), Generator(1, 1).uniform(20000, "float64")
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(20000)


# -- the process's generator ---------------------------------------------------------------------------------


def test_the_functions_draw_from_one_generator(device):
    random.seed(21)
    generator = Generator(21)
    assert_same(random.bits(5), generator.bits(5))
    assert_same(random.uniform((3, 2), "float64"), generator.uniform((3, 2), "float64"))
    assert_same(random.normal((3,), 0.5), generator.normal((3,), 0.5))
    assert_same(random.permutation(10), generator.permutation(10))
    assert random.default.state == generator.state
    random.seed(21)
    assert random.default.state == {"seed": 21, "stream": 0, "position": 0}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_host_and_device_draw_the_same_bits(dtype):
    drawn = {}
    for name in ("cpu", "cuda"):
        with backend.use(name):
            generator = Generator(2**63 + 5, 2**40)
            drawn[name] = [
                asnumpy(generator.bits(11)),
                asnumpy(generator.uniform((7, 3), dtype)),
                asnumpy(generator.normal((5, 3), 0.3, dtype)),
                generator.permutation(20),
            ]
    for host, there in zip(drawn["cpu"], drawn["cuda"], strict=True):
        assert_same(there, host)


def test_a_fork_goes_on_where_its_parent_stood_and_they_never_draw_the_same():
    parent, expected = Generator(5, 3), Generator(5, 3)
    parent.bits(10), expected.bits(10)
    child = parent.fork()
    assert_same(child.bits(8), expected.bits(8))
    assert parent.state == {"seed": 5, "stream": 3, "position": 3 + 2**40}
    assert parent.fork().state["position"] == 3 + 2**40


@pytest.mark.parametrize("take", [lambda shared: shared.fork().state["position"], lambda shared: shared.reserve(4)[2]])
def test_threads_that_share_a_generator_never_get_the_same_numbers(take):
    shared, taken = Generator(3), []

    def let_others_run(frame, event, arg):
        if event == "line":
            time.sleep(1e-4)  # between any two lines
        return let_others_run if frame.f_code.co_filename == random.__file__ else None

    def work():
        sys.settrace(let_others_run)
        taken.extend(take(shared) for _ in range(5))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert len(set(taken)) == len(taken) == 20


def test_words_that_could_not_be_made_are_drawn_next_unless_a_thread_has_drawn_behind_them(device, monkeypatch):
    shared, make = Generator(3), random.words

    for meanwhile, position in ((0, 0), (8, 3)):

        def fail(*arguments, meanwhile=meanwhile):
            monkeypatch.setattr(random, "words", make)
            shared.reserve(meanwhile)
            raise MemoryError

        monkeypatch.setattr(random, "words", fail)
        with pytest.raises(MemoryError):
            shared.bits(4)
        assert shared.state["position"] == position


def test_inside_using_a_generator_is_the_current_one_and_seed_starts_it_anew():
    outer, own = random.current(), Generator(8)
    before = outer.state
    with random.using(own):
        assert random.current() is own
        assert_same(random.uniform(3), Generator(8).uniform(3))
        random.seed(4)
        assert own.state == {"seed": 4, "stream": 0, "position": 0}
    assert random.current() is outer
    assert outer.state == before
