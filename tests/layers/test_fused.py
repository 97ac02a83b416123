import pytest
import torch

from lsdr.layers.fused import fused_layout, split_fused
from lsdr.layers.heads import AttentionHeads, attention_heads, attention_role, head_count

HEADS, WIDTH = 4, 3
COLUMNS = HEADS * WIDTH


def labelled(order, by_head):
    """Rows that say which part and head they are of, and the same parts by hand."""
    rows, parts = [], {part: [] for part in order}
    groups = [[head] for head in range(HEADS)] if by_head else [range(HEADS)]
    for group in groups:
        for index, part in enumerate(order):
            for head in group:
                for row in range(WIDTH):
                    rows.append(torch.full((COLUMNS,), 100.0 * index + 10 * head + row))
                    parts[part].append((head, row, rows[-1]))
    return torch.stack(rows), {
        part: torch.stack([row for _, _, row in sorted(found, key=lambda each: each[:2])])
        for part, found in parts.items()
    }


@pytest.mark.parametrize(
    ("name", "config", "order", "by_head"),
    [
        ("attn.in_proj_weight", None, "qkv", False),
        ("joint_blocks.0.x_block.attn.qkv.weight", None, "qkv", False),
        ("double_blocks.0.img_attn.qkv.weight", None, "qkv", False),
        ("double_blocks.0.txt_attn.qkv.weight", None, "qkv", False),
        ("double_blocks.0.img_attn_qkv.weight", None, "qkv", False),
        ("attn1.to_qkv.weight", None, "qkv", False),
        ("attn.to_added_qkv.weight", None, "qkv", False),
        ("attn1.to_kv.weight", None, "kv", False),
        ("cross_attn.kv_linear.weight", None, "kv", False),
        ("blocks.0.attn.Wqkv.weight", {"model_type": "mpt", "d_model": 12, "n_heads": 4}, "qkv", False),
        ("transformer.h.0.attn.c_attn.weight", None, "qkv", False),
        (
            "layers.0.attention.query_key_value.weight",
            {"model_type": "gpt_neox", "num_attention_heads": 4},
            "qkv",
            True,
        ),
        ("h.0.self_attention.query_key_value.weight", {"model_type": "bloom", "n_head": 4}, "qkv", True),
        ("layers.0.self_attn.qkv_proj.weight", {"model_type": "minimax", "num_attention_heads": 4}, "qkv", True),
        (
            "layers.0.self_attn.qkv_proj.weight",
            {"model_type": "codegen", "n_head": 4},
            "qvk",
            True,
        ),  # 4 blocks, here 4 heads
        ("layers.0.self_attn.qkv_proj.weight", {"model_type": "phi3", "num_attention_heads": 4}, "qkv", False),
        ("h.0.attn.c_attn.weight", {"model_type": "gpt_bigcode", "n_head": 4, "multi_query": False}, "qkv", True),
        (
            "h.0.self_attention.query_key_value.weight",
            {"model_type": "falcon", "num_attention_heads": 4, "multi_query": False},
            "qkv",
            True,
        ),
    ],
)
def test_parts_of_equal_size(name, config, order, by_head):
    order = [{"q": "query", "k": "key", "v": "value"}[letter] for letter in order]
    weight, expected = labelled(order, by_head)
    parts = split_fused(name, weight, config)
    assert parts.keys() == expected.keys()
    for part, rows in parts.items():
        assert torch.equal(rows, expected[part]), part
        assert (rows.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()) == (not by_head)
    if by_head and "codegen" not in str(config):
        assert split_fused(name, weight, {"model_type": config["model_type"]}) is None  # how many heads?
        assert split_fused(name, weight, {"multi_query": False, "model_type": config["model_type"]}, HEADS) is not None


