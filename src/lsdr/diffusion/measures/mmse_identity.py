"""Does a denoiser's Jacobian tell its own error? The calibration curve over noise levels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.measures.noisy_levels import noisy_levels
from lsdr.linalg.jacobian import Estimator
from lsdr.probes.conditioning import Given, rows_of
from lsdr.probes.evaluating import evaluating
from lsdr.probes.operator_spectrum import operator_trace

_MOST_DB = 10.0
_COLUMNS = ("sigma", "mse", "mse_error", "trace", "trace_error", "sure")


@dataclass(frozen=True)
class MMSEIdentity:
    """Denoising error and what the Jacobian says it should be, per pixel and noise level."""

    sigma: Float[Tensor, "levels"]
    """Noise levels, as given."""
    mse: Float[Tensor, "levels"]
    """Mean squared error of the estimate, measured against the clean images."""
    mse_error: Float[Tensor, "levels"]
    """Standard error of `mse` over the images."""
    trace: Float[Tensor, "levels"]
    """tr J_D / d: the mean eigenvalue of the Jacobian."""
    trace_error: Float[Tensor, "levels"]
    """Standard error of `trace` over images and probes."""
    sure: Float[Tensor, "levels"]
    """Stein's unbiased risk estimate: the error that follows from the trace, whatever the denoiser."""
    estimator: Estimator
    """How products with the Jacobian were had."""
    why: str
    """Why so, in words."""

    def at(self, place: int) -> "MMSEIdentity":
        """One level of it."""
        rows = slice(place, place + 1)
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    @property
    def identity(self) -> Float[Tensor, "levels"]:
        """sigma^2 tr J_D / d: the error of a denoiser that is the posterior mean."""
        return self.sigma.square() * self.trace

    @property
    def gap_db(self) -> Float[Tensor, "levels"]:
        """10 log10(sigma^2 tr J_D / (d mse)), in [-10, 10]; -10 where the trace is not positive, nan where unknown."""
        ratio = self.identity / self.mse
        gap = 10 * ratio.clamp_min(0).log10()
        # 0 / 0, an error of zero where the Jacobian is zero, is agreement; nan stays nan.
        gap = torch.where((self.mse == 0) & (self.identity == 0), 0.0, gap)
        return gap.clamp(-_MOST_DB, _MOST_DB)

    @property
    def calibration_gap_db(self) -> float:
        """Root mean square of `gap_db` over the levels."""
        return float(self.gap_db.square().mean().sqrt())


