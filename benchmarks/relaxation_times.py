"""How fast small differences die out along the probability flow, against the eigenvalues of the denoiser's Jacobian.

The claim on trial: "the larger the eigenvalue, the faster the process". With s = -ln(sigma) as time, which sampling
runs through forwards, a small difference d of two states follows

    d' = -(1 - mu) d    along an eigenvector of J_D with the eigenvalue mu,

so it relaxes at the rate 1 - mu with the time scale tau = 1 / (1 - mu), and an Euler step to rho sigma multiplies it by
g = rho + (1 - rho) mu, which is a time scale -(ln 1/rho) / ln g. Larger mu: *slower* relaxation up to mu = 1, growth
beyond. This script disturbs a state along eigenvectors, integrates the flow for both states, and measures

- the rate -d ln|d| / ds over a short stretch, against 1 - mu;
- the rate over a long stretch (a factor e in sigma), through which mu changes and eigenvectors turn;
- the gain of one Euler step, against g;

and prints the rank correlation of mu with the measured rate: +1 would be the claim, -1 its opposite.

On `gaussian` (known spectrum lambda, mu = lambda / (lambda + sigma^2)) and `mixture` (two points, mu up to
a^2 / sigma^2, so differences grow) everything is analytic and the long stretch has an exact answer too; otherwise give
the folder of a finished run of `lsdr train diffusion` or `lsdr compare diffusion`. Eigenvalues are those of the
symmetric part of the dense Jacobian in float64, and the directions its eigenvectors; how unsymmetric it is stands
beside.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor

from lsdr import runs
from lsdr.diffusion.build import build_task, load_data
from lsdr.diffusion.config import DiffusionConfig
from lsdr.experiments.fields import from_dict
from lsdr.probes.denoising_step import discrete_time_scale, step_gain, time_scale

RESULTS = Path(__file__).parent / "results" / "relaxation_times.jsonl"
SHORT, LONG = 1e-3, 1.0
"""Stretches of -ln(sigma)."""
SIZE = 1e-6
"""Of the disturbance, in pixels' rms."""

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """A denoiser in float64, clean images, and, where it is known, the long-stretch rate that the flow has exactly."""

    denoise: Denoise
    clean: Tensor
    exact: Callable[[Tensor, float], Tensor] | None = None


def gaussian(images: int, generator: torch.Generator) -> Subject:
    """Data with 16 known variances from 1e-2 to 10, in a frame turned at random."""
    variances = torch.logspace(1, -2, 16, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64)).Q
    clean = (torch.randn(images, 16, generator=generator, dtype=torch.float64) * variances.sqrt()) @ basis.T

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return (x @ basis * (variances / (variances + sigma[:, None] ** 2))) @ basis.T

    def exact(vectors: Tensor, sigma: float) -> Tensor:  # |d| goes as sqrt(lambda + sigma^2)
        of_each = (variances + sigma**2 * math.exp(-2 * LONG)) / (variances + sigma**2)
        return -((vectors @ basis).square() * of_each).sum(1).sqrt().log() / LONG

    return Subject(denoise, clean, exact)


def mixture(images: int, generator: torch.Generator) -> Subject:
    """Each of 16 coordinates is +a or -a, a = 1: D = a tanh(a x / sigma^2), mu = a^2 / sigma^2 halfway."""
    clean = torch.randint(0, 2, (images, 16), generator=generator).double() * 2 - 1
    clean[:, :4] = 0  # undecided: where differences grow
    return Subject(lambda x, sigma: torch.tanh(x / sigma[:, None] ** 2), clean)


