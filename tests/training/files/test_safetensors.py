"""The reader of .safetensors files against the library's own, and against headers that lie."""

import io
import json

import numpy as np
import pytest
from safetensors.numpy import save

from training.files import FileError, json_text
from training.files.safetensors import SafetensorsReader

DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(len(text).to_bytes(8, "little") + text + data)


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (2, 3, 4)])
def test_reads_what_the_library_writes(dtype, shape):
    arrays = {"a": np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype), "b": np.ones(5, "f4")}
    reader = SafetensorsReader(io.BytesIO(save(arrays, {"key": "text"})))
    assert reader.metadata == {"key": "text"}
    for name, array in arrays.items():
        assert reader.headers[name] == (array.shape, array.dtype)
        np.testing.assert_array_equal(reader.read(name), array, strict=True)


BAD = {
    "nothing": (b"", "0 bytes"),
    "half a length": (bytes(5), "5 bytes"),
    "a length beyond the file": ((100).to_bytes(8, "little") + b"{}", "header of 100 bytes; 2 follow"),
    "a length of 2**64 - 1": (b"\xff" * 8 + b"{}", "header of 18,446,744,073,709,551,615 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_the_length_of_the_header_is_checked(case):
    content, words = BAD[case]
    with pytest.raises(FileError, match=words):
        SafetensorsReader(io.BytesIO(content))


def test_a_header_of_many_megabytes_is_not_read():
    with pytest.raises(FileError, match="at most 2,097,152 are read"):
        SafetensorsReader(file_of(b" " * (json_text.MAX_BYTES + 1)))


HEADERS = {
    "no JSON": (b"{W1: 2}", "not JSON"),
    "no UTF-8": (b'{"\xff": 2}', "not JSON: 'utf-8'"),
    "a number": (b"12", "its header is 12"),
    "deep nesting": (b'{"a":' * 100_000, "nested too deeply"),
    "a key twice": (b'{"W1": 1, "W1": 2}', "duplicate key 'W1'"),
    "a key twice, inside": (b'{"W1": {"dtype": "F32", "dtype": "F32"}}', "duplicate key 'dtype'"),
    "NaN": (b'{"W1": NaN}', "NaN"),
    "metadata that are no texts": ({"__metadata__": {"a": 1}}, "__metadata__ is {'a': 1}"),
    "metadata that are a list": ({"__metadata__": []}, "__metadata__ is"),
    "no entry": ({"W1": [2]}, r"'W1' is described by \[2\]"),
    "an entry without shape": ({"W1": {"dtype": "F32", "data_offsets": [0, 8]}}, "'W1' is described by"),
    "an entry with more": ({"W1": entry(file="/etc/passwd")}, "'W1' is described by"),
    "another dtype": ({"W1": entry("BF16", (4,))}, "dtype 'BF16'; expected one of BOOL"),
    "a list as dtype": ({"W1": entry(["F32"])}, "dtype"),
    "a negative length": ({"W1": entry(shape=(-2,))}, r"shape \[-2\]"),
    "two negative lengths": ({"W1": entry(shape=(-2, -1))}, r"shape \[-2, -1\]"),
    "half a length": ({"W1": entry(shape=(2.0,))}, r"shape \[2.0\]"),
    "true as length": ({"W1": entry(shape=(True, 2))}, r"shape \[True, 2\]"),
    "a length of 2**62": ({"W1": entry(shape=(2**62,))}, "takes .* bytes"),
    "a length of many digits": (
        b'{"W1": {"dtype": "F32", "shape": [1%s], "data_offsets": [0, 8]}}' % (b"0" * 4000),
        "sh",
    ),
    "a product beyond 64 bits": ({"W1": entry(shape=(2**40, 2**40, 0), offsets=(0, 0))}, "too large"),
    "many axes": ({"W1": entry(shape=[1] * 50_000, offsets=(0, 4))}, "shape a list of 50000"),
    "offsets of another size": ({"W1": entry(offsets=(0, 12))}, "takes 8 bytes"),
    "offsets backwards": ({"W1": entry(offsets=(8, 0))}, "takes 8 bytes"),
    "a negative offset": ({"W1": entry(offsets=(-8, 0))}, "takes 8 bytes"),
    "one offset": ({"W1": entry(offsets=(0,))}, "expected two whole numbers"),
    "a gap": ({"W1": entry(shape=(1,), offsets=(4, 8))}, "begins at byte 4, expected 0"),
    "an overlap": ({"W1": entry(), "b1": entry(shape=(1,), offsets=(4, 8))}, "begins at byte 4, expected 8"),
    "one place twice": ({"W1": entry(), "b1": entry()}, "begins at byte 0, expected 8"),
    "less than follows": ({"W1": entry(shape=(1,), offsets=(0, 4))}, "announces 4 bytes of arrays, but 8 follow"),
    "more than follows": ({"W1": entry(shape=(4,), offsets=(0, 16))}, "announces 16 bytes of arrays, but 8 follow"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_wrong_header_is_refused_in_words(case):
    header, words = HEADERS[case]
    with pytest.raises(FileError, match=words) as error:
        SafetensorsReader(file_of(header, bytes(8)))
    assert len(str(error.value)) < 500


def test_a_file_that_shrinks_meanwhile_is_refused():
    stream = file_of({"W1": entry()}, bytes(8))
    reader = SafetensorsReader(stream)
    stream.truncate(len(stream.getvalue()) - 1)
    with pytest.raises(FileError, match="ends after 7 of its 8 bytes"):
        reader.read("W1")
