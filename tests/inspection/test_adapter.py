"""Adapters, alone and against the model that they are for."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from lsdr.inspection.inspect import inspect


@pytest.fixture
def target():
    return "lora_unet_mid_block_attentions_0_proj_in"


def kohya(noise, target, rank=4, alpha=2.0, m=20, n=30):
    return {
        f"{target}.lora_up.weight": noise(m, rank, seed=1),
        f"{target}.lora_down.weight": noise(rank, n, seed=2),
        f"{target}.alpha": torch.tensor(alpha),
    }


def test_a_lora_alone(noise, saved, target):
    state = kohya(noise, target)
    inspection = inspect(saved(state))
    (row,) = inspection.layers
    product = 0.5 * state[f"{target}.lora_up.weight"] @ state[f"{target}.lora_down.weight"]
    values = torch.linalg.svdvals(product.double())[:4]
    share = values / values.sum()
    assert (row["name"], row["kind"], row["operator"], row["shape"]) == (target, "lora", "low_rank", [20, 30])
    assert row["sigma_max"] == pytest.approx(values[0].item(), rel=1e-5)
    assert row["lower"] <= values[0] * (1 + 1e-6)
    assert row["upper"] >= values[0] * (1 - 1e-6)
    assert row["effective_rank"] == pytest.approx((-(share * share.log()).sum()).exp().item(), rel=1e-4)
    assert row["frobenius"] == row["adapter"]["key_norm"] == pytest.approx(values.norm().item(), rel=1e-5)
    assert (row["adapter"]["rank"], row["adapter"]["alpha"], row["adapter"]["scale"]) == (4, 2.0, 0.5)
    assert row["spectrum"] == pytest.approx(values.tolist(), rel=1e-5)
    assert row["unknown"] == ["base"]


def test_against_its_base(noise, saved, target):
    state = kohya(noise, target)
    weight = noise(20, 30, seed=3)
    base = saved({"mid_block.attentions.0.proj_in.weight": weight}, "base.safetensors")
    (row,) = inspect(saved(state), base=base).layers
    product = 0.5 * state[f"{target}.lora_up.weight"] @ state[f"{target}.lora_down.weight"]
    norm = torch.linalg.matrix_norm
    about = row["adapter"]
    assert about["sigma_over_base"] == pytest.approx((norm(product, 2) / norm(weight, 2)).item(), rel=0.01)
    assert about["sum_lower"] <= norm(weight + product, 2) <= about["sum_upper"]
    assert about["sum_sigma_max"] == pytest.approx(norm(weight + product, 2).item(), rel=0.01)
    assert row["delta"]["relative"] == pytest.approx((norm(product) / norm(weight)).item(), rel=1e-4)
    assert len(row["delta"]["principal_angles"]) == 10
    assert row["unknown"] == []


def test_a_base_of_another_model_is_said(noise, saved, target):
    base = saved({"mid_block.attentions.0.proj_in.weight": noise(20, 31), "x.weight": noise(2, 2)}, "base.safetensors")
    (row,) = inspect(saved(kohya(noise, target)), base=base).layers
    assert "another shape" in row["adapter"]["base_note"]
    assert "delta" not in row
    elsewhere = kohya(noise, "lora_unet_elsewhere")
    other = inspect(saved({**kohya(noise, target), **elsewhere}), base=base)
    assert any("for no weight of the base" in note for note in other.file["notes"])
    with pytest.raises(ValueError, match="none of the 1 adapters is for a weight of the base"):
        inspect(saved(elsewhere), base=base)


def test_what_was_not_trained_yet_is_zero(noise, saved, target):
    state = kohya(noise, target)
    state[f"{target}.lora_up.weight"] *= 0
    inspection = inspect(saved(state))
    assert inspection.layers[0]["sigma_max"] == 0
    assert [each.kind for each in inspection.findings] == ["zero_layer"]


def test_what_is_not_finite_is_an_error(noise, saved, target):
    state = kohya(noise, target)
    state[f"{target}.lora_up.weight"][0, 0] = torch.nan
    inspection = inspect(saved(state))
    assert [(each.kind, each.layer) for each in inspection.findings] == [("nonfinite", target)]
    assert inspection.layers[0]["sigma_max"] is None


def test_a_base_that_is_not_finite_does_no_harm(noise, saved, target):
    base = saved({"mid_block.attentions.0.proj_in.weight": noise(20, 30) / 0}, "base.safetensors")
    (row,) = inspect(saved(kohya(noise, target)), base=base).layers
    assert "not finite" in row["adapter"]["base_note"]


def test_an_adapter_of_a_layer_that_is_stored_transposed(noise, tmp_path, saved):
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "fan_in_fan_out": True}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    up, down = noise(36, 4, seed=1), noise(4, 12, seed=2)
    names = ("lora_A", "lora_B")
    state = {f"base_model.model.h.0.attn.c_attn.{n}.weight": w for n, w in zip(names, (down, up), strict=True)}
    save_file(state, folder / "adapter_model.safetensors")
    base = saved({"h.0.attn.c_attn.weight": noise(12, 36, seed=3)}, "base.safetensors")
    (row,) = inspect(folder, base=base).layers
    assert row["shape"] == [12, 36]
    norm = torch.linalg.matrix_norm
    assert row["delta"]["relative"] == pytest.approx((norm(up @ down) / norm(noise(12, 36, seed=3))).item(), rel=1e-4)
    total = norm(noise(12, 36, seed=3) + (up @ down).T, 2)
    assert row["adapter"]["sum_lower"] <= total <= row["adapter"]["sum_upper"]


def test_loha_and_lokr(noise, saved):
    loha = {
        "lora_unet_a.hada_w1_a": noise(12, 2, seed=1),
        "lora_unet_a.hada_w1_b": noise(2, 10, seed=2),
        "lora_unet_a.hada_w2_a": noise(12, 2, seed=3),
        "lora_unet_a.hada_w2_b": noise(2, 10, seed=4),
        "lora_unet_a.alpha": torch.tensor(1.0),
    }
    lokr = {"lora_unet_b.lokr_w1": noise(3, 4, seed=5), "lora_unet_b.lokr_w2": noise(5, 6, seed=6)}
    first, second = inspect(saved(loha | lokr)).layers
    product = 0.5 * (noise(12, 2, seed=1) @ noise(2, 10, seed=2)) * (noise(12, 2, seed=3) @ noise(2, 10, seed=4))
    assert first["operator"] == "hadamard"
    assert first["sigma_max"] == pytest.approx(torch.linalg.matrix_norm(product, 2).item(), rel=1e-4)
    assert second["operator"] == "kronecker"
    assert second["shape"] == [15, 24]
    expected = math.prod(torch.linalg.matrix_norm(noise(*s, seed=i), 2).item() for s, i in (((3, 4), 5), ((5, 6), 6)))
    assert second["sigma_max"] == pytest.approx(expected, rel=1e-4)


def test_only_targets_that_match(noise, saved):
    state = {**kohya(noise, "lora_unet_a"), **kohya(noise, "lora_unet_b")}
    assert [row["name"] for row in inspect(saved(state), layers="*_b").layers] == ["lora_unet_b"]
    with pytest.raises(ValueError, match="no layer matches"):
        inspect(saved(state), layers="nothing")
