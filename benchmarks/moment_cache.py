"""What the exact gradient of a large batch costs in micro-batches: the moment cache beside GradCache and one batch.

One step of VICReg on a small convolutional encoder, 4096 examples in two views, four ways that find the same gradient:

- `plain`: all rows in one forward pass, the loss from its paper;
- `moment_cache`: `Penalty.observe`, then chunk by chunk: sums over examples are kept, O(D^2);
- `grad_cache`: Gao et al. 2021 (arXiv:2101.06983), written out: the representations of all rows are kept, O(N D), the
  loss is differentiated by them, and each chunk runs again for its rows' part;
- and `chunks`, each chunk's own loss, which finds another gradient: what giving up exactness saves.

The floor is what every two-pass scheme needs: each chunk forward without a graph, then forward and backward for a
gradient that is known already. Times are of steps in turns, in an order drawn anew every round (on a CPU they are
processor time); a ratio is to the plain batch of the same round, its median, least and most over rounds are shown. Peak
memory is that of a process of its own, above what it held before the step (on a GPU the allocator's peak).
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsdr import runs
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_objective import SpectralObjective

RESULTS = Path(__file__).parent / "results" / "moment_cache.jsonl"
PLAIN, FLOOR = "plain", "floor"
# The same gradient, but for the order in which float32 is summed.
TOLERANCE = 1e-3
SCHEMES = (PLAIN, "moment_cache", "grad_cache", "chunks", FLOOR)


def encoder(width: int, dimensions: int) -> nn.Sequential:
    """A small convolutional encoder with a projector, without batch normalisation: that would join the chunks."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    projector = nn.Sequential(nn.Linear(4 * width, dimensions), nn.SiLU(), nn.Linear(dimensions, dimensions))
    return nn.Sequential(*layers, projector)


def vicreg(rows: Tensor) -> Tensor:
    """VICReg of two views of the same examples, from its paper, differentiated by autograd."""
    first, second = rows.chunk(2)
    loss = 25 * functional.mse_loss(first, second)
    for view in (first, second):
        centred = view - view.mean(0)
        covariance = centred.T @ centred / (len(view) - 1)
        variance = covariance.diagonal()
        loss = loss + 25 / 2 * functional.relu(1 - (variance + 1e-4).sqrt()).mean()
        loss = loss + (covariance.square().sum() - variance.square().sum()) / view.shape[1]
    return loss


def plain(model: nn.Sequential, chunks: list[Tensor]) -> None:
    """All rows at once."""
    views = [torch.cat(view) for view in zip(*(chunk.chunk(2) for chunk in chunks), strict=True)]
    vicreg(model(torch.cat(views))).backward()


def moment_cache(model: nn.Sequential, chunks: list[Tensor]) -> None:
    """Two passes, sums over examples between them."""
    with attach(model, SpectralObjective("vicreg", layers=str(len(model) - 1))) as penalty:
        with penalty.observe():
            for chunk in chunks:
                model(chunk)
        for chunk in chunks:
            model(chunk)
            penalty().backward()


