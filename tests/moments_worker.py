"""One rank of tests/test_moments_distributed.py: `python moments_worker.py RANK WORLD FOLDER`.

Writes FOLDER/rank=<k>.json. The cases are shared with the test, which runs them in one process.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from lsdr.moments import Moments

ROWS = {2: (9, 2), 4: (11, 1, 5, 8)}


def shard(rank, world, positions=(), dtype=torch.float64):
    """Rows of one rank: as many, as far away and as large as on no other rank."""
    generator = torch.Generator().manual_seed(100 * world + rank)
    rows = torch.randn(ROWS[world][rank], *positions, 5, generator=generator, dtype=torch.float64)
    return (rows * (1 + 2 * rank) + 3 * (-1) ** rank * rank).to(dtype)


def make_model():
    torch.manual_seed(0)
    return nn.Linear(5, 4).double()


def squared_off_diagonal(matrix):
    return (matrix - torch.diag(torch.diagonal(matrix))).pow(2).sum()


def one_view(model, shards):
    """Penalty of the covariance and the mean."""
    moments = Moments.of(model(torch.cat(shards))).all_reduce()
    return squared_off_diagonal(moments.covariance()) + moments.mean.pow(3).sum(), moments


def chunks(model, shards):
    """The same rows, merged from chunks first; one chunk is empty."""
    rows = torch.cat(shards)
    moments = Moments.of(model(rows[:1])).update(model(rows[1:1])).update(model(rows[1:])).all_reduce()
    return squared_off_diagonal(moments.covariance()) + moments.mean.pow(3).sum(), moments


def two_views(model, shards):
    rows = torch.cat(shards)
    features = model(rows)
    moments = Moments.of(features, features.tanh()[:, :2]).all_reduce()
    penalty = moments.cross_covariance().pow(2).sum() + squared_off_diagonal(moments.y.covariance(correction=1))
    return penalty + moments.y.mean.pow(3).sum(), moments


CASES = {
    "one_view": ((), one_view),
    "chunks": ((), chunks),
    "two_views": ((), two_views),
    "positions": ((3,), one_view),
}


def gradients(model):
    return [parameter.grad.tolist() for parameter in model.parameters()]


def summary(moments):
    return {"count": moments.count, "mean": moments.mean.tolist(), "covariance": moments.covariance().tolist()}


def main(rank, world, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    results = {}
    for name, (positions, case) in CASES.items():
        model = nn.parallel.DistributedDataParallel(make_model())
        penalty, moments = case(model, [shard(rank, world, positions)])
        penalty.backward()
        results[name] = {"value": penalty.item(), "gradients": gradients(model), **summary(moments)}

    # The last rank has no row at all, but has seen the shape.
    model = nn.parallel.DistributedDataParallel(make_model())
    rows = shard(rank, world)
    penalty, moments = one_view(model, [rows if rank < world - 1 else rows[:0]])
    penalty.backward()
    results["empty_rank"] = {"value": penalty.item(), "gradients": gradients(model), **summary(moments)}

    # The last rank's rows are detached: it must take part in the others' backward pass all the same.
    model = make_model()
    features = model(shard(rank, world))
    moments = Moments.of(features if rank < world - 1 else features.detach()).all_reduce()
    penalty = squared_off_diagonal(moments.covariance())
    penalty.backward()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= world
    results["detached_rank"] = {"value": penalty.item(), "gradients": gradients(model), **summary(moments)}

    moments = Moments.of(1e4 + shard(rank, world, dtype=torch.float32)).all_reduce()
    results["far_from_origin"] = summary(moments)

    subgroup = torch.distributed.new_group([0, 1])
    if rank < 2:
        results["subgroup"] = summary(Moments.of(shard(rank, world)).all_reduce(subgroup))
    try:
        Moments().all_reduce()
    except ValueError as error:
        results["never_saw_a_chunk"] = str(error)
    try:
        Moments.of(shard(rank, world).numpy()).all_reduce()
    except TypeError as error:
        results["numpy"] = str(error)
    Path(folder, f"rank={rank}.json").write_text(json.dumps(results))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
