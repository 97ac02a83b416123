"""Wavelet coefficients: an orthonormal Haar transform, gradients, and errors that help."""

import builtins
import math

import pytest
import torch

from lsdr.fourier.wavelet import wavelet_coefficients


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", [(16,), (8, 12), (4, 8, 4)])
def test_haar_is_orthonormal_where_the_size_fits(dims):
    one, other = draw(2, 3, *dims), draw(2, 3, *dims, seed=1)
    a, b = wavelet_coefficients(one), wavelet_coefficients(other)
    assert a.shape == (2, 3 * math.prod(dims))
    torch.testing.assert_close((a * b).sum(1), (one * other).flatten(1).sum(1))


def test_the_coarse_part_comes_first():
    found = wavelet_coefficients(draw(1, 2, 8, 8) * 0 + 1, levels=3)
    assert found[0, :2].tolist() == pytest.approx([8, 8])
    assert found[0, 2:].abs().max() < 1e-12
    checkerboard = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)).double()
    fine = wavelet_coefficients(checkerboard[None, None], levels=3)[0]
    assert fine[:-16].abs().max() < 1e-12
    assert fine[-16:].abs().min() > 1


@pytest.mark.parametrize(
    ("dims", "wavelet"), [((7,), "db2"), ((5, 4), "haar"), ((4, 6, 5), "haar"), ((10, 11), "bior1.3")]
)
def test_gradients_match_finite_differences(dims, wavelet):
    images = draw(1, 1, *dims).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: wavelet_coefficients(x, wavelet, 1), (images,))


def test_half_precision_is_computed_in_float32_also_under_autocast():
    images = draw(2, 1, 9, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = wavelet_coefficients(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, wavelet_coefficients(images.float()))


def test_unknown_wavelets_and_too_many_levels_are_refused():
    with pytest.raises(ValueError, match="unknown wavelet 'hare'"):
        wavelet_coefficients(torch.ones(1, 1, 8, 8), "hare")
    for levels in (0, 3):
        with pytest.raises(ValueError, match=f"6x4 can be split by 'haar' 1 to 2 times, got levels={levels}"):
            wavelet_coefficients(torch.ones(1, 1, 6, 4), levels=levels)
    with pytest.raises(ValueError, match="8x8 are too small for one level of 'db8'"):
        wavelet_coefficients(torch.ones(1, 1, 8, 8), "db8")


def test_the_error_without_the_toolbox_says_what_to_install(monkeypatch):
    def without(name, *rest, **more):
        if name in ("ptwt", "pywt"):
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'lsdr\[wavelets\]'"):
        wavelet_coefficients(torch.ones(1, 1, 8, 8))
