"""CR1 against statsmodels' cov_type="cluster"."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from lsdr.regression.clusters import ClusterGrams, ClusterScores

_spec = importlib.util.spec_from_file_location("hc", Path(__file__).with_name("test_heteroskedastic.py"))
hc = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hc)
COLUMNS, batches, fitted, same, swept, table = hc.COLUMNS, hc.batches, hc.fitted, hc.same, hc.swept, hc.table


def clustered(n=300, groups=17, weighted=False, text=False):
    """Rows with noise that clusters of unequal sizes share."""
    x, y, weights = table(n, weighted=weighted)
    generator = np.random.default_rng(5)
    clusters = np.minimum(generator.geometric(0.12, size=n) - 1, groups - 1)
    y = y + generator.normal(size=groups)[clusters] * 2
    x[:, 1] += 5 * generator.normal(size=groups)[clusters]
    return x, y, weights, np.array([f"village {c}" for c in clusters]) if text else clusters


def theirs(x, y, weights, clusters, keep, intercept=True):
    design = sm.add_constant(x[:, keep], has_constant="add") if intercept else x[:, keep]
    groups = np.unique(clusters, return_inverse=True)[1]
    return sm.WLS(y, design, weights=1.0 if weights is None else weights).fit(
        cov_type="cluster", cov_kwds={"groups": groups}
    )


def covariance_by_scores(grams, model, n):
    """The sandwich from the clusters' scores of one model, with numpy."""
    intercept = model.mean_y - model.mean @ model.coefficients if model.intercept else 0.0
    scores = grams.scores(model.columns, model.coefficients, float(intercept))
    shift = grams.shift[[grams.columns.index(column) for column in model.columns]]
    scores[:, 1:] += np.outer(scores[:, 0], shift)  # about zero
    if not model.intercept:
        scores = scores[:, 1:]
    bread = model.back @ model.back.T
    g = len(scores)
    return bread @ scores.T @ scores @ bread * g / (g - 1) * (n - 1) / model.df_resid


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("text", [False, True])
def test_both_states_are_statsmodels_for_every_submodel(weighted, intercept, text):
    x, y, weights, clusters = clustered(weighted=weighted, text=text)
    keeps = [list(range(6)), [0, 1, 4, 5], [1]]
    models = [fitted(x, y, weights, keep, intercept) for keep in keeps]
    shift = x[:70].mean(0)
    grams = swept(lambda: ClusterGrams(COLUMNS, shift, float(y[:70].mean())), batches(x, y, weights, clusters=clusters))
    scores = swept(lambda: ClusterScores(models), batches(x, y, weights, clusters=clusters))
    for place, keep in enumerate(keeps):
        expected = theirs(x, y, weights, clusters, keep, intercept).cov_params()
        same(scores.covariance(place), expected)
        same(covariance_by_scores(grams, models[place], len(y)), expected)


def test_columns_that_come_late_and_batches_in_any_order():
    x, y, _, clusters = clustered()
    x[:150, 5] = 0
    shift, shift_y = x[:50].mean(0), float(y[:50].mean())

    def early():
        return ClusterGrams(COLUMNS[:5], shift[:5], shift_y)

    first, second = early(), early()
    for part in batches(x[:150, :5], y[:150], clusters=clusters[:150], columns=COLUMNS[:5]):
        first.add(part)
    for part in batches(x[150:], y[150:], clusters=clusters[150:]):
        second.add(part)
    model = fitted(x, y)
    expected = theirs(x, y, None, clusters, list(range(6))).cov_params()
    for merged in (early().merge(second).merge(first), early().merge(first).merge(second)):
        same(covariance_by_scores(merged, model, len(y)), expected)
    # A state that knows more columns (about a shift of their own) than the one that is merged into it.
    both = ClusterGrams(COLUMNS, np.append(shift[:5], 7.0), shift_y).merge(first)
    again = ClusterGrams(COLUMNS, np.append(shift[:5], 7.0), shift_y)
    for part in batches(x[150:], y[150:], clusters=clusters[150:]):
        again.add(part)
    same(covariance_by_scores(both.merge(again), model, len(y)), expected)
    same(covariance_by_scores(first.merge(again), model, len(y)), expected)


