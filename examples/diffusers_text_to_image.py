"""Fine-tune a UNet as diffusers' text-to-image script does it, with LSDR: what it adds is ten lines, marked with #.

They add two regularizers that act on the latents, and a monitor of the layers' spectra. The rest is as in
examples/text_to_image/train_text_to_image.py of diffusers, with `accelerate launch` if you like.
"""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader

import lsdr  #
from tiny_pipeline import as_pixels, build_tiny_pipeline, captioned_photos

STEPS, BATCH = 12, 8

accelerator = Accelerator(cpu=not torch.cuda.is_available())
pipeline = build_tiny_pipeline()  # or StableDiffusionPipeline.from_pretrained(FOLDER)
unet, vae, text_encoder, tokenizer = pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.tokenizer
noise_scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
vae.requires_grad_(False)
text_encoder.requires_grad_(False)
unet.train()


def collate(examples):
    images, captions = zip(*examples, strict=True)
    tokens = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
    return {"pixel_values": as_pixels(images), "input_ids": tokens.input_ids}


loader = DataLoader(captioned_photos(40), BATCH, shuffle=True, drop_last=True, collate_fn=collate)
ema_unet = EMAModel(unet.parameters())
optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, weight_decay=1e-2)
lr_scheduler = get_scheduler("constant", optimizer)
monitor = lsdr.Monitor(unet, every=6, log=lambda values, step: print(len(values), penalty.values))  #
unet, optimizer, loader, lr_scheduler = accelerator.prepare(unet, optimizer, loader, lr_scheduler)
ema_unet.to(accelerator.device)
vae.to(accelerator.device)
text_encoder.to(accelerator.device)

denoise = lsdr.DDPMDenoiser.from_scheduler(unet, noise_scheduler)  #
step = 0
with lsdr.attach(unet, lsdr.SpectralDiscriminator(domain="latents"), lsdr.SpectralDecomposition()) as penalty:  #
    while step < STEPS:
        for batch in loader:
            with accelerator.accumulate(unet), monitor.at(step):  #
                latents = vae.encode(batch["pixel_values"]).latent_dist.sample() * vae.config.scaling_factor
                noise = torch.randn_like(latents)
                timesteps = torch.randint(0, len(noise_scheduler.alphas_cumprod), (len(latents),), device=noise.device)
                noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
                encoder_hidden_states = text_encoder(batch["input_ids"], return_dict=False)[0]
                target = noise
                if noise_scheduler.config.prediction_type == "v_prediction":
                    target = noise_scheduler.get_velocity(latents, noise, timesteps)
                model_pred = unet(noisy_latents, timesteps, encoder_hidden_states, return_dict=False)[0]
                loss = F.mse_loss(model_pred.float(), target.float())
                # What the penalties ask for is in the frame latents + sigma * noise, and this network predicts noise.
                sigma = denoise.sigmas.to(noise)[timesteps].view(-1, 1, 1, 1)  #
                noisy = latents + sigma * noise  #
                given = {"denoised": noisy - sigma * model_pred, "clean": latents, "sigma": sigma.flatten()}  #
                text = {"encoder_hidden_states": encoder_hidden_states}  #
                loss = loss + penalty(denoiser=denoise, noisy=noisy, conditioning=text, **given)  #
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(unet.parameters(), 1.0)
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                ema_unet.step(unet.parameters())
                step += 1
                print(f"step {step:3d}  loss {loss.item():.3f}")
            if step == STEPS:
                break
