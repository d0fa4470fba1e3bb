"""Image files as arrays: every format and kind of pixel, and nothing that costs too much."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from training.data.pictures import FORMATS, ImageError, decode, read_picture
from training.data.pictures.reading import LARGEST_FILE, LONGEST_SIDE

SAVED = {
    "PNG": {},
    "BMP": {},
    "GIF": {},
    "JPEG": {"quality": 80},
    "progressive JPEG": {"progressive": True},
    "WEBP": {},
    "lossless WEBP": {"lossless": True},
    "TIFF": {},
    "LZW TIFF": {"compression": "tiff_lzw"},
    "Deflate TIFF": {"compression": "tiff_deflate"},
    "JPEG TIFF": {"compression": "jpeg"},
    "PackBits TIFF": {"compression": "packbits"},
}


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind.split()[-1], **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def photo():
    """A picture in color, 50 wide and 60 high."""
    y, x = np.mgrid[0:60, 0:50]
    return Image.fromarray(np.stack([4 * y, 5 * x, 2 * (x + y)], axis=2).astype(np.uint8))


def as_pillow(content):
    """Return the pixels that Pillow reads, in color."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.float32) / 255


@pytest.mark.parametrize("kind", SAVED)
def test_every_format_is_read_as_pillow_reads_it(kind, photo):
    content = saved(photo, kind, **SAVED[kind])
    picture = decode(content)
    assert picture.size == (60, 50)
    assert picture.pixels.dtype == np.float32
    np.testing.assert_allclose(picture.pixels, as_pillow(content), atol=1e-6)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_camera_held_any_way_is_set_upright(kind, turn, photo):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = turn, "a description" * 100
    content = saved(photo, kind, exif=exif)
    picture = decode(content)
    assert picture.size == picture.pixels.shape[:2]
    np.testing.assert_allclose(picture.pixels, as_pillow(content), atol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "MPO"])
