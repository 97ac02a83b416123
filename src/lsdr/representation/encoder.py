"""An encoder: a backbone that makes the codes, and a projector for the objective."""

import torch
from torch import Tensor, nn

from lsdr.representation.data.fields import Fields
from lsdr.representation.inputs import Inputs


class Encoder(nn.Module):
    """A backbone whose outputs are the codes, and a projector on top, which only training needs.

    Args:
        backbone: Takes inputs, gives codes of shape (n, `width`); its attribute `blocks` names its layers in order.
        projector: Takes codes to what the objective sees.
        fields: What the data look like.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, fields: Fields) -> None:
        super().__init__()
        self.backbone, self.projector, self.fields = backbone, projector, fields

    @property
    def width(self) -> int:
        """Dimensions of the codes."""
        return int(self.backbone.width)  # type: ignore[arg-type]

    def features(self, inputs: Inputs) -> Tensor:
        """The codes of a batch, shape (n, `width`), in float32 or better.

        Args:
            inputs: Tensors with leading dimension n, as `prepare` or a view gives them.
        """
        codes: Tensor = self.backbone(inputs)
        return codes.float() if codes.dtype in (torch.float16, torch.bfloat16) else codes

    def forward(self, inputs: Inputs) -> Tensor:
        """What the objective sees of a batch, shape (n, D)."""
        projected: Tensor = self.projector(self.features(inputs))
        return projected

    def blocks(self) -> tuple[str, ...]:
        """Names of the layers whose spectra tell of the depth, from the first to the codes."""
        names: tuple[str, ...] = self.backbone.blocks  # type: ignore[assignment]
        return (*(f"backbone.{name}" for name in names), "backbone")
