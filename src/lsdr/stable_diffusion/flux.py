"""Flux's transformer as a network on latents."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FluxNetwork(nn.Module):
    r"""A Flux transformer, called on latents (b, c, h, w) as the other networks are.

    The transformer takes tokens: each square of 2 x 2 latents is one token of 4c numbers, with its row and column
    beside it, and its time is t in [0, 1], here given as 1000 t.

    Guidance: the "dev" transformer is distilled and takes the guidance scale it is to imitate. 1 is the network before
    guidance, the one whose estimate is the mean of the data that the loss asks for, and so the default here; kohya's
    scripts train at 1, diffusers' at 3.5. Pictures are made at about 3.5: pass it as `guidance`.

    Source: diffusers, FluxPipeline (packing, ids), train_dreambooth_lora_flux.py.

    Args:
        transformer: A FluxTransformer2DModel, possibly wrapped (DDP, torch.compile).
        guidance_embeds: Whether the transformer takes a guidance scale (its configuration says so).
    """

    def __init__(self, transformer: nn.Module, guidance_embeds: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.guidance_embeds = guidance_embeds
        self.training = transformer.training

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        timestep: Float[Tensor, " b"],
        encoder_hidden_states: Float[Tensor, "b n d"],
        pooled_projections: Float[Tensor, "b p"],
        guidance: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The velocity, shaped like x.

        Args:
            x: Latents; height and width are even.
            timestep: 1000 t.
            encoder_hidden_states: The T5's.
            pooled_projections: The CLIP's.
            guidance: The scale to imitate, one for each; None is 1. Ignored by a transformer that takes none.

        Raises:
            ValueError: If height or width is odd.
        """
        height, width = x.shape[-2:]
        given: dict[str, Any] = {}
        if self.guidance_embeds:
            given["guidance"] = torch.ones_like(timestep) if guidance is None else guidance
        tokens: Tensor = self.transformer(
            hidden_states=pack(x),
            timestep=timestep / 1000,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            img_ids=_places(height // 2, width // 2, x),
            txt_ids=x.new_zeros((encoder_hidden_states.shape[1], 3), dtype=torch.float32),
            return_dict=False,
            **given,
        )[0]
        return unpack(tokens, height, width)


def pack(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
    """Squares of 2 x 2 latents as tokens, row by row; within a token channel, row, column.

    Raises:
        ValueError: If height or width is odd.

    Example:
        >>> pack(torch.arange(8.0).reshape(1, 1, 2, 4))
        tensor([[[0., 1., 4., 5.],
                 [2., 3., 6., 7.]]])
    """
    b, c, height, width = x.shape
    if height % 2 or width % 2:
        raise ValueError(f"latents are {height} x {width}; Flux takes even sides (pictures in multiples of 16)")
    squares = x.reshape(b, c, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(b, (height // 2) * (width // 2), 4 * c)


def unpack(tokens: Float[Tensor, "b n d"], height: int, width: int) -> Float[Tensor, "b c h w"]:
    """Latents of tokens; the inverse of `pack`.

    Example:
        >>> unpack(pack(torch.arange(8.0).reshape(1, 1, 2, 4)), 2, 4)
        tensor([[[[0., 1., 2., 3.],
                  [4., 5., 6., 7.]]]])
    """
    b, _, d = tokens.shape
    squares = tokens.reshape(b, height // 2, width // 2, d // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(b, d // 4, height, width)


def _places(rows: int, columns: int, x: Tensor) -> Tensor:
    """(0, row, column) of every token; float32, because bfloat16 has no 257."""
    row, column = torch.meshgrid(
        torch.arange(rows, device=x.device, dtype=torch.float32),
        torch.arange(columns, device=x.device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3)
