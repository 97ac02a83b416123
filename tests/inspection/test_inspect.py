import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lsdr.inspection.inspect import inspect
from lsdr.probes.weights import weight_spectrum

SHAPES = {"weight": (6, 8), "bias": (6,)}


def rows_of(inspection):
    return {row["name"]: row for row in inspection.layers}


@pytest.fixture
def unet(tmp_path):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "unet")
    return model, tmp_path / "unet"


def test_all_layers_of_a_diffusers_folder(unet):
    model, path = unet
    inspection = inspect(path)
    rows = rows_of(inspection)
    weighted = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    assert rows.keys() == weighted.keys()
    for name, module in weighted.items():
        values = weight_spectrum(module).values
        assert rows[name]["sigma_max"] == pytest.approx(float(values[0]), rel=1e-4), name
        assert rows[name]["block"] in name
    assert inspection.file["format"] == "diffusers folder"
    assert inspection.file["parameters"] == sum(each.numel() for each in model.parameters())
    skipped = {each["name"] for each in inspection.skipped}
    assert "conv_norm_out" in skipped or "conv_norm_out.weight" in skipped
    assert not inspection.findings


def test_layers_come_in_the_order_of_depth(unet):
    names = [row["name"] for row in inspect(unet[1]).layers]
    assert names[0] == "conv_in"
    assert names[-1] == "conv_out"
    blocks = [next(i for i, name in enumerate(names) if name.startswith(part)) for part in ("down", "mid", "up")]
    assert blocks == sorted(blocks)


def test_heads_are_measured_where_the_configuration_tells(unet):
    model, path = unet
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    heads = rows_of(inspect(path))[name]["heads"]
    attention = model.get_submodule(name.removesuffix(".to_q"))
    queries, keys = attention.to_q.weight.chunk(2), attention.to_k.weight.chunk(2)
    assert [head["head"] for head in heads] == [0, 1]
    for head, q, k in zip(heads, queries, keys, strict=True):
        product = torch.linalg.matrix_norm(q.T @ k / len(q) ** 0.5, 2)
        assert head["qk_sigma"] == pytest.approx(product.item(), rel=1e-4)
        assert head["q_sigma"] == pytest.approx(torch.linalg.matrix_norm(q, 2).item(), rel=1e-4)
        assert head["k_sigma"] == pytest.approx(torch.linalg.matrix_norm(k, 2).item(), rel=1e-4)


@pytest.mark.parametrize("part", ["to_q", "to_k"])
def test_heads_of_what_is_not_finite_are_left_out(unet, part):
    model, path = unet
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    with torch.no_grad():
        model.get_submodule(f"{attention}.{part}").weight[0, 0] = torch.nan
    model.save_pretrained(path)
    inspection = inspect(path)
    assert [(each.kind, each.layer) for each in inspection.findings] == [("nonfinite", f"{attention}.{part}")]
    assert "heads" not in rows_of(inspection)[f"{attention}.to_q"]


