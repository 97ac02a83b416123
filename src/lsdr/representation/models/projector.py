"""The projector: what stands between the codes and the objective while an encoder trains."""

from torch import Tensor, nn


class Projector(nn.Module):
    """A perceptron whose last layer is linear, with layer normalisation where published ones have batch normalisation.

    Statistics of a batch inside the network would make its gradient depend on how the batch is cut.

    Args:
        code: Dimensions of the codes.
        width: Of every layer.
        depth: Linear layers.
    """

    def __init__(self, code: int, width: int, *, depth: int = 2) -> None:
        super().__init__()
        self.settings = {"code": code, "width": width, "depth": depth}
        layers: list[nn.Module] = []
        for place in range(depth - 1):
            layers += [nn.Linear(width if place else code, width), nn.LayerNorm(width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width if depth > 1 else code, width))

    def forward(self, codes: Tensor) -> Tensor:
        """What the objective sees of codes (n, F): (n, D)."""
        projected: Tensor = self.layers(codes)
        return projected


def projector(code: int, width: int, *, depth: int = 2) -> nn.Module:
    """A projector, or nothing.

    Args:
        code: Dimensions of the codes.
        width: Of every layer; 0 for no projector.
        depth: Linear layers.

    Example:
        >>> projector(8, 0)
        Identity()
    """
    return nn.Identity() if width == 0 else Projector(code, width, depth=depth)
