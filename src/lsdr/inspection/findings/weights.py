"""Rules on a layer's weights."""

from collections.abc import Callable, Sequence
from typing import Any

from lsdr.inspection.findings.finding import Finding
from lsdr.inspection.findings.peers import standings

Layers = Sequence[dict[str, Any]]

# Thresholds were chosen on clean models of other seeds than those that the rates were measured on
# (benchmarks/findings_calibration.py).
SPECTRAL_NORM_RATIO, SPECTRAL_NORM_DEVIATIONS = 10.0, 5.0
STABLE_RANK_RATIO, STABLE_RANK_DEVIATIONS = 6.0, 5.0
DEAD_SHARE = 0.05
DUPLICATED_SHARE = 0.05


def nonfinite(layers: Layers) -> list[Finding]:
    """Entries that are NaN or infinite."""
    return [
        Finding(
            layer["name"],
            "nonfinite",
            "error",
            f"{layer['nonfinite']:,} of {layer['parameters']:,} weights are NaN or infinite",
            {"nonfinite": layer["nonfinite"], "parameters": layer["parameters"]},
            layer["nonfinite"] / layer["parameters"],
        )
        for layer in layers
        if layer.get("nonfinite")
    ] + [
        Finding(
            layer["ema"]["name"],
            "nonfinite",
            "error",
            f"{layer['ema']['nonfinite']:,} of {layer['parameters']:,} averaged weights (EMA) are NaN or infinite",
            {"nonfinite": layer["ema"]["nonfinite"], "parameters": layer["parameters"]},
            layer["ema"]["nonfinite"] / layer["parameters"],
        )
        for layer in layers
        if (layer.get("ema") or {}).get("nonfinite")
    ]


def zero_layer(layers: Layers) -> list[Finding]:
    """All weights zero: normal in a layer that starts at zero and was not trained yet."""
    return [
        Finding(
            layer["name"],
            "zero_layer",
            "info",
            "all weights are zero: as zero-initialised layers start; after training it means that nothing reached it",
            {"parameters": layer["parameters"]},
            float(layer["parameters"]),
        )
        for layer in layers
        if layer["sigma_max"] == 0
    ]


def spectral_norm_outlier(layers: Layers) -> list[Finding]:
    """Largest singular value far above that of the layers that play the same part."""
    found = []
    layers = _own_weights(layers)
    for layer, at in zip(layers, standings(layers, [_scaled_norm(layer) for layer in layers]), strict=True):
        if at and at.ratio >= SPECTRAL_NORM_RATIO and at.deviations >= SPECTRAL_NORM_DEVIATIONS:
            text = f"spectral norm {at.ratio:.3g}x the median of its peers ({at.peers} {at.group})"
            evidence = {
                "sigma_max": layer["sigma_max"],
                "sigma_over_target": layer["sigma_over_target"],
                "ratio": at.ratio,
                "robust_deviations": at.deviations,
                "peers": at.peers,
                "peers_median": at.median,
            }
            weight = at.ratio / SPECTRAL_NORM_RATIO
            found.append(Finding(layer["name"], "spectral_norm_outlier", "warning", text, evidence, weight))
    return found


def stable_rank_collapse(layers: Layers) -> list[Finding]:
    """Stable rank far below that of the layers that play the same part, each relative to noise of its shape."""
    found = []
    layers = _own_weights(layers)
    for layer, at in zip(layers, standings(layers, [rank_over_noise(layer) for layer in layers]), strict=True):
        if at and at.ratio <= 1 / STABLE_RANK_RATIO and at.deviations <= -STABLE_RANK_DEVIATIONS:
            text = (
                f"stable rank {layer['stable_rank']:.3g}, {1 / at.ratio:.3g}x below its peers "
                f"({at.peers} {at.group}, relative to noise of the same shape): few directions carry the weight"
            )
            evidence = {
                "stable_rank": layer["stable_rank"],
                "ratio": at.ratio,
                "robust_deviations": at.deviations,
                "peers": at.peers,
            }
            weight = 1 / (at.ratio * STABLE_RANK_RATIO)
            found.append(Finding(layer["name"], "stable_rank_collapse", "warning", text, evidence, weight))
    return found


def dead_directions(layers: Layers) -> list[Finding]:
    """Outputs or inputs whose weights are zero or nearly so, in a layer that is not."""
    found = []
    for layer in layers:
        # Padding and unused tokens of an embedding are zero, and a table may hold the zeros of a sine.
        if not layer["dead_directions"] or layer["kind"] in ("embedding", "table", "parameter"):
            continue
        rows, columns = layer["matrix"]
        # Of a direction of one weight nothing can be told: a single output that leaves inputs out is sparse (LPIPS).
        shares = {
            "outputs": (layer["dead_rows"] if columns > 1 else 0, rows),
            "inputs": (layer["dead_columns"] if rows > 1 else 0, columns),
        }
        worst = max(dead / of for dead, of in shares.values())
        if worst < DEAD_SHARE:
            continue
        text = " and ".join(f"{dead} of {of} {side}" for side, (dead, of) in shares.items() if dead)
        evidence = {"dead_rows": layer["dead_rows"], "dead_columns": layer["dead_columns"], "matrix": layer["matrix"]}
        text = f"{text} have weights that are zero or below a thousandth of the others"
        found.append(Finding(layer["name"], "dead_directions", "warning", text, evidence, worst / DEAD_SHARE))
    return found


def duplicated_directions(layers: Layers) -> list[Finding]:
    """Outputs that are multiples of one another."""
    found = []
    for layer in layers:
        count = layer["duplicated_directions"]
        if not count or layer["kind"] in ("embedding", "table", "parameter"):  # tokens never trained are alike
            continue
        rows = layer["matrix"][0]
        if count < max(2, DUPLICATED_SHARE * rows):
            continue
        repeat, of = layer["duplicated_examples"][0]
        text = f"{count} of {rows} outputs are multiples of others (|cosine| > 0.999; output {repeat} of {of})"
        evidence = {"duplicated": count, "rows": rows, "examples": layer["duplicated_examples"]}
        weight = count / rows / DUPLICATED_SHARE
        found.append(Finding(layer["name"], "duplicated_directions", "warning", text, evidence, weight))
    return found


def _own_weights(layers: Layers) -> Layers:
    """Layers less adapters, whose scale and rank are judged by rules of their own."""
    return [layer for layer in layers if not layer.get("adapter")]


def rank_over_noise(layer: dict[str, Any]) -> float | None:
    """Stable rank over that of a random matrix of the shape, mn / (sqrt(m) + sqrt(n))^2."""
    if not layer["stable_rank"]:
        return None
    rows, columns = layer["matrix"]
    return float(layer["stable_rank"] * (rows**-0.5 + columns**-0.5) ** 2)


def _scaled_norm(layer: dict[str, Any]) -> float | None:
    norm = layer["sigma_max"] if layer["sigma_over_target"] is None else layer["sigma_over_target"]
    return float(norm)


RULES: tuple[Callable[[Layers], list[Finding]], ...] = (
    nonfinite,
    spectral_norm_outlier,
    stable_rank_collapse,
    dead_directions,
    duplicated_directions,
    zero_layer,
)
