"""Penalties on compiled models, run as a process of its own: compilers warn on import and keep global state.

Prints one line a scenario; a failed assertion fails the process.
"""

import sys
import warnings

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation

torch.set_num_threads(1)


def unet():
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.SiLU(), nn.Conv2d(6, 3, 3))


def run(model, call, layers, inputs, steps=2):
    """Gradients and value of the last of a few steps of training, with a no-gradient forward between."""
    with attach(call, SpectralDecorrelation(layers=layers, weight=1.0)) as penalty:
        for _ in range(steps):
            model.zero_grad()
            out = call(*inputs)
            out = out if isinstance(out, torch.Tensor) else out.sample
            result = penalty()
            (out.float().square().mean() + result).backward()
            with torch.no_grad():
                call(*inputs)
    return result.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def check(name, actual, expected):
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=0)
    assert expected[0] > 1e-3
    distance = (actual[1] - expected[1]).norm() / expected[1].norm()
    assert distance < 1e-5, distance
    print(name, "ok", flush=True)


def main(backend):
    build, layers, inputs = {
        "inductor": (small, "2", (torch.randn(6, 3, 8, 8),)),
        "aot_eager": (unet, "mid_block*", (torch.randn(6, 3, 8, 8), torch.rand(6))),
    }[backend]
    model = build()
    expected = run(model, model, layers, inputs)

    model = build()
    compiled = torch.compile(model, backend=backend)
    check("attached before the first call", run(model, compiled, layers, inputs), expected)
    if backend == "inductor":
        more(compiled, layers, inputs, expected[0])
    else:
        torch.compiler.reset()
        model = build().train()
        model.enable_gradient_checkpointing()
        check("checkpointed", run(model, torch.compile(model, backend=backend), layers, inputs), expected)


def more(compiled, layers, inputs, expected):
    """What a small model is enough for."""
    with attach(compiled, SpectralDecorrelation(layers=layers, weight=1.0)) as penalty:
        compiled(*inputs)
        torch.testing.assert_close(penalty().detach(), expected, rtol=1e-5, atol=0)
        (term,) = penalty._terms.values()
    # The hooks are compiled in; they must keep nothing once the context is left.
    compiled(*inputs)
    assert all(not outputs for outputs in term._features._outputs.values())
    print("attached again ok", flush=True)

    torch.compiler.reset()
    compiled = torch.compile(small())
    compiled(*inputs)
    with attach(compiled, SpectralDecorrelation(layers=layers, weight=1.0)) as penalty:
        compiled(*inputs)
        with pytest.raises(RuntimeError, match="attach before its first call"):
            penalty()
        torch.compiler.reset()
        compiled(*inputs)
        torch.testing.assert_close(penalty().detach(), expected, rtol=1e-5, atol=0)
    print("attached too late ok", flush=True)

    torch.compiler.reset()
    compiled = torch.compile(small())
    halves = [tuple(part[:2] for part in inputs), tuple(part[2:] for part in inputs)]
    with attach(compiled, SpectralDecorrelation(layers=layers, weight=1.0)) as penalty:
        with penalty.observe():
            for half in halves:
                compiled(*half)
        parts = []
        for half in halves:
            compiled(*half)
            parts.append(penalty().detach())
    torch.testing.assert_close(sum(parts), expected, rtol=1e-5, atol=0)
    print("observed in chunks ok", flush=True)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compilers'
        main(sys.argv[1])
