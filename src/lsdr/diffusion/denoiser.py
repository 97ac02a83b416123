"""What a denoiser is, and the two lines that every denoiser begins with."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Conditioning: TypeAlias = Int[Tensor, "..."] | Mapping[str, Any] | None
"""Class labels, one per example; or what the network is given by keyword, tensors with one entry per example (see
`lsdr.diffusion.call_model`); or nothing."""


@runtime_checkable
class Denoiser(Protocol):
    r"""D(x, sigma, conditioning): the estimate of the clean images behind noisy ones.

    The frame is variance-exploding for every parametrisation, :math:`x = x_0 + \sigma\,\epsilon`: adapters scale the
    input for their network and turn the network's prediction into an estimate of :math:`x_0`. So losses, weightings,
    samplers and spectral measures are written once.
    """

    @property
    def model(self) -> Any:
        """The network, possibly wrapped (DDP, torch.compile)."""

    @property
    def sigma_min(self) -> float:
        """The smallest noise level the network is meant for."""

    @property
    def sigma_max(self) -> float:
        """The largest noise level the network is meant for; finite, also at zero terminal signal-to-noise ratio."""

    def __call__(
        self,
        x: Float[Tensor, "b *dims"],
        sigma: Float[Tensor, "..."],
        conditioning: Conditioning = None,
    ) -> Float[Tensor, "b *dims"]:
        """Estimate the clean images."""

    def draw_sigma(self, uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Turn uniform numbers in [0, 1) into noise levels of the published training distribution."""

    def uniform_weight(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The weight on ||D - x0||^2 that is a plain squared error of the network's own prediction."""


def prepare(
    x: Float[Tensor, "b *dims"], sigma: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "b *dims"], Float[Tensor, " b"]]:
    """Check a denoiser's input; give x in float32 or better and one sigma per example in the same precision.

    Preconditioning is float32 whatever autocast says: only the network runs in half precision. The values of sigma are
    checked where that is free, on a CPU tensor outside `torch.compile`; on an accelerator reading them would stall the
    device at every call, and a NaN there shows up in the loss.

    Args:
        x: Noisy images, any floating type.
        sigma: Noise levels, 0-d (one for all) or one per example.

    Returns:
        x and sigma, sigma of shape (b,).

    Raises:
        ValueError: If sigma has another shape, or (CPU only) is negative, infinite or NaN.

    Example:
        >>> x, sigma = prepare(torch.zeros(2, 1, 4, 4, dtype=torch.bfloat16), torch.tensor(0.5))
        >>> x.dtype, sigma
        (torch.float32, tensor([0.5, 0.5]))
    """
    if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) != len(x)):
        raise ValueError(
            f"sigma has shape {tuple(sigma.shape)} for a batch of {len(x)}; pass one noise level (0-d) "
            f"or one per example, shape ({len(x)},)"
        )
    if sigma.device.type == "cpu" and not torch.compiler.is_compiling():
        good = (sigma >= 0) & (sigma < torch.inf)  # NaN fails both
        if not bool(good.all()):
            raise ValueError(f"sigma must be finite and not negative, got {sigma.tolist()}; noise levels are >= 0")
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x, sigma.to(x).expand(len(x))


def per_example(values: Float[Tensor, " b"], like: Float[Tensor, "b *dims"]) -> Float[Tensor, "b ..."]:
    """Reshape one number per example so that it multiplies images.

    Example:
        >>> per_example(torch.ones(2), torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 1, 1, 1])
    """
    return values.reshape(-1, *([1] * (like.ndim - 1)))


def open_interval(uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Keep uniform numbers off 0 and 1, where an inverse CDF is infinite.

    `torch.rand` in float32 gives multiples of 2^-24, zero among them: half a step from the ends moves nothing else.

    Example:
        >>> open_interval(torch.tensor([0.0, 0.5, 1.0])).log2()
        tensor([-2.5000e+01, -1.0000e+00, -8.5991e-08])
    """
    return uniform.to(torch.promote_types(uniform.dtype, torch.float32)).clamp(2.0**-25, 1 - 2.0**-24)
