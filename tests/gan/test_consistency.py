import pytest
import torch
from torch.nn.functional import pad

from lsdr.gan.consistency import consistency, latent_spread, shift_and_flip


def test_squared_change_of_each_example():
    before, after = torch.tensor([0.5, -1.0, 3.0]), torch.tensor([0.5, 1.0, 0.0])
    assert consistency(before, after).tolist() == [0, 4, 9]
    torch.testing.assert_close(consistency(before + 100, after + 100), consistency(before, after))


def test_both_sides_are_pulled_together():
    logits = torch.tensor([1.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    consistency(*logits).sum().backward()
    assert logits[0].grad.tolist() == [-4.0]
    assert logits[1].grad.tolist() == [4.0]


def test_spread_is_minus_the_mean_square_and_pushes_apart():
    first = torch.zeros(2, 1, 2, 2, requires_grad=True)
    moved = torch.stack([torch.ones(1, 2, 2), 3 * torch.ones(1, 2, 2)])
    found = latent_spread(first, moved)
    assert found.tolist() == [-1, -9]
    found.sum().backward()
    assert (first.grad > 0).all()  # descent moves away from what is above


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="the same examples twice"):
        consistency(torch.zeros(4), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="two sets of one shape"):
        latent_spread(torch.zeros(4, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("down", [-2, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 2])
@pytest.mark.parametrize("mirrored", [False, True])
def test_shift_is_a_crop_of_the_reflected_image(down, right, mirrored):
    """Against torch's own reflection padding: crop it where the shift says, mirror first."""
    images = torch.randn(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    uniform = torch.tensor([[(down + 2.5) / 5, (right + 2.5) / 5, 0.25 if mirrored else 0.75]])
    source = images.flip(-1) if mirrored else images
    expected = pad(source, (2, 2, 2, 2), mode="reflect")[:, :, 2 - down : 7 - down, 2 - right : 9 - right]
    assert torch.equal(shift_and_flip(images, uniform, reach=2), expected)


def test_each_image_by_its_own_numbers():
    images = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    together = shift_and_flip(images, uniform)
    alone = torch.cat([shift_and_flip(images[k : k + 1], uniform[k : k + 1]) for k in range(3)])
    assert torch.equal(together, alone)
    assert torch.autograd.gradcheck(lambda x: shift_and_flip(x, uniform), images.double().requires_grad_())


@pytest.mark.parametrize("reach", [-1, 3])
def test_reach_within_the_image(reach):
    with pytest.raises(ValueError, match="3 x 8 pixels"):
        shift_and_flip(torch.zeros(1, 1, 3, 8), torch.zeros(1, 3), reach=reach)
