import copy

import pytest
import torch
from torch import nn

from lsdr.layers.operators import layer_operator
from lsdr.linalg.combine import Sum
from lsdr.linalg.hadamard import Hadamard
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.low_rank import LowRank
from lsdr.probes.weights import WeightProbe, weight_spectrum

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 8)
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.table = nn.Embedding(9, 4)
        self.last = nn.Linear(6, 8)


def adapted(config, layer):
    """A layer with an adapter of random factors, and what peft itself makes of it: the merged weight."""
    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "base_layer" not in name:
                parameter.normal_()
    merged = copy.deepcopy(model).merge_and_unload()
    return getattr(model.base_model.model, layer), getattr(merged, layer)


@pytest.mark.parametrize("layer", ["linear", "conv", "table"])
def test_lora_is_the_base_and_its_factors(layer):
    found, merged = adapted(peft.LoraConfig(r=2, lora_alpha=3, target_modules=[layer]), layer)
    operator = layer_operator(found)
    assert isinstance(operator, Sum)
    assert isinstance(operator.operators[1], LowRank)
    assert operator.operators[0].weight.data_ptr() == found.base_layer.weight.data_ptr()  # nothing copied
    torch.testing.assert_close(operator.matrix(), merged.weight.detach().flatten(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "kind"),
    [(peft.LoHaConfig(r=2, alpha=3), Hadamard), (peft.LoKrConfig(r=1, alpha=3, decompose_factor=2), Kronecker)],
)
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_loha_and_lokr_stay_factors(config, kind, layer):
    config = copy.deepcopy(config)
    config.target_modules = {layer}
    found, merged = adapted(config, layer)
    operator = layer_operator(found)
    assert isinstance(operator.operators[1], kind)
    torch.testing.assert_close(operator.matrix(), merged.weight.detach().flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoHaConfig(r=2, use_effective_conv2d=True),
        peft.LoKrConfig(r=1, use_effective_conv2d=True, decompose_both=True),
        peft.AdaLoraConfig(init_r=2, total_step=3),
    ],
)
def test_other_additive_adapters_are_multiplied_out(config):
    config = copy.deepcopy(config)
    layer = "linear" if isinstance(config, peft.AdaLoraConfig) else "conv"
    config.target_modules = {layer}
    found, merged = adapted(config, layer)
    torch.testing.assert_close(layer_operator(found).matrix(), merged.weight.detach().flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["circular", "zero_padded"])
def test_an_adapted_convolution_at_a_size(kind):
    found, merged = adapted(peft.LoraConfig(r=2, target_modules=["conv"]), "conv")
    expected = layer_operator(merged, kind, 4).matrix()
    torch.testing.assert_close(layer_operator(found, kind, 4).matrix(), expected, rtol=1e-5, atol=1e-5)


def test_transposed_storage():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    model = nn.Sequential(conv1d(6, 4))
    torch.manual_seed(0)
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["0"], fan_in_fan_out=True))
    layer = model.base_model.model[0]
    nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(3, 4)
    expected = (layer(x) - layer.base_layer.bias).detach()
    torch.testing.assert_close(layer_operator(layer).matvec(x), expected)


def test_active_merged_and_switched_off_adapters():
    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), peft.LoraConfig(r=2, target_modules=["linear"]), "one")
    model.add_adapter("two", peft.LoraConfig(r=3, target_modules=["linear"]))
    layer = model.base_model.model.linear
    nn.init.normal_(layer.lora_B["one"].weight)
    nn.init.normal_(layer.lora_B["two"].weight)
    base, one, two = (
        layer.base_layer.weight.detach().clone(),
        layer.get_delta_weight("one"),
        layer.get_delta_weight("two"),
    )

    def matrix():
        return layer_operator(layer).matrix()

    torch.testing.assert_close(matrix(), base + one.detach())
    layer.set_adapter(["one", "two"])
    torch.testing.assert_close(matrix(), base + one.detach() + two.detach())
    model.disable_adapter_layers()
    torch.testing.assert_close(matrix(), base)
    model.enable_adapter_layers()
    layer.merge()
    torch.testing.assert_close(matrix(), base + one.detach() + two.detach())
    layer._disable_adapters = True
    with pytest.raises(ValueError, match="switched off but still merged"):
        matrix()


@pytest.mark.parametrize("kind", ["reshape", "zero_padded"])
def test_an_adapter_around_an_adapter(kind):
    inner, _ = adapted(peft.LoraConfig(r=2, target_modules=["conv"]), "conv")
    outer, _ = adapted(peft.LoraConfig(r=3, target_modules=["conv"]), "conv")
    expected = copy.deepcopy(inner.base_layer)
    with torch.no_grad():
        expected.weight += inner.get_delta_weight("default") + outer.get_delta_weight("default")
    outer.base_layer = inner
    found, plain = layer_operator(outer, kind, 4), layer_operator(expected, kind, 4)
    torch.testing.assert_close(found.matrix(), plain.matrix(), rtol=1e-5, atol=1e-5)


def test_adapters_that_do_more_than_add_are_refused():
    found, _ = adapted(peft.LoraConfig(r=2, target_modules=["linear"], use_dora=True), "linear")
    with pytest.raises(ValueError, match=r"DoraLinearVariant.* merge it first"):
        layer_operator(found)
    found, _ = adapted(peft.OFTConfig(oft_block_size=2, r=0, target_modules=["linear"]), "linear")
    with pytest.raises(ValueError, match="not known to add"):
        layer_operator(found)


def test_grouped_convolutions_are_refused():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    layer = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["0"])).base_model.model[0]
    with pytest.raises(ValueError, match="2 groups mix the groups"):
        layer_operator(layer)


def test_spectra_of_adapted_layers():
    found, merged = adapted(peft.LoraConfig(r=2, target_modules=["linear"]), "linear")
    expected = torch.linalg.svdvals(merged.weight.detach().double()).float()
    torch.testing.assert_close(weight_spectrum(found).values, expected, rtol=1e-5, atol=1e-6)
    model = nn.Sequential(found)
    assert list(WeightProbe(types=(type(found),))(model)) == ["0"]


def test_diffusers_own_lora_layers():
    lora = pytest.importorskip("diffusers.models.lora")
    layer = lora.LoRACompatibleLinear(5, 4, lora_layer=lora.LoRALinearLayer(5, 4, rank=2, network_alpha=3))
    nn.init.normal_(layer.lora_layer.up.weight)
    x = torch.randn(3, 5)
    torch.testing.assert_close(layer_operator(layer).matvec(x), (layer(x) - layer.bias).detach())
    conv = lora.LoRACompatibleConv(3, 4, 3, padding=1, lora_layer=lora.LoRAConv2dLayer(3, 4, 2, 3, padding=1))
    nn.init.normal_(conv.lora_layer.up.weight)
    images = torch.randn(2, 3, 4, 4)
    expected = (conv(images) - conv.bias[:, None, None]).flatten(1).detach()
    found = layer_operator(conv, "zero_padded", 4).matvec(images.flatten(1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
