"""Magnitude-preserving layers: weights of fixed size, so that what goes in with unit variance comes out with it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

# Weights this close to their size, relatively, are left as they are: normalising twice is normalising once, bitwise.
_CLOSE = 1e-5


class ForcedWeightNormalization(nn.Module):
    r"""The weight that a layer works with: each output's weights scaled to a norm.

    .. math:: \hat w_o = g \, \frac{w_o}{\lVert w_o \rVert}

    In training the stored weights are scaled to :math:`\lVert w_o \rVert = \sqrt{n}`, n weights to an output, before
    they are used: what an optimiser's step adds along them is taken off, so that their size, and with it the effective
    learning rate, does not drift. A weight that has its size already stays bitwise what it is, so that a second forward
    pass before the first one's backward pass is possible.

    Source: Karras et al. 2024 (arXiv:2312.02696), eq. 66 and section 2.3 (forced weight normalisation).

    Args:
        gain: g; learned, if `learned`.
        learned: Whether the gain is a parameter.
    """

    gain: Tensor

    def __init__(self, gain: float = 1.0, learned: bool = False):
        super().__init__()
        if not (math.isfinite(gain) and gain >= 0):
            raise ValueError(f"gain must be finite and not negative, got {gain}")
        if learned:
            self.gain = nn.Parameter(torch.tensor(gain))
        else:
            self.register_buffer("gain", torch.tensor(gain))

    def forward(self, weight: Float[Tensor, "o *rest"]) -> Float[Tensor, "o *rest"]:
        """Normalise."""
        if self.training:
            with torch.no_grad():
                size = _norms(weight) / math.sqrt(weight[0].numel())
                off = ((size - 1).abs() > _CLOSE) & (size > 0) & size.isfinite()
                # `Tensor._version` would not tell what has changed (fused optimisers leave it as it is), and must not
                # change where nothing does: the graph of an earlier pass may hold the weight.
                weight.data.copy_(torch.where(off, (weight / size).to(weight.dtype), weight))
        norms = _norms(weight)
        return weight * (self.gain / norms.clamp_min(torch.finfo(norms.dtype).tiny)).to(weight.dtype)


def magnitude_preserving(layer: nn.Module, gain: float = 1.0, learned: bool = False) -> nn.Module:
    r"""Give a linear or convolutional layer a weight of fixed size, in place.

    .. math:: y = g \, \frac{W}{\lVert W \rVert} x, \qquad \operatorname{Var} y = g^2 \operatorname{Var} x

    for uncorrelated inputs of mean zero and equal variance. The initial weight is drawn anew: standard normal. The
    layer must have no bias, which would grow unseen; give the network an input that is always one (`AppendOne`).

    Works on any layer with a `weight`; checkpoints then hold `parametrizations.weight.original`. Its learning rate is
    relative to weights of size one: an order larger than usual, and decaying.

    Source: Karras et al. 2024 (arXiv:2312.02696), appendix B. With leaky ReLU in place of SiLU: `activation_gain`.

    Args:
        layer: `nn.Linear`, or a convolution that is not transposed (each row of its weight is one output).
        gain: g, such as `activation_gain(slope)` where an activation comes before.
        learned: Whether the gain is learned, for a network's last layer.

    Returns:
        The layer.

    Raises:
        TypeError: If it is no such layer.
        ValueError: If it has a bias.

    Example:
        >>> layer = magnitude_preserving(nn.Linear(256, 512, bias=False))
        >>> float(layer(torch.randn(64, 256)).detach().std())
        1.0
    """
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise TypeError(f"expected nn.Linear or a convolution, got {type(layer).__name__}")
    if layer.bias is not None:
        raise ValueError(f"{type(layer).__name__} has a bias: build it with bias=False, and append a one to the input")
    nn.init.normal_(layer.weight)
    return parametrize.register_parametrization(layer, "weight", ForcedWeightNormalization(gain, learned))


def activation_gain(slope: float) -> float:
    r"""What a leaky ReLU takes off a standard normal's root mean square: :math:`\sqrt{2 / (1 + a^2)}`."""
    return math.sqrt(2 / (1 + slope**2))


def magnitude_preserving_sum(
    a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], share: float = 0.5
) -> Float[Tensor, "*shape"]:
    r"""Add two independent signals of unit variance so that the sum has unit variance.

    .. math:: \frac{(1 - t) a + t b}{\sqrt{(1 - t)^2 + t^2}}

    Source: Karras et al. 2024 (arXiv:2312.02696), eq. 88; t = 0.3 for a branch there.

    Args:
        a: First signal, any shape.
        b: Second.
        share: t, of the second, in [0, 1].

    Returns:
        The sum, of the signals' shape.
    """
    size = math.hypot(1 - share, share)
    return a * ((1 - share) / size) + b * (share / size)


class AppendOne(nn.Module):
    """Append a channel of ones, in place of the biases that magnitude-preserving layers have not.

    Source: Karras et al. 2024 (arXiv:2312.02696), appendix B.4.
    """

    def forward(self, x: Float[Tensor, "n c *rest"]) -> Float[Tensor, "n d *rest"]:
        """Append."""
        return nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, 1), value=1.0)


def _norms(weight: Tensor) -> Tensor:
    """The norm of each output's weights, in float32 at least, shaped to be divided by."""
    wide = weight.float() if weight.dtype.itemsize < 4 else weight
    norms: Tensor = wide.flatten(1).norm(dim=1)
    return norms.view(-1, *(1,) * (weight.ndim - 1))
