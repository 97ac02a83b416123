import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lsdr import runs
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.training.loop import train
from lsdr.training.recorder import Recorder

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)


class Killed(Exception):
    pass


def run(directory, settings, regularizers=(), kill_at=None, task=None, **options):
    def on_step(step, gradient):
        if step == kill_at:
            raise Killed

    task = task or toy.ToyTask(settings.seed)
    return train(
        task, settings, directory, toy.accelerator(settings), regularizers=regularizers, on_step=on_step, **options
    )


def final(directory):
    return (directory / "snapshots" / "final" / "model.safetensors").read_bytes()


def decorrelation():
    return (SpectralDecorrelation(layers="3", weight=0.1),)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"workers": 1}, {"guard": "rollback"}])
def test_a_killed_and_resumed_run_ends_bitwise_equal(tmp_path, options):
    settings = toy.config(**options)
    assert run(tmp_path / "whole", settings, decorrelation()).status == "finished"
    for kill_at in (3, 4, 7, 11):
        with pytest.raises(Killed):
            run(tmp_path / "cut", settings, decorrelation(), kill_at=kill_at)
        torch.randn(100)  # whatever else happened to the global generator must not matter
    assert run(tmp_path / "cut", settings, decorrelation()).status == "finished"
    assert final(tmp_path / "cut") == final(tmp_path / "whole")
    for name in ("ema", "optimizer"):
        files = [tmp_path / run / "checkpoints" / "step-00000012" / f"{name}.safetensors" for run in ("cut", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()
    whole, cut = (runs.read_records(tmp_path / run / "metrics.jsonl") for run in ("whole", "cut"))
    assert [(r["step"], r["loss"], r["penalty"]) for r in cut] == [(r["step"], r["loss"], r["penalty"]) for r in whole]


def test_another_seed_gives_other_weights(tmp_path):
    run(tmp_path / "a", toy.config(seed=0))
    run(tmp_path / "b", toy.config(seed=1))
    assert final(tmp_path / "a") != final(tmp_path / "b")


def test_weight_zero_is_bitwise_the_baseline(tmp_path):
    run(tmp_path / "baseline", toy.config())
    run(tmp_path / "zero", toy.config(), (SpectralDecorrelation(layers="3", weight=0.0),))
    run(tmp_path / "one", toy.config(), (SpectralDecorrelation(layers="3", weight=1.0),))
    assert final(tmp_path / "zero") == final(tmp_path / "baseline")
    assert final(tmp_path / "one") != final(tmp_path / "baseline")


@pytest.mark.parametrize("accumulate", [2, 3])
def test_micro_batches_change_nothing_but_rounding(tmp_path, accumulate):
    results = []
    for parts in (1, accumulate):
        settings = toy.config(accumulate=parts, steps=5)
        task = toy.ToyTask(dropout=0.0, dtype=torch.float64)
        run(tmp_path / str(parts), settings, decorrelation(), task=task)
        results.append(load_file(tmp_path / str(parts) / "snapshots" / "final" / "model.safetensors"))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-11)
    records = [runs.read_records(tmp_path / str(parts) / "metrics.jsonl") for parts in (1, accumulate)]
    for one, many in zip(*records, strict=True):
        assert many["penalty"] == pytest.approx(one["penalty"], rel=1e-5)
        assert many["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_a_run_may_be_resumed_with_more_steps(tmp_path):
    run(tmp_path / "short", toy.config(steps=7))
    run(tmp_path / "short", toy.config(steps=12))
    run(tmp_path / "long", toy.config(steps=12))
    assert final(tmp_path / "short") == final(tmp_path / "long")


@pytest.mark.parametrize("guard", ["stop", "skip", "rollback"])
def test_a_bad_example_is_named_and_dealt_with(tmp_path, guard):
    settings = toy.config(guard=guard, steps=10)
    outcome = run(tmp_path, settings, task=toy.ToyTask(dataset=toy.Points(bad=[17])))
    events = runs.read_records(tmp_path / "events.jsonl")
    assert events
    assert all(event["direction"] == "input" for event in events)
    assert all(event["names"] == ["point 17"] for event in events)
    assert all(17 in event["batch"] for event in events)
    if guard == "stop":
        assert outcome.status == "diverged"
        assert outcome.step == events[0]["step"] < 10
        assert "(point 17)" in outcome.message
    else:
        assert outcome.status == "finished"
        assert len(events) == 2  # 10 steps of 8 are two epochs of 40
        assert all(
            value.isfinite().all() for value in load_file(tmp_path / "snapshots/final/model.safetensors").values()
        )


def test_skip_and_rollback_agree_with_leaving_the_step_out(tmp_path):
    bad = toy.Points(bad=[17])
    run(tmp_path / "skip", toy.config(guard="skip"), task=toy.ToyTask(dataset=bad))
    run(tmp_path / "rollback", toy.config(guard="rollback"), task=toy.ToyTask(dataset=bad))
    assert final(tmp_path / "skip") == final(tmp_path / "rollback")


def test_guard_off_reports_divergence_at_the_end(tmp_path):
    outcome = run(tmp_path, toy.config(guard="off"), task=toy.ToyTask(dataset=toy.Points(bad=[17])))
    assert outcome.status == "diverged"


def test_a_nan_in_one_layers_weights_is_named(tmp_path):
    task = toy.ToyTask()
    with torch.no_grad():
        task.model[3].weight[2, 5] = float("nan")
    outcome = run(tmp_path, toy.config(), task=task)
    (event,) = runs.read_records(tmp_path / "events.jsonl")
    assert (event["module"], event["direction"], event["step"]) == ("3", "parameter", 0)
    assert outcome.status == "diverged"
    assert "3" in event["spectra"]


def test_equal_time_is_the_step_at_which_the_baselines_seconds_are_spent(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "median_step_seconds", property(lambda self: 2.0))
    settings = toy.config(steps=50)
    found = {}
    for name, seconds in {"slower": 70.0, "near": 98.2, "faster": 120.0, "much slower": 0.1}.items():
        run(tmp_path / name, settings, reference_seconds=seconds)
        found[name] = runs.read_json(tmp_path / name / "snapshots" / "equal_time" / "snapshot.json")["step"]
        assert runs.read_json(tmp_path / name / "snapshots" / "final" / "snapshot.json")["step"] == 50
    assert found == {"slower": 35, "near": 50, "faster": 60, "much slower": 5}
    assert final(tmp_path / "faster") == final(tmp_path / "slower")  # what comes after changes nothing
    run(tmp_path / "short", toy.config(steps=35))
    assert (
        final(tmp_path / "short")
        == (tmp_path / "slower" / "snapshots" / "equal_time" / "model.safetensors").read_bytes()
    )


def test_clipping_bounds_the_update(tmp_path):
    run(tmp_path / "free", toy.config())
    run(tmp_path / "clipped", toy.config(clip=1e-3))
    assert final(tmp_path / "free") != final(tmp_path / "clipped")


def test_bf16_trains(tmp_path):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        outcome = run(tmp_path, toy.config(precision="bf16"), decorrelation())
        assert outcome.status == "finished"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_records_are_complete(tmp_path):
    run(tmp_path, toy.config(), decorrelation())
    records = runs.read_records(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10, 12]
    for name in ("loss", "penalty", "grad_norm", "grad_norm_max", "lr", "seconds", "step_seconds", "memory_mb"):
        assert all(record[name] is not None and record[name] >= 0 for record in records), name
    assert records[-1]["SpectralDecorrelation/3"] >= 0
    assert [record["step"] for record in runs.read_records(tmp_path / "evaluations.jsonl")] == [6, 12]
    spectra = runs.read_records(tmp_path / "spectra.jsonl")
    assert [(record["step"], record["kind"]) for record in spectra[:2]] == [(0, "weights"), (0, "features")]
    weight = load_file(tmp_path / "snapshots" / "final" / "ema.safetensors")["3.weight"]
    recorded = [record for record in spectra if record["kind"] == "weights"][-1]["layers"]["3"]
    assert recorded["sigma_max"] == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=1e-4)
    assert json.loads((tmp_path / "status.json").read_text())["step"] == 12


def test_a_batch_too_small_for_its_micro_batches_is_refused():
    with pytest.raises(ValueError, match="micro-batches"):
        toy.config(batch_size=2, accumulate=3)


def test_a_run_that_cannot_recover_is_diverged_and_stays_so(tmp_path):
    task = toy.ToyTask(dataset=toy.Points(bad=range(40)))
    outcome = run(tmp_path, toy.config(guard="skip", steps=40), task=task)
    assert outcome.status == "diverged"
    assert outcome.step == 9  # the tenth in a row
    off = toy.config(guard="off")
    for _ in range(2):
        outcome = run(tmp_path / "off", off, task=toy.ToyTask(dataset=toy.Points(bad=[17])))
        assert outcome.status == "diverged"


def test_a_run_is_not_shortened(tmp_path):
    run(tmp_path, toy.config(steps=12))
    with pytest.raises(ValueError, match="12 steps already"):
        run(tmp_path, toy.config(steps=6))


def test_a_lengthened_run_does_not_keep_the_snapshot_of_the_shorter_one(tmp_path):
    run(tmp_path, toy.config(steps=8))
    with pytest.raises(Killed):
        run(tmp_path, toy.config(steps=12), kill_at=10)
    assert not (tmp_path / "snapshots" / "final").exists()


def test_a_skipped_step_leaves_nothing_in_the_penalty(tmp_path):
    """The replay of a bad step runs the watched layers; the next step must not see it."""
    bad = toy.Points(bad=[17])
    run(tmp_path / "one", toy.config(guard="skip"), decorrelation(), task=toy.ToyTask(dataset=bad))
    run(tmp_path / "two", toy.config(guard="skip", accumulate=2), decorrelation(), task=toy.ToyTask(dataset=bad))
    for name in ("one", "two"):
        penalties = [record["penalty"] for record in runs.read_records(tmp_path / name / "metrics.jsonl")]
        assert all(penalty is not None and penalty >= 0 for penalty in penalties)


def test_float16_gradients_that_are_given_up_do_not_block_the_next_step(tmp_path):
    """A gradient scaler must be updated once for every time it unscaled."""
    from lsdr.training.stepper import open_stepper

    settings = toy.config(steps=3)
    accelerator = toy.accelerator(settings)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    accelerator.scaler = scaler
    accelerator.unscale_gradients = lambda optimizer: scaler.unscale_(optimizer.optimizer)  # float16 needs a GPU
    task = toy.ToyTask()
    with open_stepper(task, settings, accelerator) as stepper:
        for step in range(3):
            gradient = stepper.gradient(step, task.dataset.__getitems__(range(8)))
            assert not stepper.overflowed(gradient)
            stepper.abandon()
