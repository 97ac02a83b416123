"""How much of a training step each objective takes.

Copies of one encoder train on the same examples in one process, step by step in turns, in an order drawn anew every
round: with every objective of ours, with VICReg and Barlow Twins as they are published (of the batch's rows, as lightly
and solo-learn have them), and plainly: two views, forward, backward from the mean square of the projector's output,
update, average. Beside that, in the same rounds, what the objective alone takes, forward and backward, on that output.

The share is the objective alone over the whole step, its median, least and most over rounds; the ratio is the step over
the plain step of the same round, which the clock tells apart by a few percent only (see `plain again`).

Goal: a share under 5 % for every objective of ours.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsdr import runs
from lsdr.layers.capture import capture
from lsdr.regularizers.attach import attach
from lsdr.regularizers.objectives.catalogue import OBJECTIVES
from lsdr.regularizers.spectral_objective import SpectralObjective
from lsdr.representation.build import build_task, load
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.objectives.sim_clr import sim_clr
from lsdr.training.stepper import Stepper, build_accelerator, open_stepper

RESULTS = Path(__file__).parent / "results" / "representation_step.jsonl"
GOAL = 0.05
PLAIN, AGAIN = "plain", "plain again"
Loss = Callable[[Tensor, Tensor], Tensor]


def published_vicreg(a: Tensor, b: Tensor) -> Tensor:
    """Bardes et al. 2021 (arXiv:2105.04906), algorithm 1, with the half that the authors' code has."""
    variance, covariance = torch.zeros(()), torch.zeros(())
    for z in (a, b):
        centred = z - z.mean(0)
        c = centred.T @ centred / (len(z) - 1)
        variance = variance + (1 - (z.var(0) + 1e-4).sqrt()).relu().mean() / 2
        covariance = covariance + (c - c.diagonal().diag()).square().sum() / z.shape[1]
    return 25 * (a - b).square().mean() + 25 * variance + covariance


def published_barlow_twins(a: Tensor, b: Tensor) -> Tensor:
    """Zbontar et al. 2021 (arXiv:2103.03230), algorithm 1."""
    a, b = (nn.functional.batch_norm(z, None, None, training=True) for z in (a, b))
    correlation = a.T @ b / len(a)
    diagonal = correlation.diagonal()
    off_diagonal = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + 0.0051 * off_diagonal


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Something to differentiate that costs nothing."""
    return a.square().mean() + b.square().mean()


LOSSES: dict[str, Loss] = {
    PLAIN: mean_square,
    AGAIN: mean_square,
    "sim_clr": lambda a, b: sim_clr(a, b).mean(),
    "peer: VICReg of rows": published_vicreg,
    "peer: Barlow Twins of rows": published_barlow_twins,
}


@dataclass
class RowsTerm:
    """A loss of the projector's output as a term."""

    loss: Loss
    output: Tensor | None = None
    values: Mapping[str, Tensor] | None = None

    def __call__(self, **context: Any) -> Tensor:
        """Give the loss of the last forward."""
        assert self.output is not None
        (a, b), self.output = self.output.chunk(2), None
        return self.loss(a, b)

    def observed(self) -> int:
        """Nothing: batches are whole here."""
        return 0

    def forget(self) -> None:
        """Let go of the output."""
        self.output = None


@dataclass(frozen=True)
class OfRows:
    """A loss of the projector's output as a regularizer."""

    loss: Loss

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[RowsTerm]:
        """Watch the projector."""
        term = RowsTerm(self.loss, values={})

        def receive(name: str, module: nn.Module, output: Tensor) -> None:
            term.output = output

        with capture(model, "projector", receive):
            yield term

    def project_(self, model: nn.Module) -> None:
        """Impose nothing."""


def regularizer_of(name: str) -> Any:
    return OfRows(LOSSES[name]) if name in LOSSES else SpectralObjective(objective=name, layers="projector")


def step(stepper: Stepper, data: RepresentationData, number: int, batch: int) -> float:
    """Seconds of one step, reading left out."""
    drawn = torch.randint(len(data.train), (batch,), generator=torch.Generator().manual_seed(number))  # type: ignore[arg-type]
    examples = data.train.__getitems__(drawn.tolist())  # type: ignore[attr-defined]
    start = _now()
    stepper.update(number, stepper.gradient(number, examples))
    return _now() - start


