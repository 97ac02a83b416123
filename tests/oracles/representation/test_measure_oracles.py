"""Measures of codes against scikit-learn, SciPy, Pillow and formulas written out from the papers."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from lsdr.moments import Moments
from lsdr.representation.measures.alpha_req import alpha_req
from lsdr.representation.measures.corruptions import CORRUPTIONS, corrupt
from lsdr.representation.measures.knn_probe import knn_probe
from lsdr.representation.measures.lidar import lidar
from lsdr.representation.measures.linear_probe import linear_probe
from lsdr.representation.measures.rank_me import rank_me
from lsdr.representation.measures.retrieval import mean_average_precision
from lsdr.representation.measures.two_views import (
    icc,
    icc_by_dimension,
    icc_of_codes,
    view_components,
)
from lsdr.spectrum import Spectrum


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x = x + np.random.default_rng(0).normal(scale=0.5, size=x.shape)  # no ties, no constant pixels
    return (x[:300], y[:300]), (x[300:500], y[300:500])


def tensors(pair):
    return torch.from_numpy(pair[0]), torch.from_numpy(pair[1])


def two_views(count=4000, dimensions=6, views=2, seed=0):
    """Correlated codes: an example's own part, and an independent one for each view."""
    random = np.random.default_rng(seed)
    own, other = random.normal(size=(dimensions, dimensions)), random.normal(size=(dimensions, dimensions))
    own = own * np.linspace(2, 0.2, dimensions)
    part = random.normal(size=(count, 1, dimensions)) @ own
    return part + random.normal(size=(count, views, dimensions)) @ other + 5, own.T @ own, other.T @ other


def lidar_of_the_paper(z, delta):
    """Equations (3) to (6) of arXiv 2312.04000, for z of shape (n, q, d), the sums as averages."""
    mean = z.mean(1)
    b = (mean - mean.mean(0)).T @ (mean - mean.mean(0)) / len(z)
    rest = (z - mean[:, None]).reshape(-1, z.shape[2])
    w = rest.T @ rest / len(rest) + delta * np.eye(z.shape[2])
    values, axes = np.linalg.eigh(w)
    root = axes / np.sqrt(values) @ axes.T
    eigenvalues = np.linalg.eigvalsh(root @ b @ root)
    p = eigenvalues / np.abs(eigenvalues).sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


def test_lidar_of_two_views_is_the_papers_formula():
    z, *_ = two_views(count=400)
    moments = Moments.of(torch.from_numpy(z[:, 0]), torch.from_numpy(z[:, 1]))
    found = view_components(moments)
    scale = float((found.between + found.within).trace()) / z.shape[2]
    # Ours divides the scatter between examples by n - 1: the floor alone could tell.
    assert lidar(moments, views=2, delta=0.0) == pytest.approx(lidar_of_the_paper(z, 0), rel=1e-9)
    assert lidar(moments, views=2, delta=0.05) == pytest.approx(lidar_of_the_paper(z, 0.05 * scale), rel=1e-9)


@pytest.mark.parametrize("views", [4, 30])
def test_two_views_say_what_the_papers_formula_says_with_more(views):
    z, *_ = two_views(count=20_000, views=views)
    moments = Moments.of(torch.from_numpy(z[:, 0]), torch.from_numpy(z[:, 1]))
    assert lidar(moments, views=views) == pytest.approx(lidar_of_the_paper(z, 1e-4), rel=0.02)


def test_lidar_in_the_limit_of_many_views_is_that_of_the_true_covariances():
    z, between, within = two_views(count=60_000)
    eigenvalues = np.linalg.eigvals(np.linalg.solve(within, between)).real
    p = eigenvalues / eigenvalues.sum()
    truth = float(np.exp(-(p * np.log(p)).sum()))
    found = lidar(Moments.of(torch.from_numpy(z[:, 0]), torch.from_numpy(z[:, 1])), delta=0.0)
    assert found == pytest.approx(truth, rel=0.02)
    assert abs(lidar(Moments.of(torch.from_numpy(z[:, 0]), torch.from_numpy(z[:, 1])), views=2) - truth) > 0.1


