"""Every rule finds what was planted, says nothing of the rest, and has a measured rate of false alarms."""

import statistics

import pytest
import torch

from lsdr.inspection.calibration import calibration, rates
from lsdr.inspection.findings import peers
from lsdr.inspection.findings.adapters import lora_rank_unused
from lsdr.inspection.findings.find import KINDS, RULES, find
from lsdr.inspection.findings.finding import SEVERITIES, Finding, ranked
from lsdr.inspection.findings.peers import FEWEST, role, standings
from lsdr.inspection.inspect import inspect


def blocks(noise, count=8, width=24):
    parts = {
        "attn.to_q": (width, width),
        "attn.to_k": (width, width),
        "ff.up": (2 * width, width),
        "ff.down": (width, 2 * width),
    }
    return {
        f"blocks.{i}.{part}.weight": noise(*shape, seed=10 * i + place) / shape[1] ** 0.5
        for i in range(count)
        for place, (part, shape) in enumerate(parts.items())
    }


NAME = "blocks.3.ff.up"


def found(path, **options):
    return [(each.kind, each.layer) for each in inspect(path, **options).findings]


def rank_one(weight):
    u, s, v = torch.linalg.svd(weight)
    return s.norm() * torch.outer(u[:, 0], v[0])


def nan(weight):
    weight = weight.clone()
    weight[1, 2] = torch.nan
    return weight


FAULTS = {
    "nonfinite": nan,
    "spectral_norm_outlier": lambda weight: 30 * weight,
    "stable_rank_collapse": rank_one,
    "dead_directions": lambda weight: weight * (torch.arange(len(weight)) % 2)[:, None],
    "duplicated_directions": lambda weight: torch.cat([weight[:24], -2 * weight[:24]]),
    "zero_layer": lambda weight: 0 * weight,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_where_it_is_and_nothing_else(kind, noise, saved):
    state = blocks(noise)
    assert found(saved(state)) == []
    state[f"{NAME}.weight"] = FAULTS[kind](state[f"{NAME}.weight"])
    findings = inspect(saved(state)).findings
    assert (kind, NAME) in [(each.kind, each.layer) for each in findings]
    assert {each.layer for each in findings} == {NAME}
    # One rank leaves all outputs parallel, and zeroed rows are one direction less: no third kind comes of a fault.
    assert {each.kind for each in findings} <= {kind, "duplicated_directions"}


def test_the_sentence_of_the_issue(noise, saved):
    state = blocks(noise)
    state[f"{NAME}.weight"] *= 31
    finding = inspect(saved(state)).findings[0].to_dict({})
    assert finding["text"].startswith(f"{NAME}: spectral norm 3")
    assert "x the median of its peers (7 ff.up layers)" in finding["text"]
    assert finding["evidence"]["ratio"] == pytest.approx(31, rel=0.1)
    assert finding["page"] == "docs/findings.md#spectral_norm_outlier"
    assert finding["severity"] == "warning"


def test_different_scale_of_different_parts_is_no_outlier(noise, saved):
    state = {name: weight * (100 if "to_q" in name else 1) for name, weight in blocks(noise).items()}
    assert found(saved(state)) == []


def test_a_narrow_layer_has_a_low_rank_by_its_shape(noise, saved):
    state = {f"blocks.{i}.fc.weight": noise(256 if i else 6, 256, seed=i) for i in range(8)}
    ranks = [row["stable_rank"] for row in inspect(saved(state)).layers]
    assert ranks[0] < min(ranks[1:]) / 8
    assert found(saved(state)) == []


def test_too_few_peers_are_not_judged(noise, saved):
    state = dict(list(blocks(noise).items())[:FEWEST])
    state["blocks.0.ff.up.weight"] *= 1000
    assert found(saved(state)) == []


def test_an_embedding_may_have_zero_and_equal_rows(noise, saved):
    table = noise(40, 16)
    table[:20] = table[0]
    table[30:] = 0
    assert found(saved({"wte.weight": table})) == []


def test_one_output_that_leaves_inputs_out_is_sparse_and_not_dead(noise, saved):
    weight = noise(1, 64)
    weight[:, 10:] = 0
    assert found(saved({"lin0.weight": weight})) == []
    assert found(saved({"lin0.weight": weight.repeat(2, 1) * noise(2, 64)})) == [("dead_directions", "lin0")]


def test_a_rank_that_is_not_known_is_not_judged():
    layer = {"name": "a", "effective_rank": None, "sigma_max": 1.0, "adapter": {"rank": 8}}
    assert lora_rank_unused([layer]) == []


def test_a_loud_head_is_found(noise, tmp_path):
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=9,
        num_key_value_heads=4,
    )
    model = LlamaModel(config)
    model.save_pretrained(tmp_path / "clean")
    assert found(tmp_path / "clean") == []
    with torch.no_grad():
        model.layers[1].self_attn.q_proj.weight[16:24] *= 30
    model.save_pretrained(tmp_path / "loud")
    findings = [each for each in inspect(tmp_path / "loud").findings if each.kind == "qk_logit_scale"]
    assert [(each.layer, each.evidence["head"]) for each in findings] == [("layers.1.self_attn.q_proj", 2)]
    with torch.no_grad():
        model.layers[1].self_attn.q_norm = torch.nn.LayerNorm(8)
    model.save_pretrained(tmp_path / "normalised")
    assert "qk_logit_scale" not in [kind for kind, _ in found(tmp_path / "normalised")]


