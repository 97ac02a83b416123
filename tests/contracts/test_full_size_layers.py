"""At full size: every matrix of Stable Diffusion's and Flux's networks is found, and none silently left out."""

import pytest
import torch
from torch import nn

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.layers.operators import layer_operator
from lsdr.layers.select import select_layers, select_outermost
from lsdr.probes.weights import WEIGHTED, WeightProbe
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.spectrum import Spectrum

# The settings in which the published networks differ from the class's defaults (their config.json).
CONFIGS = {
    "sd1.5": ("UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}),
    "sd2.1": (
        "UNet2DConditionModel",
        {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
    ),
    "sdxl": (
        "UNet2DConditionModel",
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "sd3-medium": (
        "SD3Transformer2DModel",
        {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
        },
    ),
    "flux-dev": (
        "FluxTransformer2DModel",
        {
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
            "axes_dims_rope": (16, 56, 56),
        },
    ),
}
# Parameters, linear layers, convolutions, and how many shapes their flattened weights have.
EXPECTED = {
    "sd1.5": (859_520_964, 184, 98, 36),
    "sd2.1": (865_910_724, 216, 66, 36),
    "sdxl": (2_567_463_684, 743, 51, 34),
    "sd3-medium": (2_028_328_000, 340, 1, 10),
    "flux-dev": (11_901_408_320, 504, 0, 12),
}
NAMES = list(CONFIGS)


def build(name):
    import diffusers

    kind, settings = CONFIGS[name]
    with torch.device("meta"):
        return getattr(diffusers, kind)(**settings)


@pytest.mark.parametrize("name", NAMES)
def test_every_matrix_is_found(name, monkeypatch):
    model = build(name)
    measured = []

    def note(module, *_):
        measured.append(module)
        return Spectrum.of([1.0])

    monkeypatch.setattr("lsdr.probes.weights.weight_spectrum", note)
    found = WeightProbe()(model)
    parameters, linear, convolutions, shapes = EXPECTED[name]
    assert sum(each.numel() for each in model.parameters()) == parameters
    assert sum(isinstance(each, nn.Linear) for each in measured) == linear
    assert sum(isinstance(each, nn.Conv2d) for each in measured) == convolutions
    assert len({each.weight.flatten(1).shape for each in measured}) == shapes
    assert list(found) == list(select_layers(model, "*", WEIGHTED))
    # What is left over is biases and the scales of norms: no matrix is held by a module of another kind.
    weights = {id(each.weight) for each in measured}
    assert [key for key, each in model.named_parameters() if each.ndim > 1 and id(each) not in weights] == []
    assert len(weights) == len(measured) == linear + convolutions


@pytest.mark.parametrize("name", NAMES)
def test_every_matrix_has_an_operator_of_its_shape(name):
    for key, module in select_layers(build(name), "*", WEIGHTED).items():
        operator = layer_operator(module, weight=module.weight)
        assert operator.shape == tuple(module.weight.flatten(1).shape), key


@pytest.mark.parametrize(
    ("name", "count"), [("sd1.5", 1), ("sd2.1", 1), ("sdxl", 1), ("sd3-medium", 0), ("flux-dev", 0)]
)
def test_the_default_layer_of_decorrelation_is_there_or_said_to_be_missing(name, count):
    model = build(name)
    if count:
        assert list(select_outermost(model, SpectralDecorrelation().layers)) == ["mid_block"]
    else:  # a transformer has no middle block; the message must name what it has
        with pytest.raises(ValueError, match="transformer_blocks"):
            select_outermost(model, SpectralDecorrelation().layers)


SHAPES = {
    "sd1.5": ((4, 64, 64), {"encoder_hidden_states": (77, 768)}),
    "sd2.1": ((4, 96, 96), {"encoder_hidden_states": (77, 1024)}),
    "sdxl": (
        (4, 128, 128),
        {"encoder_hidden_states": (77, 2048), "added_cond_kwargs": {"text_embeds": (1280,), "time_ids": (6,)}},
    ),
    "sd3-medium": ((16, 128, 128), {"encoder_hidden_states": (333, 4096), "pooled_projections": (2048,)}),
}


def filled(shapes, count):
    """Tensors on the meta device of these shapes, a row for each example."""
    if isinstance(shapes, dict):
        return {key: filled(value, count) for key, value in shapes.items()}
    return torch.empty(count, *shapes, device="meta")


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_denoiser_of_full_size_takes_its_conditioning(name):
    shape, named = SHAPES[name]
    model = build(name).to(torch.bfloat16)
    table = torch.cumprod(1 - torch.linspace(8.5e-4**0.5, 0.012**0.5, 1000).square(), 0)
    denoise = FlowDenoiser(model) if name.startswith("sd3") else DDPMDenoiser(model, table)
    x = torch.empty(2, *shape, device="meta")
    with torch.no_grad():
        out = denoise(x, torch.ones(2, device="meta"), filled(named, 2))
    assert out.shape == x.shape
    assert out.dtype == torch.float32
