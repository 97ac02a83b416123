"""Ordered codes: the first k dimensions are the best k, against brute force, scipy and canonical correlations."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA

from lsdr.moments import Moments
from lsdr.representation.data.fields import TableFields
from lsdr.representation.encoder import Encoder
from lsdr.representation.ordered_codes import OrderedCodes, two_view_moments
from lsdr.representation.views.view import View

pytestmark = pytest.mark.filterwarnings("ignore:Maximum number of iterations reached")


def two_views(seed, n=200, d=5, noise=1.0):
    """Codes that share directions of very different strength, mixed by a matrix far from orthogonal."""
    generator = np.random.default_rng(seed)
    turns = [np.linalg.qr(generator.normal(size=(d, d)))[0] for _ in range(2)]
    mix = turns[0] * np.logspace(-1, 1, d) @ turns[1]
    shared = generator.normal(size=(n, d))
    spread = noise * np.linspace(0.1, 3, d)
    offset = 10 * generator.normal(size=d)
    return tuple((shared + spread * generator.normal(size=(n, d))) @ mix + offset for _ in range(2))


def both_orders(a, b):
    """Covariance and cross-covariance of the pairs (a, b) and (b, a) together, written out."""
    x, y = np.concatenate([a, b]), np.concatenate([b, a])
    mean = x.mean(0)
    return (x - mean).T @ (x - mean) / len(x), (x - mean).T @ (y - mean) / len(x)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 5))
def test_no_k_directions_share_more_than_the_first_k(seed, k):
    a, b = two_views(seed)
    covariance, shared = both_orders(a, b)
    ordered = OrderedCodes.of(Moments.of(a, b))
    w = ordered.rotation[:, :k].numpy()
    best = float(ordered.correlations[:k].sum())
    assert np.trace(w.T @ shared @ w) == pytest.approx(best, rel=1e-9)
    codes = [ordered(torch.tensor(view), k, scale="unit").numpy() for view in (a, b)]
    assert np.square(codes[0] - codes[1]).sum(1).mean() == pytest.approx(2 * (k - best), rel=1e-8)
    generator = np.random.default_rng(seed + 1)
    for closeness in (None, 1e-1, 1e-3):  # any subspace, and those near the first k columns
        for _ in range(30):
            other = generator.normal(size=(5, k))
            if closeness:
                other = np.eye(5)[:, :k] + closeness * other
            other = ordered.rotation.numpy() @ np.linalg.qr(other)[0]
            np.testing.assert_allclose(other.T @ covariance @ other, np.eye(k), atol=1e-8)
            assert np.trace(other.T @ shared @ other) <= best + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_directions_are_those_of_the_generalised_eigenproblem(seed):
    a, b = two_views(seed)
    covariance, shared = both_orders(a, b)
    values, vectors = scipy.linalg.eigh(shared, covariance)  # vectors have unit variance
    ordered = OrderedCodes.of(Moments.of(torch.tensor(a), torch.tensor(b)))
    np.testing.assert_allclose(ordered.correlations, values[::-1], rtol=1e-9)
    np.testing.assert_allclose(ordered.rotation.abs(), np.abs(vectors[:, ::-1]), rtol=1e-6, atol=1e-9)
    assert (ordered.correlations.diff() < 0).all()
    largest = ordered.rotation.gather(0, ordered.rotation.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()  # of w and -w always the same one


def test_correlations_are_canonical_ones():
    a, b = two_views(3)
    ordered = OrderedCodes.of(Moments.of(a, b))
    x, y = np.concatenate([a, b]), np.concatenate([b, a])
    found = CCA(n_components=3, max_iter=5000, tol=1e-12).fit(x, y)
    scores = found.transform(x, y)
    canonical = [np.corrcoef(scores[0][:, i], scores[1][:, i])[0, 1] for i in range(3)]
    np.testing.assert_allclose(ordered.correlations[:3], canonical, rtol=1e-6)
    for i in range(3):
        mine = ordered(torch.tensor(x))[:, i].numpy()
        assert abs(np.corrcoef(mine, scores[0][:, i])[0, 1]) == pytest.approx(1, abs=1e-6)


def test_ordered_codes_are_white_and_centred():
    a, b = two_views(4)
    ordered = OrderedCodes.of(Moments.of(a, b))
    codes = ordered(torch.tensor(np.concatenate([a, b])), scale="unit").numpy()
    np.testing.assert_allclose(codes.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(codes.T @ codes / len(codes), np.eye(5), atol=1e-8)


def test_the_first_k_dimensions_do_not_depend_on_k():
    a, b = two_views(5)
    ordered = OrderedCodes.of(Moments.of(a, b))
    whole = ordered(torch.tensor(a))
    for k in (1, 3, 5):
        torch.testing.assert_close(ordered(torch.tensor(a), k), whole[:, :k], rtol=1e-12, atol=1e-12)


def test_an_invertible_map_of_the_codes_changes_nothing():
    a, b = two_views(6)
    mix = np.random.default_rng(0).normal(size=(5, 5)) + 3 * np.eye(5)
    plain = OrderedCodes.of(Moments.of(a, b))
    mixed = OrderedCodes.of(Moments.of(a @ mix, b @ mix))
    np.testing.assert_allclose(mixed.correlations, plain.correlations, rtol=1e-7)
    one, other = plain(torch.tensor(a), scale="unit"), mixed(torch.tensor(a @ mix), scale="unit")
    torch.testing.assert_close(
        (one * other).mean(0).abs() / one.square().mean(0), torch.ones(5).double(), rtol=1e-6, atol=0
    )


def test_chunks_and_swapped_views_give_the_same_order():
    a, b = (torch.tensor(view) for view in two_views(7))
    whole = OrderedCodes.of(Moments.of(a, b))
    chunked, swapped = (
        OrderedCodes.of(Moments.of(a[:50], b[:50]).update(a[50:], b[50:])),
        OrderedCodes.of(Moments.of(b, a)),
    )
    for other in (chunked, swapped):
        torch.testing.assert_close(other.rotation, whole.rotation, rtol=1e-7, atol=1e-9)


def test_scales_are_what_views_share_over_what_they_do_not():
    a, b = (torch.tensor(view) for view in two_views(8, noise=0.5))
    ordered = OrderedCodes.of(Moments.of(a, b))
    first, second = ordered(a, 3), ordered(b, 3)
    within = (first - second).square().mean(0) / 2
    total = torch.cat([first, second]).square().mean(0)
    torch.testing.assert_close(
        (total - within) / within, total, rtol=1e-9, atol=0
    )  # between over within is rho / (1 - rho)
    torch.testing.assert_close(
        first / ordered(a, 3, scale="unit"), ordered.scales[:3].expand(200, 3), rtol=1e-9, atol=0
    )


def test_scales_stay_finite_where_views_share_all_or_nothing():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    ordered = OrderedCodes.of(Moments.of(a, a * torch.tensor([1.0, -1.0])))
    torch.testing.assert_close(ordered.correlations, torch.tensor([1.0, -1.0], dtype=torch.float64), atol=0.02, rtol=0)
    assert ordered.scales.tolist() == pytest.approx([999**0.5, 99**-0.5], rel=1e-9)
    assert ordered(a, scale="unit")[:, 1].std() > 0.9


def test_outliers_lead_the_order_unless_the_moments_are_robust():
    """Outliers agree between views, so they look like the best direction; robust moments do not see them."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 3, generator=generator)
    rows[:20, 2] += 100

    class Noisy(View):
        def draws(self, count, generator):
            return {"noise": torch.randn(count, 3, generator=generator) * torch.tensor([0.3, 1.0, 3.0])}

        def __call__(self, inputs, draws):
            return {"numeric": inputs["numeric"] + draws["noise"]}

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 400

        def __getitems__(self, positions):
            index = torch.as_tensor(positions)
            return {"numeric": rows[index], "index": index}

    fields = TableFields(("a", "b", "c"), (), (), (0.0,) * 3, (1.0,) * 3, ())
    view = Noisy(fields, (), ())
    encoder = Encoder(torch.nn.Identity(), torch.nn.Identity(), fields)
    encoder.features = lambda inputs: inputs["numeric"]
    encoder.train()
    state = torch.get_rng_state()
    first = {}
    for robust in ("none", "trimmed", "huber"):
        moments = two_view_moments(encoder, Rows(), fields, view, robust=robust, batch_size=150)
        spread = moments.covariance().diagonal().sqrt()
        first[robust] = (OrderedCodes.of(moments).rotation[:, 0].abs() * spread).argmax().item()
    assert first == {"none": 2, "trimmed": 0, "huber": 0}
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), state)
    again = [two_view_moments(encoder, Rows(), fields, view, batch_size=size).covariance() for size in (400, 150)]
    assert again[0].dtype == torch.float64
    other = two_view_moments(encoder, Rows(), fields, view, seed=1).covariance()
    assert not torch.allclose(again[0], other)


