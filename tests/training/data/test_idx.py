"""The IDX reader against files made by hand, byte by byte, and against every way to damage one."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from training.data.idx import DataError, read_idx, read_labelled_images, write_idx

PIXELS = bytes(range(24))
IMAGES = struct.pack(">IIII", 0x00000803, 2, 3, 4) + PIXELS
LABELS = struct.pack(">II", 0x00000801, 2) + bytes([7, 0])


@pytest.fixture
def pair(tmp_path):
    """Paths of two images and their two labels; the test damages one of them."""
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    images.write_bytes(IMAGES)
    labels.write_bytes(LABELS)
    return images, labels


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_reads_plain_and_gzipped_whatever_the_name(tmp_path, pack, name):
    path = tmp_path / name
    path.write_bytes(pack(IMAGES))
    images = read_idx(path, 3)
    assert images.dtype == np.uint8
    assert images.shape == (2, 3, 4)
    assert images[1, 2].tolist() == [20, 21, 22, 23]
    assert images[1, 0].tolist() == [12, 13, 14, 15]


def test_reads_labelled_images(pair):
    images, labels = read_labelled_images(*pair)
    assert images.shape == (2, 1, 3, 4)
    assert images.tobytes() == PIXELS
    assert labels.tolist() == [7, 0]
    assert labels.dtype == np.uint8


@given(array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)), packed=st.booleans())
def test_what_is_written_is_read(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / ("array.gz" if packed else "array")
    content = write_idx(path, array)
    assert content == bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    np.testing.assert_array_equal(read_idx(path, array.ndim), array, strict=True)


def test_writes_strided_arrays_in_c_order(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(4, 3, 2).transpose(2, 1, 0)[:, ::-1]
    write_idx(tmp_path / "array", array)
    np.testing.assert_array_equal(read_idx(tmp_path / "array", 3), array)


def test_gzipped_files_are_the_same_at_any_time(tmp_path, monkeypatch):
    array = np.arange(100, dtype=np.uint8)
    write_idx(tmp_path / "one.gz", array)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_idx(tmp_path / "two.gz", array)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


def test_writes_bytes_only(tmp_path):
    with pytest.raises(TypeError, match="must be a uint8 array, got int64"):
        write_idx(tmp_path / "array", np.zeros(3, np.int64))
    assert not (tmp_path / "array").exists()


@pytest.mark.parametrize("position", range(16))
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_each_wrong_header_byte_of_images_is_refused(tmp_path, position, pack):
    damaged = bytearray(IMAGES)
    damaged[position] ^= 0x10
    path = tmp_path / "images"
    path.write_bytes(pack(damaged))
    if position < 4:
        expected = f"begins with the bytes {damaged[:4].hex(' ')}; .* images begins with 00 00 08 03"
    else:
        expected = rf"header \(bytes {damaged[4:16].hex(' ', 4)}\) announces \d+ x \d+ x \d+ = \d+ bytes"
    with pytest.raises(DataError, match=expected) as error:
        read_idx(path, 3)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("position", range(8))
def test_each_wrong_header_byte_of_labels_is_refused(tmp_path, position):
    damaged = bytearray(LABELS)
    damaged[position] ^= 0x10
    path = tmp_path / "labels"
    path.write_bytes(damaged)
    expected = "begins with the bytes .*00 00 08 01" if position < 4 else r"announces \d+ = \d+ bytes of data, but 2"
    with pytest.raises(DataError, match=expected):
        read_idx(path, 1)


@pytest.mark.parametrize("length", range(len(IMAGES)))
def test_every_truncation_is_refused(tmp_path, length):
    path = tmp_path / "images"
    path.write_bytes(IMAGES[:length])
    if length == 0:
        expected = r"empty \(0 bytes\); an IDX file of images"
    elif length < 4:
        expected = "begins with the bytes"
    elif length < 16:
        expected = f"ends after {length} bytes; its header alone takes 16"
    else:
        expected = f"2 x 3 x 4 = 24 bytes of data, but {length - 16} follow: {40 - length} are missing"
    with pytest.raises(DataError, match=expected) as error:
        read_idx(path, 3)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_trailing_bytes_are_refused(tmp_path, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(IMAGES + b"\0\0\0"))
    with pytest.raises(DataError, match="24 bytes of data, but 27 follow: 3 are too many"):
        read_idx(path, 3)


def test_a_huge_announced_size_is_refused_without_allocating_it(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(bytes.fromhex("00000803 ffffffff ffffffff ffffffff") + PIXELS)
    with pytest.raises(DataError, match=f"= {(2**32 - 1) ** 3} bytes of data, but 24 follow"):
        read_idx(path, 3)


def test_a_size_beyond_what_gzip_can_hold_is_refused_without_allocating_it(tmp_path):
    path = tmp_path / "images"
    packed = gzip.compress(bytes.fromhex("00000803 ffffffff 00001000 00001000") + PIXELS)
    path.write_bytes(packed)
    with pytest.raises(DataError, match=f"bytes of data, but at most {1032 * len(packed)} can follow"):
        read_idx(path, 3)


def test_no_images_of_a_size_that_cannot_be_counted(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(bytes.fromhex("00000803 00000000 ffffffff ffffffff"))
    with pytest.raises(DataError, match="= 0 bytes of data, but no array can hold them"):
        read_idx(path, 3)


def test_long_surpluses_are_not_counted_to_their_end(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(IMAGES + bytes(5 << 20)))
    with pytest.raises(DataError, match="24 bytes of data, but at least 262168 follow: at least 262144 are too many"):
        read_idx(path, 3)


def test_several_gzip_members_are_one_file(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(IMAGES[:20]) + gzip.compress(IMAGES[20:]))
    assert read_idx(path, 3).tobytes() == PIXELS


def test_the_array_cannot_be_written_to(pair):
    for array in (read_idx(pair[0], 3), *read_labelled_images(*pair)):
        assert not array.flags.writeable


def test_labels_are_not_images(pair):
    with pytest.raises(DataError, match="begins with the bytes 00 00 08 01; an IDX file of images"):
        read_idx(pair[1], 3)


def test_a_web_page_is_not_idx(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(DataError, match=r"3c 21 44 4f; an IDX file of images begins with 00 00 08 03 \(gzipped: 1f 8b"):
        read_idx(path, 3)


PACKED = gzip.compress(IMAGES, mtime=0)


@pytest.mark.parametrize("length", range(2, len(PACKED)))
def test_every_truncation_of_gzip_data_is_refused(tmp_path, length):
    path = tmp_path / "images.gz"
    path.write_bytes(PACKED[:length])
    with pytest.raises(DataError, match=f"damaged gzip data in a file of {length} bytes") as error:
        read_idx(path, 3)
    assert str(path) in str(error.value)


# Bytes 4 to 9 are time, flags of speed and operating system: they carry no data, and no check covers them.
@pytest.mark.parametrize("position", [2, 3, *range(10, len(PACKED))])
def test_every_changed_byte_of_gzip_data_is_refused(tmp_path, position):
    damaged = bytearray(PACKED)
    damaged[position] ^= 0xFF
    path = tmp_path / "images.gz"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"damaged gzip data|but at most [0-9]+ can follow"):
        read_idx(path, 3)


def test_bytes_after_gzip_data_are_refused(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(PACKED + b"more")
    with pytest.raises(DataError, match="damaged gzip data"):
        read_idx(path, 3)


def test_a_label_out_of_range_is_named_with_its_place(pair):
    pair[1].write_bytes(LABELS[:-1] + b"\x0a")
    with pytest.raises(DataError, match=r"labels-idx1-ubyte: label 10 at index 1 .* 0 to 9 \(byte 9 "):
        read_labelled_images(*pair)
    assert read_labelled_images(*pair, classes=11)[1].tolist() == [7, 10]


@pytest.mark.parametrize("labels", [[], [1], [1, 2, 3]])
def test_as_many_labels_as_images(pair, labels):
    pair[1].write_bytes(struct.pack(">II", 0x801, len(labels)) + bytes(labels))
    with pytest.raises(
        DataError, match=f"images-idx3-ubyte holds 2 images but .*labels-idx1-ubyte holds {len(labels)}"
    ):
        read_labelled_images(*pair)


def test_checksum_is_of_the_uncompressed_content(tmp_path, pair):
    path = tmp_path / "packed.gz"
    path.write_bytes(gzip.compress(IMAGES))
    good = hashlib.sha256(IMAGES).hexdigest()
    assert read_idx(path, 3, sha256=good).shape == (2, 3, 4)
    assert read_idx(pair[0], 3, sha256=good).shape == (2, 3, 4)


@pytest.mark.parametrize("which", [0, 1])
def test_a_wrong_checksum_is_refused_with_both_sums(pair, which):
    sums = [hashlib.sha256(content).hexdigest() for content in (IMAGES, LABELS)]
    assert len(read_labelled_images(*pair, sha256=tuple(sums))[0]) == 2
    content = bytearray(pair[which].read_bytes())
    content[-1] ^= 1
    pair[which].write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match=f"{pair[which].name}: .*{found}, expected {sums[which]}"):
        read_labelled_images(*pair, sha256=tuple(sums))


def test_a_missing_file_keeps_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere", 3)


def test_files_may_be_named_by_texts(tmp_path):
    images, labels = np.zeros((2, 3, 3), np.uint8), np.array([0, 1], np.uint8)
    names = str(tmp_path / "images.gz"), str(tmp_path / "labels")
    for name, array in zip(names, (images, labels), strict=True):
        write_idx(name, array)
        np.testing.assert_array_equal(read_idx(name, array.ndim), array)
    np.testing.assert_array_equal(read_labelled_images(*names)[0], images[:, None])
    with pytest.raises(TypeError, match="got list"):
        write_idx(names[0], [1])
    for path in (None, 3):
        with pytest.raises(TypeError):
            read_idx(path, 1)
