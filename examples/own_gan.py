"""A GAN of your own on eight clusters, with adaptive noise and capped norms: what LSDR adds is marked with #."""

import math

import torch
from torch import nn
from torch.nn.functional import softplus

import lsdr  #

torch.manual_seed(0)
angles = torch.arange(8) * math.pi / 4
centres = torch.stack([angles.cos(), angles.sin()], 1)
data = centres[torch.randint(8, (20_000,))] + 0.05 * torch.randn(20_000, 2)


def network(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 64),
        nn.LeakyReLU(0.2),
        nn.Linear(64, 64),
        nn.LeakyReLU(0.2),
        nn.Linear(64, outputs),
    )


generator, discriminator = network(8, 2), network(2, 1)
learn_to_make = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
learn_to_tell = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.9))
noise = lsdr.AdaptiveNoise(scale=data.std(0), images=50_000)  #

with lsdr.attach(discriminator, lsdr.SpectralNormalization(bound=5.0)) as penalty:  #
    for step in range(600):
        real, fake = data[torch.randint(len(data), (128,))], generator(torch.randn(128, 8))
        real_logits, fake_logits = discriminator(noise(real)), discriminator(noise(fake.detach()))  #
        learn_to_tell.zero_grad()
        (softplus(-real_logits) + softplus(fake_logits)).mean().backward()
        learn_to_tell.step()
        noise.update(real_logits)  #
        penalty.project_()  #

        learn_to_make.zero_grad()
        softplus(-discriminator(noise(fake))).mean().backward()  #
        learn_to_make.step()
        if step % 100 == 99:
            strength, signal = float(noise.strength), float(noise.signal)  #
            print(f"step {step + 1}  noise {strength:.2f}, where the mean sign of D(real) is {signal:.2f}")  #

with torch.no_grad():
    distance, nearest = torch.cdist(generator(torch.randn(2500, 8)), centres).min(1)
near = distance < 3 * 0.05
print(f"{len(nearest[near].unique())} of 8 clusters, {float(near.float().mean()):.0%} of the points at one")
