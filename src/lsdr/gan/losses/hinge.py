"""The hinge loss."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from lsdr.gan.losses.loss import Loss, paired, single


def discriminator_loss(real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    r"""The discriminator's loss: a margin of 1 on either side, beyond which nothing is gained.

    .. math:: \ell_D = \max(0, 1 - D(x)) + \max(0, 1 + D(G(z)))

    Not negative; 2 where all logits are 0. Source: Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018,
    arXiv:1802.05957, eq. 16.

    Args:
        real: Logits of real examples, shape (b,).
        fake: Logits of generated ones, shape (b,).

    Raises:
        ValueError: If they are not vectors of one length.
    """
    real, fake = paired(real, fake)
    return relu(1 - real) + relu(1 + fake)


def generator_loss(real: Float[Tensor, "..."] | None, fake: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    r"""The generator's loss, without bounds.

    .. math:: \ell_G = -D(G(z))

    Source: Miyato et al. 2018, eq. 17.

    Args:
        real: Not needed.
        fake: Logits of generated examples.

    Raises:
        ValueError: If they are not a vector.
    """
    return -single(fake)


hinge = Loss(discriminator_loss, generator_loss, relativistic=False)
"""max(0, 1 - D(x)) + max(0, 1 + D(G(z))) against -D(G(z))."""
