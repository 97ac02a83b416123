"""Cut off at any step and gone on with, a GAN's training ends bitwise as if nothing had happened."""

import importlib.util
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from lsdr import runs
from lsdr.regularizers.spectral_normalization import SpectralNormalization
from lsdr.training.loop import train
from lsdr.training.stepper import build_accelerator

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


class Killed(Exception):
    pass


def run(directory, settings, regularizers=(), kill_at=None):
    def on_step(step, gradient):
        if step == kill_at:
            raise Killed

    AcceleratorState._reset_state(reset_partial_state=True)
    return train(
        small.task(settings),
        settings.training,
        directory,
        build_accelerator(settings.training),
        regularizers=regularizers,
        on_step=on_step,
    )


@pytest.mark.parametrize(
    ("options", "regularized"),
    [
        (
            {
                "discriminator_noise": True,
                "normalization": "standardize",
                "noise_images": 60,
                "noise_target": -0.9,
                "lazy": 2,
                "training": {"accumulate": 2},
            },
            True,
        ),
        ({"generator_noise": "data", "mode_seeking": 0.1, "normalization": "magnitude_preserving"}, False),
        ({"model": "pacgan-toy", "packing": 2, "r1": 0.0, "r2": 0.0}, False),
    ],
    ids=["noise standardize", "denoising", "packing batchnorm"],
)
def test_a_killed_and_resumed_run_ends_bitwise_equal(tmp_path, options, regularized):
    settings = small.config(**options)
    regularizers = (SpectralNormalization(),) if regularized else ()
    assert run(tmp_path / "whole", settings, regularizers).status == "finished"
    for kill_at in (3, 7, 11):
        with pytest.raises(Killed):
            run(tmp_path / "cut", settings, regularizers, kill_at)
        torch.randn(100)  # whatever else happened to the global generator must not matter
    assert run(tmp_path / "cut", settings, regularizers).status == "finished"
    for name in ("model", "ema", "optimizer"):
        files = [tmp_path / each / "checkpoints" / "step-00000012" / f"{name}.safetensors" for each in ("cut", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    whole, cut = (
        [{k: v for k, v in record.items() if "seconds" not in k and k != "memory_mb"} for record in records]
        for records in (runs.read_records(tmp_path / each / "metrics.jsonl") for each in ("whole", "cut"))
    )
    assert cut == whole
    if settings.adaptive:
        assert whole[-1]["noise/level"] > 0


def test_what_was_lost_is_said_once_though_the_run_was_cut(tmp_path):
    settings = small.config(training={"evaluate_every": 1})
    shares = {step: (0.9 if step < 5 else 0.2) for step in range(1, 13)}

    def training(directory, kill_at=None):
        task = small.task(settings)
        counted = iter(sorted(shares))
        task.evaluate = lambda model: {"high_quality": shares[next(counted)], "modes": 8.0, "noise_strength": 1.0}
        AcceleratorState._reset_state(reset_partial_state=True)

        def on_step(step, gradient):
            if step == kill_at:
                raise Killed

        for _ in range(0 if kill_at else 8):
            next(counted)  # what has been evaluated before the checkpoint
        train(task, settings.training, directory, build_accelerator(settings.training), on_step=on_step)

    with pytest.raises(Killed):
        training(tmp_path, kill_at=9)
    training(tmp_path)
    events = [event for event in runs.read_records(tmp_path / "events.jsonl") if event["kind"] == "realism"]
    assert [event["step"] for event in events] == [4]