def test_rows_that_come_after_the_scores_were_asked_for_count():
    x, y, _, clusters = clustered()
    parts = list(batches(x, y, clusters=clusters))
    grams = ClusterGrams(COLUMNS, x.mean(0), float(y.mean()))
    for part in parts[:-1]:
        grams.add(part)
    model = fitted(x, y)
    before = covariance_by_scores(grams, model, len(y))
    after = covariance_by_scores(grams.add(parts[-1]), model, len(y))
    assert not np.allclose(before, after)
    same(after, theirs(x, y, None, clusters, list(range(6))).cov_params())


def test_long_batches_go_chunk_by_chunk(monkeypatch):
    monkeypatch.setattr("lsdr.regression.whitened._ROWS", 16)
    x, y, weights, clusters = clustered(weighted=True)
    scores = ClusterScores([fitted(x, y, weights)]).add(next(batches(x, y, weights, size=300, clusters=clusters)))
    same(scores.covariance(0), theirs(x, y, weights, clusters, list(range(6))).cov_params())


def test_blocks_have_their_own_scores_even_where_a_cluster_straddles_them():
    x, y, _, clusters = clustered()
    grams = ClusterGrams(COLUMNS, x.mean(0), float(y.mean()))
    labels, blocks = [], []
    for part in batches(x, y, clusters=clusters):
        grams.add(part)
        labels.append(part.clusters)
        blocks.append(part.blocks)
    chosen = np.isin(np.concatenate(blocks), [1, 4, 5])
    model = fitted(x, y)
    residuals = y - y.mean() - (x - x.mean(0)) @ model.coefficients
    intercept = float(y.mean() - x.mean(0) @ model.coefficients)
    ours = grams.scores(COLUMNS, model.coefficients, intercept, [1, 4, 5])
    label = np.concatenate(labels)
    expected = np.array(
        [
            (np.column_stack([np.ones(len(y)), x - x.mean(0)]) * residuals[:, None])[chosen & (label == c)].sum(0)
            for c in np.unique(label[chosen])
        ]
    )
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(expected, axis=0), rtol=1e-8, atol=1e-8)
    total = grams.scores(COLUMNS, model.coefficients, intercept)
    assert len(total) == 17
    np.testing.assert_allclose(total.sum(0), 0, atol=1e-6)


def test_frequencies_are_repetitions_within_the_cluster():
    x, y, _, clusters = clustered(n=120)
    counts = np.random.default_rng(3).integers(0, 4, size=120)
    model = fitted(x, y, counts.astype(float), frequency=True)
    grams = ClusterGrams(COLUMNS, x.mean(0), float(y.mean()))
    scores = ClusterScores([model])
    for part in batches(x, y, counts.astype(float), clusters=clusters):
        grams.add(part)
        scores.add(part)
    repeated = [np.repeat(each, counts, axis=0) for each in (x, y, clusters)]
    expected = theirs(repeated[0], repeated[1], None, repeated[2], list(range(6))).cov_params()
    same(scores.covariance(0), expected)
    same(covariance_by_scores(grams, model, counts.sum()), expected)


def test_too_many_clusters_are_given_up_by_either_state():
    x, y, _, _ = clustered()
    clusters = np.arange(300)
    small = ClusterGrams(COLUMNS, x.mean(0), float(y.mean()), memory=250 * 8 * 64)
    for part in batches(x, y, clusters=clusters, size=100):
        assert not small.overflowed
        small.add(part)
    assert small.overflowed
    assert not small.grams
    fresh = ClusterGrams(COLUMNS, x.mean(0), float(y.mean()))
    fresh.add(next(batches(x, y, clusters=clusters))).merge(small)
    assert fresh.overflowed
    assert not fresh.add(next(batches(x, y, clusters=clusters))).grams


def test_a_batch_without_clusters_says_what_to_do():
    x, y, _, _ = clustered()
    with pytest.raises(ValueError, match="clusters="):
        ClusterGrams(COLUMNS, x.mean(0), 0.0).add(next(batches(x, y)))
