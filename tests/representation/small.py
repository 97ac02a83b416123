"""Representation runs small enough to train in a second."""

import torch

from lsdr.representation.build import build_task, load
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.measures.config import RepresentationMeasureConfig
from lsdr.training.config import TrainingConfig
from lsdr.training.order import stream_seed

TINY = RepresentationMeasureConfig(
    train_examples=60,
    heldout_examples=20,
    view_examples=20,
    shares=(1.0,),
    draws=1,
    neighbours=3,
    transformations=False,
    corruptions=False,
    layers=False,
    references=False,
    directions=2,
    shown=2,
)


def texts(folder, count=100):
    """A folder of short texts of a few words."""
    folder.mkdir(exist_ok=True)
    words = ["red", "green", "blue", "one", "two", "three", "up", "down"]
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        chosen = torch.randint(len(words), (3 + number % 6,), generator=generator)
        (folder / f"{number:03d}.txt").write_text(" ".join(words[k] for k in chosen))
    return str(folder)


def config(training=None, **options):
    settings = {
        "steps": 8,
        "batch_size": 15,
        "lr": 1e-3,
        "warmup": 2,
        "checkpoint_every": 3,
        "log_every": 1,
        "evaluate_every": 4,
        "sample_every": 0,
        "monitor_every": 0,
        "trackers": (),
        **(training or {}),
    }
    given = {"data": "digits", "limit": 100, "code": 8, "projector": 12, "measure": TINY}
    return RepresentationConfig(training=TrainingConfig(**settings), **{**given, **options})


def task(settings, dtype=torch.float32):
    data = load(settings)
    torch.manual_seed(stream_seed(settings.training.seed, "initial weights"))
    made = build_task(settings, data, torch.device("cpu"))
    made.model.to(dtype)
    return made
