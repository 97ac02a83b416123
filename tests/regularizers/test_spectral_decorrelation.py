"""The regularizer on models: forms, forwards, precision, what is refused, and what is left behind."""

import itertools
import re

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation

DEFINED = [
    *itertools.product(("plug_in", "split_half", "u_statistic"), ["samples"]),
    ("plug_in", "inner_product"),
    ("split_half", "inner_product"),
]


def images(dtype=torch.float32):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 1)).to(dtype)
    return net, torch.randn(6, 2, 5, 4, dtype=dtype)


def gradients(net, loss):
    return torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad], allow_unused=True)


def penalty_of(net, x, **settings):
    with attach(net, SpectralDecorrelation(**{"layers": "1", "weight": 1.0, **settings})) as penalty:
        net(x)
        return penalty()


@pytest.mark.parametrize("form", ["as_written", "covariance", "correlation"])
@pytest.mark.parametrize(("estimator", "positions"), DEFINED)
def test_the_gradient_to_the_parameters_matches_finite_differences(form, estimator, positions):
    net, x = images(torch.float64)
    parameters = dict(net[0].named_parameters())

    def loss(*values):
        conv = torch.func.functional_call(net[0], dict(zip(parameters, values, strict=True)), x)
        return penalty_of(
            nn.Sequential(Emit(conv), nn.Tanh()),
            x,
            form=form,
            estimator=estimator,
            positions=positions,
            variance_floor=2.0,
        )

    values = [parameter.detach().clone().requires_grad_() for parameter in parameters.values()]
    assert all(gradient.abs().max() > 1e-5 for gradient in torch.autograd.grad(loss(*values), values))
    assert torch.autograd.gradcheck(loss, values)
    # And through the real thing.
    torch.testing.assert_close(
        gradients(net, penalty_of(net, x, form=form, estimator=estimator, positions=positions, variance_floor=2.0))[:2],
        torch.autograd.grad(loss(*values), values),
    )


