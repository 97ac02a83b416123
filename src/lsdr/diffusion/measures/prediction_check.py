"""Does the network's output mean what its denoiser takes it for?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.denoiser import Conditioning, Denoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.probes.conditioning import rows_of
from lsdr.probes.evaluating import evaluating

READINGS = {
    "epsilon": "the noise (epsilon)",
    "v": "the velocity v of a DDPM schedule",
    "sample": "the clean image (sample)",
    "edm": "what EDM preconditioning asks for",
    "flow": "the velocity of flow matching",
}
"""How a network's output can be read, in words."""
_SEVERAL = 2.0  # times worse than not looking at the image at all
_BETTER = 1.5  # times smaller an error than that of the denoiser's own reading
_CLEARLY = 0.8  # of the error without the network: below it the network's output must carry information


@dataclass(frozen=True)
class PredictionCheck:
    """Denoising errors of the readings of one network; mean squares per pixel, per noise level."""

    reading: str | None
    """How the denoiser reads its network: a key of `READINGS`; None if it is none of ours."""
    sigma: Float[Tensor, "levels"]
    """Noise levels, ascending."""
    error: Float[Tensor, "levels"]
    """Error of the denoiser as it is."""
    trivial: Float[Tensor, "levels"]
    """min(sigma^2, variance of the images): the better of giving back the noisy image and giving back the mean."""
    linear: Float[Tensor, "levels"]
    """The error of the best single factor on every pixel, variance * sigma^2 / (variance + sigma^2)."""
    others: dict[str, Float[Tensor, "levels"]]
    """Errors of the other readings; empty where the denoiser's own left nothing to ask."""
    fits: str | None
    """The reading that fits the network where its own does not."""

    @property
    def trained(self) -> bool:
        """Whether the denoiser beats the best single factor, on a geometric mean over levels."""
        return _times(self.error, self.linear) < 1.0

    @property
    def relative(self) -> float:
        """Error over the trivial one, on a geometric mean over levels."""
        return _times(self.error, self.trivial)

    @property
    def message(self) -> str | None:
        """What is wrong and what to do; None if nothing is."""
        if self.fits is None:
            return None
        worst = float((self.error / self.trivial).max())
        return (
            f"the network seems to predict {self.fits}, not {self.reading or 'what its denoiser takes it for'}: read "
            f"so, its denoising error is up to {worst:.3g} times that of a trivial estimate, and read as "
            f"{READINGS[self.fits]} it is {_times(self.error, self.others[self.fits]):.3g} times smaller on average. "
            f"Pass prediction={self.fits!r}, or correct the scheduler's prediction_type"
        )


@torch.no_grad()
def prediction_check(
    denoiser: Callable[..., Tensor],
    clean: Float[Tensor, "n c *dims"],
    *,
    conditioning: Conditioning = None,
    levels: int = 7,
    batch: int = 64,
    generator: torch.Generator | None = None,
) -> PredictionCheck:
    r"""Compare a denoiser's error with that of estimates which need no network, and find the reading that fits.

    .. math::
        \frac{\mathbb{E}\|D(x_0 + \sigma\epsilon, \sigma) - x_0\|^2}{d \min(\sigma^2, s^2)},
        \qquad s^2 = \text{variance of the pixels}

    at noise levels from 0.1 s to 10 s. A network read as it was trained stays below 1 or near it. Where this ratio is 2
    or more at some level, the same network is read in the other ways (noise, velocity, clean image, EDM
    preconditioning, flow matching). One of them fits if its error is at most 0.8 of the same reading's with the
    network's output left out, so that the network must know something of the image; if on average over the levels it
    is below the trivial error; and if it is at most two thirds of the denoiser's own. Of several the best is named. An
    untrained network fits no reading: that is not an error.

    Schedules: a reading as epsilon, v or sample takes the denoiser's own table if it has one, DDPM's linear one
    otherwise; EDM takes sigma_data = 0.5. Averages over levels are geometric. Cost: `levels` evaluations of the
    denoiser per image, five to six times that where something is wrong. Invisible to the model.

    Source: the comparison is ours; the readings are those of `EDMDenoiser`, `DDPMDenoiser` and `FlowDenoiser`.

    Args:
        denoiser: D(x, sigma, conditioning), any callable; other readings are tried if it has a `model`.
        clean: Images in the range that the network was trained on.
        conditioning: Their classes, or whatever the denoiser is conditioned on, one entry per image.
        levels: How many noise levels.
        batch: Images per evaluation.
        generator: Source of the noise, on the CPU.

    Returns:
        Errors by level, and the reading that fits if the denoiser's own does not.

    Raises:
        ValueError: If there are no images, they are not finite, or they are all the same (one image: of one colour).

    Example:
        >>> images = 0.5 * torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> noise_of = lambda x, t: torch.zeros_like(x)
        >>> prediction_check(EDMDenoiser(noise_of), images, generator=torch.Generator().manual_seed(0)).fits is None
        True
    """
    if len(clean) == 0 or levels < 1:
        raise ValueError(f"need at least one image and one noise level, got {len(clean)} and {levels}")
    if not bool(clean.isfinite().all()):
        raise ValueError(f"the images hold {int((~clean.isfinite()).sum())} values that are nan or infinite; mend them")
    mean = clean.mean(0, keepdim=True) if len(clean) > 1 else clean.mean()
    variance = float((clean - mean).double().square().mean())
    if not variance > 0:
        raise ValueError(f"the {len(clean)} images are all the same, so no noise level is high or low for them")
    sigma = variance**0.5 * torch.logspace(-1, 1, levels, dtype=torch.float64)
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)

    def error(of: Any) -> Tensor:
        return _errors(of, clean, noise, sigma.to(clean), conditioning, batch)

    squared = sigma.square()
    own, trivial, reading = error(denoiser), squared.clamp(max=variance), _reading(denoiser)
    others: dict[str, Tensor] = {}
    fits = None
    if float((own / trivial).max()) >= _SEVERAL:
        ratios = {}
        for name, other in _readings(denoiser, getattr(denoiser, "model", None)).items():
            if name == reading:
                continue
            others[name] = error(other)
            without = error(_readings(denoiser, _silent)[name])
            informed = _times(others[name], without) <= _CLEARLY
            if informed and _times(others[name], trivial) < 1 and _times(own, others[name]) >= _BETTER:
                ratios[name] = _times(others[name], trivial)
        fits = min(ratios, key=ratios.__getitem__) if ratios else None
    return PredictionCheck(reading, sigma, own, trivial, variance * squared / (variance + squared), others, fits)


