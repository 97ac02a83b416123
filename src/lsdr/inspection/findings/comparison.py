"""Rules on what a layer is compared with: its heads, its base, its average."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from lsdr.inspection.findings.finding import Finding
from lsdr.inspection.findings.peers import standings

Layers = Sequence[dict[str, Any]]

LOGIT_RATIO, LOGIT_DEVIATIONS = 10.0, 5.0
AVERAGE_DISTANCE = 1.0
RETRAINED = 0.25


def qk_logit_scale(layers: Layers) -> list[Finding]:
    """A head whose query-key product is far larger than that of the model's other heads."""
    heads = [
        {"name": f"{layer['name']}[{head['head']}]", "of": layer["name"], "kind": "heads", **head}
        | {"component": layer.get("component", "")}
        for layer in layers
        for head in layer.get("heads") or []
        if head.get("qk_sigma") and not head.get("qk_norm")
    ]
    # One group for all heads of a model: which block a head stands in is not what makes it different.
    everyone = [{**head, "name": "attention"} for head in heads]
    found = []
    for head, at in zip(heads, standings(everyone, [head["qk_sigma"] for head in heads]), strict=True):
        if at and at.ratio >= LOGIT_RATIO and at.deviations >= LOGIT_DEVIATIONS:
            text = (
                f"head {head['head']}: its query-key product has spectral norm {head['qk_sigma']:.3g}, {at.ratio:.3g}x "
                f"the median of {at.peers} heads: its attention can saturate"
            )
            evidence = {
                "head": head["head"],
                "qk_sigma": head["qk_sigma"],
                "ratio": at.ratio,
                "robust_deviations": at.deviations,
                "heads": at.peers,
            }
            found.append(Finding(head["of"], "qk_logit_scale", "warning", text, evidence, at.ratio / LOGIT_RATIO))
    return found


def ema_divergence(layers: Layers) -> list[Finding]:
    """Averaged weights farther from the trained ones than those are large."""
    found = []
    for layer in layers:
        average = layer.get("ema")
        if average and average["relative"] is not None and average["relative"] >= AVERAGE_DISTANCE:
            text = (
                f"the averaged weights are {average['relative']:.3g} times the norm of the trained ones away from "
                "them: the average has not followed the training"
            )
            found.append(
                Finding(
                    layer["name"], "ema_divergence", "warning", text, average, average["relative"] / AVERAGE_DISTANCE
                )
            )
    return found


def typical_change(layers: Layers) -> float | None:
    """Median over the layers of the change's norm over the base's; None without a base.

    A model that was trained on until it is another has new directions everywhere, and nothing is wrong with that.
    """
    changes = [layer["delta"]["relative"] for layer in layers if (layer.get("delta") or {}).get("relative") is not None]
    return median(changes) if changes else None


def intruder_dimensions(layers: Layers) -> list[Finding]:
    """Top singular vectors that are near none of the base's, in directions that the base hardly uses.

    Not judged where the model as a whole is another: see `typical_change`.
    """
    found: list[Finding] = []
    if (typical_change(layers) or 0.0) >= RETRAINED:
        return found
    for layer in layers:
        delta = layer.get("delta")
        if delta and delta.get("new_directions"):
            count, top = delta["new_directions"], delta["top"]
            text = (
                f"{count} of the {top} largest directions are intruders: near no singular vector of the base (cosines "
                f"below {delta['intruder_cosine']:g}), which gave them less than half of their gain"
            )
            names = ("intruder_dimensions", "new_directions", "top", "top_cosines", "top_gains", "relative")
            evidence = {name: delta[name] for name in names}
            found.append(Finding(layer["name"], "intruder_dimensions", "warning", text, evidence, float(count)))
    return found


RULES = (qk_logit_scale, ema_divergence, intruder_dimensions)
