import pytest
import torch
from torch import nn

from lsdr.gan.gradient_penalty import gradient_penalty
from lsdr.gan.packing import pack


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)).double()


@pytest.fixture
def x():
    return torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_equals_finite_differences_of_each_example(discriminator, x):
    found = gradient_penalty(discriminator, x)
    step = 1e-6
    slopes = torch.stack(
        [
            (discriminator(x + step * d.view(2, 3)) - discriminator(x - step * d.view(2, 3))) / (2 * step)
            for d in torch.eye(6, dtype=torch.float64)
        ]
    )
    torch.testing.assert_close(found, slopes.square().sum(0), rtol=1e-7, atol=0)


def test_its_gradient_reaches_the_weights(discriminator, x):
    """Second derivatives against central differences of the penalty."""
    weight = discriminator[1].weight
    (found,) = torch.autograd.grad(gradient_penalty(discriminator, x).mean(), weight)
    with torch.no_grad():
        expected = torch.zeros_like(weight)
        for place in [(0, 0), (2, 3), (4, 5)]:
            values = []
            for sign in (1, -1):
                weight[place] += sign * 1e-5
                values.append(gradient_penalty(discriminator, x).mean())
                weight[place] -= sign * 1e-5
            expected[place] = (values[0] - values[1]) / 2e-5
            torch.testing.assert_close(found[place], expected[place], rtol=1e-6, atol=1e-10)


def test_logits_of_the_loss_serve_as_well(discriminator, x):
    live = x.clone().requires_grad_()
    logits = discriminator(live)
    penalty = gradient_penalty(logits, live)
    torch.testing.assert_close(penalty, gradient_penalty(discriminator, x), rtol=0, atol=0)
    (logits.sum() + penalty.sum()).backward()  # both graphs are still there
    assert all(parameter.grad is not None for parameter in discriminator.parameters() if parameter.ndim > 1)


def test_lazy_has_the_same_expectation(discriminator, x):
    torch.testing.assert_close(gradient_penalty(discriminator, x, every=4), 4 * gradient_penalty(discriminator, x))
    with pytest.raises(ValueError, match="every must be 1 or more"):
        gradient_penalty(discriminator, x, every=0)


def test_measures_without_a_graph_and_leaves_x_alone(discriminator, x):
    with torch.no_grad():
        found = gradient_penalty(discriminator, x)
    assert not found.requires_grad
    assert not x.requires_grad
    torch.testing.assert_close(found, gradient_penalty(discriminator, x).detach(), rtol=0, atol=0)


def test_parts_of_a_pack_add_up_to_the_pack(x):
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)).double()
    of_packs = gradient_penalty(judge, pack(x, 2))
    of_examples = gradient_penalty(lambda examples: judge(pack(examples, 2)), x)
    assert of_packs.shape == (2,)
    torch.testing.assert_close(of_examples.view(2, 2).sum(1), of_packs)


def test_half_precision_is_squared_in_single():
    x = torch.zeros(1, 300, dtype=torch.float16)
    weight = torch.full((300, 1), 100.0, dtype=torch.float16)  # squared and summed: 3e6, over float16's 65504
    assert gradient_penalty(lambda x: (x @ weight)[:, 0], x).item() == 3e6


@pytest.mark.parametrize("case", ["x", "logits"])
def test_logits_without_a_graph_are_refused(discriminator, x, case):
    live = x.clone().requires_grad_(case == "logits")
    with torch.set_grad_enabled(case == "x"):
        logits = discriminator(live)
    with pytest.raises(ValueError, match=r"an x that requires no grad" if case == "x" else "logits without a graph"):
        gradient_penalty(logits, live)
