"""The objectives against their papers' formulas, written out as the authors' code computes them."""

import pytest
import torch
from torch.nn import functional

from lsdr.moments import Moments
from lsdr.regularizers.objectives.barlow_twins import BarlowTwins
from lsdr.regularizers.objectives.catalogue import OBJECTIVES
from lsdr.regularizers.objectives.log_participation_ratio import LogParticipationRatio
from lsdr.regularizers.objectives.objective import Views
from lsdr.regularizers.objectives.sigreg import SIGReg, directions
from lsdr.regularizers.objectives.spectral_contrastive import SpectralContrastive
from lsdr.regularizers.objectives.vicreg import VICReg
from lsdr.regularizers.spectral_objective import SpectralObjective
from lsdr.representation.objectives.sim_clr import sim_clr
from lsdr.spectrum import Spectrum
from lsdr.statistics.participation_ratio import participation_ratio

N, D = 13, 5


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(D, D, generator=generator, dtype=torch.float64)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) @ mixing + 0.7
    y = x + 0.4 * torch.randn(N, D, generator=generator, dtype=torch.float64) - 0.2
    return 0.5 * x, 0.5 * y


def off_diagonal(matrix):
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


def vicreg(x, y):
    """main_vicreg.py."""
    invariance = functional.mse_loss(x, y)
    x, y = x - x.mean(0), y - y.mean(0)
    deviations = [torch.sqrt(each.var(0) + 1e-4) for each in (x, y)]
    variance = sum(functional.relu(1 - each).mean() / 2 for each in deviations)
    covariance = sum(off_diagonal(each.T @ each / (len(each) - 1)).square().sum() / D for each in (x, y))
    return 25 * invariance + 25 * variance + covariance


def barlow_twins(x, y):
    """barlowtwins/main.py."""
    bn = torch.nn.BatchNorm1d(D, affine=False).double()
    c = bn(x).T @ bn(y) / N
    return (c.diagonal() - 1).square().sum() + 0.0051 * off_diagonal(c).square().sum()


def frossl(x, y):
    """FroSSL/solo/losses/frossl.py, `frossl_loss_func`, with the batch norm's epsilon left out; invariance x N / D."""
    x, y = [(each - each.mean(0)) / each.std(0) for each in (x, y)]
    x, y = [D**0.5 * functional.normalize(each, p=2, dim=0) for each in (x, y)]
    grams = [each.T @ each for each in (x, y)]
    entropies = [-2 * torch.log(torch.linalg.norm(gram / gram.trace())) for gram in grams]
    return 4 * N / D * functional.mse_loss(x, y) - sum(entropies)


def spectral_contrastive(x, y):
    """spectral_contrastive_learning/models/spectral.py, mu = 1."""
    x, y = [torch.where(each.norm(dim=1, keepdim=True) < 1, each, functional.normalize(each)) for each in (x, y)]
    squares = (x @ y.T) ** 2
    return -2 * torch.mean(x * y) * D + torch.mean(off_diagonal(squares))


def sigreg(x, y):
    """MINIMAL.md of lejepa, and VISReg's scale term."""
    slices = directions(D, 256, 0, x)
    t = torch.linspace(0, 3, 17, dtype=x.dtype)
    weights = torch.full((17,), 2 * 3 / 16, dtype=x.dtype)
    weights[[0, -1]] = 3 / 16
    window = torch.exp(-t.square() / 2)
    z = torch.stack([x, y])
    x_t = (z @ slices).unsqueeze(-1) * t
    error = (x_t.cos().mean(-3) - window).square() + x_t.sin().mean(-3).square()
    normality = ((error @ (weights * window)) * N).mean()
    invariance = (z.mean(0) - z).square().mean()
    scale = torch.stack([(1 - each.std(0, correction=0)).square().mean() for each in (x, y)]).mean()
    return 0.995 * invariance + 0.005 * normality + scale  # of two views; the paper's lambda, for many, is 0.05


PUBLISHED = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "log_participation_ratio": frossl,
    "spectral_contrastive": spectral_contrastive,
    "sigreg": sigreg,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_objective_is_the_published_formula(name, views):
    tolerance = 1e-4 if name == "log_participation_ratio" else 1e-12  # we add the epsilon of a batch normalisation
    value = SpectralObjective(name).of(*views)["objective"]
    torch.testing.assert_close(value, PUBLISHED[name](*views), rtol=tolerance, atol=tolerance)


