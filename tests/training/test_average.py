import torch
from torch import nn

from lsdr.training.average import ExponentialMovingAverage


def test_average_follows_the_recursion_and_leaves_the_model_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = ExponentialMovingAverage(model, decay=0.9)
    expected = model[0].weight.detach().double().clone()
    for updates in range(30):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(2, 3))
            model[1].running_mean.add_(1.0)
        before = model[0].weight.detach().clone()
        average.update(list(model.parameters()), list(model.buffers()), updates)
        decay = min(0.9, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * model[0].weight.detach().double()
        assert torch.equal(model[0].weight, before)
    torch.testing.assert_close(average.model[0].weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(average.model[1].running_mean, model[1].running_mean)
    assert not average.model[0].weight.requires_grad
    assert not average.model.training
