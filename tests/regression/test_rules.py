from dataclasses import fields

import numpy as np
import pytest

from lsdr.regression.columns import Term
from lsdr.regression.criteria import aic, bic, mallows_cp
from lsdr.regression.path import Path
from lsdr.regression.rules import choose


def path_of(rss, p_value=None, rows=20, forced=0):
    """A path of single columns, a, b, c, ... in the order of removal, with these residual sums of squares."""
    steps = len(rss)
    names = [chr(97 + k) for k in range(steps - 1 + forced)]
    size = np.arange(steps - 1, -1, -1) + forced
    given = {
        "df": np.r_[np.ones(steps - 1, dtype=np.intp), 0],
        "terms": tuple(Term(name, ((name, ""),)) for name in names),
        "order": tuple(names[: steps - 1]),
        "size": size,
        "rss": np.array(rss, dtype=float),
        "df_resid": rows - 1.0 - size,
        "p_value": np.full(steps, np.nan) if p_value is None else np.array([*p_value, np.nan]),
    }
    return Path(**{field.name: given.get(field.name, np.full(steps, np.nan)) for field in fields(Path)})


def picked(path, rule, rows=20, **options):
    return choose(path, rule, rows=rows, parameters=rows - path.df_resid, **options)


def test_size():
    path = path_of([1, 2, 3, 4])
    assert [picked(path, "size", keep=k)[0] for k in (0, 1, 2, 3)] == [3, 2, 1, 0]
    index, why = picked(path, "size", keep=5)
    assert index == 0
    assert "only 3" in why
    index, why = picked(path_of([1, 2, 3], forced=2), "size", keep=1)
    assert index == 2
    assert "2 are forced in" in why
    with pytest.raises(ValueError, match="needs keep"):
        picked(path, "size")


def test_p_value_drops_while_the_weakest_is_above():
    # The third is weak again: the search has stopped before it.
    path = path_of([1, 2, 3, 4, 5], p_value=[0.8, 0.3, 0.04, 0.6])
    index, why = picked(path, "p_value")
    assert index == 2
    assert "c" in why
    assert "0.04" in why
    assert picked(path, "p_value", p_value=0.5)[0] == 1
    assert picked(path, "p_value", p_value=0.01)[0] == 4
    # A p that is undefined is no reason to keep a term, one on the threshold is.
    assert picked(path_of([1, 2, 3], p_value=[np.nan, 0.05]), "p_value")[0] == 1
    assert picked(path_of([1]), "p_value") == (0, "nothing can be dropped")


@pytest.mark.parametrize("rule", ["aic", "bic", "cp"])
def test_criteria_take_the_least_of_the_whole_path(rule):
    rss = [10.0, 10.3, 12.0, 12.1, 12.2, 30.0]
    path = path_of(rss)
    parameters = 20 - path.df_resid
    values = {
        "aic": aic(path.rss, 20, parameters),
        "bic": bic(path.rss, 20, parameters),
        "cp": mallows_cp(path.rss, 20, parameters, 10 / 14),
    }[rule]
    index, why = picked(path, rule)
    assert index == int(np.argmin(values))
    assert f"{values.min():.6g}" in why
    # Here the criterion rises on the way to its least: R's step() would have stopped.
    if values[2] > values[1]:
        assert "would keep 4 terms" in why


def test_the_first_rise_is_not_mentioned_where_it_leads_to_the_same_model():
    assert "R's step()" not in picked(path_of([10, 10.1, 10.2, 40]), "aic")[1]
    assert "R's step()" in picked(path_of([10, 12, 12.01, 12.02, 40]), "aic")[1]


def test_cv_and_one_se():
    path = path_of([1, 2, 3, 4, 5])
    mse, se = np.array([5.0, 4.0, 4.5, 4.9, 9.0]), np.array([0.1, 0.6, 0.1, 0.1, 9.0])
    assert picked(path, "cv", mse=mse, se=se)[0] == 1
    # 4.5 <= 4.0 + 0.6 < 4.9; the last one's own large error does not count.
    index, why = picked(path, "one_se", mse=mse, se=se)
    assert index == 2
    assert "4 ± 0.6 at 3 terms" in why
    assert picked(path, "one_se", mse=mse, se=np.zeros(5))[0] == 1
    # Ties: the smaller model.
    assert picked(path, "cv", mse=np.array([3.0, 2, 2, 4, 5]), se=se)[0] == 2
    # On the border counts as within.
    assert picked(path, "one_se", mse=mse, se=np.full(5, 0.5))[0] == 2


def test_without_held_out_errors_aic_decides_and_says_so():
    path = path_of([10, 10.1, 10.2, 40])
    for rule in ("cv", "one_se"):
        index, why = picked(path, rule)
        assert index == picked(path, "aic")[0]
        assert "no held-out error" in why
        assert "AIC" in why


def test_saturated_models_are_not_chosen_for_their_fit():
    path = path_of([0.0, 3.0, 3.1, 3.2], rows=4)
    index, _ = picked(path, "aic", rows=4)
    assert index == 3
    index, why = picked(path, "cp", rows=4)
    assert index == 3
    assert "degrees of freedom" in why


def test_of_exact_fits_the_smallest():
    path = path_of([0.0, 0.0, 0.0, 40.0, 50.0])
    for rule in ("aic", "bic", "cp"):
        index, why = picked(path, rule)
        assert index == 2
        assert "exactly" in why


def test_nothing_to_judge_by():
    index, why = picked(path_of([0.0], rows=1), "aic", rows=1)
    assert index == 0
    assert "undefined" in why


def test_unknown_rule():
    with pytest.raises(ValueError, match="one_se, got 'best'"):
        picked(path_of([1, 2]), "best")
