"""What SpectralDecorrelation costs: its share of a U-Net's training step, beside two ways to compute the same.

Peers, in the same process and interleaved with ours: the formula computed literally (the double sum over pairs of
samples) and VICReg's covariance term written from its equations. Floor: the two matrix products that a covariance and
its gradient need, at the speed that this machine multiplies matrices of that shape.

Run `python benchmarks/decorrelation.py [repetitions]`; appends to benchmarks/results/decorrelation.jsonl.
"""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import torch
from diffusers import UNet2DModel
from torch import Tensor

from lsdr.layers.capture import capture
from lsdr.layers.select import select_outermost
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.runs import append_record, environment

RESULTS = Path(__file__).parent / "results" / "decorrelation.jsonl"
BATCH = 16
LAYERS = {"mid_block": "mid_block*", "all resnet blocks": "*resnets.*"}


def main(repetitions: int) -> None:
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    features = {name: layer_outputs(model, layers) for name, layers in LAYERS.items()}

    calls: dict[str, Callable[[], object]] = {"step": lambda: step(model)}
    for name, outputs in features.items():
        calls[f"step with penalty on {name}"] = lambda layers=LAYERS[name]: step(model, layers)
        calls[f"penalty alone on {name}"] = lambda outputs=outputs: penalty_alone(outputs)
        rows = [torch.randn(output.shape[1], output.numel() // output.shape[1]) for output in outputs]
        calls[f"floor on {name}"] = lambda rows=rows: floor(rows)
    # The peers, at two sizes: the bottleneck and the widest feature map.
    small, large = features["mid_block"][0], max(features["all resnet blocks"], key=Tensor.numel)
    for size, z in {"bottleneck": small, "widest": large}.items():
        calls[f"VICReg, {size}"] = lambda z=z: backward(vicreg_covariance, z)
        calls[f"ours as VICReg, {size}"] = lambda z=z: backward(ours(form="covariance"), z)
    calls["literal, bottleneck"] = lambda: backward(literal, small)
    calls["ours as literal, bottleneck"] = lambda: backward(ours(form="as_written", positions="inner_product"), small)
    agree(small)

    seconds = interleave(calls, repetitions)
    flops = {name: sum(covariance_flops(output) for output in outputs) for name, outputs in features.items()}
    ratios = {}
    for name in LAYERS:
        ratios[f"penalty on {name} / step"] = seconds[f"penalty alone on {name}"] / seconds["step"]
        ratios[f"step with penalty on {name} / step"] = seconds[f"step with penalty on {name}"] / seconds["step"]
        ratios[f"penalty on {name} / floor"] = seconds[f"penalty alone on {name}"] / seconds[f"floor on {name}"]
    ratios["literal / ours, bottleneck"] = seconds["literal, bottleneck"] / seconds["ours as literal, bottleneck"]
    for size in ("bottleneck", "widest"):
        ratios[f"VICReg / ours, {size}"] = seconds[f"VICReg, {size}"] / seconds[f"ours as VICReg, {size}"]

    for name, value in seconds.items():
        print(f"{name:45} {1e3 * value:10.2f} ms")
    for name, value in flops.items():
        rate = value / seconds[f"floor on {name}"]
        print(f"floor on {name}: {value / 1e9:.2f} GFLOP at {rate / 1e9:.0f} GFLOP/s")
    for name, value in ratios.items():
        print(f"{name:45} {value:10.4f}")
    shapes = {name: [list(output.shape) for output in outputs] for name, outputs in features.items()}
    append_record(RESULTS, {"environment": environment(), "threads": torch.get_num_threads(), "batch": BATCH,
                            "repetitions": repetitions, "features": shapes, "median_seconds": seconds, "flops": flops,
                            "ratios": ratios})  # fmt: skip


def interleave(calls: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Median seconds of each call; rounds over all of them, so that a busy moment hits everyone."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(repetitions + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if repetition:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def step(model: UNet2DModel, layers: str | None = None) -> None:
    """A training step without the optimiser, which is the same for all."""
    noisy, t = torch.randn(BATCH, 3, 32, 32), torch.randint(1000, (BATCH,))
    with ExitStack() as stack:
        regularizers = [SpectralDecorrelation(layers=layers)] if layers else []
        penalty = stack.enter_context(attach(model, *regularizers))
        model.zero_grad()
        (model(noisy, t).sample.square().mean() + penalty()).backward()


def layer_outputs(model: UNet2DModel, layers: str) -> list[Tensor]:
    """Outputs of the layers as leaves of a graph of their own."""
    outputs: list[Tensor] = []
    selected = select_outermost(model, layers)
    with torch.no_grad(), capture(model, selected, lambda name, module, output: outputs.append(output)):
        model(torch.randn(BATCH, 3, 32, 32), torch.randint(1000, (BATCH,)))
    return [output.requires_grad_() for output in outputs]


class Emit(torch.nn.Module):
    """A layer with a given output, so that the public penalty can be timed alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Give what came."""
        return x


def penalty_alone(outputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Forward and backward of the penalty from the features on."""
    model = torch.nn.ModuleList([Emit() for _ in outputs])
    with attach(model, SpectralDecorrelation(layers="*")) as penalty:
        for module, output in zip(model, outputs, strict=True):
            module(output)
        return torch.autograd.grad(penalty(), outputs)


def ours(**settings: str) -> Callable[[Tensor], Tensor]:
    def term(z: Tensor) -> Tensor:
        model = torch.nn.ModuleList([Emit()])
        with attach(model, SpectralDecorrelation(layers="*", weight=1.0, **settings)) as penalty:
            model[0](z)
            return penalty()

    return term


def backward(term: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(term(z), z)


def literal(z: Tensor) -> Tensor:
    """The formula letter by letter, with its sum over all pairs of samples."""
    z = z.flatten(2)
    n = len(z)
    same = sum(z[k] @ z[k].T for k in range(n)) / n
    pairs = sum(z[k] @ z[m].T for k in range(n) for m in range(n)) / n**2
    return (same - pairs).square().sum()


def vicreg_covariance(z: Tensor) -> Tensor:
    """VICReg's covariance term (eqs. 3 and 4 of arXiv:2105.04906), every position a row."""
    x = z.movedim(1, -1).flatten(0, -2)
    n, d = x.shape
    x = x - x.mean(dim=0)
    covariance = (x.T @ x) / (n - 1)
    off_diagonal = covariance.flatten()[:-1].view(d - 1, d + 1)[:, 1:]
    return off_diagonal.pow(2).sum() / d


def covariance_flops(z: Tensor) -> int:
    """Of the forward product and the backward product."""
    d, rows = z.shape[1], z.numel() // z.shape[1]
    return 2 * 2 * d * d * rows


def floor(matrices: list[Tensor]) -> None:
    """Those two products alone, on matrices that lie ready."""
    for rows in matrices:
        product = rows @ rows.T
        product @ rows


def agree(z: Tensor) -> None:
    """Only equal results are compared in time."""
    as_written = ours(form="as_written", positions="inner_product")
    torch.testing.assert_close(as_written(z), literal(z), rtol=1e-3, atol=0)
    n = z.numel() // z.shape[1]
    covariance = ours(form="covariance")(z) * (n / (n - 1)) ** 2
    torch.testing.assert_close(covariance, vicreg_covariance(z), rtol=1e-3, atol=0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
