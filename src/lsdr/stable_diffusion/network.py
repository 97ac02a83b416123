"""What stands between a pipeline's network and a denoiser: conditioning, parametrisation, noise levels."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.denoiser import Denoiser
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.diffusion.guidance import GuidedDenoiser
from lsdr.diffusion.sigmas import ddpm_sigmas, flow_sigmas, karras_sigmas
from lsdr.stable_diffusion.flux import FluxNetwork
from lsdr.stable_diffusion.parts import config_of
from lsdr.stable_diffusion.pipeline import Family, Pipeline

Prediction = Literal["epsilon", "v", "sample"]
_KINDS: Mapping[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}


def network_conditioning(
    family: Family, embeddings: Mapping[str, Tensor], time_ids: Tensor | None = None
) -> dict[str, Any]:
    """Embeddings of captions as the mapping that a denoiser passes to the family's network by keyword.

    Args:
        family: Of the pipeline.
        embeddings: What `encode_captions` returns, a row for each example; the values may be on any device.
        time_ids: SDXL: (b, 6) original height and width, top and left of the crop, height and width it was cut to;
            others: ignored. Made integers, which bfloat16 does not round.

    Returns:
        sd: {"encoder_hidden_states"}; sdxl: that and {"added_cond_kwargs": {"text_embeds", "time_ids"}}; sd3 and flux:
        that and {"pooled_projections"}.

    Raises:
        ValueError: If an embedding is missing, or SDXL's time_ids.

    Example:
        >>> import torch
        >>> network_conditioning("sd", {"encoder_hidden_states": torch.zeros(1, 2, 3)})
        {'encoder_hidden_states': tensor([[[0., 0., 0.],
                 [0., 0., 0.]]])}
    """
    pooled = {"sd": (), "sdxl": ("text_embeds",)}.get(family, ("pooled_projections",))
    missing = [name for name in ("encoder_hidden_states", *pooled) if name not in embeddings]
    if missing:
        raise ValueError(f"{family} needs the embeddings {missing}, got {sorted(embeddings)}; use encode_captions")
    conditioning: dict[str, Any] = {"encoder_hidden_states": embeddings["encoder_hidden_states"]}
    if family == "sdxl":
        if time_ids is None or time_ids.ndim != 2 or time_ids.shape[1] != 6:
            raise ValueError(
                "sdxl needs time_ids, shape (b, 6): original height and width, top and left of the crop, height and "
                f"width; got {None if time_ids is None else tuple(time_ids.shape)}"
            )
        whole = time_ids.round().long() if time_ids.is_floating_point() else time_ids
        conditioning["added_cond_kwargs"] = {"text_embeds": embeddings["text_embeds"], "time_ids": whole}
    elif family != "sd":
        conditioning["pooled_projections"] = embeddings["pooled_projections"]
    return conditioning


def denoiser_of(
    pipeline: Pipeline, *, prediction: Prediction | None = None, zero_terminal_snr: bool = False
) -> Callable[[nn.Module], Denoiser]:
    r"""How to make a denoiser of the pipeline's network, or of a copy, an average or a wrapped one.

    sd and sdxl: a `DDPMDenoiser` on the scheduler's table; sd3 and flux: a `FlowDenoiser`.

    Zero terminal SNR rescales the table so that its last step is pure noise, as sampling begins, and its first stays:

    .. math:: \sqrt{\bar\alpha_t} \leftarrow \bigl(\sqrt{\bar\alpha_t} - \sqrt{\bar\alpha_T}\bigr)
        \frac{\sqrt{\bar\alpha_1}}{\sqrt{\bar\alpha_1} - \sqrt{\bar\alpha_T}}

    Source: Lin, Liu, Li & Yang 2024, Algorithm 1, in float64. What divides by the signal-to-noise ratio elsewhere
    stays finite: see `DDPMDenoiser`, and the weightings are on ||D - z||^2. A table that ends at zero stays as it is.

    Args:
        pipeline: Family, scheduler and configuration.
        prediction: What the network is to predict; None: what the scheduler says. Another kind than the network was
            trained for begins with a network that has everything to learn anew.
        zero_terminal_snr: Rescale the table; the network must predict v or sample.

    Returns:
        A function from the network to its denoiser.

    Raises:
        ValueError: If the scheduler has no such table, epsilon meets zero terminal SNR, or either is asked of a flow.
    """
    if pipeline.family in ("sd3", "flux"):
        if prediction is not None or zero_terminal_snr:
            raise ValueError(
                f"{pipeline.family} predicts the velocity of a flow that ends in pure noise: prediction and "
                "zero_terminal_snr are for Stable Diffusion 1.x, 2.x and XL; leave them out"
            )
        if pipeline.family == "sd3":
            return FlowDenoiser
        guided = bool(config_of(pipeline.network).guidance_embeds)
        return lambda network: FlowDenoiser(FluxNetwork(network, guided))
    table, stated = _schedule(pipeline.scheduler)
    if zero_terminal_snr:
        table = zero_terminal(table)
    kind = prediction or stated
    DDPMDenoiser(None, table, kind)  # what cannot work is refused now, not at the first step
    return lambda network: DDPMDenoiser(network, table, kind)


def zero_terminal(alphas_cumprod: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """The table rescaled to end in pure noise; see `denoiser_of`. One that ends so stays as it is.

    Args:
        alphas_cumprod: Strictly decreasing, in [0, 1).

    Returns:
        The same in float64, with the first value kept and the last 0 exactly.

    Example:
        >>> import torch
        >>> zero_terminal(torch.tensor([0.81, 0.49, 0.01])).sqrt()
        tensor([0.9000, 0.6750, 0.0000], dtype=torch.float64)
    """
    roots = alphas_cumprod.double().sqrt()
    return ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))).square()


def sampling_sigmas(denoiser: Denoiser, n: int, shift: float = 1.0) -> Float[Tensor, " n_plus_1"]:
    r"""Noise levels to sample at, from the highest the denoiser is meant for to 0.

    A `DDPMDenoiser`: evenly spaced timesteps, the last one first (`ddpm_sigmas`), the one spacing that is right at zero
    terminal SNR too. A `FlowDenoiser`: even steps of t (`flow_sigmas`), shifted to higher noise as diffusers' flow
    schedulers do by :math:`t' = s\,t / (1 + (s - 1)\,t)`, which is :math:`\sigma' = s\,\sigma` (Esser et al. 2024,
    eq. 23). Another denoiser: `karras_sigmas`.

    Args:
        denoiser: The denoiser, under guidance or not.
        n: Number of steps.
        shift: s of a flow, 1 or more; SD3's scheduler has shift=3.0 in its configuration.

    Returns:
        n + 1 levels, float32 on the CPU, strictly descending.

    Raises:
        ValueError: If n < 1, larger than a DDPM's table, or the shift is below 1.

    Example:
        >>> sampling_sigmas(FlowDenoiser(None), 4, shift=3.0)
        tensor([9.9990e+03, 8.9964e+00, 2.9994e+00, 9.9987e-01, 0.0000e+00])
    """
    inner = denoiser.denoiser if isinstance(denoiser, GuidedDenoiser) else denoiser
    if isinstance(inner, DDPMDenoiser):
        return ddpm_sigmas(inner, n)
    if not isinstance(inner, FlowDenoiser):
        return karras_sigmas(n, inner.sigma_min, inner.sigma_max)
    if not shift >= 1:
        raise ValueError(f"shift is {shift}; expected 1 (none) or more")
    return (shift * flow_sigmas(n)).clamp(max=inner.sigma_max)


def _schedule(scheduler: Any) -> tuple[Float[Tensor, " t"], Prediction]:
    """A DDPM-type scheduler's table, float64 on the CPU, and its kind of prediction."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    stated = str(getattr(scheduler.config, "prediction_type", None))
    if alphas is None or stated not in _KINDS:
        raise ValueError(
            f"the pipeline's {type(scheduler).__name__} (prediction_type={stated!r}) has no table of noise levels; "
            "Stable Diffusion 1.x, 2.x and XL need a DDPM-type scheduler (DDPM, DDIM, PNDM, Euler, DPM-Solver, ...) "
            "that predicts epsilon, v_prediction or sample"
        )
    table = alphas.detach().cpu().double().clone()
    if getattr(scheduler.config, "rescale_betas_zero_snr", False):
        table[-1] = 0.0  # the Euler scheduler has put 2^-24 here, sometimes above its neighbour
    return table, _KINDS[stated]
