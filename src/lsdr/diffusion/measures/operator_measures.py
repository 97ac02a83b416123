"""The operator's spectrum in short: what every run of a comparison is measured by."""

import logging
import math
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.denoiser import Conditioning, Denoiser
from lsdr.diffusion.measures.config import MeasureConfig
from lsdr.diffusion.measures.mmse_identity import mmse_identity
from lsdr.diffusion.measures.operator_by_noise import Effort, covariance_eigenvalues, operator_by_noise
from lsdr.diffusion.sigmas import next_sigma
from lsdr.fourier.grid_artifacts import GridArtifact, grid_artifact_db, grid_artifacts
from lsdr.probes.conditioning import rows_of

_EIGENVALUES = 3
_NAMES = ("operator_largest", "operator_asymmetry", "calibration_gap_db")


def operator_measures(
    denoiser: Denoiser,
    images: Float[Tensor, "n c h w"],
    sigmas: Float[Tensor, "steps"],
    *,
    labels: Conditioning = None,
    data: Float[Tensor, "m c h w"] | None = None,
    config: MeasureConfig,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Largest eigenvalue, asymmetry and calibration of a denoiser, with the curves over noise levels.

    Noise levels are the middles of `config.operator_levels` bands of equal probability in training; each step leads to
    the next lower level of the sampler. To be affordable after every run, eigenvalues come from a Lanczos quadrature of
    eight steps (see `Effort.quick`), so they are somewhat low, for every method alike. What cannot be measured, as of a
    diverged model, is nan and has no curve; the reason is logged.

    Args:
        denoiser: The denoiser.
        images: Held-out images.
        sigmas: The sampler's noise levels.
        labels: Classes of the images, or whatever the denoiser is conditioned on, one entry per image.
        data: Images for the Gaussian prediction.
        config: Sizes.
        generator: Source of randomness.

    Returns:
        Measures, and "operator" for curves.json: a list of levels (see `OperatorLevel`). Nothing if
        `config.operator_images` is 0.
    """
    if not config.operator_images:
        return {}, {}
    first = slice(config.operator_images)
    given = rows_of(labels, first)
    try:
        middle = (torch.arange(config.operator_levels) + 0.5) / config.operator_levels
        calibration = mmse_identity(
            denoiser,
            images[first],
            denoiser.draw_sigma(middle.to(images)),
            conditioning=given,
            batch=config.batch,
            generator=generator,
        )
        levels = operator_by_noise(
            denoiser,
            images[first],
            calibration,
            [next_sigma(level, sigmas) for level in calibration.sigma.tolist()],
            covariance=None if data is None else covariance_eigenvalues(data),
            k=_EIGENVALUES,
            conditioning=given,
            effort=Effort(steps=8, quick=True, batch=config.batch),
            generator=generator,
        )
    except Exception as error:  # whatever it is, the run has ended well and keeps its other measures
        logging.getLogger("lsdr").warning("the operator's spectrum could not be measured: %s", error)
        return dict.fromkeys(_NAMES, math.nan), {}
    measures = {
        "operator_largest": _mean([level.eigenvalues["median"][0] for level in levels]),
        "operator_asymmetry": _mean([level.asymmetry for level in levels]),
        "calibration_gap_db": calibration.calibration_gap_db,
    }
    return measures, {"operator": [level.to_dict() for level in levels]}


def artifact_measures(
    samples: Float[Tensor, "n c h w"], data: Float[Tensor, "m c h w"]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Grids and stripes of samples against data, nan where there are too few images or pixels to tell.

    Args:
        samples: Generated images.
        data: Real images of the same size.

    Returns:
        "grid_artifact_db", and "artifacts" for curves.json: the significant ones (see `GridArtifact`).
    """
    try:
        measures = {"grid_artifact_db": grid_artifact_db(samples, data)}
        found = grid_artifacts(samples, data)
    except Exception as error:  # as above
        logging.getLogger("lsdr").warning("grid artefacts could not be measured: %s", error)
        return {"grid_artifact_db": math.nan}, {}
    return measures, {"artifacts": [artifact_dict(each) for each in found]}


def artifact_dict(artifact: GridArtifact) -> dict[str, Any]:
    """An artefact as plain numbers, for JSON."""
    return {**asdict(artifact), "frequency": list(artifact.frequency)}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
