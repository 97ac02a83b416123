"""What each arm of `lsdr compare gan` adds to a step of a residual GAN.

Copies of one GAN train on the same images in one process, step by step in turns (a step is a move of the discriminator
and one of the generator, with update and average), in an order drawn anew every round: the plain GAN (twice: the second
shows what the clock can tell apart), every arm that the model can have, and
`torch.nn.utils.parametrizations.spectral_norm` on every layer of both players, which is what one would use without us.
A ratio is a step over the plain step of the same round; shown are its median, least and most over rounds. Arms that
change the model's normalisation are compared with the plain GAN too: one that leaves batch normalisation out may be
below 1.

Goal: `spectral_noise`, spectral control and adaptive noise together, under 1.1.
"""

import argparse
import random
import statistics
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from lsdr import runs
from lsdr.experiments.gan_methods import GAN_METHODS
from lsdr.gan.build import Data, build_task, load_data
from lsdr.gan.config import GanConfig
from lsdr.training.config import TrainingConfig
from lsdr.training.stepper import Stepper, build_accelerator, open_stepper

RESULTS = Path(__file__).parent / "results" / "gan_step.jsonl"
GOALS = {"spectral_noise": 1.1}
PLAIN, AGAIN, PEER = "baseline", "baseline again", "peer: torch's spectral_norm"
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def stepper_of(name: str, config: GanConfig, data: Data, stack: ExitStack) -> Stepper:
    """A GAN of its own, with equal initial weights, ready to step."""
    arm = GAN_METHODS[PLAIN if name in (AGAIN, PEER) else name]
    configured = arm.configure(config)
    training: TrainingConfig = configured.training
    accelerator = build_accelerator(training)
    torch.manual_seed(0)
    task = build_task(configured, data, accelerator.device)
    if name == PEER:
        for module in list(task.model.modules()):
            if isinstance(module, LAYERS):
                spectral_norm(module)
    return stack.enter_context(open_stepper(task, training, accelerator, arm.build()))


def step(stepper: Stepper, data: Data, number: int, batch: int) -> float:
    """One step of the game; its seconds."""
    drawn = torch.randint(len(data.train), (batch,), generator=torch.Generator().manual_seed(number))  # type: ignore[arg-type]
    examples = data.train.__getitems__(drawn.tolist())  # type: ignore[attr-defined]
    _synchronize()
    start = time.perf_counter()
    for turn in stepper.turns:
        gradient = stepper.gradient(number, examples, turn)
        stepper.update(number, gradient, turn)
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(names: list[str], config: GanConfig, rounds: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of every step, and of the arms that the model cannot have the reason."""
    data, order = load_data(config), random.Random(0)
    seconds: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        steppers = {}
        for name in names:
            try:
                steppers[name] = stepper_of(name, config, data, stack)
                seconds[name] = []
            except ValueError as error:
                failed[name] = str(error)
        for number in range(-3, rounds):  # three to warm up
            turn = list(steppers)
            order.shuffle(turn)
            for name in turn:
                taken = step(steppers[name], data, number + 3, config.training.batch_size)
                if number >= 0:
                    seconds[name].append(taken)
    return seconds, failed


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet-tiny")
    parser.add_argument("--data", default="patches")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", help="parts of the names of those to time; the plain GAN always runs")
    parser.add_argument("--quick", action="store_true", help="to see that it runs: a small batch, nothing is kept")
    options = parser.parse_args()
    if options.quick:
        options.size, options.batch, options.rounds = 16, 4, 2
    torch.set_num_threads(options.threads)
    wanted = (*options.only, PLAIN) if options.only else ("",)
    everyone = [PLAIN, AGAIN, *(each for each in GAN_METHODS if each not in (PLAIN, "options")), PEER]
    names = [each for each in everyone if any(part in each for part in wanted)]
    points = options.data in ("ring", "grid")
    training = replace(GanConfig().training, batch_size=options.batch, trackers=())
    size = None if points else options.size
    config = GanConfig(data=options.data, size=size, model=options.model, training=training)
    seconds, failed = measure(names, config, options.rounds)

    plain = seconds[PLAIN]
    ratios = {name: [own / base for own, base in zip(each, plain, strict=True)] for name, each in seconds.items()}
    print(f"plain step of {options.model}, batch {options.batch}: {1e3 * statistics.median(plain):.1f} ms")
    print(f"{'step / plain step':40} {'median':>7} {'least':>7} {'most':>7}  goal")
    for name, each in ratios.items():
        goal = f"{GOALS[name]:.2f}" if name in GOALS else ""
        print(f"{name:40} {statistics.median(each):7.3f} {min(each):7.3f} {max(each):7.3f}  {goal}")
    for name, reason in failed.items():
        print(f"{name:40} not with this model: {reason}")
    record: dict[str, Any] = {
        "benchmark": "gan_step",
        **{name: getattr(options, name) for name in ("model", "data", "size", "batch", "rounds", "threads")},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "plain_ms": 1e3 * statistics.median(plain),
        "ratios": {name: statistics.median(each) for name, each in ratios.items()},
        "range": {name: [min(each), max(each)] for name, each in ratios.items()},
        "failed": failed,
        "goals": GOALS,
        "environment": runs.environment(),
    }
    if not options.quick:
        runs.append_record(RESULTS, record)


if __name__ == "__main__":
    main()
