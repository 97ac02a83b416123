"""The critic of spectra: what it sees, what it does not, and that its gradient reaches the images."""

import math

import pytest
import torch
import torch.nn.functional as F

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum
from lsdr.regularizers.spectral_critic import SpectralCritic, spectral_profile

SHAPES = [(1, (12,)), (3, (8, 8)), (2, (7, 5)), (1, (4, 6, 5))]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def awake(channels, size, hidden=8):
    """A critic that has an opinion."""
    critic = SpectralCritic(channels, size, hidden, generator=generator(1)).double()
    torch.nn.init.normal_(critic.network[-1].weight, generator=generator(2))
    return critic


@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_the_profile_is_the_log_power_of_each_channel(channels, size):
    images = noise(3, channels, *size)
    profile = spectral_profile(images).unflatten(1, (channels, -1))
    for channel in range(channels):
        power = radial_power_spectrum(images[:, channel : channel + 1], corners=True).power
        torch.testing.assert_close(profile[:, channel], (power + 1e-6).log())


def test_constant_images_have_a_finite_profile_and_gradient():
    images = torch.ones(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    profile = spectral_profile(images, power=4.0)
    assert profile[:, 1:].detach().flatten().tolist() == pytest.approx([math.log(4e-6)] * (2 * (profile.shape[1] - 1)))
    profile.sum().backward()
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(dtype):
    images = noise(2, 1, 8, 8).to(dtype)
    assert spectral_profile(images).dtype == torch.float32
    assert SpectralCritic(1, (8, 8))(images, torch.ones(2)).dtype == torch.float32


def test_autocast_changes_nothing():
    critic, images = awake(1, (8, 8)).float(), noise(2, 1, 8, 8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = critic(images, torch.ones(2))
    torch.testing.assert_close(inside, critic(images, torch.ones(2)), rtol=0, atol=0)


@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_the_gradient_to_the_images_is_that_of_finite_differences(channels, size):
    critic, images = awake(channels, size), noise(2, channels, *size).requires_grad_()
    sigma = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: critic(x, sigma), images)
    (gradient,) = torch.autograd.grad(critic(images, sigma).sum(), images)
    assert (gradient.flatten(1).norm(dim=1) > 1e-4).all()


def test_the_logit_is_the_written_formula():
    critic, images = awake(2, (8, 8)), noise(3, 2, 8, 8)
    features = critic.profile(images).shape[1]
    critic.standardize_(torch.full((features,), 0.5), torch.full((features,), 2.0), torch.tensor(3.0))
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    inner = torch.cat([(spectral_profile(images, 3.0) - 0.5) / 2, sigma.log()[:, None] / 4], 1)
    first, _, second, _, last = critic.network
    expected = last(F.silu(second(F.silu(first(inner)))))[:, 0]
    torch.testing.assert_close(critic(images, sigma), expected)


def test_a_deviation_near_zero_counts_as_a_tenth():
    critic = awake(1, (8, 8))
    features = len(critic.scale)
    critic.standardize_(torch.zeros(features), torch.zeros(features), torch.tensor(1.0))
    assert critic.scale.tolist() == pytest.approx([0.1] * features)


def test_an_untrained_critic_says_nothing_and_pushes_nowhere():
    images = noise(2, 1, 8, 8).float().requires_grad_()
    logits = SpectralCritic(1, (8, 8))(images)
    logits.sum().backward()
    assert logits.tolist() == [0, 0]
    assert not images.grad.any()


def test_shifts_and_flips_change_nothing_but_fine_stripes_do():
    critic, images = awake(1, (8, 8)), noise(2, 1, 8, 8)
    torch.testing.assert_close(critic(images.roll((3, 2), (2, 3))), critic(images))
    torch.testing.assert_close(critic(images.flip(3).mT), critic(images))
    chessboard = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    assert ((critic(images + chessboard) - critic(images)).abs() > 1e-3).all()


def test_noise_levels_are_of_each_example_and_their_ends_are_finite():
    critic, image = awake(1, (8, 8)), noise(1, 1, 8, 8)
    sigma = torch.tensor([0.0, 1.0, math.inf], dtype=torch.float64)
    logits = critic(image.expand(3, -1, -1, -1), sigma)
    assert logits.isfinite().all()
    assert len(set(logits.tolist())) == 3
    torch.testing.assert_close(critic(image), logits[:1])
    torch.testing.assert_close(critic(image, sigma[1]), logits[1:2])


def test_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    first, second = (SpectralCritic(1, (8, 8), generator=generator(4)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    other = SpectralCritic(1, (8, 8), generator=generator(5))
    assert not torch.equal(first.network[0].weight, other.network[0].weight)


def test_a_critic_learns_to_tell_a_steeper_spectrum():
    """As a GAN would use it: no noise level."""
    critic = SpectralCritic(1, (8, 8), generator=generator(1)).double()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for step in range(60):
        real = noise(32, 1, 8, 8, seed=step)
        blurred = (real + real.roll(1, 2)) / 2**0.5
        loss = F.softplus(-critic(real)).mean() + F.softplus(critic(blurred)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real = noise(64, 1, 8, 8, seed=1000)
    right = (critic(real) > 0).sum() + (critic((real + real.roll(1, 2)) / 2**0.5) < 0).sum()
    assert right / 128 > 0.9


def test_what_cannot_be_right_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\) \(channels, then size\), got \(3, 8, 8\)"):
        SpectralCritic(1, (8, 8))(torch.zeros(2, 3, 8, 8))
    for channels, size, hidden in [(0, (8, 8), 4), (1, (8, 8), 0), (1, (), 4), (1, (0, 8), 4)]:
        with pytest.raises(ValueError, match="must be positive"):
            SpectralCritic(channels, size, hidden)
    with pytest.raises(ValueError, match="at least 2 pixels"):
        SpectralCritic(1, (1, 1))
