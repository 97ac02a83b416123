import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from lsdr.layers.operators import layer_operator
from lsdr.probes.weights import WeightProbe
from lsdr.regularizers.attach import attach
from lsdr.regularizers.matched_weight_decay import MatchedWeightDecay
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.regularizers.spectral_penalties import Shape, hinge, log_barrier, spread, target_slope
from lsdr.regularizers.spectral_penalty import SpectralPenalty

PENALTIES = {
    "hinge": hinge(0.4),
    "log_barrier": log_barrier(3.0),
    "log_barrier beyond": log_barrier(0.5),
    "spread": spread(),
    "spread over layers": spread("layers"),
    "target_slope": target_slope(-0.7),
    "top two": Shape(lambda spectra: [values[:2].square().sum() for values in spectra], full=True),
}
LARGEST = [name for name, penalty in PENALTIES.items() if not penalty.full]


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 4),
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, groups=2, output_padding=1),
        nn.Conv1d(3, 2, 3, dilation=2, padding="same"),
    ).double()


def call(model, regularizer):
    with regularizer.attach(model) as term:
        return term()


def spectra(model, operator, size):
    """By dense SVD."""
    return [torch.linalg.svdvals(layer_operator(layer, operator, size).matrix().double()) for layer in model]


@pytest.mark.parametrize("name", PENALTIES)
def test_value_is_that_of_dense_spectra(name):
    model, shape = build(), PENALTIES[name]
    for operator, size in (("reshape", None), ("zero_padded", 4)):
        if operator == "zero_padded" and shape.full:
            continue
        model = build() if operator == "reshape" else build()[1:3]
        regularizer = SpectralPenalty(WeightProbe(operator=operator, size=size), shape, weight=0.3)
        expected = torch.stack(list(shape.function(spectra(model, operator, size))))
        assert expected.max() > 1e-3
        with attach(model, regularizer) as penalty:
            torch.testing.assert_close(penalty().detach(), 0.3 * expected.mean(), rtol=1e-9, atol=1e-12)
            found = torch.stack(list(penalty.values.values()))
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "operator"), [(name, "reshape") for name in PENALTIES] + [(name, "zero_padded") for name in LARGEST]
)
def test_gradient_is_that_of_finite_differences(name, operator):
    model = build() if operator == "reshape" else build()[1:3]
    probe = WeightProbe(operator=operator, size=None if operator == "reshape" else 4)
    regularizer = SpectralPenalty(probe, PENALTIES[name], weight=1.3)
    call(model, regularizer).backward()
    generator, step = torch.Generator().manual_seed(1), 1e-6
    for layer in model:
        assert layer.weight.grad.abs().max() > 1e-4, layer
        assert layer.bias.grad is None
        for _ in range(3):
            direction = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
            values = []
            for sign in (1, -1):
                moved = copy.deepcopy(model)
                with torch.no_grad():
                    moved[list(model).index(layer)].weight.add_(sign * step * direction)
                values.append(float(call(moved, regularizer).detach()))
            expected = (values[0] - values[1]) / (2 * step)
            assert abs(float((layer.weight.grad * direction).sum()) - expected) < 1e-6 * max(1, abs(expected))


def test_the_gradient_of_the_largest_value_is_u_v():
    torch.manual_seed(0)
    layer = nn.Linear(7, 5).double()
    call(layer, SpectralPenalty(penalty=Shape(lambda spectra: [v[0] for v in spectra]), weight=1.0)).backward()
    u, _, v = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    torch.testing.assert_close(layer.weight.grad, u[:, :1] @ v[:1], rtol=0, atol=1e-10)


def test_only_offending_layers_pay():
    model = build()
    with torch.no_grad():
        for layer, scale in zip(model, (0.5, 2.0, 0.9, 1.0), strict=True):
            layer.weight.mul_(scale / torch.linalg.svdvals(layer_operator(layer).matrix()).max())
    with attach(model, SpectralPenalty(penalty=hinge(1.0), weight=1.0)) as penalty:
        result = penalty()
        result.backward()
        assert [layer.weight.grad is not None for layer in model] == [False, True, False, False]
        torch.testing.assert_close(result.detach(), torch.tensor(0.25).double())
        assert list(penalty.values) == [f"SpectralPenalty/{number}" for number in range(4)]
        with torch.no_grad():
            model[1].weight.mul_(0.4)
        assert not penalty().requires_grad


