"""Gradient penalties of the discriminator: R1 on real examples, R2 on generated ones."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor] | Float[Tensor, "..."], x: Float[Tensor, "b *dims"], *, every: int = 1
) -> Float[Tensor, " b"]:
    r"""The squared norm of the discriminator's gradient at each example, to be differentiated again.

    .. math:: p_n = k \, \lVert \nabla_{x_n} D(x_n) \rVert^2

    Add :math:`\gamma / 2` times its mean to the discriminator's loss: R1 if x is real, R2 if x is generated. In squared
    units of the logit over those of x. Examples must not see each other in D (no batch statistics); a logit that
    several share (`pack`) is differentiated for each of its parts, whose penalties add up to the logit's. Cost: about
    two more passes through D; with a function in place of logits another forward pass.

    Lazy penalties: taken in one of k steps only, with `every` = k, its expectation is the same and the cost a k-th.
    The proofs of local convergence are for a penalty in every step, and R3GAN's comparisons too; beside R2 or a
    relativistic loss, a generated example that the gradient explodes at between two penalties can end the training:
    leave `every` at 1 there.

    Source: R1, Mescheder et al. 2018, arXiv:1801.04406, eq. 9; R2, its eq. 10; both in every step, Huang et al. 2025,
    arXiv:2501.05441, section 2.2. Lazy: Karras et al. 2020, arXiv:1912.04958, section 3.1.

    Args:
        discriminator: Logits of x, computed from an x that required grad then (the forward pass that the loss needs
            anyway); or D itself, a function from examples to logits, which is then called with a copy of x.
        x: Examples.
        every: One in how many steps the penalty is taken, 1 or more: its factor k.

    Returns:
        One number an example, in float32 or better; with a graph unless gradients are switched off.

    Raises:
        ValueError: If `every` is less than 1, or logits came without a graph to x.

    Example:
        >>> gradient_penalty(lambda x: 3 * x[:, 0] + x[:, 1].square(), torch.tensor([[0.0, 0.0], [5.0, 2.0]])).tolist()
        [9.0, 25.0]
        >>> discriminator = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> real = torch.randn(16, 2).requires_grad_()
        >>> logits = discriminator(real)[:, 0]
        >>> loss = (torch.nn.functional.softplus(-logits) + 0.1 / 2 * gradient_penalty(logits, real)).mean()
        >>> loss.backward()
    """
    if every < 1:
        raise ValueError(f"every must be 1 or more, got {every}: one in how many steps the penalty is taken")
    keep = torch.is_grad_enabled()
    if isinstance(discriminator, Tensor):
        logits = discriminator
        if not (x.requires_grad and logits.requires_grad):
            raise ValueError(
                "expected logits computed from this x with x.requires_grad_(), got "
                f"{'an x that requires no grad' if not x.requires_grad else 'logits without a graph'}; call "
                "x.requires_grad_() before the discriminator, outside torch.no_grad(), or give the discriminator itself"
            )
    else:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = discriminator(x)
    (gradient,) = torch.autograd.grad(logits, x, torch.ones_like(logits), create_graph=keep, retain_graph=True)
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return every * gradient.flatten(1).square().sum(1)
