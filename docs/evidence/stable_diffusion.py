"""The runs behind claim 2.4: `python docs/evidence/stable_diffusion.py STAGE...`, stages in the order of `STAGES`.

A small text-to-image model is made of scikit-learn's digits (VAE, then a UNet told by captions which digit to draw) and
fine-tuned on the same digits in another hand: blue ink on paper. Every run is one of `lsdr train stable-diffusion`,
which is printed; stopped and called again, it goes on. `tables` copies the summaries into docs/evidence/results and
writes docs/evidence/stable-diffusion-tables.md. The rule is on docs/evidence/stable-diffusion.md.
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from runs import _table
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from verdicts import Claim, judge, together

from lsdr.diffusion.measures.catalogue import MEASURES
from lsdr.diffusion.measures.lyapunov import lyapunov
from lsdr.diffusion.measures.measure import heun_steps, sample_heun
from lsdr.diffusion.measures.operator_measures import artifact_measures
from lsdr.diffusion.measures.sensitivity import sensitivity
from lsdr.diffusion.sigmas import karras_sigmas
from lsdr.experiments.fields import to_dict
from lsdr.experiments.states import Run, read_status
from lsdr.experiments.summary import summarize
from lsdr.measures.diversity import diversity
from lsdr.measures.feature_distance import feature_distance
from lsdr.measures.feature_extractor import TrainedExtractor, train_feature_extractor
from lsdr.measures.power_spectrum_error import power_spectrum_error
from lsdr.probes.conditioning import rows_of
from lsdr.probes.evaluating import evaluating
from lsdr.runs import environment, read_json, write_json
from lsdr.stable_diffusion.build import adapt
from lsdr.stable_diffusion.config import StableDiffusionConfig
from lsdr.stable_diffusion.latents import decode_latents
from lsdr.stable_diffusion.network import denoiser_of, network_conditioning
from lsdr.stable_diffusion.pipeline import load_pipeline
from lsdr.stable_diffusion.text import encode_captions
from lsdr.training.trained import load_trained_state

RESULTS = Path(__file__).parent / "results"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 32
INK = {"chalk": "a handwritten {} in chalk", "ink": "a handwritten {} in blue ink on paper"}
TUNED = 300
"""Digits that are fine-tuned on; a fifth of them is held out. The others, in ink, stand for the data in FID."""
SAMPLES = 128
# Weights that are tried for each method; the learning rates are tried with the middle one.
WEIGHTS = {
    "discriminator": (0.1, 1.0, 10.0),
    "decomposition_eigenvalues": (0.1, 1.0, 10.0),
    "decomposition_singular": (0.1, 1.0, 10.0),
}
RATES = {"full": (1e-4, 3e-4, 1e-3), "lora": (1e-3, 3e-3, 1e-2)}
TUNING_SEED = 100
SEEDS = tuple(range(5))
CAPTION_ACCURACY = {
    "label": "Caption followed",
    "unit": "",
    "better": "higher",
    "description": "Share of samples that a classifier of the data takes for the digit in their caption.",
}
STABLE = ("sensitivity", "lyapunov")
RELIABLE = ("heldout_loss", "fid", "psd_rmse_db", "caption_accuracy", "gradient_spikes", "diverged")


def write_digits(folder: Path, hand: str, rows: list[int]) -> None:
    """Digits as pictures, each with its caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, picture in zip(rows, pictures(hand, rows), strict=True):
        picture.save(folder / f"{row:04d}.png")
        word = WORDS[int(load_digits().target[row])]
        (folder / f"{row:04d}.txt").write_text(INK[hand].format(word) + "\n")


def pictures(hand: str, rows: list[int]) -> list[Image.Image]:
    """White on black, or blue on cream."""
    found = []
    for digit in load_digits().images[rows]:
        strength = np.array(Image.fromarray((digit * (255 / 16)).astype(np.uint8)).resize((SIDE, SIDE), 3)) / 255
        paper, ink = (np.zeros(3), np.full(3, 255)) if hand == "chalk" else (np.array([250, 240, 215]), [30, 50, 140])
        pixels = paper + strength[..., None] * (np.asarray(ink) - paper)
        found.append(Image.fromarray(pixels.round().astype(np.uint8)))
    return found