def test_fused_heads_of_a_transposed_layer(tmp_path):
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(n_embd=12, n_layer=1, n_head=3, vocab_size=20, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(tmp_path / "gpt")
    heads = rows_of(inspect(tmp_path / "gpt"))["h.0.attn.c_attn"]["heads"]
    q, k, _ = model.h[0].attn.c_attn.weight.T.chunk(3)
    expected = [torch.linalg.matrix_norm(a.T @ b / 2, 2).item() for a, b in zip(q.chunk(3), k.chunk(3), strict=True)]
    assert [head["qk_sigma"] for head in heads] == pytest.approx(expected, rel=1e-4)


def test_grouped_queries_share_their_keys(tmp_path):
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=9,
    )
    model = LlamaModel(config)
    model.save_pretrained(tmp_path / "llama")
    heads = rows_of(inspect(tmp_path / "llama"))["layers.0.self_attn.q_proj"]["heads"]
    attention = model.layers[0].self_attn
    queries, keys = attention.q_proj.weight.chunk(4), attention.k_proj.weight.chunk(2)
    expected = [torch.linalg.matrix_norm(queries[i].T @ keys[i // 2] / 2, 2).item() for i in range(4)]
    assert [head["qk_sigma"] for head in heads] == pytest.approx(expected, rel=1e-4)


def test_the_dictionary_is_plain_json(unet, saved, noise):
    broken = noise(4, 5)
    broken[0, 0] = torch.nan
    for path in (unet[1], saved({"a.weight": broken, "b.weight": torch.zeros(3, 3)})):
        found = inspect(path).to_dict()
        text = json.dumps(found, allow_nan=False)
        assert json.loads(text) == found
        assert found.keys() == {"file", "layers", "blocks", "findings", "skipped", "environment", "seconds"}
        for finding in found["findings"]:
            assert {"layer", "kind", "severity", "text", "evidence", "page"} <= finding.keys()


def test_compiled_and_wrapped_names_are_the_plain_ones(saved, noise):
    state = {
        "module._orig_mod.fc.weight": noise(3, 4),
        "module._orig_mod.out.parametrizations.weight.original": noise(2, 3),
    }
    assert list(rows_of(inspect(saved(state)))) == ["fc", "out"]


def test_only_layers_that_match(saved, noise):
    path = saved({f"blocks.{i}.{part}.weight": noise(3, 4) for i in range(3) for part in ("fc", "out")})
    assert list(rows_of(inspect(path, layers="*.1.*"))) == ["blocks.1.fc", "blocks.1.out"]
    with pytest.raises(ValueError, match=r"no layer matches 'nothing\*'; there are blocks\.0\.fc"):
        inspect(path, layers="nothing*")


def test_what_has_no_spectrum_is_passed_over_with_a_reason(saved, noise):
    state = {
        "fc.weight": noise(3, 4),
        "fc.bias": noise(3),
        "norm.weight": noise(3),
        "ids": torch.arange(5),
        "packed.weight": torch.ones(4, 4, dtype=torch.int8),
        "empty.weight": torch.zeros(0, 4),
    }
    inspection = inspect(saved(state))
    assert list(rows_of(inspection)) == ["fc"]
    reasons = {each["name"]: each["reason"] for each in inspection.skipped}
    assert reasons.keys() == {"fc.bias", "norm", "ids", "packed", "empty"}
    assert "integers" in reasons["packed"]
    assert "no values" in reasons["empty"]


def test_a_bias_that_is_not_finite_is_an_error(saved, noise):
    bias = noise(3)
    bias[1] = torch.inf
    inspection = inspect(saved({"fc.weight": noise(3, 4), "fc.bias": bias}))
    assert [(each.layer, each.kind, each.severity) for each in inspection.findings] == [
        ("fc.bias", "nonfinite", "error")
    ]
    assert list(rows_of(inspection)) == ["fc"]


def test_stacked_experts_are_layers_of_their_own(saved, noise):
    stack = noise(3, 8, 6)
    rows = rows_of(inspect(saved({"layers.0.mlp.experts.gate_up_proj": stack})))
    assert list(rows) == [f"layers.0.mlp.experts.gate_up_proj[{i}]" for i in range(3)]
    sigmas = [row["sigma_max"] for row in rows.values()]
    assert sigmas == pytest.approx([torch.linalg.matrix_norm(each, 2).item() for each in stack], rel=1e-5)


def test_a_base_is_found_by_name_with_and_without_a_component(saved, noise, tmp_path):
    weight = noise(6, 8)
    base = saved({"mid.fc.weight": weight, "other.weight": noise(2, 2)}, "base.safetensors")
    tuned = saved({"mid.fc.weight": 1.5 * weight, "new.weight": noise(3, 3)})
    inspection = inspect(tuned, base=base)
    row = rows_of(inspection)["mid.fc"]
    assert row["delta"]["relative"] == pytest.approx(0.5)
    assert row["delta"]["intruder_dimensions"] == 0
    assert row["delta"]["principal_angles"] == pytest.approx([1] * 6, abs=1e-5)
    assert "delta" not in rows_of(inspection)["new"]
    assert any("new" in note and "not in the base" in note for note in inspection.file["notes"])
    assert inspection.file["base"] == str(base)
    pipeline = tmp_path / "pipe"
    (pipeline / "unet").mkdir(parents=True)
    (pipeline / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    (pipeline / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
    save_file({"mid.fc.weight": weight}, pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    assert rows_of(inspect(tuned, base=pipeline))["mid.fc"]["delta"]["relative"] == pytest.approx(0.5)
    back = rows_of(inspect(pipeline, base=tuned))["unet.mid.fc"]
    assert back["delta"]["relative"] == pytest.approx(1 / 3)
    assert back["component"] == "unet"


def test_a_base_of_another_shape_is_not_compared(saved, noise):
    base = saved({"fc.weight": noise(3, 4)}, "base.safetensors")
    inspection = inspect(saved({"fc.weight": noise(3, 5)}), base=base)
    assert "delta" not in inspection.layers[0]
    assert any("another shape" in note for note in inspection.file["notes"])
    with pytest.raises(ValueError, match=r"none of the layers \(other, ...\) is in the base"):
        inspect(saved({"other.weight": noise(3, 4)}), base=base)


def test_averages_are_compared_with_the_weights_that_they_follow(saved, noise):
    weight = noise(6, 8)
    state = {
        "model.fc.weight": weight,
        "model.fc.bias": noise(6),
        "ema.fc.weight": 0.9 * weight,
        "ema.fc.bias": noise(6),
    }
    rows = rows_of(inspect(saved(state)))
    assert list(rows) == ["model.fc"]
    assert rows["model.fc"]["ema"]["relative"] == pytest.approx(0.1)
    assert rows["model.fc"]["ema"]["name"] == "ema.fc.weight"


@pytest.mark.parametrize("name", ["ema.fc.weight", "ema.fc.bias"])
def test_an_average_that_is_not_finite_is_an_error(saved, noise, name):
    state = {f"{part}.fc.{each}": noise(*shape) for part in ("model", "ema") for each, shape in SHAPES.items()}
    state[name].view(-1)[3] = math.nan
    (finding,) = inspect(saved(state)).findings
    assert (finding.layer, finding.kind, finding.severity) == (name, "nonfinite", "error")
    assert finding.evidence["nonfinite"] == 1


def test_an_average_of_another_shape_is_not_compared(saved, noise):
    (row,) = inspect(saved({"model.fc.weight": noise(6, 8), "ema.fc.weight": noise(6, 9)})).layers
    assert row["ema"]["relative"] is None


@pytest.mark.parametrize("scale", [1e30, 3e38, 1e-30])
def test_the_range_of_float32_is_no_limit(saved, scale):
    weight = torch.rand(20, 12, generator=torch.Generator().manual_seed(0)) - 0.5
    (row,) = inspect(saved({"fc.weight": scale * weight})).layers
    (plain,) = inspect(saved({"fc.weight": weight})).layers
    for statistic in ("stable_rank", "effective_rank", "marchenko_pastur_outliers"):
        assert row[statistic] == pytest.approx(plain[statistic], rel=1e-4)
    assert row["sigma_max"] == pytest.approx(scale * plain["sigma_max"], rel=1e-4)


def test_blocks_are_summed_up(saved, noise):
    state = {f"blocks.{i}.{part}.weight": noise(4, 4, seed=i) for i in range(2) for part in ("a", "b")}
    first, second = inspect(saved(state)).blocks
    assert (first["block"], first["layers"], first["parameters"]) == ("blocks.0", 2, 32)
    assert second["frobenius"] == pytest.approx(2**0.5 * noise(4, 4, seed=1).norm().item(), rel=1e-6)
    assert second["sigma_max"] == pytest.approx(torch.linalg.matrix_norm(noise(4, 4, seed=1), 2).item(), rel=1e-5)


def test_threads_give_the_same_answer_and_progress_is_told(unet):
    told = []
    one = inspect(unet[1])
    torch.set_num_threads(2)
    try:
        two = inspect(unet[1], progress=lambda *numbers: told.append(numbers))
    finally:
        torch.set_num_threads(1)
    assert one.layers == two.layers
    assert [each[0] for each in told] == list(range(1, len(told) + 1))
    assert told[-1][0] == told[-1][1]
    assert told[-1][2] == told[-1][3] == sum(tensor.numel() * 4 for tensor in unet[0].state_dict().values())


def test_inspecting_draws_no_random_number(unet):
    before = torch.get_rng_state()
    inspect(unet[1], base=unet[1])
    assert torch.equal(before, torch.get_rng_state())


def test_no_tensors_is_an_error(saved):
    with pytest.raises(ValueError, match="no tensors"):
        inspect(saved({}))


def test_memory_stays_near_the_largest_layer(tmp_path):
    """400 MB in 50 layers of 8 MB: more than a few of them at a time would show."""
    path = tmp_path / "large.safetensors"
    save_file({f"layers.{i}.fc.weight": torch.full((64, 32768), 0.1) for i in range(50)}, path)
    code = """
import resource, sys
import torch
torch.set_num_threads(2)
from lsdr.inspection.inspect import inspect
from pathlib import Path
import lsdr.inspection.measure, lsdr.linalg.singular_values
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = inspect(Path(sys.argv[1]))
assert len(found.layers) == 50
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 200
