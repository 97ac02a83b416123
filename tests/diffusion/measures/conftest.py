"""Denoisers whose every measure is known in closed form."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsdr.diffusion.edm import EDMDenoiser


@dataclass
class Gaussian:
    """The optimal denoiser of independent pixels: normal with the given mean and variance."""

    mean: Tensor
    variance: Tensor
    model: Any = None
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __call__(self, x, sigma, conditioning=None):
        sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return self.mean + self.variance / (self.variance + sigma**2) * (x - self.mean)

    def draw_sigma(self, uniform):
        return EDMDenoiser(None).draw_sigma(uniform)

    def uniform_weight(self, sigma):
        return torch.ones_like(sigma)


@pytest.fixture
def gaussian():
    return Gaussian


class Tiny(nn.Module):
    """A network that is nonlinear, takes labels, and in training mode draws from the global generator."""

    def __init__(self, channels=1, width=6, classes=3):
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.5)
        self.embedding = nn.Embedding(classes, width)
        self.time = nn.Linear(1, width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x, t, class_labels=None):
        hidden = self.norm(self.first(x)) + self.time(t[:, None])[:, :, None, None]
        if class_labels is not None:
            hidden = hidden + self.embedding(class_labels)[:, :, None, None]
        return self.last(self.dropout(torch.tanh(hidden)))


@pytest.fixture
def tiny():
    """A small network under EDM preconditioning, with weights that do not depend on the test's order."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tiny()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return EDMDenoiser(model)


@pytest.fixture
def unchanged():
    """Compare what measuring must leave alone, before and after."""

    def state(model):
        return (
            {name: value.clone() for name, value in model.state_dict().items()},
            [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            [p.requires_grad for p in model.parameters()],
            [module.training for module in model.modules()],
            torch.get_rng_state(),
        )

    def same(before, after):
        def equal(a, b):
            return a is b is None or (a is not None and b is not None and torch.equal(a, b))

        return (
            all(torch.equal(before[0][name], after[0][name]) for name in before[0])
            and all(map(equal, before[1], after[1]))
            and before[2:4] == after[2:4]
            and torch.equal(before[4], after[4])
        )

    class Unchanged:
        def __init__(self, model):
            # Flags and gradients of mixed kinds, so that "everything reset" would be noticed.
            model.train()
            model.norm.eval()
            model.last.bias.requires_grad_(False)
            model.first.weight.grad = torch.ones_like(model.first.weight)
            self.model, self.before = model, state(model)

        def __bool__(self):
            return same(self.before, state(self.model))

    return Unchanged
