"""Signs of overfitting on discriminators whose answer is known."""

import math

import pytest
import torch
from torch import nn

from lsdr.gan.measures.overfitting import overfitting

DRAWS = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
TRAIN, HELDOUT, FAKE = DRAWS[:100], DRAWS[100:200], DRAWS[200:] + 3


def by_heart(x):
    """1 on training examples, -1 on all else."""
    known = (x.detach()[:, None] == TRAIN).all(2).any(1)
    return 2 * known.float() - 1 + 0 * x.sum(1)


def linear(x):
    return -x.sum(1)


def test_a_discriminator_that_learned_its_examples_by_heart():
    found = overfitting(by_heart, TRAIN, HELDOUT, FAKE)
    assert (found.sign_real, found.sign_relativistic, found.overfitting, found.heldout_gap) == (1.0, 1.0, 1.0, 2.0)
    assert (found.gradient_norm_real, found.largest_logit) == (0.0, 1.0)


def test_a_discriminator_that_has_not_overfitted():
    found = overfitting(linear, TRAIN, HELDOUT, FAKE)
    expected = (linear(TRAIN).mean() - linear(HELDOUT).mean()) / (linear(TRAIN).mean() - linear(FAKE).mean())
    assert found.overfitting == pytest.approx(expected.item(), rel=1e-4)
    assert abs(found.overfitting) < 0.1
    assert abs(found.heldout_gap) < 3 * found.heldout_gap_error
    assert found.gradient_norm_real == pytest.approx(math.sqrt(2))


def test_only_the_sign_of_real_depends_on_the_level():
    found, moved = (overfitting(lambda x, by=by: linear(x) + by, TRAIN, HELDOUT, FAKE) for by in (0, 50))
    assert moved.sign_real == 1 != found.sign_real
    assert moved.sign_relativistic == found.sign_relativistic
    assert moved.overfitting == pytest.approx(found.overfitting, rel=1e-4)
    assert moved.heldout_gap == pytest.approx(found.heldout_gap, abs=1e-4)


def test_sign_of_the_difference_is_the_mean_over_all_pairs():
    rounded = lambda x: linear(x).round()  # noqa: E731 - ties
    found = overfitting(lambda x: rounded(x) + 0 * x.sum(1), TRAIN, HELDOUT, FAKE - 3)
    pairs = (rounded(TRAIN)[:, None] - rounded(FAKE - 3)).sign()
    assert (pairs == 0).any()
    assert found.sign_relativistic == pytest.approx(pairs.mean().item())


def test_no_ratio_where_samples_look_real():
    assert overfitting(linear, TRAIN, HELDOUT, DRAWS[200:]).overfitting is None


def test_gradients_at_real_and_fake_are_those_of_each_example():
    found = overfitting(lambda x: x.square().sum(1) / 2, TRAIN, HELDOUT, FAKE, batch=7)
    assert found.gradient_norm_real == pytest.approx(TRAIN.norm(dim=1).mean().item(), rel=1e-5)
    assert found.gradient_norm_fake == pytest.approx(FAKE.norm(dim=1).mean().item(), rel=1e-5)
    assert found.largest_logit == pytest.approx(FAKE.square().sum(1).max().item() / 2, rel=1e-5)


def test_packs_that_do_not_fill_the_last_batch():
    def packed(x):
        whole = len(x) - len(x) % 3
        return linear(x[:whole].reshape(-1, 6))

    for batch in (33, 40):  # the last batch of 1 fills no pack; each of 40 leaves one example over
        found = overfitting(packed, TRAIN, HELDOUT, FAKE, batch=batch)
        assert len(found.train) == {33: 33, 40: 32}[batch]
        assert math.isfinite(found.overfitting)
        assert found.gradient_norm_real == pytest.approx(math.sqrt(2))


def test_values_that_are_not_finite_are_told():
    found = overfitting(lambda x: linear(x) * math.nan, TRAIN, HELDOUT, FAKE)
    assert math.isnan(found.largest_logit)
    assert math.isnan(found.sign_relativistic)


def test_measuring_leaves_no_gradient():
    net = nn.Linear(2, 1)
    with torch.no_grad():  # even where gradients are off
        found = overfitting(lambda x: net(x)[:, 0], TRAIN, HELDOUT, FAKE)
    assert net.weight.grad is None
    assert found.gradient_norm_fake == pytest.approx(net.weight.norm().item(), rel=1e-5)
    with pytest.raises(ValueError, match="at least 2"):
        overfitting(linear, TRAIN[:1], HELDOUT, FAKE)
