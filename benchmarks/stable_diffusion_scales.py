"""The pipelines that stable_diffusion_step.py times: a small one, and one of the size of Stable Diffusion 1.5."""

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lsdr.stable_diffusion.build import build_task, encode
from lsdr.stable_diffusion.config import StableDiffusionConfig
from lsdr.stable_diffusion.encoded_dataset import EncodedDataset
from lsdr.stable_diffusion.pipeline import Pipeline
from lsdr.stable_diffusion.task import StableDiffusionTask
from lsdr.training.config import TrainingConfig

NEVER = 10**9
# Stable Diffusion 1.5, as its unet/config.json, vae/config.json and text_encoder/config.json say.
FULL: dict[str, Any] = {
    "pixels": 512,
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "sample_size": 512,
    },
    "text": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}
SMALL: dict[str, Any] = {
    "pixels": 128,
    "unet": {
        "sample_size": 16,
        "block_out_channels": (64, 128),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 64,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    },
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 16, 16, 16),
        "norm_num_groups": 8,
        "sample_size": 128,
    },
    "text": {
        "vocab_size": 190,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
}
SCALES = {"small": SMALL, "full": FULL}


def build_pipeline(scale: Mapping[str, Any], folder: Path) -> Pipeline:
    """A pipeline with random weights."""
    torch.manual_seed(0)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    unet = UNet2DConditionModel(**scale["unet"])
    vae = AutoencoderKL(**scale["vae"], latent_channels=4).requires_grad_(False).eval()
    text_encoder = CLIPTextModel(CLIPTextConfig(**scale["text"], **ends)).requires_grad_(False).eval()
    tokenizer = CLIPTokenizer({word: number for number, word in enumerate(words)}, [], model_max_length=77)
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
    return Pipeline("sd", folder, unet, vae, (text_encoder,), (tokenizer,), scheduler)


def write_photos(folder: Path, count: int, side: int) -> None:
    """Captioned crops of scikit-learn's two photographs."""
    folder.mkdir()
    generator = random.Random(0)
    for number in range(count):
        photo = Image.fromarray(load_sample_images().images[number % 2])
        left, top = (generator.randrange(length - 256) for length in photo.size)
        crop = photo.crop((left, top, left + 256, top + 256)).resize((side, side))
        crop.save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(("a temple in China", "a red flower")[number % 2])


@dataclass(frozen=True)
class Bench:
    """What all of them train on."""

    pipeline: Pipeline
    dataset: EncodedDataset
    images: list[dict[str, Tensor]]
    """Pixels and tokens, as diffusers' script prepares them."""
    config: StableDiffusionConfig
    device: torch.device

    def network(self) -> nn.Module:
        """A copy of the base network."""
        return copy.deepcopy(self.pipeline.network)

    def task(self, tune: str) -> StableDiffusionTask:
        """Training a copy of the base network, as the command sets it up."""
        config = replace(self.config, tune=tune)
        return build_task(config, replace(self.pipeline, network=self.network()), self.dataset, self.device)


def open_bench(options: Any, folder: Path) -> Bench:
    """Build the pipeline and encode photographs with it."""
    scale, device = SCALES[options.scale], torch.device(options.device)
    pipeline = build_pipeline(scale, folder)
    count = max(32, options.batch)
    write_photos(folder / "photos", count, scale["pixels"])
    config = StableDiffusionConfig(
        model=folder,
        data=str(folder / "photos"),
        resolution=scale["pixels"],
        buckets=False,
        holdout=0,
        gradient_checkpointing=options.gradient_checkpointing,
        training=TrainingConfig(
            steps=NEVER,
            batch_size=options.batch,
            lr=1e-5,
            clip=1.0,
            weight_decay=1e-2,
            precision=options.precision,
            trackers=(),
            evaluate_every=NEVER,
            sample_every=0,
            checkpoint_every=NEVER,
        ),
    )
    dataset = encode(config, pipeline, folder / "cache", device)
    images = []
    for index in range(count):
        pixels = torch.from_numpy(np.array(Image.open(folder / "photos" / f"{index:03d}.png")))
        caption, tokenizer = dataset.caption(index), pipeline.tokenizers[0]
        tokens = tokenizer(caption, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]
        images.append({"pixel_values": pixels.permute(2, 0, 1) / 127.5 - 1, "input_ids": tokens})
    return Bench(pipeline, dataset, images, config, device)
