"""Out of memory or out of disk: the state is saved, the advice is clear, and the run goes on when there is room."""

import errno
import importlib.util
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lsdr import runs
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.training import checkpoint as checkpoints
from lsdr.training.exhausted import DiskFullError, is_disk_full, is_out_of_memory, memory_advice
from lsdr.training.loop import train
from lsdr.training.stepper import Stepper

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

REGULARIZERS = (SpectralDecorrelation(layers="3", weight=0.1),)


def run(directory, task=None, regularizers=REGULARIZERS, **options):
    settings = toy.config(**options)
    return train(task or toy.ToyTask(), settings, directory, toy.accelerator(settings), regularizers=regularizers)


def final(directory, name="model"):
    return (directory / "snapshots" / "final" / f"{name}.safetensors").read_bytes()


class Hungry(toy.ToyTask):
    """Asks for more memory than there is in the backward pass of one step, or while it is measured."""

    def __init__(self, at=None, evaluating=False, **options):
        super().__init__(**options)
        self.model.append(nn.BatchNorm1d(3).to(self.dtype))  # a failed step has moved its statistics already
        self.at, self.calls, self.evaluating = at, 0, evaluating

    def losses(self, model, batch):
        losses, context = super().losses(model, batch)
        if self.at == self.calls and torch.is_grad_enabled():
            losses.register_hook(lambda gradient: torch.empty(10**15))
        self.calls += torch.is_grad_enabled()
        return losses, context

    def evaluate(self, model):
        if self.evaluating and self.calls:  # not for the features of the initial weights
            torch.empty(10**15)
        return super().evaluate(model)


def test_a_step_out_of_memory_is_saved_before_and_resumed_bitwise(tmp_path):
    run(tmp_path / "whole", Hungry())
    outcome = run(tmp_path / "cut", Hungry(at=6))
    assert (outcome.status, outcome.step, outcome.over) == ("out_of_memory", 6, False)
    for words in ("accumulate 1 -> 2", "resolution", "gradient checkpointing", "bf16", "adamw8bit", "LoRA"):
        assert words in outcome.message
    assert "resumed from step 6, also with another accumulate" in outcome.message
    assert run(tmp_path / "cut", Hungry()).status == "finished"
    for name in ("model", "ema"):
        assert final(tmp_path / "cut", name) == final(tmp_path / "whole", name)


def test_it_may_be_resumed_in_more_micro_batches(tmp_path):
    def task():
        return toy.ToyTask(dropout=0.0, dtype=torch.float64)

    run(tmp_path / "whole", task())
    hungry = Hungry(at=6, dropout=0.0, dtype=torch.float64)
    hungry.model = hungry.model[:-1]
    assert run(tmp_path / "cut", hungry).status == "out_of_memory"
    assert run(tmp_path / "cut", task(), accumulate=3).status == "finished"
    one, two = (load_file(tmp_path / name / "snapshots/final/model.safetensors") for name in ("whole", "cut"))
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-11)


def test_out_of_memory_in_the_first_step_leaves_no_checkpoint(tmp_path):
    outcome = run(tmp_path, Hungry(at=0))
    assert (outcome.status, outcome.step) == ("out_of_memory", 0)
    assert "starts anew" in outcome.message
    assert not (tmp_path / "checkpoints").exists()