def grad_cache(model: nn.Sequential, chunks: list[Tensor]) -> None:
    """Two passes, the representations of all rows and the loss's gradient by them in between."""
    with torch.no_grad():
        kept = [model(chunk).chunk(2) for chunk in chunks]
    leaves = [torch.cat(view).requires_grad_() for view in zip(*kept, strict=True)]
    vicreg(torch.cat(leaves)).backward()
    sizes = [len(chunk) // 2 for chunk in chunks]
    parts = [leaf.grad.split(sizes) for leaf in leaves if leaf.grad is not None]
    for chunk, *gradient in zip(chunks, *parts, strict=True):
        model(chunk).backward(torch.cat(gradient))


def own(model: nn.Sequential, chunks: list[Tensor]) -> None:
    """Each chunk's own loss: one pass, another gradient."""
    for chunk in chunks:
        (vicreg(model(chunk)) / len(chunks)).backward()


def floor(model: nn.Sequential, chunks: list[Tensor]) -> None:
    """Two passes, the gradient by the representations given."""
    with torch.no_grad():
        for chunk in chunks:
            model(chunk)
    for chunk in chunks:
        rows = model(chunk)
        rows.backward(rows.detach())


STEPS: dict[str, Callable[[nn.Sequential, list[Tensor]], None]] = dict(
    zip(SCHEMES, (plain, moment_cache, grad_cache, own, floor), strict=True)
)


class Bench:
    """One encoder and one batch, as both views of each chunk's examples."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = encoder(options.width, options.dimensions).to(self.device)
        shape = (options.batch, 3, options.size, options.size)
        first = torch.randn(shape, device=self.device)
        second = first + 0.3 * torch.randn(shape, device=self.device)
        cut = zip(first.split(options.chunk), second.split(options.chunk), strict=True)
        self.chunks = [torch.cat(views) for views in cut]

    def step(self, scheme: str) -> float:
        """One gradient; its seconds, on a CPU those of the processor, which other programs do not lengthen."""
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        self.model.zero_grad()
        self._synchronize()
        start = clock()
        STEPS[scheme](self.model, self.chunks)
        self._synchronize()
        return clock() - start

    def gradient(self) -> Tensor:
        """The gradient of the step before."""
        return torch.cat([each.grad.flatten() for each in self.model.parameters() if each.grad is not None])

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def memory(scheme: str, options: argparse.Namespace) -> float:
    """Peak MiB of a step above what was held before, in this process, which must do nothing else."""
    bench = Bench(options)
    whole, bench.chunks = bench.chunks, [chunk[:4] for chunk in bench.chunks[:2]]
    bench.step(scheme)  # what it needs is loaded, gradients are allocated
    bench.chunks = whole
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        bench.step(scheme)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bench.step(scheme)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def memory_of(scheme: str, options: argparse.Namespace) -> float:
    """The same in a process of its own."""
    numbers = ("batch", "chunk", "size", "width", "dimensions", "threads")
    flags = [word for name in numbers for word in (f"--{name}", str(getattr(options, name)))]
    command = [sys.executable, __file__, "--memory-of", scheme, *flags]
    found: float = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def measure(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every step by scheme, and how far each scheme's gradient is from the plain batch's, relatively."""
    bench, order = Bench(options), random.Random(0)
    bench.step(PLAIN)
    expected, differences = bench.gradient(), {}
    for scheme in SCHEMES:
        bench.step(scheme)
        if scheme != FLOOR:
            differences[scheme] = float((bench.gradient() - expected).norm() / expected.norm())
    seconds: dict[str, list[float]] = {scheme: [] for scheme in SCHEMES}
    for _ in range(options.rounds):
        turn = list(SCHEMES)
        order.shuffle(turn)
        for scheme in turn:
            seconds[scheme].append(bench.step(scheme))
    return seconds, differences


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=256, help="examples of a chunk")
    parser.add_argument("--size", type=int, default=16, help="pixels of a side")
    parser.add_argument("--width", type=int, default=32, help="channels of the first layer")
    parser.add_argument("--dimensions", type=int, default=256, help="of the representation")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-of", choices=SCHEMES, help="print this scheme's peak MiB and nothing else")
    parser.add_argument("--quick", action="store_true", help="to see that it runs: a small batch, nothing is kept")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.chunk, options.size, options.dimensions, options.rounds = 64, 16, 8, 32, 2
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(memory(options.memory_of, options))
        return
    peaks = {scheme: memory_of(scheme, options) for scheme in SCHEMES}
    seconds, differences = measure(options)

    base = seconds[PLAIN]
    ratios = {name: [one / whole for one, whole in zip(each, base, strict=True)] for name, each in seconds.items()}
    least = [one / whole for one, whole in zip(seconds["moment_cache"], seconds[FLOOR], strict=True)]
    beside = [one / whole for one, whole in zip(seconds["moment_cache"], seconds["grad_cache"], strict=True)]
    print(f"plain step of {options.batch} examples in two views: {statistics.median(base):.2f} s")
    print(f"{'step / plain step':14} {'median':>7} {'least':>7} {'most':>7} {'peak MiB':>9} {'gradient off by':>16}")
    for name, each in ratios.items():
        off = f"{differences[name]:.1e}" if name in differences else ""
        print(
            f"{name:14} {statistics.median(each):7.3f} {min(each):7.3f} {max(each):7.3f} {peaks[name]:9.0f} {off:>16}"
        )
    print(f"moment cache / floor {statistics.median(least):.3f}, / GradCache {statistics.median(beside):.3f}")
    # Between the passes: rows and their gradient in both views; or covariances and their gradient in both.
    kept = {
        "grad_cache": 2 * 2 * options.batch * options.dimensions * 4 / 2**20,
        "moment_cache": 2 * 2 * options.dimensions**2 * 4 / 2**20,
    }
    print(f"kept between the passes: {kept['moment_cache']:.1f} MiB, GradCache {kept['grad_cache']:.1f} MiB")
    wrong = {name for name in ("moment_cache", "grad_cache") if differences[name] > TOLERANCE}
    if wrong:
        raise SystemExit(f"not the gradient of the whole batch: {differences}")
    record = {
        "benchmark": "moment_cache",
        **{name: getattr(options, name) for name in ("batch", "chunk", "size", "width", "dimensions", "rounds")},
        "threads": options.threads,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "plain_seconds": statistics.median(base),
        "ratios": {name: statistics.median(each) for name, each in ratios.items()},
        "range": {name: [min(each), max(each)] for name, each in ratios.items()},
        "moment_cache / floor": statistics.median(least),
        "moment_cache / grad_cache": statistics.median(beside),
        "peak_mib": peaks,
        "kept_mib": kept,
        "gradient_difference": differences,
        "environment": runs.environment(),
    }
    if not options.quick:
        runs.append_record(RESULTS, record)


if __name__ == "__main__":
    main()