def alone(name: str, output: Tensor) -> float:
    """Seconds of the objective, forward and backward, on what the projector gave."""
    model = nn.Module()
    model.projector = nn.Identity()
    with attach(model, regularizer_of(name)) as penalty:
        z = output.clone().requires_grad_()
        model.projector(z)
        start = _now()
        penalty().backward()
        return _now() - start


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()  # which other programs disturb less
    return time.perf_counter()


def measure(names: list[str], config: RepresentationConfig, rounds: int) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Seconds of every step, and of every objective alone, by name; and the projector's width."""
    data, order, training = load(config), random.Random(0), config.training
    steps: dict[str, list[float]] = {name: [] for name in names}
    own: dict[str, list[float]] = {name: [] for name in names}
    accelerator = build_accelerator(training)
    with ExitStack() as stack:
        steppers = {}
        for name in names:
            torch.manual_seed(0)
            task = build_task(config, data, accelerator.device)
            opened = open_stepper(task, training, accelerator, (regularizer_of(name),))
            steppers[name] = stack.enter_context(opened)
        plain: Any = steppers[PLAIN].task
        width = plain.model(plain.seen).shape[1]
        output = torch.randn(2 * training.batch_size, width, device=accelerator.device)
        for number in range(-3, rounds):  # three to warm up
            turn = list(names)
            order.shuffle(turn)
            for name in turn:
                taken, objective = step(steppers[name], data, number + 3, training.batch_size), alone(name, output)
                if number >= 0:
                    steps[name].append(taken)
                    own[name].append(objective)
    return steps, own, width


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--size", type=int, default=None, help="side of images in pixels; by default the data's own")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--projector", type=int, default=None, help="width; by default the model's")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="to see that it runs: a small batch, nothing is kept")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.rounds = 16, 2
    torch.set_num_threads(options.threads)
    ours = [*OBJECTIVES, "sim_clr"]
    names = [PLAIN, AGAIN, *ours, *(each for each in LOSSES if each.startswith("peer"))]
    config = RepresentationConfig(
        data=options.data, size=options.size, model=options.model, projector=options.projector
    )
    training = replace(config.training, batch_size=options.batch, trackers=())
    steps, own, width = measure(names, replace(config, training=training), options.rounds)

    def over(parts: list[float], wholes: list[float]) -> list[float]:
        return [part / whole for part, whole in zip(parts, wholes, strict=True)]

    shares = {name: over(own[name], steps[name]) for name in names}
    ratios = {name: over(steps[name], steps[PLAIN]) for name in names}
    plain = 1e3 * statistics.median(steps[PLAIN])
    print(f"plain step on {options.data}, batch {options.batch}, width {width}: {plain:.1f} ms")
    print(f"{'':32} {'share':>7} {'least':>7} {'most':>7} {'ms':>7} {'step / plain':>13}  goal {GOAL:.0%}")
    for name, each in shares.items():
        met = "" if name not in ours else "met" if statistics.median(each) < GOAL else "missed"
        spread = f"{statistics.median(each):7.2%} {min(each):7.2%} {max(each):7.2%}"
        alone_ms, ratio = 1e3 * statistics.median(own[name]), statistics.median(ratios[name])
        print(f"{name:32} {spread} {alone_ms:7.2f} {ratio:13.3f}  {met}")
    if not options.quick:
        record: dict[str, Any] = {
            "benchmark": "representation_step",
            **{name: getattr(options, name) for name in ("data", "size", "model", "batch", "rounds", "threads")},
            "width": width,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "plain_ms": plain,
            "shares": {name: statistics.median(each) for name, each in shares.items()},
            "range": {name: [min(each), max(each)] for name, each in shares.items()},
            "ratios": {name: statistics.median(each) for name, each in ratios.items()},
            "goal": GOAL,
            "environment": runs.environment(),
        }
        runs.append_record(RESULTS, record)


if __name__ == "__main__":
    main()
