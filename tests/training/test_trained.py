"""Only what is trained is optimised, averaged and saved; what is frozen is shared and left alone."""

import copy
import importlib.util
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lsdr import runs
from lsdr.training.average import ExponentialMovingAverage
from lsdr.training.loop import train
from lsdr.training.trained import load_trained_state, trained_state

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

TRAINED = {"5.weight", "5.bias", "6.running_mean", "6.running_var", "6.num_batches_tracked"}


class Killed(Exception):
    pass


def frozen_task():
    """A toy task that trains its last layer, with buffers behind it."""
    task = toy.ToyTask()
    task.model.append(nn.BatchNorm1d(3, affine=False))
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad_(name.startswith("5."))
    return task


def run(directory, task, kill_at=None, **options):
    def on_step(step, gradient):
        if step == kill_at:
            raise Killed

    settings = toy.config(**options)
    return train(task, settings, directory, toy.accelerator(settings), on_step=on_step)


def test_only_what_is_trained_changes_and_is_saved(tmp_path):
    task = frozen_task()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    assert run(tmp_path, task, weight_decay=0.1).status == "finished"
    after = task.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == TRAINED
    for folder in (tmp_path / "snapshots" / "final", tmp_path / "checkpoints" / "step-00000012"):
        for name in ("model", "ema"):
            assert set(load_file(folder / f"{name}.safetensors")) == TRAINED
    moments = load_file(tmp_path / "checkpoints" / "step-00000012" / "optimizer.safetensors")
    assert {name.rsplit("/", 1)[0] for name in moments} == {"5.weight", "5.bias"}
    saved = load_file(tmp_path / "snapshots" / "final" / "model.safetensors")
    assert all(torch.equal(saved[name], after[name]) for name in TRAINED)


def test_only_trained_layers_spectra_are_recorded(tmp_path):
    run(tmp_path, frozen_task())
    weights = [record for record in runs.read_records(tmp_path / "spectra.jsonl") if record["kind"] == "weights"]
    assert weights
    assert all(list(record["layers"]) == ["5"] for record in weights)


def test_of_an_adapted_layer_the_spectrum_is_that_of_the_change(tmp_path):
    task = toy.ToyTask()
    task.model.requires_grad_(False)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, lora_alpha=4, target_modules=["0", "5"]), task.model)
    run(tmp_path, task, lr=0.05)
    weights = [record for record in runs.read_records(tmp_path / "spectra.jsonl") if record["kind"] == "weights"]
    assert [list(record["layers"]) for record in weights] == [["0", "5"]] * len(weights)
    assert weights[0]["layers"]["0"]["sigma_max"] == 0  # B = 0 at first
    saved = load_file(tmp_path / "snapshots" / "final" / "ema.safetensors")
    down, up = (saved[f"5.lora_{factor}.default.weight"].double() for factor in "AB")
    values = torch.linalg.svdvals(2 * up @ down)
    last = weights[-1]["layers"]["5"]
    assert last["shape"] == list(task.model[5].weight.shape)
    assert last["sigma_max"] == pytest.approx(float(values[0]), rel=1e-4)
    assert last["stable_rank"] == pytest.approx(float(values.square().sum() / values[0] ** 2), rel=1e-4)


def test_a_killed_and_resumed_run_ends_bitwise_equal(tmp_path):
    run(tmp_path / "whole", frozen_task())
    for kill_at in (3, 7):
        with pytest.raises(Killed):
            run(tmp_path / "cut", frozen_task(), kill_at=kill_at)
    run(tmp_path / "cut", frozen_task())
    for file in ("snapshots/final/model", "snapshots/final/ema", "checkpoints/step-00000012/optimizer"):
        one, two = (tmp_path / name / f"{file}.safetensors" for name in ("whole", "cut"))
        assert one.read_bytes() == two.read_bytes()


def test_a_snapshot_is_loaded_into_a_fresh_model_on_the_same_base(tmp_path):
    task = frozen_task()
    run(tmp_path, task)
    fresh = frozen_task().model
    load_trained_state(fresh, load_file(tmp_path / "snapshots" / "final" / "model.safetensors"))
    for name, value in task.model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


def test_weights_of_another_trained_part_are_refused(tmp_path):
    run(tmp_path, frozen_task(), steps=4)
    with pytest.raises(ValueError, match=r"missing 0\.bias, 0\.weight, 3\.bias, \.\.\."):
        run(tmp_path, toy.ToyTask())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"0.weight": torch.zeros(1)}, r"missing 1\.bias, 1\.weight; unexpected 0\.weight"),
        ({"1.weight": torch.zeros(2, 3), "1.bias": torch.zeros(2)}, r"1\.weight of shape \(2, 2\), got \(2, 3\)"),
    ],
)
def test_a_state_must_fit_exactly(tensors, message):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        load_trained_state(model, tensors)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_models_few_constants_are_saved_with_it():
    """The random frequencies of a Fourier embedding do not train, and without them the weights are worth nothing."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(2, 2, bias=False))
    model[1].requires_grad_(False)
    assert trained_state(model).keys() == model.state_dict().keys()


def test_a_shared_frozen_parameter_is_left_out_under_both_names():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    assert trained_state(model).keys() == {"2.weight", "2.bias"}


def test_the_average_shares_what_is_frozen():
    model = frozen_task().model
    average = ExponentialMovingAverage(model, decay=0.5)
    own, averaged = dict(model.named_parameters()), dict(average.model.named_parameters())
    assert {name for name in own if own[name] is averaged[name]} == {"0.weight", "0.bias", "3.weight", "3.bias"}
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = {name: value.clone() for name, value in averaged.items()}
    with torch.no_grad():
        for weight in weights:
            weight.add_(1.0)
    average.update(weights, list(model.buffers()), updates=1000)
    assert all(own[name].requires_grad == name.startswith("5.") for name in own)
    for name in ("5.weight", "5.bias"):
        torch.testing.assert_close(averaged[name], before[name] + 0.5)
    assert trained_state(average.model, like=model).keys() == TRAINED


def test_nothing_to_train_is_refused(tmp_path):
    task = toy.ToyTask()
    task.model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        run(tmp_path, task)


def test_an_adapters_factors_are_all_that_is_saved(tmp_path):
    peft = pytest.importorskip("peft")
    task = toy.ToyTask()
    config = peft.LoraConfig(r=2, target_modules=["3"])
    task.model = peft.inject_adapter_in_model(config, task.model)
    run(tmp_path, task)
    names = set(load_file(tmp_path / "snapshots" / "final" / "ema.safetensors"))
    assert names == {"3.lora_A.default.weight", "3.lora_B.default.weight"}
    factor = task.model[3].lora_B["default"].weight
    assert factor.detach().any()  # starts at zero
