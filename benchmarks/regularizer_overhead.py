"""What each penalty adds to a training step of a diffusers U-Net with attention, and how wrong its estimate is.

Copies of one U-Net train on the same data in one process, step by step in turns, in an order drawn anew every round:
plainly (twice: the second shows what the clock can tell apart), with each of our methods, and with the published ways
to penalise the Jacobian, written from their equations on the whole batch:

- the double backward pass of ||J'v||^2 (Hoffman et al. 2019, arXiv:1908.02729; Smooth Diffusion, arXiv:2312.04410,
  makes the same passes), which needs the unfused attention;
- ||Jv||^2 with a forward-mode product that carries the graph (with what torch 2.13 lacks for it from
  `lsdr.linalg.forward_mode`);
- ||Jv||^2 by one-sided finite differences.

A ratio is a step over the plain step of the same round, its median over rounds. Beside it stands the error of what is
estimated, against the dense Jacobian in float64, on a U-Net of the same kind trained shortly on images of half the
size: the bias, how much one example's estimate scatters, and how much the mean over the examples that a step uses does;
all relative to the truth. Last, the gradients: those by finite differences against those that automatic differentiation
gives, as a cosine.

Goals: `discriminator` under 1.03; `decomposition_eigenvalues` and `decomposition_singular` under 1.3; `operator_hinge`
under 1.6.
"""

import argparse
import copy
import math
import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from lsdr import runs
from lsdr.data.load import load_images
from lsdr.diffusion.denoiser import per_example
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.models import build_model
from lsdr.experiments.methods import METHODS
from lsdr.linalg.forward_mode import forward_mode
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decomposition import SpectralDecomposition
from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator

RESULTS = Path(__file__).parent / "results" / "regularizer_overhead.jsonl"
GOALS = {"discriminator": 1.03, "decomposition_eigenvalues": 1.3, "decomposition_singular": 1.3, "operator_hinge": 1.6}
RHO = 0.7
"""The step sigma' / sigma whose Jacobian rho I + (1 - rho) J_D all of them measure."""
STEP = 3e-3
"""Of the peer's finite difference, relative to the state's rms."""
FEATURES = ("amplitude_phase", "focal", "radial", "dct")
WEIGHT = 0.01

