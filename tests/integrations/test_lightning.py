"""The real Trainer of Lightning on a tiny model."""

import contextlib
import csv
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

lightning = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from lsdr.integrations.lightning import MonitorCallback  # noqa: E402
from lsdr.probes.features import FeatureProbe  # noqa: E402
from lsdr.probes.gradients import GradientProbe  # noqa: E402
from lsdr.probes.tracked import TrackedWeightProbe  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Module(lightning.LightningModule):
    def __init__(self, fail=False):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
        self.fail = fail

    def training_step(self, batch, batch_idx):
        if self.fail and self.global_step == 2:
            raise KeyError("data")
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, steps, *callbacks, fail=False, checkpoint=None):
    lightning.seed_everything(0, verbose=False)
    module = Module(fail)
    data = DataLoader(TensorDataset(torch.randn(32, 3)), batch_size=2)
    trainer = lightning.Trainer(
        max_steps=steps, accumulate_grad_batches=2, accelerator="cpu", default_root_dir=folder,
        callbacks=list(callbacks), logger=CSVLogger(folder), enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    try:
        trainer.fit(module, data, ckpt_path=checkpoint)
    except KeyError:
        assert fail
    return module, trainer


def probes():
    return [TrackedWeightProbe(), GradientProbe(), FeatureProbe("net.0")]


def test_values_go_to_the_loggers_and_training_is_as_without(tmp_path):
    plain, _ = fit(tmp_path / "plain", 4)
    callback = MonitorCallback(probes(), every=2, budget=None)
    watched, trainer = fit(tmp_path / "watched", 4, callback)
    torch.testing.assert_close(watched.state_dict(), plain.state_dict(), rtol=0, atol=0)
    with (Path(trainer.logger.log_dir) / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "2"]
    assert all(float(row["weights/net.0/sigma_max"]) > 0 for row in rows)
    assert all(float(row["gradients/net.3/norm"]) > 0 for row in rows)
    assert all(float(row["features/net.0/dead_units"]) == 0 for row in rows)
    assert not any(len(module._forward_hooks) for module in watched.modules())


def test_both_chunks_of_an_accumulated_gradient_are_one_step(tmp_path):
    class Counting(FeatureProbe):
        def attach(self, model):
            @contextlib.contextmanager
            def context():
                with FeatureProbe("net.0").attach(model) as features:
                    yield lambda: {"count": float(features()["net.0"].count)}

            return context()

    callback = MonitorCallback({"rows": Counting("net.0")}, every=1, budget=None)
    fit(tmp_path, 2, callback)
    assert callback.monitor.values["rows/count"] == 4.0


def test_state_is_kept_in_checkpoints(tmp_path):
    callback = MonitorCallback(every=2, budget=None)
    _, trainer = fit(tmp_path, 4, callback)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = MonitorCallback(every=2, budget=None)
    fit(tmp_path, 6, resumed, checkpoint=tmp_path / "last.ckpt")
    assert callback.monitor.spent.turns == 2
    assert resumed.monitor.spent.turns == 3
    # At step 4 there was something to compare with: what was measured before the interruption.
    assert "weights/largest_change" in resumed.monitor.values


def test_a_failure_leaves_no_hook(tmp_path):
    callback = MonitorCallback(probes(), every=1, budget=None)
    module, _ = fit(tmp_path, 4, callback, fail=True)
    assert not any(len(each._forward_hooks) for each in module.modules())
    assert callback.monitor.spent.turns == 2
