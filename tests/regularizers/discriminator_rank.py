"""One rank of the distributed test of `SpectralDiscriminator`, run as a process: three steps of its shard to a file.

Arguments: rank, world size, rendezvous file, output file, number of ranks whose shards make up the data. With world
size 1 it is the single process to compare with.
"""

import contextlib
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

SHARDS = {2: [13, 8], 4: [6, 4, 7, 4]}
STEPS = 4


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x, sigma, conditioning=None):
        shift = 0 if conditioning is None else conditioning.view(-1, 1, 1, 1)
        return self.outer(torch.tanh(self.inner(x + shift))) / (1 + sigma.view(-1, 1, 1, 1))


def step(model, penalty, data, world, total, cuts):
    """One step of one rank, in as many chunks as there are cuts."""
    pieces = [{name: each[low:high] for name, each in data.items()} for low, high in cuts]
    if len(pieces) > 1:
        with penalty.observe():
            for piece in pieces:
                model(piece["noisy"], piece["sigma"], piece["label"])
    value = 0.0
    for number, piece in enumerate(pieces):
        wait = world > 1 and number < len(pieces) - 1
        with model.no_sync() if wait else contextlib.nullcontext():
            denoised = model(piece["noisy"], piece["sigma"], piece["label"])
            part = penalty(
                denoiser=model,
                denoised=denoised,
                clean=piece["clean"],
                sigma=piece["sigma"],
                conditioning=piece["label"],
                generator=torch.Generator().manual_seed(11),
            )
            (denoised.square().mean((1, 2, 3)).sum() * world / total + part).backward()
        value = value + part.detach()
    return value


def main(rank, world, rendezvous, out, like):
    sys.path.insert(0, str(Path(__file__).parent))
    import discriminated

    from lsdr.regularizers.attach import attach
    from lsdr.regularizers.layer_spectra import LayerSpectra
    from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator

    torch.set_num_threads(1)
    sizes = SHARDS[like]
    total = sum(sizes)
    torch.manual_seed(0)
    model = Denoiser().double()
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    results = {}
    # LayerSpectra runs the wrapped network on its own account, between its forward and its backward pass.
    for chunked, unused in ((False, False), (True, True)):
        wrapped = DistributedDataParallel(model, find_unused_parameters=unused) if world > 1 else model
        features = ("radial", "focal", LayerSpectra(layers=["*inner", "*outer"]))
        regularizer = SpectralDiscriminator(features=features, weight=2.0, learn=2 * total)
        with attach(wrapped, regularizer) as penalty:
            for number in range(STEPS):
                scale = torch.linspace(0.5, 2, total).view(-1, 1, 1, 1)
                clean = discriminated.smooth(total, 2, 7, 8, seed=number) * scale
                sigma = torch.linspace(0.05, 3, total).double()
                noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(number)).double()
                label = torch.arange(total).double() / total
                data = {"clean": clean, "sigma": sigma, "label": label}
                data["noisy"] = clean + sigma.view(-1, 1, 1, 1) * noise
                first, last = (sum(sizes[:rank]), sum(sizes[: rank + 1])) if world > 1 else (0, total)
                data = {name: each[first:last] for name, each in data.items()}
                cuts = [(0, 1), (1, 3), (3, last - first)] if chunked and world > 1 else [(0, last - first)]
                model.zero_grad()
                value = step(wrapped, penalty, data, world, total, cuts)
                results[f"{chunked}/{number}"] = [value, *(each.grad.clone() for each in model.parameters())]
            results[f"{chunked}/state"] = list(penalty.state_dict().values())
    torch.save(results, out)
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
