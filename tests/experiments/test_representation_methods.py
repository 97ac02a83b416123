from dataclasses import replace

import pytest

from lsdr.experiments.methods import methods_of, resolve
from lsdr.experiments.representation_methods import REPRESENTATION_METHODS, REPRESENTATION_PLAIN
from lsdr.representation.config import RepresentationConfig


def arm(spec):
    return resolve(spec, task="representation")


def own(spec):
    """What an arm sets otherwise than the baseline."""
    base = arm("baseline").overrides
    return {name: value for name, value in arm(spec).overrides.items() if base.get(name) != value}


def test_every_arm_is_named_described_and_configures_a_run():
    assert methods_of("representation") is REPRESENTATION_METHODS
    for name, method in REPRESENTATION_METHODS.items():
        assert method.name == name
        assert method.description.endswith(".")
        assert arm(name) is method
        method.configure(RepresentationConfig())


def test_an_arm_is_the_same_whatever_the_options_say():
    wild = RepresentationConfig(objective="sigreg", robust="huber")
    assert {name for name in REPRESENTATION_PLAIN if getattr(wild, name) != REPRESENTATION_PLAIN[name]} == set(
        REPRESENTATION_PLAIN
    )
    for name, method in REPRESENTATION_METHODS.items():
        if name != "options":
            assert method.configure(wild) == method.configure(RepresentationConfig())
    assert arm("options").configure(wild) == wild


def test_what_the_arms_are():
    assert arm("baseline").overrides == {"objective": "vicreg", "robust": "none", "weight": 1.0}
    assert arm("baseline").build() == ()
    for name in ("barlow_twins", "log_participation_ratio", "spectral_contrastive", "sigreg", "sim_clr"):
        assert own(name) == {"objective": name}
        assert own(f"{name}@2") == {"objective": name, "weight": 2.0}
    assert own("trimmed") == {"robust": "trimmed"}
    assert own("huber") == {"robust": "huber"}
    assert own("clip@3") == {"clip": 3.0}
    assert arm("weight_decay").configure(RepresentationConfig()).training.weight_decay == 0.01


@pytest.mark.parametrize(
    ("name", "objective"),
    [("layer_wise", "vicreg"), ("layer_wise_log_participation_ratio", "log_participation_ratio")],
)
def test_layer_wise_arms_add_a_term_at_the_blocks_with_a_weight_of_its_own(name, objective):
    (term,) = arm(name).build()
    assert (term.objective, term.views, term.weight) == (objective, 1, 0.1)
    (numbered,) = arm(f"{name}@0.3").build()
    assert numbered == replace(term, weight=0.3)
    assert arm(f"{name}@0.3").overrides == arm(name).overrides == REPRESENTATION_PLAIN


def test_another_tasks_method_is_named_as_such():
    with pytest.raises(ValueError, match="'packing' is a method of gan; those of representation are options, baseline"):
        arm("packing")
