"""The images of a training step, as the loss hands them to a penalty."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class StepImages:
    """Estimates, the clean images behind them and their noise levels, all in one precision, float32 at least."""

    denoised: Float[Tensor, "b c *dims"]
    clean: Float[Tensor, "b c *dims"]
    sigma: Float[Tensor, " b"]


def read_images(context: Mapping[str, Any], who: str, *, needs_sigma: bool = True) -> StepImages:
    """Take the images from a penalty's context and see that they can be compared.

    Values are looked at on the CPU alone: elsewhere that would stall the device at every step. An estimate that is not
    finite is let through, for the guard to find in the loss; sigma may be infinite.

    Args:
        context: What the penalty was called with.
        who: The regularizer, for messages.
        needs_sigma: Whether noise levels must be there; 0 otherwise.

    Raises:
        TypeError: If something is missing or no tensor of real numbers.
        ValueError: If shapes do not fit, clean pixels are not finite, or a sigma is negative or NaN.
        RuntimeError: If the estimates carry no gradient where one is to be had.
    """
    wanted = ("denoised", "clean", "sigma") if needs_sigma else ("denoised", "clean")
    for name in wanted:
        value = context.get(name)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            came = f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"{who} needs {name}= as a floating-point tensor, got {came if name in context else 'nothing'}; call "
                f"penalty({', '.join(f'{each}={each}' for each in wanted)}, ...) after the forward pass"
            )
    denoised, clean = context["denoised"], context["clean"]
    if denoised.shape != clean.shape or not 3 <= clean.ndim <= 5 or not clean.numel():
        raise ValueError(
            f"{who} compares denoised with clean, both (b, c, ...) with 1 to 3 further dimensions, got shapes "
            f"{tuple(denoised.shape)} and {tuple(clean.shape)}"
        )
    if torch.is_grad_enabled() and not denoised.requires_grad:
        raise RuntimeError(
            f"{who} was given a denoised without a graph, so it could change nothing; pass the denoiser's output as it "
            "came, not detached, and evaluate under torch.no_grad()"
        )
    sigma = context["sigma"] if needs_sigma else clean.new_zeros(())
    if sigma.shape not in ((), (len(clean),)):
        raise ValueError(
            f"sigma has shape {tuple(sigma.shape)} for a batch of {len(clean)}; pass one noise level (0-d) or one per "
            f"example, shape ({len(clean)},)"
        )
    if clean.device.type == "cpu" and not bool(clean.isfinite().all()):
        raise ValueError(f"{who} was given clean images with NaN or infinite pixels; look at what loads them")
    if sigma.device.type == "cpu" and not bool((sigma >= 0).all()):
        raise ValueError(f"sigma must not be negative or NaN, got {sigma.tolist()}")
    precision = torch.promote_types(torch.promote_types(denoised.dtype, clean.dtype), torch.float32)
    device = clean.device
    return StepImages(
        denoised.to(precision), clean.detach().to(precision), sigma.detach().to(device, precision).expand(len(clean))
    )