def test_out_of_memory_while_the_weights_move_goes_back_to_the_last_checkpoint(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    settings = toy.config()
    accelerator = toy.accelerator(settings)
    original = Stepper.update

    def update(self, step, gradient, turn=None):
        if step == 6:
            self.average.update = lambda *args, **kwargs: torch.empty(10**15)
        original(self, step, gradient, turn)

    monkeypatch.setattr(Stepper, "update", update)
    outcome = train(toy.ToyTask(), settings, tmp_path / "cut", accelerator, regularizers=REGULARIZERS)
    monkeypatch.undo()
    assert (outcome.status, outcome.step) == ("out_of_memory", 6)
    assert "resumed from step 4" in outcome.message
    run(tmp_path / "cut")
    assert final(tmp_path / "cut") == final(tmp_path / "whole")


def test_out_of_memory_while_measuring_costs_no_step(tmp_path):
    run(tmp_path / "whole", Hungry())
    outcome = run(tmp_path / "cut", Hungry(evaluating=True))
    assert (outcome.status, outcome.step) == ("out_of_memory", 6)
    assert "resumed from step 6" in outcome.message
    run(tmp_path / "cut", Hungry())
    assert final(tmp_path / "cut") == final(tmp_path / "whole")


def test_out_of_memory_in_the_diagnosis_does_not_hide_the_trouble(tmp_path, monkeypatch):
    monkeypatch.setattr("lsdr.training.loop.investigate", lambda *args: torch.empty(10**15))
    outcome = run(tmp_path, toy.ToyTask(dataset=toy.Points(bad=[17])))
    assert outcome.status == "diverged"
    (event,) = runs.read_records(tmp_path / "events.jsonl")
    assert event["kind"] == "nonfinite_loss"
    assert 17 in event["batch"]
    assert "not enough memory" in outcome.message


def test_other_errors_are_raised(tmp_path):
    task = Hungry(at=3)
    task.losses = lambda model, batch: (_ for _ in ()).throw(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(tmp_path, task)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_cpu_allocator_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


def test_advice_leaves_out_what_is_done_already():
    everything = toy.config(batch_size=2, accumulate=2, precision="bf16", optimizer="adamw8bit")
    for words in ("micro-batches", "bf16", "adamw8bit"):
        assert words not in memory_advice(everything)
        assert words in memory_advice(toy.config())


def fill(monkeypatch, step, file="optimizer.safetensors", number=errno.ENOSPC):
    """Let the disk be full in the middle of writing one file of the given checkpoint or snapshot."""
    original = Path.write_bytes

    def write_bytes(path, data):
        if f"{step}" in str(path) and file in path.name:
            original(path, data[: len(data) // 2])
            raise OSError(number, os.strerror(number), str(path))
        return original(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_older_checkpoints_and_the_run_goes_on(tmp_path, monkeypatch, number):
    run(tmp_path / "whole")
    fill(monkeypatch, "step-00000008", number=number)
    outcome = run(tmp_path / "cut")
    monkeypatch.undo()
    assert (outcome.status, outcome.step, outcome.over) == ("disk_full", 8, False)
    folder = tmp_path / "cut" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-00000004"]  # nothing half-written
    needed = sum(
        tensor.nbytes
        for path in (tmp_path / "whole" / "checkpoints" / "step-00000008").glob("*.safetensors")
        for tensor in load_file(path).values()
    )
    for words in (str(folder), f"needs {needed:,} bytes", "are free", "lower keep", "resumed from step 4"):
        assert words in outcome.message
    assert run(tmp_path / "cut").status == "finished"
    assert final(tmp_path / "cut") == final(tmp_path / "whole")


def test_a_snapshot_without_room_is_no_half_snapshot(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    fill(monkeypatch, "snapshots", file="ema.safetensors")
    outcome = run(tmp_path / "cut")
    monkeypatch.undo()
    assert (outcome.status, outcome.step) == ("disk_full", 12)
    assert not (tmp_path / "cut" / "snapshots" / "final").exists()
    assert run(tmp_path / "cut").status == "finished"
    assert final(tmp_path / "cut") == final(tmp_path / "whole")


def test_records_without_room_end_the_run_too(tmp_path, monkeypatch):
    original = runs.append_record

    def append_record(path, record):
        if path.name == "metrics.jsonl" and record["step"] >= 6:
            with path.open("a") as file:
                file.write('{"step": 6, "lo')
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(path, record)

    monkeypatch.setattr(runs, "append_record", append_record)
    outcome = run(tmp_path)
    monkeypatch.undo()
    assert (outcome.status, outcome.step) == ("disk_full", 6)
    assert str(tmp_path / "metrics.jsonl") in outcome.message
    assert run(tmp_path).status == "finished"
    assert [record["step"] for record in runs.read_records(tmp_path / "metrics.jsonl")] == [2, 4, 6, 8, 10, 12]


def test_a_checkpoint_that_fails_for_another_reason_is_removed_and_said(tmp_path, monkeypatch):
    content = checkpoints.Checkpoint({"model": {"w": torch.ones(3)}}, {"step": 1})
    checkpoints.save_checkpoint(tmp_path, content, keep=2)
    fill(monkeypatch, "step-00000002", file="model.safetensors", number=errno.EACCES)
    with pytest.raises(PermissionError):
        checkpoints.save_checkpoint(tmp_path, checkpoints.Checkpoint(content.tensors, {"step": 2}), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_full_disk_is_told_by_its_number():
    assert is_disk_full(DiskFullError(errno.ENOSPC, "full"))
    assert not is_disk_full(OSError(errno.EACCES, "denied"))
    assert not is_disk_full(RuntimeError("No space left on device"))
