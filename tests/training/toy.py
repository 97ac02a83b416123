"""A task small enough to train in milliseconds, with dropout so that every stream of randomness matters."""

import torch
from torch import nn
from torch.utils.data import Dataset

from lsdr.training.config import TrainingConfig
from lsdr.training.order import stream_seed
from lsdr.training.stepper import build_accelerator


class Points(Dataset):
    def __init__(self, count=40, bad=()):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(count, 6, generator=generator)
        self.y = self.x.cumsum(1)[:, :3].sin()
        for index in bad:
            self.x[index] = float("nan")

    def __len__(self):
        return len(self.x)

    def __getitems__(self, indices):
        rows = torch.tensor(indices)
        return {"x": self.x[rows], "y": self.y[rows], "index": rows}


class ToyTask:
    def __init__(self, seed=0, dropout=0.2, dataset=None, dtype=torch.float32):
        torch.manual_seed(stream_seed(seed, "initial weights"))
        self.model = nn.Sequential(
            nn.Linear(6, 16), nn.SiLU(), nn.Dropout(dropout), nn.Linear(16, 12), nn.SiLU(), nn.Linear(12, 3)
        ).to(dtype)
        self.dataset = dataset or Points()
        self.dtype = dtype

    def draws(self, count, generator):
        return {"noise": torch.randn(count, 3, generator=generator, device=generator.device)}

    def losses(self, model, batch):
        output = model(batch["x"].to(self.dtype))
        target = batch["y"] + 0.1 * batch["noise"]
        return (output - target.to(self.dtype)).square().mean(1), {}

    def evaluate(self, model):
        with torch.no_grad():
            return {"heldout_loss": float((model(self.dataset.x.to(self.dtype)) - self.dataset.y).square().mean())}

    def picture(self, model):
        return None

    def feature_layers(self):
        return "3"

    def name(self, index):
        return f"point {index}"


def config(**options):
    return TrainingConfig(
        **{
            "steps": 12,
            "batch_size": 8,
            "warmup": 2,
            "checkpoint_every": 4,
            "log_every": 2,
            "evaluate_every": 6,
            "sample_every": 6,
            "trackers": (),
            **options,
        }
    )


def accelerator(settings):
    return build_accelerator(settings)
