"""GAN runs small enough to train in a second."""

import torch

from lsdr.gan.build import build_task, load_data
from lsdr.gan.config import GanConfig
from lsdr.gan.measures.config import GanMeasureConfig
from lsdr.gan.mixtures import MIXTURES
from lsdr.training.config import TrainingConfig
from lsdr.training.order import stream_seed

TINY = GanMeasureConfig(
    samples=40,
    class_samples=40,
    train_examples=40,
    heldout_examples=20,
    neighbours=3,
    paths=2,
    path_steps=4,
    batch=20,
    extractor_steps=2,
)


def config(training=None, **options):
    settings = {
        "steps": 12,
        "batch_size": 8,
        "lr": 1e-3,
        "betas": (0.0, 0.99),
        "warmup": 2,
        "checkpoint_every": 4,
        "log_every": 1,
        "evaluate_every": 6,
        "sample_every": 0,
        "monitor_every": 0,
        "trackers": (),
        **(training or {}),
    }
    noise = {"discriminator_noise": False, "noise_strength": None, "noise_clean": 0.5}
    small = {"model": "mlp"} if options.get("data", "ring") in MIXTURES else {}
    given = {"examples": 200, "training": TrainingConfig(**settings), "measure": TINY, **small}
    return GanConfig(**{**noise, **given, **options})


def task(settings):
    data = load_data(settings)
    torch.manual_seed(stream_seed(settings.training.seed, "initial weights"))
    return build_task(settings, data, torch.device("cpu"))
