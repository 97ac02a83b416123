"""Aspect-ratio buckets: a few sizes of about the same area, so that photographs need little cropping."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from lsdr.data.problem import BadImageError


def bucket_sizes(resolution: int, step: int = 64, max_ratio: float = 2.0) -> list[tuple[int, int]]:
    r"""Sizes of which none can grow by a step without leaving the area of a square of side `resolution`.

    .. math:: h, w \in s\,\mathbb{N}, \qquad h w \le r^2, \qquad \max(h / w, w / h) \le \rho

    and no size of the list fits within another. The list is closed under exchanging height and width and is sorted
    from the widest to the highest.

    Source: NovelAI, Improvements on Stable Diffusion (2022), "Aspect Ratio Bucketing". Deviation: there sides are
    bounded by 1024 and a square is added; here the ratio is bounded, and the largest square belongs to the list by
    its area.

    Args:
        resolution: r, pixels.
        step: s, pixels: what every side is a multiple of.
        max_ratio: ρ, the largest ratio of the sides.

    Returns:
        (height, width) of each bucket.

    Raises:
        ValueError: If no size fits: `resolution` below `step`, or `max_ratio` below 1.

    Example:
        >>> bucket_sizes(512)
        [(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)]
    """
    if step < 1 or resolution < step or max_ratio < 1:
        raise ValueError(
            f"expected resolution >= step >= 1 and max_ratio >= 1, came resolution={resolution}, step={step}, "
            f"max_ratio={max_ratio}; choose a resolution of {step} or more"
        )
    area = resolution**2
    # Counting by integers: hw <= r^2 and the ratio hold exactly.
    longest = min(area // step, math.isqrt(math.floor(area * max_ratio)) + step)
    fitting = {
        (height, width)
        for height in range(step, longest + 1, step)
        for width in range(step, area // height + 1, step)
        if max(height, width) <= max_ratio * min(height, width)
    }
    largest = {
        (height, width)
        for height, width in fitting
        if not {(height + step, width), (height, width + step), (height + step, width + step)} & fitting
    }
    return sorted(size for size in largest if not any(_within(size, other) for other in largest))


def nearest_bucket(height: int, width: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    r"""The bucket whose aspect ratio is nearest to an image's.

    .. math:: \arg\min_{(H, W)} \left| \log \frac{h}{w} - \log \frac{H}{W} \right|

    The logarithm treats portrait and landscape alike and measures the share of the picture that is cut off. Of two
    equally near ones the larger in area is taken, then the first.

    Source: NovelAI, Improvements on Stable Diffusion (2022). Deviation: the logarithm of the ratio, not the ratio.

    Args:
        height: The image's height, in any unit.
        width: Its width, in the same unit.
        sizes: (height, width) of the buckets.

    Raises:
        ValueError: If there are no buckets, or a side is not positive.

    Example:
        >>> nearest_bucket(2000, 3000, bucket_sizes(512))
        (384, 640)
    """
    if not sizes or min(height, width) < 1:
        raise ValueError(f"expected buckets and a positive size, came {len(sizes)} bucket(s) and {height}x{width}")
    ratio = math.log(height / width)
    # Rounded, so that a picture exactly between two ratios does not depend on the last digit of a logarithm.
    return min(sizes, key=lambda size: (round(abs(ratio - math.log(size[0] / size[1])), 12), -size[0] * size[1]))


def fit_bucket(image: Image.Image, size: tuple[int, int]) -> tuple[UInt8[NDArray[np.uint8], "3 h w"], tuple[int, int]]:
    """Scale an image until it just covers a bucket and cut out the centre.

    Scaling is antialiased (Lanczos, after a box reduction where the image is more than three times too large), as in
    `lsdr.data.decode.fit`.

    Args:
        image: An image of mode ``"L"`` or ``"RGB"``.
        size: (height, width) of the result.

    Returns:
        RGB pixels, shape (3, height, width), and the (top, left) corner of the cut in the scaled image, pixels.

    Raises:
        BadImageError: If the image would have to be enlarged.

    Example:
        >>> pixels, corner = fit_bucket(Image.new("RGB", (90, 40)), (32, 64))
        >>> pixels.shape, corner
        ((3, 32, 64), (0, 4))
    """
    height, width = size
    # As a fraction: in floating point the window could reach past the edge, and the corner miss a pixel.
    scale = max(Fraction(height, image.height), Fraction(width, image.width))
    if scale > 1:
        raise BadImageError(
            "too_small",
            f"{image.width}x{image.height} (width x height) would have to be enlarged to {width}x{height}, which blurs "
            f"it; choose a lower resolution",
        )
    # The window of the original that the cut shows; cutting first computes no pixel that is thrown away.
    left, top = (image.width - width / scale) / 2, (image.height - height / scale) / 2
    if scale < 1:
        window = (float(left), float(top), float(left + width / scale), float(top + height / scale))
        image = image.resize((width, height), Image.Resampling.LANCZOS, box=window, reducing_gap=3.0)
    else:
        image = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    pixels = np.array(np.asarray(image.convert("RGB")).transpose(2, 0, 1), order="C")
    return pixels, (int(top * scale), int(left * scale))


def _within(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return size != other and size[0] <= other[0] and size[1] <= other[1]
