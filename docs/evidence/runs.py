"""The runs behind docs/evidence: `python docs/evidence/runs.py STAGE...`, stages in the order of `STAGES` below.

Every stage is a handful of `lsdr compare diffusion` commands, which are printed; stopped and called again, it goes on.
`tables` copies the summaries into docs/evidence/results and prints them as tables.
"""

import argparse
import inspect
import json
import math
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
# Weights that are tried for each method; the learning rates are tried with the middle one.
WEIGHTS = {
    "discriminator": (0.1, 1.0, 10.0),
    "decorrelation": (0.01, 0.1, 1.0),
    "decomposition_eigenvalues": (1.0, 10.0, 100.0),
    "decomposition_singular": (1.0, 10.0, 100.0),
}
CONTROLS = ["clip", "weight_decay_matched"]
_NOTE = (
    "Columns: the baseline's median, then every method's paired difference from it with 95 % interval; **+** better, "
    "and **-** worse by the verdict of `lsdr compare`."
)
# Seeds of the reported runs are 0 to 4; nothing is chosen on them.
TUNING_SEED = 100
RATES = [1e-3, 2e-3, 4e-3]
SIZES = ["--samples", "128", "--train-images", "500", "--heldout-images", "128", "--extractor-steps", "150"]
COMMON = ["--trackers", "--batch-size", "16", "--evaluate-every", "50", "--sample-every", "150", *SIZES]
SHOWN = {
    "heldout_loss": "held-out loss",
    "fid": "FID (own features)",
    "psd_rmse_db": "power-spectrum error, dB",
    "grid_artifact_db": "grid artefact, dB",
    "sensitivity": "sensitivity",
    "lyapunov": "Lyapunov exponent",
    "diversity_variance": "variance of samples",
    "largest_stable_lr": "largest stable lr",
    "gradient_spikes": "spikes",
    "operator_largest": "largest eigenvalue",
    "operator_asymmetry": "asymmetry",
    "feature_mean_abs_correlation": "feature correlation",
    "feature_effective_rank": "feature rank",
}


def compare(out: Path, data: list[str], methods: list[str], seeds: int, *options: str) -> None:
    """Run one comparison and show its command."""
    words = ["compare", "diffusion", "--out", str(out), *data, "--methods", ",".join(methods), "--seeds", str(seeds)]
    words += [*COMMON, *options]
    print("$ lsdr", shlex.join(words), flush=True)
    subprocess.run([Path(sys.executable).with_name("lsdr"), *words], check=True)


def sequences(out: Path) -> Path:
    """Short moving sequences: a digit drifts over three frames of 12x12 pixels; the frames are the channels."""
    from sklearn.datasets import load_digits

    digits, generator = load_digits(), np.random.default_rng(0)
    images = np.zeros((len(digits.images), 3, 12, 12), np.uint8)
    for number, digit in enumerate(digits.images):
        place, speed = generator.integers(0, 5, 2), generator.integers(-1, 2, 2)
        for frame in range(3):
            y, x = np.clip(place + frame * speed, 0, 4)
            images[number, frame, y : y + 8, x : x + 8] = (digit * (255 / 16)).astype(np.uint8)
    np.savez(out / "sequences.npz", images=images)
    return out / "sequences.npz"


def texts(out: Path) -> Path:
    """Text embeddings: latent semantic analysis of the Python library's docstrings, 64 numbers each, laid out 8x8."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    sentences: dict[str, None] = {}
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in ("antigravity", "this", "idlelib", "turtledemo", "tkinter", "test"):
            continue
        try:
            module = import_module(name)
        except ImportError:
            continue
        for _, each in inspect.getmembers(module):
            text = getattr(each, "__doc__", None)
            for line in text.split(". ") if isinstance(text, str) else []:
                if 30 <= len(line) <= 300:
                    sentences[" ".join(line.split())] = None
    matrix = TfidfVectorizer(min_df=3, sublinear_tf=True, stop_words="english").fit_transform(sorted(sentences))
    embedded = TruncatedSVD(64, random_state=0).fit_transform(matrix[np.diff(matrix.indptr) > 2])
    embedded = (embedded - embedded.mean(0)) / embedded.std(0)
    pixels = np.clip(127.5 + embedded * (127.5 / 4), 0, 255).astype(np.uint8)
    np.savez(out / "texts.npz", images=pixels.reshape(-1, 8, 8))
    return out / "texts.npz"


def tune(out: Path) -> None:
    """Five runs an arm on a seed of their own: three learning rates, then two more weights (baseline: rates)."""
    data = ["--data", "patches", "--steps", "200", "--seed", str(TUNING_SEED)]
    middle = [spec(arm, weights[1]) for arm, weights in WEIGHTS.items()]
    for rate in RATES:
        compare(out / f"tune-lr-{rate:g}", data, ["baseline", *middle], 1, "--lr", f"{rate:g}")
    best = best_rate(out)
    others = [spec(arm, weight) for arm, weights in WEIGHTS.items() for weight in (weights[0], weights[2])]
    compare(out / "tune-weights", data, ["baseline", *others], 1, "--lr", f"{best:g}")
    for rate in (RATES[0] / 2, RATES[-1] * 2):
        compare(out / f"tune-lr-{rate:g}", data, ["baseline"], 1, "--lr", f"{rate:g}")


def spec(arm: str, weight: float) -> str:
    """How `lsdr compare` names a method at a weight."""
    return f"{arm}@{weight:g}"


def heldout(folder: Path, *, seed: int = TUNING_SEED) -> dict[str, float]:
    """Held-out loss by method of one tuning comparison; infinite where a run failed."""
    summary = json.loads((folder / "summary.json").read_text())
    losses = {}
    for method in summary["methods"]:
        value = next(run["measures"].get("heldout_loss") for run in method["seeds"] if run["seed"] == seed)
        name = method["name"]
        name = spec(name, WEIGHTS[name][1]) if name in WEIGHTS else name
        losses[name] = math.inf if value is None else value
    return losses


def best_rate(out: Path) -> float:
    """The learning rate with the lowest held-out loss, summed over arms: one rate for all (see the page on why)."""
    return min(RATES, key=lambda rate: sum(heldout(out / f"tune-lr-{rate:g}").values()))


def chosen(out: Path) -> list[str]:
    """Every arm at the largest weight whose held-out loss on the tuning seed is at most 1 % above the baseline's."""
    best = best_rate(out)
    losses = {**heldout(out / f"tune-lr-{best:g}"), **heldout(out / "tune-weights")}
    arms = []
    for arm, weights in WEIGHTS.items():
        fitting = [weight for weight in weights if losses[spec(arm, weight)] <= 1.01 * losses["baseline"]]
        arms.append(spec(arm, max(fitting) if fitting else min(weights)))
    return arms


