"""Learning-rate range test: raise the rate step by step on a copy and see where the loss falls and where it breaks."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lsdr.regularizers.regularizer import Regularizer
from lsdr.stable_diffusion.task import StableDiffusionTask
from lsdr.stable_diffusion.validation import fixed_noise_loss
from lsdr.training.config import TrainingConfig
from lsdr.training.order import order_of
from lsdr.training.stepper import build_accelerator, open_stepper

# From a hundredth of the configured rate to a thousand times it.
_DECADES = (-2.0, 3.0)
_PROBES = 4
# A loss this many times the smallest one is broken; one within 1% of the start has not moved.
_BROKEN = 1.5
_STILL = 1.01
# Fastai's rule: a tenth of the rate with the smallest loss.
_MARGIN = 10.0


@dataclass(frozen=True)
class LrRange:
    """What the test saw.

    Attributes:
        lr: The rate of each step.
        loss: The loss under fixed noise after each step; NaN where it broke.
        initial_loss: That before the first step.
        suggestion: A rate to train with; None where the test saw nothing to judge by.
        message: The same in words.
    """

    lr: list[float]
    loss: list[float]
    initial_loss: float
    suggestion: float | None
    message: str


def lr_range(
    task: StableDiffusionTask, config: TrainingConfig, regularizers: Sequence[Regularizer], steps: int
) -> LrRange:
    r"""Take `steps` steps with the learning rate rising exponentially, on a copy of the network.

    .. math:: \eta_k = \eta \cdot 10^{-2 + 5 k / (n - 1)}

    The loss of a batch says little in diffusion, because it depends on the noise level drawn; so after every step the
    loss of four latents is taken under the same noise. A step sees all steps before it: the loss at a rate is that
    after a ramp up to it. The task's network and torch's generator stay as they are.

    Cost: a copy of the whole network, `steps` steps in as many micro-batches as in training, and 24 evaluations of the
    network after each. In a launch of one process: several would wait for each other.

    Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3; the rule for the suggestion
    is fastai's. Deviation: fixed noise instead of a running mean of the training loss.

    Args:
        task: What is trained.
        config: How; its learning rate is in the middle of the ramp.
        regularizers: As in training.
        steps: Steps, at least 10.

    Returns:
        The curve, and a rate to train with.

    Raises:
        ValueError: If there are fewer than 10 steps.
    """
    if steps < 10:
        raise ValueError(f"a learning-rate range test needs at least 10 steps, got {steps}")
    low, high = _DECADES
    rates = [config.lr * 10 ** (low + (high - low) * step / (steps - 1)) for step in range(steps)]
    training = replace(config, steps=steps, warmup=0, lr_schedule="constant", compile=False, trackers=(), ema=0.0)
    task = replace(task, model=copy.deepcopy(task.model))
    batch = {name: value[:_PROBES] for name, value in task.heldout[0].items()}
    dataset: Any = task.dataset
    order = order_of(dataset, training.batch_size, training.seed)
    accelerator = build_accelerator(training)
    losses: list[float] = []
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), open_stepper(task, training, accelerator, regularizers) as stepper:

        def loss() -> float:
            denoiser = task.denoiser(stepper.plain)
            return fixed_noise_loss(denoiser, [batch], task.conditioning, task.weight, task.levels)["loss"]

        initial = loss()
        for step, rate in enumerate(rates):
            stepper.config = replace(training, lr=rate)
            gradient = stepper.gradient(step, dataset.__getitems__(order.batch(step)))
            stepper.update(step, gradient)
            losses.append(loss())
            if not math.isfinite(losses[-1]) or losses[-1] > 10 * initial:
                break
    accelerator.free_memory()
    losses += [math.nan] * (steps - len(losses))
    suggestion, message = suggest(rates, losses, initial)
    return LrRange(rates, losses, initial, suggestion, message)


def suggest(rates: Sequence[float], losses: Sequence[float], initial: float) -> tuple[float | None, str]:
    """A learning rate to train with, and why, from a range test's curve.

    A tenth of the rate at which the loss was smallest; where it only ever rose, a tenth of the largest rate at which it
    stood still.

    Args:
        rates: Rising learning rates.
        losses: The loss after each; NaN where it broke.
        initial: The loss before.

    Returns:
        The rate, or None, and the reason.

    Example:
        >>> suggest([1e-6, 1e-5, 1e-4, 1e-3], [1.0, 0.9, 0.5, 7.0], 1.0)[0]
        1e-05
    """
    known = [place for place, loss in enumerate(losses) if math.isfinite(loss)]
    if not known or not math.isfinite(initial):
        return None, "the loss is not finite at any rate: the trouble is older than the learning rate"
    best = min(known, key=lambda place: losses[place])
    limit = _BROKEN * min(losses[best], initial)
    broke = next((k for k in range(best, len(losses)) if not math.isfinite(losses[k]) or losses[k] > limit), None)
    where = f"breaks at {rates[broke]:.1e}" if broke is not None else f"did not break up to {rates[-1]:.1e}"
    if losses[best] < initial:
        rate = rates[best] / _MARGIN
        return rate, f"the loss is smallest at {rates[best]:.1e} and {where}: train with about {rate:.1e}"
    still = [place for place in known if losses[place] <= _STILL * initial]
    if not still:
        return None, f"the loss rises at every rate from {rates[0]:.1e} on: look at the checks of the data first"
    rate = rates[still[-1]] / _MARGIN
    return (
        rate,
        f"the loss falls at no rate and {where}; it stands still up to {rates[still[-1]]:.1e}: about {rate:.1e}",
    )
