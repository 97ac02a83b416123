import copy

import pytest
import torch
from torch import nn

from lsdr.regularizers._adapter_norms import delta_norms, matrix_norm
from lsdr.regularizers.adapter_normalization import AdapterNormalization
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_normalization import SpectralNormalization

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

CONFIGS = {
    "lora": peft.LoraConfig(r=3, lora_alpha=6),
    "rslora": peft.LoraConfig(r=4, lora_alpha=2, use_rslora=True),
    "loha": peft.LoHaConfig(r=2, alpha=3),
    "lokr": peft.LoKrConfig(r=1, alpha=3, decompose_factor=2),
    "lokr whole": peft.LoKrConfig(r=9, alpha=3, decompose_factor=2),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 10)
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.last = nn.Linear(10, 6)

    def forward(self, x, image):
        return self.last(torch.tanh(self.linear(x))).sum() + self.conv(image).sum()


def adapted(kind, targets=("linear", "conv"), scale=1.0, name="default"):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[kind] if isinstance(kind, str) else kind)
    config.target_modules = set(targets)
    model = peft.inject_adapter_in_model(config, Net(), adapter_name=name)
    fill(model, scale)
    return model


def fill(model, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def delta(layer, adapter="default"):
    """What peft itself multiplies out."""
    return layer.get_delta_weight(adapter).detach().flatten(1).double()


def norm(matrix, kind):
    return float(torch.linalg.matrix_norm(matrix, 2 if kind == "spectral" else "fro"))


def frozen(model):
    return {name: each.clone() for name, each in model.named_parameters() if not each.requires_grad}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("which", ["spectral", "frobenius"])
def test_the_delta_is_scaled_to_the_bound_and_nothing_else_changes(kind, which):
    model = adapted(kind)
    before, base = {n: delta(getattr(model, n)) for n in ("linear", "conv")}, frozen(model)
    regularizer = AdapterNormalization(bound=0.3, norm=which)
    regularizer.project_(model)
    for name, old in before.items():
        new = delta(getattr(model, name))
        assert norm(new, which) == pytest.approx(0.3, rel=2e-6)
        assert norm(new, which) <= 0.3 * (1 + 2e-6)
        torch.testing.assert_close(new, old * (0.3 / norm(old, which)), rtol=1e-4, atol=1e-6)  # scaled, not turned
    for name, each in frozen(model).items():
        assert torch.equal(each, base[name])
    state = {name: each.clone() for name, each in model.state_dict().items()}
    regularizer.project_(model)  # within its bound: bitwise as it was
    assert all(torch.equal(each, state[name]) for name, each in model.state_dict().items())


def test_the_factors_share_the_ratio_as_in_kohyas_trainer():
    model = adapted("lora", targets=["linear"])
    up, down = model.linear.lora_B["default"].weight, model.linear.lora_A["default"].weight
    old_up, old_down, size = up.detach().clone(), down.detach().clone(), float(delta(model.linear).norm())
    AdapterNormalization(bound=1.0, norm="frobenius").project_(model)
    ratio = (1.0 / size) ** 0.5  # apply_max_norm_regularization: both factors times the root of the ratio
    torch.testing.assert_close(up.detach(), old_up * ratio)
    torch.testing.assert_close(down.detach(), old_down * ratio)


def test_a_bound_relative_to_the_base():
    model = adapted("lora")
    AdapterNormalization(bound=0.1, relative=True).project_(model)
    for layer in (model.linear, model.conv):
        base = layer.base_layer.weight.detach().flatten(1).double()
        assert norm(delta(layer), "spectral") == pytest.approx(0.1 * norm(base, "spectral"), rel=2e-6)
        assert norm(base + delta(layer), "spectral") <= 1.1 * norm(base, "spectral") * (1 + 1e-6)
    with attach(model, AdapterNormalization("linear", bound=0.1, relative=True)) as penalty:
        with torch.no_grad():
            model.linear.base_layer.weight.mul_(0.5)  # noticed, though the base was measured before
        penalty.project_()
        base = model.linear.base_layer.weight.detach().double()
        assert norm(delta(model.linear), "spectral") == pytest.approx(0.1 * norm(base, "spectral"), rel=2e-6)
        model.linear.base_layer.weight.data.zero_()
    with pytest.raises(ValueError, match=r"'linear'.*base of finite norm above zero"):
        AdapterNormalization(bound=0.1, relative=True).project_(model)


def test_zeros_stay_and_what_is_not_finite_is_left_for_the_loop_to_notice():
    model = adapted("lora")
    up = model.linear.lora_B["default"].weight
    up.data.zero_()
    model.conv.lora_A["default"].weight.data[0, 0, 0, 0] = float("nan")
    state = {name: each.clone() for name, each in model.state_dict().items()}
    AdapterNormalization(bound=1e-3).project_(model)
    for name, each in model.state_dict().items():
        torch.testing.assert_close(each, state[name], rtol=0, atol=0, equal_nan=True)


def test_half_precision_is_scaled_until_the_rounded_factors_keep_the_bound():
    model = adapted("lora").to(torch.bfloat16)
    AdapterNormalization(bound=0.3).project_(model)
    for layer in (model.linear, model.conv):
        up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        product = 2.0 * up.detach().double().flatten(1) @ down.detach().double().flatten(1)
        assert 0.29 < norm(product, "spectral") <= 0.3 * (1 + 1e-6)


def test_norms_where_the_factors_nearly_cancel_and_of_extreme_sizes():
    from lsdr.linalg.low_rank import LowRank

    torch.manual_seed(0)
    column, row = torch.randn(40, 1, dtype=torch.float64), torch.randn(1, 30, dtype=torch.float64)
    up = torch.cat([column, -column + 1e-3 * torch.randn(40, 1, dtype=torch.float64)], 1)
    cancelling = LowRank(up, torch.cat([row, row]), 0.5)
    tiny = LowRank(1e-30 * torch.randn(9, 2), 1e-30 * torch.randn(2, 7), 3.0)
    operators = {"cancelling": cancelling, "tiny": tiny, "wide": LowRank(torch.randn(3, 8), torch.randn(8, 4), -2.0)}
    operators["none"] = LowRank(torch.randn(3, 0), torch.randn(0, 4))
    for kind in ("spectral", "frobenius"):
        found = delta_norms(operators, kind)
        assert list(found) == list(operators)
        for name, operator in operators.items():
            exact = operator.scale * operator.up.double() @ operator.down.double()
            assert found[name] == pytest.approx(norm(exact, kind), rel=1e-7, abs=0)
        matrix = torch.randn(20, 30)
        assert matrix_norm(matrix, kind) == pytest.approx(norm(matrix.double(), kind), rel=1e-6)


@pytest.mark.parametrize("which", ["spectral", "frobenius"])
def test_every_step_of_training_ends_within_the_bound(which):
    model = adapted("lora", scale=0.1)
    x, image = torch.randn(5, 12), torch.randn(2, 4, 8, 8)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.3)
    base, largest = frozen(model), 0.0
    with attach(model, AdapterNormalization(bound=0.7, norm=which)) as penalty:
        for _ in range(10):
            (-model(x, image).square() + penalty()).backward()
            optimizer.step()
            penalty.project_()
            optimizer.zero_grad()
            norms = [norm(delta(layer), which) for layer in (model.linear, model.conv)]
            largest = max(largest, *norms)
            assert largest <= 0.7 * (1 + 2e-6)
        assert penalty.state_dict() == {}
        assert penalty.values == {}
    assert largest == pytest.approx(0.7, rel=1e-5)  # it was at the bound, so it did something
    assert all(torch.equal(each, base[name]) for name, each in frozen(model).items())


