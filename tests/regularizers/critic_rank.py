"""One rank of the learned discriminator's distributed test: gradients and state after some steps, written to a file.

Arguments: rank, world size, rendezvous file, output file. With world size 1 it is the single process to compare
with.
"""

import contextlib
import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lsdr.regularizers.attach import attach
from lsdr.regularizers.learned_spectral_discriminator import LearnedSpectralDiscriminator

SHARDS = {1: [19], 2: [12, 7], 4: [7, 2, 6, 4]}
STEPS = 5


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 3, padding=1)).double()


def data(step, total):
    generator = torch.Generator().manual_seed(step)
    clean = torch.randn(total, 1, 6, 5, generator=generator, dtype=torch.float64)
    clean = (clean + clean.roll(1, 2)) * torch.linspace(0.5, 2, total)[:, None, None, None]
    sigma = torch.rand(total, generator=generator, dtype=torch.float64) + 0.1
    noisy = clean + sigma[:, None, None, None] * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return clean, noisy, sigma


def train(model, penalty, steps, cut, world=1, chunks=1):
    """Give the penalties and the gradients of the last step; `cut` takes a rank's part of the batch."""
    values = []
    for step in steps:
        model.zero_grad()
        pieces = [part.tensor_split(chunks) for part in map(cut, data(step, sum(SHARDS[1])))]
        if chunks > 1:
            with penalty.observe():
                for noisy in pieces[1]:
                    model(noisy)
        total = 0.0
        for number, (clean, noisy, sigma) in enumerate(zip(*pieces, strict=True)):
            wait = world > 1 and number < chunks - 1
            with model.no_sync() if wait else contextlib.nullcontext():
                denoised = model(noisy)
                part = penalty(denoised=denoised, clean=clean, sigma=sigma)
                # And a task's loss, so that there is a gradient from the first step on.
                (part + 1e-3 * world / sum(SHARDS[1]) * denoised.square().sum()).backward()
            total = total + part.detach()
        values.append(total)
    gradients = {name.removeprefix("module."): p.grad.clone() for name, p in model.named_parameters()}
    return {"values": torch.stack(values), **gradients}


def main(rank, world, rendezvous, out):
    torch.set_num_threads(1)
    model = build()
    mine = slice(sum(SHARDS[world][:rank]), sum(SHARDS[world][: rank + 1]))
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
        model = DistributedDataParallel(model)
    results = {}
    for chunks in (1, 2):
        with attach(model, LearnedSpectralDiscriminator(weight=1.0, hidden=8, lr=0.01, learn=40)) as penalty:

            def cut(batch):
                return batch[mine]

            found = train(model, penalty, range(STEPS), cut, world, chunks)
            found |= {key.split("/", 1)[1]: value for key, value in penalty.state_dict().items()}
        results |= {f"{chunks}/{key}": value for key, value in found.items()}
    torch.save(results, out)
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
