"""What the operator's spectrum says about a model, in words."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from lsdr.diffusion.measures.mmse_identity import MMSEIdentity
from lsdr.diffusion.measures.operator_by_noise import OperatorLevel
from lsdr.diffusion.measures.prediction_check import PredictionCheck
from lsdr.fourier.grid_artifacts import GridArtifact
from lsdr.measures.power_spectrum_error import PowerSpectrumError

KINDS = (
    "wrong_prediction",
    "untrained",
    "not_calibrated",
    "not_symmetric",
    "negative_eigenvalues",
    "expanding_step",
    "grid_artifact",
    "power_missing",
    "not_measured",
)
"""Every kind of finding there is."""

Finding = dict[str, str]
_GAP_DB = 2.0
_ASYMMETRY = 0.5
_NEGATIVE = 0.1
_EXPANDING = 1.05
_MISSING_DB = 3.0


def finding(severity: Literal["error", "warning", "note"], kind: str, message: str) -> Finding:
    """A finding as it stands in the JSON."""
    return {"severity": severity, "kind": kind, "message": message}


def of_prediction(check: PredictionCheck) -> list[Finding]:
    """Whether the network's output is read as it was trained, and whether it was trained at all."""
    if check.message is not None:
        return [finding("error", "wrong_prediction", check.message)]
    if not check.trained:
        return [
            finding(
                "warning",
                "untrained",
                "the network removes noise no better than a single factor on every pixel does: it seems untrained, or "
                "the images are not of the kind, or in the range, that it was trained on",
            )
        ]
    return []


def of_levels(levels: Sequence[OperatorLevel], calibration: MMSEIdentity) -> list[Finding]:
    """Calibration, symmetry, negative eigenvalues and gains, each told once, at the level where it is worst."""
    found = []
    # A gap counts only as far as the estimates' own errors do not explain it; of one image these are not known.
    trace_error, mse_error = (
        each.nan_to_num(nan=math.inf) for each in (calibration.trace_error, calibration.mse_error)
    )
    sure = 10 / math.log(10) * 2 * (
        (trace_error / calibration.trace).square() + (mse_error / calibration.mse).square()
    ).sqrt()  # fmt: skip
    excess = (calibration.gap_db.abs() - sure.nan_to_num(nan=0.0)).nan_to_num(nan=-math.inf)
    place = int(excess.argmax())
    if float(excess[place]) > _GAP_DB:
        gap, sigma = float(calibration.gap_db[place]), float(calibration.sigma[place])
        told = (
            "is not even positive"
            if float(calibration.trace[place]) <= 0
            else f"lies {abs(gap):.1f} dB {_side(gap)} the measured error"
        )
        count = int((excess > _GAP_DB).sum())
        found.append(
            finding(
                "warning",
                "not_calibrated",
                f"at {count} of {len(levels)} noise levels the denoiser's error is not what its Jacobian says: at "
                f"sigma = {sigma:.3g} sigma^2 tr J / d {told}; for the best denoiser the two are the same",
            )
        )
    worst = max(levels, key=lambda level: level.asymmetry)
    if worst.asymmetry > _ASYMMETRY:
        found.append(
            finding(
                "warning",
                "not_symmetric",
                f"at sigma = {worst.sigma:.3g} the Jacobian departs from symmetry by {worst.asymmetry:.2f} (0 for the "
                "best denoiser, 0.71 for a matrix of independent entries)",
            )
        )
    worst = min(levels, key=lambda level: level.smallest)
    if worst.smallest < -_NEGATIVE:
        found.append(
            finding(
                "note",
                "negative_eigenvalues",
                f"at sigma = {worst.sigma:.3g} the smallest eigenvalue is {worst.smallest:.3g} beside the largest "
                f"{worst.eigenvalues['median'][0]:.3g}; the best denoiser, whose Jacobian is a covariance, has none "
                "below zero",
            )
        )
    worst = max(levels, key=lambda level: level.eigenvalues["median"][0])
    if worst.eigenvalues["median"][0] > _EXPANDING:
        found.append(
            finding(
                "note",
                "expanding_step",
                f"at sigma = {worst.sigma:.3g} the largest eigenvalue is {worst.eigenvalues['median'][0]:.3g}: small "
                "differences grow along its direction, as where images of different kinds part, or where the network "
                "is too sharp",
            )
        )
    return found


def of_samples(artifacts: Sequence[GridArtifact], power: PowerSpectrumError | None) -> list[Finding]:
    """Grids and stripes of the samples, and detail they lack."""
    found = [finding("warning", "grid_artifact", f"the samples have {each}") for each in artifacts[:3]]
    if power is not None and len(power.frequency) >= 3:
        highest = power.frequency > 1 / 3
        missing = 10 * (power.data[highest].mean() / power.samples[highest].mean()).log10()
        if float(missing) > _MISSING_DB:
            found.append(
                finding(
                    "warning",
                    "power_missing",
                    f"the samples have {float(missing):.1f} dB less power than the data in the finest third of the "
                    "frequencies: detail is missing",
                )
            )
    return found


def not_measured(what: str, error: Any) -> Finding:
    """Something that could not be had, and why."""
    return finding("note", "not_measured", f"{what} could not be measured: {error}")


def _side(gap: float) -> str:
    return "above" if gap > 0 else "below"
