"""Adapters in the spellings of kohya and LyCORIS, against the dense matrices of their published formulas."""

import json

import pytest
import torch
from safetensors.torch import save_file

from lsdr.layers.checkpoint.adapters import read_adapters
from lsdr.layers.checkpoint.match_base import match_base

R = 3


@pytest.fixture
def read(open_checkpoint, tmp_path):
    def reading(tensors, metadata=None):
        save_file(tensors, tmp_path / "lora.safetensors", metadata=metadata)
        reading.checkpoint = open_checkpoint(tmp_path / "lora.safetensors")
        return read_adapters(reading.checkpoint)

    return reading


def _tensors(target, **shapes):
    generator = torch.Generator().manual_seed(0)
    return {
        f"{target}.{name.replace('__', '.')}": torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def _values(tensors, target):
    return {name.removeprefix(f"{target}."): value for name, value in tensors.items()}


def _close(adapter, dense):
    torch.testing.assert_close(adapter.operator.matrix().double(), dense.flatten(1), rtol=1e-5, atol=1e-5)


def test_kohya_lora(read):
    target = "lora_unet_mid_block_attentions_0_to_q"
    tensors = _tensors(target, lora_down__weight=(R, 6), lora_up__weight=(5, R))
    value = _values(tensors, target)
    alpha = {f"{target}.alpha": torch.tensor(1.5)}
    adapters = read(tensors | alpha)
    assert list(adapters) == [target]
    adapter = adapters[target]
    assert (adapter.kind, adapter.rank, adapter.alpha, adapter.scale) == ("lora", R, 1.5, 0.5)
    assert set(adapter.tensors) == {*tensors, *alpha}
    assert not adapter.dora
    assert read.checkpoint.notes == []
    _close(adapter, 0.5 * value["lora_up.weight"] @ value["lora_down.weight"])


def test_without_alpha_and_with_an_alpha_of_zero_the_scale_is_one(read):
    tensors = _tensors("lora_te_a", lora_down__weight=(R, 6), lora_up__weight=(5, R))
    adapter = read(tensors)["lora_te_a"]
    assert (adapter.alpha, adapter.scale) == (None, 1.0)
    assert read.checkpoint.notes == ["no alpha is stored and there is no adapter_config.json: scales are taken as 1"]
    adapter = read(tensors | {"lora_te_a.alpha": torch.tensor(0.0)})["lora_te_a"]
    assert (adapter.alpha, adapter.scale) == (0.0, 1.0)


def test_convolutions_with_and_without_a_middle(read):
    plain = _tensors("lora_unet_a", lora_down__weight=(R, 4, 3, 3), lora_up__weight=(5, R, 1, 1))
    middle = _tensors(
        "lora_unet_b", lora_down__weight=(R, 4, 1, 1), lora_mid__weight=(R, R, 3, 3), lora_up__weight=(5, R, 1, 1)
    )
    adapters = read(plain | middle)
    value = _values(plain, "lora_unet_a")
    dense = torch.einsum("or,rikl->oikl", value["lora_up.weight"][..., 0, 0], value["lora_down.weight"])
    _close(adapters["lora_unet_a"], dense)
    value = _values(middle, "lora_unet_b")
    up, down = value["lora_up.weight"][..., 0, 0], value["lora_down.weight"][..., 0, 0]
    _close(adapters["lora_unet_b"], torch.einsum("mn...,im,nj->ij...", value["lora_mid.weight"], up, down))


def test_loha(read):
    shapes = {"hada_w1_a": (5, R), "hada_w1_b": (R, 6), "hada_w2_a": (5, R), "hada_w2_b": (R, 6)}
    tensors = _tensors("lora_unet_a", **shapes)
    value = _values(tensors, "lora_unet_a")
    adapter = read(tensors | {"lora_unet_a.alpha": torch.tensor(6.0)})["lora_unet_a"]
    assert (adapter.kind, adapter.rank, adapter.scale) == ("loha", R, 2.0)
    dense = (value["hada_w1_a"] @ value["hada_w1_b"]) * (value["hada_w2_a"] @ value["hada_w2_b"])
    _close(adapter, 2 * dense)


def test_loha_with_cores(read):
    shapes = {"hada_w1_a": (R, 5), "hada_w1_b": (R, 6), "hada_t1": (R, R, 3, 3)}
    shapes |= {"hada_w2_a": (R, 5), "hada_w2_b": (R, 6), "hada_t2": (R, R, 3, 3)}
    tensors = _tensors("lora_unet_a", **shapes)
    value = _values(tensors, "lora_unet_a")
    adapter = read(tensors)["lora_unet_a"]
    assert adapter.rank == R
    one, two = (
        torch.einsum("ijkl,jr,ip->prkl", value[f"hada_t{i}"], value[f"hada_w{i}_b"], value[f"hada_w{i}_a"])
        for i in (1, 2)
    )
    assert adapter.operator.shape == (5, 54)
    _close(adapter, one * two)


FIRST = {"whole": {"lokr_w1": (2, 3)}, "factored": {"lokr_w1_a": (2, R), "lokr_w1_b": (R, 3)}}
SECOND = {
    "whole": ({"lokr_w2": (4, 5)}, (4, 5)),
    "factored": ({"lokr_w2_a": (4, R), "lokr_w2_b": (R, 5)}, (4, 5)),
    "convolution": ({"lokr_w2": (4, 5, 3, 3)}, (4, 5, 3, 3)),
    "factored convolution": ({"lokr_w2_a": (4, R), "lokr_w2_b": (R, 45)}, (4, 5, 3, 3)),
    "core": ({"lokr_w2_a": (R, 4), "lokr_w2_b": (R, 5), "lokr_t2": (R, R, 3, 3)}, (4, 5, 3, 3)),
}


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
def test_lokr(read, first, second):
    shapes, whole = SECOND[second]
    tensors = _tensors("lycoris_a", **FIRST[first], **shapes)
    value = _values(tensors, "lycoris_a")
    adapter = read(tensors | {"lycoris_a.alpha": torch.tensor(6.0)})["lycoris_a"]
    w1 = value["lokr_w1"] if "lokr_w1" in value else value["lokr_w1_a"] @ value["lokr_w1_b"]
    if "lokr_t2" in value:
        w2 = torch.einsum("ijkl,ip,jr->prkl", value["lokr_t2"], value["lokr_w2_a"], value["lokr_w2_b"])
    else:
        w2 = value["lokr_w2"] if "lokr_w2" in value else value["lokr_w2_a"] @ value["lokr_w2_b"]
    # Two whole factors have no rank, and LyCORIS does not scale them.
    rank = None if first == "whole" and "lokr_w2" in value else R
    assert (adapter.kind, adapter.rank, adapter.scale) == ("lokr", rank, 1.0 if rank is None else 2.0)
    w2 = w2.reshape(whole).contiguous()
    dense = torch.kron(w1.reshape(*w1.shape, *[1] * (len(whole) - 2)), w2)
    assert adapter.operator.shape == (8, dense.flatten(1).shape[1])
    _close(adapter, adapter.scale * dense)


def test_full_differences_dora_and_what_is_none(read):
    full = {"lora_unet_a.diff": torch.randn(5, 6), "lora_unet_a.diff_b": torch.randn(5)}
    dora = _tensors("lora_unet_b", lora_down__weight=(R, 6), lora_up__weight=(5, R))
    dora["lora_unet_b.dora_scale"] = torch.ones(1, 6)
    other = {"emb_params": torch.ones(2), "lora_unet_c.oft_blocks": torch.ones(2, 2, 2)}
    adapters = read(full | dora | other)
    assert set(adapters) == {"lora_unet_a", "lora_unet_b"}
    assert (adapters["lora_unet_a"].kind, adapters["lora_unet_a"].rank, adapters["lora_unet_a"].scale) == (
        "full",
        None,
        1.0,
    )
    _close(adapters["lora_unet_a"], full["lora_unet_a.diff"].double())
    assert adapters["lora_unet_b"].dora
    assert read.checkpoint.notes[0].startswith("2 entries belong to no adapter of a known kind: ")
    assert all(name in read.checkpoint.notes[0] for name in other)


def test_a_model_has_no_adapters(read, open_checkpoint, tmp_path):
    # Parameters of these names exist in networks.
    tensors = {"snake.alpha": torch.ones(3), "model.diff": torch.ones(2), "a.weight": torch.ones(2, 2)}
    assert read(tensors) == {}
    assert read.checkpoint.notes == []
    assert read(_tensors("lora_unet_b", lora_down__weight=(R, 6), lora_up__weight=(5, R)))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_unet_a.lora_down.weight": torch.ones(2, 3)}, "is incomplete: there are lora_unet_a.lora_down.weight"),
        ({"a.hada_w1_a": torch.ones(2, 3), "a.hada_w1_b": torch.ones(3, 2)}, "is incomplete"),
        (
            {"lora_unet_a.lora_down.weight": torch.ones(2, 3), "lora_unet_a.lora_up.weight": torch.ones(4, 5)},
            r"do not fit together: .*lora_down.weight \(2, 3\)",
        ),
        (
            {
                f"a.hada_w{i}_{end}": torch.ones(2, 2 + i) if end == "b" else torch.ones(4, 2)
                for i in (1, 2)
                for end in "ab"
            },
            "do not fit together",
        ),
        (
            {"a.lora_A.weight": torch.ones(2, 3, dtype=torch.int32), "a.lora_B.weight": torch.ones(4, 2)},
            "expected a matrix",
        ),
        ({"a.lora_A.weight": torch.ones(2), "a.lora_B.weight": torch.ones(4, 2)}, "expected a matrix"),
        (
            {"a.lora_A.weight": torch.ones(2, 3), "a.lora_B.weight": torch.ones(4, 2), "a.alpha": torch.ones(2)},
            "expected one number",
        ),
    ],
)
def test_adapters_that_do_not_fit(read, tensors, message):
    with pytest.raises(ValueError, match=message):
        read(tensors)