def pixels_of(hand: str, rows: list[int]) -> Tensor:
    """Digits as a batch in [-1, 1]."""
    return torch.from_numpy(np.stack([np.array(each) for each in pictures(hand, rows)])).permute(0, 3, 1, 2) / 127.5 - 1


def halves() -> tuple[list[int], list[int]]:
    """Rows that are fine-tuned on, and the others, in an order of their own."""
    order = np.random.default_rng(0).permutation(len(load_digits().images)).tolist()
    return order[:TUNED], order[TUNED:]


def base(out: Path, quick: bool) -> None:
    """Train the VAE on both hands and the UNet on chalk; train the classifier that FID looks through."""
    torch.manual_seed(0)
    tuned, others = halves()
    write_digits(out / "ink", "ink", tuned)
    write_digits(out / "chalk", "chalk", others[:40] if quick else others)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    # Random and frozen: different captions get different embeddings, which is all that the UNet needs here.
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, **ends
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    parts: dict[str, Any] = {
        "vae": _train_vae(torch.cat([pixels_of("chalk", others), pixels_of("ink", others)]), 2 if quick else 1500),
        "text_encoder": CLIPTextModel(text),
        "tokenizer": CLIPTokenizer({word: number for number, word in enumerate(words)}, [], model_max_length=77),
        "unet": unet,
        "scheduler": DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1),
    }
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**parts, **none).save_pretrained(out / "blank")
    labels = torch.from_numpy(load_digits().target[others])
    train_feature_extractor(pixels_of("ink", others), labels, steps=2 if quick else 600).save(out)
    train(out, out / "base", "blank", "chalk", "baseline", "full", 0, 1e-3, 4 if quick else 3000, "--sanity", "warn")


