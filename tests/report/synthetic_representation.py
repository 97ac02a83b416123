"""Synthetic run directories of representations that look like real ones: of images and of texts, alone and compared."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from lsdr.representation.measures.catalogue import MEASURES
from lsdr.runs import append_record, write_json

STEPS = 400
METHODS = ("baseline", "barlow_twins", "sim_clr")
KINDS = {"codes": 0.0, "raw": 0.25, "pca": 0.26, "random": 0.22}
"""How far below the codes each kind's accuracy with few labels lies."""


def write_representation_experiment(directory: Path, seeds: int = 5, methods=METHODS) -> Path:
    """Write a comparison: each method a little worse than the one before, the last collapses on one seed."""
    write_json(
        directory / "experiment.json",
        {
            "task": "representation",
            "command": "lsdr compare representation --data digits --seeds 5",
            "created": "2026-05-14T09:12:44",
            "finished": "2026-05-14T10:02:10",
            "environment": {"python": "3.11.9", "packages": {"lsdr": "0.1.0", "torch": "2.6.0"}},
            "methods": [
                {"name": name, "description": f"Arm {place}.", "regularizers": [], "overrides": {}}
                for place, name in enumerate(methods)
            ],
            "seeds": list(range(seeds)),
            "config": {"data": "digits", "views": "default", "projector": None, "training": {"steps": STEPS}},
            "data": _data("image"),
            "measures": {name: vars(measure) for name, measure in MEASURES.items()},
        },
    )
    for place, name in enumerate(methods):
        for seed in range(seeds):
            folder = directory / name / f"seed={seed}"
            write_representation_run(folder, 0.03 * place, seed, collapsed=(place, seed) == (2, 1))
    comparisons = [
        {
            "method": name, "against": methods[0], "measure": measure, "effect": effect, "low": 1.2 * effect,
            "high": 0.8 * effect, "verdict": "worse", "pairs": seeds, "baseline": 0.82, "relative": effect / 0.82,
        }
        for name in methods[1:]
        for measure, effect in (("linear_probe.1", -0.03), ("corruption", -0.02))
    ]  # fmt: skip
    write_json(directory / "summary.json", {"methods": [], "comparisons": comparisons, "chance_verdicts": 0.2})
    return directory


def write_representation_run(
    run: Path, worse: float = 0.0, seed: int = 0, *, modality: str = "image", collapsed: bool = False
) -> Path:
    """Write one run, its accuracies by `worse` below the best."""
    rng = np.random.default_rng(seed)
    config = {"data": "digits", "views": "default", "projector": None, "method": "baseline", "objective": "vicreg"}
    write_json(run / "config.json", {**config, "training": {"steps": STEPS, "seed": seed}})
    status = {"status": "finished", "step": STEPS, "steps": STEPS, "seconds": 41.0, "message": "", "spikes": 0}
    write_json(run / "status.json", status)
    write_json(run / "data.json", _data(modality))
    for step in range(20, STEPS + 1, 20):
        fade = math.exp(-step / 100)
        terms = {"invariance": 0.3 + fade, "variance": 0.2 + 0.5 * fade, "covariance": 0.1 + 0.2 * fade}
        record = {
            "step": step, "loss": 0.0, "penalty": 10 + 20 * fade, "grad_norm": 0.4, "grad_norm_max": 1.0, "lr": 1e-3,
            "seconds": 0.1 * step, "step_seconds": 0.1, "memory_mb": 400.0, "spikes": 0,
            **{f"spectral_objective/projector/{name}": value for name, value in terms.items()},
        }  # fmt: skip
        append_record(run / "metrics.jsonl", record)
    for step in range(0, STEPS + 1, 100):
        share = step / STEPS
        values = {
            "heldout_objective": 20 - 8 * share,
            "train_objective": 20 - 9 * share,
            "invariance": 0.5 + 0.4 * share,
        }
        values |= {
            "effective_rank": 30.0 - 5 * share,
            "participation_ratio": 20.0,
            "code_std": 0.4,
            "knn": 0.9 + 0.05 * share,
        }
        append_record(run / "evaluations.jsonl", {"step": step, "seconds": 0.1 * step, **values})
    rates = {
        "linear_probe.1": 0.82 - worse,
        "linear_probe": 0.965 - worse / 10,
        "rank_me": 24.0,
        "corruption": 0.7 - worse,
    }
    rates |= {"linear_probe.1@raw": 0.57, "invariance.rotation": 0.8, "step_seconds": 0.1, "lidar": 12.0}
    write_json(run / "measures.json", {**rates, "train_objective": 11.0, "heldout_objective": 12.0})
    write_json(run / "probes.json", _probes(rng, worse))
    write_json(run / "invariance.json", {"transformations": _transformations(worse)})
    if modality == "image":
        write_json(run / "corruption.json", {"corruptions": _corruptions(worse), "probe": "linear"})
        for name in ("neighbours", "directions"):
            Image.fromarray(rng.integers(0, 255, (64, 160), dtype=np.uint8)).save(run / f"{name}.png")
    write_json(run / "spectra.json", _spectra())
    write_json(run / "neighbours.json", {"queries": _queries(modality), "agreement": 0.93, "chance": 0.1})
    write_json(run / "directions.json", {"directions": _directions(modality)})
    wrong = [{"severity": "note", "kind": "dead_dimensions", "message": "12% of the dimensions never vary"}]
    wrong.append({"severity": "note", "kind": "no_gain", "message": "no better than raw inputs"})
    answer = "No, it has not collapsed: 24 of 64 directions."
    if collapsed:
        wrong.insert(0, {"severity": "error", "kind": "collapsed", "message": "collapsed: all codes are alike"})
        answer = "Yes, it has collapsed: all codes are alike."
        event = {"step": 200, "kind": "collapse", "action": "none", "message": "the codes vary along one direction"}
        append_record(run / "events.jsonl", event)
    write_json(run / "findings.json", {"answer": answer, "findings": wrong})
    return run