def trained(folder: Path, images: int) -> Subject:
    """The averaged weights of a finished run, and images that it was not trained on."""
    job, own = folder / "job.json", folder / "config.json"
    if not (job.is_file() or own.is_file()):
        raise SystemExit(f"{folder} is no run: expected gaussian, mixture, or the folder of a finished run")
    found = runs.read_json(job)["config"] if job.is_file() else runs.read_json(own)
    config = from_dict(DiffusionConfig, {name: value for name, value in found.items() if name != "method"})
    task = build_task(config, load_data(config), torch.device("cpu"))
    task.model.load_state_dict(load_file(folder / "snapshots" / "final" / "ema.safetensors"))
    denoiser = task.denoiser(task.model.double().eval().requires_grad_(False))
    clean, labels = task.heldout.pixels[:images].double(), task.heldout.labels

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        given = labels[:1].expand(len(x)) if config.conditional and labels is not None else None
        return denoiser(x, sigma, given)

    return Subject(denoise, clean)


def dense(denoise: Denoise, x: Tensor, sigma: float, at_once: int = 128) -> Tensor:
    """J_D at one state, row by row through backward passes."""
    rows = []
    for unit in torch.eye(x.numel(), dtype=torch.float64).split(at_once):
        state = x.expand(len(unit), *x.shape).clone().requires_grad_()
        (row,) = torch.autograd.grad(denoise(state, state.new_full((len(unit),), sigma)), state, unit.view_as(state))
        rows.append(row.flatten(1))
    return torch.cat(rows)


@torch.no_grad()
def flow(denoise: Denoise, x: Tensor, sigma: float, stretch: float, steps: int) -> Tensor:
    """Runge-Kutta of fourth order on dx/ds = D(x) - x, s = -ln(sigma)."""

    def slope(state: Tensor, s: float) -> Tensor:
        return denoise(state, state.new_full((len(state),), sigma * math.exp(-s))) - state

    h = stretch / steps
    for number in range(steps):
        s = number * h
        first = slope(x, s)
        second = slope(x + h / 2 * first, s + h / 2)
        third = slope(x + h / 2 * second, s + h / 2)
        x = x + h / 6 * (first + 2 * second + 2 * third + slope(x + h * third, s + h))
    return x


def measure(subject: Subject, sigma: float, rho: float, generator: torch.Generator) -> list[dict[str, float]]:
    """Eigenvalues and measured rates at one noise level, a row for each direction of each image."""
    rows = []
    for clean in subject.clean:
        x = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        jacobian = dense(subject.denoise, x, sigma)
        eigenvalues, eigenvectors = torch.linalg.eigh((jacobian + jacobian.T) / 2)
        asymmetry = float((jacobian - jacobian.T).norm() / (2 * jacobian.norm()))
        last = len(eigenvalues) - 1
        chosen = [last, last - 1, last - 2, 3 * last // 4, last // 2, last // 4, 0]
        mu, vectors = eigenvalues[chosen], eigenvectors[:, chosen].T
        before = SIZE * vectors.view(-1, *clean.shape) * math.sqrt(last + 1)
        pair = torch.cat([x + before, x - before])

        def change(after: Tensor, before: Tensor = before) -> Tensor:
            """|d'| / |d| of each direction."""
            plus, minus = after.chunk(2)
            return ((plus - minus) / 2).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)

        level = pair.new_full((len(pair),), sigma)
        stepped = rho * pair + (1 - rho) * subject.denoise(pair, level)
        measured = {
            "mu": mu,
            "rate, short": -change(flow(subject.denoise, pair, sigma, SHORT, 2)).log() / SHORT,
            "rate, long": -change(flow(subject.denoise, pair, sigma, LONG, 20)).log() / LONG,
            "gain": change(stepped),
            "g": step_gain(mu, sigma, rho * sigma),
        }
        if subject.exact is not None:
            measured["rate, long, exact"] = subject.exact(vectors, sigma)
        columns = {name: column.tolist() for name, column in measured.items()}
        rows += [
            {name: column[k] for name, column in columns.items()} | {"place": chosen[k], "asymmetry": asymmetry}
            for k in range(len(chosen))
        ]
    return rows


