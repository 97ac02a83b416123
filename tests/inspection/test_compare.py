import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from lsdr.inspection.compare import INTRUDER_COSINE, TOP, average_distance, delta


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spread(m, n, seed=0):
    """A matrix whose singular values are well apart."""
    u = torch.linalg.qr(noise(m, m, seed=seed))[0][:, : min(m, n)]
    v = torch.linalg.qr(noise(n, n, seed=seed + 1))[0][:, : min(m, n)]
    return u @ torch.diag(torch.linspace(4, 1, min(m, n))) @ v.T, u, v


@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (35, 35)])
def test_principal_angles_are_scipys(shape):
    base, weight = noise(*shape), noise(*shape) + 0.3 * noise(*shape, seed=1)
    found, spectrum = delta(weight, base)
    tops = [np.linalg.svd(each.double().numpy())[0][:, :TOP] for each in (weight, base)]
    np.testing.assert_allclose(found["principal_angles"], np.sort(np.cos(subspace_angles(*tops)))[::-1], atol=1e-5)
    np.testing.assert_allclose(spectrum.values, np.linalg.svd(weight.double().numpy())[1], atol=1e-4)


@pytest.mark.parametrize("shape", [(60, 80), (80, 60)])
def test_the_change_is_measured(shape):
    base, _, _ = spread(*shape)
    up, down = noise(shape[0], 3), noise(3, shape[1], seed=1)
    found, _ = delta(base + up @ down, base)
    values = torch.linalg.svdvals((up @ down).double())[:3]
    share = values / values.sum()
    assert found["frobenius"] == pytest.approx(values.norm().item(), rel=1e-4)
    assert found["relative"] == pytest.approx((values.norm() / base.norm()).item(), rel=1e-4)
    assert found["sigma_max"] == pytest.approx(values[0].item(), rel=1e-4)
    assert found["rank"] == pytest.approx((-(share * share.log()).sum()).exp().item(), rel=0.05)


@pytest.mark.parametrize("shape", [(60, 80), (80, 60)])
def test_intruders_are_the_directions_that_the_base_does_not_have(shape):
    base, u, v = spread(*shape)
    # Two new directions, each spread evenly over many of the base's: no cosine reaches a half.
    mix = torch.linalg.qr(u @ noise(u.shape[1], 2, seed=5))[0]
    other = torch.linalg.qr(v @ noise(v.shape[1], 2, seed=6))[0]
    found, _ = delta(base + 9 * mix @ other.T, base)
    assert found["intruder_dimensions"] == 2
    assert max(found["top_cosines"][:2]) < INTRUDER_COSINE < min(found["top_cosines"][2:])
    assert found["new_directions"] == 2
    assert max(found["top_gains"][:2]) < 0.5 < min(found["top_gains"][2:])
    # The same growth along directions that the base has is none.
    grown, _ = delta(base + 9 * u[:, :2] @ v[:, :2].T, base)
    assert grown["intruder_dimensions"] == 0
    assert min(grown["top_cosines"]) > 0.99


def test_against_the_definition_with_an_svd():
    base, weight = noise(24, 50), noise(24, 50, seed=3)
    found, _ = delta(weight, base)
    u, old = (torch.linalg.svd(each.double())[0] for each in (weight, base))
    cosines = (u[:, :TOP].T @ old).abs().amax(1)
    torch.testing.assert_close(torch.tensor(found["top_cosines"]), cosines.float(), atol=1e-4, rtol=0)
    assert found["intruder_dimensions"] == int((cosines < INTRUDER_COSINE).sum())


def test_vectors_turned_among_themselves_are_intruders_but_not_new():
    """A base whose singular values are all equal has no directions of its own: a small change chooses them."""
    base = torch.linalg.qr(noise(40, 40))[0]
    found, _ = delta(base + 0.05 * noise(40, 40, seed=1), base)
    assert found["intruder_dimensions"] > 5
    assert found["new_directions"] == 0
    assert min(found["top_gains"]) > 0.6


def test_nothing_changed_and_nothing_to_compare_with():
    weight = noise(5, 6)
    assert delta(weight, weight.clone())[0] == {
        "frobenius": 0.0,
        "relative": 0.0,
        "rank": 0.0,
        "sigma_max": 0.0,
        "intruder_dimensions": 0,
        "new_directions": 0,
        "top": 0,
    }
    found, _ = delta(weight, torch.zeros(5, 6))
    assert found["relative"] is None
    assert "zero" in found["note"]
    found, _ = delta(torch.zeros(5, 6), weight)
    assert found["relative"] == pytest.approx(1)
    assert "intruder_dimensions" not in found
    assert "note" in delta(weight, weight / 0)[0]
    assert "note" in delta(weight * torch.nan, weight)[0]


def test_half_precision_is_widened_before_it_is_subtracted():
    base = noise(20, 20).bfloat16()
    found, _ = delta(base.float() + 1e-4 * noise(20, 20, seed=1), base)
    assert found["frobenius"] == pytest.approx(1e-4 * noise(20, 20, seed=1).norm().item(), rel=1e-2)


def test_distance_of_an_average():
    online = noise(3, 4, 2)
    assert average_distance(online, 0.5 * online)["relative"] == pytest.approx(0.5)
    assert average_distance(online * 0, online)["relative"] is None
    assert average_distance(online, online * torch.inf)["frobenius"] is None
