"""What a run measured of its codes, beside the same of raw inputs, principal components and an untrained encoder."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsdr.report.load import Results, Run
from lsdr.report.plain import mapping, mappings, read_object, scalar, sequence, vector
from lsdr.report.thin import Array

CODES = "codes"
REFERENCES = {"raw": "raw inputs", "pca": "PCA", "random": "untrained encoder"}
"""What needs no training, and so what training has to be better than."""


@dataclass(frozen=True)
class Facts:
    """One run's files about its codes; what is missing is empty."""

    run: Run
    probes: dict[str, Any]
    invariance: dict[str, Any]
    corruption: dict[str, Any]
    spectra: dict[str, Any]
    neighbours: dict[str, Any]
    directions: dict[str, Any]
    judged: dict[str, Any]
    """"answer" to whether the codes have collapsed, and "findings"."""

    def accuracies(self, probe: str, kind: str) -> tuple[Array, list[Array]]:
        """How many labels a probe ("linear" or "knn") was given, and its held-out accuracies, draw by draw."""
        about = mapping(self.probes.get(probe))
        draws = [_draws(each) for each in sequence(mapping(about.get("accuracy")).get(kind))]
        labels = vector(about.get("labels"))
        size = min(len(labels), len(draws))
        return labels[:size], draws[:size]

    def shares(self, probe: str) -> Array:
        """The shares of the labels that a probe was given."""
        return vector(mapping(self.probes.get(probe)).get("shares"))

    def accuracy(self, probe: str, share: float, kind: str) -> float:
        """The mean over draws at a share of the labels; NaN where it was not measured."""
        draws = self.draws(probe, share, kind)
        return float(draws.mean()) if len(draws) else math.nan

    def draws(self, probe: str, share: float, kind: str) -> Array:
        """The accuracies at a share of the labels."""
        shares, draws = self.shares(probe), self.accuracies(probe, kind)[1]
        places = [place for place in range(min(len(shares), len(draws))) if math.isclose(shares[place], share)]
        return draws[places[0]] if places else np.empty(0)

    def findings(self) -> list[dict[str, Any]]:
        """What looks wrong, the gravest first, each with "severity", "kind" and "message"."""
        return mappings(self.judged.get("findings"))

    def transformations(self) -> dict[str, dict[str, Any]]:
        """What was measured of each transformation."""
        found = mapping(self.invariance.get("transformations"))
        return {name: about for name, value in found.items() if (about := mapping(value))}

    def corruptions(self) -> dict[str, dict[str, Any]]:
        """What was measured of each corruption."""
        found = mapping(self.corruption.get("corruptions"))
        return {name: about for name, value in found.items() if (about := mapping(value))}

    def corrupted(self, kind: str) -> tuple[Array, Array]:
        """Severities from 0, and the accuracy at each, averaged over all corruptions that were measured there."""
        curves: dict[float, list[float]] = {}
        for about in self.corruptions().values():
            for severity, value in zip(*curve(about, "severities", "accuracy", kind), strict=True):
                if math.isfinite(value):
                    curves.setdefault(float(severity), []).append(float(value))
        levels = sorted(curves)
        return np.array(levels), np.array([np.mean(curves[level]) for level in levels])

    def layers(self) -> list[dict[str, Any]]:
        """The spectra layer by layer, in order of depth; the codes, and those before training, are not among them."""
        return [each for each in mappings(self.spectra.get("layers")) if not str(each.get("name")).startswith(CODES)]

    def spectrum(self, name: str = CODES) -> dict[str, Any]:
        """The spectrum of the codes, or of "codes@random", those before training."""
        return next((each for each in mappings(self.spectra.get("layers")) if each.get("name") == name), {})


def facts(results: Results, notes: list[str]) -> dict[str, list[Facts]]:
    """The files of every run, by method; notes receives what could not be read."""
    return {method.name: [read(run.directory, run, notes) for run in method.runs] for method in results.methods}


def read(folder: Path, run: Run, notes: list[str]) -> Facts:
    """The files of one run's folder."""
    names = ("probes", "invariance", "corruption", "spectra", "neighbours", "directions")
    objects = {name: read_object(folder / f"{name}.json", notes) for name in names}
    return Facts(run=run, judged=read_object(folder / "findings.json", notes), **objects)


def curve(about: dict[str, Any], along: str, values: str, kind: str) -> tuple[Array, Array]:
    """One kind's values of a measured curve, and where they were measured, in ascending order."""
    x, y = vector(about.get(along)), vector(mapping(about.get(values)).get(kind))
    size = min(len(x), len(y))
    order = np.argsort(x[:size], kind="stable")
    return x[:size][order], y[:size][order]


def _draws(value: object) -> Array:
    """The draws of one share: a list, or a single number."""
    found = vector(value) if isinstance(value, list) else np.array([scalar(value)])
    known: Array = found[np.isfinite(found)]
    return known
