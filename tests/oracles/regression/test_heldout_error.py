"""Held-out errors beside the brute way: leave a fold out, eliminate anew without it, predict it, for every size."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.datasets import load_diabetes

from lsdr.regression.backward_elimination import backward_elimination

# 5-fold error of the diabetes data by size 0..10 as measured with another program, shuffled folds: 5955 ... 2986.
LEAST, MOST = 2800, 6200


def table(n=300, p=6, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, p)) + 100
    table = pd.DataFrame(x, columns=[f"x{j}" for j in range(p)])
    y = x[:, :3].sum(1) + 2 * generator.normal(size=n)
    return table.assign(y=y, fold=generator.integers(0, 4, n), w=generator.gamma(2, size=n))


def brute(data, names, weights):
    """Sums of squared errors and of weights by size and fold, the elimination run anew without the fold."""
    sums = {}
    for fold in sorted(data.fold.unique()):
        train, test = data[data.fold != fold], data[data.fold == fold]
        left = list(names)
        while True:
            x = sm.add_constant(train[left], has_constant="add")
            fitted = sm.WLS(train.y, x, weights=train[weights] if weights else 1.0).fit()
            error = test.y - fitted.predict(sm.add_constant(test[left], has_constant="add")[x.columns])
            w = test[weights] if weights else pd.Series(1.0, test.index)
            sums[len(left), fold] = ((w * error**2).sum(), w.sum())
            if not left:
                break
            left.remove(fitted.tvalues.drop("const").abs().idxmin())
    return sums


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("weights", [None, "w"])
def test_every_size_is_the_brute_force_error(weights, method):
    data = table()
    names = [f"x{j}" for j in range(6)]
    result = backward_elimination(data, "y", features=names, weights=weights, fold_column="fold", method=method)
    sums = brute(data, names, weights)
    for step in result.steps:
        errors, totals = np.array([sums[step.size, fold] for fold in range(4)]).T
        mse = errors.sum() / totals.sum()
        spread = (totals * (errors / totals - mse) ** 2).sum() / totals.sum()
        assert step.mse_heldout == pytest.approx(mse, rel=1e-10)
        assert step.mse_heldout_se == pytest.approx(np.sqrt(spread / 3), rel=1e-8)


def test_rules_on_the_curve():
    data = table(seed=3)
    names = [f"x{j}" for j in range(6)]
    least = backward_elimination(data, "y", features=names, fold_column="fold", rule="cv")
    curve = {step.size: (step.mse_heldout, step.mse_heldout_se) for step in least.steps}
    best = min(curve, key=lambda size: curve[size][0])
    assert least.chosen.size == best
    one_se = backward_elimination(data, "y", features=names, fold_column="fold", rule="one_se")
    assert one_se.chosen.size == min(size for size in curve if curve[size][0] <= sum(curve[best]))


def test_diabetes_dropping_variables_lowers_the_heldout_error_and_never_the_training_error():
    data = load_diabetes(as_frame=True, scaled=False).frame
    result = backward_elimination(data, "target", seed=0)
    heldout = [step.mse_heldout for step in result.steps]
    assert min(heldout) < heldout[0]
    assert LEAST < min(heldout) < max(heldout) < MOST
    assert (np.diff([step.rss for step in result.steps]) >= 0).all()
    assert 3 <= result.chosen.size <= 9
