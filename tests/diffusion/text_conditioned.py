"""What the tests of text-conditioned networks share: small networks of three families, and what they are given."""

import torch

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.flow import FlowDenoiser

ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
FAMILIES = ("sd", "sdxl", "sd3")


def _unet(**options):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        **options,
    )


def network(family, seed=0, qk_norm="rms_norm"):
    """The network, with noise on all weights so that nothing that begins at zero is blind to its text."""
    from diffusers import SD3Transformer2DModel

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if family == "sd":
            net = _unet()
        elif family == "sdxl":
            net = _unet(
                addition_embed_type="text_time",
                addition_time_embed_dim=4,
                projection_class_embeddings_input_dim=10 + 6 * 4,
                transformer_layers_per_block=1,
            )
        else:
            net = SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=4,
                num_attention_heads=2,
                joint_attention_dim=12,
                caption_projection_dim=8,
                pooled_projection_dim=10,
                pos_embed_max_size=8,
                dual_attention_layers=(0,),
                qk_norm=qk_norm,
            )
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return net


def conditioning(family, count, seed=0):
    """Random embeddings, a row for each example."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(count, *shape, generator=generator)

    found = {"encoder_hidden_states": drawn(5, 12)}
    if family == "sdxl":
        times = torch.tensor([64, 64, 0, 0, 64, 64]).repeat(count, 1)
        found["added_cond_kwargs"] = {"text_embeds": drawn(10), "time_ids": times}
    if family == "sd3":
        found["pooled_projections"] = drawn(10)
    return found


def denoiser(family, net):
    """The network as a denoiser of its family."""
    return FlowDenoiser(net) if family == "sd3" else DDPMDenoiser(net, ALPHAS.to(torch.float64))


def step(family, denoise, count=4, seed=0, dtype=torch.float32):
    """What a training step tells a penalty."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(count, 4, 8, 8, generator=generator, dtype=dtype)
    sigma = torch.linspace(0.3, 1.5, count, dtype=dtype)
    noisy = clean + sigma.view(-1, 1, 1, 1) * torch.randn(clean.shape, generator=generator, dtype=dtype)
    given = conditioning(family, count)
    return {
        "denoiser": denoise,
        "noisy": noisy,
        "sigma": sigma,
        "clean": clean,
        "conditioning": given,
        "denoised": denoise(noisy, sigma, given),
    }
