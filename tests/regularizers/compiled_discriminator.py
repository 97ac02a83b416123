"""Gradients of a discriminator with a compiled model, against the same uncompiled: run as a process.

Arguments: "learned" for `LearnedSpectralDiscriminator`; none for `SpectralDiscriminator`.
"""

import copy
import sys
from pathlib import Path

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x, sigma, conditioning=None):
        return self.outer(torch.tanh(self.inner(x))) * (1 + sigma.view(-1, 1, 1, 1))


def main(learned):
    sys.path.insert(0, str(Path(__file__).parent))
    import discriminated

    from lsdr.regularizers.attach import attach
    from lsdr.regularizers.layer_spectra import LayerSpectra
    from lsdr.regularizers.learned_spectral_discriminator import LearnedSpectralDiscriminator
    from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator

    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = Block()
    compiled = copy.deepcopy(plain)
    clean = discriminated.smooth(32, 3, 8, 8, dtype=torch.float32)
    sigma = torch.full((32,), 0.3)
    regularizer = SpectralDiscriminator(features=("radial", "focal", LayerSpectra("inner")), weight=1.0)
    if learned:
        regularizer = LearnedSpectralDiscriminator(weight=1.0, hidden=8, learn=32)
    found = []
    for model in (plain, compiled):
        with attach(model, regularizer) as penalty:
            runner = torch.compile(model, backend="aot_eager") if model is compiled else model
            for _ in range(4):
                generator = torch.Generator().manual_seed(1)
                noisy = clean + 0.3 * torch.randn(clean.shape, generator=generator)
                context = {"denoiser": runner, "clean": clean, "sigma": sigma, "generator": generator}
                model.zero_grad()
                value = penalty(denoised=runner(noisy, sigma), **context)
                (value + 0 * model.outer.bias.sum()).backward()
            with penalty.observe():
                runner(noisy, sigma)
                runner(noisy, sigma)
            count = sum(term.observed() for term in penalty._terms.values())
        found.append((value.detach(), [each.grad for each in model.parameters() if each.grad is not None], count))
    assert found[0][0] > 0
    assert found[0][2] == found[1][2] == 2, (found[0][2], found[1][2])
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1:] == ["learned"])