def patches(out: Path) -> None:
    """16x16 photographs, with all controls and with "make the eigenvalues small" at three weights."""
    sweep = [f"operator_frobenius@{weight:g}" for weight in (0.1, 1.0, 10.0)]
    methods = ["baseline", "lambda_zero", *CONTROLS, *chosen(out), *sweep]
    data = ["--data", "patches", "--steps", "300", "--lr", f"{best_rate(out):g}"]
    compare(out / "patches", data, methods, 5, "--lr-grid-steps", "20")


def digits(out: Path) -> None:
    """8x8 digits."""
    data = ["--data", "digits", "--steps", "400", "--lr", f"{best_rate(out):g}"]
    compare(out / "digits", data, ["baseline", "lambda_zero", *chosen(out)], 5, "--lr-grid-steps", "20")


def cifar(out: Path, file: str) -> None:
    """CIFAR-10 from a Parquet file of its training images, at 32x32 pixels."""
    data = ["--data", file, "--limit", "10000", "--steps", "150", "--lr", f"{best_rate(out):g}"]
    compare(out / "cifar10", data, ["baseline", *chosen(out)], 2)  # a run takes minutes: seeds as time allowed


def video(out: Path) -> None:
    """Moving sequences."""
    data = ["--data", str(sequences(out)), "--steps", "300", "--lr", f"{best_rate(out):g}"]
    compare(out / "sequences", data, ["baseline", *chosen(out)], 5)


def text(out: Path) -> None:
    """Text embeddings."""
    data = ["--data", str(texts(out)), "--steps", "400", "--lr", f"{best_rate(out):g}"]
    compare(out / "texts", data, ["baseline", *chosen(out)], 5)


def tables(out: Path) -> None:
    """Keep every summary, and write the tables and the verdicts that follow from them."""
    from verdicts import table

    RESULTS.mkdir(exist_ok=True)
    parts = [
        "# Diffusion: tables",
        "Written by `python docs/evidence/runs.py tables`; [the rule](diffusion.md).",
        _NOTE,
    ]
    for folder in sorted(path.parent for path in out.glob("*/summary.json")):
        summary = json.loads((folder / "summary.json").read_text())
        experiment = json.loads((folder / "experiment.json").read_text())
        kept = {key: experiment[key] for key in ("command", "methods", "seeds", "config", "data", "environment")}
        for key in ("command", "processes"):
            kept["environment"].pop(key, None)
        text = json.dumps({"experiment": kept, "summary": summary}, indent=1)
        (RESULTS / f"{folder.name}.json").write_text(text + "\n")
        if not folder.name.startswith("tune"):
            parts.append(f"## {folder.name}\n\n{_table(summary)}")
    parts.append(f"## Verdicts\n\n{table()}")
    (RESULTS.parent / "diffusion-tables.md").write_text("\n\n".join(parts) + "\n")


def _table(summary: dict) -> str:
    methods = [method["name"] for method in summary["methods"]]
    found = {(each["method"], each["measure"]): each for each in summary["comparisons"]}
    lines = ["| measure | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for measure, title in SHOWN.items():
        cells = []
        for name in methods:
            each = found.get((name, measure))
            base = next((e for (_, m), e in found.items() if m == measure and e["baseline"] is not None), None)
            if name == "baseline":
                cells.append("" if base is None else f"{base['baseline']:.3g}")
            elif each is None or each["effect"] is None:
                cells.append("")
            else:
                mark = {"better": " **+**", "worse": " **-**", "lower, with less diversity": " (less diverse)"}
                cells.append(
                    f"{each['effect']:+.2g} [{each['low']:+.2g}, {each['high']:+.2g}]{mark.get(each['verdict'], '')}"
                )
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


STAGES = {
    "tune": tune,
    "patches": patches,
    "digits": digits,
    "sequences": video,
    "texts": text,
    "cifar10": cifar,
    "tables": tables,
}


def main() -> None:
    """Run the stages named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=list(STAGES))
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--cifar", default="cifar10-train.parquet", help="Parquet file of CIFAR-10's training images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.stages:
        STAGES[name](options.out, *([options.cifar] if name == "cifar10" else []))


if __name__ == "__main__":
    main()
