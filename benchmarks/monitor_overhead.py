"""What the default monitor costs a training step, beside torch's spectral norm of the same layers.

Three copies of one U-Net train on the same data in one process, step by step in turns: bare, watched by
`lsdr.Monitor(model)`, and with `torch.nn.utils.parametrizations.spectral_norm` on every linear and convolutional layer,
which also keeps a singular vector of each and makes one power iteration a step. Beside the measured ratios stands the
share that the monitor reports of itself. Goal: under 1% of the step.
"""

import argparse
import copy
import itertools
import random
import statistics
import time
from pathlib import Path

import torch
from torch.nn.utils import parametrizations

from lsdr import runs
from lsdr.diffusion.models import build_model
from lsdr.monitor.monitor import Monitor
from lsdr.probes.weights import WEIGHTED


class Run:
    """A model in training; `step` takes one step and says how long it took."""

    def __init__(self, model, batch, size, device, monitor=None):
        self.model, self.batch, self.size, self.device, self.monitor = model, batch, size, device, monitor
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(self, number):
        """Take a step on the data of this number; seconds."""
        generator = torch.Generator(self.device).manual_seed(number)
        noisy = torch.randn(self.batch, 3, self.size, self.size, device=self.device, generator=generator)
        t = torch.rand(self.batch, device=self.device, generator=generator)
        wait(self.device)
        start = time.perf_counter()
        if self.monitor is None:
            self.work(noisy, t)
        else:
            with self.monitor.at(number):
                self.work(noisy, t)
        wait(self.device)
        return time.perf_counter() - start

    def work(self, noisy, t):
        """Forward, backward and update."""
        self.model(noisy, t).sample.square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="unet-small")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--budget", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", action="store_true", help="append to the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    plain = build_model(options.model, channels=3, size=options.size).to(device)
    watched, normed = copy.deepcopy(plain), copy.deepcopy(plain)
    layers = [module for module in normed.modules() if isinstance(module, WEIGHTED)]
    for module in layers:
        if bool(module.weight.any()):  # a zero-initialised layer becomes nan under it
            parametrizations.spectral_norm(module)
    monitor = Monitor(watched, every=options.every, budget=options.budget)
    shape = (options.batch, options.size, device)
    all_runs = {
        "bare": Run(plain, *shape),
        "monitor": Run(watched, *shape, monitor),
        "spectral_norm": Run(normed, *shape),
    }
    seconds = {name: [] for name in all_runs}
    order = random.Random(0)
    for number in itertools.chain([-2, -1], range(options.steps)):  # two to warm up
        names = list(all_runs)
        order.shuffle(names)
        for name in names:
            taken = all_runs[name].step(number)
            if number >= 0:
                seconds[name].append(taken)
    for theirs, ours in zip(plain.parameters(), watched.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)  # watched and bare went the same way
    bare = statistics.median(seconds["bare"])
    turns = seconds["monitor"][:: options.every]
    # A turn is rare, so a median over all steps would not see it: what turns add is spread over the steps.
    added = sum(max(0.0, each - statistics.median(seconds["monitor"])) for each in turns)
    result = {
        "benchmark": "monitor_overhead",
        "model": options.model,
        "size": options.size,
        "batch": options.batch,
        "threads": options.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "steps": options.steps,
        "every": options.every,
        "budget": options.budget,
        "layers": len(monitor._units),
        "layers measured at least once": sum(1 for last in monitor._budget._last if last >= 0),
        **{f"{name}_ms": 1e3 * statistics.median(each) for name, each in seconds.items()},
        "monitor / bare, median step": statistics.median(seconds["monitor"]) / bare,
        "monitor, added by turns / bare": added / options.steps / bare,
        "monitor, share it reports": monitor.spent.share,
        "monitor, turns": monitor.spent.turns,
        "monitor, dearest turn in steps": max(each / bare for each in turns),
        "spectral_norm / bare, median step": statistics.median(seconds["spectral_norm"]) / bare,
        "goal": "monitor's share under 0.01",
    }
    for name, value in result.items():
        print(f"{name:36} {value:.5g}" if isinstance(value, float) else f"{name:36} {value}")
    if options.keep:
        path = Path(__file__).parent / "results" / "monitor_overhead.jsonl"
        runs.append_record(path, {**result, "environment": runs.environment()})


if __name__ == "__main__":
    main()