@torch.no_grad()
def mmse_identity(
    denoiser: Callable[..., Tensor],
    clean: Float[Tensor, "n c *dims"],
    sigmas: Float[Tensor, "levels"],
    *,
    conditioning: Given = None,
    probes: int = 1,
    estimator: Estimator = "auto",
    batch: int = 64,
    generator: torch.Generator | None = None,
) -> MMSEIdentity:
    r"""Compare a denoiser's error with the trace of its Jacobian, level by level.

    .. math::
        \frac1d \mathbb{E}\|D - x_0\|^2 = \frac{\sigma^2}{d}\,\mathbb{E}\,\mathrm{tr} J_D \quad (\text{the optimum}),
        \qquad
        \frac1d \mathbb{E}\|D - x_0\|^2 = \frac1d\,\mathbb{E}\bigl[\|D - y\|^2 - d\sigma^2
        + 2\sigma^2\,\mathrm{tr} J_D\bigr] \quad (\text{every } D)

    with y the noisy image and d its number of pixels. The second, Stein's identity, holds for any denoiser and tells
    whether the trace was measured well; the first only for the posterior mean, whose Jacobian is Cov[x0 | y] / sigma^2.
    So the gap between `mse` and `identity` measures how far the denoiser is from being calibrated: 0 dB at the optimum,
    positive where it lets through more noise than its error accounts for. Of Stein's estimate the parts that average to
    zero are taken off (the noise's own power, its product with the clean image): they would drown it at high noise (so
    it is not the blind estimate, which needs no clean image). All are estimates: `mse` and `trace` vary over images and
    noise like 1/sqrt(n d'), with d' the number of directions in which the posterior varies, and the trace over random
    probes besides. Units: those of the pixels, squared. Cost: per image and level 3 evaluations and 1 + `probes`
    products with the Jacobian; of finite differences `probes`, and 12 evaluations to find the step. Invisible to the
    model.

    Source: Stein, Annals of Statistics 9 (1981); for the posterior mean it follows from Tweedie's formula (Efron 2011).

    Args:
        denoiser: D(x, sigma, conditioning), any callable.
        clean: Clean images, better such as the model has not seen.
        sigmas: Noise levels, positive.
        conditioning: What each image is conditioned on, one entry per image.
        probes: Random vectors per image and level for the trace.
        estimator: How products with the Jacobian are had; see `operator_trace`.
        batch: Images per evaluation.
        generator: Source of noise and probes.

    Returns:
        Error, trace and Stein's estimate per level, in float64 on the CPU.

    Raises:
        TypeError: If the images are not floating-point numbers.
        ValueError: If there are no images or levels, images are not finite, a level is not positive and finite, or as
            `operator_trace`.

    Example:
        >>> from lsdr.diffusion.edm import EDMDenoiser
        >>> images = 0.5 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> optimum = EDMDenoiser(lambda x, t: torch.zeros_like(x))  # of white noise with standard deviation 0.5
        >>> found = mmse_identity(optimum, images, torch.tensor([0.5]), generator=torch.Generator().manual_seed(1))
        >>> round(float(found.trace), 3), round(float(found.identity), 3), round(float(found.mse), 2)
        (0.5, 0.125, 0.12)
    """
    if len(clean) == 0 or len(sigmas) == 0:
        raise ValueError(f"need images and noise levels, got {len(clean)} and {len(sigmas)}")
    levels, count, why = len(sigmas), len(clean), ""
    noisy, sigma, given, clean, unit = noisy_levels(clean, sigmas, conditioning, generator)
    middle = clean.mean(0)
    errors, stein = [], []
    with evaluating(denoiser):
        for rows in torch.arange(len(clean), device=clean.device).split(batch):
            denoised = denoiser(noisy[rows], sigma[rows], rows_of(given, rows))
            errors.append(_mean_square(denoised - clean[rows]))
            # What noise and estimate have in common: sigma tr J / d on average (Stein's lemma). Taking a fixed image
            # off the estimate changes no average and, at high noise, takes off nearly all of the variance.
            stein.append((unit[rows] * (denoised - middle)).double().flatten(1).mean(1).cpu())
    if estimator == "auto":  # what works for an image of each level works for all; choosing costs evaluations
        first = slice(None, None, count)
        few = rows_of(given, first)
        own = torch.Generator().manual_seed(0)
        chosen = operator_trace(
            denoiser, noisy[first], sigma[first], conditioning=few, probes=1, batch=batch, generator=own
        )
        estimator, why = chosen.estimator, chosen.why
    found = operator_trace(
        denoiser,
        noisy,
        sigma,
        conditioning=given,
        probes=probes,
        estimator=estimator,
        batch=batch,
        generator=generator,
    )
    traces, why = found.trace, why or found.why
    mse, common, trace = (each.view(levels, count) for each in (torch.cat(errors), torch.cat(stein), traces))
    level = sigmas.double().cpu()[:, None]
    return MMSEIdentity(
        sigma=sigmas.double().cpu(),
        mse=mse.mean(1),
        mse_error=_standard_error(mse),
        trace=trace.mean(1),
        trace_error=_standard_error(trace),
        sure=(mse + 2 * level * (level * trace - common)).mean(1),
        estimator=estimator,
        why=why,
    )


def _mean_square(images: Float[Tensor, "n *dims"]) -> Float[Tensor, "n"]:
    """Per image, in float64 on the CPU."""
    return images.double().square().flatten(1).mean(1).cpu()


def _standard_error(values: Float[Tensor, "levels n"]) -> Float[Tensor, "levels"]:
    """Of the mean of each row; nan for a single value."""
    count = values.shape[1]
    return values.std(1) / count**0.5 if count > 1 else torch.full_like(values[:, 0], torch.nan)
