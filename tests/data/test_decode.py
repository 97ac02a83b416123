"""Every mode and every kind of damage, as real files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from lsdr.data.decode import decode, fit
from lsdr.data.problem import BadImageError


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def colour_at(image, x=0, y=0):
    return image.getpixel((x, y))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP"])
def test_formats(format, pixels):
    smooth = np.kron(pixels(1, 2, 2), np.ones((8, 8, 1), dtype=np.uint8))
    image = decode(encoded(Image.fromarray(smooth), format))
    assert (image.mode, image.size) == ("RGB", (16, 16))
    difference = np.abs(np.asarray(image).astype(int) - smooth)[2:6, 2:6]
    assert difference.max() <= (0 if format in ("PNG", "BMP", "TIFF") else 40)


def test_first_frame_of_an_animation():
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    raw = encoded(red, "GIF", save_all=True, append_images=[blue], duration=100)
    assert colour_at(decode(raw)) == (255, 0, 0)


def test_transparency_is_shown_over_white():
    assert colour_at(decode(encoded(Image.new("RGBA", (2, 2), (200, 0, 0, 0))))) == (255, 255, 255)
    assert colour_at(decode(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))) == (127, 127, 127)
    assert colour_at(decode(encoded(Image.new("LA", (2, 2), (0, 0))))) == 255
    assert colour_at(decode(encoded(Image.new("LA", (2, 2), (9, 255))))) == 9


def test_palette_with_and_without_transparency():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert colour_at(decode(encoded(image))) == (10, 20, 30)
    assert colour_at(decode(encoded(image, transparency=1))) == (255, 255, 255)


def test_sixteen_bit_keeps_white_white_and_middle_grey_middle():
    values = np.array([[0, 200, 257, 32896, 65535]], dtype=np.uint16)
    image = decode(encoded(Image.fromarray(values)))
    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[0, 1, 1, 128, 255]]


def test_one_bit():
    image = decode(encoded(Image.fromarray(np.array([[True, False]]))))
    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[255, 0]]


def test_cmyk_and_lab():
    assert colour_at(decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"))) == (255, 0, 0)
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (4, 4), (200, 30, 30)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    red, green, blue = colour_at(decode(encoded(lab, "TIFF")))
    assert abs(red - 200) < 8
    assert abs(green - 30) < 8
    assert abs(blue - 30) < 8


@pytest.mark.parametrize("image", [Image.new("F", (2, 2), 0.5), Image.new("I", (2, 2), 70000)], ids=["F", "I"])
def test_modes_without_a_defined_white_are_refused(image):
    with pytest.raises(BadImageError) as caught:
        decode(encoded(image, "TIFF"))
    assert caught.value.kind == "unsupported_mode"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    # The upright picture has its one white pixel in the upper left corner; see where each orientation stores it.
    corner = {1: (0, 0), 2: (3, 0), 3: (3, 1), 4: (0, 1), 5: (0, 0), 6: (0, 3), 7: (1, 3), 8: (1, 0)}[orientation]
    stored = Image.new("RGB", (4, 2) if orientation < 5 else (2, 4))
    stored.putpixel(corner, (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, "PNG", exif=exif))
    assert image.size == (4, 2)
    assert colour_at(image) == (255, 255, 255)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_broken_exif_does_not_lose_the_picture():
    raw = encoded(Image.new("RGB", (4, 4), "red"), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert decode(raw).size == (4, 4)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("empty", b""),
        ("not_an_image", b"This is a text, whatever its name says.\n"),
        ("not_an_image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("too_large", bomb()),
        ("damaged", encoded(NOISE, "PNG")[:900]),
        ("damaged", encoded(NOISE, "JPEG")[:900]),
        ("damaged", encoded(NOISE, "TIFF")[:2000]),
        ("damaged", encoded(NOISE, "GIF")[:1500]),
    ],
    ids=["empty", "text", "postscript", "bomb", "png", "jpeg", "tiff", "gif"],
)
@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")
def test_damage_has_a_kind(kind, raw):
    with pytest.raises(BadImageError) as caught:
        decode(raw)
    assert caught.value.kind == kind
    assert str(caught.value)


def test_every_truncation_is_a_picture_or_a_named_problem(pixels):
    for format in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        raw = encoded(Image.fromarray(pixels(0, 12, 12)), format)
        for length in range(0, len(raw), 7):
            try:
                decode(raw[:length])
            except BadImageError:
                continue


def test_every_flipped_byte_is_a_picture_or_a_named_problem(pixels):
    generator = np.random.default_rng(0)
    for format in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        raw = bytearray(encoded(Image.fromarray(pixels(0, 8, 8)), format))
        for _ in range(60):
            broken = bytearray(raw)
            broken[generator.integers(len(raw))] ^= int(generator.integers(1, 256))
            try:
                decode(bytes(broken))
            except BadImageError:
                continue


def test_fit_takes_the_centre_square(pixels):
    wide = pixels(3, 4, 10)
    assert np.array_equal(fit(Image.fromarray(wide), 4, 3), wide[:, 3:7].transpose(2, 0, 1))


def test_fit_scales_like_scaling_the_shorter_side_and_cropping():
    x, y = np.meshgrid(np.arange(60), np.arange(40))
    smooth = (127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8)
    image = Image.fromarray(smooth)
    ours = fit(image, 20, 1)[0].astype(int)
    theirs = np.asarray(image.resize((30, 20), Image.Resampling.LANCZOS))[:, 5:25].astype(int)
    assert np.abs(ours - theirs)[1:-1, 1:-1].max() <= 3


def test_fit_is_antialiased():
    checker = Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255)
    assert np.abs(fit(checker, 8, 1).astype(int) - 127.5).max() < 12


def test_fit_never_enlarges():
    with pytest.raises(BadImageError, match="10x7 is smaller than 8x8") as caught:
        fit(Image.new("L", (10, 7)), 8, 1)
    assert caught.value.kind == "too_small"


def test_large_jpegs_are_decoded_at_a_fraction_and_look_the_same():
    x, y = np.meshgrid(np.arange(512), np.arange(512))
    smooth = np.stack([x // 2, y // 2, (x + y) // 4], axis=-1).astype(np.uint8)
    raw = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    drafted, whole = decode(raw, 32), decode(raw)
    assert drafted.size == (64, 64)
    assert np.abs(fit(drafted, 32, 3).astype(int) - fit(whole, 32, 3)).max() <= 3


def test_result_owns_its_memory(pixels):
    for channels in (1, 3):
        result = fit(Image.fromarray(pixels(0, 4, 4, channels)), None, channels)
        assert result.flags.c_contiguous
        assert result.flags.writeable
