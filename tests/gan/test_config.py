"""Options that cannot work are refused before anything is built."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest

from lsdr.gan.config import GanConfig
from lsdr.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 1.0}, "holdout must be between 0 and 1, got 1.0"),
        ({"packing": 0}, "packing must be at least 1, got 0"),
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"r1": -0.1}, "r1 must be finite and not negative, got -0.1"),
        ({"r2": float("nan")}, "r2 must be finite and not negative, got nan"),
        ({"discriminator_lr": 0.0}, "discriminator_lr must be positive"),
        ({"noise_smallest": 3.0}, "noise_smallest must be positive and not above noise_largest, got 3.0 and 2.0"),
        ({"noise_target": 1.0}, "noise_target must be between -1 and 1, got 1.0"),
        ({"noise_strength": 1.5}, r"noise_strength must be in \[0, 1\], got 1.5"),
        ({"noise_clean": 1.0}, r"noise_clean must be in \[0, 1\), got 1.0"),
        ({"training": TrainingConfig(compile=True)}, "without compile"),
        ({"generator_noise": "data", "discriminator_noise": True}, "generator_noise=data"),
        ({"generator_noise": "data", "discriminator_noise": False, "packing": 2}, "generator_noise=data"),
        ({"generator_noise": "data", "discriminator_noise": False, "consistency": 1.0}, "generator_noise=data"),
        (
            {"packing": 3, "training": TrainingConfig(batch_size=32, accumulate=2)},
            "packs of 3 x 2 micro-batches; use batch_size=36",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GanConfig(**options)


def test_a_batch_that_packs_fit_is_taken():
    assert GanConfig(packing=3, training=TrainingConfig(batch_size=36, accumulate=2)).packing == 3


def test_which_noise_has_a_controller():
    plain = GanConfig(discriminator_noise=False)
    assert (plain.adaptive, plain.denoising) == (False, False)
    assert replace(plain, discriminator_noise=True).adaptive
    assert replace(plain, generator_noise="latent").adaptive
    denoising = replace(plain, generator_noise="data")
    assert (denoising.adaptive, denoising.denoising) == (False, True)


def test_no_option_has_the_name_of_an_option_of_training_or_measuring():
    config = GanConfig()
    names = [field.name for part in (config, config.training, config.measure) for field in fields(part)]
    assert len(names) == len(set(names))


def test_gradient_penalties_depend_on_the_data_unless_given():
    assert GanConfig().gammas(points=True) == (0.01, 0.01)
    assert GanConfig(r2=0.0).gammas(points=False) == (0.05, 0.0)


def test_options_need_no_torch():
    code = "import sys; import lsdr.gan.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
