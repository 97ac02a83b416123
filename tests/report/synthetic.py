"""Synthetic run directories that look like real ones: three methods, five seeds, one diverged and one crashed run."""

import importlib.util
import random
from pathlib import Path

import numpy as np
from PIL import Image

from lsdr.diffusion.measures.catalogue import MEASURES
from lsdr.runs import append_record, write_json

METHODS = {"baseline": 1.0, "clip": 0.995, "decorrelation": 0.95}
LAYERS = [f"down_blocks.{i}.resnets.{j}.conv{k}" for i in range(3) for j in range(2) for k in (1, 2)] + [
    "mid_block.attentions.0.to_q",
    "mid_block.attentions.0.to_k",
    "mid_block.attentions.0.to_v",
    "conv_out",
]
FEATURES = ["mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"]
STEPS = 400


def write_experiment(directory: Path, methods=METHODS, seeds: int = 5, logged: int = 80) -> Path:
    """Write an experiment directory as a comparison leaves it behind; method names may be anything."""
    rng = np.random.default_rng(0)
    write_json(
        directory / "experiment.json",
        {
            "task": "diffusion",
            "command": "lsdr compare diffusion --data cifar10-train.parquet --methods baseline,clip,decorrelation "
            f"--seeds {seeds} --steps {STEPS} --out runs/c10",
            "created": "2026-03-14T09:12:44",
            "finished": "2026-03-14T10:02:10",
            "environment": {
                "python": "3.11.9",
                "platform": "Linux-6.8-x86_64",
                "processors": 2,
                "command": "lsdr compare diffusion",
                "packages": {"lsdr": "0.1.0", "torch": "2.6.0", "diffusers": "0.32.1", "numpy": "2.1.0"},
            },
            "methods": [
                {
                    "name": name,
                    "description": "Plain training: no regularizer."
                    if not place
                    else f"Treatment {place}, as described.",
                    "regularizers": ["SpectralDecorrelation(layers='mid_block*', weight=0.1)"] if place == 2 else [],
                    "overrides": {},
                }
                for place, name in enumerate(methods)
            ],
            "seeds": list(range(seeds)),
            "config": {"data": "cifar10-train.parquet", "model": "unet-tiny", "training": {"steps": STEPS, "lr": 1e-3}},
            "data": {
                "source": "cifar10-train.parquet",
                "count": 50000,
                "heldout": 5000,
                "shape": [3, 32, 32],
                "classes": 10,
                "problems": [
                    {"kind": "truncated", "count": 2, "examples": ["cat/0012.png", "dog/<b>0400</b>.png"]},
                    {"kind": "not an image", "count": 1, "examples": ["Thumbs.db"]},
                ],
            },
            "measures": {name: vars(measure) for name, measure in MEASURES.items()},
        },
    )
    write_grid(directory / "data.png", rng, 0.0)
    for place, (name, factor) in enumerate(methods.items()):
        for seed in range(seeds):
            state = {(1, 3): "crashed", (1, 4): "diverged"}.get((place, seed), "finished")
            write_run(directory / name / f"seed={seed}", place, seed, factor, state, logged)
    write_json(directory / "summary.json", _summary(directory, list(methods), seeds))
    return directory


