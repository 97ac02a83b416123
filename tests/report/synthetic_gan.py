"""Synthetic run directories of GANs that look like real ones: on points, on images, alone; one collapses."""

import importlib.util
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lsdr.gan.measures.catalogue import MEASURES
from lsdr.runs import append_record, write_json

STEPS = 2000
TICKS = (-4.0, -2.0, 0.0, 2.0, 4.0)
MEANS = [[x, y] for x in TICKS for y in TICKS]
STD = 0.05
METHODS = ("baseline", "gan_r1_r2", "adaptive_noise")
PERFECT = {
    "modes": {"mean": 25.0, "sd": 0.0},
    "high_quality": {"mean": 0.989, "sd": 0.002},
    "reverse_kl": {"mean": 0.0046, "sd": 0.0013},
    "reverse_kl_all": {"mean": 0.0048, "sd": 0.0014},
    "precision": {"mean": 0.9, "sd": 0.01},
    "coverage": {"mean": 0.95, "sd": 0.01},
}


def write_gan_experiment(directory: Path, seeds: int = 5, methods=METHODS) -> Path:
    """Write a comparison on the grid: the first method collapses, the second covers all, one run diverges."""
    write_json(
        directory / "experiment.json",
        {
            "task": "gan",
            "command": "lsdr compare gan --data grid --methods baseline,gan_r1_r2,adaptive_noise --seeds 5",
            "created": "2026-05-14T09:12:44",
            "finished": "2026-05-14T10:02:10",
            "environment": {"python": "3.11.9", "packages": {"lsdr": "0.1.0", "torch": "2.6.0"}},
            "methods": [
                {"name": name, "description": f"Arm {place}.", "regularizers": [], "overrides": {}}
                for place, name in enumerate(methods)
            ],
            "seeds": list(range(seeds)),
            "config": {"data": "grid", "packing": 1, "discriminator_noise": False, "training": {"steps": STEPS}},
            "data": {
                "source": "grid", "count": 90_000, "heldout": 10_000, "shape": [2], "classes": None, "problems": [],
                "mixture": {"name": "grid", "means": MEANS, "std": STD},
            },
            "measures": {name: vars(measure) for name, measure in MEASURES.items()},
        },
    )  # fmt: skip
    for place, name in enumerate(methods):
        for seed in range(seeds):
            kept = {0: 3 + seed, 1: 25, 2: 23 + seed % 3}[place % 3]
            write_gan_run(
                directory / name / f"seed={seed}", kept, seed, noise=place == 2, broke=(place, seed) == (0, 1)
            )
    write_json(directory / "summary.json", _summary(list(methods), seeds))
    return directory


def write_gan_run(run: Path, kept: int = 25, seed: int = 0, *, noise: bool = False, broke: bool = False) -> Path:
    """Write one run on the grid whose samples cover the first `kept` modes."""
    rng = np.random.default_rng(seed + 10 * kept)
    config = {"data": "grid", "packing": 1, "discriminator_noise": noise, "noise_target": 0.6, "method": "adaptive"}
    write_json(run / "config.json", {**config, "training": {"steps": STEPS, "seed": seed}})
    status = {"status": "finished", "step": STEPS, "steps": STEPS, "seconds": 33.0, "message": "", "spikes": 2}
    write_json(run / "status.json", status)
    write_json(run / "data.json", _data())
    for step in range(100, STEPS + 1, 100):
        fade = math.exp(-step / 500)
        record = {
            "step": step, "loss": 0.7 + fade, "penalty": 0.0, "grad_norm": 0.4, "grad_norm_max": 1.0,
            "lr": 1e-3, "seconds": 0.016 * step, "step_seconds": 0.016, "memory_mb": 300.0, "spikes": 0,
            "discriminator/loss": 1.386 - fade + 0.02 * rng.normal(), "generator/loss": 0.7 + fade,
            "discriminator/grad_norm": 0.3 + fade, "generator/grad_norm": 0.1 + fade,
            "logits/real": 0.2 + fade, "logits/fake": -0.2 - fade, "r1": 0.02 + fade, "r2": 0.05 + 2 * fade,
        }  # fmt: skip
        if noise:
            record |= {"noise/level": min(step / 800, 0.7), "noise/signal": 0.9 - 0.3 * min(step / 800, 1)}
        append_record(run / "metrics.jsonl", record)
    for step in range(0, STEPS + 1, 250):
        share = min(1.0, step / 1500)
        values = {"modes": round(kept * share), "high_quality": 0.97 * share, "reverse_kl": 3.2 - 3.15 * share}
        values |= {"logits_train": 0.2, "logits_heldout": 0.15, "logits_fake": -0.2}
        append_record(run / "evaluations.jsonl", {"step": step, "seconds": 0.016 * step, **values})
    for step in (0, STEPS):
        layers = {
            f"{player}.net.{layer}": {
                "sigma_max": 1 + rng.random(), "stable_rank": 9.0, "effective_rank": 30.0, "shape": [64, 64],
            }
            for player in ("generator", "discriminator")
            for layer in (0, 2, 4)
        }  # fmt: skip
        append_record(run / "spectra.jsonl", {"step": step, "kind": "weights", "layers": layers})
    if noise and seed == 1:
        fell = {
            "step": 1500,
            "kind": "realism",
            "action": "none",
            "message": "high-quality share fell from 91 % to 70 %",
        }
        append_record(run / "events.jsonl", fell)
    mode = rng.integers(kept, size=2500)
    points = np.array(MEANS)[mode] + STD * rng.normal(size=(2500, 2))
    points[:50] += 0.4
    counts = np.bincount(mode[50:], minlength=25).tolist()
    save_file({"samples": points.astype(np.float32), "data": points.astype(np.float32)}, run / "samples.safetensors")
    divergence = math.log(25 / kept) + 0.005
    write_json(
        run / "measures.json",
        {
            "modes": float(kept), "high_quality": 0.98, "reverse_kl": divergence, "reverse_kl_all": divergence + 0.01,
            "precision": 0.88, "coverage": 0.9 * kept / 25, "copies": 0.0, "overfitting": 0.05, "heldout_gap": 0.02,
            "largest_logit": 3.0, "diverged": float(broke), "gradient_spikes": 2.0, "step_seconds": 0.016,
            "memory_mb": 300.0,
        },
    )  # fmt: skip
    write_json(run / "curves.json", {"perfect": PERFECT, "modes": {"counts": counts, "samples": 2500}})
    return run


def _data():
    about = {"source": "grid", "count": 90_000, "heldout": 10_000, "shape": [2], "classes": None, "problems": []}
    return {**about, "mixture": {"name": "grid", "means": MEANS, "std": STD}}


def _summary(methods: list[str], seeds: int):
    comparisons = [
        {
            "method": name, "against": methods[0], "measure": measure, "effect": effect, "low": 1.2 * effect,
            "high": 0.8 * effect, "verdict": "better", "pairs": seeds, "baseline": base, "relative": effect / base,
        }
        for name in methods[1:]
        for measure, base, effect in (("reverse_kl_all", 1.6, -1.55), ("modes", 5.0, 20.0))
    ]  # fmt: skip
    return {"methods": [], "comparisons": comparisons, "chance_verdicts": 0.3}


def load_synthetic():
    """The module of the other synthetic runs, for its grids of pictures."""
    path = Path(__file__).parent / "synthetic.py"
    specification = importlib.util.spec_from_file_location("synthetic_runs", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
