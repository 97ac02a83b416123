"""What each regularizer adds to a fine-tuning step of Stable Diffusion, and our loop beside diffusers' script.

`--scale small` is a small UNet with cross attention, for a CPU; `--scale full` has the configurations of Stable
Diffusion 1.5 (UNet of 860M parameters, 512x512 pixels) with random weights, for a GPU of 80 GB.

**Regularizers**: a copy of the UNet trains plainly and another one with the regularizer, step by step in turns, in an
order drawn anew every time, on the same latents with the same noise. The ratio is a step over the plain step beside it,
its median over rounds; "plain again" shows what the clock can tell apart. Memory is the most that a step holds beyond
what is held between steps (weights, their average, the optimiser's state): activations, gradients and what the
regularizer needs; "held" is what the regularizer keeps from step to step. The same for a LoRA of rank 16, beside the
plain LoRA.

**Loop**: our training loop without regularizers, set up as `lsdr train stable-diffusion` does it, and diffusers'
text-to-image training step in between, one step of each in turns. The script's step is written as in its
examples/text_to_image/train_text_to_image.py: AdamW with torch's defaults, clipping, `EMAModel`, the loss read at every
step. It is timed as it is, encoding every image and caption anew at each step; and on cached latents and embeddings, as
ours has them, with and without its average and with fused AdamW. Goal: within 2 % of the script's step on cached
latents with its average (ours always keeps one).
"""

import argparse
import copy
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader

from lsdr import runs
from lsdr.experiments.methods import METHODS
from lsdr.regularizers.adapter_normalization import AdapterNormalization
from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator
from lsdr.training.loop import train
from lsdr.training.stepper import Stepper, build_accelerator, open_stepper
from stable_diffusion_scales import SCALES, Bench, open_bench

RESULTS = Path(__file__).parent / "results" / "stable_diffusion_step.jsonl"
GOALS = {"ours / cached": 1.02}


def contenders() -> dict[str, Callable[[], tuple[Any, ...]]]:
    """Regularizers by name; the plain one is beside each of them."""
    found: dict[str, Callable[[], tuple[Any, ...]]] = {"plain again": tuple}
    for name, method in METHODS.items():
        if method.mirrors is None and not method.overrides and name not in ("baseline", "decorrelation_as_written"):
            found[name] = method.build
    found["discriminator"] = lambda: (SpectralDiscriminator(domain="latents"),)
    return found


def adapted() -> dict[str, Callable[[], tuple[Any, ...]]]:
    """What is timed on a LoRA, against the plain LoRA."""
    return {
        "plain again": tuple,
        "AdapterNormalization": lambda: (AdapterNormalization(bound=1.0),),
        "AdapterNormalization, frobenius": lambda: (AdapterNormalization(bound=1.0, norm="frobenius"),),
        **{name: contenders()[name] for name in ("discriminator", "decorrelation", "decomposition_eigenvalues")},
    }


class Ours:
    """One training run of ours, a step at a time."""

    def __init__(self, bench: Bench, tune: str, regularizers: tuple[Any, ...], stack: ExitStack) -> None:
        self.data, self.config = bench.dataset, bench.config.training
        opened = open_stepper(bench.task(tune), self.config, build_accelerator(self.config), regularizers)
        self.stepper: Stepper = stack.enter_context(opened)
        self.steps = 0

    def step(self) -> None:
        """Take one."""
        size = self.config.batch_size
        indices = [(self.steps * size + k) % len(self.data) for k in range(size)]
        gradient = self.stepper.gradient(self.steps, self.data.__getitems__(indices))
        self.stepper.update(self.steps, gradient)
        self.steps += 1

    def held(self) -> int:
        """Bytes that the regularizer keeps from step to step, as a checkpoint has them."""
        return sum(value.numel() * value.element_size() for value in self.stepper.penalty.state_dict().values())