def test_half_and_float8_storage(read):
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        tensors = _tensors("lora_unet_a", lora_down__weight=(R, 6), lora_up__weight=(5, R))
        value = {name: each.to(dtype) for name, each in tensors.items()}
        adapter = read(value)["lora_unet_a"]
        up, down = (each.to(torch.float64) for each in reversed(value.values()))
        _close(adapter, up @ down)


def test_old_names_of_diffusers(read):
    shapes = {"down__weight": (R, 6), "up__weight": (5, R)}
    tensors = {}
    for target in (
        "unet.mid_block.attentions.0.attn1.processor.to_q_lora",
        "unet.mid_block.attentions.0.attn1.processor.to_out_lora",
        "text_encoder.text_model.encoder.layers.0.self_attn.to_k_lora",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer",
        "unet.mid_block.attentions.0.proj_in.lora",
    ):
        tensors |= _tensors(target, **shapes)
    adapters = read(tensors)
    assert set(adapters) == {
        "unet.mid_block.attentions.0.attn1.to_q",
        "unet.mid_block.attentions.0.attn1.to_out.0",
        "text_encoder.text_model.encoder.layers.0.self_attn.k_proj",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1",
        "unet.mid_block.attentions.0.proj_in",
    }


def test_alphas_in_the_metadata_of_diffusers(read):
    tensors = _tensors("unet.a.to_q", lora_A__weight=(R, 6), lora_B__weight=(5, R))
    tensors |= _tensors("unet.b.to_q", lora_A__weight=(R, 6), lora_B__weight=(5, R))
    settings = {"unet.r": R, "unet.lora_alpha": 12, "unet.alpha_pattern": {"a.to_q": 6}, "text_encoder.lora_alpha": 1}
    adapters = read(tensors, {"lora_adapter_metadata": json.dumps(settings)})
    assert {target: adapter.scale for target, adapter in adapters.items()} == {"unet.a.to_q": 2.0, "unet.b.to_q": 4.0}
    for broken in ("{", "[" * 100_000, "[]", '"a"'):
        assert read(tensors, {"lora_adapter_metadata": broken})["unet.a.to_q"].scale == 1.0


