"""Mode seeking: two latents that differ should give two examples that differ."""

import torch
from jaxtyping import Float
from torch import Tensor


def mode_seeking(
    first: Float[Tensor, "n *dims"],
    second: Float[Tensor, "..."],
    first_latents: Float[Tensor, "b latent"],
    second_latents: Float[Tensor, "..."],
    epsilon: float = 1e-5,
) -> Float[Tensor, " n"]:
    r"""What to add to the generator's loss so that it spreads its examples.

    .. math:: \ell = \frac{1}{r + \epsilon}, \qquad r = \frac{\operatorname{mean}_n \lvert G(z_n) - G(z'_n) \rvert}
        {\operatorname{mean}_n \lvert z_n - z'_n \rvert}

    with mean absolute differences over dimensions and examples. Unit: latents over examples. As an example's own share,

    .. math:: \ell_n = \ell - \frac{r_n - r}{(r + \epsilon)^2}

    with r held fixed, so that the mean over examples has both value and gradient of the published loss of the batch
    at hand (a micro-batch by itself). Taken pair by pair, 1 / r_n would explode at every two latents that
    rightly fall into one narrow mode.

    It rewards distance, not coverage: with a large weight samples leave the data.

    Source: Mao et al. 2019 (MSGAN), arXiv:1903.05628, section 3, in the inverted form of the published
    code.

    Args:
        first: Examples of the first latents.
        second: Examples of the second latents.
        first_latents: z.
        second_latents: z'.
        epsilon: Keeps the loss of a fully collapsed generator finite: 1 / epsilon.

    Raises:
        ValueError: If the shapes do not fit, or the latents are the same.

    Example:
        >>> z = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [3.0]])
        >>> mode_seeking(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [3.0, 3.0]]), *z).mean()
        tensor(1.0000)
    """
    if first.shape != second.shape or first_latents.shape != second_latents.shape or len(first) != len(first_latents):
        raise ValueError(
            "expected two sets of examples and their latents, of the same shapes, got "
            f"{[tuple(x.shape) for x in (first, second, first_latents, second_latents)]}"
        )
    dtype = torch.promote_types(first.dtype, torch.float32)
    latents = (first_latents.detach().to(dtype) - second_latents.detach().to(dtype)).abs().mean()
    if latents.device.type == "cpu" and latents == 0:  # a GPU would have to be waited for
        raise ValueError("expected two different sets of latents, got the same twice; draw the second anew")
    ratios = (first.to(dtype) - second.to(dtype)).abs().flatten(1).mean(1) / latents
    slack = ratios.detach().mean() + epsilon
    return 1 / slack - (ratios - ratios.detach().mean()) / slack.square()
