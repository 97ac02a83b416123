"""Consistency: what does not change an example must not change what the discriminator thinks of it."""

import torch
from jaxtyping import Float
from torch import Tensor


def consistency(logits: Float[Tensor, "..."], transformed_logits: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    r"""The discriminator's squared change under a transformation.

    .. math:: \ell_n = (D(x_n) - D(T(x_n)))^2

    With real examples this is CR; with generated ones in addition, bCR; with x = G(z) and T(x) = G(z') of a latent
    moved a little (see `lsdr.gan.latent_noise`), the discriminator's part of zCR. Add a multiple to the discriminator's
    loss; the papers' 10 for CR and bCR, 5 for zCR. Not negative, in squared logits; a constant added to D changes
    nothing.

    Source: CR, Zhang et al. 2020, arXiv:1910.12027, section 2, at the logit; bCR and zCR, Zhao et al. 2020,
    arXiv:2002.04724, algorithms 1 and 2.

    Args:
        logits: Of the examples as they are, shape (b,).
        transformed_logits: Of the same examples transformed, in the same order.

    Raises:
        ValueError: If they are not vectors of one length.

    Example:
        >>> consistency(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
        tensor([0., 4.])
    """
    if logits.ndim != 1 or logits.shape != transformed_logits.shape:
        raise ValueError(
            f"expected logits of the same examples twice, shape (b,), got {tuple(logits.shape)} and "
            f"{tuple(transformed_logits.shape)}"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return (logits.to(dtype) - transformed_logits.to(dtype)).square()


def latent_spread(examples: Float[Tensor, "b *dims"], moved: Float[Tensor, "..."]) -> Float[Tensor, " b"]:
    r"""The generator's part of zCR: what it should do with a latent moved a little, namely give something else.

    .. math:: \ell_n = -\tfrac{1}{d} \lVert G(z_n) - G(z'_n) \rVert^2

    Negative and without lower bound: with too large a weight samples leave the data. The paper's weight is 0.5.

    Source: Zhao et al. 2020, arXiv:2002.04724, algorithm 2, with the mean over the d dimensions in place of the sum.

    Args:
        examples: G(z).
        moved: G(z').

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> latent_spread(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))
        tensor([-5.])
    """
    if examples.shape != moved.shape:
        raise ValueError(f"expected two sets of one shape, got {tuple(examples.shape)} and {tuple(moved.shape)}")
    dtype = torch.promote_types(examples.dtype, torch.float32)
    return -(examples.to(dtype) - moved.to(dtype)).square().flatten(1).mean(1)


def shift_and_flip(
    images: Float[Tensor, "b c h w"], uniform: Float[Tensor, "b 3"], reach: int = 4
) -> Float[Tensor, "b c h w"]:
    """Images shifted by a few pixels, half of them mirrored: CR's transformation.

    What comes in at an edge is the mirror image of what is beside it. Differentiable with respect to the images.

    Source: Zhang et al. 2020, arXiv:1910.12027, section 3.1 (horizontal flip and shift by a few pixels).

    Args:
        images: Images.
        uniform: Numbers in [0, 1) that decide, for each image: shift down, shift to the right, mirroring.
        reach: Longest shift in pixels, less than height and width.

    Raises:
        ValueError: If the reach is out of range.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0, 3.0]]]]).expand(1, 1, 3, 3)
        >>> shift_and_flip(image, torch.tensor([[0.5, 0.9, 0.9]]), reach=1)[0, 0, 0]
        tensor([2., 1., 2.])
    """
    height, width = images.shape[-2:]
    if not 0 <= reach < min(height, width):
        raise ValueError(f"reach must be from 0 to less than the {height} x {width} pixels, got {reach}")
    shifts = (uniform[:, :2] * (2 * reach + 1)).floor().long() - reach
    rows = _reflect(torch.arange(height, device=images.device) - shifts[:, :1], height)
    columns = _reflect(torch.arange(width, device=images.device) - shifts[:, 1:], width)
    columns = torch.where(uniform[:, 2:] < 0.5, width - 1 - columns, columns)
    examples = torch.arange(len(images), device=images.device)[:, None, None]
    # Indexed together, examples, rows and columns come first and channels last.
    return images[examples, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Positions beyond an end counted back from it: -1 is 1, size is size - 2."""
    return size - 1 - (size - 1 - index.abs()).abs()
