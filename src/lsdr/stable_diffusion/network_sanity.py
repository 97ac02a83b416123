"""Does the network know these latents? Its own denoising error against the best linear guess, before the first step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.denoiser import Denoiser
from lsdr.fourier.wiener import wiener_gain
from lsdr.probes.attention import AttentionProbe
from lsdr.probes.evaluating import evaluating
from lsdr.probes.nothing import LayersNotMeasuredError, NothingMeasuredError
from lsdr.stable_diffusion.sanity import Check, Verdict

_LEVELS = (0.3, 0.7, 1.5, 3.0)
_RINGS = 16  # a cycle per pixel
_SCALES = (1 / 8, 1 / 4, 1 / 2, 1 / math.sqrt(2), math.sqrt(2), 2.0, 4.0, 8.0)
# A network that explains less than this of what it is trained to predict has not been trained for it.
_UNTRAINED = 0.1
# What it would have to gain by another scale, or by another reading of its output, to be taken for misread.
_BETTER, _OTHER = 0.8, 0.6
_FLOAT16 = 65504.0
_HEADROOM = 8.0

Latents = Sequence[tuple[Tensor, Mapping[str, Any]]]
"""Batches of one shape each: clean latents (b, c, h, w), and what the denoiser is conditioned on."""


@dataclass(frozen=True)
class Knowledge:
    """How well a network denoises some latents.

    Attributes:
        ratio: Its error over that of the best linear guess, geometric mean over noise levels; below 1 it knows more
            than the power spectrum.
        explained: The largest share, over noise levels, of what it is trained to predict that it predicts; 1 is
            perfect, 0 a network that puts out zeros.
    """

    ratio: float
    explained: float


@torch.no_grad()
def knowledge(denoiser: Denoiser, latents: Latents, scale: float = 1.0) -> Knowledge:
    r"""Denoising error at four noise levels over that of the Wiener filter, and the share of the target explained.

    .. math:: r = \Bigl( \prod_\sigma \frac{\langle \lVert D(z + \sigma\epsilon, \sigma) - z \rVert^2 \rangle}
        {\langle S \sigma^2 / (S + \sigma^2) \rangle_f} \Bigr)^{1/4}, \qquad
        R^2 = 1 - \frac{\langle \lVert D - z \rVert^2 \rangle}{\langle \lVert D_0 - z \rVert^2 \rangle}

    S is the latents' own radial power spectrum by channel, and :math:`D_0` the denoiser whose network puts out zeros:
    R^2 is the explained share of the network's own target (noise, velocity, ...), whatever its parametrisation.

    Args:
        denoiser: The denoiser.
        latents: What to denoise.
        scale: A factor on the latents, to ask whether the network knows them better at another size.

    Returns:
        Both numbers; NaN where the network's output is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    spectrum, counts = _spectrum([scale * z.float() for z, _ in latents])
    nothing = replace(denoiser, model=_zeros)  # type: ignore[type-var]
    ratios, explained = [], []
    with evaluating(denoiser):
        for level in _LEVELS:
            sigma = min(max(level, denoiser.sigma_min), denoiser.sigma_max)
            error = without = 0.0
            entries = 0
            for z, conditioning in latents:
                clean = scale * z.float()
                noisy = clean + sigma * torch.randn(clean.shape, generator=generator).to(clean.device)
                level_now = torch.tensor(sigma, device=clean.device)
                error += float((denoiser(noisy, level_now, conditioning) - clean).square().sum())
                without += float((nothing(noisy, level_now, conditioning) - clean).square().sum())
                entries += clean.numel()
            gain = wiener_gain(spectrum, torch.tensor(sigma))
            linear = float((counts * gain * sigma**2).sum() / counts.sum())
            ratios.append(max(error / entries, 1e-12) / max(linear, 1e-12))
            explained.append(1 - error / max(without, 1e-12))
    if not all(map(math.isfinite, ratios)):
        return Knowledge(math.nan, math.nan)
    return Knowledge(math.exp(sum(map(math.log, ratios)) / len(ratios)), max(explained))


