"""One rank of the distributed tests of objectives, run as a process: `python objective_rank.py RANK WORLDS FOLDER`.

WORLDS is the largest world size; ranks below 2 take part in a world of 2 first. Writes FOLDER/<rank>of<world>.pt. The
cases are shared with the test, which runs them in one process on all shards.
"""

import sys

import torch
from torch import distributed, nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_objective import SpectralObjective
from lsdr.representation.objectives.sim_clr import sim_clr

SHARDS = {2: [7, 5], 4: [3, 2, 6, 1]}
NAMES = ["vicreg", "barlow_twins", "log_participation_ratio", "spectral_contrastive", "sigreg"]
CASES = {name: {"objective": name} for name in NAMES} | {
    "layer-wise": {"objective": "vicreg", "views": 1},
    "trimmed": {"objective": "vicreg", "robust": "trimmed", "trim": 0.3},
    "huber": {"objective": "sigreg", "robust": "huber", "trim": 0.3},
}
STEPS = 4  # what outliers are measured by is learnt from the first two


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.LeakyReLU(), nn.Linear(6, 4)).double()


def data(world):
    """Both views of shards that differ in size, place and scale; one example far out."""
    generator = torch.Generator().manual_seed(1)
    shards = [
        (1 + rank) * torch.randn(size, 3, generator=generator, dtype=torch.float64) - rank
        for rank, size in enumerate(SHARDS[world])
    ]
    shards[0][0] *= 50
    return [(x, x + 0.3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)) for x in shards]


def run(settings, x, y, pieces, world):
    """The last of some steps: value, values and the gradient averaged over ranks."""
    model = build()
    sizes = [1, len(x) - 1] if pieces and len(x) > 1 else [len(x)]
    chunks = [torch.cat(pair) for pair in zip(x.split(sizes), y.split(sizes), strict=True)]
    with attach(model, SpectralObjective(layers=["1", "2"], **settings)) as penalty:
        for _ in range(STEPS if "robust" in settings else 2):
            model.zero_grad()
            if pieces:
                with penalty.observe():
                    for chunk in chunks:
                        model(chunk)
            parts = []
            for chunk in chunks:
                model(chunk)
                parts.append(penalty())
                parts[-1].backward()
        return [sum(parts).detach(), *penalty.values.values(), *averaged(model, world)]


def contrast(x, y, world, total):
    """SimCLR's loss, scaled as the training loop does."""
    model = build()
    losses = sim_clr(model(x), model(y))
    (losses.sum() * world / total).backward()
    value = losses.detach().sum() / total
    if world > 1:
        distributed.all_reduce(value)
    return [value, *averaged(model, world)]


def averaged(model, world):
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    for gradient in gradients if world > 1 else []:
        distributed.all_reduce(gradient)
        gradient /= world
    return gradients


def results(x, y, world, total):
    found = {name: run(settings, x, y, False, world) for name, settings in CASES.items()}
    found |= {f"{name} in pieces": run(settings, x, y, True, world) for name, settings in CASES.items()}
    return found | {"sim_clr": contrast(x, y, world, total)}


def collectives(x, y):
    """How many a step takes, forward and backward, plain and in pieces."""
    counts, reduce = [0], distributed.all_reduce

    def counted(*arguments, **keywords):
        counts[0] += 1
        return reduce(*arguments, **keywords)

    distributed.all_reduce = counted
    model, found = build(), []
    with attach(model, SpectralObjective("barlow_twins", layers=["1", "2"])) as penalty:
        for observed in (False, True):
            counts[0] = 0
            if observed:
                with penalty.observe():
                    model(torch.cat([x, y]))
                    model(torch.cat([y, x]))
            model(torch.cat([x, y]))
            penalty().backward()
            if observed:
                model(torch.cat([y, x]))
                penalty().backward()
            found.append(torch.tensor(counts[0]))
    distributed.all_reduce = reduce
    return found


def main(rank, largest, folder):
    torch.set_num_threads(1)
    for world in SHARDS:
        if world > largest or rank >= world:
            continue
        distributed.init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
        x, y = data(world)[rank]
        found = results(x, y, world, sum(SHARDS[world]))
        torch.save(found | {"collectives": collectives(x, y)}, f"{folder}/{rank}of{world}.pt")
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
