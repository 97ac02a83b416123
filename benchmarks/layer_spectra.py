"""Spectra of all layers of the Stable Diffusion 1.5 UNet: brackets, full spectra and a tracking step, beside others'.

The 282 weight matrices (859.5 M parameters) have the shapes of the published configuration and random values: PyTorch's
default initialisation, which leaves no gap below the largest singular value and is the hardest case, or rows scaled by
a power law, closer to trained layers. All arms run in one process, in turns; ratios are medians over the rounds.

Peers: torch.linalg.svdvals of each layer; a Gram matrix and torch.linalg.eigvalsh of each layer, in float32;
WeightWatcher, if it is installed, on a few layers of middle size, beside our full spectra of the same. Floors: for a
tracking step reading all weights once; for brackets the same times the products that were needed.

Run `python benchmarks/layer_spectra.py [--layers 40] [--rounds 3] [--values power_law] [--skip-svd]`; appends to
benchmarks/results/layer_spectra.jsonl.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import mean, median

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from lsdr.linalg.dense import Dense
from lsdr.linalg.lanczos import lanczos
from lsdr.linalg.parallel import each_layer
from lsdr.linalg.singular_values import singular_values
from lsdr.runs import append_record, environment
from lsdr.spectrum import Spectrum
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.stable_rank import stable_rank

RESULTS = Path(__file__).parent / "results" / "layer_spectra.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, help="so many layers, spread over the network; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--values", choices=("random", "power_law"), default="random")
    parser.add_argument("--skip-svd", action="store_true", help="without svdvals, which takes minutes")
    options = parser.parse_args()

    weights = layers(options.layers, options.values)
    read = sum(weight.numel() * weight.itemsize for weight in weights.values())
    print(f"{len(weights)} layers, {sum(map(Tensor.numel, weights.values())) / 1e6:.1f} M parameters, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    found: dict[str, object] = {}
    arms = {name: keep(found, name, arm) for name, arm in arms_of(weights, options.skip_svd).items()}
    few = middle(weights)
    peers: dict[str, Callable[[], object]] = {}
    if watch := weightwatcher(few):
        peers = {"WeightWatcher, few layers": watch, "full spectra and ranks, few layers": lambda: full_spectra(few)}

    rounds = interleave(arms | peers, options.rounds)
    seconds = {name: median(times) for name, times in rounds.items()}
    brackets, spectra = found["brackets"], found["full spectra and ranks"]
    facts = facts_of(weights, brackets, spectra, found.get("svdvals"))
    steps = [int(spectrum.method.split()[1]) for spectrum in brackets.values()]
    products = sum(
        weight.numel() * weight.itemsize * count for weight, count in zip(by_size(weights).values(), steps, strict=True)
    )
    floors = {"read all weights once": seconds["read"], "brackets": products / read * seconds["read"]}
    ratios = {name: ratio(rounds, *pair) for name, pair in PAIRS.items() if set(pair) <= set(rounds)}
    ratios["brackets / floor"] = seconds["brackets"] / floors["brackets"]

    for name, value in seconds.items():
        print(f"{name:40} {1e3 * value:12.1f} ms")
    print(f"reading runs at {read / seconds['read'] / 1e9:.1f} GB/s; the floor of the brackets is "
          f"{1e3 * floors['brackets']:.0f} ms, {mean(steps):.1f} products a layer")  # fmt: skip
    for name, value in (ratios | facts).items():
        print(f"{name:60} {value:12.4g}")
    append_record(RESULTS, {"environment": environment(), "threads": torch.get_num_threads(), "values": options.values,
                            "layers": len(weights), "bytes": read, "rounds": options.rounds, "median_seconds": seconds,
                            "floors": floors, "ratios": ratios, "facts": facts})  # fmt: skip


# What is set beside what: numerator and denominator.
PAIRS = {
    "svdvals / brackets (goal: 40 or more)": ("svdvals", "brackets"),
    "svdvals / full spectra and ranks (goal: 12 or more)": ("svdvals", "full spectra and ranks"),
    "svdvals / Gram and eigvalsh": ("svdvals", "Gram and eigvalsh"),
    "Gram and eigvalsh / full spectra and ranks": ("Gram and eigvalsh", "full spectra and ranks"),
    "tracking step / read (goal: below 2)": ("tracking step", "read"),
    "eager power step / read": ("eager power step", "read"),
    "block-of-8 step / read": ("block-of-8 step", "read"),
    "WeightWatcher / full spectra, few layers": ("WeightWatcher, few layers", "full spectra and ranks, few layers"),
}


def layers(count: int | None, values: str) -> dict[str, Tensor]:
    """Weights of the published configuration, or of `count` of its layers."""
    with torch.device("meta"):
        model = UNet2DConditionModel(  # as in the model's repository; everything else is the class's default
            sample_size=64,
            cross_attention_dim=768,
            attention_head_dim=8,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
        )
    shapes = {name: parameter.shape for name, parameter in model.named_parameters() if parameter.ndim > 1}
    total = sum(parameter.numel() for parameter in model.parameters())
    if len(shapes) != 282 or round(total / 1e5) != 8595:
        raise RuntimeError(f"not the UNet of Stable Diffusion 1.5: {len(shapes)} layers, {total} parameters")
    names = list(shapes)
    if count:
        names = [names[i * len(names) // count] for i in range(count)]
    torch.manual_seed(0)
    weights = {}
    for name in names:
        weight = torch.empty(shapes[name])
        nn.init.kaiming_uniform_(weight, a=5**0.5)  # PyTorch's default
        if values == "power_law":
            weight *= torch.arange(1.0, len(weight) + 1).pow(-0.7).view(-1, *[1] * (weight.ndim - 1))
        weights[name] = weight
    return weights


def by_size(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The largest first, so that no thread is left with one at the end."""
    return dict(sorted(weights.items(), key=lambda item: -item[1].numel()))


