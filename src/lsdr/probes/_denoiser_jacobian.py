"""The Jacobian of a denoiser at noisy images: what every measure of the operator begins with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.layers.capture import unreported
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.jacobian import Estimator, Jacobian
from lsdr.probes.conditioning import Given, check_conditioning, tensors_of, with_tensors
from lsdr.probes.denoising_step import Frame, check_levels, frame_factor
from lsdr.probes.evaluating import evaluating

Denoise = Callable[..., Tensor]
Levels = Float[Tensor, "..."] | float | int
Of = Literal["eigenvalues", "singular_values"]
# Of |v| |Jv|, beside what finite differences are off: below it a network's part of J can be missing and is not seen.
_APART = 0.1


@contextmanager
def measuring(denoiser: Denoise, device: torch.device) -> Iterator[None]:
    """Evaluation mode, full precision, no gradient, and not a word to those who watch the model's layers."""
    with evaluating(denoiser), full_precision(device), unreported():
        yield


def denoiser_jacobian(
    denoiser: Denoise,
    noisy: Tensor,
    sigma: Levels,
    conditioning: Given,
    *,
    estimator: Estimator,
    batch: int,
) -> Jacobian:
    """The Jacobian dD/dx at each noisy image, its input checked; use it inside `measuring`.

    Raises:
        ValueError: If images, noise levels or conditioning are not what a denoiser takes, or its answer is not.
    """
    if noisy.ndim < 2 or not noisy.numel() or not noisy.is_floating_point():
        raise ValueError(
            f"noisy has shape {tuple(noisy.shape)} and type {noisy.dtype}; expected a batch of images, (b, c, *dims), "
            "floating"
        )
    if not bool(noisy.isfinite().all()):
        bad = int((~noisy.isfinite()).sum())
        raise ValueError(f"noisy holds {bad} values that are nan or infinite; mend the images first")
    given = [levels(sigma, noisy, "sigma")]
    check_levels(given[0].cpu())
    check_conditioning(conditioning, len(noisy))
    given += [each.to(noisy.device) for each in tensors_of(conditioning)]

    def function(rows: Tensor, sigma: Tensor, *tensors: Tensor) -> Tensor:
        return denoiser(rows, sigma, with_tensors(conditioning, list(tensors)))

    return Jacobian(function, noisy, given=given, estimator=estimator, batch=batch, precision=_coarsest(denoiser))


def levels(sigma: Levels, noisy: Tensor, name: str) -> Float[Tensor, " b"]:
    """One noise level for each image, in the images' type (float32 or better)."""
    kind = torch.promote_types(noisy.dtype, torch.float32)
    values = torch.as_tensor(sigma, dtype=kind, device=noisy.device)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(noisy)):
        raise ValueError(
            f"{name} has shape {tuple(values.shape)} for {len(noisy)} images; pass one noise level (a number) or one "
            f"per image, shape ({len(noisy)},)"
        )
    return values.expand(len(noisy))


class SymmetricOperator:
    """Symmetric operators made of the Jacobians, and what their first products tell about asymmetry.

    Products raise a ValueError where the first show that the backward pass does not see all of the network.

    Args:
        jacobian: Of the denoiser.
        rho: Of the step, on the CPU; None for the denoiser itself.
    """

    asymmetry: Tensor

    def __init__(self, jacobian: Jacobian, rho: Tensor | None):
        self._jacobian, self._rho, self._first = jacobian, rho, True

    def symmetric(self, v: Tensor) -> Tensor:
        """(J + J') v / 2."""
        forward, backward = self._jacobian.matvec(v), self._jacobian.adjoint(v)
        self._compare(v, forward, backward)
        return (forward + backward) / 2

    def gram(self, v: Tensor) -> Tensor:
        """(rho + (1 - rho) J') (rho + (1 - rho) J) v."""
        forward = self._jacobian.matvec(v)
        if self._first:
            self._compare(v, forward, self._jacobian.adjoint(v))
        if self._rho is None:
            return self._jacobian.adjoint(forward)
        rho = self._rho.to(forward)[:, None, None]
        moved = rho * v + (1 - rho) * forward
        return rho * moved + (1 - rho) * self._jacobian.adjoint(moved)

    def _compare(self, v: Tensor, forward: Tensor, backward: Tensor) -> None:
        if not self._first:
            return
        self._first = False
        # v'Jv = v'J'v whatever J is, unless the backward pass does not see all of the network.
        here, there = ((v * each).double().sum(2) for each in (forward, backward))
        sizes = [torch.linalg.vector_norm(each.double(), dim=2) for each in (v, forward, backward)]
        apart = (here - there).norm(dim=1) / (sizes[0] * (sizes[1] + sizes[2]) / 2).norm(dim=1).clamp(min=1e-300)
        if bool((apart > _APART + 3 * self._jacobian.error).any()):
            raise ValueError(
                f"v'Jv and v'J'v, which are one number, are {float(apart.max()):.2g} apart: the denoiser cuts the "
                "graph between its input and its estimate in part; its network must not run under no_grad or "
                "inference_mode, detach or convert to numpy"
            )
        # Of random vectors, so that sums of squares are multiples of squared Frobenius norms but for chance.
        difference = (forward - backward).double().square().sum((1, 2))
        together = (forward.double().square() + backward.double().square()).sum((1, 2))
        self.asymmetry = torch.where(together == 0, 0, difference / (2 * together)).sqrt().cpu()


def step_of(noisy: Tensor, sigma: Levels, sigma_next: Levels | None, frame: Frame) -> tuple[Tensor, Tensor]:
    """The rho and a'/a of each image, in float64 on the CPU; 0 and 1 for the denoiser itself."""
    before = levels(sigma, noisy, "sigma").double().cpu()
    frame_factor(before, frame)  # refuses what is no frame
    if sigma_next is None:
        return torch.zeros_like(before), torch.ones_like(before)
    after = levels(sigma_next, noisy, "sigma_next").double().cpu()
    check_levels(before, after)
    return after / before, frame_factor(after, frame) / frame_factor(before, frame)


def gaussian(count: int, vectors: int, noisy: Tensor, generator: torch.Generator | None) -> Float[Tensor, "b k d"]:
    """Random vectors for each image, the same on every device."""
    device = generator.device if generator is not None else torch.device("cpu")
    drawn = torch.randn(count, vectors, noisy[0].numel(), generator=generator, dtype=torch.float64, device=device)
    return drawn.to(noisy.device, torch.promote_types(noisy.dtype, torch.float32))


def check_of(of: str) -> None:
    """Refuse what is neither kind of value."""
    if of not in ("eigenvalues", "singular_values"):
        raise ValueError(f"of is {of!r}; expected 'eigenvalues' or 'singular_values'")


def _coarsest(denoiser: Any) -> torch.dtype | None:
    """The coarsest type among a network's parameters: it is what it computes in where autocast is off."""
    model = denoiser if isinstance(denoiser, nn.Module) else getattr(denoiser, "model", None)
    if not isinstance(model, nn.Module):
        return None
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return max(types, key=lambda each: torch.finfo(each).eps, default=None)
