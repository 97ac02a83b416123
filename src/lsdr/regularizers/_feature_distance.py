"""How far an estimate's coordinates are from where they may be."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.fourier.focal_weight import focal_weight
from lsdr.regularizers.spectral_features import Component, Coordinates


def feature_distance(
    estimate: Coordinates,
    target: Coordinates,
    clean: Coordinates,
    components: Sequence[Component],
    *,
    bracket: bool,
    band: Float[Tensor, "m"] | None,
    focal: float | int,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    r"""The penalty of each example by one feature, and the share of its coordinates that pay.

    .. math:: \frac{\sum_k w_k f_k \max(d_k - t_k, 0)^2}{\sum_k w_k}, \qquad d_k^2 = \sum_r q_r (c_{kr} - c'_{kr})^2

    with c' the target's coordinate where r is a magnitude, which noise makes smaller, and the clean image's where it is
    not; or, to `bracket`, the nearest number to c that is between the two. The gradient is finite everywhere, also
    where d = 0, and what is not a number comes through.

    Args:
        estimate: The estimate's coordinates c.
        target: Those of the noise-corrected clean image.
        clean: Those of the clean image.
        components: The factors q, and which are magnitudes.
        bracket: Whether all between target and clean image is right.
        band: The tolerance t of each coordinate; None is 0.
        focal: Power of the error in the detached weight f; 0 is no weight.
    """
    squared = torch.zeros_like(estimate.values[..., 0])
    for number, component in enumerate(components):
        c, right = estimate.values[..., number], (target if component.power else clean).values[..., number]
        if bracket:
            end = clean.values[..., number]
            right = c.detach().clamp(torch.minimum(right, end), torch.maximum(right, end))
        squared = squared + component.factor * (c - right).square()
    if band is None:
        inside = squared <= 0  # never for what is not a number
        excess = squared.clamp(min=0)  # a component's factor can be negative
    else:
        inside = squared <= band.square()
        excess = torch.where(inside, 0, (torch.where(inside, 1, squared).sqrt() - band).square())
    paid = excess * focal_weight(excess, focal) if focal else excess
    weight = estimate.weight
    return (paid * weight).sum(1) / weight.sum(), (~inside).to(paid).mean(1)