def arms_of(weights: dict[str, Tensor], skip_svd: bool) -> dict[str, Callable[[], object]]:
    """Everything that is timed on all layers."""
    matrices = {name: weight.flatten(1) for name, weight in weights.items()}
    starts = {name: torch.randn(matrix.shape[1]) for name, matrix in matrices.items()}
    blocks = {name: torch.randn(matrix.shape[1], 8) for name, matrix in matrices.items()}
    tracker = import_module("lsdr.linalg.tracking").Tracker(weights)
    tracker.update()  # cold, which is the brackets' arm
    arms: dict[str, Callable[[], object]] = {
        "read": lambda: list(each_layer(torch.sum, by_size(matrices).values())),
        "tracking step": tracker.update,
        "eager power step": lambda: [power_step(matrix, starts[name]) for name, matrix in matrices.items()],
        "block-of-8 step": lambda: [matrix.mT @ (matrix @ blocks[name]) for name, matrix in matrices.items()],
        "brackets": lambda: brackets(weights),
        "full spectra and ranks": lambda: full_spectra(weights),
        "Gram and eigvalsh": lambda: [gram_and_eigenvalues(matrix) for matrix in matrices.values()],
        "svdvals": lambda: {name: torch.linalg.svdvals(matrix) for name, matrix in matrices.items()},
    }
    if skip_svd:
        del arms["svdvals"]
    return arms


def brackets(weights: dict[str, Tensor]) -> dict[str, Spectrum]:
    """The largest singular value of every layer within 1%, from cold."""
    ordered = by_size(weights)

    def measure(numbered: tuple[int, Tensor]) -> Spectrum:
        seed, weight = numbered
        return lanczos(Dense(weight), tolerance=0.01, generator=torch.Generator().manual_seed(seed))

    return dict(zip(ordered, each_layer(measure, enumerate(ordered.values())), strict=True))


def full_spectra(weights: dict[str, Tensor]) -> dict[str, tuple[Spectrum, float, float]]:
    """All singular values of every layer with bounds, and their effective and stable ranks."""
    ordered = by_size(weights)

    def measure(weight: Tensor) -> tuple[Spectrum, float, float]:
        spectrum = singular_values(weight.flatten(1), "float32")
        return spectrum, float(effective_rank(spectrum)), float(stable_rank(spectrum))

    return dict(zip(ordered, each_layer(measure, ordered.values()), strict=True))


