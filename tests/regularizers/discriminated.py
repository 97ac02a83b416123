"""What the tests of `SpectralDiscriminator` share: a small U-Net with attention, images, and a term that has learnt."""

from contextlib import contextmanager

import torch
from torch import nn

from lsdr.regularizers.attach import attach


class Net(nn.Module):
    """A denoiser D(x, sigma) around a U-Net."""

    def __init__(self, dropout=0.0):
        super().__init__()
        from diffusers import UNet2DModel  # which takes seconds, and most users of this file do without

        self.model = UNet2DModel(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            block_out_channels=(4, 8),
            layers_per_block=1,
            norm_num_groups=2,
            attention_head_dim=4,
            dropout=dropout,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, x, sigma, conditioning=None):
        level = sigma.expand(len(x)).view(-1, *[1] * (x.ndim - 1)).to(x)
        return (x + level * self.model(x / (1 + level), 10 * level.flatten()).sample) / (1 + level**2)


def net(dtype=torch.float64, **settings):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Net(**settings).to(dtype)


def smooth(*shape, seed=0, dtype=torch.float64):
    """Images with a spectrum that falls."""
    white = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes = tuple(range(2, len(shape)))
    grid = [torch.fft.fftfreq(size) for size in shape[2:-1]] + [torch.fft.rfftfreq(shape[-1])]
    radius = sum(part.square() for part in torch.meshgrid(*grid, indexing="ij")).sqrt().double()
    coloured = torch.fft.rfftn(white, dim=axes, norm="ortho") * 0.1 / (0.1 + radius)
    return torch.fft.irfftn(coloured, dim=axes, s=shape[2:], norm="ortho").to(dtype)


def learn(penalty, clean, **context):
    """Two steps on clean images, after which the penalty is what it will be."""
    for _ in range(2):
        penalty(denoised=clean.clone().requires_grad_(), clean=clean, sigma=clean.new_tensor(0.1), **context)


@contextmanager
def learnt(model, regularizer, clean, **context):
    """Attached, after two steps on clean images."""
    with attach(model, regularizer) as penalty:
        learn(penalty, clean, **context)
        yield penalty
