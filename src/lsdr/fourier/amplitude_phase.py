"""Distance of Fourier coefficients, split into amplitude and phase."""

import math
from typing import NamedTuple

from jaxtyping import Complex, Float
from torch import Tensor

from lsdr.fourier._real_fft import multiplicity, real_fft


class Coefficients(NamedTuple):
    """Fourier coefficients of real images, channels and frequencies in one axis (channels outermost)."""

    values: Complex[Tensor, "b m"]
    """Coefficients of the orthonormal transform, those that real images need."""
    multiplicity: Float[Tensor, "m"]
    """How often each stands in the full transform, 1 or 2; sums to the number of values in one example."""


def coefficients(images: Float[Tensor, "b c *dims"]) -> Coefficients:
    r"""Orthonormal Fourier coefficients of each image and how often each stands in the full transform.

    .. math:: \sum_k n_k |F_k|^2 = \sum x^2 \qquad \text{(Parseval)}

    with the multiplicity n_k, because the transform of a real image is its own mirror image. Half and bfloat16 images
    are computed in float32. Differentiable. Cost: one real FFT per channel.

    Args:
        images: Real audio, images, video or volumes of any size.

    Returns:
        The coefficients and their multiplicities.

    Raises:
        TypeError: If the images are not real floating-point numbers.
        ValueError: If they have not one to three axes beside examples and channels.

    Example:
        >>> import torch
        >>> images = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> values, multiplicity = coefficients(images)
        >>> values.shape, int(multiplicity.sum())
        (torch.Size([2, 45]), 60)
        >>> torch.allclose((multiplicity * values.abs() ** 2).sum(1), images.square().sum((1, 2, 3)))
        True
    """
    values = real_fft(images)
    often = multiplicity(tuple(images.shape[2:])).expand(images.shape[1], *values.shape[2:])
    return Coefficients(values.flatten(1), often.flatten().to(values.real))


def amplitude_phase_distance(
    a: Complex[Tensor, "b m"], b: Complex[Tensor, "b m"], *, amplitude: float | int = 1, phase: float | int = 1
) -> Float[Tensor, "b m"]:
    r"""Squared distance of coefficients with weights of its own for amplitude and for phase.

    .. math::
        d = \alpha (A - A')^2 + \varphi\, 2 A A' (1 - \cos \Delta) = \varphi |F - F'|^2 + (\alpha - \varphi) (A - A')^2

    with A = |F|, A' = |F'|, the angle Delta between F and F', alpha = `amplitude` and phi = `phase`. It is computed by
    the right-hand side: no angle is taken, so there is no branch cut, and a coefficient that is zero, where the phase
    is undefined, has a finite gradient. With equal weights it is their multiple of \|F - F'\|^2, whose mean over the
    full transform is the mean squared error of the images (Parseval). Units: those of the images, squared; never
    negative. `phase=0` compares amplitudes alone, which a circular shift leaves as they are: never a loss of its own.

    Source: the amplitude and phase terms of Chandran et al., arXiv 2603.02447 (Eq. 14 and 15), which multiply two
    global L1 sums, so that their scale grows with the square of the number of pixels, and subtract angles, which jump
    at the branch cut. Here phase is weighted by the amplitudes, coefficient by coefficient, as the squared error does.

    Args:
        a: Coefficients, as of `coefficients`.
        b: Coefficients compared with them, of the same shape.
        amplitude: Weight of the squared difference of amplitudes.
        phase: Weight of what is left of the squared error where the amplitudes agree.

    Returns:
        The distance of each coefficient.

    Raises:
        ValueError: If a weight is negative or not finite.

    Example:
        >>> import torch
        >>> one, other = torch.tensor([[3 + 4j]]), torch.tensor([[-3 + 4j]])
        >>> amplitude_phase_distance(one, other, amplitude=1, phase=0).item()  # amplitudes are equal
        0.0
        >>> amplitude_phase_distance(one, other).item()  # |F - F'|^2
        36.0
    """
    for name, weight in (("amplitude", amplitude), ("phase", phase)):
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name} is the weight of a distance: expected a finite number >= 0, got {weight}")
    difference = a - b
    distance = phase * (difference.real.square() + difference.imag.square())
    if amplitude == phase:
        return distance
    # The gradient of abs at zero is zero. A negative result can only be rounding (parallel coefficients, amplitude=0).
    return (distance + (amplitude - phase) * (a.abs() - b.abs()).square()).clamp_min(0)