def timed(step: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(step: Callable[[], None], device: torch.device) -> int:
    """The most bytes that a step holds at once beyond those held before it."""
    _wait(device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    held = most = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def beside_plain(
    bench: Bench, tune: str, everyone: Mapping[str, Callable[[], tuple[Any, ...]]], options: Any
) -> dict[str, Any]:
    """Time and memory of every regularizer beside plain training."""
    table: dict[str, Any] = {}
    for name, build in everyone.items():
        if options.only and "again" not in name and not any(part in name for part in options.only):
            continue
        try:
            table[name] = row = _pair(bench, tune, build(), options.rounds)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            table[name] = {"failed": f"{type(error).__name__}: {error}"}
            print(f"{tune:5} {name:33} does not run: {error}")
            continue
        finally:
            gc.collect()
        least, most = row["range"]
        print(
            f"{tune:5} {name:33} {row['ratio']:6.3f} [{least:.3f}, {most:.3f}] of {row['plain_ms']:.0f} ms   memory "
            f"{row['memory_ratio']:.3f} of {row['plain_bytes'] / 2**20:.0f} MiB, held {row['held_bytes'] / 2**20:.2f}",
            flush=True,
        )
    return table


def _pair(bench: Bench, tune: str, regularizers: tuple[Any, ...], rounds: int) -> dict[str, Any]:
    order, pairs = random.Random(0), []
    with ExitStack() as stack:
        runners = [Ours(bench, tune, (), stack), Ours(bench, tune, regularizers, stack)]
        # Penalties on spectra first learn the data's from some images: until then they cost less.
        for number in range(-_learning(bench.config.training.batch_size), rounds):
            taken = [0.0, 0.0]
            for which in order.sample((0, 1), 2):
                taken[which] = timed(runners[which].step, bench.device)
            if number >= 0:
                pairs.append(taken)
        plain_bytes, its_bytes = (peak(runner.step, bench.device) for runner in runners)
        held = runners[1].held()
    ratios = [with_it / plain for plain, with_it in pairs]
    return {
        "plain_ms": 1e3 * statistics.median(plain for plain, _ in pairs),
        "ratio": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
        "plain_bytes": plain_bytes,
        "memory_ratio": its_bytes / plain_bytes,
        "held_bytes": held,
    }


def _learning(batch: int) -> int:
    return max(3, -(-48 // batch))


class Script:
    """diffusers' text-to-image training step, written as in its example."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.accelerator = bench, build_accelerator(bench.config.training)
        self.unet = bench.network().train().to(bench.device)
        if bench.config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.ema = EMAModel(self.unet.parameters())
        self.unet = self.accelerator.prepare(self.unet)
        # Both on one model, each with a state of its own.
        self.optimizers: dict[bool, Any] = {}
        for fused in (False, True):
            optimizer = torch.optim.AdamW(self.unet.parameters(), lr=1e-5, weight_decay=1e-2, fused=fused or None)
            self.optimizers[fused] = self.accelerator.prepare(optimizer, get_scheduler("constant", optimizer))
        self.ema.to(bench.device)
        size, dataset = bench.config.training.batch_size, bench.dataset
        cached = [{k: v for k, v in dataset[index].items() if k != "index"} for index in range(len(dataset))]
        self.images = self._loader(bench.images, size)
        self.latents = self._loader(cached, size)
        # Half precision for what is not trained, as the script has it.
        half = torch.bfloat16 if bench.config.training.precision == "bf16" else torch.float32
        self.vae = copy.deepcopy(bench.pipeline.vae).to(bench.device, half)
        self.text_encoder = copy.deepcopy(bench.pipeline.text_encoders[0]).to(bench.device, half)
        self.half = half

    def _loader(self, examples: list[dict[str, Tensor]], size: int) -> Any:
        def forever() -> Any:
            loader = self.accelerator.prepare(DataLoader(examples, size, shuffle=True, drop_last=True))
            while True:
                yield from loader

        return forever()

    def step(self, *, encode: bool = False, ema: bool = True, fused: bool = False) -> None:
        """Take one."""
        accelerator, unet, scheduler = self.accelerator, self.unet, self.bench.pipeline.scheduler
        batch, (optimizer, lr_scheduler) = next(self.images if encode else self.latents), self.optimizers[fused]
        with accelerator.accumulate(unet):
            if encode:
                latents = self.vae.encode(batch["pixel_values"].to(self.half)).latent_dist.sample()
                latents = latents * self.vae.config.scaling_factor
                encoder_hidden_states = self.text_encoder(batch["input_ids"], return_dict=False)[0]
            else:
                latents = batch["mean"] + batch["std"] * torch.randn_like(batch["mean"])
                encoder_hidden_states = batch["encoder_hidden_states"]
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, len(scheduler.alphas_cumprod), (len(latents),), device=latents.device)
            noisy_latents = scheduler.add_noise(latents, noise, timesteps)
            model_pred = unet(noisy_latents, timesteps, encoder_hidden_states, return_dict=False)[0]
            loss = F.mse_loss(model_pred.float(), noise.float(), reduction="mean")
            avg_loss = accelerator.gather(loss.repeat(len(latents))).mean()
            train_loss = avg_loss.item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            if ema:
                self.ema.step(unet.parameters())
            accelerator.log({"train_loss": train_loss})


class _EnoughError(Exception):
    """All steps are timed."""


def loop(bench: Bench, options: Any) -> dict[str, Any]:
    """Our loop's step and the script's, in turns."""
    script = Script(bench)
    others = {
        "script": partial(script.step, encode=True),
        "cached": script.step,
        "cached, no average": partial(script.step, ema=False),
        "cached, fused AdamW": partial(script.step, fused=True),
    }
    order, rounds, warmup = random.Random(0), [], 3
    began: list[float] = []

    def after_a_step(step: int, gradient: Any) -> None:
        _wait(bench.device)
        ours = time.perf_counter() - began[-1] if began else 0.0
        names = list(others)
        order.shuffle(names)
        taken = {name: timed(others[name], bench.device) for name in names}
        if step > warmup:
            rounds.append({"ours": ours, **taken})
        if len(rounds) == options.steps:
            raise _EnoughError
        _wait(bench.device)
        began.append(time.perf_counter())

    training = bench.config.training
    with tempfile.TemporaryDirectory() as folder, suppress(_EnoughError):
        train(bench.task("full"), training, Path(folder), build_accelerator(training), on_step=after_a_step)
    milliseconds = {name: 1e3 * statistics.median(each[name] for each in rounds) for name in rounds[0]}
    ratios = {f"ours / {name}": statistics.median(each["ours"] / each[name] for each in rounds) for name in others}
    means = {f"ours / {name}": sum(r["ours"] for r in rounds) / sum(r[name] for r in rounds) for name in others}
    print("\nstep, ms: " + "  ".join(f"{name} {value:.1f}" for name, value in milliseconds.items()))
    for name, ratio in ratios.items():
        goal = f"  goal: at most {GOALS[name]}" if name in GOALS else ""
        print(f"{name:30} median {ratio:.4f}, of the sums {means[name]:.4f}{goal}")
    return {"milliseconds": milliseconds, "ratios": ratios, "ratios of sums": means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=list(SCALES), default="small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15, help="steps of each regularizer that are timed")
    parser.add_argument("--steps", type=int, default=60, help="steps of each loop that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--only", nargs="+", help="parts of the names of the regularizers to time")
    parser.add_argument("--parts", nargs="+", choices=("regularizers", "loop"), default=("regularizers", "loop"))
    parser.add_argument("--quick", action="store_true", help="to see that it runs: few steps, nothing is kept")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.rounds, options.steps = 2, 1, 2
    torch.set_num_threads(options.threads)
    record: dict[str, Any] = {
        "benchmark": "stable_diffusion_step",
        **{name: getattr(options, name) for name in ("scale", "batch", "rounds", "steps", "threads", "precision")},
        "gradient_checkpointing": options.gradient_checkpointing,
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu",
        "goals": GOALS,
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = open_bench(options, Path(folder))
        record["parameters"] = sum(each.numel() for each in bench.pipeline.network.parameters())
        print(f"UNet of {record['parameters'] / 1e6:.1f}M parameters, batch {options.batch}, {record['device']}")
        if "loop" in options.parts:
            record["loop"] = loop(bench, options)
            gc.collect()
        if "regularizers" in options.parts:
            print("\nstep with / without, its range; most memory of a step with / without")
            record["regularizers"] = beside_plain(bench, "full", contenders(), options)
            record["regularizers on a LoRA"] = beside_plain(bench, "lora", adapted(), options)
    if not options.quick:
        runs.append_record(RESULTS, {**record, "environment": runs.environment()})


if __name__ == "__main__":
    main()
