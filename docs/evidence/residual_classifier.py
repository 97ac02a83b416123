"""Claims 1.1 to 1.3 on deep classifiers: `python docs/evidence/residual_classifier.py tune test`, then
`python docs/evidence/residual_tables.py`, which judges what they leave in docs/evidence/results/residual-*.json.

Data: scikit-learn's digits, 8x8 pixels scaled to mean 0 and variance 1; 500 to train on, 1297 held out, split anew by
each seed. Networks of width 64 with ReLU: *plain*, D hidden layers, a normalisation behind each; *residual*, D / 2
blocks x + f(x) with two layers in f, activations first, a normalisation at the start of each f. D = 4, 16, 64. Adam,
batches of 100, 150 steps, learning rate falling to zero as a cosine; weights as He et al. draw them.

Arms: `none`; `standardize` (`ActivationStandardization`: what the transcript describes); `spectral_normalization` (what
it is called: each layer of a plain network held at or under a bound; each residual block under a bound); and for
comparison `batch` (batch norm), `magnitude_preserving` and, in residual networks, `fixup`.

Tuning: every arm gets six settings at each depth on seeds 100 and 101 (at D = 64 on 100 alone), and keeps the one with
which most seeds train and, of these, held-out accuracy is highest: six learning rates, 1e-4 to 3e-2; or, for spectral
normalization, three of them (3e-4, 3e-3, 3e-2) with two bounds (1 and 2 a layer; 1.5 and 3 a block). Rates are relative
to the initial weights' root mean square: with weights of size one (magnitude_preserving) they are sqrt(width / 2) times
as large. Test: seeds 0 to 9.

The rule, written before the runs
---------------------------------
A run *trains* if it stays finite and ends with a training accuracy (in evaluation mode) of 90 % or more. It *diverges*
if it does not stay finite or ends with a training loss above chance, ln 10. Each measure is taken of `standardize` less
`none`, seed by seed, in both kinds of network; the interval is the 95 % bootstrap interval of the median (of a share:
of the mean). **supported**: the interval lies on the claimed side of zero, and the median (mean) is at least the least
effect. **worse**: the interval lies on the other side. **not supported**: it excludes the least effect in the claimed
direction. **nothing to improve**: neither arm ever fails by the measure. **undecided**: otherwise. A claim is supported
if a part is and none is worse; not supported if all parts that could be improved are not or are worse; else it is
mixed, and the parts are shown. The other arms are marked in the same way (+, -, =, ?): no verdict on the claim.

1.1 *Stabilises training*: (a) the deepest D at which the run trains, log2; more; least effect 1. (b) the share of the
six learning rates with which it does not train at D = 16; less; least effect 0.1. (c) the largest of the six with which
it trains at D = 16, log2 (one step of the grid below the least if it never does); more; least effect 1.
1.2 *Prevents overfitting, improves results on new data*: at the deepest D at which `none` trains in eight seeds of ten,
and at D = 4, tuned: (a) held-out accuracy at the end; more; least effect 0.005. (b) generalisation gap, held-out less
training loss, where training loss first passes 0.1 (between evaluations every 15 steps, linear in the loss's
logarithm); less; least effect 0.02.
1.3 *Neither too large nor too small*: the root mean square of what each hidden layer takes in, from the first
evaluation to the last, at D = 16 and 64: the largest |log10| of its ratio to that of the first layer's; less; least
effect 0.3 (a factor of two). Standardised networks fulfil this nearly by construction: the arm shows what that buys.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lsdr.gan.fixup import fixup_
from lsdr.gan.magnitude_preserving import (
    AppendOne,
    activation_gain,
    magnitude_preserving,
    magnitude_preserving_sum,
)
from lsdr.layers.capture import capture
from lsdr.regularizers.activation_standardization import ActivationStandardization
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_normalization import SpectralNormalization
from lsdr.runs import environment, read_json

RESULTS = Path(__file__).parent / "results"
WIDTH, TRAIN, BATCH, STEPS, EVERY = 64, 500, 100, 150, 15
DEPTHS = (4, 16, 64)
SWEPT = 16
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
ARMS = ("none", "standardize", "spectral_normalization", "batch", "magnitude_preserving", "fixup")
BOUNDS = {"plain": (1.0, 2.0), "residual": (1.5, 3.0)}
TUNING, SEEDS = (100, 101), tuple(range(10))
MATCHED = 0.1


class Block(nn.Module):
    """x + f(x), or their magnitude-preserving sum."""

    def __init__(self, branch: nn.Module, preserving: bool):
        super().__init__()
        self.branch, self.preserving = branch, preserving

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return magnitude_preserving_sum(x, self.branch(x), 0.3) if self.preserving else x + self.branch(x)


def network(kind: str, depth: int, arm: str) -> nn.Sequential:
    """A classifier with `depth` hidden layers."""
    preserving = arm == "magnitude_preserving"

    def linear(inputs: int, outputs: int, gain: float, last: bool = False) -> nn.Module:
        layer = nn.Linear(inputs + preserving * (inputs == 64 and gain == 1.0), outputs, bias=not preserving)
        if preserving:
            return magnitude_preserving(layer, gain, learned=last)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if gain == 1.0 or last else "relu")
        nn.init.zeros_(layer.bias)
        return layer

    def norm() -> list[nn.Module]:
        if arm == "batch":
            return [nn.BatchNorm1d(WIDTH)]
        return [ActivationStandardization()] if arm == "standardize" else []

    relu = activation_gain(0.0)
    layers = [*([AppendOne()] if preserving else []), linear(64, WIDTH, 1.0)]
    if kind == "plain":
        for _ in range(depth - 1):
            layers += [*norm(), nn.ReLU(), linear(WIDTH, WIDTH, relu)]
    else:
        for _ in range(depth // 2):
            branch = [*norm(), nn.ReLU(), linear(WIDTH, WIDTH, relu), nn.ReLU(), linear(WIDTH, WIDTH, relu)]
            layers.append(Block(nn.Sequential(*branch), preserving))
    model = nn.Sequential(*layers, *norm(), nn.ReLU(), linear(WIDTH, 10, relu, last=True))
    if arm == "fixup":  # its last layers are better without biases, see `fixup_`
        for block in model:
            if isinstance(block, Block):
                block.branch[-1].bias = None
        fixup_(model, "*.branch")
    return model


def regularizers(kind: str, model: nn.Sequential, bound: float | None) -> tuple[SpectralNormalization, ...]:
    """The spectral control of an arm that has a bound."""
    if bound is None:
        return ()
    if kind == "residual":
        return (SpectralNormalization.residual(model, "*.branch", bound),)
    return (SpectralNormalization(bound=bound, types=(nn.Linear,)),)


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and held-out pictures with their labels."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x = torch.tensor((x - x.mean()) / x.std(), dtype=torch.float32)[order]
    y = torch.tensor(y)[order]
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


@torch.no_grad()
def evaluate(model: nn.Sequential, x: Tensor, y: Tensor) -> tuple[float, float, list[float]]:
    """Loss, accuracy, and the root mean square of what each hidden layer takes in, in evaluation mode."""
    sizes: list[float] = []
    model.eval()
    activations = {name: each for name, each in model.named_modules() if isinstance(each, nn.ReLU)}
    with capture(model, activations, lambda name, module, output: sizes.append(float(output.square().mean().sqrt()))):
        logits = model(x)
    model.train()
    return float(F.cross_entropy(logits, y)), float((logits.argmax(1) == y).float().mean()), sizes


def spread(sizes: list[float]) -> float:
    """The largest |log10| of a layer's size over the first layer's; infinite sizes and zeros count as 1e38 to one."""
    ratios = [size / sizes[0] if sizes[0] > 0 else 0.0 for size in sizes]
    logs = [abs(math.log10(r)) if r > 0 and math.isfinite(r) else 38.0 for r in ratios]
    return max(logs)


def run(kind: str, depth: int, arm: str, lr: float, bound: float | None, seed: int) -> dict[str, Any]:
    """Train one network, and say what came out."""
    torch.manual_seed(seed)
    x, y, unseen, labels = digits(seed)
    model = network(kind, depth, arm)
    scale = math.sqrt(WIDTH / 2) if arm == "magnitude_preserving" else 1.0
    optimizer = torch.optim.Adam(model.parameters(), lr=lr * scale, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    batches = _batches(seed)
    curve: list[tuple[float, float]] = []
    widest, finite = 0.0, True
    with attach(model, *regularizers(kind, model, bound)) as penalty:
        for step in range(STEPS):
            chosen = next(batches)
            loss = F.cross_entropy(model(x[chosen]), y[chosen])
            if not bool(loss.isfinite()):
                finite = False
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            penalty.project_()
            schedule.step()
            if (step + 1) % EVERY == 0:
                trained, accuracy, sizes = evaluate(model, x, y)
                held_out, unseen_accuracy, _ = evaluate(model, unseen, labels)
                curve.append((trained, held_out))
                widest = max(widest, spread(sizes))
    if not finite or not math.isfinite(curve[-1][0]):
        return {"finite": False, "trains": False, "diverged": True, "spread": 38.0}
    return {
        "finite": True,
        "trains": accuracy >= 0.9,
        "diverged": curve[-1][0] > math.log(10),
        "train_accuracy": accuracy,
        "accuracy": unseen_accuracy,
        "train_loss": curve[-1][0],
        "heldout_loss": curve[-1][1],
        "gap": gap_at(curve),
        "spread": widest,
        "sizes": [round(size, 4) for size in sizes],
    }


def gap_at(curve: list[tuple[float, float]]) -> float | None:
    """Held-out less training loss where the training loss first passes the matched one; None if it never does."""
    for before, after in pairwise(curve):
        if before[0] > MATCHED >= after[0] > 0:
            share = math.log(before[0] / MATCHED) / math.log(before[0] / after[0])
            return before[1] + share * (after[1] - before[1]) - MATCHED
    return None


def _batches(seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(TRAIN, generator=generator).split(BATCH)


def settings(kind: str, arm: str) -> list[tuple[float, float | None]]:
    """The six settings of an arm."""
    if arm == "spectral_normalization":
        return [(rate, bound) for rate in RATES[1::2] for bound in BOUNDS[kind]]
    return [(rate, None) for rate in RATES]


def arms(kind: str) -> list[str]:
    """The arms that a kind of network can have."""
    return [arm for arm in ARMS if kind == "residual" or arm != "fixup"]


def tune(kind: str, arm: str) -> Iterator[tuple[str, Any]]:
    """The best setting of an arm at every depth, on seeds of its own."""
    for depth in DEPTHS:
        tried = []
        for lr, bound in settings(kind, arm):
            seeds = TUNING if depth < DEPTHS[-1] else TUNING[:1]
            runs = [run(kind, depth, arm, lr, bound, seed) for seed in seeds]
            accuracy = float(np.mean([each.get("accuracy", 0.0) for each in runs]))
            trained = sum(each["trains"] for each in runs)
            tried.append({"lr": lr, "bound": bound, "trained": trained, "accuracy": accuracy})
        best = max(tried, key=lambda each: (each["trained"], each["accuracy"]))
        yield f"{kind} {arm} {depth}", {"best": best, "tried": tried}


def test(kind: str, arm: str) -> Iterator[tuple[str, Any]]:
    """Tuned runs at every depth, and all learning rates at 16 layers."""
    tuned = read_json(RESULTS / "residual-tune.json")["found"]
    known: list[dict[str, Any]] = []
    for depth in DEPTHS:
        best = tuned[f"{kind} {arm} {depth}"]["best"]
        runs = [run(kind, depth, arm, best["lr"], best["bound"], seed) for seed in SEEDS]
        yield f"{kind} {arm} {depth}", runs
        known = runs if depth == SWEPT else known
    best = tuned[f"{kind} {arm} {SWEPT}"]["best"]
    yield (
        f"{kind} {arm} rates",
        [
            [
                (known[seed] if lr == best["lr"] else run(kind, SWEPT, arm, lr, best["bound"], seed))["trains"]
                for lr in RATES
            ]
            for seed in SEEDS
        ],
    )


def main() -> None:
    """Run stages, for all arms or some; what others have left stays."""
    stages = {"tune": tune, "test": test}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", choices=list(stages))
    parser.add_argument("--networks", nargs="+", choices=["plain", "residual"], default=["plain", "residual"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for stage in chosen.stages:
        began = time.process_time()
        found: dict[str, Any] = {}
        for kind in chosen.networks:
            for arm in [each for each in arms(kind) if each in chosen.arms]:
                for name, result in stages[stage](kind, arm):
                    found[name] = result
                    print(stage, name, flush=True)
        path = RESULTS / f"residual-{stage}.json"
        before = read_json(path) if path.exists() else {"seconds": 0.0, "found": {}}
        seconds = round(before["seconds"] + time.process_time() - began, 1)
        content = {"environment": environment(), "seconds": seconds, "found": before["found"] | found}
        path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