def test_gpt2_stores_it_transposed():
    weight, expected = labelled(["query", "key", "value"], False)
    parts = split_fused("h.0.attn.c_attn.weight", weight.T, {"model_type": "gpt2"})
    assert all(torch.equal(parts[part], rows) for part, rows in expected.items())
    cross = split_fused("h.0.crossattention.c_attn.weight", torch.zeros(12, 24))
    assert {part: tuple(rows.shape) for part, rows in cross.items()} == {"key": (12, 12), "value": (12, 12)}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("qkv_proj", {"model_type": "phi3", "hidden_size": 12, "num_attention_heads": 4, "num_key_value_heads": 2}),
        ("Wqkv", {"model_type": "dbrx", "d_model": 12, "n_heads": 4, "attn_config": {"kv_n_heads": 2}}),
        (
            "query_key_value",
            {
                "model_type": "chatglm",
                "num_attention_heads": 4,
                "kv_channels": 3,
                "multi_query_attention": True,
                "multi_query_group_num": 2,
            },
        ),
    ],
)
def test_unequal_parts_need_the_configuration(name, config):
    weight = torch.randn(12 + 6 + 6, 12)
    parts = split_fused(f"layers.0.attn.{name}.weight", weight, config)
    assert all(torch.equal(parts[part], rows) for part, rows in zip(parts, weight.split([12, 6, 6]), strict=True))
    assert list(parts) == ["query", "key", "value"]
    assert split_fused(f"layers.0.attn.{name}.weight", weight) is None
    assert fused_layout(f"layers.0.attn.{name}.weight", (24, 12)).reason
    wrong = {**config, "num_attention_heads": 2, "n_heads": 2, "head_dim": 5}
    assert split_fused(f"layers.0.attn.{name}.weight", weight, wrong) is None


def test_falcon_stores_groups():
    config = {"model_type": "falcon", "num_attention_heads": 4, "num_kv_heads": 2, "new_decoder_architecture": True}
    weight = torch.randn(2, 4, 3, 12)  # groups of two queries, a key and a value
    parts = split_fused("h.0.self_attention.query_key_value.weight", weight.reshape(24, 12), config)
    assert torch.equal(parts["query"], weight[:, :2].reshape(12, 12))
    assert torch.equal(parts["key"], weight[:, 2].reshape(6, 12))
    assert torch.equal(parts["value"], weight[:, 3].reshape(6, 12))
    single = {"model_type": "falcon", "num_attention_heads": 4}  # multi-query is its default
    parts = split_fused("h.0.self_attention.query_key_value.weight", torch.zeros(18, 12), single)
    assert [len(rows) for rows in parts.values()] == [12, 3, 3]
    bigcode = {"model_type": "gpt_bigcode", "n_head": 4, "n_embd": 12}
    parts = split_fused("h.0.attn.c_attn.weight", torch.zeros(18, 12), bigcode)
    assert [len(rows) for rows in parts.values()] == [12, 3, 3]


def test_flux_single_blocks_hold_the_mlp_too():
    weight = torch.randn(12 * 3 + 48, 12)
    parts = split_fused("single_blocks.3.linear1.weight", weight)
    assert {part: len(rows) for part, rows in parts.items()} == {"query": 12, "key": 12, "value": 12, "mlp": 48}
    assert torch.equal(parts["mlp"], weight[36:])
    assert split_fused("mlp.linear1.weight", weight) is None
    assert fused_layout("mlp.linear1.weight", (84, 12)) is None
    assert "too few" in fused_layout("single_blocks.3.linear1.weight", (36, 12)).reason


@pytest.mark.parametrize(
    ("name", "shape", "config", "reason"),
    [
        ("attn.qkv.weight", (24, 12), None, "no configuration says how"),
        ("attn.qkv.weight", (35, 12), None, "not three times its input"),
        ("input_blocks.7.1.qkv.weight", (36, 12, 1), None, "head by head"),
        ("l.attention.query_key_value.weight", (36, 12), None, "no model_type says which"),
        ("l.attention.query_key_value.weight", (36, 12), {"model_type": "novel"}, "'novel' is not known"),
        ("l.attn.qkv_proj.weight", (36, 12), None, "the model_type says which"),
        ("gpt_neox.layers.0.attention.query_key_value.weight", (36, 12), None, "number of heads is not known"),
        ("h.0.attn.c_attn.weight", (12, 30), None, "unknown parts"),
        ("h.0.attn.c_attn.weight", (36, 12), {"model_type": "gpt2"}, "unknown parts"),
    ],
)
def test_what_cannot_be_divided_says_why(name, shape, config, reason):
    layout = fused_layout(name, shape, config)
    assert layout.sections == ()
    assert reason in layout.reason
    assert split_fused(name, torch.zeros(shape), config) is None


def test_convolutions_can_be_fused_too():
    weight = torch.randn(36, 12, 1, 1)
    parts = split_fused("attn.to_qkv.weight", weight)
    assert torch.equal(parts["key"], weight[12:24].flatten(1))