def test_an_average_that_did_not_follow(noise, saved):
    state = blocks(noise, 2)
    averaged = {f"ema.{name}": 0.97 * weight for name, weight in state.items()}
    state = {f"model.{name}": weight for name, weight in state.items()} | averaged
    assert found(saved(state)) == []
    state["ema.blocks.1.ff.up.weight"] = -state["ema.blocks.1.ff.up.weight"]
    assert found(saved(state)) == [("ema_divergence", "model.blocks.1.ff.up")]


def test_intruders_against_a_base(noise, saved):
    state = blocks(noise, 2, width=64)
    base = saved(state, "base.safetensors")
    tuned = {name: weight + 0.02 * weight.std() * noise(*weight.shape, seed=99) for name, weight in state.items()}
    assert found(saved(tuned), base=base) == []
    weight = tuned["blocks.1.ff.up.weight"]
    u, v = noise(len(weight), seed=5), noise(weight.shape[1], seed=6)
    tuned["blocks.1.ff.up.weight"] = weight + 6 * torch.outer(u / u.norm(), v / v.norm())
    assert found(saved(tuned), base=base) == [("intruder_dimensions", "blocks.1.ff.up")]
    # Another model altogether is told as that, and not layer by layer.
    other = {name: 3 * noise(*weight.shape, seed=77) for name, weight in state.items()}
    inspection = inspect(saved(other), base=base)
    assert max(row["delta"]["new_directions"] for row in inspection.layers) > 0
    assert inspection.findings == []
    assert any("intruders are not judged" in note for note in inspection.file["notes"])


def lora(noise, count=8, rank=4):
    return {
        f"base_model.model.blocks.{i}.fc.lora_{side}.weight": noise(*shape, seed=i)
        for i in range(count)
        for side, shape in (("A", (rank, 30)), ("B", (20, rank)))
    }


def test_an_adapter_far_larger_than_the_others(noise, saved):
    state = lora(noise)
    assert found(saved(state)) == []
    state["base_model.model.blocks.2.fc.lora_B.weight"] *= 30
    ((kind, layer),) = found(saved(state))
    assert kind == "lora_scale"
    assert layer.endswith("blocks.2.fc")


def test_an_adapter_that_drowns_its_base(noise, saved):
    base = saved({f"blocks.{i}.fc.weight": 10 * noise(20, 30, seed=i) for i in range(8)}, "base.safetensors")
    small = {name: 0.3 * value for name, value in lora(noise).items()}
    assert "lora_scale" not in [kind for kind, _ in found(saved(small), base=base)]
    large = {name: 3 * value for name, value in lora(noise).items()}
    assert [kind for kind, _ in found(saved(large), base=base)].count("lora_scale") == 8


def test_a_rank_that_is_not_used(noise, saved):
    state = lora(noise, rank=8)
    name = "base_model.model.blocks.5.fc.lora_A.weight"
    state[name] = torch.cat([state[name][:1], 1e-3 * state[name][1:]])
    findings = inspect(saved(state)).findings
    assert [(each.kind, each.severity) for each in findings] == [("lora_rank_unused", "info")]
    assert "blocks.5.fc" in findings[0].layer


def test_findings_are_ranked():
    given = [
        Finding("a", "x", "info", "", {}, 9.0),
        Finding("b", "x", "warning", "", {}, 1.0),
        Finding("c", "x", "warning", "", {}, 2.0),
        Finding("d", "x", "error", "", {}, 0.1),
    ]
    assert [each.layer for each in ranked(given)] == ["d", "c", "b", "a"]


