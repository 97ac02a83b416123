"""Run a denoiser beside a training step: nothing else is to notice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.layers.capture import unreported

Denoise = Callable[[Tensor, Tensor, Any], Tensor]


class Passes:
    """Runs a denoiser with the same random numbers each time, so that dropout is part of the function it is.

    Args:
        denoise: D(x, sigma, conditioning).
        sigma: Noise level of each example.
        conditioning: What else the denoiser is given, for these examples.

    Attributes:
        random: Whether a run drew random numbers.
    """

    def __init__(self, denoise: Denoise, sigma: Tensor, conditioning: Any) -> None:
        self._denoise, self._sigma, self._conditioning = denoise, sigma, conditioning
        self._states = _random_states(sigma.device)
        self.random = False

    def __call__(self, x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n *dims"]:
        """Estimate the clean images, in float32 or better."""
        _set_random_states(self._states, self._sigma.device)
        denoised = self._denoise(x, self._sigma, self._conditioning)
        if denoised.shape != x.shape:
            raise ValueError(
                f"the denoiser gave shape {tuple(denoised.shape)} for {tuple(x.shape)}; they must be the same"
            )
        after = _random_states(self._sigma.device)
        self.random |= not all(torch.equal(a, b) for a, b in zip(self._states, after, strict=True))
        return denoised.to(torch.promote_types(denoised.dtype, torch.float32))


@contextmanager
def beside_training(buffers: list[Tensor], device: torch.device) -> Iterator[None]:
    """Run a model for a penalty: nobody who watches it hears of it, random state and buffers are put back."""
    states, kept = _random_states(device), [buffer.clone() for buffer in buffers]
    try:
        with unreported():
            yield
    finally:
        _set_random_states(states, device)
        for buffer, value in zip(buffers, kept, strict=True):
            # Through .data: autograd, which may hold the buffer for the backward pass, sees the value it saw.
            buffer.data.copy_(value)


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state(device)]


def _set_random_states(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.get_device_module(device).set_rng_state(state, device)