def test_only_what_is_trained_is_scaled():
    model = adapted("lora", targets=["linear"])
    down = model.linear.lora_A["default"].weight
    down.requires_grad_(False)
    before = down.detach().clone()
    AdapterNormalization(bound=0.2).project_(model)
    assert torch.equal(down.detach(), before)
    assert norm(delta(model.linear), "spectral") == pytest.approx(0.2, rel=2e-6)
    # Another adapter that is there already, frozen, beside the one in training.
    config = copy.deepcopy(CONFIGS["lora"])
    config.target_modules = {"linear"}
    model = adapted("lora", targets=["linear"], name="style")
    model = peft.inject_adapter_in_model(config, model, adapter_name="subject")
    model.linear.set_adapter(["style", "subject"])
    fill(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("subject" in name)
    style = delta(model.linear, "style")
    AdapterNormalization(bound=0.2).project_(model)
    assert torch.equal(delta(model.linear, "style"), style)
    assert norm(delta(model.linear, "subject"), "spectral") == pytest.approx(0.2, rel=2e-6)
    model.requires_grad_(False)
    AdapterNormalization(bound=0.2).project_(model)  # nothing is in training: each adapter by itself
    assert norm(delta(model.linear, "style"), "spectral") == pytest.approx(0.2, rel=2e-6)


def test_what_cannot_be_held_is_refused():
    with pytest.raises(ValueError, match=r"none of the 3 layers .* is adapted"):
        AdapterNormalization().project_(Net())
    with pytest.raises(ValueError, match="no layer matches"):
        AdapterNormalization("nothing").project_(adapted("lora"))
    dora = adapted(peft.LoraConfig(r=2, use_dora=True), targets=["linear"])
    with pytest.raises(ValueError, match=r"'linear'.*does more than to add"):
        AdapterNormalization().project_(dora)
    ada = adapted(peft.AdaLoraConfig(target_r=2, init_r=3, total_step=10), targets=["linear"])
    with pytest.raises(ValueError, match="none of LoRA, LoHa and LoKr"):
        AdapterNormalization().project_(ada)
    merged = adapted("lora", targets=["linear"])
    merged.linear.merge()
    with pytest.raises(ValueError, match="unmerge"):
        AdapterNormalization().project_(merged)
    for bound in (0.0, float("inf")):
        with pytest.raises(ValueError, match="must be finite and positive"):
            AdapterNormalization(bound=bound)
    with attach(adapted("lora"), AdapterNormalization()) as penalty, pytest.raises(ValueError, match="do not fit"):
        penalty.load_state_dict({"AdapterNormalization/vectors": torch.zeros(1)})


def test_spectral_normalization_holds_the_deltas_and_leaves_frozen_weights():
    model = adapted("lora")
    model.last.requires_grad_(True)
    with torch.no_grad():
        model.last.weight.mul_(10)
        model.linear.base_layer.weight.mul_(10)
    base = frozen(model)
    with attach(model, SpectralNormalization(bound=0.5)) as penalty:
        assert set(penalty._terms["SpectralNormalization"].measured) == {"linear", "conv", "last"}
        for _ in range(2):
            for layer in (model.linear, model.conv):
                assert norm(delta(layer), "spectral") == pytest.approx(0.5, rel=2e-6)
            assert norm(model.last.weight.detach().double(), "spectral") <= 0.5 * (1 + 1e-3)
            fill(model)
            penalty.project_()
        assert float(penalty()) == 0
        assert penalty.state_dict() == {}
    assert all(torch.equal(each, base[name]) for name, each in frozen(model).items())
    model.last.requires_grad_(False)
    fill(model)
    with attach(model, SpectralNormalization("linear", bound={"linear": 0.25})) as penalty:  # no layer of its own
        assert float(penalty()) == 0
    assert norm(delta(model.linear), "spectral") == pytest.approx(0.25, rel=2e-6)
    assert norm(delta(model.conv), "spectral") > 1
    # Of other types than the adapted ones: nothing is left to hold but what is frozen.
    with pytest.raises(ValueError, match="none of the chosen types is adapted or trained"):
        SpectralNormalization(types=(nn.ConvTranspose2d,)).project_(model)
    with pytest.raises(ValueError, match="none of the chosen types is adapted or trained"):
        SpectralNormalization("last").project_(model)


def test_spectral_normalization_refuses_to_scale_the_parts_of_an_adapted_layer():
    model = adapted("lora")
    state = {name: each.clone() for name, each in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"'linear.base_layer' is a part of the adapted layer 'linear'"):
        SpectralNormalization(lambda name, module: isinstance(module, nn.Linear), bound=0.1).project_(model)
    for wrong in ({"soft": False}, {"soft": False, "gain": "learnable"}, {"operator": "zero_padded", "size": 8}):
        with pytest.raises(ValueError, match=r"'linear' is adapted.*soft=True"):
            SpectralNormalization(bound=0.1, **wrong).project_(model)
    assert all(torch.equal(each, state[name]) for name, each in model.state_dict().items())
