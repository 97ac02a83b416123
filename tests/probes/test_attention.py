import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DModel
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0
from torch import nn

from lsdr.probes import attention as module
from lsdr.probes.attention import AttentionProbe


def expected(query, key, scale, hidden=None):
    """From queries and keys of shape (batch, heads, tokens, width), the plain way."""
    logits = scale * query.double() @ key.double().mT
    if hidden is not None:
        logits = logits.masked_fill(hidden, -torch.inf)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    finite = logits[logits.isfinite()]
    return {
        "logit_max": finite.max().item(),
        "logit_rms": finite.square().mean().sqrt().item(),
        "entropy": entropy.mean().item(),
        "entropy_min": entropy.mean((0, 2)).min().item(),
    }


def measure(model, *inputs, layers="*", **keywords):
    with attach(model, layers) as attention:
        model(*inputs, **keywords)
    return {name[5:].lstrip("."): {k: float(v) for k, v in values.items()} for name, values in attention().items()}


def attach(model, layers="*"):
    """A single layer has no name of its own: it is given one."""
    return AttentionProbe(layers).attach(nn.ModuleDict({"layer": model}))


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kdim", [None, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_multihead_attention_of_torch(batch_first, kdim, masked):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, kdim=kdim, vdim=kdim, batch_first=batch_first)
    nn.init.normal_(layer.in_proj_bias)
    x, y = 3 * torch.randn(3, 6, 8), 3 * torch.randn(3, 7, kdim or 8)
    mask = torch.rand(6, 7) > 0.7 if masked else None
    padding = torch.arange(7).expand(3, 7) >= torch.tensor([[7], [5], [6]]) if masked else None
    if masked:
        mask[:, 0] = False
    given = (x, y, y) if batch_first else (x.transpose(0, 1), y.transpose(0, 1), y.transpose(0, 1))
    got = measure(layer, *given, key_padding_mask=padding, attn_mask=mask)[""]
    wq, wk = layer.in_proj_weight.chunk(3)[:2] if kdim is None else (layer.q_proj_weight, layer.k_proj_weight)
    bq, bk, _ = layer.in_proj_bias.chunk(3)
    q, k = nn.functional.linear(x, wq, bq), nn.functional.linear(y, wk, bk)
    hidden = None if mask is None else mask | padding[:, None, None, :]
    assert got == pytest.approx(expected(heads(q, 2), heads(k, 2), 0.5, hidden), rel=1e-4)
    _, weights = layer(*given, key_padding_mask=padding, attn_mask=mask, average_attn_weights=False)
    entropy = -torch.special.xlogy(weights, weights).sum(-1)
    assert got["entropy"] == pytest.approx(entropy.mean().item(), rel=1e-4)  # against what torch itself computes


def test_attention_of_diffusers_self_and_cross_and_with_norms():
    torch.manual_seed(0)
    x, context = torch.randn(2, 5, 8), torch.randn(2, 7, 6)
    plain = Attention(8, heads=2, dim_head=4)
    got = measure(plain, x)[""]
    assert got == pytest.approx(expected(heads(plain.to_q(x), 2), heads(plain.to_k(x), 2), 0.5), rel=1e-4)
    cross = Attention(8, cross_attention_dim=6, heads=2, dim_head=4)
    got = measure(cross, x, encoder_hidden_states=context)[""]
    assert got == pytest.approx(expected(heads(cross.to_q(x), 2), heads(cross.to_k(context), 2), 0.5), rel=1e-4)
    normed = Attention(8, heads=2, dim_head=4, qk_norm="layer_norm")
    got = measure(normed, x)[""]
    q, k = normed.norm_q(heads(normed.to_q(x), 2)), normed.norm_k(heads(normed.to_k(x), 2))
    assert got == pytest.approx(expected(q, k, 0.5), rel=1e-4)
    plain.fuse_projections()
    plain.set_processor(FusedAttnProcessor2_0())
    assert measure(plain, x)[""] == pytest.approx(
        expected(heads(plain.to_q(x), 2), heads(plain.to_k(x), 2), 0.5), rel=1e-4
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_attention_of_transformers_against_its_own_weights():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 11}
    small |= {"intermediate_size": 8, "attn_implementation": "eager"}
    tokens = torch.randint(11, (2, 6))
    bert = transformers.BertModel(transformers.BertConfig(**small)).eval()
    gpt = transformers.GPT2Model(
        transformers.GPT2Config(
            vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=8, attn_implementation="eager"
        )
    ).eval()
    for model in (bert, gpt):
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
        weights = model(tokens, output_attentions=True).attentions[0]
        entropy = -torch.special.xlogy(weights, weights).sum(-1)
        (got,) = measure(model, tokens).values()
        assert got["entropy"] == pytest.approx(entropy.mean().item(), rel=1e-4)
        assert got["entropy_min"] == pytest.approx(entropy.mean((0, 2)).min().item(), rel=1e-4)
    # Grouped queries, norms of each head; the rotary embedding is not seen, so it is turned off.
    config = transformers.Qwen3Config(**small, num_key_value_heads=2, head_dim=4, rope_theta=1e30)
    qwen = transformers.Qwen3Model(config).eval()
    for parameter in qwen.parameters():
        nn.init.normal_(parameter, std=0.5)
    (got,) = measure(qwen, tokens).values()
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        attention = qwen.layers[0].self_attn
        for name in ("q_norm", "k_norm"):
            norm = getattr(attention, name)
            patch.setattr(norm, "forward", lambda x, f=norm.forward, n=name: seen.setdefault(n, f(x)))
        qwen(tokens)
    q, k = seen["q_norm"].transpose(1, 2), seen["k_norm"].transpose(1, 2).repeat_interleave(2, 1)
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
    assert got == pytest.approx(expected(q, k, 0.5, hidden), rel=1e-4)


