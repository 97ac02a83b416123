import copy

import pytest
import torch
from torch import nn

from lsdr.inspection.compare import delta as compare
from lsdr.linalg.directions import INTRUDER_COSINE
from lsdr.monitor.monitor import Monitor
from lsdr.probes import _adapter_directions
from lsdr.probes.adapters import AdapterProbe
from lsdr.spectrum import Spectrum
from lsdr.statistics.effective_rank import effective_rank

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

CONFIGS = {
    "lora": peft.LoraConfig(r=3, lora_alpha=6),
    "loha": peft.LoHaConfig(r=2, alpha=3),
    "lokr": peft.LoKrConfig(r=1, alpha=3, decompose_factor=2),
    "ada": peft.AdaLoraConfig(target_r=2, init_r=3, lora_alpha=6, total_step=10),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(40, 24)
        self.tall = nn.Linear(16, 36)
        self.conv = nn.Conv2d(4, 6, 3)
        self.last = nn.Linear(10, 6)


def adapted(kind="lora", scale=0.1, net=Net, targets=("wide", "tall", "conv")):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[kind])
    config.target_modules = set(targets)
    model = peft.inject_adapter_in_model(config, net())
    fill(model, scale)
    return model


def fill(model, scale):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def parts(layer):
    return layer.base_layer.weight.detach().flatten(1), layer.get_delta_weight("default").detach().flatten(1)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("scale", [0.05, 0.4])
def test_values_are_those_of_the_change_multiplied_out(kind, scale):
    targets = ("wide", "tall") if kind == "ada" else ("wide", "tall", "conv")
    model = adapted(kind, scale, targets=targets)
    found = AdapterProbe()(model)
    assert list(found) == list(targets)
    intruders = 0.0
    for name, values in found.items():
        base, change = parts(getattr(model, name))
        sigma = torch.linalg.svdvals(change.double())
        assert values["key_norm"] == pytest.approx(float(change.double().norm()), rel=1e-5)
        assert values["sigma_max"] == pytest.approx(float(sigma[0]), rel=1e-5)
        assert values["effective_rank"] == pytest.approx(float(effective_rank(Spectrum.of(sigma))), rel=1e-3)
        assert values["sigma_over_base"] == pytest.approx(float(sigma[0] / torch.linalg.matrix_norm(base, 2)), rel=1e-5)
        expected, _ = compare(base + change, base)
        assert values["intruder_dimensions"] == expected["intruder_dimensions"]
        assert values["new_directions"] == expected["new_directions"]
        intruders += values["intruder_dimensions"]
    assert intruders > 0 or scale < 0.4 or kind in ("loha", "lokr")


class Large(nn.Module):
    """Layers as trained ones are: a few directions stand out of a bulk."""

    def __init__(self):
        super().__init__()
        self.square, self.tall = nn.Linear(70, 70), nn.Linear(60, 90)
        for layer in (self.square, self.tall):
            u, _, vh = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
            layer.weight.data = (u * torch.linspace(1, 0, len(vh)).pow(2) * 4) @ vh


@pytest.mark.parametrize("scale", [0.02, 0.1, 0.25, 0.4])
def test_large_layers_are_searched_and_come_to_the_same(monkeypatch, scale):
    monkeypatch.setattr(_adapter_directions, "_SMALL", 20)
    model = adapted("lora", scale, Large, ("square", "tall"))
    probe = AdapterProbe()
    for turn in range(3):
        fill(model, scale * (1 + 0.2 * turn))
        found = probe(model)
        for name, values in found.items():
            base, change = parts(getattr(model, name))
            expected, _ = compare(base + change, base)
            assert values["sigma_over_base"] == pytest.approx(
                float(torch.linalg.matrix_norm(change, 2) / torch.linalg.matrix_norm(base, 2)), rel=1e-2
            )
            near = [abs(cosine - INTRUDER_COSINE) < 0.05 for cosine in expected["top_cosines"]]
            assert abs(values["intruder_dimensions"] - expected["intruder_dimensions"]) <= sum(near)
            assert abs(values["new_directions"] - expected["new_directions"]) <= sum(near)
            if scale == 0.4:
                assert values["new_directions"] >= 2
            if scale == 0.02:  # none of a base's other directions had to be found
                assert values["intruder_dimensions"] == 0
                assert probe.known.bases[name][2].every is None
    state = probe.state_dict()
    assert set(state) == {"square", "tall"}
    other = AdapterProbe()
    other.load_state_dict(state)
    assert other(model) == probe(model)


def test_nothing_in_the_model_changes_and_no_random_number_is_drawn():
    model = adapted().train()
    state = {name: each.clone() for name, each in model.state_dict().items()}
    before = torch.get_rng_state()
    AdapterProbe()(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(each, state[name]) for name, each in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    assert model.training


def test_a_start_of_zeros_a_base_of_zeros_and_what_is_not_finite():
    model = adapted()
    model.wide.lora_B["default"].weight.data.zero_()
    model.tall.base_layer.weight.data.zero_()
    model.conv.lora_A["default"].weight.data[0, 0, 0, 0] = float("inf")
    found = AdapterProbe()(model)
    assert set(found["wide"].values()) == {0.0}
    assert set(found["wide"]) == {
        "key_norm", "sigma_max", "effective_rank", "sigma_over_base", "intruder_dimensions", "new_directions"
    }  # fmt: skip
    assert set(found["tall"]) == {"key_norm", "sigma_max", "effective_rank"}
    assert found["conv"] == {"nonfinite": 1.0}
    assert set(AdapterProbe(base=False)(model)["wide"]) == {"key_norm", "sigma_max", "effective_rank"}


def test_a_base_that_changes_is_measured_anew():
    model, probe = adapted(), AdapterProbe("wide")
    first = probe(model)["wide"]["sigma_over_base"]
    known = probe.known.bases["wide"][2]
    assert probe(model)["wide"]["sigma_over_base"] == first
    assert probe.known.bases["wide"][2] is known
    with torch.no_grad():
        model.wide.base_layer.weight.mul_(2)
    assert probe(model)["wide"]["sigma_over_base"] == pytest.approx(first / 2, rel=1e-5)


def test_the_monitor_takes_it_layer_by_layer():
    model = adapted()
    logged = []
    monitor = Monitor(
        model, [AdapterProbe()], every=2, log=lambda values, step: logged.append((step, values)), budget=None
    )
    for step in range(3):
        with monitor.at(step):
            pass
    assert [step for step, _ in logged] == [0, 2]
    assert monitor.values["lora/conv/key_norm"] == AdapterProbe()(model)["conv"]["key_norm"]
    assert set(AdapterProbe().narrow(["tall"])(model)) == {"tall"}


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match=r"none of the 4 layers .* is adapted"):
        AdapterProbe()(Net())
    with pytest.raises(ValueError, match="no layer matches"):
        AdapterProbe("nothing")(adapted())
    model = adapted()
    model.wide.merge()
    with pytest.raises(ValueError, match=r"'wide'.*merged"):
        AdapterProbe()(model)
    model.wide.unmerge()
    model.tall.base_layer.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"'tall'.*base's weights are not finite"):
        AdapterProbe()(model)
