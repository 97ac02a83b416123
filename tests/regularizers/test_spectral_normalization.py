import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lsdr.layers.operators import layer_operator
from lsdr.regularizers._largest import largest_by_squaring, largest_of_blocks, largest_of_operator
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_normalization import SpectralNormalization

TOLERANCE = 1e-3
IMAGE = 8


def norm(module, operator="reshape", size=None):
    """The truth: a dense SVD in float64 of the matrix of the layer."""
    matrix = layer_operator(module, operator, size).matrix().double()
    return float(torch.linalg.svdvals(matrix)[0])


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(6, 8, 4, stride=2, padding=1, groups=2),
        nn.Tanh(),
        nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=2),
        nn.Tanh(),
        nn.Conv2d(6, 4, 3, padding=2, dilation=2, bias=False),
        nn.Flatten(),
        nn.Linear(4 * IMAGE * IMAGE, 3),
    )


def train(model, penalty, inputs, steps, lr, after, optimizer=torch.optim.Adam, accumulate=1):
    optimizer = optimizer(model.parameters(), lr=lr)
    for _ in range(steps):
        for _ in range(accumulate):
            with torch.no_grad():
                model(inputs())  # several forwards a step change nothing
            output = model(inputs())
            (-output.square().mean() + output.mean() + penalty()).backward()
        optimizer.step()
        penalty.project_()
        optimizer.zero_grad()
        after()


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_linear_layers_hold_the_bound_after_every_step_of_adam(soft, accumulate):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 70), nn.ReLU(), nn.Linear(70, 40), nn.ReLU(), nn.Linear(40, 1))
    seen = []

    def check():
        for layer in (model[0], model[2], model[4]):
            seen.append(norm(layer))
            assert seen[-1] <= 1.3 * (1 + TOLERANCE)
            if not soft:
                assert seen[-1] >= 1.3 * (1 - TOLERANCE)

    with attach(model, SpectralNormalization(bound=1.3, soft=soft)) as penalty:
        check()  # held from the moment of attaching
        train(model, penalty, lambda: torch.randn(8, 20), 25, 0.1, check, accumulate=accumulate)
    assert len(seen) == 3 * 26
    assert max(seen) > 1.3 * (1 - TOLERANCE)  # the loss does push against it


@pytest.mark.parametrize("operator", ["reshape", "zero_padded"])
def test_convolutions_hold_the_bound(operator):
    model = convolutions()
    sizes = {"0": IMAGE, "2": IMAGE, "4": IMAGE // 2, "6": IMAGE, "8": IMAGE}
    size = sizes if operator == "zero_padded" else None
    top = []

    def check():
        for number in (0, 2, 4, 6, 8):
            top.append(norm(model[number], operator, sizes[str(number)]))
            assert top[-1] <= 0.9 * (1 + TOLERANCE), number

    with attach(model, SpectralNormalization(bound=0.9, operator=operator, size=size)) as penalty:
        train(model, penalty, lambda: torch.randn(4, 3, IMAGE, IMAGE), 12, 0.03, check)
    assert max(top) > 0.9 * (1 - TOLERANCE)


@pytest.mark.parametrize("operator", ["reshape", "zero_padded"])
def test_every_layer_is_at_the_bound_if_not_soft(operator):
    model = convolutions()
    sizes = {"0": IMAGE, "2": IMAGE, "4": IMAGE // 2, "6": IMAGE, "8": IMAGE}
    with attach(model, SpectralNormalization(bound=2.5, operator=operator, size=sizes, soft=False)):
        for number in (0, 2, 4, 6, 8):
            assert abs(norm(model[number], operator, sizes[str(number)]) / 2.5 - 1) <= TOLERANCE, number


def test_a_channel_that_no_followed_vector_has_a_part_of_is_found():
    layer = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([1.0, 1.5, 0.5]))[:, :, None, None])
    followed = torch.zeros(4, 3, 196)
    followed[:, 0] = torch.randn(4, 196, generator=torch.Generator().manual_seed(0))
    operator = layer_operator(layer, "zero_padded", 14)
    value, _ = largest_of_operator(operator, followed.flatten(1), TOLERANCE, seed=0)
    assert abs(value / 1.5 - 1) <= TOLERANCE


