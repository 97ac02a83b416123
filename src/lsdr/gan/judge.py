"""What a finished run's own measures say: the same findings as an inspection's. Imports no torch."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from lsdr.gan.findings import Finding, answer, finding, of_fidelity, of_modes, of_overfitting, ranked

_OF_SAMPLES = ("modes", "precision", "fid", "copies")
_COPIES = 0.1  # of the samples, beyond what held-out examples show


def judge(measures: Mapping[str, Any], curves: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Findings and answer from the files that a run leaves.

    Args:
        measures: measures.json.
        curves: curves.json: "modes", "perfect" and "logits" are read.
        data: data.json, which says whether modes are those of a mixture or classes.

    Returns:
        "findings", "modes" (empty where none were counted) and "answer"; see `lsdr.gan.findings`.

    Example:
        >>> curves = {"modes": {"counts": [100, 0]}, "perfect": {"modes": {"mean": 2.0, "sd": 0.0},
        ...           "reverse_kl": {"mean": 0.005, "sd": 0.007}}}
        >>> judge({"modes": 1.0, "reverse_kl": 0.693, "high_quality": 0.99}, curves, {"classes": 2})["answer"]
        'Yes, this is mode collapse: 1 of 2 classes holds 100 % of the samples, and 1 is captured where a perfect
        sampler captures 2.'
    """
    found, modes = [], modes_of(measures, curves, data)
    if not any(name in measures for name in _OF_SAMPLES):
        found.append(finding("error", "not_measured", "training ended before its last step, without samples"))
    if "diverged" in measures and measures["diverged"] == 1:
        if _number(measures, "largest_logit") > 1e4:
            found.append(finding("error", "not_finite", "not finite: the discriminator's output exceeds 10,000"))
        elif any(name in measures and measures[name] is None for name in ("precision", "fid")):
            found.append(finding("error", "not_finite", "not finite: the samples hold NaN or infinity"))
    if modes:
        found += of_modes(modes)
    found += [*_fidelity(measures, curves, modes), *_memorisation(measures), *_overfitting(measures, curves)]
    told = {"findings": ranked(found), "modes": modes}
    return {**told, "answer": answer(told)}


def modes_of(measures: Mapping[str, Any], curves: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of modes with a perfect sampler's, as `of_modes` takes them; empty where they were not counted."""
    about, perfect = curves.get("modes") or {}, curves.get("perfect") or {}
    counts = about.get("counts") or []
    if not counts or not {"modes", "reverse_kl"} <= perfect.keys():
        return {}
    mixture = bool(data.get("mixture")) or "high_quality" in perfect
    divergence = _number(measures, "reverse_kl")
    return {
        "kind": "mode" if mixture else "class",
        "total": len(counts),
        "counts": counts,
        "expected": [1 / len(counts)] * len(counts),
        "captured": sum(amount > 0 for amount in counts),
        "reverse_kl": divergence if math.isfinite(divergence) else math.log(len(counts)),
        "high_quality": measures.get("high_quality") if mixture else None,
        "perfect": perfect,
    }


def _fidelity(measures: Mapping[str, Any], curves: Mapping[str, Any], modes: Mapping[str, Any]) -> list[Finding]:
    """Precision and coverage, where a mixture's modes do not say more."""
    perfect = curves.get("perfect") or {}
    fidelity = {name: _number(measures, name) for name in ("precision", "coverage")}
    if modes.get("kind") == "mode" or not all(map(math.isfinite, fidelity.values())):
        return []
    if not fidelity.keys() <= perfect.keys():
        nothing = "none of the samples lies among the data, and none of the data among the samples"
        return [] if any(fidelity.values()) else [finding("error", "unrealistic", nothing)]
    found = of_fidelity({**fidelity, "reference": {name: float(perfect[name]["mean"]) for name in fidelity}})
    # A classifier finds classes in anything; where samples are no examples, that is all there is to say.
    return [each for each in found if each["severity"] == "error"] if modes else found


def _memorisation(measures: Mapping[str, Any]) -> list[Finding]:
    copies = _number(measures, "copies")
    if not copies > _COPIES:
        return []
    message = f"memorises: {100 * copies:.0f} % of the samples are copies of training examples"
    return [finding("error" if copies > 0.5 else "warning", "memorises", message)]


def _overfitting(measures: Mapping[str, Any], curves: Mapping[str, Any]) -> list[Finding]:
    ratio, gap, error = _number(measures, "overfitting"), _number(measures, "heldout_gap"), _error(curves)
    return of_overfitting({"ratio": ratio, "gap": gap, "error": error}) if math.isfinite(ratio + gap + error) else []


def _error(curves: Mapping[str, Any]) -> float:
    """Standard error of the gap, from the histograms of the discriminator's outputs."""
    about = curves.get("logits") or {}
    edges, variance = about.get("edges") or [], 0.0
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    for name in ("train", "heldout"):
        counts = about.get(name) or []
        number = sum(counts)
        if number < 2 or len(counts) != len(middles):
            return math.nan
        mean = sum(count * middle for count, middle in zip(counts, middles, strict=True)) / number
        spread = sum(count * (middle - mean) ** 2 for count, middle in zip(counts, middles, strict=True))
        variance += spread / (number - 1) / number
    return math.sqrt(variance)


def _number(measures: Mapping[str, Any], name: str) -> float:
    value = measures.get(name)
    return float(value) if isinstance(value, int | float) else math.nan