Estimate = Callable[[Any, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Ours:
    """Regularizers, with the name of what they estimate and of the value that holds it."""

    build: Callable[[], tuple[Any, ...]]
    truth: str | None = None
    value: str = "gain"


@dataclass(frozen=True)
class Peer:
    """A published way: the clean estimate and ||Jv||^2 or ||J'v||^2 of each example, with graph."""

    estimate: Estimate
    truth: str = "frobenius"


def contenders() -> dict[str, Ours | Peer]:
    def method(name: str, *rest: str) -> Ours:
        return Ours(METHODS[name].build, *rest)

    def decomposition(**settings: Any) -> Callable[[], tuple[Any, ...]]:
        return lambda: (SpectralDecomposition(**settings),)

    whole: dict[str, Any] = {"of": "singular_values", "penalty": "frobenius", "fraction": 1.0}
    return {
        "plain": Ours(tuple),
        "plain again": Ours(tuple),
        "discriminator": method("discriminator"),
        f"discriminator, {len(FEATURES)} features": Ours(lambda: (SpectralDiscriminator(features=FEATURES),)),
        "discriminator, layers": Ours(lambda: (SpectralDiscriminator(features=("layers",)),)),
        "discriminator_learned": method("discriminator_learned"),
        "decomposition_eigenvalues": method("decomposition_eigenvalues", "mean"),
        "decomposition_singular": method("decomposition_singular", "rms"),
        "operator_hinge": method("operator_hinge", "largest"),
        "operator_asymmetry": method("operator_asymmetry", "asymmetry", "asymmetry"),
        "operator_frobenius": method("operator_frobenius", "frobenius", "frobenius"),
        **{
            f"frobenius, {estimator.replace('_', ' ')}, whole batch": Ours(
                decomposition(**whole, estimator=estimator), "frobenius", "frobenius"
            )
            for estimator in ("finite_difference", "forward_mode", "reverse_mode")
        },
        "peer: double backward ||J'v||^2": Peer(double_backward),
        "peer: forward mode ||Jv||^2": Peer(forward_product),
        "peer: finite difference ||Jv||^2": Peer(finite_difference),
    }


def step_of(direction: Tensor, product: Tensor) -> Tensor:
    """|J_step v|^2 / d of each example from J_D v, with v of length sqrt(d)."""
    return (RHO * direction + (1 - RHO) * product).square().flatten(1).mean(1)


def double_backward(denoiser: Any, noisy: Tensor, sigma: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    noisy = noisy.detach().requires_grad_()
    denoised = denoiser(noisy, sigma)
    (product,) = torch.autograd.grad(denoised, noisy, direction, create_graph=True)
    return denoised, step_of(direction, product)


def forward_product(denoiser: Any, noisy: Tensor, sigma: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    with forward_mode():
        denoised, product = forward_ad.unpack_dual(denoiser(forward_ad.make_dual(noisy, direction), sigma))
    return denoised, step_of(direction, product)


def finite_difference(denoiser: Any, noisy: Tensor, sigma: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    denoised = denoiser(noisy, sigma)
    length = per_example(STEP * noisy.square().flatten(1).mean(1).sqrt(), noisy)
    return denoised, step_of(direction, (denoiser(noisy + length * direction, sigma) - denoised) / length)


def rademacher(like: Tensor) -> Tensor:
    return torch.randint(0, 2, like.shape, device=like.device).to(like.dtype) * 2 - 1


def draw(images: Tensor, count: int, denoiser: EDMDenoiser) -> tuple[Tensor, Tensor, Tensor]:
    clean = images[torch.randint(len(images), (count,), device=images.device)]
    sigma = denoiser.draw_sigma(torch.rand(count, device=images.device))
    return clean, sigma, clean + per_example(sigma, clean) * torch.randn_like(clean)


class Run:
    """A model in training; `step` takes one step and says how long it took."""

    def __init__(self, contender: Ours | Peer, model: nn.Module, stack: ExitStack) -> None:
        self.contender, self.model, self.denoiser = contender, model, EDMDenoiser(model)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        regularizers = contender.build() if isinstance(contender, Ours) else ()
        self.penalty = stack.enter_context(attach(model, *regularizers))

    def step(self, images: Tensor, batch: int, seed: int) -> float:
        """Take a step on the data of this seed; seconds."""
        torch.manual_seed(seed)
        clean, sigma, noisy = draw(images, batch, self.denoiser)
        wait(images)
        start = time.perf_counter()
        weight = self.denoiser.uniform_weight(sigma)
        if isinstance(self.contender, Ours):
            denoised = self.denoiser(noisy, sigma)
            context = {"denoiser": self.denoiser, "noisy": noisy, "sigma": sigma, "denoised": denoised, "clean": clean}
            penalty = self.penalty(**context, conditioning=None)
            ((weight * (denoised - clean).square().flatten(1).mean(1)).mean() + penalty).backward()
        else:
            with attention(self.contender):
                denoised, values = self.contender.estimate(self.denoiser, noisy, sigma, rademacher(noisy))
                loss = (weight * (denoised - clean).square().flatten(1).mean(1)).mean()
                (loss + WEIGHT * values.mean()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        wait(images)
        return time.perf_counter() - start


def attention(contender: Peer) -> Any:
    """Fused attention knows neither a second backward pass nor forward mode."""
    return ExitStack() if contender.estimate is finite_difference else sdpa_kernel(SDPBackend.MATH)


def wait(like: Tensor) -> None:
    if like.device.type == "cuda":
        torch.cuda.synchronize(like.device)


def truths(model: nn.Module, noisy: Tensor, sigma: Tensor) -> tuple[dict[str, float], Tensor]:
    """What the estimates should be, from the dense Jacobian of one example's step; and its leading eigenvector."""
    size = noisy.numel()
    J = RHO * torch.eye(size, dtype=torch.float64) + (1 - RHO) * dense(model, noisy, sigma)
    values, vectors = torch.linalg.eigh((J + J.T) / 2)
    return {
        "mean": float(J.trace()) / size,
        "rms": float(J.norm()) / math.sqrt(size),
        "frobenius": float(J.square().sum()) / size,
        "largest": float(values[-1]),
        "asymmetry": float((J - J.T).square().sum()) / size,
    }, vectors[:, -1]


def dense(model: nn.Module, noisy: Tensor, sigma: Tensor, at_once: int = 128) -> Tensor:
    """J_D of one example, float64, row by row through backward passes."""
    denoiser, size = EDMDenoiser(copy.deepcopy(model).double().requires_grad_(False)), noisy.numel()
    rows = []
    for unit in torch.eye(size, dtype=torch.float64, device=noisy.device).split(at_once):
        x = noisy.double().expand(len(unit), *noisy.shape[1:]).clone().requires_grad_()
        (row,) = torch.autograd.grad(denoiser(x, sigma.double().expand(len(unit))), x, unit.view_as(x))
        rows.append(row.flatten(1))
    return torch.cat(rows).cpu()


def estimate_once(contender: Ours | Peer, penalty: Any, model: nn.Module, noisy: Tensor, sigma: Tensor) -> float:
    denoiser = EDMDenoiser(model)
    if isinstance(contender, Peer):
        with attention(contender):
            return contender.estimate(denoiser, noisy, sigma, rademacher(noisy))[1].item()
    denoised = denoiser(noisy, sigma)
    penalty(denoiser=denoiser, noisy=noisy, sigma=sigma, denoised=denoised, clean=denoised.detach(), conditioning=None)
    return float(penalty.values[f"SpectralDecomposition/{contender.value}"])


def errors(all_of_them: dict[str, Ours | Peer], model: nn.Module, images: Tensor, options: Any) -> dict[str, Any]:
    """Bias and scatter of every estimate of the Jacobian, relative to the truth."""
    sigmas = torch.tensor([0.1, 0.3, 1.0, 3.0], device=images.device)[: options.images]
    states = [(images[k : k + 1] + sigma * torch.randn_like(images[:1]), sigma[None]) for k, sigma in enumerate(sigmas)]
    known = [truths(model, *state)[0] for state in states]
    found: dict[str, Any] = {"truth": known, "sigma": sigmas.tolist()}
    for name, contender in all_of_them.items():
        if contender.truth is None:
            continue
        relative = []
        built = contender.build() if isinstance(contender, Ours) else ()
        with attach(model, *(replace(each, fraction=1.0, ratio=RHO) for each in built)) as penalty:
            for (noisy, sigma), truth in zip(states, known, strict=True):
                values = [estimate_once(contender, penalty, model, noisy, sigma) for _ in range(options.draws)]
                relative.append(torch.tensor(values) / truth[contender.truth] - 1)
        table = torch.stack(relative)
        used = math.ceil(options.batch / round(1 / built[0].fraction)) if built else options.batch
        scatter = float(table.var(1).mean().sqrt())
        found[name] = {"of": contender.truth, "bias": float(table.mean()), "scatter": scatter}
        found[name] |= {"examples": used, "scatter of a step": scatter / math.sqrt(used)}
    return found


def gradients(model: nn.Module, images: Tensor, options: Any) -> dict[str, float]:
    """Cosines of the penalties' gradients with those that automatic differentiation gives for the same quantity."""
    noisy, sigma = images[:1] + 0.3 * torch.randn_like(images[:1]), torch.tensor([0.3], device=images.device)
    frobenius = SpectralDecomposition(of="singular_values", penalty="frobenius", fraction=1.0, ratio=RHO)
    by_modes = [
        gradient(model, replace(frobenius, estimator=estimator), noisy, sigma)
        for estimator in ("finite_difference", "forward_mode")
    ]
    # bound = 0: every positive eigenvalue exceeds it, so that the hinge has a gradient.
    hinge = SpectralDecomposition(penalty="hinge", k=1, bound=0.0, fraction=1.0, ratio=RHO)
    top = truths(model, noisy, sigma)[1].view_as(noisy).to(images.device)
    exact = copy.deepcopy(model).double()
    with forward_mode():
        dual = forward_ad.make_dual(noisy.double(), top)
        product = forward_ad.unpack_dual(EDMDenoiser(exact)(dual, sigma.double())).tangent
    # With the eigenvector held fixed this has the eigenvalue's gradient (Hellmann-Feynman).
    slopes = torch.autograd.grad((top * product).sum(), list(exact.parameters()), materialize_grads=True)
    flat = torch.cat([slope.flatten() for slope in slopes])
    by_hinge = gradient(model, hinge, noisy, sigma)
    return {
        "||Jv||^2, finite difference and forward mode": float(torch.cosine_similarity(*by_modes, dim=0)),
        "largest eigenvalue, hinge and dense eigenvector": float(torch.cosine_similarity(by_hinge, flat, dim=0)),
    }


def gradient(model: nn.Module, regularizer: Any, noisy: Tensor, sigma: Tensor) -> Tensor:
    denoiser, parameters = EDMDenoiser(model), list(model.parameters())
    generator = torch.Generator(noisy.device).manual_seed(5)
    with attach(model, regularizer) as penalty:
        denoised = denoiser(noisy, sigma)
        context = {"denoiser": denoiser, "noisy": noisy, "sigma": sigma, "denoised": denoised, "clean": noisy}
        value = penalty(**context, conditioning=None, generator=generator)
        slopes = torch.autograd.grad(value, parameters, materialize_grads=True)
    return torch.cat([slope.flatten() for slope in slopes]).double()


def load(size: int, device: str) -> Tensor:
    dataset = load_images("patches", size=size)
    return (dataset.__getitems__(range(512))["image"] / 127.5 - 1).to(device)


def measure_time(all_of_them: dict[str, Ours | Peer], options: Any) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of every step, and of those that do not run on this model the reason."""
    failed: dict[str, str] = {}
    torch.manual_seed(0)
    model, images = build_model(options.model, 3, options.size).to(options.device), load(options.size, options.device)
    seconds: dict[str, list[float]] = {name: [] for name in all_of_them}
    order = random.Random(0)
    with ExitStack() as stack:
        everyone = {name: Run(each, copy.deepcopy(model), stack) for name, each in all_of_them.items()}
        for number in range(-2, options.rounds):  # two to warm up
            names = list(everyone)
            order.shuffle(names)
            for name in names:
                try:
                    taken = everyone[name].step(images, options.batch, seed=number + 2)
                except (RuntimeError, NotImplementedError) as error:
                    failed[name] = f"{type(error).__name__}: {error}"
                    del everyone[name], seconds[name]
                    continue
                if number >= 0:
                    seconds[name].append(taken)
            print(f"round {number + 1} of {options.rounds}", flush=True)
    return seconds, failed


def trained(options: Any) -> tuple[nn.Module, Tensor]:
    """A model of half the size, for its dense Jacobian is the truth."""
    torch.manual_seed(1)
    size = options.size // 2
    images = load(size, options.device)
    model = build_model(options.model, 3, size).to(options.device)
    run = Run(Ours(tuple), model, ExitStack())
    run.optimizer.param_groups[0]["lr"] = 1e-3
    for number in range(options.train):
        run.step(images, options.batch, seed=number)
    return model, images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="unet-small")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--train", type=int, default=100, help="steps of the model whose Jacobian is the truth")
    parser.add_argument("--images", type=int, default=4, help="images of which the dense Jacobian is formed, at most 4")
    parser.add_argument("--draws", type=int, default=32, help="estimates of each image")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", help="parts of the names of those to time; plain ones always run")
    parser.add_argument("--quick", action="store_true", help="to see that it runs: small sizes, nothing is kept")
    options = parser.parse_args()
    if options.quick:
        options.size, options.batch, options.rounds, options.train, options.images, options.draws = 16, 4, 1, 2, 1, 2
    torch.set_num_threads(options.threads)
    wanted = ("plain", *options.only) if options.only else ("",)
    everyone = {name: each for name, each in contenders().items() if any(part in name for part in wanted)}
    seconds, failed = measure_time(everyone, options)
    everyone = {name: each for name, each in everyone.items() if name in seconds}
    plain = seconds["plain"]
    ratios = {name: [a / b for a, b in zip(each, plain, strict=True)] for name, each in seconds.items()}
    model, images = trained(options)
    found, cosines = errors(everyone, model, images, options), gradients(model, images, options)

    print(f"\nplain step {1e3 * statistics.median(plain):.0f} ms")
    print(f"{'step / plain step':44} {'median':>7} {'least':>7} {'most':>7}  goal   relative error of the estimate")
    for name, each in ratios.items():
        goal = f"{GOALS[name]:.2f}" if name in GOALS else ""
        line = f"{name:44} {statistics.median(each):7.3f} {min(each):7.3f} {max(each):7.3f}  {goal:5}"
        if name in found:
            error = found[name]
            line += f"  {error['of']:9} bias {error['bias']:+.4f}  scatter {error['scatter']:.4f}"
            line += f"  of {error['examples']} examples' mean {error['scatter of a step']:.4f}"
        print(line)
    for name, reason in failed.items():
        print(f"{name:44} does not run: {reason}")
    for name, value in cosines.items():
        print(f"cosine of gradients of {name}: {value:.7f}")
    record = {
        "benchmark": "regularizer_overhead",
        **{name: getattr(options, name) for name in ("model", "size", "batch", "rounds", "threads", "train", "draws")},
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu",
        "plain_ms": 1e3 * statistics.median(plain),
        "ratios": {name: statistics.median(each) for name, each in ratios.items()},
        "range": {name: [min(each), max(each)] for name, each in ratios.items()},
        "failed": failed,
        "errors": found,
        "gradient cosines": cosines,
        "goals": GOALS,
        "environment": runs.environment(),
    }
    if not options.quick:
        runs.append_record(RESULTS, record)


if __name__ == "__main__":
    main()
