"""Attention of the networks that Stable Diffusion is made of, with LoRA, against what goes into torch's own kernel."""

import math

import pytest
import torch
from torch import nn

from lsdr.probes.attention import AttentionProbe

diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
TOKENS, HEADS = 7, 4


def unet():
    model = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12, attention_head_dim=HEADS, norm_num_groups=8,
    )  # fmt: skip
    return model, lambda: model(torch.randn(2, 4, 8, 8), 5, encoder_hidden_states=torch.randn(2, TOKENS, 12))


def sd3(qk_norm):
    model = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=HEADS, joint_attention_dim=12, caption_projection_dim=32, pooled_projection_dim=16,
        pos_embed_max_size=16, qk_norm=qk_norm,
    )  # fmt: skip
    text = {"encoder_hidden_states": torch.randn(2, TOKENS, 12), "pooled_projections": torch.randn(2, 16)}
    return model, lambda: model(torch.randn(2, 4, 8, 8), timestep=torch.tensor([1.0, 5.0]), **text)


def flux(tokens):
    model = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=HEADS,
        joint_attention_dim=12, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    # All at the same place: rotary embeddings, which the probe does not see, then turn nothing.
    places = {"img_ids": torch.zeros(tokens, 3), "txt_ids": torch.zeros(TOKENS, 3)}
    text = {"encoder_hidden_states": torch.randn(2, TOKENS, 12), "pooled_projections": torch.randn(2, 16)}
    return model, lambda: model(torch.randn(2, tokens, 16), timestep=torch.tensor([0.1, 0.5]), **text, **places)


CASES = {
    "unet": unet,
    "sd3": lambda: sd3(None),
    "sd3.5": lambda: sd3("rms_norm"),
    "flux": lambda: flux(9),
    "flux, as many tokens as heads": lambda: flux(HEADS),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("adapted", [False, True])
def test_logits_are_those_of_the_kernel(case, adapted, monkeypatch):
    torch.manual_seed(0)
    model, run = CASES[case]()
    if adapted:
        projections = ["to_q", "to_k", "add_q_proj", "add_k_proj"]
        model.add_adapter(peft.LoraConfig(r=4, target_modules=projections, init_lora_weights=False))
    taken, kernel = [], nn.functional.scaled_dot_product_attention

    def watched(query, key, value, *args, **keywords):
        scale = keywords.get("scale") or 1 / math.sqrt(query.shape[-1])
        taken.append(scale * query.detach().float() @ key.detach().float().mT)
        return kernel(query, key, value, *args, **keywords)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    with AttentionProbe().attach(model) as attention:
        run()
    found = attention()
    names = [name for name, module in model.named_modules() if hasattr(module, "to_q")]
    assert set(found) == set(names)  # none of them passed over
    assert len(taken) == len(found)
    got = sorted((float(each["logit_max"]), float(each["entropy"])) for each in found.values())
    expected = sorted((float(each.amax()), float(_entropy(each))) for each in taken)
    for one, other in zip(got, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    rms = sorted(float(each["logit_rms"]) for each in found.values())
    assert rms == pytest.approx(sorted(float(each.square().mean().sqrt()) for each in taken), rel=1e-4)


def _entropy(logits):
    probabilities = logits.softmax(-1)
    return -torch.special.xlogy(probabilities, probabilities).sum(-1).mean()
