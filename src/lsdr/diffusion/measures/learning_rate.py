"""Stability of training: learning-rate grids, spikes, divergence, time. Plain numbers in and out; no torch."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True)
class LearningRateGrid:
    """What short training reached at each learning rate."""

    lr: list[float]
    loss: list[float]
    """Final loss: the mean over the last tenth of the steps; nan or inf where training broke down."""
    diverged: list[bool]
    initial_loss: float
    """Loss before the first step."""


def lr_grid(train_short: Callable[[float], Sequence[float]], lrs: Sequence[float]) -> LearningRateGrid:
    """Train shortly at each learning rate; divergence is a result, not an error.

    A run has diverged if a loss is not finite, if it raises an ArithmeticError (what a guard raises on a non-finite
    value), or if it ends above the initial loss. The final loss is the mean over the last tenth of the steps.

    Args:
        train_short: Trains from the same start with the given learning rate and returns the loss of every step, the
            first before any update.
        lrs: Learning rates to try.

    Returns:
        Final loss and divergence per learning rate, and the initial loss, averaged over the runs that have one.

    Raises:
        ValueError: If there is no learning rate, or no run has a finite first loss.

    Example:
        >>> grid = lr_grid(lambda lr: [(1 - lr) ** (2 * step) for step in range(20)], [0.1, 1.0, 3.0])
        >>> grid.diverged
        [False, False, True]
    """
    if not lrs:
        raise ValueError("a grid needs at least one learning rate")
    curves: list[list[float]] = []
    for lr in lrs:
        try:
            curves.append([float(loss) for loss in train_short(lr)] or [math.nan])
        except ArithmeticError:
            curves.append([math.nan])
    first = [curve[0] for curve in curves if math.isfinite(curve[0])]
    if not first:
        raise ValueError("no learning rate gave a finite first loss, so training is broken before the first step")
    initial = fmean(first)
    final = [fmean(curve[-max(1, len(curve) // 10) :]) for curve in curves]
    diverged = [not all(map(math.isfinite, curve)) or end > initial for curve, end in zip(curves, final, strict=True)]
    return LearningRateGrid(list(lrs), final, diverged, initial)


def largest_stable_lr(
    lrs: Sequence[float], final_losses: Sequence[float], diverged: Sequence[bool], initial_loss: float
) -> float:
    """Largest learning rate of a grid at which, and below which, training is stable.

    Stable is: not diverged, and a finite final loss not above the initial loss. A stable rate above an unstable one
    does not count: that is luck. Limited by the grid; a value at the grid's end means "at least".

    Args:
        lrs: Learning rates, in any order.
        final_losses: Final loss at each.
        diverged: Whether training diverged at each.
        initial_loss: Loss before training.

    Returns:
        A learning rate of the grid, or nan if the smallest is unstable.

    Raises:
        ValueError: If the lists are empty or differ in length.

    Example:
        >>> largest_stable_lr([1e-3, 1e-2, 1e-1], [0.5, 0.4, 7.0], [False, False, True], 1.0)
        0.01
    """
    _same_length(lrs, final_losses, diverged)
    largest = math.nan
    for lr, loss, broken in sorted(zip(lrs, final_losses, diverged, strict=True)):
        if broken or not loss <= initial_loss:  # a nan loss is not <= anything
            break
        largest = lr
    return largest


def lr_sensitivity(lrs: Sequence[float], final_losses: Sequence[float], initial_loss: float) -> float:
    r"""How much is lost by a learning rate that is not the best one.

    .. math::
        \mathbb{E}_\eta[\min(\ell(\eta), \ell_0) - \ell^*]

    with :math:`\ell^*` the best final loss of the grid and :math:`\ell_0` the initial loss, which also stands for
    losses that are not finite. In units of the loss, at least 0, and 0 if every learning rate does equally well. The
    mean is over the grid, so compare only on the same, logarithmically even grid.

    Source: Wortsman et al., arXiv 2309.14322, section 2.

    Args:
        lrs: Learning rates.
        final_losses: Final loss at each.
        initial_loss: Loss before training.

    Returns:
        The sensitivity.

    Raises:
        ValueError: If the lists are empty or differ in length.

    Example:
        >>> lr_sensitivity([1e-3, 1e-2, 1e-1], [0.5, 0.2, float("nan")], 1.1)
        0.4
    """
    _same_length(lrs, final_losses)
    capped = [min(loss, initial_loss) if math.isfinite(loss) else initial_loss for loss in final_losses]
    return fmean(capped) - min(capped)


def gradient_spikes(norms: Sequence[float], factor: float = 10.0, window: int = 100) -> int:
    """Count gradient norms that are not finite or above `factor` times the running median.

    The median is over the (up to) `window` finite norms before; the first norm has none before it and cannot spike
    unless it is not finite. Invariant to scaling all norms. Cost: one insertion into a sorted window per norm.

    Source: arXiv 2309.14322 reports loss spikes; the rule of ten times the running median is ours.

    Args:
        norms: Gradient norm of every step, in order.
        factor: How far above the median a spike is.
        window: Norms the median looks back on.

    Returns:
        Number of spikes.

    Raises:
        ValueError: If the factor is not positive or the window is empty.

    Example:
        >>> gradient_spikes([1.0] * 50 + [11.0] + [1.0] * 50)
        1
    """
    if factor <= 0 or window < 1:
        raise ValueError(f"factor must be positive and window at least 1, got {factor} and {window}")
    recent: deque[float] = deque()
    ordered: list[float] = []
    spikes = 0
    for norm in norms:
        if not math.isfinite(norm):
            spikes += 1
            continue
        spikes += bool(ordered) and norm > factor * median(ordered)
        if len(recent) == window:
            del ordered[bisect_left(ordered, recent.popleft())]
        recent.append(norm)
        insort(ordered, norm)
    return spikes


def divergence_rate(diverged: Sequence[bool]) -> float:
    """Share of runs that diverged.

    Args:
        diverged: Whether each run diverged.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: If there is no run.

    Example:
        >>> divergence_rate([True, False, False, False])
        0.25
    """
    _same_length(diverged)
    return fmean(map(bool, diverged))


def median_step_seconds(step_seconds: Sequence[float]) -> float:
    """Median seconds of a training step, without the first, which compiles and allocates.

    Args:
        step_seconds: Seconds of every measured step, in order.

    Returns:
        The median; of a single step, its own.

    Raises:
        ValueError: If there is no step.

    Example:
        >>> median_step_seconds([9.0, 0.1, 0.2, 0.3])
        0.2
    """
    _same_length(step_seconds)
    return float(median(step_seconds[1:] or step_seconds))


def _same_length(*lists: Sequence[object]) -> None:
    """Refuse empty lists and lists of different lengths."""
    lengths = [len(items) for items in lists]
    if min(lengths) == 0 or len(set(lengths)) > 1:
        raise ValueError(f"need lists of one length, at least 1; got lengths {lengths}")
