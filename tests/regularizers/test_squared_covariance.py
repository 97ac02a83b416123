"""The mathematics: against literal sums, brute force over tuples, and Monte Carlo."""

import itertools

import pytest
import torch

from lsdr.regularizers._decorrelation_value import Recipe, moments_of_features, value_of_features, value_of_moments

FORMS = ["as_written", "covariance", "correlation"]
ESTIMATORS = ["plug_in", "split_half", "u_statistic"]
DEFINED = [*itertools.product(ESTIMATORS, ["samples"]), ("plug_in", "inner_product"), ("split_half", "inner_product")]


def value(x, form="as_written", estimator="plug_in", positions="samples", floor=0.0):
    """Of features ordered samples, channels, positions, as the formula has them."""
    return value_of_features(x, Recipe(form, estimator, positions, floor))


def features(n=7, d=3, p=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=dtype)
    z = torch.einsum("ij,njp->nip", mix, torch.randn(n, d, p, generator=generator, dtype=dtype))
    return z + torch.randn(d, p, generator=generator, dtype=dtype)


def literal(z):
    """The formula of the founding conversation, letter by letter: O(N^2) pairs."""
    n, d, _ = z.shape
    total = 0.0
    for i in range(d):
        for j in range(d):
            first = sum(torch.dot(z[a, i], z[a, j]) for a in range(n)) / n
            second = sum(torch.dot(z[a, i], z[b, j]) for a in range(n) for b in range(n)) / n**2
            total += (first - second) ** 2
    return total


def test_centring_first_equals_the_double_sum():
    z = features()
    torch.testing.assert_close(value(z, positions="inner_product"), literal(z), rtol=1e-12, atol=0)
    # Positions as samples: the same formula on rows of scalars.
    rows = z.movedim(1, 2).reshape(-1, z.shape[1], 1)
    torch.testing.assert_close(value(z), literal(rows), rtol=1e-12, atol=0)


def test_forms():
    z = features(n=9, d=4, p=3)
    rows = z.movedim(1, 2).reshape(-1, 4)
    covariance = torch.cov(rows.T, correction=0)
    off = ~torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(value(z), covariance.square().sum())
    torch.testing.assert_close(value(z, "covariance"), covariance[off].square().sum() / 4)
    torch.testing.assert_close(value(z, "correlation"), torch.corrcoef(rows.T)[off].square().mean(), rtol=1e-4, atol=0)


def test_the_covariance_term_is_vicregs_but_for_its_divisor():
    x = features(n=9, d=4, p=1).squeeze(2)
    centred = x - x.mean(0)
    covariance = centred.T @ centred / (9 - 1)  # VICReg, eq. 3
    term = (covariance.square().sum() - covariance.diagonal().square().sum()) / 4  # eq. 4
    torch.testing.assert_close(value(x[..., None], "covariance") * (9 / 8) ** 2, term)


def test_the_correlation_form_is_free_of_scale_and_within_0_and_1():
    z = features(n=9, d=4, p=3)
    scaled = z * torch.tensor([1.0, 30.0, 0.3, 5.0])[:, None]
    torch.testing.assert_close(value(z, "correlation"), value(scaled, "correlation"), rtol=1e-4, atol=0)
    same = z[:, :1].expand(-1, 4, -1)
    torch.testing.assert_close(value(same, "correlation"), torch.tensor(1.0).double(), rtol=1e-5, atol=0)


def test_the_hinge_is_the_mean_shortfall_of_standard_deviations():
    z = features(n=9, d=4, p=3)
    deviations = z.movedim(1, 0).flatten(1).std(1, correction=0)
    floor = float(deviations.mean())
    shortfall = torch.relu(floor - deviations).mean()
    assert shortfall > 0.01
    torch.testing.assert_close(
        value(z, "correlation", floor=floor) - value(z, "correlation"), shortfall, rtol=1e-4, atol=0
    )


