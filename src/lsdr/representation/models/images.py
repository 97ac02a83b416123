"""A small residual convolutional network for images of any size and number of channels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBackbone(nn.Module):
    r"""Residual convolutions with group normalisation; the code is the mean of the last feature map over places.

    .. math:: h = \tfrac1{HW} \textstyle\sum_{p} f_p(x) \in \mathbb R^{F}

    No statistics of the batch: an example's code depends on that example alone, so a batch can be cut at will.

    Source: He et al. 2016 (arXiv:1603.05027), activations first; Wu & He 2018 (arXiv:1803.08494).

    Args:
        channels: Of the images.
        mean: Of each channel, subtracted first.
        deviation: Of each channel, divided by then.
        widths: Channels of each stage; every stage but the first halves height and width.
        depth: Residual blocks of a stage.
        code: F, dimensions of the code.
        patch: Factor by which the first convolution makes height and width smaller.

    Example:
        >>> backbone = ConvBackbone(1, [0.5], [0.2], widths=[8, 16], depth=1, code=32)
        >>> backbone({"image": torch.rand(2, 1, 8, 8)}).shape
        torch.Size([2, 32])
        >>> backbone.feature_map({"image": torch.rand(2, 1, 8, 8)}).shape
        torch.Size([2, 32, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        mean: Sequence[float],
        deviation: Sequence[float],
        *,
        widths: Sequence[int],
        depth: int,
        code: int,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "channels": channels,
            "mean": list(mean),
            "deviation": list(deviation),
            "widths": list(widths),
            "depth": depth,
            "code": code,
            "patch": patch,
        }
        self.width = code
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1))
        kernel = 3 if patch == 1 else 2 * patch
        self.stem = nn.Conv2d(channels, widths[0], kernel, stride=patch, padding=(kernel - patch + 1) // 2)
        stages = []
        for place, width in enumerate(widths):
            before = widths[max(place - 1, 0)]
            blocks = [_Block(before, width, stride=1 if place == 0 else 2)]
            blocks += [_Block(width, width) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        # An activation at the end: means of a linear map would have no more directions than the last stage channels.
        self.last = nn.Sequential(_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], code, 1), _norm(code), nn.SiLU())

    @property
    def blocks(self) -> tuple[str, ...]:
        """The residual blocks' names, in order."""
        return tuple(f"stages.{k}.{i}" for k, stage in enumerate(self.stages) for i in range(len(stage)))  # type: ignore[arg-type]

    def feature_map(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Codes of places, shape (n, F, h, w): their mean is the code.

        Args:
            inputs: "image", shape (n, C, H, W), in [0, 1].
        """
        image = inputs["image"].to(self.stem.weight.dtype)
        image = (image - self.get_buffer("mean")) / self.get_buffer("deviation")
        features: Tensor = self.last(self.stages(self.stem(image)))
        return features

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Codes, shape (n, F)."""
        return self.feature_map(inputs).mean((-2, -1))


class _Block(nn.Module):
    """x + f(x), with f of two convolutions, each after normalisation and activation; the second starts at zero."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(before), nn.SiLU(), nn.Conv2d(before, width, 3, stride, 1))
        self.second = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1))
        self.stride = stride
        self.skip = nn.Identity() if before == width else nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.second(self.first(x))
        beside = x if self.stride == 1 else functional.avg_pool2d(x, self.stride, ceil_mode=True)
        return inside + self.skip(beside)  # type: ignore[no-any-return]


def _norm(width: int) -> nn.GroupNorm:
    """Groups of four channels or more: fewer on a map of few places would leave nothing of them."""
    return nn.GroupNorm(
        max(groups for groups in range(1, 9) if width % groups == 0 and width // groups >= min(4, width)), width
    )
