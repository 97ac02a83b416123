"""Grids and stripes in words, with a small picture of each."""

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lsdr.report.load import Results
from lsdr.report.numbers import THIN, number
from lsdr.report.plain import mappings, scalar, vector
from lsdr.report.thin import Array

_STRAIGHT = 8.0  # degrees within which stripes are called upright or level
_SIDE = 24  # pixels in a picture of an artifact


@dataclass(frozen=True)
class Artifact:
    """A peak in the power spectrum of the samples."""

    words: str
    strength: str
    where: str
    p_value: str
    picture: str
    """The wave alone on a few pixels, as a data: URI; empty where its direction is unknown."""


def artifacts(value: object) -> list[Artifact]:
    """What stands in a list of peaks, the strongest first; entries without a period are left out.

    Example:
        >>> found = artifacts([{"period": 4.0, "orientation": 0.0, "frequency": [0.0, 0.25], "decibels": 6.0}])
        >>> found[0].words
        'upright stripes that repeat every 4 pixels'
    """
    peaks = [peak for peak in mappings(value) if 0 < scalar(peak.get("period")) < math.inf]
    return [_artifact(peak) for peak in sorted(peaks, key=lambda peak: -_strength(peak))]


def _strength(peak: dict[str, Any]) -> float:
    decibels = scalar(peak.get("decibels"))
    return decibels if math.isfinite(decibels) else -math.inf


def _artifact(peak: dict[str, Any]) -> Artifact:
    period, decibels, chance = (scalar(peak.get(name)) for name in ("period", "decibels", "p_value"))
    wave = _wave(peak, period)
    fine = bool((abs(abs(wave) - 0.5) < 1e-3).all())
    return Artifact(
        words="a checkerboard of single pixels" if fine else f"{_stripes(wave)} that repeat every {_pixels(period)}",
        strength=f"{number(decibels)}{THIN}dB" if math.isfinite(decibels) else "—",
        where=f"({number(wave[1])}, {number(wave[0])})" if np.isfinite(wave).all() else "—",
        p_value=number(chance, 2),
        picture=_picture(wave) if np.isfinite(wave).all() else "",
    )


def _wave(peak: dict[str, Any], period: float) -> Array:
    """Frequency down and to the right in cycles a pixel: as given, or from period and orientation."""
    frequency = vector(peak.get("frequency"))
    if len(frequency) == 2 and np.isfinite(frequency).all() and frequency.any():
        return frequency
    angle = math.radians(scalar(peak.get("orientation")))
    return np.array([math.sin(angle), math.cos(angle)]) / period


def _stripes(wave: Array) -> str:
    if not np.isfinite(wave).all():
        return "stripes"
    angle = (math.degrees(math.atan2(*wave)) + 90) % 180 - 90
    if abs(angle) <= _STRAIGHT:
        return "upright stripes"
    if abs(angle) >= 90 - _STRAIGHT:
        return "level stripes"
    # The wave goes down to the right for positive angles, and stripes run across it.
    rising = "rising" if angle > 0 else "falling"
    return f"stripes {rising} to the right, {number(90 - abs(angle), 2)}° from level,"


def _pixels(period: float) -> str:
    return f"{number(period).removesuffix('.00')} pixels"


def _picture(wave: Array) -> str:
    y, x = np.mgrid[:_SIDE, :_SIDE]
    shades = 128 + 100 * np.cos(2 * np.pi * (wave[0] * y + wave[1] * x))
    buffer = io.BytesIO()
    Image.fromarray(np.rint(shades).astype(np.uint8)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def artifacts_by_method(results: Results) -> list[tuple[str, int, int, list[Artifact]]]:
    """For each method: in how many runs anything was found, of how many that were searched, and the strongest."""
    rows = []
    for method in results.methods:
        searched = [run for run in method.runs if isinstance(run.curves.get("artifacts"), list)]
        found = [peaks for run in searched if (peaks := artifacts(run.curves["artifacts"]))]
        if searched:
            every = [peak for run in searched for peak in run.curves["artifacts"]]
            rows.append((method.name, len(found), len(searched), artifacts(every)[:1]))
    return rows