def test_inner_products_hinge_on_the_root_mean_square_over_positions():
    z = torch.randn(2000, 2, 5, generator=torch.Generator().manual_seed(0)).double() * 0.5
    for positions in ("samples", "inner_product"):
        with_hinge = value(z, "correlation", positions=positions, floor=1.0)
        without = value(z, "correlation", positions=positions)
        torch.testing.assert_close(with_hinge - without, torch.tensor(0.5).double(), rtol=0.05, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("estimator", "positions"), DEFINED)
def test_the_gram_dual_equals_the_primal_in_value_and_gradient(form, estimator, positions):
    recipe = Recipe(form, estimator, positions, 1.0)
    x = features(n=6, d=20, p=2).requires_grad_()  # 12 rows < 20 channels: dual
    dual = value_of_features(x, recipe)
    primal = value_of_moments(moments_of_features(x, recipe), [x], recipe)  # moments know the covariance only
    torch.testing.assert_close(dual, primal, rtol=1e-10, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(result, x)[0] for result in (dual, primal)), rtol=1e-9, atol=1e-12)


def test_the_dual_is_taken_when_rows_are_fewer_than_channels(monkeypatch):
    from lsdr.regularizers import _decorrelation_value as module

    def refuse(*arguments):
        raise AssertionError("the covariance was formed")

    monkeypatch.setattr(module, "centred_product", refuse)
    value(torch.randn(3, 20, 2))
    with pytest.raises(AssertionError, match="formed"):
        value(torch.randn(30, 20, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("estimator", "positions"), DEFINED)
@pytest.mark.parametrize("d", [3, 13])
def test_gradients_match_finite_differences_twice(form, estimator, positions, d):
    x = features(n=6, d=d, p=2).requires_grad_()
    recipe = Recipe(form, estimator, positions, 5.0)
    (gradient,) = torch.autograd.grad(value_of_features(x, recipe), x)
    assert gradient.abs().max() > 1e-4
    assert torch.autograd.gradcheck(lambda x: value_of_features(x, recipe), x)
    if d == 3:
        assert torch.autograd.gradgradcheck(lambda x: value_of_features(x, recipe), x)


@pytest.mark.parametrize("form", ["as_written", "covariance"])
def test_the_u_statistic_is_the_mean_over_distinct_4_tuples(form):
    x = features(n=6, d=3, p=1).squeeze(2)

    def kernel(x):
        return torch.stack(
            [((x[a] - x[b]) @ (x[c] - x[d])) ** 2 / 4 for a, b, c, d in itertools.permutations(range(len(x)), 4)]
        ).mean()

    expected = kernel(x)
    if form == "covariance":
        expected = (expected - sum(kernel(x[:, k : k + 1]) for k in range(3))) / 3
    torch.testing.assert_close(value(x[..., None], form, "u_statistic"), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("estimator", "form", "positions"),
    [
        ("split_half", "as_written", "samples"),
        ("split_half", "covariance", "samples"),
        ("split_half", "as_written", "inner_product"),
        ("u_statistic", "as_written", "samples"),
        ("u_statistic", "covariance", "samples"),
    ],
)
def test_unbiased_by_monte_carlo(estimator, form, positions):
    """Skewed, correlated features around a mean; the mean over many small batches is the truth within its error."""
    p = 2 if positions == "inner_product" else 1
    generator = torch.Generator().manual_seed(1)
    mix = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.4, 0.7]], dtype=torch.float64)
    truth = p * mix @ mix.T
    expected = truth.square().sum()
    if form == "covariance":
        expected = (expected - truth.diagonal().square().sum()) / 3
    batches = torch.empty(2500, 6, 3, p, dtype=torch.float64).exponential_(generator=generator)
    batches = torch.einsum("ij,bnjp->bnip", mix, batches) + 3
    results = torch.stack([value(batch, form, estimator, positions) for batch in batches])
    error = results.std() / len(results) ** 0.5
    assert abs(results.mean() - expected) < 4 * error
    # The test can tell: the biased estimate is far off by the same measure.
    biased = torch.stack([value(batch, form, "plug_in", positions) for batch in batches])
    assert abs(biased.mean() - expected) > 4 * biased.std() / len(results) ** 0.5


