"""What a trained diffusion model does: the spectrum of its denoising step over noise levels, and its samples."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsdr.diffusion.denoiser import Denoiser
from lsdr.diffusion.measures.lyapunov import lyapunov
from lsdr.diffusion.measures.measure import heun_steps, sample_heun
from lsdr.diffusion.measures.mmse_identity import MMSEIdentity, mmse_identity
from lsdr.diffusion.measures.operator_by_noise import OperatorLevel, covariance_eigenvalues, operator_by_noise
from lsdr.diffusion.measures.operator_measures import artifact_dict
from lsdr.diffusion.measures.prediction_check import READINGS, PredictionCheck, prediction_check, read_as
from lsdr.diffusion.operator_findings import KINDS as KINDS
from lsdr.diffusion.operator_findings import Finding, finding, not_measured, of_levels, of_prediction, of_samples
from lsdr.diffusion.operator_source import Source, Weights, open_source
from lsdr.diffusion.sigmas import karras_sigmas, next_sigma
from lsdr.fourier.grid_artifacts import grid_artifacts
from lsdr.measures.power_spectrum_error import power_spectrum_error
from lsdr.probes.denoising_step import Frame
from lsdr.probes.evaluating import evaluating

Progress = Callable[[str, float, float, str], None]
_PREDICTIONS = {"edm": "EDM preconditioning", "flow": "flow velocity"}
_CHECKED = 32  # images whose denoising error tells how the network is to be read
_CALIBRATED = 4  # times as many images for the calibration curve as for spectra: it costs little and needs them
_EXPONENTS, _ROUNDS, _TRAJECTORIES = 4, 3, 3


@torch.no_grad()
def inspect_operator(
    source: Path | str,
    *,
    data: str | None = None,
    images: int = 8,
    levels: int = 8,
    k: int = 8,
    ratio: float | None = None,
    frame: Frame = "exploding",
    samples: int = 64,
    prediction: str | None = None,
    seed: int = 0,
    weights: Weights = "average",
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    r"""Measure the operator of a trained diffusion model, from noise to image.

    At noise levels of the sampler's schedule (Karras' levels between 0.002 and 80, or the model's own range if that is
    narrower), on images the model has not seen where that can be told: the eigenvalues, density, asymmetry and trace of
    the denoiser's Jacobian, with gains and time scales of the step (see `operator_by_noise`) and the calibration curve
    (see `mmse_identity`); along the sampler its finite-time Lyapunov exponents (see `lyapunov`); of its samples the
    power spectrum against the data's (see `power_spectrum_error`) and grids and stripes (see `grid_artifacts`). First
    of all it is checked that the network's output is read as it was trained (see `prediction_check`).

    Everything is decided by `seed`; torch's global random state stays as it is. Cost, in evaluations of the network:
    about images x levels x 600 (less at high noise, where spectra fall fast), 4000 for the exponents, and 25 for each
    sample: with the defaults a minute for 0.7 million parameters at 16x16 on one CPU core.

    Source: see the measures.

    Args:
        source: A run's folder as lsdr writes it, or a diffusers folder (UNet2DModel or DiT on pixels, better with its
            scheduler); then `data` is needed.
        data: Images to measure on, as `load_images` takes them; a run's own held-out images by default.
        images: How many images spectra are measured at.
        levels: How many noise levels, at least one.
        k: How many eigenvalues and singular values.
        ratio: sigma' / sigma of the step, in [0, 1); None for the sampler's next level.
        frame: In which frame gains are told: "exploding", "preserving" or "flow".
        samples: Images generated for the power spectrum and the artefacts; 0 leaves these out.
        prediction: How to read the network's output ("epsilon", "v", "sample", "edm", "flow"), if not as the run or
            the scheduler says. If that is wrong too, it is a finding and no error.
        seed: Decides noise, random starts and samples.
        weights: Averaged weights or those of the last step, of a run.
        device: Where to compute; a GPU if there is one.
        progress: Called with what is being done, how much of how much of it is done, and the same in words.

    Returns:
        Plain numbers for JSON: "source", "model", "prediction", "shape", "images", "frame", "estimator", "why",
        "levels" (see `OperatorLevel`, from noise to image), "lyapunov", "power_spectrum", "artifacts" and "findings",
        each with "severity", "kind" (one of `KINDS`) and "message".

    Raises:
        ValueError: If the folder or the images cannot be used (see `open_source`), an argument is out of range, the
            model's output is not finite, or the network was trained to predict something else than it is read as.
    """
    _check(images, levels, k, ratio, samples, prediction)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    say = progress or (lambda doing, done, total, words: None)
    say("loading the model", 0, 1, "")
    with torch.random.fork_rng():
        wanted = max(_CALIBRATED * images, _CHECKED)
        opened = open_source(
            Path(source), data=data, images=wanted, weights=weights, prediction=prediction, device=place
        )
    say("checking what the network predicts", 0, 1, "")
    denoiser, check, findings = _read(opened, explicit=prediction is not None, seed=seed)
    low, high = max(denoiser.sigma_min, 2e-3), min(denoiser.sigma_max, 80.0)
    schedule = karras_sigmas(max(opened.sampler_steps, levels), low, high)
    sizes = _Sizes(images, levels, k, ratio, frame)
    calibration, found = _levels(denoiser, opened, schedule, sizes, seed, say)
    findings += of_levels(found, calibration)
    result: dict[str, Any] = {
        "source": str(source),
        "model": f"{opened.name}, {_count(opened)} parameters",
        "prediction": check.reading or type(denoiser).__name__,
        "shape": list(opened.heldout.pixels.shape[1:]),
        "images": min(images, len(opened.heldout.pixels)),
        "frame": frame,
        "estimator": calibration.estimator,
        "why": calibration.why,
        "levels": [level.to_dict() for level in found],
    }
    result["lyapunov"], more = _exponents(denoiser, opened, schedule, images, seed, say)
    findings += more
    result["power_spectrum"], result["artifacts"], more = _of_samples(denoiser, opened, schedule, samples, seed, say)
    order = ("error", "warning", "note")
    result["findings"] = sorted(findings + more, key=lambda each: order.index(each["severity"]))
    plain: dict[str, Any] = _plain(result)
    return plain


@dataclass(frozen=True)
class _Sizes:
    images: int
    levels: int
    k: int
    ratio: float | None
    frame: Frame


def _check(images: int, levels: int, k: int, ratio: float | None, samples: int, prediction: str | None) -> None:
    if images < 1 or levels < 1 or k < 1 or samples < 0:
        raise ValueError(
            f"images, levels and k must be 1 or more and samples 0 or more, got {images}, {levels}, {k} and {samples}"
        )
    if ratio is not None and not 0 <= ratio < 1:
        raise ValueError(f"ratio is sigma'/sigma of a step to less noise and lies in [0, 1), got {ratio}")
    if prediction is not None and prediction not in READINGS:
        raise ValueError(f"prediction is {prediction!r}; expected one of {', '.join(READINGS)}")


def _read(opened: Source, *, explicit: bool, seed: int) -> tuple[Denoiser, PredictionCheck, list[Finding]]:
    """The denoiser, seen to be read as it was trained; or, where nothing says how, as it fits."""
    clean, labels = opened.heldout.pixels, opened.heldout.labels if opened.conditional else None

    def check(denoiser: Denoiser) -> PredictionCheck:
        return prediction_check(denoiser, clean, conditioning=labels, generator=_generator(seed, 0))

    if opened.denoiser is not None:
        found = check(opened.denoiser)
        if found.message is not None and not explicit:
            raise ValueError(found.message)
        return opened.denoiser, found, of_prediction(found)
    tried = {name: read_as(name, opened.network, opened.alphas_cumprod) for name in READINGS}
    checks = {name: check(denoiser) for name, denoiser in tried.items()}
    best = min(checks, key=lambda name: checks[name].relative)
    if not checks[best].trained:
        raise ValueError(
            "the folder holds no scheduler, and read in no way does the network remove noise: pass prediction= "
            f"({', '.join(READINGS)}), or images of the kind that it was trained on"
        )
    said = f"the folder holds no scheduler; the network denoises best when read as {READINGS[best]}, and so it is read"
    return tried[best], checks[best], [finding("note", "wrong_prediction", said)]


def _levels(
    denoiser: Denoiser, opened: Source, schedule: Tensor, sizes: _Sizes, seed: int, say: Progress
) -> tuple[MMSEIdentity, list[OperatorLevel]]:
    """Calibration and spectra, from the highest level to the lowest."""
    clean, labels = opened.heldout.pixels, opened.heldout.labels if opened.conditional else None
    chosen = torch.linspace(0, len(schedule) - 2, sizes.levels).round().long()
    sigmas = schedule[chosen]
    say("measuring the calibration", 0, sizes.levels, "")
    most = slice(_CALIBRATED * sizes.images)
    calibration = mmse_identity(
        denoiser,
        clean[most],
        sigmas,
        conditioning=None if labels is None else labels[most],
        probes=2,
        generator=_generator(seed, 1),
    )
    covariance, found = covariance_eigenvalues(opened.data.pixels), []
    first = slice(sizes.images)
    for place, sigma in enumerate(calibration.sigma.tolist()):
        say("measuring the operator", place, sizes.levels, f"{place}/{sizes.levels} noise levels")
        following = next_sigma(sigma, schedule) if sizes.ratio is None else sizes.ratio * sigma
        found += operator_by_noise(
            denoiser,
            clean[first],
            calibration.at(place),
            [following],
            covariance=covariance,
            k=sizes.k,
            frame=sizes.frame,
            conditioning=None if labels is None else labels[first],
            generator=_generator(seed, 10 + place),
        )
    return calibration, found


def _exponents(
    denoiser: Denoiser, opened: Source, schedule: Tensor, images: int, seed: int, say: Progress
) -> tuple[dict[str, Any], list[Finding]]:
    """Lyapunov exponents of the sampler, averaged over a few trajectories."""
    say("following the sampler", 0, 1, "")
    clean, labels = opened.heldout.pixels, opened.heldout.labels if opened.conditional else None
    first = slice(min(images, _TRAJECTORIES))
    noise = torch.randn(clean[first].shape, generator=_generator(seed, 2)).to(clean.device)
    try:
        with evaluating(denoiser):
            found = lyapunov(
                heun_steps(denoiser, schedule.to(clean.device)),
                noise,
                conditioning=None if labels is None else labels[first],
                directions=min(_EXPONENTS, clean[0].numel()),
                iterations=_ROUNDS,
                generator=_generator(seed, 3),
            )
    except (ValueError, RuntimeError) as error:
        return {}, [not_measured("the sampler's Lyapunov exponents", error)]
    return {
        "exponents": found.exponents.mean(0).tolist(),
        "residual": found.residual,
        "steps": len(schedule) - 1,
    }, []


def _of_samples(
    denoiser: Denoiser, opened: Source, schedule: Tensor, samples: int, seed: int, say: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]], list[Finding]]:
    """The power spectrum of samples against the data's, and what grids and stripes they have."""
    if not samples:
        return {}, [], []
    say("sampling", 0, 1, f"{samples} images")
    pixels, labels = opened.data.pixels, None
    noise = torch.randn((samples, *pixels.shape[1:]), generator=_generator(seed, 4)).to(pixels.device)
    if opened.conditional and opened.data.labels is not None:
        drawn = torch.randint(len(pixels), (samples,), generator=_generator(seed, 5))
        labels = opened.data.labels[drawn.to(pixels.device)]
    with evaluating(denoiser):
        made = sample_heun(denoiser, noise, schedule.to(pixels.device), labels, batch=64)
    if not bool(made.isfinite().all()):
        return {}, [], [finding("error", "not_measured", "the samples are not finite: the model has diverged")]
    made = made.clamp(-1, 1)
    power, columns = power_spectrum_error(made, pixels), ("data", "data_low", "data_high")
    names = ("frequency", *columns, "samples", "samples_low", "samples_high")
    curve = {name: getattr(power, name).tolist() for name in names}
    try:
        artifacts = grid_artifacts(made, pixels)
    except ValueError as error:
        return curve, [], [*of_samples([], power), not_measured("grid artefacts", error)]
    return curve, [artifact_dict(each) for each in artifacts], of_samples(artifacts, power)


def _count(opened: Source) -> str:
    count = sum(parameter.numel() for parameter in opened.network.parameters())
    return f"{count / 1e6:.3g} million" if count >= 1e5 else f"{count:,}"


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1000 + stream)


def _plain(value: Any) -> Any:
    """Numbers that JSON has no word for become None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
