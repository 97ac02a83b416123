import pytest
import torch

from lsdr.gan.mode_seeking import mode_seeking


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 2, 3), (6, 2, 3), (6, 4), (6, 4)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def published(first, second, z, other, epsilon=1e-5):
    return 1 / ((first - second).abs().mean() / (z - other).abs().mean() + epsilon)


def test_value_and_gradient_are_those_of_the_published_loss_of_the_batch(sets):
    first, *rest = sets
    found, expected = first.clone().requires_grad_(), first.clone().requires_grad_()
    losses, whole = mode_seeking(found, *rest), published(expected, *rest)
    assert losses.shape == (6,)
    torch.testing.assert_close(losses.mean(), whole)
    losses.mean().backward()
    whole.backward()
    torch.testing.assert_close(found.grad, expected.grad)
    assert found.grad.abs().max() > 1e-3


def test_descent_spreads(sets):
    first, second, *latents = sets
    close = (second + 0.01 * first).requires_grad_()
    mode_seeking(close, second, *latents).sum().backward()
    moved = close.detach() - 1e-6 * close.grad
    assert (moved - second).abs().mean() > (close - second).abs().mean()


def test_one_pair_in_one_mode_does_not_explode(sets):
    """A tenth of a pair's distance must not weigh ten times another's."""
    first, second, *latents = sets
    first[0] = second[0] + 1e-9
    first = first.requires_grad_()
    mode_seeking(first, second, *latents).sum().backward()
    torch.testing.assert_close(first.grad.abs(), first.grad.abs()[:1, :1, :1].expand_as(first.grad))


def test_a_collapsed_generator_is_finite(sets):
    _, second, *latents = sets
    assert mode_seeking(second, second, *latents).mean().item() == pytest.approx(1e5)


def test_wrong_input(sets):
    first, second, z, other = sets
    with pytest.raises(ValueError, match="of the same shapes"):
        mode_seeking(first[:1], second, z, other)
    with pytest.raises(ValueError, match="got the same twice"):
        mode_seeking(first, second, z, z)