def test_whole_networks_of_diffusers_are_found_into():
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    names = list(measure(unet, torch.randn(2, 3, 8, 8), torch.rand(2)))
    assert len(names) == 4
    assert all(".attentions." in name for name in names)
    dit = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=4, num_layers=2, sample_size=4, in_channels=3)
    got = measure(dit, torch.randn(2, 3, 4, 4), torch.zeros(2).long(), torch.zeros(2).long(), layers="*.0.*")
    assert list(got) == ["transformer_blocks.0.attn1"]


def test_forwards_are_taken_together_and_a_sample_is_enough(monkeypatch):
    torch.manual_seed(0)
    layer = Attention(8, heads=2, dim_head=4)
    first, second = torch.randn(2, 5, 8), 4 * torch.randn(2, 5, 8)
    with attach(layer) as attention:
        layer(first)
        layer(second)
    both = attention()["layer"]
    one, two = measure(layer, first)[""], measure(layer, second)[""]
    assert float(both["logit_max"]) == pytest.approx(max(one["logit_max"], two["logit_max"]))
    assert float(both["entropy"]) == pytest.approx((one["entropy"] + two["entropy"]) / 2)
    monkeypatch.setattr(module, "_LOGITS", 2 * 2 * 100 * 7)
    x = torch.randn(9, 100, 8)
    got = measure(layer, x)[""]
    rows, examples = torch.arange(3) * 100 // 3, torch.arange(4) * 9 // 4
    q, k = heads(layer.to_q(x[examples][:, rows]), 2), heads(layer.to_k(x[examples]), 2)
    assert got == pytest.approx(expected(q, k, 0.5), rel=1e-4)


def test_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    layer = Attention(8, heads=2, dim_head=4)
    x = torch.randn(2, 5, 8)
    exact = measure(layer, x)[""]
    with torch.autocast("cpu", torch.bfloat16), attach(layer) as attention:
        layer(x)
    values = attention()["layer"]
    assert values["entropy"].dtype == torch.float32
    assert float(values["entropy"]) == pytest.approx(exact["entropy"], rel=1e-2)


def test_what_is_no_attention_is_refused_and_what_is_odd_stops_no_forward():
    with pytest.raises(ValueError, match="is an attention layer"):
        AttentionProbe("*").select(nn.Sequential(nn.Linear(2, 2)))

    class Odd(nn.Module):
        heads = 3

        def __init__(self):
            super().__init__()
            self.to_q, self.to_k = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.to_q(x) + self.to_k(x)

    odd = Odd()
    with attach(odd) as attention:
        assert odd(torch.randn(2, 5, 4)).shape == (2, 5, 4)
    with pytest.raises(
        ValueError, match="layer 'layer' is an attention layer whose queries and keys are not as expected"
    ):
        attention()
    with attach(odd) as attention, pytest.raises(RuntimeError, match="attention layers ran"):
        attention()
