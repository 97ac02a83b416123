"""The radial power spectrum against numpy's full Fourier transform, coefficient by coefficient."""

import numpy as np
import pytest
import torch

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum


@pytest.mark.parametrize(
    "size", [(8, 8), (7, 9), (8, 32), (32, 5), (1, 10), (11, 11), (10,), (7,), (4, 6, 5), (5, 5, 5), (2, 9, 4)]
)
def test_numpy_agrees(size):
    images = np.random.default_rng(0).normal(size=(2, 3, *size))
    squared = np.abs(np.fft.fftn(images, axes=tuple(range(2, images.ndim)), norm="ortho")) ** 2
    sums: dict[int, list[np.ndarray]] = {}
    for place in np.ndindex(*size):
        frequency = [np.fft.fftfreq(n)[i] for n, i in zip(size, place, strict=True)]
        ring = round(max(size) * float(np.linalg.norm(frequency)))
        sums.setdefault(ring, []).append(squared[(slice(None), slice(None), *place)].mean(1))
    expected = np.stack([np.mean(sums[ring], axis=0) for ring in sorted(sums)], axis=1)
    spectrum = radial_power_spectrum(torch.from_numpy(images), corners=True)
    np.testing.assert_allclose(spectrum.power.numpy(), expected, rtol=1e-12)
    assert spectrum.count.tolist() == [len(sums[ring]) for ring in sorted(sums)]
    inside = radial_power_spectrum(torch.from_numpy(images))
    np.testing.assert_allclose(inside.power.numpy(), expected[:, : max(size) // 2 + 1], rtol=1e-12)
