"""One rank of test_sharded.py: `python sharded_rank.py RANK WORLD FOLDER`. Writes FOLDER/rank=<k>.pt, tensors alone.

The cases are shared with the test, which runs them in one process on the whole weights.
"""

import sys

import torch
from torch import distributed, nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from lsdr.linalg.tracking import Tracker


class Net(nn.Module):
    """Rows that do not divide, fewer rows than ranks, a convolution, more columns than rows."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.even = nn.Linear(10, 16)
        self.uneven = nn.Linear(12, 7)
        self.few = nn.Linear(9, 1)
        self.conv = nn.Conv2d(6, 5, 3)
        self.wide = nn.Linear(40, 6)
        for weight in weights_of(self).values():
            m, n = weight.flatten(1).shape
            left, right = torch.randn(m, 2, generator=generator), torch.randn(2, n, generator=generator)
            left[:, 1] *= 0.5
            values = left @ right + 0.1 * torch.randn(m, n, generator=generator)
            weight.data = values.view(weight.shape)


def weights_of(module):
    return {name: p for name, p in module.named_parameters() if name.endswith("weight")}


def has_first_part(weight):
    if not isinstance(weight, DTensor):
        return True
    places = zip(weight.placements, weight.device_mesh.get_coordinate(), strict=True)
    return all(placement.is_replicate() or place == 0 for placement, place in places)


@torch.no_grad()
def measure(weights, count):
    """Cold, warm after a change of the weights, under a tolerance, scaled far away, to convergence, and broken."""
    tracker = Tracker(weights, count=count)
    results = {}

    def record(moment, spectra):
        for name, spectrum in spectra.items():
            rows = [spectrum.values, spectrum.lower, spectrum.upper, spectrum.residual]
            results[f"{moment}/{name}"] = torch.stack(rows)
            results[f"{moment}/{name}/frobenius"] = torch.tensor(tracker.frobenius[name])

    record("cold", tracker.update())
    for weight in weights.values():
        weight.mul_(weight.abs() + 0.5)
    record("warm", tracker.update())
    record("tolerance", tracker.update(tolerance=1e-3))
    record("converged", tracker.update(steps=25))
    for weight in weights.values():
        weight.mul_(1e-25)
    record("tiny", tracker.update())
    record("tiny-converged", tracker.update(steps=25))
    first = next(iter(weights.values()))
    local = first.to_local() if isinstance(first, DTensor) else first
    if has_first_part(first):
        local.view(-1)[0] = torch.nan  # in one place, which the processes of the other parts have not seen
    spectra = tracker.update()
    results["broken"] = torch.tensor(list(tracker.broken.values()))
    results["others"] = torch.tensor(len(spectra))
    first.mul_(0).nan_to_num_(0) if not isinstance(first, DTensor) else local.zero_()
    record("zero", tracker.update())
    return results


def tensors():
    net = Net()
    return {name: p.detach().clone() for name, p in weights_of(net).items()}


def placed(mesh, placements):
    """Weights distributed by hand."""
    return {name: distribute_tensor(w, mesh, placements) for name, w in tensors().items()}


def channels_last(mesh):
    """Rows whose elements lie in another order, which FSDP itself refuses."""
    weights = placed(mesh, [Shard(0)])
    conv = weights["conv.weight"]
    local = conv.to_local().contiguous(memory_format=torch.channels_last)
    weights["conv.weight"] = DTensor.from_local(local, mesh, [Shard(0)], shape=conv.shape, stride=conv.stride())
    return weights


def fsdp(mesh):
    from torch.distributed.fsdp import fully_shard

    net = Net()
    fully_shard(net.even, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return weights_of(net)


def two_dimensional(mesh):
    """FSDP of tensor-parallel layers: one a strided shard of rows, the other split both ways."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    net = nn.Sequential()
    original = Net()
    net.add_module("even", original.even)
    net.add_module("wide", original.wide)
    net = parallelize_module(net, mesh["tp"], {"even": ColwiseParallel(), "wide": RowwiseParallel()})
    fully_shard(net, mesh=mesh["dp"])
    kinds = {str(type(p).__name__) for w in weights_of(net).values() for p in w.placements}
    assert "_StridedShard" in kinds, kinds
    return weights_of(net)


def cases(world):
    from torch.distributed.device_mesh import init_device_mesh

    line = init_device_mesh("cpu", (world,))
    yield "fsdp", lambda: fsdp(line)
    yield "channels-last", lambda: channels_last(line)
    yield "columns", lambda: placed(line, [Shard(1)])
    yield "replicated", lambda: placed(line, [Replicate()])
    if world == 4:
        square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        yield "hsdp", lambda: fsdp(square)
        yield "two-dimensional", lambda: two_dimensional(square)
        yield "both", lambda: placed(square, [Shard(0), Shard(1)])


def refuse(*_, **__):
    raise AssertionError("a weight was gathered")


def main(rank, world, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    built = {(name, count): make() for name, make in cases(world) for count in (1, 2)}
    DTensor.full_tensor = DTensor.redistribute = refuse
    distributed.all_gather_into_tensor = distributed.all_gather = refuse
    results = {}
    for (name, count), weights in built.items():
        for key, value in measure(weights, count).items():
            results[f"{name}/{count}/{key}"] = value
    results |= {f"sums/{key}": value for key, value in count_sums(world).items()}
    torch.save(results, f"{folder}/rank={rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def count_sums(world):
    """All-reduces of a warm update of all layers, and how much they carry."""
    plain, counts = distributed.all_reduce, {}
    for name, make in cases(world):
        tracker, carried = Tracker(make()), []
        tracker.update()

        def counting(buffer, *rest, carried=carried, **named):
            carried.append(buffer.numel())
            return plain(buffer, *rest, **named)

        distributed.all_reduce = counting
        tracker.update()
        distributed.all_reduce = plain
        counts[name] = torch.tensor(carried)
    return counts


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