def test_the_clipped_norms_bind_in_the_test_above(views):
    norms = torch.cat(views).norm(dim=1)
    assert (norms < 1).any()
    assert (norms > 1).any()


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins", "log_participation_ratio"])
def test_an_objective_is_a_function_of_the_moments(name, views):
    value, terms = OBJECTIVES[name](Views.of_moments(Moments.of(*views)))
    expected = SpectralObjective(name).of(*views)
    torch.testing.assert_close({"objective": value, **terms}, expected, rtol=1e-12, atol=1e-12)
    one, _ = OBJECTIVES[name](Views.of_moments(Moments.of(views[0])))
    torch.testing.assert_close(one, SpectralObjective(name, views=1).of(views[0])["objective"], rtol=1e-12, atol=1e-12)


def test_what_moments_do_not_hold_is_asked_for(views):
    with pytest.raises(ValueError, match="a function of the overlap too"):
        SpectralContrastive()(Views.of_moments(Moments.of(*views)))
    with pytest.raises(ValueError, match="needs 2 or more, got 1"):
        Views.of_moments(Moments.of(views[0][:1]))


def test_the_log_participation_ratio_is_that_of_the_correlation_s_spectrum(views):
    term = SpectralObjective("log_participation_ratio", views=1).of(views[0])["log_participation_ratio"]
    spectrum = Spectrum.of(torch.linalg.eigvalsh(torch.corrcoef(views[0].T)), kind="eigenvalues")
    torch.testing.assert_close(term, participation_ratio(spectrum).log(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_view_is_two_equal_ones_but_for_sums_over_views(name, views):
    one, two = SpectralObjective(name, views=1).of(views[0]), SpectralObjective(name).of(views[0], views[0])
    if name == "vicreg":
        two["covariance"] = two["covariance"] / 2
    del one["objective"], two["objective"]
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_every_coefficient_counts(views):
    for plain, changes in {
        VICReg(): {"invariance": 1.0, "variance": 1.0, "covariance": 7.0},
        BarlowTwins(): {"redundancy": 1.0},
        LogParticipationRatio(): {"invariance": 1.0},
        SpectralContrastive(): {"mu": 2.0},
        SIGReg(): {"share": 0.5, "variance": 0.0, "slices": 3},
    }.items():
        before = SpectralObjective(plain).of(*views)["objective"]
        for field, value in changes.items():
            after = SpectralObjective(type(plain)(**{field: value})).of(*views)["objective"]
            assert abs(after - before) > 1e-3, (plain, field)


def test_the_variance_term_pulls_where_sigreg_alone_is_flat():
    def pull(objective):
        z = torch.full((32, 4), 0.2, dtype=torch.float64)
        z = z + 1e-6 * torch.randn(32, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        grown = SpectralObjective(objective, views=1).of(z.mean(0) + 1.1 * (z - z.mean(0)))["objective"]
        return (SpectralObjective(objective, views=1).of(z)["objective"] - grown) / 1e-7

    assert pull(SIGReg()) > 1
    assert abs(pull(SIGReg(variance=0))) < 1e-2


def nt_xent(x, y, temperature):
    """Equation 1 of SimCLR, row by row."""
    z = functional.normalize(torch.cat([x, y]))
    losses = []
    for i in range(2 * N):
        similar = torch.exp(z @ z[i] / temperature)
        partner = (i + N) % (2 * N)
        losses.append(-torch.log(similar[partner] / (similar.sum() - similar[i])))
    return (torch.stack(losses[:N]) + torch.stack(losses[N:])) / 2


def test_sim_clr_is_equation_1(views):
    for temperature in (0.5, 0.1):
        torch.testing.assert_close(sim_clr(*views, temperature), nt_xent(*views, temperature), rtol=1e-12, atol=1e-12)
    inputs = [each[:4].clone().requires_grad_() for each in views]
    assert torch.autograd.gradcheck(sim_clr, inputs)


def test_sim_clr_refuses_what_it_cannot_compare(views):
    with pytest.raises(ValueError, match="two views of the same examples"):
        sim_clr(views[0], views[1][:-1])
    with pytest.raises(ValueError, match="temperature must be positive"):
        sim_clr(*views, temperature=0.0)