def test_of_several_pictures_the_first_is_read(kind, photo):
    one = photo.quantize(100).convert("RGB") if kind == "GIF" else photo
    content = saved(one, kind, save_all=True, append_images=[ImageOps.invert(photo)])
    lossless = kind not in ("WEBP", "MPO")
    np.testing.assert_allclose(
        decode(content).pixels, np.asarray(one, np.float32) / 255, atol=1e-6 if lossless else 0.1
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16", "F"])
def test_every_kind_of_pixel_is_read_as_grey(mode):
    gray = np.repeat(np.uint8([0, 255, 255, 0]), 4)[None].repeat(9, axis=0)
    image = Image.fromarray(gray)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode != "L":
        image = image.convert("RGB").convert(mode) if mode in ("P", "CMYK") else image.convert(mode)
    picture = decode(saved(image, "TIFF"))
    assert np.array_equal(picture.gray(), gray / np.float32(255))
    assert np.array_equal(picture.as_channels(3), np.stack([gray / np.float32(255)] * 3))


def test_gray_of_a_color_is_pillows(photo):
    gray = decode(saved(photo, "PNG")).gray()
    assert np.array_equal(gray, np.asarray(photo.convert("L")) / np.float32(255))


def test_sixteen_bits_are_not_clipped():
    gray = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    np.testing.assert_allclose(decode(saved(Image.fromarray(gray), "PNG")).pixels, gray / 65535, rtol=1e-6)


@pytest.mark.parametrize(("ink", "ground"), [(0, 1), (255, 0)])
def test_transparency_is_laid_on_what_makes_the_figure_visible(ink, ground):
    pixels = np.full((20, 20, 4), ink, np.uint8)
    pixels[..., 3] = 0
    pixels[5:9, 5:9, 3] = 255
    gray = decode(saved(Image.fromarray(pixels), "PNG")).gray()
    assert gray[0, 0] == ground
    assert gray[6, 6] == ink / 255


def test_large_pictures_are_reduced_while_they_are_read():
    y, x = np.mgrid[0:3000, 0:2000]
    large = (128 + 100 * np.sin(x / 200) * np.cos(y / 300)).astype(np.uint8)
    for kind in ("PNG", "JPEG"):
        picture = decode(saved(Image.fromarray(large), kind))
        assert picture.size == (3000, 2000)
        assert max(picture.pixels.shape) <= LONGEST_SIDE
        ours = np.asarray(Image.fromarray(picture.pixels).resize((20, 30), Image.Resampling.BOX))
        exact = large.reshape(30, 100, 20, 100).mean(axis=(1, 3)) / 255
        np.testing.assert_allclose(ours, exact, atol=0.02)


def test_what_is_none_of_the_six_formats_starts_no_decoder(tmp_path):
    assert set(FORMATS) == {"PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"}
    file = tmp_path / "page.png"
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n0 0 10 10 rectfill\nshowpage\n"
    for content in (script, b"\xc5\xd0\xd3\xc6" + script, b"P6 1 1 255\n\0\0\0", b"%PDF-1.4\n", b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(ImageError, match=r"page\.png: not a PNG, JPEG, BMP, GIF, WebP or TIFF image"):
            read_picture(file)
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "missing.png")


def test_no_other_decoder_is_imported(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.webp")
    Image.new("L", (9, 9)).save(tmp_path / "a.tiff")
    program = (
        "import sys; from training.data.pictures import read_picture\n"
        "for file in sys.argv[1:]: read_picture(file)\n"
        "print(*(name for name in sys.modules if name.startswith('PIL.') and name.endswith('ImagePlugin')))"
    )
    command = [sys.executable, "-c", program, tmp_path / "a.webp", tmp_path / "a.tiff"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = {f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP")}
    known.add("PIL.PpmImagePlugin")  # Pillow imports it whenever a file is opened; it is not asked
    assert set(shown.split()) <= known


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, color, *more):
    """A PNG of zeros that is small whatever its size."""
    channels = {0: 1, 2: 3, 6: 4}[color]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    compressor = zlib.compressobj(9)
    row = bytes(1 + channels * width)
    pixels = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(tags, body=b""):
    """A little-endian TIFF; a tag is (number, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body


def many_tags(count, length):
    """A directory whose tags all have the same bytes as their value."""
    return tiff([(tag, 7, length, 8) for tag in range(400, 400 + count)])


def webp_of(width, height):
    content = bytearray(saved(Image.new("RGB", (30, 30)), "WEBP", lossless=True))
    content[21:25] = struct.pack("<I", (width - 1) | ((height - 1) << 14))
    return bytes(content)


TILE = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
PROGRESSIVE = saved(Image.new("RGB", (8, 8)), "progressive JPEG", progressive=True)
REFUSED = {
    "RGBA PNG": (png(20000, 20000 // 100, 6).replace(b"\0\0\x00\xc8", b"\0\0N ", 1), "cannot be read|too large"),
    "long PNG": (png(100_000, 1, 0), "too large .100000 x 1 pixels"),
    "wide tile": (tiff([*TILE, (322, 4, 1, 40000), (323, 4, 1, 40000), (324, 4, 1, 8), (325, 4, 1, 9)]), "too large"),
    "strips": (tiff([*TILE, (273, 4, 5_000_000, 8), (279, 4, 5_000_000, 8)]), "tag 273 has 5000000 values"),
    "other compression": (tiff([*TILE[:3], (259, 3, 1, 34925), *TILE[4:]]), "compression 34925"),
    "wide WebP": (webp_of(16383, 16383), "too large"),
    "scans": (PROGRESSIVE[:-2] + b"\xff\xda\0\x08\1\1\0\1\x3f\0" * 600 + b"\xff\xd9", "more than 500 scans"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_take_too_much_is_refused_before_it_is_decoded(name):
    content, message = REFUSED[name]
    with pytest.raises(ImageError, match=message):
        decode(content)


def test_what_lies_around_a_picture_costs_nothing():
    """Text, profiles and EXIF that grow a thousandfold; a comment in pieces, whose joining takes quadratic time."""
    bomb = b"k\0\0" + zlib.compress(bytes(10**7), 9)
    many = many_tags(4000, 48_000)
    jpeg = saved(Image.new("L", (28, 28)), "JPEG")
    segments = b"".join(
        marker + struct.pack(">H", 2 + len(data)) + data
        for marker, data in ((b"\xff\xe1", b"Exif\0\0" + many), (b"\xff\xe2", b"MPF\0" + many))
    )
    gif = saved(Image.new("L", (28, 28)), "GIF")
    place = 13 + 3 * 2 ** (gif[10] % 8 + 1)
    comment = b"\x21\xfe" + (b"\xff" + bytes(255)) * 40_000 + b"\0"
    for content in (
        png(28, 28, 0, *[chunk(b"zTXt", bomb), chunk(b"iCCP", bomb)] * 10, chunk(b"eXIf", many)),
        jpeg[:2] + segments + jpeg[2:],
        gif[:place] + comment + gif[place:],
    ):
        assert decode(content).gray().shape == (28, 28)


def test_a_file_without_end_is_refused(tmp_path):
    with (tmp_path / "large.png").open("wb") as stream:
        stream.write(png(8, 8, 0))
        stream.truncate(LARGEST_FILE + 1)
    with pytest.raises(ImageError, match=r"large\.png: too large .files of at most 64 MB"):
        read_picture(tmp_path / "large.png")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of a process from /proc")
def test_the_largest_pictures_stay_within_300_mb(tmp_path):
    """In a process of its own: the peak of a process never goes down."""
    files = {
        "rgba.png": png(7600, 7600, 6),
        "strip.tiff": saved(Image.new("RGB", (5600, 5600)), "TIFF", compression="tiff_deflate", strip_size=2**30),
    }
    program = (
        "import sys; from training.data.pictures import read_picture\n"
        "print(max(read_picture(sys.argv[1]).size), open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    for name, content in files.items():
        assert len(content) < 500_000
        (tmp_path / name).write_bytes(content)
        command = [sys.executable, "-c", program, tmp_path / name]
        size, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(size) >= 5600
        assert int(peak) < 300 * 1024, f"{name}: {int(peak) // 1024} MB"


def test_damaged_tiffs_print_nothing(capfd):
    content = bytearray(saved(Image.new("L", (40, 40), 3), "TIFF", compression="tiff_lzw"))
    place = content.index(bytes(content[8:12]))
    content[place : place + 6] = b"\xff" * 6
    with contextlib.suppress(ImageError):
        decode(bytes(content))
    assert capfd.readouterr() == ("", "")
