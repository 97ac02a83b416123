"""Fine-tune a LoRA of a UNet in the Trainer of Hugging Face transformers, with LSDR: its ten lines are marked with #.

Latents and text embeddings are computed once, before; the Trainer then trains the UNet's adapters on them.
"""

import tempfile

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from peft import LoraConfig
from transformers import Trainer, TrainingArguments

import lsdr  #
from lsdr.integrations.transformers import MonitorCallback  #
from tiny_pipeline import as_pixels, build_tiny_pipeline, captioned_photos

pipeline = build_tiny_pipeline()  # or StableDiffusionPipeline.from_pretrained(FOLDER)
scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
images, captions = zip(*captioned_photos(40), strict=True)
with torch.no_grad():
    tokens = pipeline.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
    embeddings = pipeline.text_encoder(tokens)[0]
    latents = pipeline.vae.encode(as_pixels(images)).latent_dist.mean * pipeline.vae.config.scaling_factor
examples = [{"latents": z, "encoder_hidden_states": text} for z, text in zip(latents, embeddings, strict=True)]

unet = pipeline.unet.requires_grad_(False)
unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))


class TextToImageTrainer(Trainer):
    """Trains a UNet on latents and text embeddings."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Predict the noise; the penalty comes on top."""
        clean, text = inputs["latents"], {"encoder_hidden_states": inputs["encoder_hidden_states"]}
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, len(scheduler.alphas_cumprod), (len(clean),), device=clean.device)
        noisy_latents = scheduler.add_noise(clean, noise, timesteps)
        prediction = model(noisy_latents, timesteps, **text, return_dict=False)[0]
        loss = F.mse_loss(prediction, noise)
        # What the penalties ask for is in the frame clean + sigma * noise.
        sigma = denoise.sigmas.to(clean)[timesteps].view(-1, 1, 1, 1)  #
        noisy = clean + sigma * noise  #
        given = {"noisy": noisy, "sigma": sigma.flatten(), "denoised": noisy - sigma * prediction, "clean": clean}  #
        return loss + penalty(denoiser=denoise, conditioning=text, **given)  #


with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=12,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        logging_steps=4,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = TextToImageTrainer(unet, arguments, train_dataset=examples)
    trainer.add_callback(MonitorCallback(trainer, every=6))  #
    denoise = lsdr.DDPMDenoiser.from_scheduler(unet, scheduler)  #
    with lsdr.attach(unet, lsdr.SpectralDiscriminator(domain="latents"), lsdr.SpectralDecomposition()) as penalty:  #
        trainer.train()
        print({name: round(float(value), 5) for name, value in penalty.values.items()})  #