def read_as(reading: str, model: Any, alphas_cumprod: Float[Tensor, "t"] | None = None) -> Denoiser:
    """A network as a denoiser, its output read as one of `READINGS`.

    Args:
        reading: "epsilon", "v", "sample", "edm" or "flow".
        model: The network.
        alphas_cumprod: The schedule of the first three; DDPM's linear one if None.

    Raises:
        ValueError: If the reading is unknown.
    """
    if reading == "edm":
        return EDMDenoiser(model)
    if reading == "flow":
        return FlowDenoiser(model)
    if reading not in READINGS:
        raise ValueError(f"prediction is {reading!r}; expected one of {', '.join(READINGS)}")
    if alphas_cumprod is None:
        from diffusers import DDPMScheduler

        alphas_cumprod = DDPMScheduler().alphas_cumprod
    if reading == "epsilon" and alphas_cumprod[-1] == 0:  # a network on such a schedule cannot predict the noise
        alphas_cumprod = alphas_cumprod[:-1]
    return DDPMDenoiser(model, alphas_cumprod, reading)  # type: ignore[arg-type]


def _reading(denoiser: Any) -> str | None:
    if isinstance(denoiser, DDPMDenoiser):
        return denoiser.prediction
    return {EDMDenoiser: "edm", FlowDenoiser: "flow"}.get(type(denoiser))


def _readings(denoiser: Any, model: Any) -> dict[str, Denoiser]:
    """Every reading of a network, under the denoiser's schedule where it has one."""
    if not callable(model):
        return {}
    table = getattr(denoiser, "alphas_cumprod", None)
    return {name: read_as(name, model, table) for name in READINGS}


def _silent(x: Tensor, *arguments: Any, **named: Any) -> Tensor:
    """A network that says nothing."""
    return torch.zeros_like(x)


def _errors(
    denoiser: Any, clean: Tensor, noise: Tensor, sigma: Tensor, conditioning: Conditioning, batch: int
) -> Float[Tensor, "levels"]:
    """Mean squared error per pixel at each level, in float64 on the CPU; infinite where the network has no answer."""
    errors = []
    with evaluating(denoiser):
        for level in sigma:
            total = 0.0
            for rows in torch.arange(len(clean), device=clean.device).split(batch):
                given = rows_of(conditioning, rows)
                denoised = denoiser(clean[rows] + level * noise[rows], level.expand(len(rows)), given)
                total += float((denoised - clean[rows]).double().square().sum())
            errors.append(total / clean.numel())
    return torch.tensor(errors, dtype=torch.float64).nan_to_num(nan=torch.inf)


def _times(error: Tensor, other: Tensor) -> float:
    """How many times larger an error is, on a geometric mean over the levels."""
    return float((error / other).log().mean().exp())
