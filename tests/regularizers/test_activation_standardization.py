import copy

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lsdr.regularizers.activation_standardization import ActivationStandardization
from lsdr.regularizers.lipschitz_bound import lipschitz_bound


@pytest.mark.parametrize("channels", [None, 3])
def test_statistics_of_a_batch(channels):
    torch.manual_seed(0)
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] + 3
    y = ActivationStandardization(channels)(x)
    over = (0, 2, 3) if channels else (0, 1, 2, 3)
    torch.testing.assert_close(y.mean(over), torch.zeros_like(y.mean(over)), rtol=0, atol=1e-12)
    torch.testing.assert_close(y.var(over, correction=0), torch.ones_like(y.mean(over)), rtol=1e-12, atol=0)
    if channels:
        torch.testing.assert_close(y, nn.BatchNorm2d(3, eps=1e-20, affine=False).double()(x))


@pytest.mark.parametrize("channels", [None, 3])
def test_gradient_is_that_of_finite_differences(channels):
    torch.manual_seed(0)
    layer = ActivationStandardization(channels, floor=0.1)
    x = torch.randn(4, 3, dtype=torch.float64)
    x[:, 1] *= 0.01  # under the floor, where channels stand alone
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_activations_are_safe(channels, value):
    layer = ActivationStandardization(channels, floor=0.5)
    x = torch.full((4, 3), value, requires_grad=True)
    y = layer(x)
    assert (y == 0).all()
    (y * torch.randn(4, 3)).sum().backward()
    assert x.grad.isfinite().all()
    layer.eval()
    torch.testing.assert_close(layer(x + 0.1), torch.full_like(x, 0.2), rtol=1e-4, atol=1e-6)


def test_a_large_mean_costs_no_digits():
    torch.manual_seed(0)
    x = torch.randn(4000, 1)
    y = ActivationStandardization()(x + 1e4)
    exact = (x + 1e4).double()
    exact = (exact - exact.mean()) / exact.std(correction=0)
    assert (y - exact).abs().max() < 1e-3


def test_running_statistics_and_evaluation():
    torch.manual_seed(0)
    layer = ActivationStandardization(2, momentum=0.25)
    batches = [torch.randn(6, 2) * scale + scale for scale in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    mean, variance = torch.zeros(2), torch.zeros(2)
    for number, x in enumerate(batches, 1):
        layer(x)
        share = max(0.25, 1 / number)
        mean += share * (x.mean(0) - mean)
        variance += share * (x.var(0, correction=0) - variance)
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_variance, variance)
    layer.eval()
    state = copy.deepcopy(layer.state_dict())
    torch.testing.assert_close(layer(batches[0]), (batches[0] - mean) / variance.sqrt())
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
    other = ActivationStandardization(2)
    other.load_state_dict(state)
    assert torch.equal(other.eval()(batches[1]), layer(batches[1]))
    assert not any(each.requires_grad for each in layer.state_dict().values())
    assert list(layer.parameters()) == []


def test_half_precision_and_an_empty_batch():
    torch.manual_seed(0)
    layer = ActivationStandardization()
    y = layer(torch.randn(50, 4, dtype=torch.bfloat16) * 100)
    assert y.dtype == torch.bfloat16
    assert abs(y.float().std() - 1) < 0.02
    before = copy.deepcopy(layer.state_dict())
    assert layer(torch.zeros(0, 4)).shape == (0, 4)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_the_certificate_knows_it():
    torch.manual_seed(0)
    layer = ActivationStandardization(3, floor=0.1)
    layer(torch.randn(20, 3) * torch.tensor([0.01, 1.0, 2.0]))
    assert abs(lipschitz_bound(layer.eval()).bound - 10.0) < 1e-5
    with pytest.raises(ValueError, match="eval"):
        lipschitz_bound(layer.train())


def build():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), ActivationStandardization(), nn.Tanh(), nn.Linear(6, 3), ActivationStandardization(3)]
    return nn.Sequential(*layers, nn.Linear(3, 1)).double()


def shards():
    generator = torch.Generator().manual_seed(1)
    return [
        (1 + 2 * rank) * torch.randn(size, 4, generator=generator, dtype=torch.float64) + rank
        for rank, size in enumerate([7, 5])
    ]


def step(model, x, scale):
    for _ in range(2):
        model.zero_grad()
        (model(x).sin().sum() * scale).backward()
    state = {name.removeprefix("module."): value for name, value in model.state_dict().items()}
    return [*(p.grad for p in model.parameters()), *(state[name].double() for name in sorted(state))]


def _rank(rank, world, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    model = DistributedDataParallel(build())
    torch.save(step(model, shards()[rank], world / 12), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_with_uneven_shares_equal_one_process(tmp_path):
    expected = step(build(), torch.cat(shards()), 1 / 12)
    torch.multiprocessing.spawn(_rank, (2, str(tmp_path)), nprocs=2)
    assert max(gradient.abs().max() for gradient in expected[:6]) > 1e-3
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, [each.detach() for each in expected], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("arguments", [{"channels": 0}, {"floor": 0.0}, {"momentum": 0.0}, {"momentum": 1.5}])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ActivationStandardization(**arguments)


def test_wrong_channels():
    with pytest.raises(ValueError, match="3 channels"):
        ActivationStandardization(3)(torch.zeros(2, 4))
