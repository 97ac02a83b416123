"""The gradient of `SpectralDiscriminator` reaches the parameters, and is right: against float64 finite differences."""

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator
from lsdr.regularizers.spectral_features import AmplitudePhase, BlockDCT

_spec = importlib.util.spec_from_file_location("discriminated", Path(__file__).with_name("discriminated.py"))
discriminated = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(discriminated)
learnt, net, smooth = discriminated.learnt, discriminated.net, discriminated.smooth

SIGMA = torch.tensor([0.1, 0.5, 2.0, 0.3], dtype=torch.float64)


def encoder():
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, stride=2)).double()


FEATURES = {
    "radial": "radial",
    "amplitude_phase": AmplitudePhase(1, 0.2),
    "dct": BlockDCT(weights="jpeg"),
    "wavelet": "wavelet",
    "layers": LayerSpectra(layers=["0", "2"], encoder=encoder()),
    "own": LayerSpectra(layers=["*mid_block*", "*up_blocks.0"]),
}


def data():
    clean = smooth(4, 3, 8, 8, seed=1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return clean, clean + SIGMA.view(-1, 1, 1, 1) * noise


def generator():
    return torch.Generator().manual_seed(7)


def gradients(model):
    found = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    model.zero_grad()
    return found


def directional(loss, parameters, step=1e-6):
    """Slope of `loss()` along a random direction in the parameters, and the direction."""
    random = torch.Generator().manual_seed(3)
    direction = [torch.randn(each.shape, generator=random, dtype=each.dtype) for each in parameters]
    values = []
    for sign in (step, -2 * step, step):
        with torch.no_grad():
            for parameter, way in zip(parameters, direction, strict=True):
                parameter += sign * way
            values.append(float(loss()))
    return (values[0] - values[1]) / (2 * step), direction


@pytest.mark.parametrize(
    ("name", "noise"),
    [(name, "wiener") for name in FEATURES]
    + [(name, noise) for name in ("radial", "amplitude_phase") for noise in ("bracket", "snr", "none")],
)
def test_gradient_through_a_unet_with_attention(name, noise):
    model, (clean, noisy) = net(), data()
    # The features of a copy that stays as it is: the network's own parameters get no gradient from looking into it.
    denoiser = copy.deepcopy(model)
    regularizer = SpectralDiscriminator(features=(FEATURES[name],), weight=3.0, noise=noise, tolerance=0.3)
    context = {"denoiser": denoiser, "generator": generator()}
    with learnt(denoiser if name == "own" else model, regularizer, smooth(32, 3, 8, 8), **context) as penalty:

        def loss():
            return penalty(
                denoised=model(noisy, SIGMA), clean=clean, sigma=SIGMA, denoiser=denoiser, generator=generator()
            )

        with penalty.aside():
            loss().backward()
        assert all(each.grad is None for each in denoiser.parameters())
        found = gradients(model)
        slope, direction = directional(loss, list(model.parameters()))
    product = sum((gradient * way).sum() for gradient, way in zip(found, direction, strict=True))
    assert abs(slope) > 1e-4
    assert float(product) == pytest.approx(slope, rel=1e-5)


def test_focal_weights_are_constants():
    """Not the derivative of the value, but that of the value with its weights held fixed."""
    model, (clean, noisy) = net(), data()
    regularizer = SpectralDiscriminator(features=("focal",), weight=1.0, noise="none", tolerance=None)
    with learnt(model, regularizer, clean) as penalty:
        denoised = model(noisy, SIGMA)
        denoised.retain_grad()
        penalty(denoised=denoised, clean=clean).backward()
    difference = torch.fft.fft2(denoised.detach() - clean, norm="ortho")
    weight = difference.abs() / difference.abs().amax((1, 2, 3), keepdim=True)
    expected = 2 * torch.fft.ifft2(weight * difference, norm="ortho").real / clean.numel()
    torch.testing.assert_close(denoised.grad, expected)


@pytest.mark.parametrize("name", ["radial", "layers", "own"])
def test_checkpointing_changes_nothing(name):
    clean, noisy = data()
    found = []
    for checkpointed in (False, True):
        model = net()
        if checkpointed:
            model.model.enable_gradient_checkpointing()
        with learnt(
            model,
            SpectralDiscriminator(features=(FEATURES[name],), weight=1.0),
            smooth(32, 3, 8, 8),
            denoiser=model,
            generator=generator(),
        ) as penalty:
            denoised = model(noisy, SIGMA)
            context = {"denoised": denoised, "clean": clean, "sigma": SIGMA, "denoiser": model}
            penalty(**context, generator=generator()).backward()
        found.append(gradients(model))
    assert sum(each.norm() for each in found[0]) > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FEATURES)
def test_bfloat16_autocast_costs_the_model_digits_but_not_the_spectra(name):
    feature = FEATURES[name]
    if name == "layers":
        feature = LayerSpectra(layers=["0", "2"], encoder=encoder().float())
    model, (clean, noisy) = net(torch.float32), data()
    regularizer = SpectralDiscriminator(features=(feature,), weight=1.0)
    context = {"clean": clean.float(), "sigma": SIGMA.float(), "denoiser": model}
    with learnt(
        model, regularizer, smooth(32, 3, 8, 8, dtype=torch.float32), denoiser=model, generator=generator()
    ) as penalty:
        with torch.autocast("cpu", torch.bfloat16), penalty.aside():
            denoised = model(noisy.float(), SIGMA.float())
            inside = penalty(denoised=denoised, **context, generator=generator())
        inside.backward()
        outside = penalty(denoised=denoised.detach().requires_grad_(), **context, generator=generator())
    assert inside.dtype == torch.float32
    assert inside.detach() == outside.detach() > 0
    found = gradients(model)
    assert all(each.isfinite().all() for each in found)
    assert sum(each.norm() for each in found) > 0


def test_estimates_in_half_precision_are_raised():
    clean, noisy = data()
    model = net(torch.float32)
    with learnt(model, SpectralDiscriminator(weight=1.0), smooth(32, 3, 8, 8, dtype=torch.float32)) as penalty:
        denoised = model(noisy.float(), SIGMA.float()).bfloat16()
        found = penalty(denoised=denoised, clean=clean.bfloat16(), sigma=SIGMA.bfloat16())
        found.backward()
    assert found.dtype == torch.float32
    assert sum(each.norm() for each in gradients(model)) > 0


def test_compiled():
    script = str(Path(__file__).with_name("compiled_discriminator.py"))
    result = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
