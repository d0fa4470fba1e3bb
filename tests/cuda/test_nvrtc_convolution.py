"""The convolution on tensor cores compiles for every tile that shapes can choose, to what the table says.

Needs NVRTC, and neither driver nor GPU. The table is written by the command of ``test_nvrtc.py``.
"""

import pytest

from kernels.core import catalog, tensor_tiles
from kernels.core.geometry import Geometry
from kernels.core.window import Window
from tests.support import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)

# All tiles for one architecture, and the largest for the others; the table has all for all.
JOBS = [
    (variant, architecture)
    for variant in tensor_tiles.variants()
    for architecture in nvrtc.TENSOR_CORES
    if architecture == 80
    or (architecture in (90, 120) and (variant.dtype, variant.tile.BM * variant.tile.BN) == ("float32", 128 * 64))
]


@pytest.fixture(scope="module")
def results():
    return nvrtc.build_tiles([job for job in JOBS if job[1] in nvrtc.supported()])


def test_tiles_compile_without_a_warning_or_a_spill_to_what_the_table_says(results):
    rows, known = catalog.read_table()["tiles"], catalog.read_table()["compiler"]
    found = []
    for (variant, architecture), result in results.items():
        found += [f"{variant} on sm_{architecture}: {line}" for line in result.complaints]
        use = result.uses[tensor_tiles.KERNELS[variant.product]]
        if use.spilled:
            found.append(f"{variant} on sm_{architecture}: spills {use.spilled} bytes")
        if known == nvrtc.version():
            found += nvrtc.growth(str(variant), rows[str(variant)], architecture, use)
    assert not found, "\n".join([*found, f"where that is meant: {nvrtc.COMMAND}"])


def test_table_is_of_these_tiles():
    table = catalog.read_table()
    assert set(table["tiles"]) == {str(variant) for variant in tensor_tiles.variants()}, f"stale: {nvrtc.COMMAND}"
    for file in catalog.TILED:
        assert table["sources"][file] == catalog.digest(file), f"of another text: {nvrtc.COMMAND}"
    assert all(set(row["registers"]) == set(map(str, nvrtc.TENSOR_CORES)) for row in table["tiles"].values())


@pytest.mark.parametrize("halo", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("product", tensor_tiles.KERNELS)
def test_other_widths_of_copies_and_indices_compile(product, dtype, halo):
    first = next(
        variant
        for variant in tensor_tiles.variants()
        if (variant.product, variant.dtype, variant.halo > 0) == (product, dtype, halo)
    )
    for wide_index in (False, True):
        variant = first._replace(passes=1, vector=1, wide=2, wide_index=wide_index)  # one pass of TF32
        assert not nvrtc.build(variant.code, 80).complaints


@pytest.mark.parametrize("architecture", [60, 75])
def test_older_gpus_get_empty_kernels(architecture):
    if architecture not in nvrtc.supported():
        pytest.skip(f"sm_{architecture} is not among what NVRTC {nvrtc.version()} can compile for")
    result = nvrtc.build(tensor_tiles.variants()[0].code, architecture)
    assert not result.complaints
    assert all(use.registers < 16 and not use.shared for use in result.uses.values())


def plan(product, dtype="float32", n=128, c=16, fn=16, window=None, image=(32, 32), groups=1, aligned=16):
    geometry: Geometry = (window or Window(3, 1, 1)).over(image)
    return tensor_tiles.plan(product, dtype, n, c, fn, geometry, groups, False, aligned, aligned)


@pytest.mark.parametrize(
    ("changes", "blocks", "parts"),
    [
        ({}, 1, 242),  # of 9 times 64 places of 128·33², all taps in a block; 264 parts would have 8.25
        ({"window": Window(3, 2, 1)}, 3, 86),
        ({"c": 64, "fn": 128, "n": 32, "image": (56, 56)}, 5 * 2, 26),  # of 264 blocks at once
        ({"c": 256, "fn": 256, "n": 32, "image": (14, 14)}, 18 * 4, 7),  # 3 parts fill 82 % of one wave, 7 95 % of two
        ({"c": 512, "fn": 512, "n": 32, "image": (7, 7)}, 36 * 8, 1),  # more blocks than run at once
    ],
    ids=str,
)
def test_parts_fill_whole_waves_of_blocks(changes, blocks, parts):
    down, across, third = plan(tensor_tiles.BACKWARD_WEIGHT, **changes).grid
    assert (down * across, third) == (blocks, parts)


@pytest.mark.parametrize(
    ("changes", "vector", "wide"),
    [
        ({}, 4, 4),
        ({"c": 3}, 1, 4),
        ({"c": 6}, 2, 4),
        ({"fn": 10}, 4, 2),
        ({"groups": 8}, 2, 2),
        ({"aligned": 8}, 2, 2),
        ({"dtype": "float16"}, 8, 8),
        ({"dtype": "float16", "c": 12, "aligned": 4}, 2, 2),
    ],
    ids=str,
)
def test_widths_of_copies(changes, vector, wide):
    variant = plan(tensor_tiles.FORWARD, **changes).variant
    assert (variant.vector, variant.wide) == (vector, wide)


@pytest.mark.parametrize("product", tensor_tiles.KERNELS)
@pytest.mark.parametrize(
    "changes", [{}, {"fn": 70, "c": 40}, {"n": 1, "image": (7, 5)}, {"window": Window(3, 2, 1)}], ids=str
)
def test_grids_cover_the_result(product, changes):
    shapes = {"n": 128, "c": 16, "fn": 16, "image": (32, 32), "window": Window(3, 1, 1)} | changes
    chosen, geometry = plan(product, **changes), shapes["window"].over(shapes["image"])
    (sh, sw), windows = geometry.stride, shapes["n"] * geometry.output[0] * geometry.output[1]
    pixels = shapes["n"] * -(-shapes["image"][0] // sh) * -(-shapes["image"][1] // sw)
    rows = {tensor_tiles.FORWARD: windows, tensor_tiles.BACKWARD_INPUT: pixels}.get(product, 9 * shapes["c"])
    columns = shapes["c"] if product == tensor_tiles.BACKWARD_INPUT else shapes["fn"]
    tile, (down, across, third) = chosen.variant.tile, chosen.grid
    assert (down - 1) * tile.BM < rows <= down * tile.BM
    assert (across - 1) * tile.BN < columns <= across * tile.BN
    if product == tensor_tiles.BACKWARD_WEIGHT:
        if chosen.variant.halo:  # places: each line has one of padding, and each image a line
            windows = shapes["n"] * (shapes["image"][0] + 1) * (shapes["image"][1] + 1)
        assert (third - 1) * chosen.part_pixels < windows <= third * chosen.part_pixels
    else:
        assert third == (sh * sw if product == tensor_tiles.BACKWARD_INPUT else 1)