def write_run(run: Path, place: int = 0, seed: int = 0, factor: float = 1.0, state: str = "finished", logged: int = 80):
    """Write one run's directory; broken runs stop after 60 % and have no measures."""
    rng = np.random.default_rng(100 * place + seed + 1)
    luck = 1 + 0.02 * random.Random(seed).gauss(0, 1)
    share = 1.0 if state == "finished" else 0.6
    steps = np.linspace(1, STEPS, logged).astype(int)[: int(logged * share)]
    pace = (0.11, 0.112, 0.118)[place % 3]
    write_json(run / "config.json", {"method": list(METHODS)[place % 3], "seed": seed, "training": {"steps": STEPS}})
    message = {"finished": "", "crashed": "RuntimeError: out of memory", "diverged": "the loss became nan at step 241"}
    write_json(
        run / "status.json",
        {
            "status": state,
            "step": int(steps[-1]),
            "steps": STEPS,
            "seconds": pace * steps[-1],
            "message": message[state],
            "spikes": place,
        },
    )
    for index, step in enumerate(steps):
        loss = factor * luck * (0.06 + 0.9 * np.exp(-step / 60)) * np.exp(0.12 * rng.normal())
        if state == "diverged" and index > len(steps) - 6:
            loss *= 4.0 ** (index - len(steps) + 6)
        record = {
            "step": int(step),
            "loss": float(loss) if not (state == "diverged" and step == steps[-1]) else None,
            "penalty": 0.08 * np.exp(-step / 90) * np.exp(0.1 * rng.normal()) if place == 2 else 0.0,
            "grad_norm": float(2.5 * loss * (12 if rng.random() < 0.01 else 1)),
            "grad_norm_max": float(3 * loss),
            "lr": 1e-3,
            "seconds": pace * step,
            "step_seconds": pace * (1 + 0.05 * rng.random()),
            "memory_mb": 812.0 + 40 * place,
            "spikes": 0,
        }
        append_record(run / "metrics.jsonl", record)
    for step in range(0, int(STEPS * share) + 1, 50):
        value = factor * luck * (0.065 + 0.9 * np.exp(-step / 55))
        append_record(run / "evaluations.jsonl", {"step": step, "seconds": pace * step, "heldout_loss": value})
    for step in range(0, int(STEPS * share) + 1, 50):
        seen = {f"weights/{layer}/sigma_max": 1.0 + step * rate for layer, rate in (("still", 0.0), ("moving", 0.01))}
        append_record(run / "monitor.jsonl", {"step": step, **seen, "monitor/share": 0.004})
    for step in (0, int(STEPS * share)):
        append_record(run / "spectra.jsonl", {"step": step, "kind": "weights", "layers": _weights(rng, step, place)})
        append_record(run / "spectra.jsonl", {"step": step, "kind": "features", "layers": _features(rng, step, place)})
    for step in (100, 200):
        write_grid(run / "samples" / f"step-{step:06d}.png", rng, 90 - step / 5)
    if state == "diverged":
        append_record(
            run / "events.jsonl",
            {
                "step": 241,
                "kind": "nonfinite_loss",
                "module": "up_blocks.1.resnets.0.conv1",
                "direction": "forward",
                "action": "stop",
                "indices": [4, 77, 1203],
                "names": ["cat/0004.png", "dog/0077.png", "ship/1203.png"],
                "message": "the first value that is not finite came out of up_blocks.1.resnets.0.conv1",
                "spectra": {
                    "up_blocks.1.resnets.0.conv1": {"sigma_max": 812.5, "stable_rank": 1.04, "effective_rank": 2.2}
                },
            },
        )
    if state != "finished":
        return
    write_grid(run / "samples" / "final.png", rng, 25 - 5 * place)
    write_json(run / "measures.json", _measures(rng, factor, luck, place, pace))
    write_json(run / "curves.json", _curves(rng, factor * luck, place))


