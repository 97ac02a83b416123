"""How far to go for a finite difference: beyond the rounding, short of the curvature."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Shortest and longest length over an image's rms, by the bits that the network keeps of it.
#
# Measured on a small trained UNet at noise levels from 0.005 to 20, one-sided, as the error of v'Jv over its spread
# between images, and of u'Jv - v'Ju relative to itself: float64 1e-5 and 2e-5, float32 0.01 and 0.02, TF32 (rounded as
# the hardware does, on a CPU) 0.1 and 0.3, bfloat16 0.3 and 0.6; two-sided in bfloat16 0.3 and 0.2.
_LENGTHS: dict[str, tuple[float, float]] = {
    "float64": (1e-6, 1e-6),
    "float32": (3e-4, 1e-3),
    "float16": (1e-2, 2e-2),
    "tf32": (1e-2, 2e-2),
    "bfloat16": (3e-2, 1e-1),
}
# A denoiser bends on the scale of the noise.
_OF_NOISE = 0.1
HALF = ("float16", "bfloat16")


def step_size(
    x: Float[Tensor, "n *dims"], sigma: Float[Tensor, " n"], precision: str, step: float | None = None
) -> Float[Tensor, " n"]:
    """Length of a finite difference in a direction of rms 1, for each example.

    A tenth of the noise level, within what the precision allows.

    Args:
        x: Noisy images.
        sigma: Their noise levels, positive.
        precision: What `working_precision` found.
        step: A length over the image's rms to take instead.
    """
    rms = x.to(sigma).flatten(1).square().mean(1).sqrt()
    rms = torch.where(rms > 0, rms, sigma)
    shortest, longest = _LENGTHS.get(precision, _LENGTHS["bfloat16"]) if step is None else (step, step)
    return rms * (_OF_NOISE * sigma / rms).clamp(shortest, longest)


def working_precision(dtype: torch.dtype, device: torch.device) -> str:
    """Name the precision in which a network whose layers answer in `dtype` multiplies."""
    if device.type == "cuda" and dtype == torch.float32:
        cudnn: Any = torch.backends.cudnn
        # torch 2.9 renamed the switch, and refuses to read the old name where both were used.
        convolutions = cudnn.conv.fp32_precision != "ieee" if hasattr(cudnn, "conv") else cudnn.allow_tf32
        if convolutions or torch.get_float32_matmul_precision() != "highest":
            return "tf32"
    return str(dtype).removeprefix("torch.")
