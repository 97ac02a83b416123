"""Regularizers in a training loop of your own, around a diffusers UNet: what LSDR adds is marked with #."""

import torch
from diffusers import UNet2DModel

import lsdr

torch.manual_seed(0)
images = lsdr.load_images("patches").__getitems__(range(64))["image"] / 127.5 - 1
unet = UNet2DModel(
    sample_size=16,
    in_channels=3,
    out_channels=3,
    block_out_channels=(16, 32),
    norm_num_groups=8,
    layers_per_block=1,
    down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
)
optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
denoise = lsdr.EDMDenoiser(unet)
decorrelate = lsdr.SpectralDecorrelation(layers="mid_block*", weight=0.1)  # features of a layer
discriminate = lsdr.SpectralDiscriminator(features=("radial",))  # the clean estimate's power spectrum
decompose = lsdr.SpectralDecomposition(of="eigenvalues")  # the denoising step's Jacobian

with lsdr.attach(unet, decorrelate, discriminate, decompose) as penalty:  #
    for step in range(20):
        clean = images[torch.randint(len(images), (16,))]
        sigma = denoise.draw_sigma(torch.rand(16))
        noisy = clean + sigma.view(-1, 1, 1, 1) * torch.randn_like(clean)
        weight = sigma**-2 + denoise.sigma_data**-2
        denoised = denoise(noisy, sigma)
        loss = (weight * (denoised - clean).square().mean((1, 2, 3))).mean()
        loss = loss + penalty(denoiser=denoise, noisy=noisy, sigma=sigma, denoised=denoised, clean=clean)  #
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 0:
            values = {name: round(float(value), 4) for name, value in penalty.values.items()}  #
            print(f"step {step:3d}  loss {loss:.3f}", values)

spectrum = lsdr.WeightProbe("mid_block*")(unet)["mid_block.resnets.0.conv1"]
print(
    f"mid_block.resnets.0.conv1: sigma_max {spectrum.values[0]:.3f}, effective rank {lsdr.effective_rank(spectrum):.1f}"
)