def check_network(denoiser: Denoiser, latents: Latents) -> Check:
    """Whether the network was trained on latents like these, as this VAE makes them.

    A network that denoises no better than a linear filter has never seen such latents: wrong VAE, wrong scale factor,
    or a scheduler that says it predicts something else. All three are tried. One that predicts none of its target at
    any scale is untrained, which is no fault in who trains from scratch.

    Args:
        denoiser: The denoiser around the base network.
        latents: A few of the data's, 8 to 16, with their captions' conditioning.

    Returns:
        The check "network". Cost: 4 noise levels over the latents, three times with a DDPM-type
        schedule; nine more over the first batch where something is wrong.
    """
    try:
        found = knowledge(denoiser, latents)
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        message = (
            f"the network does not take these latents and captions ({error}): parts of several pipelines are mixed"
        )
        return Check("network", "refused", message, {})
    evidence: dict[str, Any] = {"error_over_linear": found.ratio, "explained_share": found.explained}
    if not math.isfinite(found.ratio):
        message = "the network's output is not finite before training: its weights are broken or overflow"
        return Check("network", "refused", message, evidence)
    size = f"its error is {found.ratio:.2f} of the best linear guess's"
    others = {kind: knowledge(each, latents) for kind, each in _other_predictions(denoiser)}
    evidence["other_predictions"] = {kind: vars(each) for kind, each in others.items()}
    kind = min(others, key=lambda name: others[name].ratio, default=None)
    if kind is not None and others[kind].ratio < _OTHER * min(found.ratio, 1) and others[kind].explained > _UNTRAINED:
        message = (
            f"{size} read as the scheduler says, and {others[kind].ratio:.2f} read as a prediction of {kind}: give "
            f"--prediction {kind}, or correct prediction_type in scheduler/scheduler_config.json"
        )
        return Check("network", "refused", message, evidence)
    if found.ratio < 1 and found.explained >= _UNTRAINED:
        return Check("network", "ok", f"knows these latents: {size}", evidence)
    few = latents[:1]
    here = knowledge(denoiser, few)
    scaled = {scale: knowledge(denoiser, few, scale) for scale in _SCALES}
    evidence["scales"] = {f"{scale:.4g}": vars(each) for scale, each in scaled.items()}
    best = min(scaled, key=lambda each: scaled[each].ratio)
    known = scaled[best].explained >= _UNTRAINED
    if known and scaled[best].ratio < _BETTER * here.ratio and scaled[best].ratio < 1:
        message = (
            f"{size}, and {scaled[best].ratio:.2f} with latents {best:.3g} times as large: the VAE's scaling_factor "
            "(vae/config.json) is not the one that this network was trained with"
        )
        return Check("network", "refused", message, evidence)
    if max(found.explained, *(each.explained for each in scaled.values())) < _UNTRAINED:
        message = (
            f"{size}, and it predicts nothing of its target at any scale: its weights look untrained. If you train "
            "from scratch all is well; if not, this is not the network, or it is not the scheduler that goes with it"
        )
        return Check("network", "warning", message, evidence)
    message = (
        f"{size}, at any scale: it has learned to denoise, but not these latents. Either the VAE is not the one that "
        "it was trained with (take VAE and network from one pipeline), or these pictures are like nothing it has seen"
    )
    return Check("network", "refused", message, evidence)


def check_attention(model: nn.Module, denoiser: Denoiser, latents: Latents, precision: str) -> Check:
    r"""Whether attention's logits fit into float16.

    :math:`q \cdot k / \sqrt{d}` is read at four noise levels from a sample of queries; float16 ends at 65504, and
    training may well make the largest logit eight times as large.

    Args:
        model: The network.
        denoiser: The denoiser around it.
        latents: A few of the data's.
        precision: That of the run, "fp32", "bf16" or "fp16".

    Returns:
        The check "attention".
    """
    try:
        with AttentionProbe().attach(model) as attention:
            with torch.no_grad(), evaluating(denoiser):
                for level in _LEVELS:
                    for z, conditioning in latents:
                        noisy = z.float() + level * torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(
                            z.device
                        )
                        denoiser(noisy, torch.tensor(level, device=z.device), conditioning)
            seen = attention()
    except LayersNotMeasuredError as error:
        seen = dict(error.measured)
    except (ValueError, NothingMeasuredError):
        seen = {}
    if not seen:
        return Check("attention", "warning", "no attention layer could be watched; overflow in float16 is not checked")
    largest = {name: float(values["logit_max"]) for name, values in seen.items()}
    layer = max(largest, key=lambda name: math.inf if math.isnan(largest[name]) else largest[name])
    value = largest[layer]
    evidence = {"layer": layer, "logit_max": value, "limit": _FLOAT16, "layers": len(seen)}
    found = f"the largest logit is {value:.3g} ({layer})"
    if not math.isfinite(value):
        return Check("attention", "refused", f"{found}: the base's weights overflow already; take others", evidence)
    if value * _HEADROOM < _FLOAT16:
        return Check("attention", "ok", found, evidence)
    advice = "train with --precision bf16 or fp32, and lower these layers' weights (--method spectral_normalization)"
    if value >= _FLOAT16:
        verdict: Verdict = "refused" if precision == "fp16" else "warning"
        return Check("attention", verdict, f"{found}: beyond float16, which ends at 65504; {advice}", evidence)
    return Check(
        "attention", "warning", f"{found}: within a factor {_FLOAT16 / value:.1f} of float16's end; {advice}", evidence
    )


def _zeros(x: Tensor, t: Tensor | None = None, **conditioning: Any) -> Tensor:
    """A network that has learned nothing."""
    return torch.zeros_like(x)


def _other_predictions(denoiser: Denoiser) -> list[tuple[str, Denoiser]]:
    if not isinstance(denoiser, DDPMDenoiser):
        return []
    kinds = [kind for kind in ("epsilon", "v", "sample") if kind != denoiser.prediction]
    if denoiser.alphas_cumprod[-1] == 0:
        kinds = [kind for kind in kinds if kind != "epsilon"]
    return [(kind, replace(denoiser, prediction=kind)) for kind in kinds]  # type: ignore[arg-type]


def _spectrum(latents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean power of a coefficient by channel and ring of frequencies, and coefficients in each, over all latents."""
    channels = latents[0].shape[1]
    power = torch.zeros(channels, _RINGS, dtype=torch.float64)
    counts = torch.zeros(channels, _RINGS, dtype=torch.float64)
    mean = torch.cat([z.movedim(1, 0).flatten(1) for z in latents], 1).mean(1)
    for z in latents:
        h, w = z.shape[-2:]
        transform = torch.fft.fft2(z - mean.view(1, -1, 1, 1), norm="ortho").abs().square().double().cpu()
        radius = (torch.fft.fftfreq(h)[:, None].square() + torch.fft.fftfreq(w).square()).sqrt()
        ring = (radius * _RINGS).round().long().clamp(max=_RINGS - 1).flatten()
        power.index_add_(1, ring, transform.sum(0).flatten(1))
        counts.index_add_(1, ring, torch.full((channels, len(ring)), float(len(z)), dtype=torch.float64))
    return power / counts.clamp_min(1), counts
