"""Our training loop without a regularizer beside a bare PyTorch loop of the same model: what does the loop cost?

Both train the same UNet on the same images (in memory) with AdamW and an exponential moving average, in one process, in
turns. The bare loop is run twice: with torch's default AdamW, as it is mostly written, and with the fused one that our
loop uses. The floor is the faster of the two. Goal: within 2% of the default one.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from diffusers import UNet2DModel

from lsdr import runs
from lsdr.diffusion.build import build_task, load_data
from lsdr.diffusion.config import DiffusionConfig
from lsdr.training.config import TrainingConfig
from lsdr.training.loop import train
from lsdr.training.stepper import build_accelerator


def bare_loop(config, images, steps, fused):
    """EDM training as one would write it by hand; seconds of each step."""
    torch.manual_seed(0)
    task = build_task(config, load_data(config), torch.device("cpu"))
    model: UNet2DModel = task.model
    average = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.training.lr, betas=config.training.betas, weight_decay=0
    )
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        clean = images[torch.randint(len(images), (config.training.batch_size,))].float() / 127.5 - 1
        sigma = (torch.randn(len(clean)) * 1.2 - 1.2).exp().view(-1, 1, 1, 1)
        noisy = clean + sigma * torch.randn_like(clean)
        scale = (sigma**2 + 0.25).sqrt()
        output = model(noisy / scale, sigma.flatten().log() / 4).sample
        denoised = 0.25 / scale**2 * noisy + sigma * 0.5 / scale * output
        loss = ((sigma**-2 + 4) * (denoised - clean).square()).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, [parameter.detach() for parameter in model.parameters()], 0.01)
        seconds.append(time.perf_counter() - start)
    return seconds


def our_loop(config, data):
    """The same through lsdr; seconds of each step, whatever the loop does between them included."""
    torch.manual_seed(0)
    task = build_task(config, data, torch.device("cpu"))
    times = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        train(
            task,
            config.training,
            Path(folder),
            build_accelerator(config.training),
            on_step=lambda step, gradient: times.append(time.perf_counter()),
        )
    return [after - before for before, after in itertools.pairwise(times)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default="unet-tiny")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    never = 10**9
    config = DiffusionConfig(
        data="patches",
        model=options.model,
        training=TrainingConfig(
            steps=options.steps,
            batch_size=16,
            trackers=(),
            evaluate_every=never,
            sample_every=0,
            checkpoint_every=never,
        ),
    )
    data = load_data(config)
    images = data.train.__getitems__(range(len(data.train)))["image"]  # decoded once, for both
    bare_loop(config, images, 5, fused=False)  # warm up
    rounds = []
    for _ in range(options.rounds):
        # The first steps warm up; the last one of ours also writes the final files, which is not a step's work.
        plain = statistics.median(bare_loop(config, images, options.steps, fused=False)[5:-1])
        fused = statistics.median(bare_loop(config, images, options.steps, fused=True)[5:-1])
        ours = statistics.median(our_loop(config, data)[5:-1])
        rounds.append({"plain_ms": 1e3 * plain, "fused_ms": 1e3 * fused, "ours_ms": 1e3 * ours})
        print("  ".join(f"{name} {value:.2f}" for name, value in rounds[-1].items()))
    result = {
        "benchmark": "training_step",
        "model": options.model,
        "threads": options.threads,
        "steps": options.steps,
        **{name: statistics.median(each[name] for each in rounds) for name in rounds[0]},
        "ours / plain": statistics.median(each["ours_ms"] / each["plain_ms"] for each in rounds),
        "ours / fused": statistics.median(each["ours_ms"] / each["fused_ms"] for each in rounds),
        "goal": "ours / plain under 1.02",
    }
    for name in ("ours / plain", "ours / fused"):
        print(f"{name:14} {result[name]:.4f}")
    print(f"floor: {min(result['plain_ms'], result['fused_ms']):.2f} ms, the bare step")
    runs.append_record(
        Path(__file__).parent / "results" / "training_step.jsonl", {**result, "environment": runs.environment()}
    )


if __name__ == "__main__":
    main()
