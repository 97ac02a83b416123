"""How the layers of a network are made, under each normalisation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lsdr.gan.magnitude_preserving import (
    AppendOne,
    activation_gain,
    magnitude_preserving,
    magnitude_preserving_sum,
)
from lsdr.gan.models.presets import Normalization
from lsdr.regularizers.activation_standardization import ActivationStandardization


@dataclass(frozen=True)
class Parts:
    """Makes layers."""

    normalization: Normalization
    slope: float = 0.2
    """Of the leaky ReLUs; 0 for ReLU."""

    @property
    def preserving(self) -> bool:
        """Whether layers preserve magnitudes."""
        return self.normalization == "magnitude_preserving"

    def linear(self, inputs: int, outputs: int, *, bias: bool = True, activated: bool = False) -> nn.Module:
        """A linear layer; `activated` if an activation comes before it."""
        return self.keep(nn.Linear(inputs, outputs, bias=bias and not self.preserving), activated)

    def convolution(
        self, inputs: int, outputs: int, kernel: int, *, groups: int = 1, bias: bool = True, activated: bool = False
    ) -> nn.Module:
        """A convolution that keeps the size."""
        bias = bias and not self.preserving
        layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)
        return self.keep(layer, activated)

    def last(self, layer: nn.Linear | nn.Conv2d) -> nn.Module:
        """A network's last layer, after an activation: its size is learned where layers preserve magnitudes."""
        if not self.preserving:
            return layer
        layer.bias = None
        return magnitude_preserving(layer, activation_gain(self.slope), learned=True)

    def activation(self) -> nn.Module:
        """The nonlinearity."""
        return nn.LeakyReLU(self.slope) if self.slope else nn.ReLU()

    def norm(self, channels: int, dimensions: int) -> list[nn.Module]:
        """What stands in front of an activation: nothing, or one layer."""
        if self.normalization == "batch":
            return [nn.BatchNorm1d(channels) if dimensions == 1 else nn.BatchNorm2d(channels)]
        return [ActivationStandardization()] if self.normalization == "standardize" else []

    def add(self, features: Tensor, more: Tensor, share: float = 0.5) -> Tensor:
        """The sum; where layers preserve magnitudes the mean with this share, scaled so that it does as well."""
        if not self.preserving:
            return features + more
        return magnitude_preserving_sum(features, more.expand_as(features), share)

    def ones(self) -> list[nn.Module]:
        """What stands in front of a network: a constant input in place of biases, or nothing."""
        return [AppendOne()] if self.preserving else []

    def keep(self, layer: nn.Linear | nn.Conv2d, activated: bool) -> nn.Module:
        """The layer, its weight of fixed size where layers preserve magnitudes."""
        if not self.preserving:
            return layer
        return magnitude_preserving(layer, activation_gain(self.slope) if activated else 1.0)

    @torch.no_grad()
    def initialise(self, network: nn.Module, deviation: float | None = None) -> None:
        """Draw the weights, and set biases to zero.

        Args:
            network: Which.
            deviation: Of the weights; None for one over the root of a layer's inputs.
        """
        if self.preserving:
            return
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                if deviation is None:
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
                else:
                    nn.init.normal_(layer.weight, std=deviation)
                if layer.bias is not None:
                    layer.bias.zero_()
