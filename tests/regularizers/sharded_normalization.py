"""Spectral normalisation of weights sharded over two ranks (FSDP2), each a process; the parent compares with one."""

import sys
import tempfile
import unittest.mock

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lsdr.regularizers import _normalization_term
from lsdr.regularizers.spectral_normalization import SpectralNormalization

SETTINGS = {
    "soft": {"bound": 0.8},
    "learnable": {"bound": 2.0, "soft": False, "gain": "learnable"},
}


def run(settings, mesh, rank, world):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    if mesh is not None:
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    with SpectralNormalization(**settings).attach(model) as term:
        groups = [{"params": list(model.parameters())}]
        if term.parameters():
            groups.append({"params": term.parameters(), "foreach": False})
        optimizer = torch.optim.SGD(groups, lr=0.2, foreach=False)
        for step in range(5):
            x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            share = x.chunk(world)[rank] if mesh is not None else x
            (-model(share).square().mean() + term()).backward()
            optimizer.step()
            optimizer.zero_grad()
            term.project_()
        gains = [gain.detach().clone() for gain in term.parameters()]
    weights = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return [weight.detach().clone() for weight in weights] + gains


def check_one_layer_at_a_time(mesh):
    """Each gathered weight is measured before the next is gathered."""
    model = nn.Sequential(*(nn.Linear(5, 5) for _ in range(4)))
    fully_shard(model, mesh=mesh)
    happened, gather, measure = [], DTensor.full_tensor, _normalization_term.largest_of_blocks

    def noted(name, function):
        def call(*arguments, **settings):
            happened.append(name)
            return function(*arguments, **settings)

        return call

    with (
        unittest.mock.patch.object(DTensor, "full_tensor", noted("gather", gather)),
        unittest.mock.patch.object(_normalization_term, "largest_of_blocks", noted("measure", measure)),
        SpectralNormalization().attach(model),
    ):
        assert happened == ["gather", "measure"] * 4, happened


def rank_main(rank, world, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    check_one_layer_at_a_time(mesh)
    torch.save({name: run(settings, mesh, rank, world) for name, settings in SETTINGS.items()}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(rank_main, (2, folder), nprocs=2)
        found = [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2)]
    for name, settings in SETTINGS.items():
        expected = run(settings, None, 0, 1)
        for each in found:
            torch.testing.assert_close(each[name], expected, rtol=1e-5, atol=1e-6)
        norms = [float(torch.linalg.matrix_norm(weight, 2)) for weight in expected if weight.ndim == 2]
        assert max(norms) <= settings["bound"] * 1.001, norms
        assert name != "soft" or max(norms) > 0.999 * 0.8, norms
        print(name, "ok", flush=True)


if __name__ == "__main__":
    sys.exit(main())
