"""Penalties of a compiled network are those of the network: run by a test in a process of its own."""

import sys
from pathlib import Path

import torch
from torch import nn

from lsdr.diffusion.edm import EDMDenoiser
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decomposition import SpectralDecomposition


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, x, t):
        return self.layers(x) * t.cos().view(-1, 1, 1, 1)


def gradients(net, compiled):
    sys.path.insert(0, str(Path(__file__).parent))
    from decomposed import generator

    torch.compiler.reset()
    x = torch.randn(4, 1, 4, 4, generator=generator(5))
    sigma = torch.tensor([0.5, 2.0, 1.0, 0.1])
    found = []
    regularizers = [
        SpectralDecomposition(weight=1.0, fraction=0.5),
        SpectralDecomposition(penalty="hinge", bound=0.0, weight=1.0, fraction=0.5),
    ]
    with attach(net, *regularizers) as penalty:
        model = torch.compile(net) if compiled else net
        denoiser = EDMDenoiser(model)
        for step in range(3):
            net.zero_grad()
            denoised = denoiser(x, sigma)
            value = penalty(denoiser=denoiser, noisy=x, sigma=sigma, denoised=denoised, generator=generator(step))
            (denoised.square().mean() + value).backward()
            found += [value.detach(), *(parameter.grad.clone() for parameter in net.parameters())]
        assert penalty._terms["SpectralDecomposition"].chosen == "finite differences, from the training pass, float32"
    return found


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = Network()
    plain, compiled = gradients(net, False), gradients(net, True)
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(b, a, rtol=2e-2, atol=1e-3)


if __name__ == "__main__":
    main()
