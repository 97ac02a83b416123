"""Train a GAN with standardisation and adaptive noise: run by test_ranks.py, once alone and once on two ranks."""

import sys
from pathlib import Path

import torch

from lsdr.training.loop import train
from lsdr.training.stepper import build_accelerator


def main(directory):
    sys.path.insert(0, str(Path(__file__).parent))
    import small

    torch.set_num_threads(1)
    settings = small.config(
        normalization="standardize",
        discriminator_noise=True,
        noise_images=60,
        noise_target=-0.9,
        packing=2,
        training={"steps": 6, "seed": 1},
        loss="non_saturating",
    )
    outcome = train(small.task(settings), settings.training, directory, build_accelerator(settings.training))
    assert outcome.status == "finished", outcome


if __name__ == "__main__":
    main(Path(sys.argv[1]))