def test_dependent_and_constant_codes_lose_their_empty_directions():
    a, b = two_views(9, d=3)
    widened = [
        torch.tensor(np.concatenate([view, view @ np.ones((3, 2)), np.full((len(view), 1), 7.0)], 1)) for view in (a, b)
    ]
    ordered = OrderedCodes.of(Moments.of(*widened))
    assert ordered.rotation.shape == (6, 3)
    np.testing.assert_allclose(ordered.correlations, OrderedCodes.of(Moments.of(a, b)).correlations, rtol=1e-6)
    assert torch.isfinite(ordered(widened[0])).all()


def test_codes_of_float32_far_from_the_origin_have_no_directions_of_rounding():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(400, 1, generator=generator)
    a, b = (1e3 + shared + 0.3 * torch.randn(400, 1, generator=generator) for _ in range(2))
    a, b = (torch.cat([view, view * 0.3], 1) for view in (a, b))
    assert OrderedCodes.of(Moments.of(a.double(), b.double())).rotation.shape == (2, 1)


def test_tensors_and_back():
    a, b = two_views(10)
    ordered = OrderedCodes.of(Moments.of(a, b))
    again = OrderedCodes.from_tensors(ordered.tensors())
    assert torch.equal(again(torch.tensor(a)), ordered(torch.tensor(a)))
    assert ordered(torch.tensor(a).float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        (lambda a, b: Moments.of(a), "one view"),
        (lambda a, b: Moments.of(a, b[:, :3]), "two views of the same codes"),
        (lambda a, b: Moments.of(a[:, None], b[:, None]), "rows of shape"),
        (lambda a, b: Moments.of(a[:1], b[:1]), "two samples"),
        (lambda a, b: Moments.of(a * 0 + 1, b * 0 + 1), "do not vary"),
        (lambda a, b: Moments.of(a, b + np.where(np.arange(5) > 3, np.nan, 0)), "NaN"),
    ],
)
def test_what_cannot_be_ordered_is_refused(moments, message):
    with pytest.raises(ValueError, match=message):
        OrderedCodes.of(moments(*two_views(0)))


def test_dimensions_that_are_not_there_are_refused():
    a, b = two_views(0)
    ordered = OrderedCodes.of(Moments.of(a, b))
    for k in (0, 6):
        with pytest.raises(ValueError, match="from 1 to 5"):
            ordered(torch.tensor(a), k)
    with pytest.raises(ValueError, match=r"\(n, 5\)"):
        ordered(torch.tensor(a)[:, :4])
