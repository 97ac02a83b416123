"""Adapters as peft and diffusers save them, against the differences that peft itself computes."""

import warnings

import pytest
import torch
from torch import nn

from lsdr.layers.checkpoint.adapters import read_adapters
from lsdr.layers.checkpoint.match_base import match_base

peft = pytest.importorskip("peft")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(11, 6)
        self.block = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 6)])
        self.conv = nn.Conv2d(4, 6, 3)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return x


LINEAR = ["block.0", "block.1", "head"]
CONFIGS = {
    "lora": lambda: peft.LoraConfig(r=2, lora_alpha=6, target_modules=[*LINEAR, "conv", "token"]),
    "grouped": lambda: peft.LoraConfig(r=2, lora_alpha=6, target_modules=["grouped"]),
    "patterns": lambda: peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=LINEAR, rank_pattern={"head": 4}, alpha_pattern={"block.\\d": 10}
    ),
    "rslora": lambda: peft.LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=LINEAR),
    "dora": lambda: peft.LoraConfig(r=2, lora_alpha=6, use_dora=True, target_modules=LINEAR),
    "loha": lambda: peft.LoHaConfig(r=2, alpha=6, target_modules=[*LINEAR, "conv"], use_effective_conv2d=True),
    "loha flat": lambda: peft.LoHaConfig(r=2, alpha=6, target_modules=[*LINEAR, "conv"]),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=6, target_modules=[*LINEAR, "conv"]),
    "lokr whole": lambda: peft.LoKrConfig(r=8, alpha=6, target_modules=LINEAR, rank_pattern={"head": 16}),
    "lokr both": lambda: peft.LoKrConfig(
        r=1, alpha=6, target_modules=[*LINEAR, "conv"], decompose_both=True, use_effective_conv2d=True
    ),
}


def _random(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "hada_", "lokr_")):
                parameter.normal_()
    return model


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_folder_of_peft(open_checkpoint, tmp_path, config):
    torch.manual_seed(0)
    base = Net()
    base_names = list(base.state_dict())
    model = _random(peft.get_peft_model(base, config()))
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "adapter folder"
    adapters = read_adapters(checkpoint)
    assert {name for adapter in adapters.values() for name in adapter.tensors} == set(checkpoint.entries)
    assert checkpoint.notes == []
    tuned = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer)
    }
    assert set(adapters) == set(tuned)
    assert match_base(adapters, base_names) == {target: (f"{target}.weight",) for target in adapters}
    for target, adapter in adapters.items():
        layer = tuned[target]
        assert adapter.scale == pytest.approx(layer.scaling["default"])
        assert adapter.rank in (layer.r["default"], None)
        assert adapter.dora == bool(getattr(layer, "use_dora", {}).get("default"))
        if target != "grouped":
            delta = layer.get_delta_weight("default").detach().flatten(1)
            torch.testing.assert_close(adapter.operator.matrix(), delta, rtol=1e-4, atol=1e-4)


def test_a_grouped_convolution_is_what_its_layer_computes(open_checkpoint, tmp_path):
    model = _random(peft.get_peft_model(Net(), CONFIGS["grouped"]()))
    model.save_pretrained(tmp_path)
    adapter = read_adapters(open_checkpoint(tmp_path))["grouped"]
    layer = model.base_model.model.grouped
    x = torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        difference = layer(x) - layer.base_layer(x)
    torch.testing.assert_close(adapter.operator.matvec(x.flatten()), difference.flatten(), rtol=1e-4, atol=1e-4)


def test_a_whole_model_with_two_adapters(open_checkpoint, tmp_path):
    model = peft.get_peft_model(Net(), CONFIGS["lora"](), adapter_name="one")
    model.add_adapter("two", CONFIGS["patterns"]())
    _random(model)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    adapters = read_adapters(checkpoint)
    assert {"head (one)", "head (two)", "conv"} <= set(adapters)
    layer = model.base_model.model.head
    for name in ("one", "two"):
        delta = (layer.lora_B[name].weight @ layer.lora_A[name].weight).detach()
        torch.testing.assert_close(adapters[f"head ({name})"].operator.matrix(), delta)
    matched = match_base(adapters, checkpoint.entries)
    assert matched["head (two)"] == ("base_model.model.head.base_layer.weight",)
    assert set(matched) == set(adapters)


def test_other_tuners_are_noted_and_not_misread(open_checkpoint, tmp_path):
    model = peft.get_peft_model(Net(), peft.IA3Config(target_modules=["head"], feedforward_modules=[]))
    model.save_pretrained(tmp_path / "ia3")
    assert read_adapters(open_checkpoint(tmp_path / "ia3")) == {}
    config = peft.AdaLoraConfig(target_modules=["head"], init_r=2, target_r=1, total_step=10)
    peft.get_peft_model(Net(), config).save_pretrained(tmp_path / "adalora")
    assert read_adapters(open_checkpoint(tmp_path / "adalora")) == {}


def test_names_that_diffusers_saves(open_checkpoint, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            layers_per_block=1,
            attention_head_dim=4,
            cross_attention_dim=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )
        base_names = [f"unet.{name}" for name in unet.state_dict()]
        targets = ["to_q", "to_out.0", "proj_in", "conv1"]
        unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=8, target_modules=targets))
        _random(unet)
        layers = peft.get_peft_model_state_dict(unet)
        for name, metadata in (("plain", None), ("told", unet.peft_config["default"].to_dict())):
            diffusers.StableDiffusionPipeline.save_lora_weights(
                tmp_path / name, unet_lora_layers=dict(layers), unet_lora_adapter_metadata=metadata
            )
    plain, told = (read_adapters(open_checkpoint(tmp_path / name)) for name in ("plain", "told"))
    assert set(plain) == set(told)
    assert len(plain) > 10
    matched = match_base(plain, base_names)
    assert matched == {target: (f"{target}.weight",) for target in plain}
    # The same in kohya's spelling.
    kohya = {target: "lora_" + target.replace(".", "_") for target in plain}
    assert match_base(kohya.values(), base_names) == {kohya[target]: name for target, name in matched.items()}
    for target, adapter in told.items():
        delta = unet.get_submodule(target.removeprefix("unet.")).get_delta_weight("default").detach().flatten(1)
        assert (adapter.scale, plain[target].scale) == (4.0, 1.0)
        torch.testing.assert_close(adapter.operator.matrix(), delta, rtol=1e-4, atol=1e-4)
