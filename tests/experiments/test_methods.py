import subprocess
import sys
from dataclasses import replace

import pytest

from lsdr.experiments.method import Method
from lsdr.experiments.methods import METHODS, resolve


def weights(method):
    return [regularizer.weight for regularizer in method.build()]


def test_keys_are_names_and_every_method_builds_a_tuple():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.description
        assert resolve(name).name == name
        assert isinstance(resolve(name).build(), tuple)
        assert repr(method.build()) == repr(resolve(name).build())


def test_importing_needs_no_torch():
    modules = ("method", "methods", "gan_methods", "summary", "bootstrap", "compare", "worker", "engines.ray")
    lines = [
        "import sys, importlib",
        f"for name in {modules}:",
        "    importlib.import_module('lsdr.experiments.' + name)",
    ]
    lines += ["    assert 'torch' not in sys.modules, name"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_baseline_and_clip_have_no_regularizers():
    assert resolve("baseline").build() == ()
    assert resolve("clip").build() == ()
    assert resolve("clip").overrides == {"clip": 1.0}
    assert resolve("baseline").overrides == {}


def test_forms():
    assert resolve("decorrelation").build()[0].form == "correlation"
    assert resolve("decorrelation_as_written").build()[0].form == "as_written"


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("discriminator", "SpectralDiscriminator", {"noise": "wiener"}),
        ("discriminator_learned", "LearnedSpectralDiscriminator", {}),
        ("decomposition_eigenvalues", "SpectralDecomposition", {"of": "eigenvalues", "penalty": "dispersion"}),
        ("decomposition_singular", "SpectralDecomposition", {"of": "singular_values", "penalty": "dispersion"}),
        ("operator_hinge", "SpectralDecomposition", {"of": "eigenvalues", "penalty": "hinge", "k": 1}),
        ("operator_asymmetry", "SpectralDecomposition", {"penalty": "asymmetry"}),
        ("operator_frobenius", "SpectralDecomposition", {"of": "singular_values", "penalty": "frobenius"}),
    ],
)
def test_methods_on_images_and_operators(name, kind, settings):
    (regularizer,) = resolve(f"{name}@0.25").build()
    assert type(regularizer).__name__ == kind
    assert regularizer.weight == 0.25
    assert {key: getattr(regularizer, key) for key in settings} == settings
    (off,) = resolve("lambda_zero", ["baseline", name]).build()
    assert replace(off, weight=0.25) == regularizer
    assert off.weight == 0
    assert resolve("weight_decay_matched", [name]).build()[0].references == resolve(name).build()


def test_the_biased_method_says_so():
    assert "Biased" in METHODS["operator_frobenius"].description


def test_a_hard_constraint_has_no_matched_weight_decay():
    with pytest.raises(ValueError, match="SpectralNormalization is a hard constraint"):
        resolve("weight_decay_matched", ["baseline", "spectral_normalization"]).build()
    assert resolve("weight_decay_matched", ["baseline", "spectral_penalty"]).build()[0].references[0].weight == 0.1


def test_weight():
    method = resolve("decorrelation@3e-1")
    assert method.name == "decorrelation@0.3"
    assert "0.3" in method.description
    assert weights(method) == [0.3]
    assert weights(resolve("decorrelation")) != [0.3]


@pytest.mark.parametrize(
    ("others", "form", "name"),
    [
        ((), "correlation", "decorrelation"),
        (("baseline", "clip", "lambda_zero", "weight_decay_matched"), "correlation", "decorrelation"),
        (("baseline", "decorrelation_as_written@0.7", "decorrelation"), "as_written", "decorrelation_as_written@0.7"),
    ],
)
def test_controls_mirror_the_first_regularized_method(others, form, name):
    zero, matched = resolve("lambda_zero", others), resolve("weight_decay_matched", others)
    assert weights(zero) == [0.0]
    assert zero.build()[0].form == form
    assert matched.build()[0].references == resolve(name).build()
    assert f"({name})" in zero.description
    assert f"({name})" in matched.description
    assert zero.name == "lambda_zero"


def test_stranger(fake):
    method = resolve("fake_worker:stranger@2")
    assert method.name == "fake_worker.stranger@2"
    assert method.description.startswith("A stranger's method")
    assert weights(method) == [2.0]
    assert weights(resolve("lambda_zero", ["baseline", "fake_worker:stranger"])) == [0.0]


def test_stranger_that_returns_no_tuple(fake):
    with pytest.raises(ValueError, match="must return a tuple of regularizers or a Method, got Nothing"):
        resolve("fake_worker:not_a_tuple").build()


def test_stranger_that_is_no_function(fake):
    with pytest.raises(ValueError, match="is no function"):
        resolve("fake_worker:MEASURES")


def test_stranger_that_returns_a_method(fake):
    method = resolve("fake_worker:tuned")
    assert (method.name, method.overrides["lr"]) == ("tuned", 0.5)
    assert resolve("fake_worker:tuned@0.25").overrides == {**method.overrides, "lr": 0.25}
    assert resolve("fake_worker:tuned@0.25").name == "tuned@0.25"


def test_stranger_that_fails_is_named(fake, monkeypatch):
    monkeypatch.setattr(fake, "tuned", lambda: 1 / 0)
    with pytest.raises(ValueError, match="fake_worker:tuned raised ZeroDivisionError"):
        resolve("fake_worker:tuned")


def test_options_of_training_and_of_the_task(fake):
    config = fake.FakeConfig(fail={"clip": "exit"})
    changed = resolve("fake_worker:tuned").configure(config)
    assert (changed.pause, changed.training.lr) == (0.01, 0.5)
    assert replace(changed, pause=config.pause, training=config.training) == config
    assert resolve("clip").configure(config).training == replace(config.training, clip=1.0)


def test_an_option_that_there_is_not_is_named(fake):
    with pytest.raises(ValueError, match=r"method typo sets 'pauze', which FakeConfig has no option for.* pause"):
        Method("typo", "", overrides={"pauze": 1.0}).configure(fake.FakeConfig())
    with pytest.raises(ValueError, match="sets 'training'"):
        Method("whole", "", overrides={"training": None}).configure(fake.FakeConfig())


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "a/b"])
def test_names_are_folders(name):
    with pytest.raises(ValueError, match="also a folder's"):
        Method(name, "")


def test_the_number_of_a_hard_bound_is_its_bound():
    assert resolve("spectral_normalization@3").build()[0].bound == 3
    assert "bound 3" in resolve("spectral_normalization@3").description


def test_weight_that_cannot_be_set(fake, monkeypatch):
    class Fixed:
        attach = None

    monkeypatch.setattr(fake, "stranger", lambda: (Fixed(),))
    with pytest.raises(ValueError, match="no dataclass with a field `weight`"):
        resolve("fake_worker:stranger@2").build()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("decorelation", "close names: decorrelation"),
        ("", "no method ''"),
        ("decorrelation@", "a number >= 0 after @"),
        ("decorrelation@much", "a number >= 0 after @"),
        ("decorrelation@-1", "a number >= 0 after @"),
        ("decorrelation@nan", "a number >= 0 after @"),
        ("decorrelation@inf", "a number >= 0 after @"),
        ("baseline@1", "no weight to set"),
        ("lambda_zero@1", "no weight to set"),
        ("clip@1", "no weight to set"),
        ("packing", "'packing' is a method of gan; those of diffusion are baseline, decorrelation"),
        ("no_such_package:thing", "no module 'no_such_package'"),
        ("math:no_such_thing", "math has no 'no_such_thing'"),
        (":thing", "expected package.module:name"),
    ],
)
def test_wrong_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve(spec)
