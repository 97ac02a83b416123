"""Train in float64 for every objective given: run by test_ranks.py on two ranks, without torchrun."""

import sys
from pathlib import Path

import torch

from lsdr.representation.objective import objective_regularizers
from lsdr.training.loop import train
from lsdr.training.stepper import build_accelerator

OPTIONS = {"training": {"steps": 4, "evaluate_every": 4, "checkpoint_every": 4}}


def main(directory, objectives):
    sys.path.insert(0, str(Path(__file__).parent))
    import small

    torch.set_num_threads(1)
    for objective in objectives:
        settings = small.config(objective=objective, **OPTIONS)
        outcome = train(
            small.task(settings, torch.float64),
            settings.training,
            directory / objective,
            build_accelerator(settings.training),
            regularizers=objective_regularizers(settings),
        )
        assert outcome.status == "finished", outcome


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