def test_a_norm_just_above_the_tolerance_is_scaled_and_one_within_it_is_not():
    layer = nn.Linear(4, 4)
    for excess, scaled in ((0.0015, True), (0.0003, False), (-0.0015, False)):
        nn.init.eye_(layer.weight).data.mul_(1 + excess)
        SpectralNormalization(bound=1.0).project_(layer)
        assert (norm(layer) != pytest.approx(1 + excess, abs=1e-5)) == scaled
        assert norm(layer) <= 1 + TOLERANCE


def test_rounding_to_bfloat16_never_ends_above_the_bound():
    layer = nn.Linear(64, 48).to(torch.bfloat16)
    nn.init.constant_(layer.weight, 3.0)
    bound = 0.9985 * math.sqrt(64 * 48)  # every entry would round up, to 1
    SpectralNormalization(bound=bound).project_(layer)
    assert bound * 0.98 < norm(layer) <= bound * (1 + TOLERANCE)


def test_a_convolution_too_large_for_a_matrix_holds_the_bound():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    with attach(model, SpectralNormalization(bound=0.8, operator="zero_padded", size=14)) as penalty:
        (term,) = penalty._terms.values()
        for step in range(6):
            with torch.no_grad():
                model.weight.add_(0.2 * torch.randn_like(model.weight))
                if step == 3:  # another direction takes over at once
                    model.weight.zero_()[:, :, 1, 1] = torch.eye(4, 3)
            penalty.project_()
            assert term._vectors  # by Krylov spaces, not as a matrix
            assert abs(norm(model, "zero_padded", 14) / 0.8 - 1) <= TOLERANCE or norm(model, "zero_padded", 14) < 0.8
        assert norm(model, "zero_padded", 14) > 0.8 * (1 - TOLERANCE)


@pytest.mark.parametrize("shape", [(600, 530), (530, 600)])
def test_a_new_leading_direction_is_found_in_the_same_step(shape):
    """What a warm vector alone does not see: a spike at a right angle to it."""
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0], bias=False)
    with attach(layer, SpectralNormalization(bound=1.0)) as penalty:
        for _ in range(2):
            u, v = torch.randn(shape[0], 1), torch.randn(1, shape[1])
            with torch.no_grad():
                layer.weight.add_(1.05 * u @ v / (u.norm() * v.norm()))
            penalty.project_()
            assert abs(norm(layer) - 1) <= TOLERANCE


def test_krylov_spaces_find_the_norm_of_an_operator():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=False)
    operator = layer_operator(layer, "zero_padded", 26)
    assert min(operator.shape) > 512
    truth = norm(layer, "zero_padded", 26)
    value, vectors = largest_of_operator(operator, None, 1e-4, seed=0)
    assert abs(value / truth - 1) < 1e-4
    again, _ = largest_of_operator(operator, vectors, 1e-4, seed=1)
    assert abs(again / truth - 1) < 1e-4
    same, _ = largest_of_operator(operator, vectors, 1e-4, seed=1)
    assert same == again
    nothing = layer_operator(layer, "zero_padded", 26, weight=torch.zeros_like(layer.weight))
    assert largest_of_operator(nothing, None, 1e-4, seed=0)[0] == 0
    broken = layer_operator(layer, "zero_padded", 26, weight=torch.full_like(layer.weight, math.nan))
    assert math.isnan(largest_of_operator(broken, None, 1e-4, seed=0)[0])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 7), (2, 7, 4), (1, 90, 90), (5, 1, 9), (1, 260, 300)])