def _data(modality: str) -> dict:
    about = {"source": "digits", "modality": modality, "count": 1437, "heldout": 360, "classes": 10, "problems": []}
    return {**about, "shape": [1, 8, 8]} if modality == "image" else about


def _probes(rng, worse: float) -> dict:
    def draws(best: float, few: float) -> list[list[float]]:
        first = [best - few + 0.005 * float(rng.normal()) for _ in range(3)]
        return [first, [best - few / 3] * 3, [best]]

    linear = {kind: draws(0.96 if kind == "codes" else 0.955, 0.14 + below + worse) for kind, below in KINDS.items()}
    near = {kind: draws(0.97, 0.2 + below) for kind, below in KINDS.items()}
    lengths = [1, 2, 4, 8, 16, 32, 64]
    reached = [0.4, 0.6, 0.8, 0.94, 0.958, 0.96, 0.96]
    return {
        "chance": 0.1,
        "linear": {"shares": [0.01, 0.1, 1.0], "labels": [14, 144, 1437], "accuracy": linear},
        "knn": {"shares": [0.01, 0.1, 1.0], "labels": [14, 144, 1437], "accuracy": near},
        "length": {
            "dimensions": lengths,
            "accuracy": {
                "ordered": reached,
                "pca": [value - 0.1 for value in reached],
                "unordered": [0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.96],
            },
        },
    }


def _transformations(worse: float) -> dict:
    def about(strengths, unit, codes, raw, trained):
        icc = {"codes": [value - worse for value in codes], "raw": raw, "pca": raw, "random": raw}
        return {
            "strengths": strengths, "unit": unit, "icc": icc, "retrieval": icc, "canonical": codes,
            "trained": trained is not None, "trained_strength": trained,
        }  # fmt: skip

    return {
        "rotation": about([5, 15, 30, 90], "degrees", [0.99, 0.97, 0.95, 0.3], [0.9, 0.6, 0.3, 0.1], 30),
        "lighting": about([0.1, 0.2, 0.4], "", [0.99, 0.98, 0.7], [0.95, 0.9, 0.8], 0.4),
        "blur": about([0.5, 1.0, 2.0], "pixels", [0.6, 0.4, 0.2], [0.9, 0.8, 0.6], None),
    }


def _corruptions(worse: float) -> dict:
    found = {}
    for place, name in enumerate(("gaussian_noise", "contrast", "pixelate")):
        codes = [0.96 - worse - 0.03 * (place + 1) * severity for severity in range(6)]
        raw = [0.955 - 0.06 * (place + 1) * severity for severity in range(6)]
        found[name] = {"severities": list(range(6)), "accuracy": {"codes": codes, "raw": raw, "pca": raw}}
    return found


def _spectra() -> dict:
    def layer(name, width, decay):
        values = [math.exp(-decay * place) for place in range(width)]
        return {
            "name": name, "values": values, "rank_me": width / 3, "effective_rank": width / 3,
            "participation_ratio": width / 4, "alpha_req": 1.1, "lidar": width / 5,
        }  # fmt: skip

    layers = [layer("backbone.stem", 16, 0.1), layer("backbone.blocks.0", 32, 0.1), layer("codes", 64, 0.1)]
    canonical = [0.99 * math.exp(-0.02 * place) for place in range(64)]
    return {"layers": [*layers, layer("codes@random", 64, 0.4)], "canonical": canonical}


def _queries(modality: str) -> list[dict]:
    text = "a <b>sparse</b> matrix" if modality == "text" else ""
    near = [
        {"name": f"train {k}", "label": "sparse", "text": text and f"{text} {k}", "similarity": 0.9} for k in range(3)
    ]
    return [{"name": "held out 0", "label": "sparse", "text": text, "neighbours": near}]


def _directions(modality: str) -> list[dict]:
    end = [{"name": "train 4", "label": "linalg", "text": "solves a system" if modality == "text" else ""}]
    responds = [["matrix", 0.8], ["sparse", 0.5]] if modality == "text" else []
    return [{"rank": 1, "correlation": 0.98, "share": 0.2, "top": end, "bottom": end, "responds": responds}]