def write_grid(path: Path, rng, noise: float, side: int = 4, size: int = 32) -> None:
    """Write a grid of soft coloured shapes, noisier the less was learned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.zeros((side * size, side * size, 3))
    y, x = np.mgrid[0:size, 0:size] / size
    for row in range(side):
        for column in range(side):
            centre, colour = rng.random(2), rng.random(3) * 200
            bump = np.exp(-8 * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2))[..., None]
            cell = 60 + bump * colour + noise * rng.normal(size=(size, size, 3))
            grid[row * size : (row + 1) * size, column * size : (column + 1) * size] = cell
    Image.fromarray(grid.clip(0, 255).astype(np.uint8)).save(path)


def _weights(rng, step: int, place: int) -> dict:
    return {
        name: {
            "sigma_max": float(
                1.2 + (0.004 - 0.001 * place) * step * (0.5 + depth / len(LAYERS)) + 0.05 * rng.random()
            ),
            "stable_rank": float(14 - 0.01 * step + rng.random()),
            "effective_rank": float(28 - 0.01 * step + rng.random()),
            "shape": [32, 288],
        }
        for depth, name in enumerate(LAYERS)
    }


def _features(rng, step: int, place: int) -> dict:
    lean = 0.12 if place == 2 and step else 0.3
    return {
        name: {
            "effective_rank": float(30 - 40 * lean + rng.random()),
            "mean_abs_correlation": float(lean + 0.02 * rng.random()),
            "participation_ratio": float(20 - 30 * lean + rng.random()),
            "values": [float(4 * np.exp(-rank * lean / 2)) for rank in range(32)],
        }
        for name in FEATURES
    }


def _measures(rng, factor: float, luck: float, place: int, pace: float) -> dict:
    jitter = lambda spread=0.03: float(np.exp(spread * rng.normal()))  # noqa: E731
    values = {
        "heldout_loss": 0.0745 * factor * luck,
        "heldout_loss_low_noise": 0.031 * factor * luck * jitter(),
        "heldout_loss_mid_noise": 0.094 * factor * luck * jitter(),
        "heldout_loss_high_noise": 0.121 * luck * jitter(),
        "psd_rmse_db": 3.1 * factor**2 * jitter(),
        "psd_rmse_low_db": 1.4 * jitter(0.1),
        "psd_rmse_mid_db": 2.6 * jitter(),
        "psd_rmse_high_db": 4.4 * factor**2 * jitter(),
        "sensitivity": 0.83 * factor * jitter(0.02),
        "lyapunov": -0.012 * jitter(0.3),
        "diversity_variance": 0.94 * jitter() * (0.96 if place == 2 else 1),
        "nearest_neighbour": 0.241 * jitter() * (0.97 if place == 2 else 1),
        "nearest_train": 0.31 * jitter(),
        "fid": 41.2 * jitter(0.04),
        "kid": 0.0123 * jitter(0.2),
        "largest_stable_lr": float([3e-3, 3e-3, 1e-2][place % 3]),
        "lr_sensitivity": 0.21 * jitter(0.1),
        "diverged": 0.0,
        "gradient_spikes": float(rng.integers(0, 3)),
        "step_seconds": pace * jitter(0.01),
        "memory_mb": 812.0 + 40 * place,
        "step_seconds_ratio": pace / 0.11,
        "memory_ratio": (812 + 40 * place) / 812,
        "feature_effective_rank": 18.0 * (1.4 if place == 2 else 1) * jitter(),
        "feature_mean_abs_correlation": 0.31 * (0.4 if place == 2 else 1) * jitter(),
        "weight_sigma_max": 3.1 * jitter(),
    }
    return {**values, "heldout_loss@equal_time": values["heldout_loss"] * (1 + 0.01 * place), "fid@equal_time": 41.9}


def _curves(rng, factor: float, place: int) -> dict:
    sigma = np.geomspace(0.01, 40, 16)
    frequency = np.arange(17) / 32
    data = 40 / (1 + (frequency * 32) ** 2)
    rates = np.array([1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    stable = rates <= (1e-2 if place == 2 else 3e-3)
    return {
        "heldout_loss_by_sigma": {
            "sigma": sigma.tolist(),
            "loss": (factor * 0.3 * sigma / (0.3 + sigma) ** 1.3).tolist(),
        },
        "power_spectrum": {
            "frequency": frequency.tolist(),
            "data": data.tolist(),
            "data_low": (0.4 * data).tolist(),
            "data_high": (2.2 * data).tolist(),
            "samples": (data * np.exp(0.1 * rng.normal(size=17)) + 0.02).tolist(),
        },
        "lr_grid": {
            "lr": rates.tolist(),
            "diverged": (~stable).tolist(),
            "initial_loss": 1.02,
            "loss": [
                float(0.9 - 0.1 * np.log10(rate / 1e-5)) * factor if ok else None
                for rate, ok in zip(rates, stable, strict=True)
            ],
        },
        "lyapunov": {"exponents": [-0.01, -0.03]},
        "operator": _operator().operator(5, wrong=1.0 / (1 + place)),
        "artifacts": _operator().found()["artifacts"][:1] if place == 1 else [],
    }


def _operator():
    specification = importlib.util.spec_from_file_location(
        "synthetic_operator", Path(__file__).with_name("synthetic_operator.py")
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _summary(directory: Path, methods: list[str], seeds: int) -> dict:
    from lsdr.runs import read_json

    def measures(name: str, seed: int) -> dict:
        path = directory / name / f"seed={seed}" / "measures.json"
        return read_json(path) if path.exists() else {}

    table = {name: [measures(name, seed) for seed in range(seeds)] for name in methods}
    better = {name: measure.better for name, measure in MEASURES.items()}
    comparisons = []
    for name in methods[1:]:
        for measure in table[methods[0]][0]:
            pairs = [
                (b[measure], m[measure])
                for b, m in zip(table[methods[0]], table[name], strict=True)
                if measure in b and measure in m
            ]
            differences = np.array([after - before for before, after in pairs])
            base = float(np.median([before for before, _ in pairs])) if pairs else None
            low, high, effect = (float(v) for v in (differences.min(), differences.max(), np.median(differences)))
            verdict = "no difference shown"
            if len(pairs) >= 5 and low * high > 0:
                way = "lower" if high < 0 else "higher"
                wanted = better[measure.removesuffix("@equal_time")]
                verdict = way if wanted is None else "better" if way == wanted else "worse"
            comparisons.append(
                {
                    "method": name,
                    "against": methods[0],
                    "measure": measure,
                    "effect": effect,
                    "low": low,
                    "high": high,
                    "verdict": verdict,
                    "pairs": len(pairs),
                    "baseline": base,
                    "relative": effect / abs(base) if base else None,
                    "reason": "3 paired seeds; 5 are needed before an interval can exclude chance"
                    if len(pairs) < 5
                    else "",
                }
            )
    return {
        "methods": [
            {
                "name": name,
                "seeds": [
                    {"seed": seed, "status": "finished" if found else "diverged", "measures": found}
                    for seed, found in enumerate(rows)
                ],
            }
            for name, rows in table.items()
        ],
        "comparisons": comparisons,
    }