@pytest.mark.parametrize("name", PENALTIES)
def test_zeros_and_rank_deficient_weights_give_no_nan(name):
    model = build()
    with torch.no_grad():
        model[0].weight.zero_()
        model[1].weight[1:] = model[1].weight[:1]
        model[3].weight[0] = 0
    result = call(model, SpectralPenalty(penalty=PENALTIES[name], weight=1.0))
    result.backward()
    assert result.isfinite()
    for layer in model:
        assert layer.weight.grad is None or layer.weight.grad.isfinite().all()
    zeros = nn.Linear(3, 3)
    nn.init.zeros_(zeros.weight)
    result = call(zeros, SpectralPenalty(penalty=PENALTIES[name], weight=1.0))
    assert result.isfinite()


def test_weights_that_are_not_finite_give_nan():
    for shape in (hinge(0.1), spread()):
        model = build()
        with torch.no_grad():
            model[0].weight[0, 0] = math.inf
        with attach(model, SpectralPenalty(penalty=shape)) as penalty:
            assert penalty().isnan()
            finite = [bool(value.isfinite()) for value in penalty.values.values()]
            assert finite == [False, True, True, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_float32(dtype):
    torch.manual_seed(0)
    model = nn.Linear(30, 20).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = call(model, SpectralPenalty(penalty=hinge(0.2), weight=1.0))
    assert result.dtype == torch.float32
    expected = (torch.linalg.svdvals(model.weight.detach().float())[0] / 0.2 - 1) ** 2
    torch.testing.assert_close(result.detach(), expected)
    result.backward()
    assert model.weight.grad.dtype == dtype
    assert model.weight.grad.abs().max() > 1e-4


def test_training_against_the_penalty_reaches_what_it_asks_for():
    def train(shape, measure, steps=150):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 6))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        with attach(model, SpectralPenalty(penalty=shape, weight=1.0)) as penalty:
            for _ in range(steps):
                optimizer.zero_grad()
                loss = 0 * sum(parameter.sum() for parameter in model.parameters())
                (loss + penalty()).backward()  # where no layer pays, the penalty has no graph
                optimizer.step()
        return [measure(torch.linalg.svdvals(layer.weight.detach())) for layer in model]

    def slope(values):
        x = torch.arange(1, len(values) + 1).float().log()
        return float(torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), values.log()[:, None]).solution[0])

    assert max(train(hinge(0.3), lambda values: float(values[0]))) < 0.31
    assert max(train(log_barrier(0.5), lambda values: float(values[0]))) < 0.49
    assert max(train(spread(), lambda values: float(values[0] / values[-1]))) < 1.2
    assert all(abs(each + 1.5) < 0.05 for each in train(target_slope(-1.5), slope))
    first, second = train(spread("layers"), lambda values: float(values[0]))
    assert abs(first / second - 1) < 0.02


def test_chunks_share_one_penalty():
    model = build()[:1]
    inputs = torch.randn(3, 2, 5, dtype=torch.float64)
    regularizer = SpectralPenalty(penalty=hinge(0.1), weight=1.0)
    with attach(model, regularizer) as penalty:
        whole = penalty().detach()
        torch.testing.assert_close(penalty().detach(), whole)  # without observe, each call is a whole one
        for _ in range(2):
            with penalty.observe():
                for x in inputs:
                    model(x)
                    model(x)  # two forwards a chunk
            (term,) = penalty._terms.values()
            assert term.observed() == 6
            model.zero_grad()
            for x in inputs:
                model(x)
                with torch.no_grad():
                    model(x)  # not for the loss
                model(x)
                part = penalty()
                torch.testing.assert_close(part.detach(), whole / 3)
                part.backward()
            assert term.observed() == 0
            gradient = model[0].weight.grad.clone()
        model.zero_grad()
        penalty().backward()
        torch.testing.assert_close(gradient, model[0].weight.grad)


