"""Hooks: none is left behind, none fires where it must not, none stays silent unnoticed; on a real diffusers model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from lsdr.layers.capture import capture
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation


def unet(seed=0):
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def watch(model, layers):
    return capture(model, layers, lambda name, module, output: None)


def regularize(model, layers):
    return attach(model, SpectralDecorrelation(layers=layers), SpectralDecorrelation(layers="mid_block.*"))


@pytest.mark.parametrize("enter", [watch, regularize])
def test_no_hook_is_left_in_any_of_three_modes(enter):
    model = unet()
    inputs = torch.randn(2, 3, 8, 8), torch.rand(2)
    with enter(model, "*resnets.*"):
        model(*inputs)
        assert hooks(model) > 0
    assert hooks(model) == 0

    def raising_body():
        with enter(model, "*resnets.*"):
            model(torch.randn(2, 5, 8, 8), torch.rand(2))  # a wrong number of channels

    with pytest.raises(RuntimeError, match="channels"):
        raising_body()
    assert hooks(model) == 0

    with pytest.raises(ValueError, match="matches"), enter(model, "no such layer"):
        pass
    assert hooks(model) == 0


def test_capture_is_the_only_place_that_registers_hooks():
    source = Path(__file__).parents[2] / "src" / "lsdr"
    files = [path for path in source.rglob("*.py") if "register_forward" in path.read_text(encoding="utf-8")]
    assert files == [source / "layers" / "capture.py"]


def train(model, steps=3, **autocast):
    """The loop that a user writes by hand; gives the losses and the final parameters."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    with attach(model, SpectralDecorrelation(layers="mid_block*", weight=0.5)) as penalty:
        for _ in range(steps):
            clean = torch.randn(4, 3, 8, 8, generator=generator)
            noise = torch.randn(4, 3, 8, 8, generator=generator)
            t = torch.rand(4, generator=generator)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(autocast)):
                predicted = model(clean.lerp(noise, t[:, None, None, None]), 1000 * t).sample
                loss = (predicted - noise).square().mean() + penalty()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            history.append((loss.detach(), penalty.values["SpectralDecorrelation/mid_block"]))
            with torch.no_grad():  # a sample now and then
                model(noise, 999)
    return history, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_loop_by_hand_lowers_the_penalty_and_checkpointing_changes_nothing():
    history, parameters = train(unet(), steps=8)
    assert history[-1][1] < 0.9 * history[0][1]
    checkpointed = unet().train()
    checkpointed.enable_gradient_checkpointing()
    again, same = train(checkpointed, steps=8)
    torch.testing.assert_close(again, history, rtol=1e-5, atol=0)
    torch.testing.assert_close(same, parameters, rtol=1e-4, atol=1e-6)


def test_the_loop_under_autocast_keeps_the_penalty_in_float32():
    (first, *_), _ = train(unet(), steps=1)
    (half, *_), _ = train(unet(), steps=1, bfloat16=True)
    assert half[1].dtype == torch.float32
    torch.testing.assert_close(half[1], first[1], rtol=0.05, atol=0)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_models(backend):
    script = Path(__file__).with_name("compiled_hooks.py")
    result = subprocess.run(
        [sys.executable, str(script), backend], capture_output=True, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count(" ok\n") == {"aot_eager": 2, "inductor": 4}[backend], result.stdout
