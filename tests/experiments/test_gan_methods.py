from dataclasses import fields, replace

import pytest

from lsdr.experiments.gan_methods import GAN_METHODS, GAN_PLAIN
from lsdr.experiments.methods import METHODS, methods_of, resolve
from lsdr.gan.config import GanConfig


def arm(spec):
    return resolve(spec, task="gan")


def own(spec):
    """What an arm sets otherwise than the plain GAN."""
    return {name: value for name, value in arm(spec).overrides.items() if GAN_PLAIN.get(name) != value}


def test_every_arm_is_named_described_and_configures_a_run():
    for name, method in GAN_METHODS.items():
        assert method.name == name
        assert method.description.endswith(".")
        assert arm(name) is method
        method.configure(GanConfig())
        assert method.mirrors is None


def test_an_arm_is_the_same_whatever_the_options_say():
    wild = GanConfig(
        loss="hinge", r1=3.0, r2=2.0, packing=4, consistency=1.0, mode_seeking=1.0, discriminator_noise=True
    )
    wild = replace(wild, normalization="none", discriminator_normalization="standardize", noise_strength=0.5)
    changed = {name for name in GAN_PLAIN if getattr(wild, name) != GAN_PLAIN[name]} | {"generator_noise"}
    assert changed == set(GAN_PLAIN)
    for name, method in GAN_METHODS.items():
        if name != "options":
            assert method.configure(wild) == method.configure(GanConfig())
    assert arm("options").configure(wild) == wild


def test_the_baseline_is_the_plain_gan():
    config = arm("baseline").configure(GanConfig())
    assert {name: getattr(config, name) for name in GAN_PLAIN} == GAN_PLAIN
    assert config.training == GanConfig().training
    assert arm("baseline").build() == ()


def test_what_the_arms_are():
    assert own("relativistic") == {"loss": "relativistic"}
    assert own("relativistic_r1_r2") == {"loss": "relativistic", "r1": None, "r2": None}
    assert own("relativistic_r1_r2@0.02") == {"loss": "relativistic", "r1": 0.02, "r2": 0.02}
    assert own("gan_r1") == {"r1": None}
    assert own("packing") == {"packing": 2}
    assert own("standardization_noise") == {**own("standardization"), **own("denoising")}
    assert own("spectral_noise") == own("adaptive_noise") == {"discriminator_noise": True}
    assert own("relativistic_r1_r2_noise") == {**own("relativistic_r1_r2"), **own("adaptive_noise")}
    fixed = {**own("adaptive_noise"), "noise_strength": 1.0, "noise_clean": 0.0}
    assert own("fixed_noise") == fixed
    assert own("relativistic_r1_r2_fixed_noise") == {**own("relativistic_r1_r2"), **fixed}
    assert arm("spectral_noise").build() == arm("spectral_normalization").build()
    assert own("spectral_normalization") == {}
    assert own("clip") == {"clip": 1.0}


def test_regularizers_find_both_players_or_one():
    (both,), (one,) = arm("spectral_normalization").build(), arm("spectral_normalization_discriminator").build()
    assert (both.layers, one.layers) == ("*", "discriminator.*")
    assert arm("spectral_noise@2").build()[0].bound == 2
    assert arm("residual_spectral@1.5").build()[0].bound == 1.5
    assert arm("spectral_penalty@0.3").build()[0].weight == 0.3


def test_whole_numbers_stay_whole():
    assert type(arm("packing@3").overrides["packing"]) is int
    with pytest.raises(ValueError, match=r"packing of method packing is a whole number, got 2\.5"):
        arm("packing@2.5")


def test_names_that_two_tasks_share_mean_what_each_says():
    shared = set(METHODS) & set(GAN_METHODS)
    assert shared == {"baseline", "clip", "spectral_normalization", "spectral_penalty"}
    for name in shared:
        assert repr(METHODS[name].build()) == repr(GAN_METHODS[name].build())
    assert methods_of("stable-diffusion") is METHODS


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("baseline@1", "no weight to set"),
        ("standardization@1", "no weight to set"),
        ("options@1", "no weight to set"),
        ("relativistc", "no method 'relativistc'; close names: relativistic"),
        ("lambda_zero", "'lambda_zero' is a method of diffusion; those of gan are options, baseline"),
        ("decorrelation@2", "'decorrelation' is a method of diffusion"),
    ],
)
def test_wrong_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        arm(spec)


def test_every_option_of_the_plain_gan_exists():
    assert set(GAN_PLAIN) <= {field.name for field in fields(GanConfig)}
