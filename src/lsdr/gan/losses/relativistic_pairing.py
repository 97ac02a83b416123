"""The relativistic pairing loss (RpGAN)."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from lsdr.gan.losses.loss import Loss, paired


def discriminator_loss(real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    r"""The discriminator's loss: each real example should have a higher logit than the fake one beside it.

    .. math:: \ell_D = \operatorname{softplus}(-(D(x) - D(G(z))))

    Positive; ln 2 where it cannot tell. A constant added to D changes nothing, so the sign of D(x) has no meaning here.
    Judging each generated example beside a real one, it leaves a generator that has dropped modes no bad minimum to
    rest in, where losses of single logits have very many (Sun, Fang & Schwing 2020, arXiv:2011.04926). Alone it need
    not converge: with R1 and R2 (`gradient_penalty`) it does so locally.

    Source: Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2025 (R3GAN), arXiv:2501.05441, section 2.

    Args:
        real: Logits of real examples, shape (b,).
        fake: Logits of generated ones, in any order.

    Raises:
        ValueError: If they are not vectors of one length.
    """
    real, fake = paired(real, fake)
    return softplus(fake - real)


def generator_loss(real: Float[Tensor, "..."] | None, fake: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    r"""The generator's loss: its examples should have higher logits than the real ones beside them.

    .. math:: \ell_G = \operatorname{softplus}(-(D(G(z)) - D(x)))

    Source: as `discriminator_loss`.

    Args:
        real: Logits of real examples; they need no gradient.
        fake: Logits of generated ones.

    Raises:
        ValueError: If there are no real logits, or they are not vectors of one length.
    """
    if real is None:
        raise ValueError("the relativistic loss compares with real examples: give the generator's loss their logits")
    real, fake = paired(real, fake)
    return softplus(real - fake)


relativistic_pairing = Loss(discriminator_loss, generator_loss, relativistic=True)
"""softplus(-(D(x) - D(G(z)))) against softplus(-(D(G(z)) - D(x)))."""
