"""Light, colour, blur, noise and mirror images, for any number of channels in [0, 1]."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from lsdr.representation.inputs import Inputs
from lsdr.representation.views.pixel_noise import normal
from lsdr.representation.views.step import Draws, Step, amount, keys, signed, uniform

_KNOTS = 512


def change_pixels(name: str, strength: float, channels: int, exact: bool = False) -> Step:
    """The step for a transformation of pixels that stay where they are, or are mirrored.

    Args:
        name: One of `PIXELS`.
        strength: In the units of `lsdr.representation.views.catalogue`.
        channels: Of the images.
        exact: Whether it is done at exactly this strength instead of up to it.
    """
    draw, apply = _PIXELS[name]
    return Step(partial(draw, strength, exact, channels), partial(_apply, apply))


def _apply(change: Callable[[Tensor, Draws], Tensor], inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    image = inputs["image"]
    return {**inputs, "image": change(image, draws).to(image.dtype)}


def _each(value: Tensor) -> Tensor:
    return value[:, None, None, None]


def _mean(image: Tensor) -> Tensor:
    """Of each image, shape (n, 1, 1, 1): summed in whole multiples of 2^-24, so that no order of summing matters."""
    total = (image * 2**24).round().to(torch.int64).sum((1, 2, 3), keepdim=True)
    return (total.to(torch.float64) / (2**24 * image.shape[1:].numel())).to(image.dtype)


def _draw_factor(
    strength: float, exact: bool, channels: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    return {"factor": 1 + strength * signed(count, generator, exact)}


def _draw_lighting(
    strength: float, exact: bool, channels: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    return {each: 1 + strength * signed(count, generator, exact) for each in ("brightness", "contrast")}


def _brighten(image: Tensor, factor: Tensor) -> Tensor:
    return (image * _each(factor)).clamp(0, 1)


def _stretch(image: Tensor, factor: Tensor) -> Tensor:
    mean = _mean(image)
    return ((image - mean) * _each(factor) + mean).clamp(0, 1)


def _brightness(image: Tensor, draws: Draws) -> Tensor:
    return _brighten(image, draws["factor"])


def _contrast(image: Tensor, draws: Draws) -> Tensor:
    return _stretch(image, draws["factor"])


def _light(image: Tensor, draws: Draws) -> Tensor:
    return _stretch(_brighten(image, draws["brightness"]), draws["contrast"])


def _draw_gamma(
    strength: float, exact: bool, channels: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    power = (1 + strength) ** signed(count, generator, exact)
    knots = torch.linspace(0, 1, _KNOTS + 1, device=generator.device)
    return {"table": knots ** (2 * power[:, None])}


def _raise(image: Tensor, draws: Draws) -> Tensor:
    # x^g is (sqrt x)^(2g), whose exponent is 1 or more: smooth enough for straight lines between knots (error < 5e-5).
    table = draws["table"]
    place = image.clamp(0, 1).sqrt().flatten(1) * _KNOTS
    knot = place.long().clamp(0, _KNOTS - 1)  # also of what is no number, which stays none
    share = place - knot
    raised = table.gather(1, knot) * (1 - share) + table.gather(1, knot + 1) * share
    return raised.view_as(image)


def _draw_colour(
    strength: float, exact: bool, channels: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    return {"gains": 1 + strength * signed(count, generator, exact, channels)}


def _tint(image: Tensor, draws: Draws) -> Tensor:
    return (image * draws["gains"][:, :, None, None]).clamp(0, 1)


def _draw_chance(
    strength: float, exact: bool, channels: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    return {"chosen": uniform(count, generator) < strength}


def _grey(image: Tensor, draws: Draws) -> Tensor:
    total = torch.zeros_like(image[:, :1])
    for channel in image.split(1, dim=1):  # in one order
        total = total + channel
    return torch.where(_each(draws["chosen"]), total / image.shape[1], image)


def _flip(image: Tensor, draws: Draws) -> Tensor:
    return torch.where(_each(draws["chosen"]), image.flip(-1), image)


def _draw_blur(
    strength: float, exact: bool, channels: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    radius = math.ceil(3 * strength)
    deviation = (strength * amount(count, generator, exact)).clamp_min(1e-3)[:, None]
    taps = torch.arange(-radius, radius + 1, device=generator.device)
    kernel = (-(taps**2) / (2 * deviation**2)).exp()
    return {"kernel": kernel / kernel.sum(1, keepdim=True)}


def _blur(image: Tensor, draws: Draws) -> Tensor:
    # Shifted copies added up one by one: a library's convolution may take another algorithm for another batch size.
    kernel = draws["kernel"]
    radius = kernel.shape[1] // 2
    for dim, padding in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        padded, size = F.pad(image, padding, mode="replicate"), image.shape[dim]
        image = torch.zeros_like(image)
        for tap in range(kernel.shape[1]):
            image = image + padded.narrow(dim, tap, size) * _each(kernel[:, tap])
    return image


def _draw_noise(
    strength: float, exact: bool, channels: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    return {"deviation": strength * amount(count, generator, exact), "key": keys(count, generator)}


def _disturb(image: Tensor, draws: Draws) -> Tensor:
    noise = normal(draws["key"], image.shape[1:].numel()).view_as(image)
    return (image + _each(draws["deviation"]) * noise).clamp(0, 1)


_Draw = Callable[[float, bool, int, int, torch.Generator], dict[str, Tensor]]
_PIXELS: dict[str, tuple[_Draw, Callable[[Tensor, Draws], Tensor]]] = {
    "lighting": (_draw_lighting, _light),
    "brightness": (_draw_factor, _brightness),
    "contrast": (_draw_factor, _contrast),
    "gamma": (_draw_gamma, _raise),
    "colour": (_draw_colour, _tint),
    "grey": (_draw_chance, _grey),
    "flip": (_draw_chance, _flip),
    "blur": (_draw_blur, _blur),
    "noise": (_draw_noise, _disturb),
}
PIXELS = tuple(_PIXELS)