def test_in_the_company_of_others():
    """Beside decorrelation, matched by weight decay, and with its weight replaced as comparisons do."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(16, 5)
    regularizer = SpectralPenalty(penalty=hinge(0.2), weight=0.5)
    half = replace(regularizer, weight=0.25)
    torch.testing.assert_close(call(model, half), call(model, regularizer) / 2)
    assert not call(model, replace(regularizer, weight=0.0)).requires_grad
    with attach(model, regularizer, SpectralDecorrelation("0")) as penalty:
        model(x)
        penalty().backward()
        assert len(penalty.values) == 3
        penalty.project_()
        assert penalty.state_dict() == {}
        penalty.load_state_dict({})
    model.zero_grad()
    call(model, regularizer).backward()
    own = torch.cat([layer.weight.grad.flatten() for layer in (model[0], model[2])]).norm()
    with attach(model, MatchedWeightDecay((regularizer,))) as penalty:
        model.zero_grad()
        model(x)
        penalty().backward()
    matched = torch.cat([layer.weight.grad.flatten() for layer in (model[0], model[2])]).norm()
    torch.testing.assert_close(matched, own)


def test_zero_padded_vectors_resume_bitwise():
    def build():
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3, padding=1)

    def steps(model, penalty, count):
        for _ in range(count):
            penalty().backward()
            with torch.no_grad():
                model.weight -= 0.05 * model.weight.grad
            model.zero_grad()

    regularizer = SpectralPenalty(WeightProbe(operator="zero_padded", size=14), hinge(0.5), weight=1.0)
    whole, parts = build(), build()
    with attach(whole, regularizer) as penalty:
        steps(whole, penalty, 4)
    with attach(parts, regularizer) as penalty:
        steps(parts, penalty, 2)
        state = {name: value.clone() for name, value in penalty.state_dict().items()}
        with penalty.aside():
            penalty()
    assert len(state) == 2
    with attach(parts, regularizer) as penalty:
        penalty.load_state_dict(state)
        steps(parts, penalty, 2)
        with pytest.raises(ValueError, match="do not fit"):
            penalty.load_state_dict({"SpectralPenalty/vectors/other": torch.zeros(1)})
    assert torch.equal(whole.weight, parts.weight)
    truth = torch.linalg.svdvals(layer_operator(whole, "zero_padded", 14).matrix())[0]
    with attach(whole, regularizer) as penalty:
        torch.testing.assert_close(penalty().detach(), (truth / 0.5 - 1) ** 2, rtol=1e-3, atol=0)


def test_parametrized_weights_are_penalised_through_their_parametrization():
    torch.manual_seed(0)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    call(model, SpectralPenalty(WeightProbe("0"), hinge(0.1), weight=1.0)).backward()
    assert model[0].parametrizations.weight.original0.grad.abs().max() > 1e-3


def test_shapes_at_their_edges():
    one = torch.tensor([2.0], requires_grad=True)
    for shape in (spread(), target_slope(-1.0), spread("layers")):
        (value,) = shape.function([one])
        assert value == 0
        value.backward()
    barrier = log_barrier(1.0, margin=0.1).function
    below, above = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (0.9 - 1e-9, 0.9 + 1e-9))
    slopes = [torch.autograd.grad(barrier([x])[0], x, create_graph=True)[0] for x in (below, above)]
    torch.testing.assert_close(*(barrier([x])[0] for x in (below, above)), rtol=0, atol=1e-7)
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-6)
    curvatures = [torch.autograd.grad(slope, x)[0] for slope, x in zip(slopes, (below, above), strict=True)]
    torch.testing.assert_close(*curvatures, rtol=1e-6, atol=0)
    assert barrier([torch.tensor([5.0])])[0] > barrier([torch.tensor([1.0])])[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hinge(0.0), "bound"),
        (lambda: log_barrier(-1.0), "bound"),
        (lambda: log_barrier(1.0, margin=1.0), "margin"),
        (lambda: spread("nothing"), "over"),
        (lambda: target_slope(math.nan), "slope"),
        (lambda: SpectralPenalty(weight=-1.0), "weight"),
        (lambda: SpectralPenalty(WeightProbe(operator="circular", size=4)), "operator"),
        (lambda: SpectralPenalty(WeightProbe(operator="zero_padded", size=4), spread()), "largest value alone"),
        (lambda: call(nn.ReLU(), SpectralPenalty()), "no layer"),
        (lambda: call(nn.Linear(2, 2, device="meta"), SpectralPenalty()), "holds no values"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises((ValueError, TypeError) if message == "over" else ValueError, match=message):
        make()
