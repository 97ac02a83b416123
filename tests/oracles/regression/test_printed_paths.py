"""Backward eliminations printed by R and SAS: order, RSS, AIC and t values, digit for digit as printed."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from lsdr.regression.backward_elimination import backward_elimination

from .published.exact import digits, path, t_values
from .published.paths import HALD, MTCARS, PRINTED, SWISS


def frame(printed):
    """The printed data as a table."""
    return pd.DataFrame(np.array(printed.rows(), dtype=float), columns=list(printed.names))


def printed_as(value, text):
    """Whether a number is what was printed; R rounds twice, hence the twentieth of a unit on top of the half."""
    unit = Decimal(1).scaleb(Decimal(text).as_tuple().exponent)
    return abs(Decimal(float(value)) - Decimal(text)) <= unit * Decimal("0.55")


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("printed", PRINTED, ids=lambda printed: printed.name)
def test_path_is_the_printed_one(printed, method):
    result = backward_elimination(frame(printed), printed.names[0], method=method, rule="aic", folds=0)
    assert result.method == method
    assert tuple(step.removed for step in result.steps[: len(printed.removed)]) == printed.removed
    for step, rss in zip(result.steps, printed.rss, strict=False):
        assert printed_as(step.rss, rss)
    for step, aic in zip(result.steps, printed.aic, strict=False):
        assert printed_as(step.aic, aic)
    for step, dropped in zip(result.steps, printed.drop_rss, strict=False):
        for name, rss in dropped.items():
            assert printed_as(step.rss * (1 + step.tvalues[name] ** 2 / step.df_resid), rss)
    for index, values in printed.t.items():
        for name, value in values.items():
            assert printed_as(result.steps[index].tvalues[name], value)


@pytest.mark.parametrize("printed", PRINTED, ids=lambda printed: printed.name)
def test_every_t_on_the_path_has_twelve_digits(printed):
    result = backward_elimination(frame(printed), printed.names[0], rule="aic", folds=0)
    for step, (names, removed, model) in zip(result.steps, path(printed.columns(), printed.y()), strict=False):
        assert step.removed == removed
        assert list(step.tvalues.index) == ["Intercept", *names]
        assert min(digits(a, b) for a, b in zip(step.tvalues, t_values(model), strict=True)) > 11
        assert min(digits(a, b) for a, b in zip(step.params, model.coefficients, strict=True)) > 11


@pytest.mark.parametrize(
    ("printed", "size"), [(HALD, 3), (SWISS, 4), (MTCARS, 3)], ids=lambda value: getattr(value, "name", value)
)
def test_aic_rule_keeps_what_step_keeps(printed, size):
    result = backward_elimination(frame(printed), printed.names[0], rule="aic", folds=0)
    assert result.chosen.size == size
    assert set(result.chosen.features) == set(printed.names[1:]) - set(printed.removed[: len(printed.names) - 1 - size])
