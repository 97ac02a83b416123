"""Points in the plane as a picture."""

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

_DATA, _SAMPLES = (190, 190, 190), (31, 119, 180)


def scatter(samples: Float[Tensor, "n d"], data: Float[Tensor, "m d"], side: int = 480) -> Image.Image:
    """Draw samples over the data they should resemble, by their first two coordinates.

    The picture spans the data and a quarter of their extent more on every side; samples beyond lie on its edge, and
    those that are not finite are not drawn.

    Args:
        samples: Points, in blue.
        data: Points, in grey, below them; at least one.
        side: Of the picture, in pixels.

    Returns:
        An RGB picture.

    Example:
        >>> scatter(torch.zeros(1, 2), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), side=64).size
        (64, 64)
    """
    low, high = data[:, :2].min(0).values, data[:, :2].max(0).values
    middle, reach = (low + high) / 2, 0.75 * (high - low).max().clamp_min(1e-6)
    canvas = torch.full((side, side, 3), 255, dtype=torch.uint8)
    for points, colour in ((data, _DATA), (samples, _SAMPLES)):
        places = points[points.isfinite().all(1), :2].detach().cpu()
        pixels = ((places - middle.cpu()) / (2 * reach.cpu()) + 0.5).clamp(0, 1) * (side - 3)
        column, row = pixels.long().unbind(1)
        for right in range(2):
            for down in range(2):
                canvas[side - 2 - row + down, column + right] = torch.tensor(colour, dtype=torch.uint8)
    return Image.fromarray(canvas.numpy())
