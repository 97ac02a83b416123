"""What is logged, under which names, and what is refused."""

import json

import pytest
import torch
from torch import nn

from lsdr.monitor.measured import flat_values
from lsdr.monitor.monitor import Monitor
from lsdr.probes.features import FeatureProbe
from lsdr.probes.gradients import GradientProbe
from lsdr.probes.tracked import TrackedWeightProbe
from lsdr.probes.weights import WeightProbe
from lsdr.spectrum import Spectrum


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def run(model, monitor, steps, start=0):
    for step in range(start, start + steps):
        with monitor.at(step):
            model(torch.randn(6, 3)).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        model.zero_grad()


def test_names_and_steps_and_the_default():
    model, logged = build(), []
    run(model, Monitor(model, every=3, budget=None, log=lambda values, step: logged.append((step, values))), 7)
    assert [step for step, _ in logged] == [0, 3, 6]
    weights = {f"weights/{layer}/{value}" for layer in "02" for value in ("sigma_max", "stable_rank")}
    own = {"monitor/layers", "monitor/seconds", "monitor/share"}
    assert logged[0][1].keys() == weights | own
    assert logged[1][1].keys() == weights | own | {"weights/largest_change"}
    assert all(type(value) is float for _, values in logged for value in values.values())
    sigma = torch.linalg.svdvals(model[2].weight)[0].item()
    assert logged[2][1]["weights/2/sigma_max"] == pytest.approx(sigma, rel=0.05)
    changes = [abs(logged[2][1][name] / logged[1][1][name] - 1) for name in weights]
    assert logged[2][1]["weights/largest_change"] == pytest.approx(max(changes))


def test_all_kinds_of_probes_and_names_of_ones_own():
    model = build()
    probes = {
        "exact": WeightProbe("2"),
        "tracked": TrackedWeightProbe("2"),
        "act": FeatureProbe(["0", "1"]),
        "grad": GradientProbe(),
        "": lambda model: {"loss": torch.tensor(2.0), "deep": {"er": 1}},
    }
    monitor = Monitor(model, probes, every=1, budget=None)
    run(model, monitor, 1)
    values = monitor.values
    assert values["exact/2/sigma_max"] == pytest.approx(values["tracked/2/sigma_max"], rel=0.02)
    assert values["exact/2/stable_rank"] == pytest.approx(values["tracked/2/stable_rank"], rel=0.04)
    assert values["act/1/dead_units"] >= 0
    assert values["grad/0/norm"] > 0
    assert values["loss"] == 2.0
    assert values["deep/er"] == 1.0


def test_a_layer_that_cannot_be_measured_hides_no_other():
    model = build()
    model[0].weight.data[0, 0] = float("nan")
    monitor = Monitor(model, [WeightProbe("*")], every=1, budget=None)
    with pytest.warns(RuntimeWarning, match="layer '0'"), monitor.at(0):
        pass
    assert set(monitor.values) == {f"weights/2/{name}" for name in ("sigma_max", "stable_rank", "effective_rank")}
    odd = nn.Sequential(nn.Linear(3, 4), nn.Flatten(0), nn.Identity())  # its outputs have one dimension
    watched = Monitor(odd, [FeatureProbe("*")], every=1, budget=None)
    with pytest.warns(RuntimeWarning, match="layer '1' put out shape"), watched.at(0):
        odd(torch.randn(6, 3))
    assert {name.split("/")[1] for name in watched.values} == {"0"}


def test_features_that_die_or_break_are_said_in_numbers():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0] = 0.0, -1.0
        model[2].bias[1] = float("inf")
    monitor = Monitor(model, [FeatureProbe(["1", "2"])], every=1, budget=None)
    with monitor.at(0):
        model(torch.randn(50, 3))
    assert monitor.values["features/1/dead_units"] >= 1.0
    assert monitor.values["features/2/nonfinite"] == 1.0
    assert "features/2/effective_rank" not in monitor.values


def test_chunks_of_a_step_are_measured_together_and_a_step_once():
    model = build()
    seen = []
    monitor = Monitor(
        model, {"f": FeatureProbe("0")}, every=1, budget=None, log=lambda values, step: seen.append((step, values))
    )
    whole = torch.randn(8, 3)
    with monitor.at(0):
        for chunk in whole.chunk(4):
            model(chunk)
    again = Monitor(model, {"f": FeatureProbe("0")}, every=1, budget=None)
    with again.at(0):
        model(whole)
    assert seen[0][1]["f/0/effective_rank"] == pytest.approx(again.values["f/0/effective_rank"], rel=1e-3)
    with monitor.at(0) as measured:
        model(whole)
    assert not measured
    assert len(seen) == 1


def test_a_state_is_json_and_tensors_and_goes_on():
    model = build()
    monitor = Monitor(model, every=2, budget=None)
    run(model, monitor, 3)
    state = monitor.state_dict()
    assert all(isinstance(tensor, torch.Tensor) for tensor in state["tensors"].values())
    state["numbers"] = json.loads(json.dumps(state["numbers"]))
    assert not any(name.startswith("monitor") for name in model.state_dict())
    other = Monitor(model, every=2, budget=None)
    other.load_state_dict(state)
    for each in (monitor, other):
        with each.at(4):
            pass
    weights = [{n: v for n, v in each.values.items() if n.startswith("weights")} for each in (monitor, other)]
    assert weights[0] == weights[1]
    assert other.spent.turns == 3


def test_what_is_no_probe_and_what_is_no_layer():
    model = build()
    with pytest.raises(ValueError, match="matches 'nothing'"):
        Monitor(model, [FeatureProbe("nothing")])
    with pytest.raises(ValueError, match="two probes would log under 'weights'"):
        Monitor(model, [TrackedWeightProbe(), WeightProbe()])
    monitor = Monitor(model, [3], every=1, budget=None)
    with pytest.raises(TypeError, match="3 is not a probe"), monitor.at(0):
        pass
    with pytest.raises(TypeError, match="measured str under 'a/b'"):
        flat_values({"b": "text"}, "a")
    assert flat_values({"z": Spectrum.of([0.0, 0.0])}) == {
        "z/sigma_max": 0.0,
        "z/stable_rank": 0.0,
        "z/effective_rank": 0.0,
    }


def test_a_copy_that_is_averaged_is_watched_like_any(recwarn):
    model = build()
    average = torch.optim.swa_utils.AveragedModel(model)
    monitor = Monitor(average, every=1, budget=None)
    with monitor.at(0):
        pass
    assert set(monitor.values) == {
        f"weights/{layer}/{value}" for layer in "02" for value in ("sigma_max", "stable_rank")
    }
    assert not recwarn.list


def test_a_layer_that_puts_out_nothing_does_not_stop_training():
    class Silent(nn.Module):
        def forward(self, x):
            return None

    model = nn.ModuleDict({"a": nn.Linear(3, 4), "silent": Silent()})
    monitor = Monitor(model, [FeatureProbe("*")], every=1, budget=None)
    with pytest.warns(RuntimeWarning, match="'silent' returned NoneType"), monitor.at(0):
        model["silent"](model["a"](torch.randn(5, 3)))
    assert {name.split("/")[1] for name in monitor.values} == {"a"}