def test_expressions_that_would_take_forever_are_passed_over(read):
    target = "unet." + "a" * 40 + ".to_q"
    tensors = _tensors(target, lora_A__weight=(R, 6), lora_B__weight=(5, R))
    patterns = {"(a+)+!": 1, "(a|a)*!": 1, ".*.*.*.*.*.*!": 1, "(": 1, "q": 9, "to_q": 6}
    settings = {"unet.lora_alpha": 3, "unet.alpha_pattern": patterns}
    assert read(tensors, {"lora_adapter_metadata": json.dumps(settings)})[target].scale == 2.0


def test_matching_kohya_names():
    base = ["mid_block.attentions.0.proj_in.weight", "mid_block.attentions.0.proj_in.bias", "conv_in.weight"]
    assert match_base(["lora_unet_mid_block_attentions_0_proj_in", "lora_unet_conv_out"], base) == {
        "lora_unet_mid_block_attentions_0_proj_in": (base[0],)
    }
    pipeline = ["unet.conv_in.weight", "text_encoder.fc1.weight", "text_encoder_2.fc1.weight", "vae.conv_in.weight"]
    targets = ["lora_unet_conv_in", "lora_te1_fc1", "lora_te2_fc1", "lora_te_fc1", "lora_unet_fc1"]
    assert match_base(targets, pipeline) == {
        "lora_unet_conv_in": ("unet.conv_in.weight",),
        "lora_te1_fc1": ("text_encoder.fc1.weight",),
        "lora_te2_fc1": ("text_encoder_2.fc1.weight",),
        "lora_te_fc1": ("text_encoder.fc1.weight",),
    }
    # One text encoder alone: which of the two it is, its names do not tell.
    assert match_base(["lora_te1_fc1", "lora_te2_fc1"], ["fc1.weight"]) == {}
    assert match_base(["lora_te1_fc1"], ["fc1.weight"]) == {"lora_te1_fc1": ("fc1.weight",)}
    # Two layers that are one without dots.
    assert match_base(["lora_unet_a_b_c"], ["a.b_c.weight", "a_b.c.weight"]) == {}


def test_matching_dotted_names():
    base = ["unet.mid.to_q.weight", "unet.mid.to_q.bias", "vae.mid.to_q.weight", "unet.up._orig_mod.conv.weight"]
    assert match_base(["unet.mid.to_q", "unet.up.conv", "mid.to_q", "up.conv", "unet.other"], base) == {
        "unet.mid.to_q": ("unet.mid.to_q.weight",),
        "unet.up.conv": ("unet.up._orig_mod.conv.weight",),
        "up.conv": ("unet.up._orig_mod.conv.weight",),
    }
    assert match_base(["unet.mid.to_q", "model.layers.0.q_proj"], ["mid.to_q.weight", "layers.0.q_proj.weight"]) == {
        "unet.mid.to_q": ("mid.to_q.weight",),
        "model.layers.0.q_proj": ("layers.0.q_proj.weight",),
    }
    assert match_base(["a.b (one)", "a.b (two)"], ["a.b.base_layer.weight"]) == {
        "a.b (one)": ("a.b.base_layer.weight",),
        "a.b (two)": ("a.b.base_layer.weight",),
    }
