"""Fine-tune a LoRA of a UNet in Lightning, with LSDR: its ten lines are marked with #.

Besides a penalty on the latents there is a bound here on what the LoRA may change: after every step the spectral norm
of each layer's delta is brought back to a tenth of the base weight's, where it is above.
"""

import tempfile

import lightning
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from lightning.pytorch.loggers import CSVLogger
from peft import LoraConfig
from torch.utils.data import DataLoader

import lsdr  #
from lsdr.integrations.lightning import MonitorCallback  #
from tiny_pipeline import as_pixels, build_tiny_pipeline, captioned_photos

pipeline = build_tiny_pipeline()  # or StableDiffusionPipeline.from_pretrained(FOLDER)
images, captions = zip(*captioned_photos(40), strict=True)
with torch.no_grad():
    tokens = pipeline.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
    embeddings = pipeline.text_encoder(tokens)[0]
    latents = pipeline.vae.encode(as_pixels(images)).latent_dist.mean * pipeline.vae.config.scaling_factor
examples = [{"latents": z, "encoder_hidden_states": text} for z, text in zip(latents, embeddings, strict=True)]


class TextToImage(lightning.LightningModule):
    """A UNet with a LoRA, trained on latents and text embeddings."""

    def __init__(self):
        super().__init__()
        self.unet = pipeline.unet.requires_grad_(False)
        self.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
        self.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.denoise = lsdr.DDPMDenoiser.from_scheduler(self.unet, self.scheduler)  #

    def training_step(self, batch, batch_idx):
        """Predict the noise; the penalty comes on top."""
        clean, text = batch["latents"], {"encoder_hidden_states": batch["encoder_hidden_states"]}
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, len(self.scheduler.alphas_cumprod), (len(clean),), device=clean.device)
        noisy_latents = self.scheduler.add_noise(clean, noise, timesteps)
        prediction = self.unet(noisy_latents, timesteps, **text, return_dict=False)[0]
        loss = F.mse_loss(prediction, noise)
        # What the penalties ask for is in the frame clean + sigma * noise.
        sigma = self.denoise.sigmas.to(clean)[timesteps].view(-1, 1, 1, 1)  #
        denoised = clean + sigma * (noise - prediction)  #
        loss = loss + self.penalty(sigma=sigma.flatten(), denoised=denoised, clean=clean, conditioning=text)  #
        print(f"step {self.global_step:3d}  loss {loss.item():.3f}")
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        """After the optimiser's step."""
        self.penalty.project_()  #

    def configure_optimizers(self):
        """The adapters alone are trained."""
        return torch.optim.AdamW((each for each in self.unet.parameters() if each.requires_grad), lr=1e-3)


module = TextToImage()
bound = lsdr.AdapterNormalization(bound=0.1, relative=True)  #
with tempfile.TemporaryDirectory() as folder:
    trainer = lightning.Trainer(
        max_steps=12,
        default_root_dir=folder,
        logger=CSVLogger(folder),
        callbacks=[MonitorCallback(every=6)],  #
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with lsdr.attach(module.unet, lsdr.SpectralDiscriminator(domain="latents"), bound) as module.penalty:  #
        trainer.fit(module, DataLoader(examples, 8, shuffle=True, drop_last=True))
