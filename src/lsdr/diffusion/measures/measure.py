"""All measures of a trained denoiser, on common random numbers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.diffusion.denoiser import Conditioning, Denoiser
from lsdr.diffusion.heun import heun
from lsdr.diffusion.measures.config import MeasureConfig
from lsdr.diffusion.measures.heldout_loss import heldout_loss
from lsdr.diffusion.measures.lyapunov import lyapunov
from lsdr.diffusion.measures.operator_measures import artifact_measures, operator_measures
from lsdr.diffusion.measures.sensitivity import sensitivity
from lsdr.diffusion.sigmas import karras_sigmas
from lsdr.measures.diversity import diversity
from lsdr.measures.feature_distance import feature_distance
from lsdr.measures.power_spectrum_error import power_spectrum_error
from lsdr.probes.conditioning import rows_of, tensors_of
from lsdr.probes.evaluating import evaluating

_OF_SAMPLES = (
    "psd_rmse_db",
    "psd_rmse_low_db",
    "psd_rmse_mid_db",
    "psd_rmse_high_db",
    "diversity_variance",
    "nearest_neighbour",
    "nearest_train",
    "fid",
    "kid",
    "sensitivity",
    "grid_artifact_db",
)


def measure_run(
    denoiser: Denoiser,
    *,
    train_images: Float[Tensor, "n c h w"],
    heldout_images: Float[Tensor, "m c h w"],
    train_labels: Conditioning = None,
    heldout_labels: Conditioning = None,
    extractor: nn.Module,
    weight: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    config: MeasureConfig | None = None,
) -> tuple[dict[str, float], dict[str, Any], Float[Tensor, "k c h w"]]:
    """Measure a denoiser: held-out loss, operator, samples, sensitivity, exponents.

    Two denoisers measured with the same seed, images and sizes see the same held-out noise, make their samples from the
    same noise and labels and are disturbed in the same directions, so that differences are theirs. Each measure draws
    from a generator of its own: changing the size of one leaves the others as they were. Samples come from Heun's
    method between noise levels 0.002 and 80 (less where the denoiser's range is less) and are clipped to [-1, 1], as in
    a picture, for the measures of samples; sensitivity and exponents are of the sampler before clipping. Samples are
    compared with the training images, the loss with held-out ones. Invisible: the model, its gradients and flags and
    the global random state stay as they are. A model that returns values that are not finite has nan for what cannot be
    measured.

    Args:
        denoiser: What to measure.
        train_images: Training images in [-1, 1]; the first `config.train_images` are used.
        heldout_images: Held-out images in [-1, 1]; the first `config.heldout_images` are used.
        train_labels: Classes of the training images, or whatever else the denoiser is conditioned on; given, samples
            are conditioned on labels drawn from them.
        heldout_labels: The same of the held-out images.
        extractor: Maps images to features for FID and KID.
        weight: Weight of the loss at each noise level; EDM's by default.
        seed: Decides all random numbers.
        config: Sizes.

    Returns:
        Measures by the names of `catalogue.MEASURES`; curves as in curves.json; the clipped samples.

    Raises:
        ValueError: If only one of the two sets of labels is given.
    """
    if (train_labels is None) != (heldout_labels is None):
        raise ValueError("give labels of training and held-out images, for a conditional denoiser, or of neither")
    config = config or MeasureConfig()
    train_images, heldout_images = train_images[: config.train_images], heldout_images[: config.heldout_images]
    labels = None if train_labels is None else _labels(train_labels, config.samples, _generator(seed, 0))
    shape = (config.samples, *train_images.shape[1:])
    noise = torch.randn(shape, generator=_generator(seed, 1)).to(train_images.device)
    low, high = max(denoiser.sigma_min, 2e-3), min(denoiser.sigma_max, 80.0)
    sigmas = karras_sigmas(config.sampler_steps, low, high).to(noise.device)

    given = rows_of(heldout_labels, slice(config.heldout_images))
    loss = heldout_loss(
        denoiser,
        heldout_images,
        labels=given,
        weight=weight,
        bands=config.bands,
        batch=config.batch,
        generator=_generator(seed, 2),
    )
    names = ("heldout_loss_low_noise", "heldout_loss_mid_noise", "heldout_loss_high_noise")
    measures = {"heldout_loss": float(loss.mean), **dict(zip(names, map(float, loss.thirds), strict=True))}
    curves: dict[str, Any] = {"heldout_loss_by_sigma": {"sigma": loss.sigma.tolist(), "loss": loss.loss.tolist()}}

    found, curve = operator_measures(
        denoiser,
        heldout_images,
        sigmas,
        labels=given,
        data=train_images,
        config=config,
        generator=_generator(seed, 6),
    )
    measures, curves = measures | found, curves | curve
    with evaluating(denoiser), torch.no_grad():
        samples = sample_heun(denoiser, noise, sigmas, labels, config.batch)
    clipped = samples.clamp(-1, 1)
    if not bool(samples.isfinite().all()):
        lost = (*_OF_SAMPLES, "lyapunov") if config.lyapunov_images else _OF_SAMPLES
        return measures | dict.fromkeys(lost, math.nan), curves, clipped

    found, curves["power_spectrum"] = _of_samples(clipped, train_images, extractor, seed)
    artifacts, curve = artifact_measures(clipped, train_images)
    measures, curves = measures | found | artifacts, curves | curve
    first = slice(config.sensitivity_images)
    with evaluating(denoiser):
        response = sensitivity(
            lambda z, given=None: sample_heun(denoiser, z, sigmas, given, config.batch),
            noise[first],
            conditioning=rows_of(labels, first),
            generator=_generator(seed, 4),
        )
    measures["sensitivity"] = float(response.mean())
    if config.lyapunov_images:
        first = slice(config.lyapunov_images)
        with evaluating(denoiser):
            exponents = lyapunov(
                heun_steps(denoiser, sigmas),
                noise[first],
                conditioning=rows_of(labels, first),
                directions=min(config.lyapunov_directions, noise[0].numel()),
                iterations=config.lyapunov_iterations,
                generator=_generator(seed, 5),
            )
        measures["lyapunov"] = float(exponents.exponents[:, 0].mean())
        curves["lyapunov"] = {"exponents": exponents.exponents.mean(0).tolist(), "residual": exponents.residual}
    return measures, curves, clipped


def heun_steps(denoiser: Denoiser, sigmas: Float[Tensor, " levels"]) -> list[Callable[..., Tensor]]:
    """The Heun sampler as a chain of maps, the first from unit-normal noise: what `lyapunov` takes.

    The product of their Jacobians is the Jacobian of the sampler with respect to its unit-normal noise. In these units
    an exponent of 0 means that a small change of the noise comes out as large as it went in.

    Args:
        denoiser: The denoiser.
        sigmas: Noise levels of the sampler.

    Returns:
        One map per step, step(state) or step(state, conditioning).
    """

    def step(state: Tensor, given: Conditioning = None, *, at: int) -> Tensor:
        unit = state if at == 0 else state / sigmas[at].to(state)
        return heun(denoiser, unit, sigmas[at : at + 2], given)

    return [partial(step, at=index) for index in range(len(sigmas) - 1)]


def _of_samples(
    samples: Tensor, data: Tensor, extractor: nn.Module, seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Measures of samples against data, and the curve of the power spectra."""
    spectrum = power_spectrum_error(samples, data)
    spread = diversity(samples, data)
    distance = feature_distance(samples, data, extractor, generator=_generator(seed, 3))
    measures = {
        "psd_rmse_db": spectrum.overall,
        "psd_rmse_low_db": spectrum.low,
        "psd_rmse_mid_db": spectrum.mid,
        "psd_rmse_high_db": spectrum.high,
        "diversity_variance": spread.variance,
        "nearest_neighbour": spread.nearest_neighbour,
        "nearest_train": spread.nearest_train,
        "fid": distance.fid,
        "kid": distance.kid,
    }
    columns = ("frequency", "data", "data_low", "data_high", "samples", "samples_low", "samples_high")
    return (
        {name: float(value) for name, value in measures.items()},
        {name: getattr(spectrum, name).tolist() for name in columns},
    )


def sample_heun(denoiser: Denoiser, noise: Tensor, sigmas: Tensor, labels: Conditioning, batch: int) -> Tensor:
    """Heun samples, some at a time; without gradient if the caller says so."""
    rows = torch.arange(len(noise), device=noise.device).split(batch)
    return torch.cat([heun(denoiser, noise[part], sigmas, rows_of(labels, part)) for part in rows])


def _labels(labels: Any, count: int, generator: torch.Generator) -> Any:
    """Labels in the proportions of the data."""
    return rows_of(labels, torch.randint(len(tensors_of(labels)[0]), (count,), generator=generator))


def _generator(seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each measure, on the CPU so that every device gets the same numbers."""
    return torch.Generator().manual_seed(seed * 1000 + stream)