def test_intraclass_correlation_is_the_truth_of_the_model():
    z, between, within = two_views(count=60_000)
    a, b = (torch.from_numpy(z[:, view]) for view in (0, 1))
    truth = np.trace(between) / (np.trace(between) + np.trace(within))
    assert icc_of_codes(a, b) == pytest.approx(truth, abs=0.01)
    each = np.diag(between) / (np.diag(between) + np.diag(within))
    np.testing.assert_allclose(icc_by_dimension(a, b).numpy(), each, atol=0.02)


def test_intraclass_correlation_is_that_of_an_analysis_of_variance():
    """ICC(1,1) of Shrout & Fleiss from mean squares, and all three of our ways to it."""
    z, *_ = two_views(count=12, dimensions=3)
    a, b = (torch.from_numpy(z[:, view]) for view in (0, 1))
    mean = z.mean(1)
    between = 2 * ((mean - mean.mean(0)) ** 2).sum(0) / (len(z) - 1)
    within = ((z - mean[:, None]) ** 2).sum((0, 1)) / len(z)
    np.testing.assert_allclose(icc_by_dimension(a, b).numpy(), (between - within) / (between + within), rtol=1e-9)
    total = (between - within).sum() / (between + within).sum()
    assert icc_of_codes(a, b) == pytest.approx(total, rel=1e-9)
    assert icc(view_components(Moments.of(a, b))) == pytest.approx(total, rel=1e-9)


def test_rank_me_is_the_papers_formula():
    codes = np.random.default_rng(0).normal(size=(50, 8)) * np.linspace(1, 3, 8) + 1
    sigma = np.linalg.svd(codes, compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    assert rank_me(torch.from_numpy(codes)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)


def test_decay_is_the_weighted_fit_of_numpy():
    values = np.sort(np.random.default_rng(0).gamma(1.0, size=60))[::-1].copy()
    ranks = np.arange(3, 41)
    slope, _ = np.polyfit(np.log(ranks), np.log(values[2:40]), 1, w=np.sqrt(1 / ranks))
    found = alpha_req(Spectrum.of(torch.from_numpy(values), kind="eigenvalues"), first=3, last=40)
    assert (found.first, found.last) == (3, 40)
    assert found.exponent == pytest.approx(-slope, rel=1e-9)
    exact = alpha_req(Spectrum.of(torch.arange(1, 51, dtype=torch.float64) ** -0.8, kind="eigenvalues"))
    assert (exact.exponent, exact.r_squared) == (pytest.approx(0.8), pytest.approx(1.0))


@pytest.mark.parametrize("few", [False, True], ids=["more examples", "more dimensions"])
def test_linear_probe_is_scikit_learns(digits, few):
    (x, y), (queries, _) = digits
    count = 40 if few else 300
    codes, labels = torch.from_numpy(x[:count]), torch.from_numpy(y[:count])
    probe = linear_probe(codes, labels, strength=0.3)
    scaler = StandardScaler().fit(x[:count])
    theirs = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000).fit(scaler.transform(x[:count]), y[:count])
    expected = theirs.decision_function(scaler.transform(queries))
    ours = probe.logits(torch.from_numpy(queries)).numpy()
    centred = [scores - scores.mean(1, keepdims=True) for scores in (ours, expected)]
    np.testing.assert_allclose(*centred, atol=2e-3)
    assert (probe(torch.from_numpy(queries)).numpy() == theirs.predict(scaler.transform(queries))).all()


def test_knn_probe_is_scikit_learns(digits):
    (x, y), (queries, _) = digits
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = theirs.fit(x, y).predict(queries)
    ours = knn_probe(*tensors((x, y)), torch.from_numpy(queries))
    assert (ours.numpy() == expected).all()
    # A neighbour that is the query itself would always be right.
    itself = knn_probe(*tensors((x, y)), torch.from_numpy(x), k=1, itself=True)
    nearest = KNeighborsClassifier(2, metric="cosine").fit(x, y).kneighbors(x, return_distance=False)[:, 1]
    assert (itself.numpy() == y[nearest]).all()


def test_mean_average_precision_is_scikit_learns(digits):
    (x, y), (queries, wanted) = digits
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, x)]
    scores = unit[0] @ unit[1].T
    expected = np.mean([average_precision_score(y == label, row) for label, row in zip(wanted, scores, strict=True)])
    assert mean_average_precision(*tensors((queries, wanted)), *tensors((x, y))) == pytest.approx(expected, rel=1e-9)


