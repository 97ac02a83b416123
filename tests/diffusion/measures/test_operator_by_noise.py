"""The operator over noise levels: Gaussian data with a known covariance, and a network against its dense Jacobian."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from lsdr.diffusion.measures.mmse_identity import mmse_identity
from lsdr.diffusion.measures.operator_by_noise import Effort, covariance_eigenvalues, operator_by_noise
from lsdr.probes.evaluating import evaluating

VARIANCES = torch.tensor([4.0, 1.0, 0.25] + [0.01] * 13, dtype=torch.float64)
BASIS = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(7), dtype=torch.float64)).Q


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@dataclass
class Correlated:
    """The posterior mean of Gaussian images of 4x4 pixels with the covariance above; or what departs from it."""

    turn: float = 0.0
    sharpen: float = 1.0
    model: Any = None

    def __call__(self, x, sigma, conditioning=None):
        level = sigma.to(torch.float64).reshape(-1, 1)
        rotated = x.flatten(1).double() @ BASIS
        mean = self.sharpen * rotated * VARIANCES / (VARIANCES + level**2)
        turned = torch.stack([-rotated[:, 1], rotated[:, 0]], 1) * self.turn
        mean = torch.cat([mean[:, :2] + turned, mean[:, 2:]], 1)
        return (mean @ BASIS.T).view_as(x).to(x.dtype)


def images(count, seed=1):
    drawn = torch.randn(count, 16, generator=seeded(seed), dtype=torch.float64) * VARIANCES.sqrt()
    return (drawn @ BASIS.T).view(count, 1, 4, 4)


def measured(denoiser, sigmas=(2.0, 0.5), following=(0.5, 0.0), clean=None, **options):
    clean = images(3) if clean is None else clean
    levels = torch.tensor(sigmas, dtype=torch.float64)
    calibration = mmse_identity(denoiser, clean, levels, generator=seeded())
    return operator_by_noise(denoiser, clean, calibration, following, generator=seeded(), **options)


def test_gaussian_data_have_the_eigenvalues_of_wieners_filter():
    for level in measured(Correlated(), k=3, covariance=VARIANCES):
        truth = (VARIANCES / (VARIANCES + level.sigma**2))[:3].tolist()
        for name in ("median", "low", "high"):
            assert level.eigenvalues[name] == pytest.approx(truth, abs=1e-5), name
        assert level.gaussian == pytest.approx(truth)
        assert level.singular_values == pytest.approx(truth, abs=1e-5)
        rho = level.sigma_next / level.sigma
        assert level.gains == pytest.approx([rho + (1 - rho) * mu for mu in truth], abs=1e-5)
        assert level.time_scales == pytest.approx([1 / (1 - mu) for mu in truth], rel=1e-3)
        assert level.asymmetry == pytest.approx(0, abs=1e-4)
        assert level.smallest == pytest.approx(0.01 / (0.01 + level.sigma**2), abs=1e-4)
        assert level.trace == pytest.approx(float((VARIANCES / (VARIANCES + level.sigma**2)).mean()), abs=0.05)
        assert level.residual < 1e-2


def test_gains_are_told_in_the_frame_asked_for():
    for frame, factor in (("preserving", math.sqrt(5 / 1.25)), ("flow", 3 / 1.5)):
        level = measured(Correlated(), sigmas=(2.0,), following=(0.5,), k=1, frame=frame)[0]
        mu = 4 / (4 + 4)
        assert level.gains == pytest.approx([factor * (0.25 + 0.75 * mu)], abs=1e-5), frame


def test_the_density_integrates_to_one_and_has_the_mass_where_the_eigenvalues_are():
    level = measured(Correlated(), k=1)[1]
    value, density = (torch.tensor(level.density[name]) for name in ("value", "density"))
    assert float(torch.trapezoid(density, value)) == pytest.approx(1, abs=0.01)
    low = value < 0.3
    assert float(torch.trapezoid(density[low], value[low])) == pytest.approx(13 / 16, abs=0.15)


def test_a_rotation_is_seen_as_asymmetry_and_leaves_the_eigenvalues():
    straight, turned = (measured(Correlated(turn=turn), k=3)[0] for turn in (0.0, 0.5))
    assert turned.eigenvalues["median"] == pytest.approx(straight.eigenvalues["median"], abs=1e-4)
    assert turned.asymmetry > 0.3
    assert turned.singular_values[0] > straight.singular_values[0] + 0.1


def test_what_grows_has_a_negative_time_scale_and_what_stays_has_none():
    grown = measured(Correlated(sharpen=2.2), sigmas=(2.0,), following=(1.0,), k=2)[0]
    assert grown.eigenvalues["median"][0] == pytest.approx(1.1, abs=1e-4)
    assert grown.time_scales[0] == pytest.approx(-10, rel=0.01)
    assert grown.gains[0] > 1
    from lsdr.diffusion.measures import operator_by_noise as module

    assert module._finite([math.inf, 2.0, -math.inf]) == [None, 2.0, None]


def test_a_network_against_its_dense_jacobian(tiny):
    clean = 0.3 * torch.randn(2, 1, 4, 4, generator=seeded(2))
    sigma = torch.tensor([0.8])
    calibration = mmse_identity(tiny, clean, sigma, generator=seeded())
    (level,) = operator_by_noise(
        tiny, clean, calibration, [0.2], k=4, effort=Effort(steps=30, tolerance=1e-4), generator=seeded(5)
    )
    noise = torch.randn(1, 2, 1, 4, 4, generator=seeded(5))[0]
    tops, singular, smallest, asymmetry = [], [], [], []
    with evaluating(tiny):
        for image in clean + 0.8 * noise:
            flat = torch.func.jacrev(lambda x: tiny(x[None], sigma)[0])(image).reshape(16, 16).detach().double()
            values = torch.linalg.eigvalsh((flat + flat.T) / 2).flip(0)
            tops.append(values[:4])
            smallest.append(values[-1])
            singular.append(torch.linalg.svdvals(flat)[:4])
            asymmetry.append((flat - flat.T).norm() / (2 * flat.norm()))
    median = torch.stack(tops).quantile(0.5, dim=0)
    assert level.eigenvalues["median"] == pytest.approx(median.tolist(), rel=1e-3)
    assert level.eigenvalues["low"] == pytest.approx(torch.stack(tops).quantile(0.1, dim=0).tolist(), rel=1e-3)
    assert level.singular_values == pytest.approx(torch.stack(singular).quantile(0.5, dim=0).tolist(), rel=1e-3)
    assert level.smallest == pytest.approx(float(torch.stack(smallest).quantile(0.5)), abs=0.01)
    assert level.asymmetry == pytest.approx(float(torch.stack(asymmetry).quantile(0.5)), rel=0.4)


def test_little_effort_reads_eigenvalues_off_the_density(tiny):
    clean = 0.3 * torch.randn(2, 1, 4, 4, generator=seeded(2))
    calibration = mmse_identity(tiny, clean, torch.tensor([0.8]), generator=seeded())
    options = {"k": 2, "generator": seeded(5)}
    (exact,) = operator_by_noise(tiny, clean, calibration, [0.2], **options)
    (short,) = operator_by_noise(
        tiny, clean, calibration, [0.2], effort=Effort(steps=12, quick=True), k=2, generator=seeded(5)
    )
    assert short.eigenvalues["median"][0] == pytest.approx(exact.eigenvalues["median"][0], rel=0.02)
    assert short.eigenvalues["median"][0] <= exact.eigenvalues["median"][0] + 1e-4
    assert (short.residual, short.singular_values) == (None, [])


def test_k_is_no_more_than_an_image_has_and_levels_are_json(tiny):
    clean = 0.3 * torch.randn(2, 1, 2, 2, generator=seeded(2))
    calibration = mmse_identity(tiny, clean, torch.tensor([0.8]), generator=seeded())
    (level,) = operator_by_noise(tiny, clean, calibration, [0.0], k=8, generator=seeded())
    assert len(level.eigenvalues["median"]) == 4
    plain = level.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["gaussian"] == []


def test_it_is_invisible_and_sees_labels(tiny, unchanged):
    clean, labels = 0.3 * torch.randn(2, 1, 4, 4, generator=seeded(2)), torch.tensor([0, 2])
    calibration = mmse_identity(tiny, clean, torch.tensor([0.8]), generator=seeded())
    same = unchanged(tiny.model)
    first = operator_by_noise(tiny, clean, calibration, [0.2], k=2, conditioning=labels, generator=seeded())
    assert same
    other = operator_by_noise(tiny, clean, calibration, [0.2], k=2, conditioning=1 - labels // 2, generator=seeded())
    assert first[0].eigenvalues != other[0].eigenvalues


def test_a_next_level_is_needed_for_each():
    with pytest.raises(ValueError, match="next level for each of the 2"):
        measured(Correlated(), following=(0.1,))


def test_covariance_eigenvalues():
    exact = covariance_eigenvalues(images(400), most=400)
    matrix = torch.cov(images(400).flatten(1).T)
    torch.testing.assert_close(exact, torch.linalg.eigvalsh(matrix).flip(0))
    assert covariance_eigenvalues(images(400), most=10).shape == (9,)
    assert covariance_eigenvalues(images(1)).shape == (0,)