def test_roles_leave_numbers_out():
    assert role("blocks.12.attn.to_out.0") == role("blocks.3.attn.to_out.1") == "attn.to_out"
    for one, other in (("resnets.1.conv2", "resnets.1.conv1"), ("b.0.attn1.to_q", "b.0.attn2.to_q")):
        assert role(one) != role(other)
    assert role("layer1.0.conv1", loose=True) == role("layer3.1.conv1", loose=True) != role("layer3.1.conv1")
    assert role("lora_unet_down_blocks_0_attn1_to_q") == role("lora_unet_down_blocks_2_attn1_to_q")


def test_the_closest_group_that_is_large_enough_is_taken():
    """Queries of self-attention are small, those of cross-attention large: neither is an outlier among its own."""
    layers = [{"name": f"b.{i}.attn{1 + i % 2}.to_q", "kind": "linear"} for i in range(14)]
    at = standings(layers, [1.0 + 99 * (i % 2) for i in range(14)])
    assert all(
        each.ratio == pytest.approx(1) and each.group == f"attn{1 + i % 2}.to_q layers" for i, each in enumerate(at)
    )
    at = standings(layers[:8], [1.0 + 99 * (i % 2) for i in range(8)])
    assert at[0].group == "attn#.to_q layers"
    others = [{"name": f"part{i}x.{'abcdefgh'[i]}", "kind": "linear"} for i in range(8)]
    assert standings(others, [1.0] * 8)[0].group == "linear layers"


def test_standings_leave_the_layer_itself_out():
    layers = [{"name": f"blocks.{i}.fc", "kind": "linear"} for i in range(7)]
    values = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 50.0]
    at = standings(layers, values)
    assert at[-1].ratio == pytest.approx(50)
    assert at[-1].peers == 6
    assert at[0].ratio == pytest.approx(1 / 1.05, rel=0.01)
    assert standings(layers, [None, 0.0, *values[:5]])[:2] == [None, None]
    assert standings(layers[:5], values[:5]) == [None] * 5


def test_components_of_a_pipeline_are_no_peers():
    layers = [{"name": f"b.{i}.fc", "kind": "linear", "component": "unet" if i < 6 else "vae"} for i in range(12)]
    at = standings(layers, [1.0] * 6 + [100.0] * 6)
    assert all(each.ratio == pytest.approx(1) for each in at)


def test_the_median_of_many_peers_is_taken_once(monkeypatch):
    taken = []
    monkeypatch.setattr(peers, "median", lambda values: taken.append(1) or statistics.median(values))
    layers = [{"name": f"b.{i}.fc", "kind": "linear"} for i in range(10_000)]
    values = [1.0 + i % 7 for i in range(10_000)]
    at = standings(layers, [*values[:-1], 1000.0])
    assert len(taken) == 2  # a median, and the median of the distances from it
    assert at[-1].ratio == pytest.approx(250)
    assert at[-1].peers == 9999


def test_every_kind_has_its_measured_rate():
    assert set(calibration()["findings"]) == set(KINDS) == {rule.__name__ for rule in RULES}
    assert sum(calibration()["models"].values()) > 100
    for kind, rate in rates().items():
        assert rate["models"] >= rate["trained_models"] >= 20, kind
        assert rate["trained_upper"] >= rate["per_model_upper"], kind
        assert rate["layers"] >= rate["models"], kind
        assert 0 <= rate["per_model"] < rate["per_model_upper"] <= 1, kind
        assert 0 <= rate["per_layer"] < rate["per_layer_upper"] <= 1, kind


def test_no_alarm_is_false_too_often(noise, saved):
    """A few per cent of clean models at most, for all that is more than an info."""
    infos = {"zero_layer", "lora_rank_unused"}
    for kind, rate in rates().items():
        assert kind in infos or rate["per_model"] <= 0.05, kind
    state = blocks(noise)
    for kind, fault in FAULTS.items():
        finding = next(
            each for each in inspect(saved({**state, f"{NAME}.weight": fault(state[f"{NAME}.weight"])})).findings
        )
        assert (finding.severity == "info") == (finding.kind in infos), kind


def test_planted_faults_were_found():
    for fault, each in calibration()["detection"].items():
        assert each["finding"] in KINDS
        assert each["planted"] >= 10, fault
        # A rank of one is not far below what a narrow layer has anyway.
        assert each["rate"] >= (0.6 if each["finding"] == "stable_rank_collapse" else 0.8), fault


def test_severities_are_the_three():
    assert SEVERITIES == ("error", "warning", "info")
    assert find([]) == []
