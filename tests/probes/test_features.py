import numpy as np
import pytest
import torch
from torch import nn

from lsdr.moments import Moments
from lsdr.probes.features import FeatureProbe, feature_summary
from lsdr.probes.nothing import LayersNotMeasuredError


def run(model, *batches, layers="0"):
    with FeatureProbe(layers).attach(model) as features:
        for batch in batches:
            model(batch)
    return features()


@pytest.mark.parametrize(
    ("layer", "batch", "channel"),
    [
        (nn.Linear(3, 4), (5, 3), 1),
        (nn.Linear(3, 4), (5, 6, 3), 2),
        (nn.Conv1d(3, 4, 2), (5, 3, 6), 1),
        (nn.Conv2d(3, 4, 2), (5, 3, 6, 6), 1),
        (nn.Conv3d(3, 4, 2), (2, 3, 3, 3, 3), 1),
    ],
)
def test_every_position_is_a_sample_of_channels(layer, batch, channel):
    model = nn.Sequential(layer)
    first, second = torch.randn(batch), 2 + torch.randn(batch)
    moments = run(model, first, second)["0"]
    rows = torch.cat([model(first), model(second)]).detach().movedim(channel, -1).reshape(-1, 4)
    assert moments.count == len(rows)
    torch.testing.assert_close(moments.mean, rows.mean(0))
    np.testing.assert_allclose(moments.covariance(), np.cov(rows.double().numpy().T, bias=True), rtol=1e-4, atol=1e-6)


def test_moments_grow_in_the_context_and_stay_after_it():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with FeatureProbe("*").attach(model) as features:
        model(torch.randn(4, 3))
        early = features()
        model(torch.randn(4, 3))
        assert features()["1"].count == 8
    assert early["0"].count == 4
    model(torch.randn(4, 3))
    assert features()["0"].count == 8


def test_no_graph_is_kept_and_half_precision_is_added_up_in_float32():
    model = nn.Sequential(nn.Linear(3, 2)).bfloat16()
    covariance = run(model, torch.randn(4, 3).bfloat16())["0"].covariance()
    assert covariance.dtype == torch.float32
    assert not covariance.requires_grad


def test_a_probe_that_never_fired_says_so():
    model = nn.Sequential(nn.Linear(3, 2))
    with FeatureProbe("0").attach(model) as features, pytest.raises(RuntimeError, match="none of the 1 selected"):
        features()
    with pytest.raises(ValueError, match="nothing"), FeatureProbe("nothing").attach(model):
        pass


def test_an_output_without_samples_is_refused():
    with pytest.raises(ValueError, match=r"layer '0' put out shape \(2,\)"):
        run(nn.Sequential(nn.Linear(3, 2)), torch.randn(3))


def test_measuring_is_invisible():
    """The same training step with and without the probe: bitwise equal in everything."""

    def train(probe):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        batch = torch.randn(3, 1, 6, 6)
        if probe:
            with FeatureProbe("*").attach(model) as features:
                model(batch).square().sum().backward()
            assert len(features()) == 5
        else:
            model(batch).square().sum().backward()
        optimizer.step()
        flags = [module.training for module in model.modules()]
        gradients = [parameter.grad for parameter in model.parameters()]
        hooks = sum(len(module._forward_hooks) for module in model.modules())
        return model.state_dict(), gradients, torch.get_rng_state(), flags, hooks

    with_probe, without = train(True), train(False)
    torch.testing.assert_close(with_probe[:3], without[:3], rtol=0, atol=0)
    assert with_probe[3:] == without[3:]


def test_summary_against_numpy():
    rows = np.random.default_rng(0).normal(size=(50, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    summary = feature_summary(Moments.of(torch.from_numpy(rows)))
    expected = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    np.testing.assert_allclose(summary.spectrum.values, expected)
    assert summary.spectrum.kind == "eigenvalues"
    correlation = np.abs(np.corrcoef(rows.T))
    np.testing.assert_allclose(summary.mean_abs_correlation, correlation[~np.eye(4, dtype=bool)].mean())


def test_fewer_samples_than_channels_leave_no_negative_eigenvalue():
    summary = feature_summary(Moments.of(torch.randn(3, 20)))
    assert (summary.spectrum.values >= 0).all()
    assert (summary.spectrum.values > 1e-5).sum() == 2


@pytest.mark.parametrize("level", [0.0, 0.1, 1e4 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_channels_are_left_out(level, dtype):
    """A constant that floats cannot say exactly, in chunks of uneven size; beside it one that hardly varies."""
    rows = torch.randn(90, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    rows[:, 2] = rows[:, 0] + rows[:, 1]
    varying = feature_summary(Moments.of(rows[:, [0, 1, 2]])).mean_abs_correlation
    rows[:, 3] = level
    moments = Moments()
    for chunk in rows.split([7, 1, 60, 22]):
        moments.update(chunk)
    torch.testing.assert_close(feature_summary(moments).mean_abs_correlation, varying, rtol=1e-5, atol=0)
    # One rounding in one row is variation.
    rows[:, 3] = 1e4
    rows[0, 3] += 1e4 * torch.finfo(dtype).eps
    expected = np.abs(np.corrcoef((rows - torch.tensor([0, 0, 0, 1e4], dtype=dtype)).double().numpy().T))
    found = feature_summary(Moments.of(rows)).mean_abs_correlation
    np.testing.assert_allclose(found, expected[~np.eye(4, dtype=bool)].mean(), rtol=1e-4)
    assert abs(found - varying) > 1e-2


def test_without_two_varying_channels_there_is_no_correlation():
    rows = torch.randn(9, 3)
    rows[:, 1:] = 2.5
    assert feature_summary(Moments.of(rows)).mean_abs_correlation.isnan()
    assert feature_summary(Moments.of(torch.ones(9, 2))).mean_abs_correlation.isnan()


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        feature_summary(Moments.of(torch.tensor([[1.0, torch.nan], [0.0, 1.0]])))


class Gives(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: None, "returned NoneType without a tensor"),
        (lambda x: {"a": [], "b": 3}, "returned dict without a tensor"),
        (lambda x: x[:0], "put out no rows"),
        (lambda x: x.to_sparse(), "'odd'"),
        (lambda x: x.sum(), r"put out shape \(\)"),
        (lambda x: torch.fft.fft(x), "'odd'"),
    ],
)
def test_odd_outputs_are_named_when_asked_and_never_stop_the_forward_pass(function, reason):
    model = nn.ModuleDict({"plain": nn.Linear(3, 4), "odd": Gives(function)})
    with FeatureProbe("*").attach(model) as features:
        model["odd"](model["plain"](torch.randn(5, 3)))
        with pytest.raises(LayersNotMeasuredError, match=reason) as raised:
            features()
    assert list(raised.value.measured) == ["plain"]


def test_only_odd_outputs_are_no_model_that_did_not_run():
    model = nn.Sequential(Gives(lambda x: None))
    with FeatureProbe("0").attach(model) as features:
        model(torch.zeros(2, 3))
        with pytest.raises(LayersNotMeasuredError, match="'0' returned NoneType"):
            features()


def test_the_first_tensor_of_nested_outputs_is_taken():
    model = Gives(lambda x: {"none": None, "list": [[], (3, x), x[:1]]})
    with FeatureProbe("").attach(model) as features:
        model(torch.zeros(5, 3))
    assert features()[""].count == 5