class Emit(nn.Module):
    """A layer with a given output."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


def as_rows(output, channel_dim):
    return output.movedim(channel_dim, -1).reshape(-1, output.shape[channel_dim])


@pytest.mark.parametrize(
    ("shape", "module", "channel_dim", "expected"),
    [
        ((7, 3), nn.Identity(), None, 1),
        ((7, 5, 3), nn.Identity(), None, 2),  # tokens
        ((7, 3, 5), nn.Conv1d(3, 3, 1), None, 1),
        ((7, 3, 5), nn.GroupNorm(1, 3), None, 1),
        ((7, 3, 4, 2), nn.Conv2d(3, 3, 1), None, 1),
        ((7, 3, 2, 4, 2), nn.Conv3d(3, 3, 1), None, 1),  # video
        ((7, 4, 2, 3), nn.Linear(3, 3), None, 3),
        ((7, 4, 2, 3), nn.LayerNorm(3), None, 3),
        ((7, 3, 5), nn.Identity(), 1, 1),
        ((7, 4, 3, 2), nn.Identity(), -2, 2),
    ],
)
def test_where_the_channels_are(shape, module, channel_dim, expected):
    net = nn.Sequential(module)
    x = torch.randn(shape, requires_grad=True)
    rows = as_rows(net(x).detach(), expected)
    result = penalty_of(net, x, layers="0", form="as_written", channel_dim=channel_dim)
    torch.testing.assert_close(result.detach(), torch.cov(rows.T, correction=0).square().sum())


@pytest.mark.parametrize("channel_dim", [0, -4, 4, -5])
def test_a_channel_dimension_that_is_not_there_is_an_error(channel_dim):
    net, x = images()
    with pytest.raises(ValueError, match=r"shape \(6, 4, 3, 2\); channel_dim="):
        penalty_of(net, x, channel_dim=channel_dim)


def test_features_must_be_floating_point_with_samples_and_channels():
    with pytest.raises(ValueError, match="need samples and channels"):
        penalty_of(nn.Sequential(nn.Flatten(0)), torch.randn(3, 2, requires_grad=True), layers="0")
    net = nn.Sequential(nn.Linear(2, 2), Emit(torch.zeros(3, 2, dtype=torch.int64)))
    with pytest.raises(TypeError, match=r"int64; features must be real"):
        penalty_of(net, torch.randn(3, 2), layers="*")


def test_the_penalty_is_the_weighted_mean_over_layers_and_values_are_without_the_weight():
    net, x = images()
    with attach(net, SpectralDecorrelation(layers=["0", "1"], weight=0.3)) as penalty:
        net(x)
        result = penalty()
        values = penalty.values
    assert list(values) == ["SpectralDecorrelation/0", "SpectralDecorrelation/1"]
    assert not any(value.requires_grad for value in values.values())
    torch.testing.assert_close(result.detach(), 0.3 * sum(values.values()) / 2)
    assert values["SpectralDecorrelation/0"] != values["SpectralDecorrelation/1"]


def test_weight_0_computes_everything_and_changes_no_bit():
    net, x = images()
    plain = gradients(net, net(x).square().mean())
    with attach(net, SpectralDecorrelation(layers="1", weight=0)) as penalty:
        with_zero = gradients(net, net(x).square().mean() + penalty())
        assert penalty.values["SpectralDecorrelation/1"] > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, with_zero, strict=True))


def test_several_forwards_before_one_call_are_more_samples():
    net, x = images(torch.float64)
    for settings in ({}, {"estimator": "split_half", "form": "covariance"}, {"estimator": "u_statistic"}):
        whole = penalty_of(net, x, **settings)
        with attach(net, SpectralDecorrelation(layers="1", weight=1.0, **settings)) as penalty:
            net(x[:1])
            net(x[1:])
            parts = penalty()
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)


def test_forwards_without_gradients_are_ignored():
    net, x = images()
    with attach(net, SpectralDecorrelation(layers="1", weight=1.0)) as penalty:
        with torch.no_grad():
            net(torch.randn(50, 2, 5, 4))
        net(x)
        with torch.inference_mode():
            net(torch.randn(50, 2, 5, 4))
        result = penalty()
    torch.testing.assert_close(result, penalty_of(net, x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_spectral_work_is_float32(dtype):
    net, x = images()
    with torch.autocast("cpu", dtype), attach(net, SpectralDecorrelation(layers="0", weight=1.0)) as penalty:
        feature = net[0](x)
        penalty_of_half = penalty()
    assert feature.dtype == dtype
    assert penalty_of_half.dtype == torch.float32
    # Had the products been half precision, the value would be off by 1e-3.
    exact = penalty_of(nn.Sequential(Emit(feature.double())), x, layers="0")
    torch.testing.assert_close(penalty_of_half.double(), exact, rtol=1e-5, atol=0)
    gradient = gradients(net, penalty_of_half)[0]
    full = gradients(net, penalty_of(net, x, layers="0"))[0]
    assert gradient.dtype == torch.float32
    assert torch.cosine_similarity(gradient.flatten(), full.flatten(), dim=0) > 0.999


def test_nan_in_features_is_nan_in_the_penalty():
    net, x = images()
    x[0, 0, 0, 0] = torch.nan
    assert penalty_of(net, x).isnan()


class Checkpointed(nn.Module):
    def __init__(self, net, use_reentrant):
        super().__init__()
        self.net = net
        self.use_reentrant = use_reentrant

    def forward(self, x):
        return checkpoint(self.net, x, use_reentrant=self.use_reentrant)


def test_gradient_checkpointing_changes_nothing():
    net, x = images()
    net[0].register_forward_hook(lambda *_: None)
    plain = gradients(net, net(x).square().mean() + penalty_of(net, x, layers="1"))
    with attach(Checkpointed(net, False), SpectralDecorrelation(layers="net.1", weight=1.0)) as penalty:
        for _ in range(2):  # twice: what a backward pass recomputes must not count for the next step
            checkpointed = gradients(net, checkpoint(net, x, use_reentrant=False).square().mean() + penalty())
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_reentrant_checkpointing_is_refused():
    net, x = images()
    model = Checkpointed(net, True)
    with attach(model, SpectralDecorrelation(layers="net.1")) as penalty:
        model(x.requires_grad_()).sum().backward()
        with pytest.raises(RuntimeError, match="use_reentrant=False"):
            penalty()


def test_a_layer_that_did_not_run_is_an_error():
    net, x = images()
    with attach(net, SpectralDecorrelation(layers="1")) as penalty:
        with pytest.raises(RuntimeError, match=r"no output of the layers \['1'\] arrived"):
            penalty()
        net(x)
        penalty()
        with pytest.raises(RuntimeError, match="no output"):
            penalty()
    with attach(net, SpectralDecorrelation(layers=["0", "2"])) as penalty:
        net[0](x)
        with pytest.raises(RuntimeError, match=r"no output of the layers \['2'\] arrived"):
            penalty()
        net[2](net[0](x))
        with torch.no_grad():
            net(x)
        with pytest.raises(RuntimeError, match="no output"):  # what came before the error is forgotten
            net[2](net[0](x).detach()) if penalty() is None else penalty()


def test_features_that_nothing_trained_is_behind_are_an_error():
    net, x = images()
    net[0].requires_grad_(False)
    with attach(net, SpectralDecorrelation(layers="1")) as penalty:
        net(x)
        with pytest.raises(RuntimeError, match="can change nothing"):
            penalty()


def test_an_output_changed_in_place_is_an_error():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    with pytest.raises(RuntimeError, match="layer '0' was changed in place"):
        penalty_of(net, torch.randn(5, 3), layers="0")
    assert penalty_of(net, torch.randn(5, 3), layers="1").isfinite()


@pytest.mark.parametrize(
    "wrong",
    [
        {"form": "whitening"},
        {"estimator": "jackknife"},
        {"positions": "mean"},
        {"weight": -1.0},
        {"weight": float("nan")},
        {"variance_floor": -0.1},
        {"estimator": "u_statistic", "positions": "inner_product"},
    ],
)
def test_bad_arguments_are_refused_when_made(wrong):
    with pytest.raises(Exception, match="|".join([*wrong, "violates type hint", "Type-check"])):
        SpectralDecorrelation(**wrong)


def test_the_outermost_layers_of_a_glob_are_taken():
    net = nn.ModuleDict({"mid_block": nn.Sequential(nn.Linear(2, 3), nn.Tanh())})

    def layers(choice):
        with attach(net, SpectralDecorrelation(layers=choice, weight=1.0)) as penalty:
            net["mid_block"](torch.randn(4, 2))
            penalty()
            return [name.split("/")[1] for name in penalty.values]

    assert layers("mid_block*") == ["mid_block"]
    assert layers("mid_block.*") == ["mid_block.0", "mid_block.1"]
    assert layers(re.compile("mid")) == ["mid_block", "mid_block.0", "mid_block.1"]


def test_measuring_changes_nothing():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    x = torch.randn(6, 3)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def run(*regularizers):
        net.load_state_dict(before)
        torch.manual_seed(3)
        with attach(net, *regularizers) as penalty:
            out = net(x)
            penalty()
        return out, torch.get_rng_state(), {name: value.clone() for name, value in net.state_dict().items()}

    plain, watched = run(), run(SpectralDecorrelation(layers="*"))
    assert torch.equal(plain[0], watched[0])
    assert torch.equal(plain[1], watched[1])
    assert all(torch.equal(plain[2][name], watched[2][name]) for name in before)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.training
