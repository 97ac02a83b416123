"""Cosine and wavelet transforms, amplitudes and phases against scipy, PyWavelets, numpy and the colours of Pillow."""

import numpy as np
import pytest
import pywt
import torch
from PIL import Image
from scipy.fft import dctn

from lsdr.fourier.amplitude_phase import amplitude_phase_distance, coefficients
from lsdr.fourier.block_dct import block_dct, jpeg_weights, rgb_to_ycbcr
from lsdr.fourier.wavelet import wavelet_coefficients


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("dims", "size"), [((16,), 8), ((16, 24), 8), ((6, 9), 3), ((4, 8, 4), 4)])
def test_scipys_cosine_transform(dims, size):
    images = draw(2, 2, *dims)
    found = block_dct(torch.from_numpy(images), size).numpy()
    for block in np.ndindex(*[d // size for d in dims]):
        within = tuple(slice(size * i, size * (i + 1)) for i in block)
        expected = dctn(images[(..., *within)], norm="ortho", axes=tuple(range(2, 2 + len(dims))))
        np.testing.assert_allclose(
            found[(slice(None), slice(None), *block)].reshape(expected.shape), expected, atol=1e-12
        )


@pytest.mark.parametrize("table", ["luminance", "chrominance"])
def test_the_tables_of_libjpeg_at_quality_85(table, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "image.jpg", quality=85)
    with Image.open(tmp_path / "image.jpg") as image:
        steps = np.array(image.quantization[("luminance", "chrominance").index(table)], dtype=float)  # natural order
    np.testing.assert_allclose(jpeg_weights(table).numpy(), (1 / steps) / (1 / steps).mean(), rtol=1e-12)


def test_the_colours_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).convert("YCbCr"), dtype=float)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 127.5 - 1
    ours = rgb_to_ycbcr(images)[0].permute(1, 2, 0).numpy()
    # Pillow rounds and puts colour differences of 0 at 128
    np.testing.assert_allclose(127.5 * (ours + 1) + [0, 0.5, 0.5], theirs, atol=1.01)


@pytest.mark.parametrize(
    ("dims", "wavelet", "levels"),
    [
        ((16,), "haar", 3),
        ((23,), "db4", 1),
        ((8, 8), "haar", 2),
        ((9, 7), "haar", 2),
        ((21, 18), "db2", 2),
        ((13, 11), "bior1.3", 1),
        ((5, 6, 7), "haar", 2),
        ((9, 8, 7), "db2", 1),
    ],
)
def test_pywavelets(dims, wavelet, levels):
    images = draw(2, 2, *dims)
    axes = tuple(range(2, 2 + len(dims)))
    coarse, *details = pywt.wavedecn(images, wavelet, mode="symmetric", level=levels, axes=axes)
    order = {1: ["d"], 2: ["da", "ad", "dd"], 3: ["aad", "ada", "add", "daa", "dad", "dda", "ddd"]}[len(dims)]
    bands = [coarse] + [level[name] for level in details for name in order]
    expected = np.concatenate([band.reshape(2, -1) for band in bands], 1)
    found = wavelet_coefficients(torch.from_numpy(images), wavelet, levels)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dims", [(9,), (6, 5), (3, 4, 5)])
def test_numpys_full_transform(dims):
    """The weighted half of the coefficients is the whole: amplitudes and angles taken from all of them."""
    one, other = draw(2, 3, *dims), draw(2, 3, *dims, seed=1)
    axes = tuple(range(2, 2 + len(dims)))
    F, G = np.fft.fftn(one, axes=axes, norm="ortho"), np.fft.fftn(other, axes=axes, norm="ortho")
    expected = 2 * (abs(F) - abs(G)) ** 2 + 0.5 * 2 * abs(F) * abs(G) * (1 - np.cos(np.angle(F) - np.angle(G)))
    (a, often), (b, _) = coefficients(torch.from_numpy(one)), coefficients(torch.from_numpy(other))
    found = (amplitude_phase_distance(a, b, amplitude=2.0, phase=0.5) * often).sum(1)
    np.testing.assert_allclose(found.numpy(), expected.reshape(2, -1).sum(1), rtol=1e-12)
