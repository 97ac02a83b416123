"""How codes hold under each transformation at several strengths, and under corruptions: the invariance spectrum."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lsdr.representation.inputs import Inputs
from lsdr.representation.measures.corruptions import CORRUPTIONS, corrupt
from lsdr.representation.measures.linear_probe import LinearProbe, linear_probe
from lsdr.representation.measures.material import Encode, Part
from lsdr.representation.measures.retrieval import view_retrieval
from lsdr.representation.measures.two_views import icc_by_dimension, icc_of_codes
from lsdr.representation.ordered_codes import OrderedCodes
from lsdr.training.order import stream_seed

Measures = dict[str, dict[str, float]]
_SHOWN = 64  # directions whose correlations are kept


def invariance_spectrum(
    part: Part,
    encoders: Mapping[str, Encode],
    transform: Callable[[str, float], Callable[[Inputs, int], Inputs]],
    strengths: Mapping[str, tuple[float, ...]],
    ordered: OrderedCodes | None = None,
    probes: Mapping[str, LinearProbe] | None = None,
) -> tuple[Measures, dict[str, Any]]:
    """Compare the codes of examples as they are with those of the same examples transformed.

    Every kind of codes sees the same transformed examples.

    Args:
        part: Two examples at least, labelled where there are probes.
        encoders: What gives codes, by kind; "codes" are those of `ordered`.
        transform: Gives, for a name and a strength, what transforms inputs (with a seed) at exactly this strength.
        strengths: Of each transformation, ascending.
        ordered: Directions of the codes, for the correlations of each.
        probes: Linear probes of the clean codes of other examples, by kind.

    Returns:
        Measures of each kind: "invariance.NAME" and "view_retrieval.NAME", means over strengths; "transformed", the
        mean accuracy of the probes; "predictability". And what invariance.json holds.
    """
    clean = {kind: encode(part.inputs) for kind, encode in encoders.items()}
    measures: Measures = {kind: {} for kind in encoders}
    told: dict[str, Any] = {}
    strongest: dict[str, dict[str, Tensor]] = {kind: {} for kind in encoders}
    accuracies: dict[str, list[float]] = {kind: [] for kind in probes or {}}
    for name, levels in strengths.items():
        about: dict[str, Any] = {key: {kind: [] for kind in encoders} for key in ("icc", "retrieval", "accuracy")}
        about = {"strengths": list(levels), **about, "by_direction": []}
        for level in levels:
            inputs = transform(name, level)(part.inputs, stream_seed(0, f"{name} {level}"))
            for kind, encode in encoders.items():
                moved = encode(inputs)
                about["icc"][kind].append(icc_of_codes(clean[kind], moved))
                about["retrieval"][kind].append(view_retrieval(moved, clean[kind]))
                if probes and kind in probes and part.labels is not None:
                    about["accuracy"][kind].append(probes[kind].accuracy(moved, part.labels))
                if kind == "codes" and ordered is not None and bool(moved.isfinite().all()):
                    along = icc_by_dimension(ordered(clean[kind]), ordered(moved))[:_SHOWN]
                    about["by_direction"].append(along.tolist())
                strongest[kind][name] = moved
        for kind in encoders:
            measures[kind][f"invariance.{name}"] = _mean(about["icc"][kind])
            measures[kind][f"view_retrieval.{name}"] = _mean(about["retrieval"][kind])
            if probes and kind in probes:
                accuracies[kind] += about["accuracy"][kind]
        about["canonical"] = about["by_direction"][-1] if about["by_direction"] else []
        told[name] = about
    for kind in encoders:
        if accuracies.get(kind):
            measures[kind]["transformed"] = _mean(accuracies[kind])
        measures[kind]["predictability"] = predictability({"none": clean[kind], **strongest[kind]})
    return measures, {"transformations": told}


def predictability(codes: Mapping[str, Tensor]) -> float:
    """How well a linear probe that learned from half of the examples tells, of the others, what was done to them.

    Args:
        codes: Codes of the same examples by what was done to them.

    Returns:
        Accuracy beyond chance, over what there is beyond it: 0 by chance, 1 perfect; nan of codes that are not finite
        or of fewer than four examples.
    """
    parts = list(codes.values())
    examples, classes = len(parts[0]), len(parts)
    if examples < 4 or classes < 2 or not all(bool(part.isfinite().all()) for part in parts):
        return math.nan
    half = examples // 2
    names = torch.arange(classes)
    probe = linear_probe(torch.cat([part[:half] for part in parts]), names.repeat_interleave(half))
    accuracy = probe.accuracy(torch.cat([part[half:] for part in parts]), names.repeat_interleave(examples - half))
    return (accuracy - 1 / classes) / (1 - 1 / classes)


def corruption_curves(
    part: Part, encoders: Mapping[str, Encode], probes: Mapping[str, LinearProbe]
) -> tuple[Measures, dict[str, Any]]:
    """Accuracy on corrupted images, at severities 1 to 5, of probes of clean ones.

    Args:
        part: Labelled images in [0, 1].
        encoders: What gives codes, by kind.
        probes: Linear probes of the codes of clean images, by kind.

    Returns:
        Measures of each kind: "corruption", "corruption_drop", "corruption.NAME". And what corruption.json holds.
    """
    labels = part.labels
    if labels is None:
        raise ValueError("accuracy on corrupted images needs labels")
    clean = {kind: probe.accuracy(encoders[kind](part.inputs), labels) for kind, probe in probes.items()}
    told: dict[str, Any] = {}
    for name in CORRUPTIONS:
        accuracy = {kind: [value] for kind, value in clean.items()}
        for severity in range(1, 6):
            generator = torch.Generator().manual_seed(stream_seed(0, f"{name} {severity}"))
            inputs = {**part.inputs, "image": corrupt(part.inputs["image"], name, severity, generator)}
            for kind, probe in probes.items():
                accuracy[kind].append(probe.accuracy(encoders[kind](inputs), labels))
        told[name] = {"severities": list(range(6)), "accuracy": accuracy}
    measures: Measures = {}
    for kind, right in clean.items():
        means = {name: _mean(about["accuracy"][kind][1:]) for name, about in told.items()}
        overall = _mean(list(means.values()))
        measures[kind] = {"corruption": overall, "corruption_drop": 1 - overall / right if right else math.nan}
        measures[kind] |= {f"corruption.{name}": value for name, value in means.items()}
    return measures, {"probe": "linear", "examples": len(part), "corruptions": told}


def _mean(values: list[float]) -> float:
    """The mean; nan of none, or with one that is nan."""
    return sum(values) / len(values) if values else math.nan
