"""Every entry of real models, built without memory from their configurations, is recognised."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lsdr.layers.fused import split_fused
from lsdr.layers.heads import attention_role
from lsdr.layers.layout import describe, is_layer

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

BUILD = {
    "sd15": lambda: diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
    "sdxl": lambda: diffusers.UNet2DConditionModel(
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
    "ddpm": lambda: diffusers.UNet2DModel(
        block_out_channels=(32, 64, 64, 64), attention_head_dim=16, norm_num_groups=8
    ),
    "vae": lambda: diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    ),
    "controlnet": lambda: diffusers.ControlNetModel(),
    "sd3": lambda: diffusers.SD3Transformer2DModel(),
    "flux": lambda: diffusers.FluxTransformer2DModel(),
    "dit": lambda: diffusers.DiTTransformer2DModel(),
    "pixart": lambda: diffusers.PixArtTransformer2DModel(num_layers=2),
    "clip_text": lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig()),
    "clip": lambda: transformers.CLIPModel(transformers.CLIPConfig()),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config()),
    "t5": lambda: transformers.T5EncoderModel(transformers.T5Config(num_layers=2)),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(num_hidden_layers=2, hidden_size=256, num_attention_heads=8, num_key_value_heads=2)
    ),
    "bert": lambda: transformers.BertModel(transformers.BertConfig(num_hidden_layers=2)),
    "neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(num_hidden_layers=2)),
    "bloom": lambda: transformers.BloomForCausalLM(transformers.BloomConfig(n_layer=2, hidden_size=64, n_head=8)),
    "phi3": lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(num_hidden_layers=1, num_key_value_heads=8)),
}


@pytest.fixture(scope="module", params=BUILD)
def model(request):
    with torch.device("meta"):
        built = BUILD[request.param]()
    config = built.config.to_dict() if hasattr(built.config, "to_dict") else dict(built.config)
    return request.param, built, config


def expected_kind(module, name):
    """What a parameter is, from the class of the module that holds it."""
    if name == "weight" and isinstance(module, nn.Embedding):
        return "embedding"
    if name == "weight" and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"):
        return "linear"
    if name == "weight" and isinstance(module, nn.Conv2d):
        return "conv2d"
    if name == "bias":
        return "bias"
    return "norm" if name == "weight" else None


@pytest.mark.parametrize("with_config", [True, False])
def test_every_parameter_is_what_its_module_says(model, with_config):
    _, built, config = model
    seen = 0
    for prefix, module in built.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}"
            facts = describe(full, tuple(parameter.shape), config if with_config else None, parameter.dtype)
            kind = expected_kind(module, name)
            if kind is None:
                assert facts.kind in ("table", "vector", "norm"), full
                continue
            assert facts.kind == kind, full
            if parameter.ndim < 2:
                assert facts.matrix_shape is None
                assert not is_layer(facts)
                continue
            seen += 1
            assert is_layer(facts)
            assert facts.transposed == (type(module).__name__ == "Conv1D") or "orientation" in facts.unknown, full
            rows, columns = parameter.shape[0], parameter[0].numel()
            assert facts.matrix_shape == ((columns, rows) if facts.transposed else (rows, columns))
            if kind == "conv2d":
                assert "groups" in facts.unknown  # a state dict cannot know
                assert ("stride" in facts.unknown) == (module.kernel_size != (1, 1))
            elif with_config:
                assert facts.unknown == ()
    assert seen > 0


def attention_modules(built):
    """Attention layers and their number of heads, from their own attributes."""
    for name, module in built.named_modules():
        for attribute in ("heads", "num_heads", "num_attention_heads", "n_heads"):
            count = getattr(module, attribute, None)
            if isinstance(count, int) and ("attention" in type(module).__name__.lower()):
                yield name, module, count
                break


def test_heads_are_those_of_the_modules(model):
    kind, built, config = model
    checked = 0
    for prefix, attention, count in attention_modules(built):
        for name, parameter in attention.named_parameters():
            full = f"{prefix}.{name}"
            role = attention_role(full)
            if parameter.ndim < 2 or role is None:
                continue
            assert describe(full, tuple(parameter.shape), config).heads == count, full
            assert describe(full, tuple(parameter.shape), None).heads is None
            checked += 1
    if kind not in ("llama", "neox", "phi3"):  # whose attention says so in its configuration only
        assert checked > 0


def test_the_matrix_layers_of_stable_diffusion():
    with torch.device("meta"):
        built = BUILD["sd15"]()
    shapes = {name: tuple(parameter.shape) for name, parameter in built.named_parameters()}
    layers = {
        name: facts for name, shape in shapes.items() if is_layer(facts := describe(name, shape, dict(built.config)))
    }
    assert len(layers) == 282
    kernels = Counter(shapes[name][2:] for name in layers)
    assert kernels == {(): 184, (1, 1): 46, (3, 3): 52}
    strided = [name for name, facts in layers.items() if "downsampling: stride 2" in facts.hints]
    assert strided == [
        name for name, module in built.named_modules() for name in [f"{name}.weight"] if is_strided(module)
    ]
    assert len(strided) == 3


def is_strided(module):
    return isinstance(module, nn.Conv2d) and module.stride != (1, 1)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("bn1.running_mean", (64,), "statistic"),
        ("bn1.num_batches_tracked", (), "statistic"),
        ("label_emb.weight", (1000, 512), "embedding"),
        ("time_embed.0.weight", (1280, 320), "linear"),
        ("label_emb.0.0.weight", (1280, 2816), "linear"),
        ("time_embedding.linear_1.weight", (1280, 320), "linear"),
        ("y_embedder.embedding_table.weight", (1001, 1152), "embedding"),
        ("x_embedder.proj.weight", (1152, 4, 2, 2), "conv2d"),
        ("resnets.0.conv_shortcut.weight", (64, 32, 1, 1), "conv2d"),
        ("conv_in.weight", (64, 4, 3), "conv1d"),
        ("temporal.weight", (8, 8, 3, 1, 1), "conv3d"),
        ("pos_embed", (1, 4096, 1152), "table"),
        ("cls_token", (1, 1, 768), "table"),
        ("positional_embedding", (77, 768), "table"),
        ("scale_shift_table", (6, 1152), "table"),
        ("relative_position_bias_table", (169, 4), "table"),
        ("text_projection", (768, 768), "linear"),
        ("attn.in_proj_weight", (192, 64), "linear"),
        ("attn.in_proj_bias", (192,), "bias"),
        ("weight", (3, 4), "linear"),
        ("decoder.norm.gamma", (64, 1, 1, 1), "norm"),
        ("conv.weight_g", (64, 1, 1), "norm"),
        ("conv.weight_v", (64, 32, 3), "conv1d"),
        ("logit_scale", (), "norm"),
        ("mixer.A_log", (64, 16), "parameter"),
        ("model.layers.0.mlp.experts.gate_up_proj", (8, 128, 64), "experts"),
        ("lm_head.weight", (50257, 768), "linear"),
        ("transformer.wpe.weight", (1024, 768), "embedding"),
        ("block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 8), "embedding"),
        ("patch_embedding.weight", (64, 48), "linear"),
    ],
)
def test_names_in_the_wild(name, shape, kind):
    assert describe(name, shape).kind == kind


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, "I64", "U8", "int64", "torch.int8", "BOOL"])
def test_integers(dtype):
    assert describe("embeddings.position_ids", (1, 77), dtype=dtype).kind == "buffer"
    assert describe("fc.weight", (4, 4), dtype=dtype).kind == "quantized"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, "F16", "BF16", "F8_E4M3", "float32"])
def test_floating_types(dtype):
    assert describe("fc.weight", (4, 4), dtype=dtype).kind == "linear"


def test_what_cannot_be_known_is_said():
    assert describe("conv.weight", (8, 4, 3, 3)).unknown == ("stride", "padding", "dilation", "groups", "direction")
    assert describe("conv.weight", (8, 4, 1, 1)).unknown == ("groups",)
    assert describe("conv.weight", (8, 4, 3, 3)).operator_kind == "reshape"
    assert describe("conv.weight", (8, 4, 1, 1)).operator_kind == "matrix"
    assert describe("conv.weight", (8, 4, 3, 3)).hints == ()
    assert describe("up.0.conv_transpose.weight", (8, 4, 4, 4)).hints[0].startswith("transposed convolution")
    assert describe("dw.weight", (8, 1, 3, 3)).hints == ("one input channel a group: may be depthwise",)
    assert describe("l.parametrizations.weight.original", (8, 4)).unknown == ("parametrization",)
    assert describe("l.weight_orig", (8, 4)).unknown == ("parametrization",)
    assert describe("q.A_log", (8, 4)).unknown == ("use",)


def test_storage_of_gpt2_like_names():
    gpt2 = {"model_type": "gpt2"}
    assert describe("h.0.attn.c_attn.weight", (64, 192)).transposed
    assert not describe("h.0.attn.c_attn.weight", (192, 64)).transposed  # nanoGPT
    assert describe("h.0.mlp.c_proj.weight", (256, 64)).matrix_shape == (64, 256)
    assert describe("resblocks.0.mlp.c_proj.weight", (64, 256)).matrix_shape == (64, 256)  # OpenAI's CLIP
    assert describe("h.0.attn.c_proj.weight", (64, 64)).unknown == ("orientation",)
    assert describe("h.0.attn.c_proj.weight", (64, 64), gpt2).unknown == ()
    assert describe("h.0.attn.c_proj.weight", (64, 64), gpt2).transposed


_WORDS = [
    "attn",
    "c_attn",
    "c_proj",
    "qkv",
    "to_qkv",
    "to_q",
    "query_key_value",
    "qkv_proj",
    "kv",
    "linear1",
    "up_blocks",
]
_WORDS += [
    "single_blocks",
    "0",
    "7",
    "weight",
    "bias",
    "experts",
    "norm",
    "in_proj",
    "embed",
    "attention",
    "parametrizations",
]
_KEYS = ["model_type", "num_attention_heads", "attention_head_dim", "down_block_types", "up_block_types", "head_dim"]
_KEYS += [
    "text_config",
    "attn_config",
    "multi_query",
    "num_key_value_heads",
    "hidden_size",
    "latent_channels",
    "n_head",
]
_VALUES = st.one_of(
    st.none(), st.integers(-2, 9), st.booleans(), st.sampled_from(["falcon", "gpt2", "codegen", "bloom", "CrossAttn"])
)
_CONFIGS = st.dictionaries(st.sampled_from(_KEYS), st.one_of(_VALUES, st.lists(_VALUES, max_size=3), st.just({"n": 1})))


@given(
    st.lists(st.sampled_from(_WORDS), min_size=1, max_size=5),
    st.lists(st.integers(0, 24), max_size=6),
    st.one_of(st.none(), _CONFIGS),
)
@settings(max_examples=300, deadline=None)
def test_no_name_shape_or_configuration_is_too_odd(words, shape, config):
    """Files lie: whatever they hold is described, and what is divided divides."""
    facts = describe(".".join(words), shape, config)
    if facts.heads is not None and attention_role(".".join(words)) != "fused":
        side = 1 if attention_role(".".join(words)) == "output" else 0
        assert facts.matrix_shape[side] % facts.heads == 0
    parts = split_fused(".".join(words), torch.zeros(shape), config) if len(shape) > 1 else None
    if parts is not None:
        assert sum(part.numel() for part in parts.values()) == torch.Size(shape).numel()
