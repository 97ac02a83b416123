import math

import pytest
import torch
from torch import nn

from lsdr.layers.attention import Projections, heads, query_key
from lsdr.layers.attention_modules import attention_projections
from lsdr.linalg.exact import exact_singular_values

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_heads_are_views():
    weight = torch.randn(6, 4)
    rows, columns = heads(weight, 3), heads(weight, 2, "input")
    assert torch.equal(torch.cat(rows), weight)
    assert torch.equal(torch.cat(columns, 1), weight)
    weight[2, 0] = 7
    assert rows[1][0, 0] == 7
    assert [len(head) for head in rows] == [2, 2, 2]
    assert [head.shape[1] for head in columns] == [2, 2]
    with pytest.raises(ValueError, match=r"\(6, 4\) does not divide into 4 heads on its output side"):
        heads(weight, 4)
    with pytest.raises(ValueError, match="3 heads on its input side"):
        heads(weight, 3, "input")


@pytest.mark.parametrize(("count", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_query_key_against_logits(count, kv_heads):
    d, width, context = 3, 7, 5
    q, k = torch.randn(count * d, width).double(), torch.randn(kv_heads * d, context).double()
    x, y = torch.randn(6, width).double(), torch.randn(8, context).double()
    queries = (x @ q.T).unflatten(-1, (count, d)).transpose(0, 1)
    keys = (y @ k.T).unflatten(-1, (kv_heads, d)).transpose(0, 1).repeat_interleave(count // kv_heads, 0)
    logits = queries @ keys.mT / math.sqrt(d)
    operators = query_key(q, k, count, kv_heads, d)
    assert len(operators) == count
    for operator, expected in zip(operators, logits, strict=True):
        torch.testing.assert_close(x @ operator.matvec(y).T, expected)
        values = torch.linalg.svdvals(operator.matrix())
        torch.testing.assert_close(exact_singular_values(operator).values, values, atol=1e-12, rtol=1e-12)
        assert int((values > 1e-10).sum()) == d


def test_query_key_scales():
    q, k = torch.randn(8, 5), torch.randn(8, 5)
    plain = query_key(q, k, 2, scale=False)[0].matrix()
    torch.testing.assert_close(plain, q[:4].T @ k[:4])
    torch.testing.assert_close(query_key(q, k, 2)[0].matrix(), plain / 2)
    torch.testing.assert_close(query_key(q, k, 2, scale=0.1)[0].matrix(), plain * 0.1)


@pytest.mark.parametrize(("count", "kv_heads", "head_dim"), [(4, 3, None), (2, 4, None), (4, 2, None), (4, 4, 3)])
def test_heads_that_do_not_go_together(count, kv_heads, head_dim):
    with pytest.raises(ValueError, match=r"do not go together|does not divide"):
        query_key(torch.randn(8, 5), torch.randn(8, 5), count, kv_heads, head_dim)


def logits(projections, x, y):
    """What attention with these projections computes before its softmax, shape (heads, x, y)."""
    return torch.stack([x @ operator.matvec(y).T for operator in projections.query_key()])


def attend(projections, x, y, causal=False):
    """Attention without biases from the projections alone: (x, width)."""
    weights = logits(projections, x, y)
    if causal:
        weights = weights + torch.full(weights.shape[1:], -math.inf).triu(1)
    shared = projections.heads // projections.kv_heads
    total = 0
    columns = heads(projections.output, projections.heads, "input")
    for head, weight in enumerate(weights.softmax(-1)):
        values = y @ heads(projections.value, projections.kv_heads)[head // shared].T
        total = total + weight @ values @ columns[head].T
    return total


def no_biases(module):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "bias" in name and "relative" not in name:
                parameter.zero_()
            elif parameter.ndim > 1:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
                )
                parameter.mul_(0.3)
    return module.eval()


@pytest.mark.parametrize("context", [None, 5])
def test_multihead_attention_of_torch(context):
    module = no_biases(nn.MultiheadAttention(6, 3, batch_first=True, kdim=context, vdim=context))
    x, y = torch.randn(4, 6), torch.randn(7, context or 6)
    projections = attention_projections(module)
    expected, _ = module(x[None], y[None], y[None])
    torch.testing.assert_close(attend(projections, x, y), expected[0].detach())
    assert (projections.heads, projections.kv_heads, projections.head_dim) == (3, 3, 2)
    if context is None:  # views of the fused weight
        assert projections.query.data_ptr() == module.in_proj_weight.data_ptr()


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("arguments", [{}, {"cross_attention_dim": 5}, {"kv_heads": 1}, {"scale_qk": False}])
def test_attention_of_diffusers(arguments, fuse):
    attention = pytest.importorskip("diffusers.models.attention_processor").Attention
    module = no_biases(attention(6, heads=2, dim_head=4, **arguments))
    x = torch.randn(4, 6)
    y = torch.randn(7, arguments["cross_attention_dim"]) if "cross_attention_dim" in arguments else x
    expected = module(x[None], y[None] if y is not x else None)[0].detach() if "kv_heads" not in arguments else None
    if fuse:
        module.fuse_projections()
        with torch.no_grad():  # what is left of the split layers is stale
            module.to_k.weight.zero_()
            module.to_v.weight.zero_()
    projections = attention_projections(module)
    assert (projections.heads, projections.kv_heads) == (2, arguments.get("kv_heads", 2))
    assert not projections.qk_norm
    assert projections.scale == (1.0 if "scale_qk" in arguments else 0.5)
    if expected is not None:
        torch.testing.assert_close(attend(projections, x, y), expected)
    else:
        assert [len(projections.query), len(projections.key), len(projections.value)] == [8, 4, 4]
        assert projections.key.any()
        assert projections.value.any()


@pytest.mark.parametrize("fuse", [False, True])
def test_joint_attention_of_diffusers(fuse):
    processors = pytest.importorskip("diffusers.models.attention_processor")
    module = processors.Attention(
        6, heads=2, dim_head=4, added_kv_proj_dim=5, context_pre_only=False, qk_norm="rms_norm", bias=True
    )
    expected = {
        name: getattr(module, name).weight.detach().clone() for name in ("add_q_proj", "add_k_proj", "add_v_proj")
    }
    if fuse:
        module.fuse_projections()
    added = attention_projections(module).added
    assert attention_projections(module).qk_norm
    assert added.qk_norm
    for weight, name in ((added.query, "add_q_proj"), (added.key, "add_k_proj"), (added.value, "add_v_proj")):
        assert torch.equal(weight, expected[name])
    assert torch.equal(added.output, module.to_add_out.weight)
    assert [operator.shape for operator in added.query_key()] == [(5, 5)] * 2


def test_flux_attention():
    flux = pytest.importorskip("diffusers.models.transformers.transformer_flux")
    projections = attention_projections(flux.FluxAttention(8, heads=2, dim_head=4, added_kv_proj_dim=8))
    assert projections.qk_norm
    assert projections.added is not None
    assert projections.scale == 0.5
    single = attention_projections(flux.FluxAttention(8, heads=2, dim_head=4, pre_only=True))
    assert single.output is None
    assert single.added is None


def transformers_layers():
    t = pytest.importorskip("transformers")
    models = t.models
    same = {"hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 1, "attn_implementation": "eager"}
    yield (
        "gpt2",
        models.gpt2.modeling_gpt2.GPT2Attention(
            t.GPT2Config(n_embd=12, n_head=3, attn_implementation="eager"), layer_idx=0
        ),
    )
    yield "clip", models.clip.modeling_clip.CLIPAttention(t.CLIPTextConfig(**same))
    yield "bloom", models.bloom.modeling_bloom.BloomAttention(t.BloomConfig(hidden_size=12, n_head=3), layer_idx=0)
    llama = t.LlamaConfig(**same | {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4})
    yield "llama", models.llama.modeling_llama.LlamaAttention(llama, layer_idx=0)
    phi3 = t.Phi3Config(**same | {"num_attention_heads": 6, "num_key_value_heads": 2, "pad_token_id": 0})
    yield "phi3", models.phi3.modeling_phi3.Phi3Attention(phi3, layer_idx=0)
    neox = t.GPTNeoXConfig(**same)
    yield "neox", models.gpt_neox.modeling_gpt_neox.GPTNeoXAttention(neox, layer_idx=0)
    yield "mpt", models.mpt.modeling_mpt.MptAttention(t.MptConfig(d_model=12, n_heads=3))
    yield (
        "falcon",
        models.falcon.modeling_falcon.FalconAttention(
            t.FalconConfig(
                **same | {"num_attention_heads": 6, "num_kv_heads": 2, "new_decoder_architecture": True, "alibi": True}
            ),
            layer_idx=0,
        ),
    )
    t5 = t.T5Config(d_model=12, d_kv=4, num_heads=3)
    yield "t5", models.t5.modeling_t5.T5Attention(t5, has_relative_attention_bias=False, layer_idx=0)


def run(kind, module, x):
    """The layer's own output for one sequence; rotary embeddings of angle zero, masks of nothing."""
    rows, width = len(x), attention_projections(module).head_dim
    rotary = (torch.ones(1, rows, width), torch.zeros(1, rows, width))
    batch = x[None]
    if kind in ("llama", "phi3", "neox"):
        return module(batch, position_embeddings=rotary, attention_mask=None)[0][0]
    if kind == "bloom":
        zeros = torch.zeros(module.num_heads, 1, rows)
        return module(batch, torch.zeros_like(batch), zeros, torch.zeros(1, 1, rows, rows))[0][0]
    if kind == "mpt":
        return module(batch, torch.zeros(module.n_heads, 1, rows))[0][0]
    if kind == "falcon":
        zeros = torch.zeros(1, 1, rows, rows)
        return module(batch, alibi=torch.zeros(module.num_heads, 1, rows), attention_mask=zeros)[0][0]
    return module(batch)[0][0]


def test_attention_of_transformers():
    """From the projections alone, the output of the layer itself: splits, transposes, heads and scale are right."""
    seen = []
    for kind, module in transformers_layers():
        no_biases(module)
        x = torch.randn(5, attention_projections(module).query.shape[1])
        expected = run(kind, module, x).detach()
        found = attend(attention_projections(module), x, x, causal=False)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=lambda text, kind=kind: f"{kind}: {text}")
        seen.append(kind)
    assert len(seen) == 9


def test_t5_of_older_releases_says_no_scale():
    layers = dict(transformers_layers())
    del layers["t5"].scaling
    assert attention_projections(layers["t5"]).scale == 1.0
    del layers["llama"].scaling
    assert attention_projections(layers["llama"]).scale == 0.5


def test_bert_and_its_separate_output():
    bert = pytest.importorskip("transformers.models.bert.modeling_bert")
    config = pytest.importorskip("transformers").BertConfig(hidden_size=12, num_attention_heads=3)
    projections = attention_projections(bert.BertSelfAttention(config))
    assert projections.output is None
    assert (projections.heads, projections.head_dim) == (3, 4)


class Vit(nn.Module):
    """timm's attention layer."""

    def __init__(self, norm):
        super().__init__()
        self.num_heads, self.scale = 2, 0.5
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.q_norm = self.k_norm = nn.LayerNorm(4) if norm else nn.Identity()


@pytest.mark.parametrize("norm", [True, False])
def test_attention_of_timm(norm):
    module = Vit(norm)
    projections = attention_projections(module)
    assert torch.equal(projections.value, module.qkv.weight[16:])
    assert projections.value.data_ptr() == module.qkv.weight[16:].data_ptr()
    assert torch.equal(projections.output, module.proj.weight)
    assert projections.qk_norm == norm


def test_adapted_projections_are_taken_with_their_adapters():
    peft = pytest.importorskip("peft")
    attention = pytest.importorskip("diffusers.models.attention_processor").Attention
    model = peft.get_peft_model(
        nn.Sequential(attention(6, heads=2, dim_head=4)), peft.LoraConfig(r=2, target_modules=["to_q"])
    )
    module = model.base_model.model[0]
    nn.init.normal_(module.to_q.lora_B["default"].weight)
    expected = module.to_q.base_layer.weight + module.to_q.get_delta_weight("default")
    torch.testing.assert_close(attention_projections(module).query, expected.detach())


def test_layers_that_are_not_understood():
    with pytest.raises(ValueError, match=r"Sequential has no query and key projections .*children: 0"):
        attention_projections(nn.Sequential(nn.Linear(2, 2)))
    module = Vit(False)
    module.qkv = nn.Linear(8, 20)
    with pytest.raises(ValueError, match=r"how qkv of shape \(20, 8\) is divided cannot be told"):
        attention_projections(module)
    module = Vit(False)
    module.num_heads = 3
    with pytest.raises(ValueError, match="into how many heads its query of 8 rows"):
        attention_projections(module)
    with pytest.raises(ValueError, match="no product of the two"):
        Projections(None, torch.zeros(2, 2), None, None, 1, 1, 2, 1.0).query_key()