@pytest.mark.parametrize("name", ["attn.to_q.weight", "mixer.in_proj.weight", "attn.in_proj_bias", "fc.weight"])
def test_what_is_not_fused(name):
    assert fused_layout(name, (36,) if "bias" in name else (36, 12)) is None


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("transformer_blocks.0.attn1.to_out.0.weight", "output"),
        ("encoder.layer.0.attention.self.query.weight", "query"),
        ("encoder.layer.0.attention.output.dense.weight", "output"),
        ("encoder.layer.0.output.dense.weight", None),
        ("encoder.layer.0.intermediate.dense.weight", None),
        ("block.0.layer.0.SelfAttention.o.weight", "output"),
        ("block.0.layer.1.DenseReluDense.wo.weight", None),
        ("layers.0.self_attn.q_proj.weight", "query"),
        ("h.0.attn.c_proj.weight", "output"),
        ("h.0.mlp.c_proj.weight", None),
        ("h.0.attn.c_attn.weight", "fused"),
        ("attn.in_proj_weight", "fused"),
        ("attn.in_proj_bias", "fused"),
        ("mixer_model.in_proj.weight", None),
        ("attn.k_proj_weight", "key"),
        ("blocks.0.attn.proj.weight", "output"),
        ("attentions.0.proj_in.weight", None),
        ("attn1.to_q.parametrizations.weight.original", "query"),
        ("proj.weight", None),
        ("attn.norm_q.weight", None),
    ],
)
def test_roles(name, role):
    assert attention_role(name) == role


def test_configurations_without_an_answer():
    assert attention_heads(None) is None
    assert attention_heads({}, 3) == AttentionHeads(3, 3, None)
    assert attention_heads({"num_attention_heads": "8"}) is None
    assert head_count("attn.to_q.weight", None) is None
    assert head_count("fc.weight", {"num_attention_heads": 8}) is None
    odd = {"down_block_types": 3, "attention_head_dim": "x"}
    assert head_count("down_blocks.0.attentions.0.to_q.weight", odd) is None
    short = {"down_block_types": ["CrossAttnDownBlock2D"], "attention_head_dim": [5]}
    assert head_count("down_blocks.7.attentions.0.attn1.to_q.weight", short, (64, 64)) is None


def test_configurations_of_several_parts():
    clip = {"text_config": {"num_attention_heads": 8}, "vision_config": {"num_attention_heads": 12}}
    assert head_count("text_model.encoder.layers.0.self_attn.q_proj.weight", clip) == 8
    assert head_count("vision_model.encoder.layers.0.self_attn.q_proj.weight", clip) == 12
    bart = {"encoder_attention_heads": 4, "decoder_attention_heads": 2}
    assert head_count("model.encoder.layers.0.self_attn.q_proj.weight", bart) == 4
    assert head_count("model.decoder.layers.0.self_attn.q_proj.weight", bart) == 2
    sana = {"num_attention_heads": 70, "num_cross_attention_heads": 20}
    assert head_count("transformer_blocks.0.attn1.to_q.weight", sana) == 70
    assert head_count("transformer_blocks.0.attn2.to_q.weight", sana) == 20
    grouped = {"num_attention_heads": 8, "num_key_value_heads": 2}
    assert [head_count(f"self_attn.{name}_proj.weight", grouped) for name in "qkvo"] == [8, 2, 2, 8]
    motion = {
        "down_block_types": ["CrossAttnDownBlockMotion"],
        "motion_num_attention_heads": 6,
        "num_attention_heads": 8,
    }
    assert head_count("down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.weight", motion) == 6
    assert head_count("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", motion) == 8


def test_blocks_of_a_unet():
    """What `attention_head_dim` means depends on the block: a number of heads, or their width."""
    config = {
        "cross_attention_dim": 768,
        "attention_head_dim": [5, 10, 20],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    }
    name = "{}.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert head_count(name.format("down_blocks.1"), config, (640, 640)) == 10
    assert head_count(name.format("down_blocks.2"), config, (640, 320)) == 32
    assert head_count(name.format("down_blocks.2").replace("to_q", "to_out.0"), config, (320, 640)) == 32
    assert head_count(name.format("down_blocks.2"), config) is None
    assert head_count(name.format("mid_block"), config, (640, 640)) == 20
    assert head_count(name.format("up_blocks.0"), config, (640, 640)) == 20
    assert head_count(name.format("up_blocks.1"), config, (640, 640)) == 64
    assert head_count(name.format("unet.up_blocks.0"), config, (640, 640)) == 20
    assert head_count("transformer_in.attn1.to_q.weight", config) is None
    assert (
        head_count(
            "mid_block.attentions.0.to_q.weight",
            {**config, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
            (640, 640),
        )
        == 32
    )
    assert head_count(name.format("down_blocks.1"), {**config, "num_attention_heads": 4}, (640, 640)) == 4
