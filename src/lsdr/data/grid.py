"""A grid of images as one picture."""

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def image_grid(images: Float[Tensor, "n c h w"], columns: int = 8, gap: int = 2, least_side: int = 48) -> Image.Image:
    """Tile images into one picture, enlarging small ones by whole factors without smoothing.

    Args:
        images: Pixels in [-1, 1]; values outside are clipped, non-finite ones shown in mid-grey. One or three channels.
        columns: Images a row.
        gap: White pixels between images, after enlarging.
        least_side: Images smaller than this are enlarged to about it.

    Returns:
        An RGB picture.

    Example:
        >>> image_grid(torch.zeros(3, 1, 8, 8), columns=2).size
        (98, 98)
    """
    count, channels, height, width = images.shape
    levels = ((images.detach().float().cpu().nan_to_num(0.0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    factor = max(1, least_side // max(height, width))
    levels = levels.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    height, width, columns = height * factor, width * factor, min(columns, count)
    rows = -(-count // columns)
    canvas = torch.full((3, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=torch.uint8)
    for number, image in enumerate(levels if channels == 3 else levels[:, :1].expand(-1, 3, -1, -1)):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return Image.fromarray(canvas.permute(1, 2, 0).contiguous().numpy())
