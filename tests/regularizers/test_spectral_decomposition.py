"""The values of SpectralDecomposition against operators that are known, and its errors."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdr.diffusion.edm import EDMDenoiser
from lsdr.regularizers._running_mean import RunningMean
from lsdr.regularizers._shares import Share
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decomposition import SpectralDecomposition

sys.path.insert(0, str(Path(__file__).parent))
from decomposed import PENALTIES, Matrix, dense, generator, signs, unet


def measured(denoiser, x, sigma, model=None, calls=1, **settings):
    """The term after `calls` calls, all with the same directions, and its last value."""
    given = {"fraction": 1, "weight": 1.0, **settings}
    context = {key: given.pop(key) for key in ("sigma_next", "conditioning") if key in given}
    with SpectralDecomposition(**given).attach(model or denoiser) as term:
        for _ in range(calls):
            denoised = denoiser(x, sigma, context.get("conditioning"))
            value = term(
                denoiser=denoiser, noisy=x, sigma=sigma, denoised=denoised, generator=generator(), **context
            ).detach()
    return term, value


def random_matrix(d=6, seed=1):
    return torch.randn(d, d, generator=generator(seed), dtype=torch.float64) * 0.5 + 0.4 * torch.eye(d).double()


FRAMES = {"exploding": lambda s: 1 + 0 * s, "preserving": lambda s: (1 + s**2) ** -0.5, "flow": lambda s: 1 / (1 + s)}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 3, 2), (1, 3, 1, 2)], ids=str)
def test_extreme_values_are_those_of_the_dense_step(frame, shape):
    matrix, sigma = random_matrix(), torch.tensor([0.3, 2.0, 7.0], dtype=torch.float64)
    x = torch.randn(3, *shape, dtype=torch.float64)
    scale = FRAMES[frame](0.7 * sigma) / FRAMES[frame](sigma)
    steps = [a * (0.7 * torch.eye(6) + 0.3 * matrix) for a in scale]
    bounds = [float(a * (0.7 + 0.3 * 0.5)) for a in scale]
    for of, take in (
        ("eigenvalues", lambda j: torch.linalg.eigvalsh((j + j.T) / 2).flip(0)),
        ("singular_values", torch.linalg.svdvals),
    ):
        expected = [(take(j)[:2] - c).relu().square().sum() for j, c in zip(steps, bounds, strict=True)]
        assert min(expected) > 1e-3
        settings = {"penalty": "hinge", "of": of, "k": 2, "iterations": 4, "bound": 0.5, "frame": frame}
        term, value = measured(Matrix(matrix), x, sigma, **settings)
        torch.testing.assert_close(value, torch.stack(expected).mean(), rtol=1e-6, atol=0)
        gain = torch.stack([take(j)[0] for j in steps]).mean()
        torch.testing.assert_close(term.values["gain"], gain, rtol=1e-6, atol=0)
    smallest = torch.linalg.eigvalsh((matrix + matrix.T) / 2)[:2]
    assert smallest[0] < -0.1
    _, value = measured(Matrix(matrix), x, sigma, penalty="negative_eigenvalues", k=2, iterations=4, frame=frame)
    torch.testing.assert_close(value, (-smallest).relu().square().sum(), rtol=1e-6, atol=0)


def test_few_iterations_give_lower_bounds():
    matrix, x, sigma = random_matrix(30), torch.randn(40, 30, dtype=torch.float64), torch.tensor(1.0).double()
    largest = {
        "eigenvalues": torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1],
        "singular_values": torch.linalg.svdvals(matrix)[0],
    }
    for of, truth in largest.items():
        found = [
            measured(Matrix(matrix), x, sigma, penalty="hinge", of=of, ratio=0, iterations=n)[0].values["gain"]
            for n in (1, 2, 4, 8)
        ]
        assert sorted(found) == found
        assert found[0] < 0.9 * truth
        assert 0.97 * truth < found[-1] < truth * (1 + 1e-9)


def test_the_search_starts_towards_the_estimate():
    """Of a projection on one direction, in 100: a random start alone has a hundredth of it."""
    direction = nn.functional.normalize(torch.randn(100, generator=generator(), dtype=torch.float64), dim=0)
    denoiser, x = Matrix(torch.outer(direction, direction)), torch.randn(50, 100, dtype=torch.float64)
    for of in ("eigenvalues", "singular_values"):
        settings = {"penalty": "hinge", "ratio": 0, "of": of, "iterations": 1}
        assert measured(denoiser, x, torch.tensor(1.0).double(), **settings)[0].values["gain"] > 0.4


def test_norms_are_unbiased():
    matrix, n, d = random_matrix(), 20000, 6
    x, sigma = torch.randn(n, d, dtype=torch.float64), torch.tensor(1.0).double()
    step = 0.7 * torch.eye(d) + 0.3 * matrix
    expected = {
        ("eigenvalues", "frobenius"): ((step + step.T) / 2).square().sum() / d,
        ("singular_values", "frobenius"): step.square().sum() / d,
        ("eigenvalues", "asymmetry"): (step - step.T).square().sum() / d,
    }
    for (of, penalty), truth in expected.items():
        term, value = measured(Matrix(matrix), x, sigma, penalty=penalty, of=of)
        torch.testing.assert_close(value, truth, rtol=0.04, atol=0)
        torch.testing.assert_close(term.values["gain"], step.trace() / d, rtol=0.01, atol=0)
    for of, truth in (("eigenvalues", step.trace() / d), ("singular_values", step.norm() / d**0.5)):
        term, _ = measured(Matrix(matrix), x, sigma, of=of)
        torch.testing.assert_close(term.values["gain"], truth, rtol=0.03, atol=0)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 80.0])
def test_zero_where_the_denoiser_is_optimal_for_gaussian_data(sigma):
    turn = torch.linalg.qr(random_matrix(8)).Q
    variances, sigma = torch.logspace(-2, 1, 8, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
    denoiser = Matrix(turn @ torch.diag(variances / (variances + sigma**2)) @ turn.T)
    x = torch.randn(4, 8, dtype=torch.float64)
    for penalty in ("asymmetry", "negative_eigenvalues", "hinge"):
        _, value = measured(denoiser, x, sigma, penalty=penalty, iterations=8)
        assert value < 1e-15, penalty
    _, biased = measured(denoiser, x, sigma, penalty="frobenius", ratio=0)
    assert biased > 0 or sigma > 10


def test_between_two_clusters_the_optimum_is_above_one():
    def denoiser(x, sigma, conditioning=None):
        return torch.tanh(x / sigma.view(-1, 1) ** 2)

    x, sigma = torch.zeros(2, 3, dtype=torch.float64), torch.full((2,), 0.3, dtype=torch.float64)
    settings = {"penalty": "hinge", "ratio": 0, "iterations": 3, "step": 1e-6, "model": nn.Identity()}
    term, value = measured(denoiser, x, sigma, **settings)
    torch.testing.assert_close(term.values["gain"], torch.tensor(1 / 0.3**2).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close(value, torch.tensor((1 / 0.3**2 - 1) ** 2).double(), rtol=1e-4, atol=0)
    _, value = measured(denoiser, x, sigma, bound=11.2, **settings)
    assert value == 0


@pytest.mark.parametrize("of", ["eigenvalues", "singular_values"])
def test_dispersion_is_from_the_mean_at_that_noise_level(of):
    """D = s(x) x with another s for each image and noise level: q is then known exactly."""

    def denoiser(x, sigma, conditioning=None):
        return conditioning.view(-1, 1) * x

    def term_of(scales, sigma):
        x = torch.ones(len(scales), 5, dtype=torch.float64)
        term(denoiser=denoiser, noisy=x, sigma=sigma, conditioning=scales, generator=generator())
        return term.values["dispersion"]

    low, high = torch.tensor(0.02).double(), torch.tensor(30.0).double()
    tensor = lambda *values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    with SpectralDecomposition(of=of, ratio=0, fraction=1).attach(nn.Identity()) as term:
        assert term_of(tensor(0.2, 0.4), low) == 0  # nothing was seen at this noise level yet
        assert term_of(tensor(5.0, 7.0), high) == 0
        torch.testing.assert_close(term_of(tensor(0.3), low), torch.tensor(0.0).double(), atol=1e-12, rtol=0)
        torch.testing.assert_close(term_of(tensor(0.5), low), torch.tensor(0.04).double())
        torch.testing.assert_close(term_of(tensor(8.0), high), torch.tensor(4.0).double())


def test_running_mean_follows_and_interpolates():
    step = Share(0, 1, 1, 1, last=True)
    mean, nodes = RunningMean(), torch.logspace(-3, 3, 16, dtype=torch.float64)
    mean.add(nodes, torch.arange(16.0))
    at = (nodes[3] * nodes[4]).sqrt()[None]
    assert mean.at(at)[1] == 0
    mean.close(Share(0, 1, 2, 1, last=False))
    assert mean.at(at)[1] == 0
    mean.close(step)
    torch.testing.assert_close(mean.at(at)[0], torch.tensor([3.5]).double())
    torch.testing.assert_close(mean.at(torch.tensor([1e-9, 1e9]).double())[0], torch.tensor([0.0, 15.0]).double())
    for value in 2000 * [100.0] + 600 * [50.0]:
        mean.add(nodes[:1], torch.tensor([value]))
        mean.add(nodes[:1], torch.tensor([torch.nan]))
        mean.add(torch.tensor([torch.nan]).double(), torch.tensor([7.0]))
        mean.close(step)
    assert 50 < mean.at(nodes[:1])[0] < 56
    torch.testing.assert_close(mean.at(nodes[1:2])[0], torch.tensor([1.0]).double())


def test_only_a_fraction_of_the_images_is_looked_at():
    seen = []

    def denoiser(x, sigma, conditioning=None):
        seen.append((x[:, 0].tolist(), sigma.tolist(), [conditioning[0].tolist(), conditioning[1]["t"].tolist()]))
        return 0.5 * x

    x = torch.arange(10.0).view(-1, 1).repeat(1, 5).double()
    rows = torch.arange(10)
    with SpectralDecomposition(fraction=0.25, step=1e-9).attach(nn.Identity()) as term:
        context = {"denoiser": denoiser, "noisy": x, "sigma": 1 + rows.double()}
        passes = []
        for _ in range(5):
            seen.clear()
            estimate = (0.5 * x).requires_grad_()
            term(**context, denoised=estimate, conditioning=(rows, {"t": 10 * rows}))
            passes.append(len(seen))
    assert passes == [2, 2, 1, 2, 1]  # now and then the estimate that it was given is looked at
    (images, sigmas, (labels, texts)) = seen[-1]
    assert [round(value) for value in images] == labels == [0, 4, 8]
    assert sigmas == [1, 5, 9]
    assert texts == [0, 40, 80]


@pytest.mark.parametrize("estimator", ["auto", "forward_mode", "reverse_mode"])
@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_every_estimator_measures_the_dense_jacobian_of_a_network(of, penalty, estimator):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1)).double()

    def denoiser(x, sigma, conditioning=None):
        return x - net(x)

    x, sigma = torch.randn(3, 1, 3, 4, dtype=torch.float64), torch.tensor([0.5, 1.0, 2.0]).double()
    check_against_dense(denoiser, net, x, sigma, of, penalty, estimator)


@pytest.mark.parametrize("estimator", ["auto", "reverse_mode"])
@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_measures_the_dense_jacobian_of_a_unet_with_attention(of, penalty, estimator):
    net = unet().double()
    x, sigma = torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.tensor([0.5, 2.0]).double()
    check_against_dense(EDMDenoiser(net), net, x, sigma, of, penalty, estimator)


def check_against_dense(denoiser, net, x, sigma, of, penalty, estimator):
    after = 0.4 * sigma
    d, jacobian = x[0].numel(), dense(denoiser, x, sigma)
    step = 0.4 * torch.eye(d) + 0.6 * jacobian
    u_v = signs(len(x), 2, x.shape[1:]).flatten(2)
    symmetric = (step + step.mT) / 2
    form = lambda a, m, b: torch.einsum("ni,nij,nj->n", a, m, b)  # noqa: E731
    if penalty in ("hinge", "negative_eigenvalues"):
        values = torch.linalg.svdvals(step) if of == "singular_values" else torch.linalg.eigvalsh(symmetric).flip(-1)
        expected = (values[:, :1] - 0.4).relu().square().sum(1)
        if penalty == "negative_eigenvalues":
            values = torch.linalg.eigvalsh((jacobian + jacobian.mT) / 2)
            expected = (-values[:, :1]).relu().square().sum(1)
    elif penalty == "dispersion" or (penalty, of) == ("frobenius", "singular_values"):
        (v,) = signs(len(x), 1, x.shape[1:]).flatten(2)
        transposed = estimator == "reverse_mode"  # the same in the mean
        product = torch.einsum("nji,nj->ni" if transposed else "nij,nj->ni", step, v)
        expected = product.square().sum(1) / d if penalty == "frobenius" else torch.zeros(())
        gain = (v * product).sum(1) / d if of == "eigenvalues" else product.norm(dim=1) / d**0.5
    elif penalty == "frobenius":
        expected = form(u_v[1], symmetric, u_v[0]).square() / d
    else:
        expected = (form(u_v[1], step, u_v[0]) - form(u_v[0], step, u_v[1])).square() / d
    settings = {"of": of, "penalty": penalty, "estimator": estimator, "bound": 0.0, "iterations": d}
    term, value = measured(denoiser, x, sigma, model=net, sigma_next=after, **settings)
    torch.testing.assert_close(value, expected.mean().to(value), rtol=2e-4, atol=1e-9)
    if penalty == "dispersion":
        torch.testing.assert_close(term.values["gain"], gain.mean(), rtol=1e-5, atol=0)


def test_no_step_has_no_bad_numbers():
    x = torch.zeros(4, 1, 2, 2)
    for of, penalty in PENALTIES:
        for scale in (0.0, 1.0):  # a constant estimate; an operator with one eigenvalue
            model = Matrix(scale * torch.eye(4))
            with SpectralDecomposition(of=of, penalty=penalty, ratio=0, k=3, fraction=1).attach(model) as term:
                for _ in range(2):
                    value = term(denoiser=model, noisy=x, sigma=torch.tensor(0.5))
            value.backward()
            assert value.abs() < 1e-5 or penalty == "frobenius"
            assert value.isfinite(), (of, penalty, scale)
            assert model.layer.weight.grad.isfinite().all(), (of, penalty, scale)


def test_says_what_was_chosen_once(caplog):
    model, x = Matrix(torch.eye(3)), torch.randn(2, 3)
    caplog.set_level(logging.INFO, logger="lsdr")
    term, _ = measured(model, x, torch.tensor(1.0), calls=3)
    assert term.chosen == "finite differences, from the training pass, float32"
    assert len(caplog.records) == 1
    assert term.chosen in caplog.text
    term, _ = measured(model, x, torch.tensor(1.0), estimator="reverse_mode")
    assert "reverse mode" in term.chosen


def test_weight_zero_adds_nothing_and_measures_all_the_same():
    model, x = Matrix(random_matrix()), torch.randn(2, 6, dtype=torch.float64)
    with attach(model, SpectralDecomposition(penalty="frobenius", weight=0.0)) as penalty:
        value = penalty(denoiser=model, noisy=x, sigma=torch.tensor(1.0).double())
    assert value == 0
    assert not value.requires_grad
    assert penalty.values["SpectralDecomposition/frobenius"] > 0


def test_values_are_without_the_weight():
    model, x = Matrix(random_matrix()), torch.randn(2, 6, dtype=torch.float64)
    term, value = measured(model, x, torch.tensor(1.0).double(), penalty="frobenius", weight=0.25)
    torch.testing.assert_close(term.values["frobenius"] * 0.25, value)


def test_a_network_that_diverged_gives_nan_for_the_guard():
    for of, penalty in PENALTIES[2:]:
        model, x = Matrix(torch.full((3, 3), torch.nan)), torch.randn(2, 3)
        assert measured(model, x, torch.tensor(1.0), penalty=penalty, of=of)[1].isnan(), (of, penalty)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "values"}, "of must be one of eigenvalues, singular_values, got 'values'"),
        ({"penalty": "spread"}, "penalty must be one of dispersion"),
        ({"frame": "ddpm"}, "frame must be one of"),
        ({"estimator": "jvp"}, "estimator must be one of"),
    ],
)
def test_refuses_names(settings, message):
    regularizer = object.__new__(SpectralDecomposition)  # past the type checker of the tests
    vars(regularizer).update(vars(SpectralDecomposition()) | settings)
    with pytest.raises(ValueError, match=message):
        regularizer.__post_init__()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": "asymmetry", "of": "singular_values"}, "about eigenvalues"),
        ({"ratio": 1.0}, r"in \[0, 1\); got 1.0"),
        ({"weight": -1}, "weight must be finite"),
        ({"weight": float("nan")}, "weight must be finite"),
        ({"fraction": 0}, r"in \(0, 1\]; got 0"),
        ({"bound": -0.1}, "bound must be finite"),
        ({"k": 0}, "at least 1, got k=0"),
        ({"iterations": 0}, "iterations=0"),
        ({"step": 0.0}, "step must be positive"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SpectralDecomposition(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": torch.tensor(0.0)}, "sigma must be positive and finite, got"),
        ({"sigma": torch.tensor([1.0, torch.nan])}, "sigma must be positive"),
        ({"sigma": torch.tensor([1.0, -1.0])}, "sigma must be positive"),
        ({"sigma": torch.ones(3)}, r"one for each of 2; got shape \(3,\)"),
        ({"sigma": 0.5}, "sigma must be a tensor.*got 0.5"),
        ({"sigma_next": torch.tensor(1.0)}, r"sigma_next must be in \[0, sigma\)"),
        ({"sigma_next": torch.tensor(-0.1)}, "sigma_next must be in"),
        ({"noisy": torch.full((2, 3), torch.nan)}, "NaN or infinite"),
        ({"noisy": torch.full((2, 3), torch.inf)}, "NaN or infinite"),
        ({"noisy": torch.ones(2, 3, dtype=torch.int64)}, "of floats"),
        ({"noisy": torch.ones(2)}, "noisy must be images"),
        ({"denoised": torch.ones(2, 4)}, r"denoised has shape \(2, 4\) and noisy \(2, 3\)"),
        ({"denoiser": lambda x, sigma, conditioning: x[:, :1]}, "they must be the same"),
    ],
)
def test_refuses_a_context(change, message):
    model = Matrix(torch.eye(3))
    context = {"denoiser": model, "noisy": torch.ones(2, 3), "sigma": torch.tensor(1.0), **change}
    with attach(model, SpectralDecomposition(fraction=1)) as penalty, pytest.raises(ValueError, match=message):
        penalty(**context)


def test_says_what_is_missing():
    with (
        attach(nn.Identity(), SpectralDecomposition()) as penalty,
        pytest.raises(TypeError, match=r"needs denoiser, sigma; call penalty\(denoiser=denoiser"),
    ):
        penalty(noisy=torch.ones(2, 3))


def test_refuses_more_values_than_there_are():
    model = Matrix(torch.eye(3))
    with (
        attach(model, SpectralDecomposition(k=4, penalty="hinge")) as penalty,
        pytest.raises(ValueError, match="k=4, but an image has 3 numbers"),
    ):
        penalty(denoiser=model, noisy=torch.ones(2, 3), sigma=torch.tensor(1.0))
