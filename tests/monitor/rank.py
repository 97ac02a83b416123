"""One rank of the distributed tests, run as a process; writes what it logged and measured to a file.

Arguments: rank, world size, rendezvous file, output file, kind. With world size 1 it is the process to compare with.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lsdr.monitor import monitor as module
from lsdr.monitor.clock import HostClock
from lsdr.monitor.monitor import Monitor
from lsdr.probes.features import FeatureProbe
from lsdr.probes.gradients import GradientProbe
from lsdr.probes.tracked import TrackedWeightProbe


def build():
    torch.manual_seed(0)
    return nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.Tanh())], nn.Linear(6, 2))


class Clock(HostClock):
    """Every look at the clock takes a while: on each rank another."""

    def __init__(self, tick):
        self.time, self.tick = 0.0, tick
        super().__init__(self.look)

    def look(self):
        self.time += self.tick
        return self.time


def main(rank, world, rendezvous, out, kind):
    torch.set_num_threads(1)
    model = build()
    trained = model
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
        )
    if world > 1 and kind == "ddp":
        trained = DistributedDataParallel(model)
    if world > 1 and kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    clock = Clock(0.01 if rank == 0 else 0.7)
    module.clock_of = lambda device: clock
    logged = []
    probes = [TrackedWeightProbe(), GradientProbe()] + ([FeatureProbe("*")] if kind == "ddp" else [])
    budget = 0.3 if world > 1 and kind == "ddp" else None
    monitor = Monitor(trained, probes, every=2, budget=budget, log=lambda values, step: logged.append([step, values]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for step in range(40 if budget else 6):
        x = torch.randn(8, 6, generator=generator)
        rows = x.chunk(world)[rank] if world > 1 else x
        with monitor.at(step):
            trained(rows).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        clock.time += 1.0 if rank == 0 else 0.01
    result = {"logged": logged, "last": monitor._budget._last, "turns": monitor.spent.turns}
    Path(out).write_text(json.dumps(result), encoding="utf-8")
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5])