def _train_vae(images: Tensor, steps: int) -> AutoencoderKL:
    """A VAE that makes images a quarter as wide, with latents scaled to a standard deviation of 1."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        norm_num_groups=8,
        latent_channels=4,
        sample_size=SIDE,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (32,))]
        posterior = vae.encode(batch).latent_dist
        error = (vae.decode(posterior.sample()).sample - batch).square().mean()
        (error + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        latents = torch.cat([vae.encode(part).latent_dist.sample() for part in images.split(256)])
        print(f"VAE: mean squared error {float(error):.4f}, latents of standard deviation {float(latents.std()):.3f}")
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    return vae.requires_grad_(False)


def train(
    out: Path, folder: Path, model: str, data: str, method: str, tune: str, seed: int, lr: float, steps: int, *more: str
) -> None:
    """One run of the command, unless it is over; a run that fails is a result too."""
    if read_status(folder)["status"] in ("finished", "diverged"):
        return
    words = ["train", "stable-diffusion", "--model", str(out / model), "--data", str(out / data), "--out", str(folder)]
    words += ["--method", method, "--tune", tune, "--seed", str(seed), "--lr", f"{lr:g}", "--steps", str(steps)]
    words += ["--resolution", str(SIDE), "--no-buckets", "--holdout", "0.2", "--batch-size", "16", "--warmup", "20"]
    words += ["--evaluate-every", "50", "--sample-every", "0", "--no-gradient-checkpointing", "--no-inspect"]
    words += ["--cache", str(out / "cache"), "--trackers", *more]
    words += ["--resume"] if (folder / "checkpoints").exists() else []
    print("$ lsdr", shlex.join(words), flush=True)
    subprocess.run([sys.executable, "-m", "lsdr", *words], check=False, stdout=subprocess.DEVNULL)
    if read_status(folder)["status"] not in ("finished", "diverged"):
        raise SystemExit(f"{folder} did not end: see its crash.txt, or run the command above")


def compare(out: Path, name: str, tune: str, specs: list[str], seeds: tuple[int, ...], lr: float, quick: bool) -> Path:
    """Fine-tune with each method on each seed, measure, summarize."""
    experiment = out / name
    for seed in seeds:
        for spec in specs:
            folder = Run.of(experiment, spec, seed).directory
            # The control is that of the discriminator, the claim's own method.
            method = "discriminator@0" if spec == "lambda_zero" else spec
            # The base has seen white on black only: the checks refuse pictures that are like nothing it knows.
            more = ("--sanity", "warn")
            train(out, folder, "base/pipeline", "ink", method, tune, seed, lr, 4 if quick else 400, *more)
            measure(out, folder, tune, seed, quick)
    catalogue = {key: to_dict(value) for key, value in MEASURES.items()} | {"caption_accuracy": CAPTION_ACCURACY}
    content = {"methods": [{"name": spec, "spec": spec} for spec in specs], "seeds": list(seeds), "measures": catalogue}
    config = read_json(Run.of(experiment, specs[0], seeds[0]).directory / "config.json")
    write_json(experiment / "experiment.json", {**content, "config": config, "environment": environment()})
    summarize(experiment)
    return experiment


@torch.no_grad()
def measure(out: Path, folder: Path, tune: str, seed: int, quick: bool) -> None:
    """Add to a run's measures those of its samples; the same noise and captions for every method of a seed."""
    found = read_json(folder / "measures.json")
    if read_status(folder)["status"] != "finished" or "fid" in found:
        return
    pipeline = load_pipeline(out / "base/pipeline")
    config = StableDiffusionConfig(model=out / "base/pipeline", data=str(out / "ink"), tune=tune)  # type: ignore[arg-type]
    adapt(config, pipeline.network)
    load_trained_state(pipeline.network, load_file(folder / "snapshots/final/ema.safetensors"))
    denoiser = denoiser_of(pipeline)(pipeline.network.eval())
    others = halves()[1]
    generator = torch.Generator().manual_seed(seed)
    count = 8 if quick else SAMPLES
    noise = torch.randn((count, 4, SIDE // 4, SIDE // 4), generator=generator)
    wanted = torch.arange(count) % 10
    embeddings = encode_captions(pipeline, [INK["ink"].format(word) for word in WORDS])
    text = network_conditioning("sd", {name: rows[wanted] for name, rows in embeddings.items()}, None)
    sigmas = karras_sigmas(12, denoiser.sigma_min, denoiser.sigma_max)
    data, extractor = pixels_of("ink", others), TrainedExtractor.load(out).extractor

    def sample(z: Tensor, given: Any) -> Tensor:
        return decode_latents(pipeline.vae, sample_heun(denoiser, z, sigmas, given, 64))

    few = slice(2 if quick else 16)
    with evaluating(denoiser):
        samples = sample(noise, text).clamp(-1, 1)
        response = sensitivity(sample, noise[few], conditioning=rows_of(text, few), generator=generator)
        few = slice(1 if quick else 4)
        with torch.enable_grad():
            exponents = lyapunov(
                heun_steps(denoiser, sigmas), noise[few], conditioning=rows_of(text, few), generator=generator
            )
    if not bool(samples.isfinite().all()):
        found |= dict.fromkeys(("fid", "psd_rmse_db", "sensitivity", "lyapunov", "caption_accuracy"), math.nan)
    else:
        found |= {
            "fid": float(feature_distance(samples, data, extractor, generator=generator).fid),
            "psd_rmse_db": float(power_spectrum_error(samples, data).overall),
            "diversity_variance": float(diversity(samples, data).variance),
            "sensitivity": float(response.mean()),
            "lyapunov": float(exponents.exponents[:, 0].mean()),
            "caption_accuracy": float((extractor.logits(samples).argmax(1) == wanted).double().mean()),
            "grid_artifact_db": artifact_measures(samples, data)[0]["grid_artifact_db"],
        }
    write_json(folder / "measures.json", found)


def tune(out: Path, quick: bool) -> None:
    """The same five runs an arm on a seed of their own: three learning rates, then two more weights."""
    for kind, rates in RATES.items():
        middle = ["baseline", *(f"{arm}@{weights[1]:g}" for arm, weights in WEIGHTS.items())]
        for rate in rates:
            compare(out, f"tune-{kind}-lr-{rate:g}", kind, middle, (TUNING_SEED,), rate, quick)
        others = [f"{arm}@{weight:g}" for arm, weights in WEIGHTS.items() for weight in (weights[0], weights[2])]
        compare(out, f"tune-{kind}-weights", kind, ["baseline", *others], (TUNING_SEED,), best_rate(out, kind), quick)


def heldout(folder: Path) -> dict[str, float]:
    """Held-out loss by method of one tuning comparison; infinite where a run failed."""
    methods = read_json(folder / "summary.json")["methods"]
    losses = {each["name"]: each["seeds"][0]["measures"].get("heldout_loss") for each in methods}
    return {name: math.inf if value is None else value for name, value in losses.items()}


def best_rate(out: Path, kind: str) -> float:
    """The learning rate with the lowest held-out loss, summed over arms: one rate for all."""
    return min(RATES[kind], key=lambda rate: sum(heldout(out / f"tune-{kind}-lr-{rate:g}").values()))


def chosen(out: Path, kind: str) -> list[str]:
    """Every arm at the largest weight whose held-out loss on the tuning seed is at most 1 % above the baseline's."""
    losses = {**heldout(out / f"tune-{kind}-weights"), **heldout(out / f"tune-{kind}-lr-{best_rate(out, kind):g}")}
    arms = []
    for arm, weights in WEIGHTS.items():
        fitting = [weight for weight in weights if losses[f"{arm}@{weight:g}"] <= 1.01 * losses["baseline"]]
        arms.append(f"{arm}@{max(fitting) if fitting else min(weights):g}")
    return arms


def full(out: Path, quick: bool, kind: str = "full") -> None:
    """Every weight is trained: baseline, control and methods on the seeds that are reported."""
    arms = ["baseline", "lambda_zero", *chosen(out, kind)]
    compare(out, f"stable-diffusion-{kind}", kind, arms, SEEDS[:1] if quick else SEEDS, best_rate(out, kind), quick)


def lora(out: Path, quick: bool) -> None:
    """The same with a LoRA."""
    full(out, quick, "lora")


def tables(out: Path, quick: bool) -> None:
    """Keep the summaries, and write tables and verdicts."""
    parts = [
        "# Stable Diffusion: tables",
        "Written by `python docs/evidence/stable_diffusion.py tables`; [the rule](stable-diffusion.md).",
        "Columns: the baseline's median, then every method's paired difference from it with 95 % interval.",
    ]
    rows = ["| claim | task | arm | verdict | effects against baseline |", "|---|---|---|---|---|"]
    target = out if quick else RESULTS
    for folder in sorted(path.parent for path in out.glob("*/summary.json")):
        summary, experiment = read_json(folder / "summary.json"), read_json(folder / "experiment.json")
        text = json.dumps({"experiment": experiment, "summary": summary}, indent=1)
        name = folder.name if folder.name.startswith("stable") else f"stable-diffusion-{folder.name}"
        (target / f"{name}.json").write_text(text + "\n")
        if folder.name.startswith("stable"):
            parts.append(f"## {folder.name}\n\n{_table(summary)}")
            rows += verdicts(summary, folder.name)
    parts.append("## Verdicts\n\n" + "\n".join(rows))
    page = (out if quick else RESULTS.parent) / "stable-diffusion-tables.md"
    page.write_text("\n\n".join(parts) + "\n")


def verdicts(summary: dict[str, Any], task: str) -> list[str]:
    """Claim 2.4 for every arm, by the rule."""
    rows = []
    claims = [Claim("2.4", "similar outputs for nearby inputs", "", STABLE)]
    claims += [Claim("2.4", "more stable and reliable, captions followed", "", RELIABLE)]
    for arm in [each["name"] for each in summary["methods"] if each["name"] != "baseline"]:
        found = {each["measure"]: each for each in summary["comparisons"] if each["method"] == arm}
        for claim in claims:
            judged = [judge(found[measure], measure) for measure in claim.measures if measure in found]
            words = "; ".join(f"{text} ({verdict})" for verdict, text in judged)
            verdict = together([verdict for verdict, _ in judged])
            rows.append(f"| {claim.number} {claim.words} | {task} | `{arm}` | **{verdict}** | {words} |")
    return rows


STAGES = {"base": base, "tune": tune, "full": full, "lora": lora, "tables": tables}


def main() -> None:
    """Run the stages named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=list(STAGES))
    parser.add_argument("--out", type=Path, default=Path("runs/evidence-stable-diffusion"))
    parser.add_argument("--quick", action="store_true", help="to see that it runs: few steps, one seed")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.stages:
        STAGES[name](options.out, options.quick)


if __name__ == "__main__":
    main()
