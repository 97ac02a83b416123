"""Smoothness along latent paths."""

import math

import pytest
import torch

from lsdr.gan.measures.interpolation import interpolation, latent_paths


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_point_of_a_path_is_standard_normal():
    paths = latent_paths(200, 50, 4, generator())
    deviation = paths.std((0, 2))
    torch.testing.assert_close(deviation, torch.ones(5), rtol=0.03, atol=0)
    assert paths.shape == (50, 5, 200)
    # A quarter turn from one point to an independent one.
    correlation = (paths[:, 0] * paths[:, 4]).mean()
    assert abs(correlation) < 0.03
    torch.testing.assert_close(paths[:, 2], (paths[:, 0] + paths[:, 4]) / math.sqrt(2))


def test_the_identity_moves_evenly():
    found = interpolation(lambda z: z, 2000, steps=16, generator=generator())
    assert found.jump == pytest.approx(1, abs=0.02)
    assert found.steps.shape == (16, 16)


def test_a_path_that_jumps_once_scores_its_number_of_steps():
    found = interpolation(
        lambda z: (z.norm(dim=1, keepdim=True) > 0) * z[:, :1].sign(), 3, steps=20, generator=generator()
    )
    assert found.jump == pytest.approx(20)


def test_jump_does_not_depend_on_scale_or_batch():
    first = interpolation(lambda z: z.tanh(), 4, steps=10, generator=generator())
    second = interpolation(lambda z: 7 * z.tanh(), 4, steps=10, batch=3, generator=generator())
    assert first.jump == pytest.approx(second.jump, rel=1e-5)
    torch.testing.assert_close(7 * first.steps, second.steps, rtol=1e-4, atol=1e-6)


def test_nothing_moves():
    found = interpolation(lambda z: torch.zeros(len(z), 1, 4, 4), 3, generator=generator())
    assert found.jump is None
    assert found.steps.max() == 0


def test_what_is_not_finite_has_no_jump():
    assert interpolation(lambda z: z * math.nan, 3, generator=generator()).jump is None


def test_no_gradient_is_kept_and_no_path_is_refused():
    weight = torch.ones(3, requires_grad=True)
    assert not interpolation(lambda z: z * weight, 3, generator=generator()).steps.requires_grad
    with pytest.raises(ValueError, match="at least one path"):
        interpolation(lambda z: z, 3, paths=0)
