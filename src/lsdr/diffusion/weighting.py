"""How much each noise level counts: weights on ||D(x, sigma) - clean||^2.

Every weight is a function of sigma alone and lives in clean-sample space, so it applies to any parametrisation. Weights
are for sigma > 0 and stay finite as sigma grows without bound (zero terminal signal-to-noise ratio).
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.denoiser import Denoiser


def edm_weight(sigma: Float[Tensor, "..."], sigma_data: float = 0.5) -> Float[Tensor, "..."]:
    r"""EDM's weight: the loss of the preconditioned network has unit scale at every noise level.

    .. math:: \lambda(\sigma) = \frac{\sigma^2 + \sigma_d^2}{(\sigma\,\sigma_d)^2} = \sigma_d^{-2} + \sigma^{-2}

    Source: Karras et al. 2022, Table 1.

    Args:
        sigma: Noise levels.
        sigma_data: The standard deviation of the data.

    Returns:
        Weights, shaped like sigma.

    Example:
        >>> import torch
        >>> edm_weight(torch.tensor([0.5, torch.inf]))
        tensor([8., 4.])
    """
    return sigma.square().reciprocal() + 1 / sigma_data**2


def min_snr_weight(sigma: Float[Tensor, "..."], gamma: float = 5.0) -> Float[Tensor, "..."]:
    r"""Min-SNR-gamma: the signal-to-noise ratio, cut off at gamma.

    .. math:: w(\sigma) = \min(\sigma^{-2}, \gamma), \qquad \mathrm{SNR} = \sigma^{-2}

    This is the weight on the clean sample. The same loss on the noise has weight min(SNR, gamma) / SNR, on the velocity
    min(SNR, gamma) / (SNR + 1). Written this way there is nothing to divide by at zero terminal signal-to-noise ratio,
    where those two forms, as commonly coded, give 0 / 0.

    Source: Hang et al. 2023, "Efficient diffusion training via Min-SNR weighting strategy", section 3.4.

    Args:
        sigma: Noise levels.
        gamma: The cut-off; the paper's 5.

    Returns:
        Weights, shaped like sigma.

    Example:
        >>> import torch
        >>> min_snr_weight(torch.tensor([0.0, 0.1, 1.0, torch.inf]))
        tensor([5., 5., 1., 0.])
    """
    return sigma.square().reciprocal().clamp(max=gamma)


def _edm(denoiser: Denoiser, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return edm_weight(sigma, getattr(denoiser, "sigma_data", 0.5))


def _min_snr(denoiser: Denoiser, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return min_snr_weight(sigma)


def _uniform(denoiser: Denoiser, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return denoiser.uniform_weight(sigma)


WEIGHTINGS: dict[str, Callable[[Denoiser, Tensor], Tensor]] = {
    "edm": _edm,
    "min_snr": _min_snr,
    "uniform": _uniform,
}
"""Weightings by name, each a function of (denoiser, sigma); "uniform" is uniform in what the network predicts."""
