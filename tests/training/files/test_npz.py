"""The reader of .npz files against NumPy's own, and against archives that promise what they do not hold."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest

from training.files import FileError
from training.files.npz import NpzReader

ARRAYS = {
    "W1": np.arange(6, dtype="float32").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "big_endian": np.arange(5, dtype=">i8"),
    "number": np.float16(1.5),
    "empty": np.zeros((0, 3), "uint8"),
    "truths": np.array([True, False]),
    "complex": np.array([1 + 2j]),
}


def archive(save=np.savez, **arrays):
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream


def member(content, name="W1.npy", method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as opened:
        opened.writestr(name, content)
    return stream


def npy(header, data=b"", version=1):
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(save):
    reader = NpzReader(archive(save, **ARRAYS))
    assert list(reader.headers) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert reader.headers[name] == (array.shape, array.dtype)
        np.testing.assert_array_equal(reader.read(name), array, strict=True)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_reads_every_version_of_the_header(version):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, ARRAYS["W1"], version)
    np.testing.assert_array_equal(NpzReader(member(stream.getvalue())).read("W1"), ARRAYS["W1"], strict=True)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<u2', 'fortran_order': False, 'shape': (2L, 1L), }\n",  # of Python 2
        "{'shape':(2,1),'descr':'<u2','fortran_order':False}",
        " { 'fortran_order' : True , 'descr' : '<u2' , 'shape' : ( 2 , 1 , ) , } ",
    ],
)
def test_reads_headers_of_others(header):
    assert NpzReader(member(npy(header, b"\1\0\2\0"))).read("W1").tolist() == [[1], [2]]


DICT = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}\n"
HEADERS = {
    "objects": DICT.format("'|O'", "False", "(2,)"),
    "texts": DICT.format("'<U3'", "False", "(2,)"),
    "a structure": DICT.format("[('a', '<f4')]", "False", "(2,)"),
    "a negative shape": DICT.format("'<f4'", "False", "(-2,)"),
    "a huge shape": DICT.format("'<f4'", "False", f"({2**62},)"),
    "a shape beyond 64 bits": DICT.format("'<f4'", "False", f"({2**70}, 0)"),
    "a product beyond 64 bits": DICT.format("'<f4'", "False", f"({2**40}, {2**40}, 0)"),
    "many axes": DICT.format("'<f4'", "False", f"({'1,' * 33})"),
    "no tuple": DICT.format("'<f4'", "False", "2"),
    "gaps in a shape": DICT.format("'<f4'", "False", "(2,,2)"),
    "a call": DICT.format("'<f4'", "False", "__import__('os').getpid()"),
    "deep nesting": "(" * 4000,
    "deep negation": "-" * 4000 + "1",
    "no order": "{'descr': '<f4', 'shape': (2,), }",
    "a key twice": "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }",
    "another key": "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}",
    "nothing": "",
}


@pytest.mark.parametrize("case", HEADERS)
def test_other_headers_are_refused(case):
    with pytest.raises(FileError, match="'W1"):
        NpzReader(member(npy(HEADERS[case], bytes(8))))


def test_a_huge_header_is_not_read():
    bomb = npy(" ", version=2)[:8] + struct.pack("<I", 1 << 30) + bytes(1 << 22)
    with pytest.raises(FileError, match="header of 1,073,741,824 bytes; at most 4,096"):
        NpzReader(member(bomb))


@pytest.mark.parametrize("surplus", [-1, 1, 1 << 22])
def test_data_are_as_long_as_the_header_says(surplus):
    content = npy(DICT.format("'<f4'", "False", "(2, 3)"), bytes(24 + surplus))
    with pytest.raises(FileError, match=f"takes 24 bytes, but {24 + surplus:,} follow"):
        NpzReader(member(content))


def test_a_list_of_members_that_lies_about_the_size_is_refused():
    """All sizes but that of the packed data say what the header says."""
    header = npy(DICT.format("'<f4'", "False", "(1000, 1000)"))
    content = bytearray(member(header + bytes(4 << 10)).getvalue())
    lie = struct.pack("<I", len(header) + 4_000_000)
    truth = struct.pack("<I", len(header) + (4 << 10))
    with pytest.raises(FileError, match=r"more than its .* packed bytes"):
        NpzReader(io.BytesIO(content.replace(truth, lie)))
    few = npy(DICT.format("'<f4'", "False", "(2000,)"))
    content = bytearray(member(few + bytes(4000)).getvalue())
    reader = NpzReader(
        io.BytesIO(content.replace(struct.pack("<I", len(few) + 4000), struct.pack("<I", len(few) + 8000)))
    )
    with pytest.raises(FileError, match=r"ends after 4,000 of its 8,000 bytes|CRC"):
        reader.read("W1")


def test_a_wrong_checksum_is_refused():
    stream = archive(W1=ARRAYS["W1"])
    content = bytearray(stream.getvalue())
    content[content.index(ARRAYS["W1"].tobytes())] ^= 1
    with pytest.raises(FileError, match="CRC"):
        NpzReader(io.BytesIO(content)).read("W1")


def test_two_members_of_one_name_are_refused():
    stream = archive(W1=ARRAYS["W1"])
    with zipfile.ZipFile(stream, "a") as opened:
        opened.writestr("W1", npy(DICT.format("'<f4'", "False", "(1,)"), bytes(4)))
    with pytest.raises(FileError, match="two members are called 'W1'"):
        NpzReader(stream)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method):
    content = npy(DICT.format("'<f4'", "False", "(1,)"), bytes(4))
    with pytest.raises(FileError, match=f"compressed by method {method}; expected 0 or 8"):
        NpzReader(member(content, method=method))


@pytest.mark.parametrize(
    ("offset", "value", "words"), [(8, 1, "encrypted"), (10, 9, "method 9"), (10, 99, "method 99")]
)
def test_encryption_and_deflate64_are_refused(offset, value, words):
    content = bytearray(archive(W1=ARRAYS["W1"]).getvalue())
    entry = content.index(b"PK\1\2")
    content[entry + offset] = value
    with pytest.raises(FileError, match=words):
        NpzReader(io.BytesIO(content))


def test_members_that_share_their_bytes_are_refused():
    """A small archive could unpack to a thousand times as much, and once more for each name of it."""
    content = archive(np.savez_compressed, W0=np.arange(1000.0)).getvalue()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry = content[start:end]
    entries = b"".join(entry.replace(b"W0.npy", f"W{number}.npy".encode()) for number in range(9))
    tail = struct.pack("<HHHHIIH", 0, 0, 9, 9, len(entries), start, 0)
    with pytest.raises(FileError, match="its members overlap"):
        NpzReader(io.BytesIO(content[:start] + entries + b"PK\5\6" + tail))


def test_many_members_are_refused_before_they_are_listed():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for number in range(15_000):
            opened.writestr(f"{number:030}", b"")
    with pytest.raises(FileError, match="list of members takes more than 1,048,576 bytes"):
        NpzReader(stream)


def test_a_member_that_is_no_array_is_refused():
    for content in (b"", b"\x93NUMP", b"\x80\x04K\x01.", b"text"):
        with pytest.raises(FileError, match="begins with the bytes"):
            NpzReader(member(content))


def test_names_in_messages_are_short_and_plain():
    with pytest.raises(FileError) as error:
        NpzReader(member(b"text", "\x1b[2J" + "x" * 30_000))
    assert len(str(error.value)) < 250
    assert str(error.value).isprintable()


def test_crc_of_a_long_array_is_checked_at_its_end():
    array = np.arange(700_000, dtype="float32")  # in several pieces
    content = bytearray(archive(np.savez_compressed, W1=array).getvalue())
    np.testing.assert_array_equal(NpzReader(io.BytesIO(content)).read("W1"), array)
    place = content.index(struct.pack("<I", zlib.crc32(_with_header(array))))
    while place >= 0:  # in the list of members and before the data
        content[place] ^= 1
        place = content.find(struct.pack("<I", zlib.crc32(_with_header(array))))
    with pytest.raises(FileError, match="CRC"):
        NpzReader(io.BytesIO(content)).read("W1")


def _with_header(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()