def power_step(matrix: Tensor, v: Tensor) -> Tensor:
    """As it is mostly written."""
    z = matrix.mT @ (matrix @ v)
    return z / z.norm()


def gram_and_eigenvalues(matrix: Tensor) -> Tensor:
    """The usual short cut, without bounds."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    return torch.linalg.eigvalsh(wide @ wide.mT).clamp_min(0).sqrt()


def middle(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A few layers of middle size."""
    ordered = sorted(weights.items(), key=lambda item: item[1].numel())
    return dict(ordered[len(ordered) // 2 - 2 : len(ordered) // 2 + 2])


def weightwatcher(weights: dict[str, Tensor]) -> Callable[[], object] | None:
    """Its analysis of linear layers with these weights, by its accurate SVD (without CUDA its fast one is the same)."""
    try:
        package = import_module("weightwatcher")
    except ImportError as error:
        print(f"WeightWatcher is not timed: {error}")
        return None
    logging.getLogger("weightwatcher").setLevel(logging.ERROR)
    linear = [nn.Linear(weight.flatten(1).shape[1], len(weight), bias=False) for weight in weights.values()]
    for module, weight in zip(linear, weights.values(), strict=True):
        module.weight = nn.Parameter(weight.flatten(1))
    print(f"WeightWatcher {package.__version__} is timed on {len(linear)} layers as linear ones: "
          f"{[list(module.weight.shape) for module in linear]}, analyze() with its accurate SVD and no plots; "
          "it fits a power law besides")  # fmt: skip

    def analyze() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            watcher = package.WeightWatcher(model=nn.Sequential(*linear), log_level=logging.ERROR)
            return watcher.analyze(svd_method="accurate", plot=False, savefig=False)

    return analyze


def keep(found: dict[str, object], name: str, call: Callable[[], object]) -> Callable[[], None]:
    def kept() -> None:
        found[name] = call()

    return kept


def interleave(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call; rounds over all of them, so that a busy moment hits everyone."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            short = name in ("read", "tracking step", "eager power step", "block-of-8 step")
            repeats = []
            for _ in range(3 if short else 1):
                start = time.perf_counter()
                call()
                repeats.append(time.perf_counter() - start)
            times[name].append(median(repeats))
    return times


def ratio(times: dict[str, list[float]], numerator: str, denominator: str) -> float:
    return median(a / b for a, b in zip(times[numerator], times[denominator], strict=True))


def facts_of(
    weights: dict[str, Tensor],
    found: dict[str, Spectrum],
    spectra: dict[str, tuple[Spectrum, float, float]],
    exact: dict[str, Tensor] | None,
) -> dict[str, float]:
    """Whether what was timed is right. Bounds are compared with values of an SVD in float32, good to 1e-5."""
    widths = [float(spectrum.upper / spectrum.lower - 1) for spectrum in found.values()]
    facts = {
        "largest relative width of a bracket": max(widths),
        "brackets wider than 1%": sum(w > 0.01 for w in widths),
    }
    against = "svdvals" if exact else "our full spectra"
    outside = wrong = 0
    widest = 0.0
    for name in weights:
        full = spectra[name][0]
        top = float(exact[name][0] if exact else full.values[0])
        outside += not float(found[name].lower) * (1 - 1e-5) <= top <= float(found[name].upper) * (1 + 1e-5)
        widest = max(widest, float(full.upper[0] / full.lower[0] - 1))
        if exact:
            allowance = 1e-5 * top
            wrong += bool(((exact[name] < full.lower - allowance) | (exact[name] > full.upper + allowance)).any())
    facts[f"brackets that do not contain the largest value of {against}"] = outside
    facts["largest relative width of a full spectrum's first value"] = widest
    if exact:
        facts["full spectra with bounds that svdvals violate"] = wrong
    return facts


if __name__ == "__main__":
    main()