def test_squarings_bound_the_norm_from_above(shape):
    torch.manual_seed(0)
    blocks = torch.randn(shape)
    truth = torch.linalg.svdvals(blocks.double()).max()
    torch.testing.assert_close(largest_of_blocks(blocks, 1e-6), truth, rtol=1e-10, atol=0)
    for size in (1.0, 1e-30, 1e30):
        assert truth * (1 - 1e-6) <= largest_of_blocks(blocks * size, 1e-3) / size <= truth * (1 + 4e-5)
    gram = blocks.double() @ blocks.double().mT
    for scale in (1.0, 1e-8, 1e8):
        found = largest_by_squaring(gram * scale**2, 1e-3)
        assert truth * scale <= found * (1 + 1e-12)
        assert found <= truth * scale * (1 + 1e-3 / 4 + 1e-12)
    flat = largest_by_squaring(torch.eye(200, dtype=torch.float64)[None], 1e-3)  # the worst case
    assert 1 <= flat <= 1 + 1e-3 / 4
    assert largest_by_squaring(torch.zeros(2, 3, 3, dtype=torch.float64), 1e-3) == 0
    assert largest_by_squaring(torch.full((1, 2, 2), math.nan, dtype=torch.float64), 1e-3).isnan()


def test_soft_leaves_layers_under_the_bound_bitwise_alone_and_projecting_twice_is_projecting_once():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4))
    with torch.no_grad():
        model[0].weight.mul_(0.5 / norm(model[0]))
        model[1].weight.mul_(5 / norm(model[1]))
    before = copy.deepcopy(model)
    regularizer = SpectralNormalization(bound=1.0)
    with attach(model, regularizer) as penalty:
        assert torch.equal(model[0].weight, before[0].weight)
        torch.testing.assert_close(model[1].weight, before[1].weight / 5)
        assert penalty() == 0
        assert penalty.values == {}
        once = copy.deepcopy(model.state_dict())
        penalty.project_()
        assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())
    assert once.keys() == before.state_dict().keys()  # a checkpoint is the plain model's
    with torch.no_grad():
        model[1].weight.mul_(3)
    regularizer.project_(model)  # not attached: from a cold start
    assert norm(model[1]) <= 1 + TOLERANCE
    for number in (0, 1):
        assert torch.equal(model[number].bias, before[number].bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_of_weights(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 48)).to(dtype)
    with torch.no_grad():
        model[0].weight.fill_(0.1)  # every entry rounds the same way
    with attach(model, SpectralNormalization(bound=0.7, soft=False)) as penalty:
        for _ in range(5):
            for layer in model:
                assert layer.weight.dtype == dtype
                assert norm(layer) <= 0.7 * (1 + TOLERANCE)
                assert norm(layer) >= 0.7 * 0.98
            with torch.no_grad():
                model[0].weight.mul_(1.0 + 5 * torch.rand(()))
                model[1].weight.add_(torch.randn(48, 48).to(dtype))
            penalty.project_()


@pytest.mark.parametrize("settings", [{}, {"soft": False}, {"operator": "zero_padded", "size": 14}])
def test_zeros_stay_zeros_and_what_is_not_finite_is_left_alone(settings):
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1))
    with torch.no_grad():
        model[0].weight.zero_()
        model[1].weight[0, 0, 0, 0] = math.nan
        model[2].weight.mul_(100)
    kept = model[1].weight.detach().clone()
    with attach(model, SpectralNormalization(**settings)) as penalty:
        penalty.project_()
    assert (model[0].weight == 0).all()
    assert torch.equal(model[1].weight.nan_to_num(7), kept.nan_to_num(7))
    assert norm(model[2], settings.get("operator", "reshape"), 14) <= 1 + TOLERANCE
    assert norm(model[2], settings.get("operator", "reshape"), 14) > 1 - TOLERANCE


