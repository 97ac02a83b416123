import importlib.util
import math
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lsdr import runs
from lsdr.training.config import TrainingConfig
from lsdr.training.loop import train
from lsdr.training.optimizer import learning_rate

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)


class Killed(Exception):
    pass


class Quantised(torch.optim.Optimizer):
    """Adam with the state that bitsandbytes' AdamW8bit keeps: a plain step number, bytes, shared code books."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.book = torch.linspace(0, 1, 256)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {"step": 0, "state1": torch.zeros_like(parameter, dtype=torch.uint8), "qmap1": self.book}
                    state |= {"absmax1": torch.ones(1)}
                assert type(state["step"]) is int
                state["step"] += 1
                second = state["qmap1"][state["state1"].long()] * state["absmax1"]
                second = torch.lerp(second, parameter.grad.square(), 1 - group["betas"][1])
                state["absmax1"] = second.amax().reshape(1)
                state["state1"] = (second / state["absmax1"] * 255).round().to(torch.uint8)
                correction = 1 - group["betas"][1] ** state["step"]
                parameter -= group["lr"] * parameter.grad / ((second / correction).sqrt() + 1e-6)


def run(directory, kill_at=None, **options):
    def on_step(step, gradient):
        if step == kill_at:
            raise Killed

    settings = toy.config(**options)
    return train(toy.ToyTask(), settings, directory, toy.accelerator(settings), on_step=on_step)


def test_8_bit_moments_survive_a_checkpoint(tmp_path, monkeypatch):
    module = types.ModuleType("bitsandbytes")
    module.optim = types.SimpleNamespace(AdamW8bit=Quantised)
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)
    run(tmp_path / "whole", optimizer="adamw8bit")
    with pytest.raises(Killed):
        run(tmp_path / "cut", optimizer="adamw8bit", kill_at=6)
    run(tmp_path / "cut", optimizer="adamw8bit")
    files = [tmp_path / name / "checkpoints/step-00000012/optimizer.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    state = load_file(files[0])
    assert state["0.weight/state1"].dtype == torch.uint8
    assert int(state["0.weight/step"]) == 12
    weights = [tmp_path / name / "snapshots/final/model.safetensors" for name in ("whole", "cut")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_without_bitsandbytes_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # an import of it fails
    with pytest.raises(ValueError, match=r"pip install bitsandbytes.*or use optimizer adamw"):
        toy.accelerator(toy.config(optimizer="adamw8bit"))


def test_the_constant_rate_warms_up_and_stays():
    config = TrainingConfig(lr=0.1, warmup=4, steps=10)
    rates = [learning_rate(config, step) for step in range(12)]
    assert rates == pytest.approx([0.025, 0.05, 0.075] + 9 * [0.1])


@pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (0, 40), (10, 40), (39, 40)])
def test_the_cosine_falls_from_the_rate_to_almost_zero(warmup, steps):
    config = TrainingConfig(lr=0.1, warmup=warmup, steps=steps, lr_schedule="cosine")
    constant = TrainingConfig(lr=0.1, warmup=warmup, steps=steps)
    rates = [learning_rate(config, step) for step in range(steps + 5)]
    assert rates[:warmup] == [learning_rate(constant, step) for step in range(warmup)]
    length = steps - warmup
    expected = [0.1 * math.cos(math.pi / 2 * done / length) ** 2 for done in range(length)]
    assert rates[warmup:steps] == pytest.approx(expected)
    assert rates[steps:] == [rates[steps - 1]] * 5  # a run that goes on to equal wall-clock never stands still


@pytest.mark.parametrize("warmup", [40, 80])
def test_a_run_that_is_all_warm_up_has_no_cosine(warmup):
    config = TrainingConfig(lr=0.1, warmup=warmup, steps=40, lr_schedule="cosine")
    rates = [learning_rate(config, step) for step in range(40)]
    assert rates == pytest.approx([0.1 * (step + 1) / warmup for step in range(40)])


def test_the_schedule_reaches_the_optimiser(tmp_path):
    settings = toy.config(lr_schedule="cosine", lr=0.1, log_every=1)
    train(toy.ToyTask(), settings, tmp_path, toy.accelerator(settings))
    seen = [record["lr"] for record in runs.read_records(tmp_path / "metrics.jsonl")]
    assert seen == pytest.approx([learning_rate(settings, step) for step in range(12)])
    assert seen[-1] < 0.01


def test_the_flat_cosine_falls_from_the_middle_on():
    settings = TrainingConfig(lr=1.0, lr_schedule="flat_cosine", warmup=2, steps=8)
    rates = [learning_rate(settings, step) for step in range(8)]
    assert rates[:5] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert rates[5:] == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3)])
