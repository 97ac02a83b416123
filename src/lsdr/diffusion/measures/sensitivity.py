"""How strongly a sampler's output responds to a small change of its noise, on average."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.probes.conditioning import Given, each_tensor

STEP = {torch.float64: 1e-5, torch.float32: 3e-3, torch.bfloat16: 1e-1, torch.float16: 1e-1}
"""Size per pixel (root mean square) of a finite difference of unit-normal noise, by precision: large against rounding
in a chain of network evaluations, small against the noise itself."""


@torch.no_grad()
def sensitivity(
    sample: Callable[..., Tensor],
    noise: Float[Tensor, "n ..."],
    *,
    conditioning: Given = None,
    step: float | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n"]:
    r"""Mean response of a sampler to a small random change of its noise, for each image.

    .. math::
        S = \mathbb{E}_v \frac{\|f(z + h v) - f(z - h v)\|}{2 h \|v\|},
        \qquad v \sim \mathrm{uniform\ on\ the\ sphere\ } \|v\| = \sqrt{d}

    where f maps unit-normal noise z to a sample. Non-negative. One direction per image: the mean over images estimates
    E||dx||/||dz||, which is near :math:`\|J\|_F/\sqrt{d}`, the root mean square singular value of the sampler's
    Jacobian. A sampler that reproduces a Gaussian of standard deviation s scores s, so smaller is not better by itself:
    one that ignores its noise scores 0. Read it beside diversity. An estimate; the central difference errs by O(h^2).
    h is 1e-5 in float64, 3e-3 in float32 and 1e-1 in half precision (`STEP`), because rounding grows like 1/h. Cost:
    two samples per image.

    Source: E||dx||/||dz|| as in the interpolation measure of Smooth Diffusion, arXiv 2312.04410, but in the limit of
    small steps instead of along an interpolation path.

    Args:
        sample: Maps unit-normal noise to samples, one image independent of another; called as sample(noise), or as
            sample(noise, conditioning) if there is any.
        noise: Where to measure.
        conditioning: What each image is conditioned on, the same for the image and its neighbours.
        step: Size per pixel of the difference, if not the one that fits the precision.
        generator: Source of the directions.

    Returns:
        The ratio for each image.

    Raises:
        ValueError: If the step is not positive.

    Example:
        >>> ratio = sensitivity(lambda noise: 3 * noise, torch.randn(5, 1, 4, 4, dtype=torch.float64))
        >>> round(float(ratio.mean()), 6)
        3.0
    """
    step = STEP[noise.dtype] if step is None else step
    if step <= 0:
        raise ValueError(f"step must be positive, got {step}")
    direction = torch.randn(noise.shape, generator=generator, dtype=torch.float64).to(noise.device)
    direction *= direction[0].numel() ** 0.5 / _norm(direction).view(-1, *[1] * (noise.ndim - 1))
    change = (step * direction).to(noise.dtype)
    above, below = noise + change, noise - change
    # What was applied after rounding, not what was meant.
    applied = _norm(above.double() - below.double())
    given = () if conditioning is None else (each_tensor(lambda name, each: torch.cat([each, each]), conditioning),)
    up, down = sample(torch.cat([above, below]), *given).double().chunk(2)
    response: Tensor = _norm(up - down) / applied
    return response


def _norm(images: Float[Tensor, "n ..."]) -> Float[Tensor, "n"]:
    """Euclidean norm of each image."""
    norms: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return norms
