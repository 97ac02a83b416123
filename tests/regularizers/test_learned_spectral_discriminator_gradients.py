"""The learned discriminator's gradient through a U-Net with attention, checkpointed, in bfloat16, compiled."""

import importlib.util
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lsdr.regularizers.attach import attach
from lsdr.regularizers.learned_spectral_discriminator import LearnedSpectralDiscriminator

_spec = importlib.util.spec_from_file_location("discriminated", Path(__file__).with_name("discriminated.py"))
discriminated = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(discriminated)
net, smooth = discriminated.net, discriminated.smooth


def batch(dtype=torch.float64):
    clean, sigma = smooth(6, 3, 8, 8, seed=1, dtype=dtype), torch.linspace(0.1, 1, 6, dtype=dtype)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return clean, clean + sigma.view(-1, 1, 1, 1) * noise.to(dtype), sigma


@contextmanager
def taught(model, dtype=torch.float64):
    """Attached, with a critic that has seen some estimates of white noise among smooth images."""
    clean = smooth(24, 3, 8, 8, seed=5, dtype=dtype)
    white = 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(dtype)
    with attach(model, LearnedSpectralDiscriminator(weight=1.0, hidden=8, lr=0.02, learn=48)) as penalty:
        for _ in range(8):
            penalty(denoised=white.clone().requires_grad_(), clean=clean, sigma=clean.new_tensor(0.1))
        yield penalty


def found(model, penalty, dtype=torch.float64):
    clean, noisy, sigma = batch(dtype)
    with penalty.aside():
        value = penalty(denoised=model(noisy, sigma), clean=clean, sigma=sigma)
    value.backward()
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    for each in model.parameters():
        each.grad = None
    return value.detach(), gradients


def test_gradient_through_a_unet_with_attention():
    model = net()
    with taught(model) as penalty:
        _, gradients = found(model, penalty)
        random = torch.Generator().manual_seed(3)
        parameters = list(model.parameters())
        direction = [torch.randn(each.shape, generator=random, dtype=each.dtype) for each in parameters]
        ends = []
        for sign in (1e-6, -2e-6):
            with torch.no_grad():
                for parameter, way in zip(parameters, direction, strict=True):
                    parameter += sign * way
            ends.append(float(found(model, penalty)[0]))
    slope = (ends[0] - ends[1]) / 2e-6
    assert abs(slope) > 1e-4
    product = sum(float((gradient * way).sum()) for gradient, way in zip(gradients, direction, strict=True))
    assert product == pytest.approx(slope, rel=1e-5)


def test_checkpointing_changes_nothing():
    several = []
    for checkpointed in (False, True):
        model = net()
        if checkpointed:
            model.model.enable_gradient_checkpointing()
        with taught(model) as penalty:
            several.append(found(model, penalty))
    assert sum(each.norm() for each in several[0][1]) > 0
    torch.testing.assert_close(several[0], several[1], rtol=1e-9, atol=1e-12)


def test_bfloat16_autocast_costs_the_model_digits_but_not_the_critic():
    model = net(torch.float32)
    clean, noisy, sigma = batch(torch.float32)
    with taught(model, torch.float32) as penalty:
        with torch.autocast("cpu", torch.bfloat16), penalty.aside():
            denoised = model(noisy, sigma)
            inside = penalty(denoised=denoised, clean=clean, sigma=sigma)
        inside.backward()
        outside = penalty(denoised=denoised.detach().requires_grad_(), clean=clean, sigma=sigma)
    assert inside.dtype == torch.float32
    assert inside.detach() == outside.detach()
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    assert all(each.isfinite().all() for each in gradients)
    assert sum(each.norm() for each in gradients) > 0


def test_compiled():
    script = str(Path(__file__).with_name("compiled_discriminator.py"))
    command = [sys.executable, "-W", "ignore", script, "learned"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
