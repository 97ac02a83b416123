"""What a penalty on the operator is told: noisy images, noise levels, the denoiser and what it is conditioned on."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.probes.conditioning import each_tensor


def checked_step(
    context: Mapping[str, Any], ratio: float | int
) -> tuple[Float[Tensor, "b *dims"], Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Take the step from a penalty's context.

    Args:
        context: With `denoiser`, `noisy`, `sigma`; perhaps `denoised` and `sigma_next`.
        ratio: sigma' / sigma where there is no `sigma_next`.

    Returns:
        Noisy images; sigma and sigma' / sigma of each, in float32 or better.

    Raises:
        TypeError: If something is missing.
        ValueError: If shapes do not fit, or (on the CPU only, where looking is free) a noise level is out of range or a
            pixel not finite.
    """
    missing = [name for name in ("denoiser", "noisy", "sigma") if context.get(name) is None]
    if missing:
        raise TypeError(
            f"SpectralDecomposition needs {', '.join(missing)}; call penalty(denoiser=denoiser, noisy=noisy, "
            "sigma=sigma, denoised=denoised, clean=clean, conditioning=labels)"
        )
    noisy, denoised, after = context["noisy"], context.get("denoised"), context.get("sigma_next")
    if noisy.ndim < 2 or not noisy.is_floating_point() or not noisy.numel():
        raise ValueError(f"noisy must be images (b, c, ...) of floats, got shape {tuple(noisy.shape)}, {noisy.dtype}")
    if denoised is not None and denoised.shape != noisy.shape:
        raise ValueError(
            f"denoised has shape {tuple(denoised.shape)} and noisy {tuple(noisy.shape)}; pass the estimate of these "
            "noisy images"
        )
    wide = torch.promote_types(noisy.dtype, torch.float32)
    sigma = _one_each("sigma", context["sigma"], noisy).to(wide)
    levels = ratio * sigma if after is None else _one_each("sigma_next", after, noisy).to(wide)
    ratios = levels / sigma
    if noisy.device.type == "cpu":
        if not bool(((sigma > 0) & (sigma < torch.inf)).all()):
            raise ValueError(f"sigma must be positive and finite, got {sigma.tolist()}: without noise there is no step")
        if not bool(((ratios >= 0) & (ratios < 1)).all()):
            raise ValueError(f"sigma_next must be in [0, sigma), got {after} for sigma {sigma.tolist()}")
        if not bool(noisy.isfinite().all()):
            raise ValueError("noisy has pixels that are NaN or infinite; leave such images out of the batch")
    return noisy, sigma, ratios


def chosen_examples(tree: Any, count: int, every: slice) -> Any:
    """Some examples of a conditioning: of each tensor in it that has one entry for each of `count` examples."""
    return each_tensor(lambda name, each: each[every] if each.ndim and len(each) == count else each, tree)


def _one_each(name: str, values: Any, noisy: Tensor) -> Tensor:
    if not isinstance(values, Tensor) or values.ndim > 1 or (values.ndim == 1 and len(values) != len(noisy)):
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
        raise ValueError(f"{name} must be a tensor: one noise level (0-d), or one for each of {len(noisy)}; got {got}")
    return values.detach().to(noisy.device).expand(len(noisy))
