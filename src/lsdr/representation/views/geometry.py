"""Rotation, scale, shift and crop of images: affine maps, joined into one resampling."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lsdr.representation.inputs import Inputs
from lsdr.representation.views.step import Draws, Step, amount, signed, uniform

Affine = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""(a, b, c, d, x, y), each (n,): where a pixel of the result is found, (x', y') = (a x + b y + x, c x + d y + y), in
pixels from the image's centre."""


def resampling(parts: Sequence[tuple[str, float]], exact: bool = False) -> Step:
    """One step for several transformations after one another: every pixel is interpolated once (bilinear).

    Beyond its edges an image goes on in one colour, the median of its outermost pixels: the background where there is
    one. (Mirror images would put several digits into a picture of one that is made smaller.)

    Args:
        parts: Names of `GEOMETRY` with their strengths, in the order in which they are done.
        exact: Whether each is done at exactly its strength instead of up to it.
    """
    return Step(partial(_draw, tuple(parts), exact), partial(_apply, tuple(name for name, _ in parts)))


def _draw(
    parts: tuple[tuple[str, float], ...], exact: bool, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": _DRAW[name](strength, exact, count, generator)
        for number, (name, strength) in enumerate(parts)
    }


def _apply(names: tuple[str, ...], inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    from kornia.geometry.transform import remap  # takes a third of a second

    image = inputs["image"]
    height, width = image.shape[-2:]
    a, b, c, d, x, y = _joined(names, draws, height, width)
    across = _from_centre(width, image)
    down = _from_centre(height, image)[:, None]
    columns = _each(a) * across + _each(b) * down + _each(x) + (width - 1) / 2
    lines = _each(c) * across + _each(d) * down + _each(y) + (height - 1) / 2
    columns, lines = columns.to(image.dtype), lines.to(image.dtype)
    beyond = _edge_colour(image)
    moved = remap(image - beyond, columns, lines, mode="bilinear", padding_mode="zeros", align_corners=True)
    return {**inputs, "image": (moved + beyond).clamp(0, 1)}


def _edge_colour(image: Tensor) -> Tensor:
    edges = [image[:, :, 0], image[:, :, -1], image[:, :, :, 0], image[:, :, :, -1]]
    return torch.cat(edges, 2).median(2).values[:, :, None, None]


def _from_centre(size: int, image: Tensor) -> Tensor:
    return torch.arange(size, dtype=torch.float32, device=image.device) - (size - 1) / 2


def _each(value: Tensor) -> Tensor:
    return value[:, None, None]


def _joined(names: Sequence[str], draws: Draws, height: int, width: int) -> Affine:
    maps = [_AFFINE[name](draws[f"{number}.{name}"], height, width) for number, name in enumerate(names)]
    joined = maps[0]
    for after in maps[1:]:
        # The pixel p of the last result is found at M2 p of the one before, and that at M1 M2 p of the image.
        a, b, c, d, x, y = joined
        e, f, g, h, u, v = after
        joined = (a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h, a * u + b * v + x, c * u + d * v + y)
    return joined


def _rotation(strength: float, exact: bool, count: int, generator: torch.Generator) -> Tensor:
    angle = torch.deg2rad(strength * signed(count, generator, exact))
    return torch.stack([angle.cos(), angle.sin()], 1)


def _rotate(draw: Tensor, height: int, width: int) -> Affine:
    cosine, sine = draw.unbind(1)
    zero = torch.zeros_like(sine)
    # Lines are counted downwards, so this turns a picture counter-clockwise by a positive angle.
    return cosine, -sine, sine, cosine, zero, zero


def _scale(strength: float, exact: bool, count: int, generator: torch.Generator) -> Tensor:
    return (1 + strength) ** signed(count, generator, exact)


def _magnify(draw: Tensor, height: int, width: int) -> Affine:
    zero = torch.zeros_like(draw)
    return 1 / draw, zero, zero, 1 / draw, zero, zero


def _shift(strength: float, exact: bool, count: int, generator: torch.Generator) -> Tensor:
    return strength * signed(count, generator, exact, 2)


def _move(draw: Tensor, height: int, width: int) -> Affine:
    one, zero = torch.ones_like(draw[:, 0]), torch.zeros_like(draw[:, 0])
    return one, zero, zero, one, draw[:, 0] * width, draw[:, 1] * height


def _crop(strength: float, exact: bool, count: int, generator: torch.Generator) -> Tensor:
    area = 1 - strength * amount(count, generator, exact)
    # Aspects between 3:4 and 4:3, as is usual, so far as the area leaves room for them.
    ratio = (4 / 3) ** (signed(count, generator, False) * (0.0 if exact else 1.0))
    wide = (area * ratio).sqrt().clamp(area, torch.ones_like(area))
    size = torch.stack([wide, area / wide], 1)
    corner = uniform(count, generator, 2) * (1 - size)
    return torch.cat([size, corner + size / 2 - 0.5], 1)


def _cut(draw: Tensor, height: int, width: int) -> Affine:
    wide, high, x, y = draw.unbind(1)
    zero = torch.zeros_like(wide)
    return wide, zero, zero, high, x * width, y * height


_DRAW: dict[str, Callable[[float, bool, int, torch.Generator], Tensor]] = {
    "rotation": _rotation,
    "scale": _scale,
    "shift": _shift,
    "crop": _crop,
}
_AFFINE: dict[str, Callable[[Tensor, int, int], Affine]] = {
    "rotation": _rotate,
    "scale": _magnify,
    "shift": _move,
    "crop": _cut,
}
GEOMETRY = tuple(_DRAW)
