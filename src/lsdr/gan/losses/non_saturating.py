"""The non-saturating loss of the first GAN."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from lsdr.gan.losses.loss import Loss, paired, single


def discriminator_loss(real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    r"""The discriminator's loss: two cross-entropies, in nats.

    .. math:: \ell_D = \operatorname{softplus}(-D(x)) + \operatorname{softplus}(D(G(z))), \quad
        \operatorname{softplus}(a) = \ln(1 + e^a)

    Positive; 2 ln 2 where it cannot tell. Source: Goodfellow et al. 2014, arXiv:1406.2661, eq. 1, on logits.

    Args:
        real: Logits of real examples, shape (b,).
        fake: Logits of generated ones, shape (b,).

    Raises:
        ValueError: If they are not vectors of one length.
    """
    real, fake = paired(real, fake)
    return softplus(-real) + softplus(fake)


def generator_loss(real: Float[Tensor, "..."] | None, fake: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    r"""The generator's loss: minus the log probability that its examples are taken for real.

    .. math:: \ell_G = \operatorname{softplus}(-D(G(z)))

    Its gradient does not vanish where the discriminator is sure. Source: Goodfellow et al. 2014, section 3.

    Args:
        real: Not needed.
        fake: Logits of generated examples.

    Raises:
        ValueError: If they are not a vector.
    """
    return softplus(-single(fake))


non_saturating = Loss(discriminator_loss, generator_loss, relativistic=False)
"""softplus(-D(x)) + softplus(D(G(z))) against softplus(-D(G(z)))."""