def test_a_moving_average_stays_within_the_bound():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 30), nn.ReLU(), nn.Linear(30, 1))
    with attach(model, SpectralNormalization(bound=0.8)) as penalty:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7))

        def check():
            average.update_parameters(model)
            for number in (0, 2):
                assert norm(average.module[number]) <= 0.8 * (1 + TOLERANCE)

        train(model, penalty, lambda: torch.randn(8, 10), 20, 0.1, check)
        x = torch.randn(3, 10)
        assert torch.equal(model.train()(x), model.eval()(x))
        plain = nn.Sequential(nn.Linear(10, 30), nn.ReLU(), nn.Linear(30, 1))
        plain.load_state_dict(model.state_dict())
        assert torch.equal(plain(x), model(x))


@pytest.mark.parametrize(
    "settings", [{}, {"operator": "zero_padded", "size": 14}, {"soft": False, "gain": "learnable"}], ids=str
)
def test_resumed_is_bitwise_the_same(settings):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))

    def steps(model, optimizer, penalty, numbers):
        for number in numbers:
            x = torch.randn(2, 3, 14, 14, generator=torch.Generator().manual_seed(number))
            (-model(x).square().mean() + penalty()).backward()
            optimizer.step()
            penalty.project_()
            optimizer.zero_grad()
            if number == 1:
                with penalty.aside():
                    penalty.project_()

    def optimizer_of(model, penalty):
        (term,) = penalty._terms.values()
        return torch.optim.Adam([*model.parameters(), *term.parameters()], lr=0.1)

    whole, parts = build(), build()
    regularizer = SpectralNormalization(bound=0.9, **settings)
    with attach(whole, regularizer) as penalty:
        steps(whole, optimizer_of(whole, penalty), penalty, range(6))
        final = penalty.state_dict()
    with attach(parts, regularizer) as penalty:
        optimizer = optimizer_of(parts, penalty)
        steps(parts, optimizer, penalty, range(3))
        state, moments = copy.deepcopy(penalty.state_dict()), copy.deepcopy(optimizer.state_dict())
    with attach(parts, SpectralNormalization(bound=0.9, **settings)) as penalty:
        penalty.load_state_dict(state)
        optimizer = optimizer_of(parts, penalty)
        optimizer.load_state_dict(moments)
        steps(parts, optimizer, penalty, range(3, 6))
        resumed = penalty.state_dict()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in parts.state_dict().items())
    assert resumed.keys() == final.keys()
    assert all(torch.equal(value, final[name]) for name, value in resumed.items())
    assert bool(final) == bool(settings)


def test_a_state_of_another_is_refused():
    model = nn.Linear(3, 3)
    with attach(model, SpectralNormalization(soft=False, gain="learnable")) as penalty:
        state = penalty.state_dict()
    with attach(model, SpectralNormalization()) as penalty, pytest.raises(ValueError, match="gain/"):
        penalty.load_state_dict(state)
    learnable = SpectralNormalization(soft=False, gain="learnable")
    with attach(model, learnable) as penalty, pytest.raises(ValueError, match="gain/"):
        penalty.load_state_dict({})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bound": 0.0}, "bound must be"),
        ({"bound": math.inf}, "bound must be"),
        ({"bound": {"0": -1.0}}, "bound must be"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"gain": "learnable"}, "soft=False"),
        ({"operator": "zero_padded"}, "size"),
        ({"operator": "zero_padded", "size": 8, "tolerance": 1e-6}, "at best"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpectralNormalization(**arguments)


def test_layers_that_cannot_be_scaled_are_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"'1'.*parametrized"), attach(model, SpectralNormalization()):
        pass
    with attach(model, SpectralNormalization(layers="0")):
        pass
    with pytest.raises(ValueError, match="no entry for"), attach(model, SpectralNormalization("0", bound={"1": 1.0})):
        pass


def test_nothing_keeps_the_model():
    import gc
    import weakref

    model = nn.Linear(3, 3)
    with attach(model, SpectralNormalization()):
        pass
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("script", ["compiled_normalization.py", "sharded_normalization.py"])
def test_in_processes_of_their_own(script):
    """Compiled, and sharded over two ranks: compilers and process groups keep global state."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script))],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count(" ok\n") == 2, result.stdout