# The table of make_cifar_c.py (Hendrycks & Dietterich), severities 1 to 5.
PUBLISHED = {
    "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot_noise": [500, 250, 100, 75, 50],
    "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
    "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
    "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    "jpeg_compression": [80, 65, 58, 50, 40],
}


def test_constants_are_those_published():
    assert {name: list(each.constants) for name, each in CORRUPTIONS.items()} == PUBLISHED


@pytest.fixture(scope="module")
def picture():
    smooth = np.random.default_rng(1).random((6, 6, 3))
    return np.asarray(Image.fromarray((smooth * 255).astype(np.uint8)).resize((32, 32), Image.BICUBIC))


def ours(picture, name, severity, seed=0):
    images = torch.from_numpy(picture / 255).permute(2, 0, 1)[None]
    return corrupt(images, name, severity, torch.Generator().manual_seed(seed))[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("severity", [1, 5])
def test_what_is_not_random_is_what_pillow_and_scipy_do(picture, severity):
    x = picture / 255
    blurred = np.stack(
        [gaussian_filter(x[..., c], PUBLISHED["gaussian_blur"][severity - 1], mode="nearest") for c in range(3)], -1
    )
    np.testing.assert_allclose(ours(picture, "gaussian_blur", severity), blurred, atol=1e-9)

    scale = PUBLISHED["pixelate"][severity - 1]
    planes = [Image.fromarray(x[..., c].astype(np.float32)) for c in range(3)]
    small = [plane.resize((int(32 * scale),) * 2, Image.BOX).resize((32, 32), Image.BOX) for plane in planes]
    expected = np.stack([np.asarray(plane) for plane in small], -1)
    np.testing.assert_allclose(ours(picture, "pixelate", severity), expected, atol=1e-6)

    more = PUBLISHED["brightness"][severity - 1]
    lighter = np.empty_like(x)
    for place in np.ndindex(32, 32):
        h, s, v = colorsys.rgb_to_hsv(*x[place])
        lighter[place] = colorsys.hsv_to_rgb(h, s, min(v + more, 1))
    np.testing.assert_allclose(ours(picture, "brightness", severity), lighter, atol=1e-9)

    mean, factor = x.mean((0, 1)), PUBLISHED["contrast"][severity - 1]
    np.testing.assert_allclose(ours(picture, "contrast", severity), (x - mean) * factor + mean, atol=1e-9)

    assert np.abs(ours(picture, "jpeg_compression", severity) - x).mean() < 0.05
    assert np.unique(ours(picture, "jpeg_compression", severity) * 255 % 1).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "spread"), [("gaussian_noise", 0.1), ("shot_noise", (0.5 / 50) ** 0.5), ("speckle_noise", 0.1)]
)
def test_noise_has_the_deviation_that_it_should(name, spread):
    grey = np.full((64, 64, 3), 127.5)
    found = ours(grey, name, 5)
    assert found.std() == pytest.approx(spread, rel=0.05)
    assert found.mean() == pytest.approx(0.5, abs=0.01)
    assert (ours(grey, name, 5) == found).all()
    assert (ours(grey, name, 5, seed=1) != found).any()


def test_impulses_are_as_many_white_as_black():
    found = ours(np.full((128, 128, 3), 127.5), "impulse_noise", 5)
    assert np.isin(found, [0, 0.5, 1]).all()
    assert (found == 0).mean() == pytest.approx(0.035, abs=0.005)
    assert (found == 1).mean() == pytest.approx(0.035, abs=0.005)


def test_any_number_of_channels_and_any_size():
    images = torch.rand(2, 5, 9, 12)
    for name in CORRUPTIONS:
        found = corrupt(images, name, 3, torch.Generator().manual_seed(0))
        assert found.shape == images.shape
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
    with pytest.raises(ValueError, match="there is no corruption 'fog'; there are gaussian_noise"):
        corrupt(images, "fog", 3, torch.Generator())
    with pytest.raises(ValueError, match="severity must be 1 to 5, got 0"):
        corrupt(images, "contrast", 0, torch.Generator())
