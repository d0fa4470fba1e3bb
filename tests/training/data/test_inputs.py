"""Inputs that are read when they are needed: their checksums tell changed data from the same data elsewhere."""

import shutil

import numpy as np
import pytest
from PIL import Image

from training.data.image_files import ImageFiles
from training.data.inputs import Inputs, Subset, as_inputs


class Generated(Inputs):
    """Inputs of a program's own."""

    shape, dtype = (5000, 3), np.dtype("float32")

    def __init__(self, add=0):
        self.add = add

    def read(self, indices, out):
        out[...] = indices[:, None] + self.add


def pictures(folder, changed=None):
    folder.mkdir()
    for number in range(6):
        pixels = np.full((4, 5, 3), 10 * number, "uint8")
        pixels[0, 0] = 200, 100, 0  # a color: channels that differ by 1 of 255 are gray
        if number == changed:
            pixels[3, 4, 2] += 1
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return ImageFiles(sorted(folder.iterdir()))


def arrays(folder, changed=None, mapped=False):
    folder.mkdir()
    numbers = np.arange(60, dtype="float32").reshape(6, 10)
    if changed is not None:
        numbers[changed] += 1
    np.save(folder / "x.npy", numbers)
    return as_inputs(np.load(folder / "x.npy", mmap_mode="r" if mapped else None))


@pytest.mark.parametrize("make", [pictures, arrays, lambda *given: arrays(*given, mapped=True)])
def test_a_checksum_tells_changed_samples_from_the_same_ones_elsewhere(tmp_path, make):
    known = make(tmp_path / "a").checksum
    assert make(tmp_path / "b").checksum == known
    assert len({known, *(make(tmp_path / str(place), place).checksum for place in range(6))}) == 7


def test_pictures_that_were_only_copied_or_packed_otherwise_are_the_same(tmp_path):
    known = pictures(tmp_path / "a").checksum
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    files = sorted((tmp_path / "b").iterdir())
    Image.open(files[2]).save(files[2], compress_level=1)
    assert ImageFiles(files).checksum == known
    assert ImageFiles(files, size=(4, 4)).checksum != known
    assert ImageFiles(files[::-1]).checksum != known


def test_a_part_and_inputs_of_one_s_own_have_checksums_too():
    whole = as_inputs(np.eye(4))
    parts = {Subset(whole, np.array(places)).checksum for places in ([0, 1], [1, 0], [0, 2], [0, 1, 2])}
    assert len(parts) == 4
    assert Generated().checksum == Generated().checksum != Generated(1).checksum
