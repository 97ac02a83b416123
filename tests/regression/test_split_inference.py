import numpy as np
import pytest
import statsmodels.api as sm

from lsdr.regression.batch import Batch
from lsdr.regression.blocks import halves
from lsdr.regression.columns import Term
from lsdr.regression.gram import Gram
from lsdr.regression.r_factor import RFactor
from lsdr.regression.split_inference import split_inference

NAMES = tuple("abcdef")
COLUMNS = tuple((name, "") for name in NAMES)
TERMS = tuple(Term(name, ((name, ""),)) for name in NAMES)
BLOCKS = 20
FOLDS = [[block for block in range(BLOCKS) if block % 5 == fold] for fold in range(5)]


def table(n=200, seed=0, slope=(1.0, 0.4, 0.0, 0.0, 0.15, 0.0)):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    return x, x @ np.array(slope) + rng.normal(size=n), np.arange(n) % BLOCKS


def state_of(x, y, blocks, route="gram", weights=None, frequency=False):
    shift = np.append(x.mean(0), y.mean())
    state = Gram(BLOCKS, True, frequency) if route == "gram" else RFactor(BLOCKS, True, frequency, shift, COLUMNS)
    state.add(Batch(COLUMNS, x, y, weights, None, blocks))
    return state


def order_of(x, y, w):
    left, order = list(range(x.shape[1])), []
    while left:
        t = sm.WLS(y, sm.add_constant(x[:, left]), w).fit().tvalues[1:]
        order.append(left.pop(int(np.argmin(np.abs(t)))))
    return order


def brute_one_se(x, y, w, fold):
    """Terms that the one-standard-error rule leaves, by refitting."""
    sse, sums = np.zeros((5, 7)), np.zeros(5)
    for number in range(5):
        test = fold == number
        sums[number] = w[test].sum()
        order = order_of(x[~test], y[~test], w[~test])
        for step in range(7):
            left = [k for k in range(6) if k not in order[:step]]
            design = np.column_stack([np.ones(len(y)), x[:, left]])
            b = sm.WLS(y[~test], design[~test], w[~test]).fit().params
            sse[number, step] = w[test] @ (y[test] - design[test] @ b) ** 2
    by_fold, mse = sse / sums[:, None], sse.sum(0) / sums.sum()
    se = np.sqrt((sums / sums.sum()) @ (by_fold - mse) ** 2 / 4)
    best = int(np.argmin(mse))
    index = max(np.flatnonzero(mse <= mse[best] + se[best]))
    return sorted(set(range(6)) - set(order_of(x, y, w)[:index]))


@pytest.mark.parametrize("route", ["gram", "qr"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_half_selects_and_the_other_judges(route, seed):
    x, y, blocks = table(seed=seed)
    w = np.random.default_rng(seed).uniform(0.5, 2, len(y))
    state = state_of(x, y, blocks, route, w)
    found = split_inference(state, TERMS, rule="one_se", folds=FOLDS, generator=np.random.default_rng(seed))
    first, second = halves(BLOCKS, np.random.default_rng(seed), 5)
    one, two = np.isin(blocks, first), np.isin(blocks, second)
    left = brute_one_se(x[one], y[one], w[one], blocks[one] % 5)
    assert found.split.features == tuple(NAMES[k] for k in left)
    refit = sm.WLS(y[two], sm.add_constant(x[two][:, left]), w[two]).fit()
    assert list(found.split.params.index) == ["Intercept", *found.split.features]
    np.testing.assert_allclose(found.split.params, refit.params, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.split.tvalues, refit.tvalues, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.split.pvalues, refit.pvalues, rtol=1e-8)
    np.testing.assert_allclose(found.split.conf_int(), refit.conf_int(), rtol=1e-8, atol=1e-11)
    assert (found.split.rows_selection, found.split.rows) == (100, 100)


def test_the_other_rules_and_forced_terms():
    x, y, blocks = table()
    state = state_of(x, y, blocks)
    first, _ = halves(BLOCKS, np.random.default_rng(3))
    one = np.isin(blocks, first)
    order = order_of(x[one], y[one], np.ones(one.sum()))
    found = split_inference(state, TERMS, rule="size", keep=2, generator=np.random.default_rng(3))
    assert set(found.split.features) == {NAMES[k] for k in order[4:]}
    weakest = NAMES[order[0]]
    terms = tuple(Term(term.name, term.columns, term.name == weakest) for term in TERMS)
    found = split_inference(state, terms, rule="p_value", p_value=1e-30, generator=np.random.default_rng(3))
    assert found.split.features == (weakest,)
    found = split_inference(state, terms, rule="p_value", p_value=1.0, generator=np.random.default_rng(3))
    assert found.split.features == NAMES


def test_frequencies_count_as_rows():
    x, y, blocks = table()
    times = np.random.default_rng(1).integers(1, 4, len(y))
    options = {"rule": "size", "keep": 2}
    weighted = split_inference(
        state_of(x, y, blocks, weights=times.astype(float), frequency=True),
        TERMS,
        **options,
        generator=np.random.default_rng(3),
    )
    repeated = split_inference(
        state_of(*(np.repeat(part, times, axis=0) for part in (x, y, blocks))),
        TERMS,
        **options,
        generator=np.random.default_rng(3),
    )
    assert weighted.split.rows == repeated.split.rows
    assert weighted.split.features == repeated.split.features
    np.testing.assert_allclose(weighted.split.tvalues, repeated.split.tvalues, rtol=1e-10)
    np.testing.assert_allclose(weighted.split.pvalues, repeated.split.pvalues, rtol=1e-9)


def test_of_noise_five_percent_are_significant_on_the_other_half_only():
    apart = together = 0
    for seed in range(60):
        x, y, blocks = table(n=100, seed=seed, slope=[0.0] * 6)
        state = state_of(x, y, blocks)
        found = split_inference(state, TERMS, rule="size", keep=2, generator=np.random.default_rng(seed))
        apart += int((found.split.pvalues.iloc[1:] < 0.05).sum())
        left = order_of(x, y, np.ones(100))[4:]
        together += int((sm.OLS(y, sm.add_constant(x[:, left])).fit().pvalues[1:] < 0.05).sum())
    # 5 % of 120 are 6; the rows used twice give several times as many.
    assert together > 2 * 6 > apart > 0


def test_ridge_selects_but_does_not_shrink_what_is_judged():
    x, y, blocks = table()
    state = state_of(x, y, blocks)
    _, second = halves(BLOCKS, np.random.default_rng(3))
    two = np.isin(blocks, second)
    found = split_inference(state, TERMS, rule="size", keep=6, ridge=50.0, generator=np.random.default_rng(3))
    refit = sm.OLS(y[two], sm.add_constant(x[two])).fit()
    np.testing.assert_allclose(found.split.params, refit.params, rtol=1e-9, atol=1e-12)


def test_too_few_rows_leave_nothing_to_say():
    x, y, blocks = table(n=12)
    keep = {"rule": "size", "keep": 6, "generator": np.random.default_rng(0)}
    assert split_inference(state_of(x, y, blocks), TERMS, **keep) is None
    state = state_of(x, y, np.zeros(12, dtype=np.intp))
    assert split_inference(state, TERMS, **keep) is None
