"""From an encoded file to pixels of one size: every source goes through here."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lsdr.data.problem import BadImageError

# Named, so that no file reaches a decoder that starts other programs (EPS calls Ghostscript).
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF")
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(raw: bytes | NDArray[np.uint8], at_least: int | None = None) -> Image.Image:
    """Decode an image to 8-bit grey or RGB, upright, transparency shown over white.

    Sixteen-bit grey is divided by 257, so that white stays white; CMYK, palettes, YCbCr and LAB become RGB; of an
    animation the first frame counts.

    Args:
        raw: The encoded file, or pixels as (H, W) or (H, W, 1 | 3 | 4).
        at_least: A shorter side that will do: a JPEG more than twice as large is then decoded at a fraction of its
            size, several times faster.

    Returns:
        A loaded image of mode ``"L"`` or ``"RGB"``.

    Raises:
        BadImageError: If the file is empty, not an image, damaged, too large to be honest or of a mode with no
            defined range.

    Example:
        >>> decode(np.zeros((2, 3), dtype=np.uint8)).size
        (3, 2)
        >>> decode(b"hello")
        Traceback (most recent call last):
        ...
        lsdr.data.problem.BadImageError: none of PNG, JPEG, WebP, BMP, GIF, TIFF: begins with b'hello'
    """
    if isinstance(raw, np.ndarray):
        return _flatten(Image.fromarray(raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw))
    if not raw:
        raise BadImageError("empty", "the file has no bytes")
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as image:
            if at_least is not None:
                image.draft(None, (2 * at_least, 2 * at_least))
            image.load()
            return _flatten(_upright(image))
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(
            "not_an_image", f"none of PNG, JPEG, WebP, BMP, GIF, TIFF: begins with {raw[:12]!r}"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise BadImageError("too_large", f"{error or 'more pixels than there is memory'}") from error
    except Exception as error:  # decoders meet hostile bytes with every kind of exception; none may stop a training
        raise BadImageError("damaged", f"{error or type(error).__name__}") from error


def fit(image: Image.Image, size: int | None, channels: int) -> NDArray[np.uint8]:
    """Scale the centre square to `size` and lay the pixels out channels first.

    The centre square is cut before scaling: the same picture as scaling the shorter side and cropping, without
    computing pixels that are thrown away. Scaling is antialiased (Lanczos, after a box reduction where the image is
    more than three times too large).

    Args:
        image: An image of mode ``"L"`` or ``"RGB"``.
        size: The side of the result; None keeps the image's own size and shape.
        channels: 1 (luma) or 3.

    Returns:
        Pixels, shape (channels, H, W).

    Raises:
        BadImageError: If the shorter side is below `size`; images are never enlarged.

    Example:
        >>> fit(Image.new("RGB", (9, 6)), 4, 1).shape
        (1, 4, 4)
    """
    if size is not None:
        side = min(image.size)
        if side < size:
            raise BadImageError("too_small", f"{image.width}x{image.height} is smaller than {size}x{size}")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = (left, top, left + side, top + side)
        if side > size:
            image = image.resize((size, size), Image.Resampling.LANCZOS, box=square, reducing_gap=3.0)
        elif image.width != image.height:
            image = image.crop(square)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return np.array(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), order="C")


def _upright(image: Image.Image) -> Image.Image:
    """Turn a photograph as its EXIF tag says."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a broken tag does not make the picture unusable
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _flatten(image: Image.Image) -> Image.Image:
    """Bring every mode to ``"L"`` or ``"RGB"``."""
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImageError(
                "unsupported_mode", f"integers from {values.min()} to {values.max()} are not 16-bit grey"
            )
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise BadImageError("unsupported_mode", "floating-point pixels have no defined white; save them as 8 or 16 bit")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        flat = "L" if image.mode in ("1", "L", "LA") else "RGB"
        clear = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(clear, mask=clear.getchannel("A"))
        return white.convert(flat)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
