"""Train until a step and then die as a killed process does: run by test_resume.py."""

import os
import signal
import sys
from pathlib import Path

import torch


def main(directory, objective, kill_at):
    sys.path.insert(0, str(Path(__file__).parent))
    import small

    from lsdr.representation import run

    torch.set_num_threads(1)
    losses = run.build_task

    def build_task(*given):
        task = losses(*given)
        own, steps = task.losses, []

        def dying(model, batch):
            steps.append(None)
            if len(steps) > kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return own(model, batch)

        task.losses = dying
        return task

    run.build_task = build_task
    run.run(small.config(objective=objective), (), directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
