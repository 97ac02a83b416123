"""Run as a process: a monitor on compiled models. Its argument is the compiler's backend."""

import sys
import warnings

import torch
from torch import nn

from lsdr.monitor.monitor import Monitor
from lsdr.probes.features import FeatureProbe
from lsdr.probes.tracked import TrackedWeightProbe


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 2))


def train(model, called, monitor, steps=6):
    """Train; the features' values by step, and the parameters at the end."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        x = torch.randn(8, 4, generator=generator)
        with monitor.at(step):
            called(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def main(backend):
    torch.set_num_threads(1)
    history = []

    def log(values, step):
        history.append((step, {name: value for name, value in values.items() if name.startswith("features")}))

    model = build()
    expected = train(model, model, Monitor(model, [FeatureProbe("*")], every=2, budget=None, log=log))
    plain, history[:] = list(history), []
    assert [step for step, _ in plain] == [0, 2, 4]

    # Made before the model's first compiled call, and after it; told as the compiled model, and as the plain one.
    for late in (False, True):
        model = build()
        compiled = torch.compile(model, backend=backend)
        if late:
            compiled(torch.randn(8, 4))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            got = train(model, compiled, Monitor(compiled, [FeatureProbe("*")], every=2, budget=None, log=log))
        said = [str(each.message) for each in caught if "without the compiler" in str(each.message)]
        assert len(said) == 1, said
        assert [step for step, _ in history] == [0, 2, 4]
        assert all(torch.isfinite(torch.tensor(list(values.values()))).all() for _, values in history)
        for (_, mine), (_, theirs) in zip(history, plain, strict=True):
            assert mine.keys() == theirs.keys()
            for name in mine:
                torch.testing.assert_close(mine[name], theirs[name], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
        history.clear()
        torch.compiler.reset()
        print("features", "late" if late else "early", "ok", flush=True)

    # Weights alone leave a compiled run bitwise as it is.
    model = build()
    compiled = torch.compile(model, backend=backend)
    never = Monitor(model, [FeatureProbe("*")], every=10**9, budget=None)
    never._measured_at = 0
    without = train(model, compiled, never)
    torch.compiler.reset()
    model = build()
    compiled = torch.compile(model, backend=backend)
    with_weights = train(model, compiled, Monitor(compiled, [TrackedWeightProbe()], every=1, budget=None))
    torch.testing.assert_close(with_weights, without, rtol=0, atol=0)
    print("weights ok", flush=True)

    # A compiled step, where the model itself is plain.
    torch.compiler.reset()
    model = build()
    step = torch.compile(lambda x: model(x), backend=backend)
    step(torch.randn(8, 4))
    train(model, step, Monitor(model, [FeatureProbe("0")], every=2, budget=None, log=log))
    assert [step for step, _ in history] == [0, 2, 4]
    print("compiled function ok", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
