"""One rank of the distributed tests, run as a process: penalty and gradients of its shard, written to a file.

Arguments: rank, world size, rendezvous file, output file. With world size 1 it is the single process to compare with.
"""

import contextlib
import itertools
import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation

SHARDS = {2: [7, 5], 4: [3, 2, 5, 2]}  # odd sizes, so that even and odd samples change places between ranks
FORMS = ["as_written", "covariance", "correlation"]
DEFINED = [
    ("plug_in", "samples"),
    ("split_half", "samples"),
    ("u_statistic", "samples"),
    ("plug_in", "inner_product"),
    ("split_half", "inner_product"),
]


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 1)
    ).double()


def data(shards):
    """Shards that differ in size, place and scale."""
    generator = torch.Generator().manual_seed(1)
    return [
        (1 + rank) * torch.randn(size, 2, 3, 3, generator=generator, dtype=torch.float64) + 0.5 * rank
        for rank, size in enumerate(shards)
    ]


def step(model, x, total, world, settings, chunks):
    """One step's penalty, values and gradients; DDP means over ranks, so the task loss is scaled to a global mean."""
    model.zero_grad()
    pieces = x.split([1, len(x) - 1]) if chunks else [x]
    value = 0.0
    with attach(model, SpectralDecorrelation(layers=["1", "4"], weight=1.0, variance_floor=2.0, **settings)) as penalty:
        if chunks:
            with penalty.observe():
                for piece in pieces:
                    model(piece)
        for number, piece in enumerate(pieces):
            wait = world > 1 and number < len(pieces) - 1
            with model.no_sync() if wait else contextlib.nullcontext():
                loss = model(piece).square().sum() * world / total
                part = penalty()
                (loss + part).backward()
            value = value + part.detach()
        values = list(penalty.values.values())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    return [value, *values, *gradients]


def main(rank, world, rendezvous, out, like):
    torch.set_num_threads(1)
    shards = data(SHARDS[like])
    total = sum(map(len, shards))
    x = shards[rank] if world > 1 else torch.cat(shards)
    model = build()
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
        model = DistributedDataParallel(model)
    results = {}
    for form, (estimator, positions), chunks in itertools.product(FORMS, DEFINED, [False, True]):
        if chunks and estimator == "u_statistic":
            continue
        settings = {"form": form, "estimator": estimator, "positions": positions}
        key = "/".join([*settings.values(), "chunks" if chunks else "whole"])
        results[key] = step(model, x, total, world, settings, chunks and world > 1)
    torch.save(results, out)
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