def test_the_bias_of_the_plug_in_at_8_samples_of_64_channels():
    """Independent unit features, truth 0 off the diagonal: plug-in d(d-1)(N-1)/N^2 = 441, the unbiased ones 0."""
    d, n = 64, 8
    batches = torch.randn(400, n, d, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_estimator = {
        estimator: torch.stack([value(batch, "covariance", estimator) * d for batch in batches])
        for estimator in ESTIMATORS
    }
    for estimator, expected in (("plug_in", d * (d - 1) * (n - 1) / n**2), ("split_half", 0.0), ("u_statistic", 0.0)):
        results = by_estimator[estimator]
        assert abs(results.mean() - expected) < 4 * results.std() / len(results) ** 0.5
    assert d * (d - 1) * (n - 1) / n**2 == 441
    assert by_estimator["u_statistic"].std() < by_estimator["split_half"].std()


@pytest.mark.parametrize("estimator", ["split_half", "u_statistic"])
def test_correlations_of_independent_channels_average_to_zero(estimator):
    batches = torch.empty(1500, 8, 3, 1, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(0))
    results = torch.stack([value(batch, "correlation", estimator) for batch in batches])
    assert abs(results.mean()) < 4 * results.std() / len(results) ** 0.5
    assert torch.stack([value(batch, "correlation") for batch in batches[:500]]).mean() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_one_sample_has_no_covariance_and_a_finite_gradient(form):
    x = torch.randn(1, 4, 1, requires_grad=True)
    result = value_of_features(x, Recipe(form, "plug_in", "samples", 0.0))
    result.backward()
    assert result == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize(
    ("estimator", "needed"), [("split_half", "2 samples in each half"), ("u_statistic", "4 samples")]
)
def test_too_few_samples_for_an_unbiased_estimate_is_an_error(estimator, needed):
    with pytest.raises(ValueError, match=f"needs {needed}, got"):
        value(torch.randn(3, 4, 1), "correlation", estimator)
    assert value(torch.randn(4, 4, 1), "correlation", estimator).isfinite()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("d", [3, 20])
def test_constant_features_have_a_finite_gradient(form, estimator, d):
    x = torch.full((6, d, 2), 3.7)
    x[:, 0] = torch.randn(6, 2)
    x.requires_grad_()
    result = value_of_features(x, Recipe(form, estimator, "samples", 1.0))
    result.backward()
    assert result.isfinite()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_passed_on(form, estimator, d, bad):
    x = torch.randn(6, d, 2)
    x[2, 1, 0] = bad
    assert value_of_features(x, Recipe(form, estimator, "samples", 0.01)).isnan()


@pytest.mark.parametrize("dual", [False, True])
def test_the_layout_in_memory_does_not_matter(dual):
    recipe = Recipe("correlation", "split_half", "samples", 1.0)
    plain = features(n=6, d=40 if dual else 3, p=4).requires_grad_()
    channels_last = plain.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    assert channels_last.stride(1) == 1 != plain.stride(1)
    results = [value_of_features(x, recipe) for x in (plain, channels_last)]
    torch.testing.assert_close(*results)
    gradients = [torch.autograd.grad(result, x)[0] for result, x in zip(results, (plain, channels_last), strict=True)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(
        value_of_moments(moments_of_features(channels_last, recipe), [channels_last], recipe), results[0]
    )


def test_one_channel_has_nothing_to_be_correlated_with():
    x = torch.randn(8, 1, 3)
    for estimator in ESTIMATORS:
        for form in ("covariance", "correlation"):
            assert value_of_features(x, Recipe(form, estimator, "samples", 0.0)) == 0


def test_float32_is_exact_far_from_the_origin():
    z = features(n=400, d=4, p=1)
    far = (z + 1e3).float()
    torch.testing.assert_close(
        value(far, "correlation").double(), value(far.double(), "correlation"), rtol=1e-4, atol=0
    )
