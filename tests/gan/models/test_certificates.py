"""Discriminators held to a Lipschitz bound: the certificate, and no pair of points beyond it."""

from contextlib import ExitStack

import jaxtyping
import pytest
import torch

from lsdr.gan.models.build import build_players
from lsdr.gan.models.residual import Residual
from lsdr.regularizers.attach import attach
from lsdr.regularizers.lipschitz_bound import lipschitz_bound
from lsdr.regularizers.spectral_normalization import SpectralNormalization

BLOCK = 1.5


@pytest.fixture(autouse=True)
def traceable():
    """torch.fx calls the networks with proxies, which the check of types in tests would refuse."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def controls(discriminator):
    """Blocks of 1.5, all other layers of 1."""
    branches = [name for name, each in discriminator.named_modules() if isinstance(each, Residual)]
    everything = SpectralNormalization(bound=1.0)
    if not branches:
        return [everything]
    return [everything, SpectralNormalization.residual(discriminator, "*.branch", BLOCK)]


def trained(model, shape, normalization="none", steps=20):
    """A discriminator that was pushed against its bounds."""
    torch.manual_seed(0)
    _, discriminator = build_players(model, shape, discriminator_normalization=normalization)
    discriminator.eval()
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.03)
    real, fake = torch.randn(32, *shape), torch.randn(32, *shape) * 0.3 + 0.5
    with ExitStack() as stack:
        penalties = [stack.enter_context(attach(discriminator, each)) for each in controls(discriminator)]
        for _ in range(steps):
            optimizer.zero_grad()
            (discriminator(fake).mean() - discriminator(real).mean()).backward()
            optimizer.step()
            for penalty in penalties:
                penalty.project_()
    return discriminator


@pytest.mark.parametrize("model", ["mlp", "residual-mlp", "pacgan-toy"])
def test_no_pair_of_points_exceeds_the_certificate(model):
    discriminator = trained(model, (2,))
    certificate = lipschitz_bound(discriminator, (2,))
    axis = torch.linspace(-3, 3, 41, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    logits = discriminator.double()(points).detach()
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    quotients = (logits[:, None] - logits).abs() / distances.fill_diagonal_(float("inf"))
    steepest = float(quotients.max())
    print(f"{model}: steepest {steepest:.3g}, certified {certificate.bound:.3g}")
    assert steepest <= certificate.bound
    blocks = sum(isinstance(each, Residual) for each in discriminator.modules())
    assert certificate.bound <= BLOCK**blocks * 1.01  # stem, head and all plain layers are held at one
    assert steepest > 0.02 * certificate.bound  # and it is no empty promise


@pytest.mark.parametrize("model", ["resnet-tiny", "r3gan-tiny"])
def test_blocks_and_images_stay_within_their_certificates(model):
    shape = (2, 8, 8)
    discriminator = trained(model, shape, steps=4)
    for block in discriminator.modules():
        if isinstance(block, Residual):
            held = lipschitz_bound(block.branch, (next(iter(block.branch.parameters())).shape[1], 8, 8)).bound
            assert held <= (BLOCK - 1) * 1.002
    certificate = lipschitz_bound(discriminator, shape)
    x = torch.randn(256, *shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x)
    steepest = float(gradient.flatten(1).norm(dim=1).max())
    step = 1e-3 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    risen = ((discriminator(x + step) - discriminator(x)).detach().abs() / 1e-3).max()
    print(f"{model}: steepest {steepest:.3g}, certified {certificate.bound:.3g}")
    assert max(steepest, float(risen)) <= certificate.bound * (1 + 1e-3)
    assert certificate.bound < float("inf")


def test_the_level_and_standardized_branches_are_followed():
    torch.manual_seed(0)
    _, discriminator = build_players("residual-mlp", (2,), discriminator_normalization="standardize", level=True)
    discriminator(torch.randn(64, 2), level=torch.rand(64))  # running statistics
    discriminator.eval()
    control = SpectralNormalization.residual(discriminator, "*.branch", BLOCK)
    with attach(discriminator, control):
        for block in discriminator.modules():
            if isinstance(block, Residual):
                assert lipschitz_bound(block.branch, (128,)).bound <= (BLOCK - 1) * 1.002
    certificate = lipschitz_bound(discriminator, (2,))
    x = torch.randn(256, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x)
    assert 0 < float(gradient.norm(dim=1).max()) <= certificate.bound < float("inf")
