"""Watching changes nothing: parameters, buffers, gradients, random numbers, flags; and leaves no hook."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from lsdr.monitor.monitor import Monitor
from lsdr.probes.attention import AttentionProbe
from lsdr.probes.features import FeatureProbe
from lsdr.probes.gradients import GradientProbe
from lsdr.probes.tracked import TrackedWeightProbe
from lsdr.probes.weights import WeightProbe


class Net(nn.Module):
    """Dropout, two kinds of norms, a spectral norm whose power iteration advances, attention, checkpointing."""

    def __init__(self, recompute):
        super().__init__()
        self.recompute = recompute
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.batch = nn.BatchNorm2d(8)
        self.group = nn.GroupNorm(2, 8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.normed = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, 2)

    def block(self, x):
        x = self.dropout(self.grouped(self.group(x).relu()))
        x = self.normed(x.flatten(2).transpose(1, 2))
        return x + self.attention(x, x, x)[0]

    def forward(self, x):
        x = self.batch(self.conv(x))
        x = checkpoint(self.block, x, use_reentrant=False) if self.recompute else self.block(x)
        return self.head(x.mean(1))


PROBES = {
    "weights": WeightProbe("*"),
    "features": FeatureProbe("*"),
    "gradients": GradientProbe("*"),
    "attention": AttentionProbe("*"),
    "mine": lambda model: {"parameters": sum(1 for _ in model.parameters())},
}


def train(probes, *, whole_step=False, chunks=1, recompute=False, amp=False, ema=False, budget=None):
    """A training run; gives everything that watching it must not have changed, and the monitor."""
    torch.manual_seed(0)
    model = Net(recompute).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)) if ema else model
    logged = []
    monitor = None
    if probes is not None:
        probes = {**probes, "tracked": TrackedWeightProbe(count=2)}
        monitor = Monitor(average, probes, every=2, budget=budget, log=lambda values, step: logged.append(values))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trace = []

    def forward_and_backward():
        for chunk in torch.randn(4, 3, 4, 4).chunk(chunks):
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                loss = model(chunk).square().mean() / chunks
                if ema:
                    average(chunk)
            loss.backward()
            trace.append(loss.detach())
        trace.extend(parameter.grad.clone() for parameter in model.parameters())

    def update():
        optimizer.step()
        if ema:
            average.update_parameters(model)

    for step in range(5):
        if monitor is None:
            forward_and_backward()
            update()
        else:
            with monitor.at(step):
                forward_and_backward()
                if whole_step:
                    update()
            if not whole_step:
                update()
        optimizer.zero_grad()
    state = {**model.state_dict(), **{f"average.{n}": t for n, t in average.state_dict().items()}}
    flags = [module.training for module in average.modules()]
    return (trace, state, torch.get_rng_state(), flags, torch.get_num_threads()), logged, average


@pytest.mark.filterwarnings("ignore:monitor, .*:RuntimeWarning")  # of layers that are never called
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"whole_step": True},
        {"chunks": 2},
        {"recompute": True},
        {"amp": True},
        {"ema": True},
        {"budget": 0.5},
    ],
    ids=str,
)
def test_a_run_is_bitwise_the_same_with_and_without_a_monitor(settings):
    without, _, _ = train(None, **{name: value for name, value in settings.items() if name != "budget"})
    probes = {name: probe for name, probe in PROBES.items() if not (name == "gradients" and settings.get("ema"))}
    watched, logged, model = train(probes, **settings)
    torch.testing.assert_close(watched, without, rtol=0, atol=0, equal_nan=True)
    assert hooks(model) == 0
    kinds = {name.split("/")[0] for values in logged for name in values}
    assert kinds == {*probes, "tracked", "monitor"}


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_hooks_exist_only_in_turns_and_never_survive_a_failure():
    torch.manual_seed(0)
    model = Net(recompute=False)
    monitor = Monitor(model, [FeatureProbe("conv"), AttentionProbe()], every=2, budget=None)
    before = hooks(model)
    for step in range(4):
        with monitor.at(step) as measured:
            assert (hooks(model) > before) == measured == (step % 2 == 0)
            model(torch.randn(2, 3, 4, 4))
        assert hooks(model) == before

    def fail():
        with monitor.at(4):
            model(torch.randn(2, 5, 4, 4))

    with pytest.raises(RuntimeError, match="channels"):
        fail()
    assert hooks(model) == before
    with monitor.at(4) as measured:  # the step is taken again, and measured
        model(torch.randn(2, 3, 4, 4))
    assert measured


def test_weights_alone_need_no_hook_and_no_compiler_stance(monkeypatch):
    monkeypatch.setattr(torch.compiler, "set_stance", None)
    model = nn.Sequential(nn.Linear(3, 4))
    monitor = Monitor(model, [TrackedWeightProbe(), GradientProbe()], every=1, budget=None)
    with monitor.at(0):
        assert hooks(model) == 0
        model(torch.randn(2, 3)).sum().backward()
    assert set(monitor.values) >= {"weights/0/sigma_max", "gradients/0/norm"}


@pytest.mark.filterwarnings("ignore:monitor, .*:RuntimeWarning")
def test_gradients_of_the_task_flow_through_a_watched_step():
    torch.manual_seed(0)
    model = Net(recompute=False)
    twin = copy.deepcopy(model)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    torch.manual_seed(1)
    (expected,) = torch.autograd.grad(twin(x).sum(), x)
    torch.manual_seed(1)
    with Monitor(model, PROBES, every=1, budget=None).at(1):
        (got,) = torch.autograd.grad(model(x).sum(), x)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_models(backend):
    script = Path(__file__).with_name("compiled_monitor.py")
    result = subprocess.run(
        [sys.executable, str(script), backend], capture_output=True, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count(" ok\n") == 4, result.stdout


def test_nothing_measured_is_said_and_not_raised():
    model = nn.ModuleDict({"used": nn.Linear(3, 4), "unused": nn.Linear(3, 4)})
    monitor = Monitor(model, [FeatureProbe("*"), GradientProbe()], every=1, budget=None)
    with pytest.warns(RuntimeWarning) as caught, monitor.at(0):
        model["used"](torch.randn(2, 3))
    messages = sorted(str(each.message) for each in caught)
    assert len(messages) == 2
    assert "did not run in a measured step: unused" in messages[0]
    assert "measure after backward() and before zero_grad()" in messages[1]
    assert "features/used/effective_rank" in monitor.values
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        with monitor.at(1):
            model["used"](torch.randn(2, 3))
    ran_nothing = Monitor(model, [FeatureProbe("used")], budget=None)
    with pytest.warns(RuntimeWarning, match="none of the 1 selected layers ran"), ran_nothing.at(0):
        pass
