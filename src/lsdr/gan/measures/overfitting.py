"""Signs of a discriminator that has learned its training examples by heart."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Discriminator = Callable[[Tensor], Tensor]
"""Maps examples (n, ...) to outputs (n,), or fewer if it judges packs; differentiable, without noise of training."""

_CLEAR = 3.0  # standard errors that a difference must exceed to be divided by


@dataclass(frozen=True, eq=False)
class Overfitting:
    """What a discriminator says of training examples, held-out ones and samples."""

    sign_real: float
    """Mean sign of D on training examples, the r_t of ADA; means nothing where the loss leaves D's level free, as
    relativistic losses do."""
    sign_relativistic: float
    """Mean sign of D(training example) - D(sample) over all pairs; -1 to 1, does not depend on D's level."""
    overfitting: float | None
    """(E D(train) - E D(held-out)) / (E D(train) - E D(sample)), the r_v of ADA; None where the discriminator does not
    tell samples from training examples."""
    heldout_gap: float
    """E D(train) - E D(held-out)."""
    heldout_gap_error: float
    """Its standard error."""
    gradient_norm_real: float
    """Mean norm of D's gradient by its input at training examples."""
    gradient_norm_fake: float
    """The same at samples."""
    largest_logit: float
    """Largest absolute output at training examples and samples."""
    train: Float[Tensor, " n"]
    """Outputs at training examples."""
    heldout: Float[Tensor, " m"]
    """Outputs at held-out examples."""
    fake: Float[Tensor, " k"]
    """Outputs at samples."""


def overfitting(
    discriminator: Discriminator,
    train: Float[Tensor, "n ..."],
    heldout: Float[Tensor, "m ..."],
    fake: Float[Tensor, "k ..."],
    *,
    batch: int = 250,
) -> Overfitting:
    r"""Compare a discriminator's outputs on training examples, held-out examples and samples.

    .. math::
        r_t = \mathbb E[\mathrm{sign} D_{train}], \qquad
        r_v = \frac{\mathbb E D_{train} - \mathbb E D_{val}}{\mathbb E D_{train} - \mathbb E D_{gen}}

    Without overfitting r_v is near 0; at 1 held-out examples look as false as samples. r_v and the sign of the
    difference do not change when a constant is added to D; r_t does, and a relativistic loss leaves that constant
    undetermined. Gradients: far larger at samples than at training examples they announce divergence, growing at both
    overfitting. The gradients of packs are those of their sum. Invisible: no parameter gets a gradient. Cost: one pass
    over all examples, and one back over training examples and samples.

    Source: r_t and r_v, Karras et al. 2020, arXiv:2006.06676, eq. (1); gradient norms as a sign of overfitting, Fang
    et al. 2022, arXiv:2205.14846.

    Args:
        discriminator: Maps examples to outputs.
        train: Examples it was trained on.
        heldout: Examples it was not trained on.
        fake: Samples, finite.
        batch: Examples in one call; a multiple of the packs' size.

    Returns:
        The measures and the outputs they are made of.

    Raises:
        ValueError: If there are fewer than two of a kind.

    Example:
        >>> points = torch.linspace(1, 2, 10).view(-1, 1)
        >>> found = overfitting(lambda x: x.sum(1), train=points, heldout=points - 1, fake=points - 4)
        >>> round(found.overfitting, 2), found.sign_relativistic, found.gradient_norm_real
        (0.25, 1.0, 1.0)
    """
    if min(map(len, (train, heldout, fake))) < 2:
        raise ValueError(f"need at least 2 of each, got {len(train)}, {len(heldout)} and {len(fake)}")
    real, norm_real = _outputs(discriminator, train, batch)
    made, norm_fake = _outputs(discriminator, fake, batch)
    with torch.no_grad():
        kept = torch.cat([discriminator(part) for part in heldout.split(batch)]).double()
    gap, difference = float(real.mean() - kept.mean()), float(real.mean() - made.mean())
    return Overfitting(
        sign_real=float(real.sign().mean()),
        sign_relativistic=_sign_of_difference(real, made),
        overfitting=gap / difference if abs(difference) > _CLEAR * _error(real, made) else None,
        heldout_gap=gap,
        heldout_gap_error=_error(real, kept),
        gradient_norm_real=norm_real,
        gradient_norm_fake=norm_fake,
        largest_logit=float(torch.cat([real, made]).abs().max()),
        train=real,
        heldout=kept,
        fake=made,
    )


def _outputs(discriminator: Discriminator, examples: Tensor, batch: int) -> tuple[Tensor, float]:
    """Outputs, and the mean norm of their gradient by each example."""
    outputs, norms = list[Tensor](), list[Tensor]()
    pack = 1
    for part in examples.detach().split(batch):
        with torch.enable_grad():
            x = part.clone().requires_grad_()
            output = discriminator(x)
            (gradient,) = torch.autograd.grad(output.sum(), x)
        if not outputs:
            pack = max(1, len(part) // max(1, len(output)))
        outputs.append(output.detach())
        # Examples left over, too few to fill a pack, were not looked at: their gradient of zero says nothing.
        norms.append(gradient[: pack * len(output)].flatten(1).double().norm(dim=1))
    return torch.cat(outputs).double(), float(torch.cat(norms).mean())


def _sign_of_difference(real: Tensor, fake: Tensor) -> float:
    """Mean sign of real - fake over all pairs; nan if any is."""
    if bool(real.isnan().any() | fake.isnan().any()):
        return float("nan")
    ordered = fake.sort().values
    below = torch.searchsorted(ordered, real)  # fakes smaller than each real
    up_to = torch.searchsorted(ordered, real, right=True)  # or equal
    return float((below + up_to - len(fake)).double().mean() / len(fake))


def _error(a: Tensor, b: Tensor) -> float:
    """Standard error of the difference of two means."""
    return float((a.var() / len(a) + b.var() / len(b)).sqrt())
