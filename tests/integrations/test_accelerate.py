"""A real Accelerator with TensorBoard."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from lsdr.integrations.accelerate import accelerate_log
from lsdr.monitor.monitor import Monitor

pytest.importorskip("tensorboard")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_values_go_to_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    accelerator.init_trackers("run")
    model = accelerator.prepare(nn.Sequential(nn.Linear(3, 4)))
    monitor = Monitor(model, every=2, budget=None, log=accelerate_log(accelerator))
    for step in range(4):
        with monitor.at(step):
            model(torch.zeros(1, 3))
    accelerator.end_training()
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    scalars = events.Scalars("weights/0/sigma_max")
    assert [scalar.step for scalar in scalars] == [0, 2]
    expected = torch.linalg.svdvals(model[0].weight)[0].item()
    assert scalars[0].value == pytest.approx(expected, rel=1e-2)
