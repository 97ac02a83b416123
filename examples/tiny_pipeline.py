"""A Stable Diffusion pipeline with random weights, less than four megabytes, and captioned photographs for it.

The other examples run on it, so that they need no download; `python examples/tiny_pipeline.py FOLDER` writes both in
their usual layouts: FOLDER/pipeline as diffusers saves one, FOLDER/photos with a .txt beside every image.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def build_tiny_pipeline():
    """A pipeline for 64x64 pixels; with real weights: `StableDiffusionPipeline.from_pretrained(FOLDER)`."""
    torch.manual_seed(0)
    # A vocabulary of single characters, each also as the last one of a word.
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({word: number for number, word in enumerate(words)}, [], model_max_length=77)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=len(words) - 2,
            eos_token_id=len(words) - 1,
            pad_token_id=len(words) - 1,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    )
    with torch.no_grad():  # scaled as a trained one's are: latents of standard deviation 1
        latents = vae.encode(as_pixels([image for image, _ in captioned_photos()])).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def captioned_photos(count=20, side=64):
    """Crops of scikit-learn's two photographs with a caption each: a list of (image, caption)."""
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for number in range(count):
        photo = Image.fromarray(load_sample_images().images[number % 2])
        left, top = (int(torch.randint(length - 3 * side, (), generator=generator)) for length in photo.size)
        crop = photo.crop((left, top, left + 3 * side, top + 3 * side)).resize((side, side))
        pictures.append((crop, ("a temple in China", "a red flower")[number % 2]))
    return pictures


def as_pixels(images):
    """Images as a batch in [-1, 1]."""
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]) / 127.5 - 1


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tiny-stable-diffusion")
    build_tiny_pipeline().save_pretrained(folder / "pipeline")
    (folder / "photos").mkdir(exist_ok=True)
    for number, (image, caption) in enumerate(captioned_photos()):
        image.save(folder / "photos" / f"{number:02d}.png")
        (folder / "photos" / f"{number:02d}.txt").write_text(caption + "\n")
    print(f"a pipeline is in {folder / 'pipeline'}, captioned photographs are in {folder / 'photos'}")


if __name__ == "__main__":
    main()
