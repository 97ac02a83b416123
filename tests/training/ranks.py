"""Train the toy task with one bad example: run by test_ranks.py, once alone and once on two ranks."""

import sys
from pathlib import Path

import torch

from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.training.loop import train


def main(directory, guard):
    sys.path.insert(0, str(Path(__file__).parent))
    import toy

    torch.set_num_threads(1)
    settings = toy.config(guard=guard, steps=12, batch_size=7, accumulate=2)
    task = toy.ToyTask(dropout=0.0, dataset=toy.Points(bad=[17]), dtype=torch.float64)
    if guard == "rollback":  # in the same run: a frozen base, and batches of one group each
        task.dataset.groups = [range(28), range(28, 40)]
        task.model[0].requires_grad_(False)
    regularizers = (SpectralDecorrelation(layers="3", weight=0.1),)
    outcome = train(task, settings, directory, toy.accelerator(settings), regularizers=regularizers)
    assert outcome.status == "finished", outcome


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
