"""Activation standardisation: subtract a layer's mean, divide by its standard deviation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from lsdr.moments import Moments


class ActivationStandardization(nn.Module):
    r"""Subtract the layer's mean from its activations and divide by their standard deviation.

    .. math:: y = \frac{x - \mu}{\max(s, s_0)}, \quad \mu = \operatorname{mean}(x), \quad
        s^2 = \operatorname{mean}\bigl((x - \mu)^2\bigr)

    over everything that the layer puts out in a batch: samples, positions and, unless `channels` is given, channels.
    Nothing is learned afterwards. Place it like any normalisation layer, in a residual network without others at the
    start of each branch: x + f(standardised x). It is no spectral normalisation: it says nothing of the weights.

    In training the statistics are those of the batch over all ranks, with their gradient; in evaluation running ones.
    The floor keeps features without variance from being blown up: for a deviation below it the divisor is the floor, a
    constant, so that the map's Lipschitz constant in evaluation is at most 1 / floor, for zeros too.

    Running statistics are a plain average over the first batches and an exponential one after 1 / momentum of them.
    The variance is divided by the count n, not n - 1. Features are taken in float32 at least and returned in the type
    they came in.

    Source: "subtracting the mean activation of the layer from each activation and then dividing by the standard
    deviation". With `channels` it is batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1) without
    its affine part, with a floor in place of eps; running averages deviate as above.

    Args:
        channels: Number of channels, dimension 1, to standardise each by itself; None for the whole layer at once.
        floor: Least divisor, positive, in the activations' units.
        momentum: Share of a new batch in the running statistics, in (0, 1].

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> layer = ActivationStandardization()
        >>> y = layer(5 + 3 * torch.randn(64, 8))
        >>> abs(float(y.mean())) < 1e-5, abs(float(y.std(correction=0)) - 1) < 1e-5
        (True, True)
    """

    running_mean: Tensor
    running_variance: Tensor
    batches: Tensor

    def __init__(self, channels: int | None = None, floor: float = 1e-3, momentum: float = 0.1):
        super().__init__()
        if channels is not None and channels < 1:
            raise ValueError(f"channels must be a positive number or None, got {channels}")
        if not (math.isfinite(floor) and floor > 0):
            raise ValueError(f"floor must be finite and positive, got {floor}")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum}")
        self.channels, self.floor, self.momentum = channels, floor, momentum
        self.register_buffer("running_mean", torch.zeros(channels or 1))
        self.register_buffer("running_variance", torch.ones(channels or 1))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Float[Tensor, "n *rest"]) -> Float[Tensor, "n *rest"]:
        """Standardise.

        Args:
            x: Activations, shape (N, ...); (N, channels, ...) if channels were given.

        Raises:
            ValueError: If dimension 1 has not the channels that were given.
        """
        if self.channels is not None and (x.ndim < 2 or x.shape[1] != self.channels):
            raise ValueError(f"expected {self.channels} channels in dimension 1, got shape {tuple(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float() if x.dtype.itemsize < 4 else x
            if self.training:
                mean, variance, count = self._statistics(wide)
                self._follow(mean.detach(), variance.detach(), count)
            else:
                mean, variance = self.running_mean.to(wide.dtype), self.running_variance.to(wide.dtype)
            layout = (1, -1) + (1,) * max(x.ndim - 2, 0) if self.channels is not None else (1,) * x.ndim
            # The root of a clamped variance: where the floor holds, no gradient flows through it, not even at zero.
            divisor = variance.clamp_min(self.floor**2).sqrt()
            return ((wide - mean.view(layout)) / divisor.view(layout)).to(x.dtype)

    def deviation(self) -> Float[Tensor, "c"]:
        """What evaluation divides by: the running deviation, floored."""
        deviation: Tensor = self.running_variance.float().clamp_min(self.floor**2).sqrt()
        return deviation

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        return f"{self.channels}, floor={self.floor}, momentum={self.momentum}"

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and count over ranks, in two passes: a large mean costs no digits."""
        columns = x.movedim(1, -1).flatten(0, -2) if self.channels is not None else x.reshape(-1, 1)
        count = _sum_over_ranks(columns.new_full((1,), len(columns), dtype=torch.float64))
        divisor = count.clamp_min(1).to(x.dtype)
        mean = _sum_over_ranks(columns.sum(0)) / divisor
        return mean, _sum_over_ranks((columns - mean).square().sum(0)) / divisor, count

    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        some = (count > 0).to(self.batches.dtype)  # a batch without activations says nothing
        self.batches += some.squeeze()
        share = some * (1 / self.batches.clamp_min(1)).clamp_min(self.momentum)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share.to(self.running_mean.dtype))
        self.running_variance.lerp_(variance.to(self.running_variance.dtype), share.to(self.running_variance.dtype))


def _sum_over_ranks(values: Float[Tensor, "c"]) -> Float[Tensor, "c"]:
    """The sum over ranks, with gradient: that of one process, once gradients are averaged over ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    # A rank's values as one row of positions: count times mean is their sum over ranks.
    row = Moments.of(values[None, :, None]).all_reduce()
    total: Tensor = row.count * row.mean
    return total[:, 0]
