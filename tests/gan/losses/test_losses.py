import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lsdr.gan.losses import LOSSES


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(2))


def test_names_and_what_a_sign_means():
    assert {name: loss.relativistic for name, loss in LOSSES.items()} == {
        "non_saturating": False,
        "hinge": False,
        "relativistic": True,
    }


def test_non_saturating_is_two_cross_entropies(logits):
    real, fake = logits
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)

    def entropy(x, y):
        return binary_cross_entropy_with_logits(x, y, reduction="none")

    loss = LOSSES["non_saturating"]
    torch.testing.assert_close(loss.discriminator(real, fake), entropy(real, ones) + entropy(fake, zeros))
    torch.testing.assert_close(loss.generator(None, fake), entropy(fake, ones))


def test_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.25, 2.0])
    assert LOSSES["hinge"].discriminator(real, fake).tolist() == [0, 0.5 + 1.25, 2 + 3]
    assert LOSSES["hinge"].generator(real, fake).tolist() == [3, -0.25, -2]


def test_relativistic_is_the_probability_of_the_right_order(logits):
    real, fake = logits
    loss = LOSSES["relativistic"]
    torch.testing.assert_close(loss.discriminator(real, fake), -torch.sigmoid(real - fake).log())
    torch.testing.assert_close(loss.generator(real, fake), -torch.sigmoid(fake - real).log())
    torch.testing.assert_close(loss.discriminator(real + 7, fake + 7), loss.discriminator(real, fake))


@pytest.mark.parametrize(
    ("name", "value"), [("non_saturating", 2 * math.log(2)), ("hinge", 2), ("relativistic", math.log(2))]
)
def test_a_discriminator_that_cannot_tell(name, value):
    zeros = torch.zeros(4)
    torch.testing.assert_close(LOSSES[name].discriminator(zeros, zeros), torch.full((4,), float(value)))


@pytest.mark.parametrize("name", LOSSES)
def test_each_player_gains_by_what_it_wants(name):
    """D raises real logits and lowers fake ones, G raises fake ones; far out, nothing overflows."""
    real, fake = torch.tensor([0.3, -0.2], requires_grad=True), torch.tensor([-0.4, 0.1], requires_grad=True)
    of_real, of_fake = torch.autograd.grad(LOSSES[name].discriminator(real, fake).sum(), (real, fake))
    assert (of_real < 0).all()
    assert (of_fake > 0).all()
    (of_fake,) = torch.autograd.grad(LOSSES[name].generator(real.detach(), fake).sum(), fake)
    assert (of_fake < 0).all()
    far = torch.tensor([1e4, -1e4])
    assert LOSSES[name].discriminator(far, -far).isfinite().all()
    assert LOSSES[name].generator(far, -far).isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_summed_in_single(name):
    real, fake = torch.tensor([0.01], dtype=torch.bfloat16), torch.tensor([0.02], dtype=torch.bfloat16)
    for player in (LOSSES[name].discriminator, LOSSES[name].generator):
        found = player(real, fake)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, player(real.float(), fake.float()), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4, 1), (4, 1)), ((4,), (2,)), ((4,), (1,))])
def test_logits_that_would_broadcast_are_refused(name, shapes):
    real, fake = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="one logit an example"):
        LOSSES[name].discriminator(real, fake)


@pytest.mark.parametrize("name", ["non_saturating", "hinge"])
def test_the_generator_of_single_logits_refuses_a_map(name):
    with pytest.raises(ValueError, match=r"got \(4, 1\)"):
        LOSSES[name].generator(None, torch.zeros(4, 1))


def test_relativistic_generator_needs_real_logits():
    with pytest.raises(ValueError, match="give the generator's loss their logits"):
        LOSSES["relativistic"].generator(None, torch.zeros(4))


def test_relativistic_pulls_back_a_generator_that_has_dropped_a_mode():
    """Two modes at -1 and 1, the generator on 1 alone, D as good as can be: the sample at 1 is pushed out of it."""
    torch.manual_seed(0)
    real = torch.tensor([-1.0, 1.0]).repeat(16)
    fake = torch.ones(32)
    discriminator = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    optimiser = torch.optim.Adam(discriminator.parameters(), 0.02)
    loss = LOSSES["relativistic"]
    for _ in range(60):
        optimiser.zero_grad()
        loss.discriminator(discriminator(real[:, None])[:, 0], discriminator(fake[:, None])[:, 0]).mean().backward()
        optimiser.step()
    x = fake.clone().requires_grad_()
    loss.generator(discriminator(real[:, None])[:, 0], discriminator(x[:, None])[:, 0]).mean().backward()
    assert (x.grad > 0).all()  # descent moves it towards -1
