"""The yardstick: it learns, it is the same every time, and it disturbs nobody."""

import pytest
import torch
from sklearn.datasets import load_digits

from lsdr.measures.feature_distance import feature_distance
from lsdr.measures.feature_extractor import TrainedExtractor, train_feature_extractor


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(data.target)


@pytest.fixture(scope="module")
def learned(digits):
    """One that has learned the digits' classes."""
    return train_feature_extractor(*digits, steps=100)


def weights(trained):
    return torch.cat([parameter.flatten() for parameter in trained.extractor.parameters()])


def test_it_learns_classes_it_has_not_seen(learned):
    assert learned.task == "labels"
    assert learned.accuracy > 0.93
    assert 0.1 <= learned.chance < 0.2


def test_without_labels_it_learns_rotations(digits):
    trained = train_feature_extractor(digits[0], steps=100)
    assert trained.task == "rotation"
    assert trained.chance == 0.25
    assert trained.accuracy > 0.7


def test_its_accuracy_is_of_images_kept_out():
    # Random labels can be learned by heart but not guessed.
    images = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(2, (50,), generator=torch.Generator().manual_seed(1))
    trained = train_feature_extractor(images, labels, steps=100)
    by_heart = (trained.extractor.logits(images).argmax(1) == labels).float().mean()
    assert by_heart > 0.8
    assert trained.accuracy < 0.8


def test_its_features_tell_worse_samples(digits, learned):
    images, others = digits[0][::2], digits[0][1::2]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    values = [feature_distance(images + s * noise, others, learned.extractor).fid for s in (0.0, 0.5, 1.0)]
    assert values[0] * 2 < values[1] < values[2] / 2


def test_a_seed_decides_everything_and_the_global_state_stays(digits):
    images, labels = digits[0][:100], digits[1][:100]
    before = torch.get_rng_state()
    first = train_feature_extractor(images, labels, steps=5, seed=1)
    torch.rand(3)
    again = train_feature_extractor(images, labels, steps=5, seed=1)
    torch.set_rng_state(before)
    other = train_feature_extractor(images, labels, steps=5, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(weights(first), weights(again))
    assert first.accuracy == again.accuracy
    assert not torch.equal(weights(first), weights(other))


def test_it_trains_inside_no_grad_and_comes_back_frozen(digits):
    with torch.no_grad():
        trained = train_feature_extractor(digits[0][:100], steps=3)
        still = train_feature_extractor(digits[0][:100], steps=1)
    assert not torch.equal(weights(trained), weights(still))
    assert not trained.extractor.training
    assert not any(parameter.requires_grad for parameter in trained.extractor.parameters())


def test_saved_and_read_again_it_is_the_same(digits, tmp_path):
    trained = train_feature_extractor(digits[0][:100], digits[1][:100], steps=5)
    trained.save(tmp_path / "yardstick")
    read = TrainedExtractor.load(tmp_path / "yardstick")
    assert torch.equal(read.extractor(digits[0][:9]), trained.extractor(digits[0][:9]))
    assert (read.task, read.accuracy, read.chance) == (trained.task, trained.accuracy, trained.chance)
    assert not read.extractor.training


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 5, 7), (2, 1, 1)])
def test_any_size_has_64_features(shape):
    images = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))
    features = train_feature_extractor(images, steps=2).extractor(images)
    assert features.shape == (20, 64)
    assert features.isfinite().all()


def test_a_single_class_teaches_nothing_so_rotations_are_used(digits):
    trained = train_feature_extractor(digits[0][:50], torch.zeros(50, dtype=torch.long), steps=2)
    assert trained.task == "rotation"


def test_too_little_data_is_refused(digits):
    with pytest.raises(ValueError, match="at least 10 images, got 4"):
        train_feature_extractor(digits[0][:4])
    with pytest.raises(ValueError, match="3 labels for 20 images"):
        train_feature_extractor(digits[0][:20], digits[1][:3])
