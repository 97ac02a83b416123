"""The classifier that counts the modes of stacked digits."""

import math

import pytest
import torch

from lsdr.data.subset import to_pixels
from lsdr.gan.measures.digit_classifier import (
    TrainedDigitClassifier,
    shared_digit_classifier,
    train_digit_classifier,
)
from lsdr.gan.stacked import StackedDataset, load_stacked
from lsdr.runs import read_json, write_json


@pytest.fixture(scope="module")
def parts():
    return [load_stacked("stacked-digits", 300, part=part) for part in ("train", "heldout")]


@pytest.fixture(scope="module")
def trained(parts):
    return train_digit_classifier(*parts, steps=300)


def pixels(part):
    batch = part.__getitems__(range(len(part)))
    return to_pixels(batch["image"]), batch["label"]


def test_it_reads_digits_it_has_not_seen(parts, trained):
    assert trained.accuracy > 0.95
    images, labels = pixels(parts[1])
    found = trained.classify(images)
    right = (found == labels).double().mean().item()
    assert right == pytest.approx(trained.accuracy**3, abs=0.05)


def test_pictures_in_the_wrong_range_are_another_measure(parts, trained):
    """The pitfall of the published protocol: [0, 1] where [-1, 1] is meant."""
    images, labels = pixels(parts[0])
    assert (trained.classify(images) == labels).double().mean() > 0.9
    assert (trained.classify((images + 1) / 2) == labels).double().mean() < 0.5


def test_pictures_that_are_not_finite_have_no_class(parts, trained):
    images, labels = pixels(parts[0])
    images = images[:3].clone()
    images[1, 2, 0, 0] = math.nan
    assert trained.classify(images).tolist() == [int(labels[0]), -1, int(labels[2])]


def test_training_is_decided_by_its_seed_and_touches_no_other_randomness(parts):
    state = torch.get_rng_state()
    first, same, other = (train_digit_classifier(*parts, steps=2, seed=seed).classifier for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.head.weight, same.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not first.head.weight.requires_grad


def test_saved_and_loaded(parts, trained, tmp_path):
    trained.save(tmp_path)
    loaded = TrainedDigitClassifier.load(tmp_path)
    images, _ = pixels(parts[0])
    assert loaded.accuracy == trained.accuracy
    assert torch.equal(loaded.classify(images), trained.classify(images))


def test_runs_of_a_comparison_share_it(parts, trained, tmp_path):
    write_json(tmp_path / "experiment.json", {})
    trained.save(tmp_path)
    run = tmp_path / "method" / "seed=0"
    run.mkdir(parents=True)
    shared = shared_digit_classifier(run, *parts, torch.device("cpu"))
    assert torch.equal(shared.classifier.head.weight, trained.classifier.head.weight)
    assert [*run.iterdir()] == []
    assert read_json(tmp_path / "digit_classifier.json")["accuracy"] == trained.accuracy


def test_larger_digits_are_scaled_down_and_others_refused():
    digits, labels = torch.zeros(10, 64, 64, dtype=torch.uint8), torch.arange(10)
    large = StackedDataset(digits, labels, 5, 0, "large")
    found = train_digit_classifier(large, large, steps=1)
    assert found.classify(torch.zeros(2, 3, 64, 64)).shape == (2,)
    assert found.classifier.side == 28
    for wrong in (digits[:, :32], digits[:, :2, :2]):
        part = StackedDataset(wrong, labels, 5, 0, "wrong")
        with pytest.raises(ValueError, match="square digits"):
            train_digit_classifier(part, part)
