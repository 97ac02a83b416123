"""What the tests of diffusion share."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn


class Wiener(nn.Module):
    """The posterior mean of Gaussian data with the mean and covariance of some images, as a network.

    Args:
        images: The images, shape (n, c, h, w).
        prediction: "epsilon", "v", "sample", "edm" or "flow".
    """

    def __init__(self, images, prediction):
        super().__init__()
        self.prediction = prediction
        self.config = SimpleNamespace(in_channels=images.shape[1], sample_size=images.shape[-1])
        rows = images.flatten(1).double()
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("values", values.clamp_min(0))
        self.register_buffer("vectors", vectors)
        alphas = DDPMScheduler().alphas_cumprod.double()
        self.register_buffer("table", ((1 - alphas) / alphas).sqrt())
        self.scale = nn.Parameter(torch.ones(()))

    def denoise(self, x, sigma):
        """D(x, sigma) in the exploding frame, in float64."""
        rotated = (x.flatten(1) - self.mean) @ self.vectors
        kept = rotated * self.values / (self.values + sigma[:, None] ** 2)
        return (kept @ self.vectors.T + self.mean).view_as(x)

    def forward(self, x_in, t, class_labels=None):
        column = [-1, *[1] * (x_in.ndim - 1)]
        given, t = x_in.double(), t.double()
        if self.prediction == "edm":
            sigma = (4 * t).exp()
            level, total = sigma.view(column), (sigma.view(column) ** 2 + 0.25).sqrt()
            x = given * total
            output = (self.denoise(x, sigma) - 0.25 / total**2 * x) / (level * 0.5 / total)
        elif self.prediction == "flow":
            sigma = (t / 1000) / (1 - t / 1000)
            level = sigma.view(column)
            x = given * (1 + level)
            output = (given - self.denoise(x, sigma)) * (1 + level) / level
        else:
            low = t.floor().clamp(0, 998).long()
            share = t - low
            sigma = ((1 - share) * self.table[low].log() + share * self.table[low + 1].log()).exp()
            level = sigma.view(column)
            alpha = (1 + level**2).rsqrt()
            x = given / alpha
            clean = self.denoise(x, sigma)
            noise = (x - clean) / level
            output = {"epsilon": noise, "v": alpha * noise - level * alpha * clean, "sample": clean}[self.prediction]
        return (self.scale * output).to(x_in.dtype)


@pytest.fixture
def wiener():
    """A network that predicts what the best linear denoiser of given images would, in every way of predicting."""
    return Wiener
