"""Train the toy task with one bad example: run by test_ranks.py, once alone and once on two ranks."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import toy

from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.training.loop import train

torch.set_num_threads(1)
directory, guard = Path(sys.argv[1]), sys.argv[2]
settings = toy.config(guard=guard, steps=12, batch_size=7, accumulate=2)
task = toy.ToyTask(dropout=0.0, dataset=toy.Points(bad=[17]), dtype=torch.float64)
outcome = train(
    task,
    settings,
    directory,
    toy.accelerator(settings),
    regularizers=(SpectralDecorrelation(layers="3", weight=0.1),),
)
assert outcome.status == "finished", outcome