def summarise(rows: list[dict[str, float]], rho: float) -> list[dict[str, float]]:
    """Means over images, a row a direction, the leading one first, and the time scales that belong to them."""
    places = sorted({row["place"] for row in rows}, reverse=True)
    of_place = [[row for row in rows if row["place"] == place] for place in places]
    means = [{name: sum(row[name] for row in group) / len(group) for name in group[0]} for group in of_place]
    for mean in means:
        mean["tau"] = float(time_scale(torch.tensor(mean["mu"], dtype=torch.float64)))
        gain = torch.tensor(mean["g"], dtype=torch.float64)
        mean["tau of the step"] = float(discrete_time_scale(gain, step=-math.log(rho)))
    return means


def correlation(rows: list[dict[str, float]], rate: str) -> float:
    """Rank correlation with mu; rounded, for equal values with different last bits are ties."""
    return float(spearmanr(*([round(row[name], 6) for row in rows] for name in ("mu", rate))).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="gaussian", help="gaussian, mixture, or the folder of a run")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[5.0, 1.0, 0.5, 0.2, 0.1])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--ratio", type=float, default=0.7, help="sigma' / sigma of the Euler step")
    parser.add_argument("--keep", action="store_true", help="append to the results")
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    known = {"gaussian": gaussian, "mixture": mixture}
    if options.source in known:
        subject = known[options.source](options.images, generator)
    else:
        subject = trained(Path(options.source), options.images)
    record: dict[str, Any] = {
        "benchmark": "relaxation_times",
        "source": options.source if options.source in known else "run",
        "dimensions": subject.clean[0].numel(),
        "images": len(subject.clean),
        "ratio": options.ratio,
        "levels": [],
    }
    everything: list[dict[str, float]] = []
    print(f"{'sigma':>7} {'mu':>9} {'1 - mu':>9} {'rate':>9} {'over e':>9} {'tau':>9}"
          f" {'g':>8} {'gain':>8} {'-step/ln g':>10}   rank correlation of mu and rate")  # fmt: skip
    for sigma in options.sigmas:
        rows = measure(subject, sigma, options.ratio, generator)
        everything += rows
        level = {
            "sigma": sigma,
            "correlation": correlation(rows, "rate, short"),
            "correlation over a factor e": correlation(rows, "rate, long"),
            "asymmetry": sum(row["asymmetry"] for row in rows) / len(rows),
            "directions": summarise(rows, options.ratio),
        }
        record["levels"].append(level)
        for number, row in enumerate(level["directions"]):
            line = f"{sigma:7.3g} {row['mu']:9.5f} {1 - row['mu']:9.5f} {row['rate, short']:9.5f}"
            line += f" {row['rate, long']:9.5f} {row['tau']:9.3f} {row['g']:8.4f} {row['gain']:8.4f}"
            line += f" {row['tau of the step']:10.3f}"
            if not number:
                line += f"   {level['correlation']:+.3f}, over a factor e {level['correlation over a factor e']:+.3f};"
                line += f" asymmetry {level['asymmetry']:.3f}"
            print(line)
    record |= {
        "rate - (1 - mu), largest": max(abs(row["rate, short"] - 1 + row["mu"]) for row in everything),
        "gain - g, largest": max(abs(row["gain"] - abs(row["g"])) for row in everything),
        "correlation": correlation(everything, "rate, short"),
        "correlation over a factor e": correlation(everything, "rate, long"),
        "growing": sum(row["rate, short"] < 0 for row in everything) / len(everything),
    }
    if subject.exact is not None:
        record["long rate - exact, largest"] = max(
            abs(row["rate, long"] - row["rate, long, exact"]) for row in everything
        )
    for name in list(record)[6:]:
        print(f"{name:32} {record[name]:.3g}")
    print(
        "Claimed: the larger the eigenvalue, the faster (+1). Measured rank correlation of the eigenvalue with the "
        f"rate of relaxation: {record['correlation']:+.3f}."
    )
    if options.keep:
        runs.append_record(RESULTS, {**record, "environment": runs.environment()})


if __name__ == "__main__":
    main()
