"""LoRA on tiny networks of all families: what is adapted, what is frozen, and what is refused."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdr.stable_diffusion.lora import add_lora, factors_of, lora_state

diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")

_SPEC = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiny)

FAMILIES = tiny.FAMILIES


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: tiny.make(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def load(folder, dtype=torch.float32):
    component = "unet" if (folder / "unet").is_dir() else "transformer"
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return getattr(diffusers, index[component][1]).from_pretrained(folder, subfolder=component, torch_dtype=dtype)


@pytest.fixture
def network(folders):
    return load(folders["sd"])


def run(network):
    torch.manual_seed(0)
    with torch.no_grad():
        return network(torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 7, 32)).sample


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        ("sd", {"to_q", "to_k", "to_v", "to_out.0"}),
        ("sd2", {"to_q", "to_k", "to_v", "to_out.0"}),
        ("sdxl", {"to_q", "to_k", "to_v", "to_out.0"}),
        *(
            (family, {"to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"})
            for family in ("sd3", "flux")
        ),
    ],
)
def test_by_default_every_attention_projection_and_nothing_else(folders, family, ends):
    network = load(folders[family])
    # Told by what the layers are, not by their names: children of the attention modules.
    attention = {
        f"{name}.{inside}"
        for name, module in network.named_modules()
        if type(module).__name__ in ("Attention", "FluxAttention")
        for inside, child in module.named_modules()
        if isinstance(child, nn.Linear)
    }
    layers = add_lora(network, rank=2)
    assert set(layers) == attention
    assert {"to_out.0" if layer.endswith("to_out.0") else layer.rpartition(".")[2] for layer in layers} == ends
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {f"{layer}.lora_{part}.default.weight" for layer in layers for part in "AB"}
    assert list(factors_of(network)) == layers


def test_nothing_changes_before_the_first_step(network):
    before = run(network)
    add_lora(network, rank=4)
    assert torch.equal(run(network), before)


def test_the_change_is_alpha_over_rank_times_the_product(network):
    weights = {name: parameter.clone() for name, parameter in network.named_parameters()}
    layers = add_lora(network, rank=4, alpha=2.0, targets=["*"])
    factors = factors_of(network)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in layers:
            factors[layer].up.normal_()
            assert (factors[layer].rank, factors[layer].alpha) == (4, 2.0)
            product = 0.5 * factors[layer].up.flatten(1) @ factors[layer].down.flatten(1)
            weights[f"{layer}.weight"] += product.view_as(weights[f"{layer}.weight"])
    changed = run(network)
    plain = diffusers.UNet2DConditionModel.from_config(network.config)
    plain.load_state_dict(weights)
    torch.testing.assert_close(run(plain), changed, rtol=1e-3, atol=1e-3 * changed.abs().max())


def test_factors_are_float32_beside_half_precision_weights(folders):
    network = load(folders["sd"], torch.bfloat16)
    layers = add_lora(network, rank=2)
    for name, parameter in network.named_parameters():
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)
    with torch.no_grad():
        output = network(torch.randn(1, 4, 8, 8).bfloat16(), torch.tensor([3]), torch.randn(1, 7, 32).bfloat16()).sample
    assert output.dtype == torch.bfloat16
    assert len(lora_state(network)) == 2 * len(layers)


def test_gradients_reach_the_factors_through_gradient_checkpointing(network):
    network.train()
    network.enable_gradient_checkpointing()
    add_lora(network, rank=2)
    torch.manual_seed(0)
    network(torch.randn(2, 4, 8, 8), torch.tensor([3, 9]), torch.randn(2, 7, 32)).sample.square().mean().backward()
    for layer, factors in factors_of(network).items():
        assert factors.up.grad.abs().sum() > 0, layer
        assert network.get_submodule(layer).base_layer.weight.grad is None


def test_targets_are_ends_of_names_in_whole_parts_or_globs(network):
    layers = add_lora(network, rank=2, targets=["to_v", "*attn2.to_k", "conv_in"])
    assert "conv_in" in layers
    assert {layer.rpartition(".")[2] for layer in layers} == {"to_v", "to_k", "conv_in"}
    assert all("attn2" in layer for layer in layers if layer.endswith("to_k"))
    assert layers == [name for name, module in network.named_modules() if hasattr(module, "base_layer")]


def test_a_target_is_not_the_end_of_another_layers_name(folders):
    network = load(folders["flux"])
    layers = add_lora(network, rank=2, targets=["x_embedder", "single_transformer_blocks.1.proj_out"])
    assert layers == ["x_embedder", "single_transformer_blocks.1.proj_out"]
    network = load(folders["flux"])
    assert add_lora(network, rank=2, targets=["proj_ou?"]) == ["proj_out"]
    assert list(factors_of(network)) == ["proj_out"]


def test_the_state_is_a_copy(network):
    layers = add_lora(network, rank=3)
    state = lora_state(network)
    assert state.keys() == {f"{layer}.lora_{part}.weight" for layer in layers for part in "AB"}
    assert state.keys() == peft.get_peft_model_state_dict(network).keys()
    before = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for factors in factors_of(network).values():
            factors.up.fill_(1.0)
            factors.down.fill_(1.0)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert not any(tensor.requires_grad for tensor in state.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"alpha": 0.0}, "alpha is 0.0; expected more than 0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"targets": ["to_x"]}, "no layer's name matches the target 'to_x'; ends of names are .*to_q"),
        ({"targets": ["o_q"]}, "no layer's name matches the target 'o_q'"),
        ({"targets": []}, "expected names of layers"),
        ({"targets": "to_q"}, "expected names of layers"),
    ],
)
def test_what_makes_no_lora_is_refused(network, given, message):
    with pytest.raises(ValueError, match=message):
        add_lora(network, **given)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_second_lora_is_refused(network):
    add_lora(network, rank=2)
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(network, rank=2)


def test_a_network_without_adapters_is_told_so(network):
    with pytest.raises(ValueError, match="call add_lora first"):
        lora_state(network)
    with pytest.raises(TypeError, match="Linear takes no adapters"):
        add_lora(nn.Linear(2, 2))


def test_what_is_not_one_plain_lora_is_not_saved_as_one(network, folders):
    add_lora(network, rank=2)
    network.fuse_lora()
    with pytest.raises(ValueError, match="is merged or switched off"):
        lora_state(network)
    network = load(folders["sd"])
    network.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], use_dora=True))
    with pytest.raises(ValueError, match="DoRA"):
        lora_state(network)
    network = load(folders["sd"])
    network.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"]), "one")
    with pytest.warns(UserWarning, match="multiple adapters"):
        network.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"]), "two")
    network.set_adapters(["one", "two"], [1.0, 1.0])
    with pytest.raises(ValueError, match="has 2 active LoRA adapters"):
        lora_state(network)
