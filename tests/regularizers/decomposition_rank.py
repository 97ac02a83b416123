"""One rank of the distributed tests of SpectralDecomposition: penalties, gradients and means of its shard, to a file.

Arguments: rank, world size, rendezvous file, output file, world size to compare with. With world size 1 it is the
single process to compare with.
"""

import contextlib
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decomposition import SpectralDecomposition

sys.path.insert(0, str(Path(__file__).parent))
from decomposed import PENALTIES, generator

SHARDS = {2: [7, 5], 4: [3, 2, 5, 2]}


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 3, padding=1)).double()


def data(shards, step):
    """Shards that differ in size and in noise level."""
    drawn = generator(step)
    return [
        (
            torch.randn(size, 1, 3, 4, generator=drawn, dtype=torch.float64),
            10.0 ** (rank - 2) * torch.ones(size).double(),
        )
        for rank, size in enumerate(shards)
    ]


def run(model, shards, rank, world, chunks, of, penalty):
    """Some steps: value, gradient and state of each."""
    found = []
    denoiser = lambda x, sigma, conditioning: 0.1 * x - model(x) / (1 + sigma.view(-1, 1, 1, 1))  # noqa: E731
    regularizer = SpectralDecomposition(of=of, penalty=penalty, weight=2.0, fraction=1, bound=0.0, iterations=3)
    with attach(model, regularizer) as attached:
        for step in range(3 if penalty == "dispersion" else 1):  # of which only that keeps anything
            parts = data(shards, step)
            x, sigma = parts[rank] if world > 1 else map(torch.cat, zip(*parts, strict=True))
            cuts = [1, len(x) - 1] if chunks else [len(x)]
            pieces = list(zip(x.split(cuts), sigma.split(cuts), strict=True))
            model.zero_grad()
            if chunks:
                with attached.observe():
                    for x, sigma in pieces:
                        denoiser(x, sigma, None)
            value = 0.0
            for number, (x, sigma) in enumerate(pieces):
                wait = world > 1 and number < len(pieces) - 1
                with model.no_sync() if wait else contextlib.nullcontext():
                    denoised = denoiser(x, sigma, None)
                    context = {"denoiser": denoiser, "noisy": x, "sigma": sigma, "denoised": denoised}
                    part = attached(**context, generator=generator(100 + step))
                    (part + 0 * denoised.sum()).backward()
                value = value + part.detach()
            gradients = [parameter.grad.clone() for parameter in model.parameters()]
            found += [value, *gradients, *(value.clone() for value in attached.state_dict().values())]
    return found


def main(rank, world, rendezvous, out, like):
    torch.set_num_threads(1)
    model = build()
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
        model = DistributedDataParallel(model)
    results = {
        f"{of}/{penalty}/{'chunks' if chunks else 'whole'}": run(
            model, SHARDS[like], rank, world, chunks and world > 1, of, penalty
        )
        for of, penalty in PENALTIES
        for chunks in (False, True)
    }
    torch.save(results, out)
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
