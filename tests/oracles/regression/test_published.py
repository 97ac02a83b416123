"""The published data are right: exact rational arithmetic gives every certified and every printed digit."""

from decimal import Decimal
from fractions import Fraction
from math import log

import pytest

from .published.exact import decimal, digits, fit, path, root, standard_errors, t_values
from .published.nist import PROBLEMS
from .published.paths import PRINTED


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_certified_values_are_those_of_the_data(problem):
    y = problem.y()
    model = fit([([Fraction(1)] if problem.intercept else []) + row for row in problem.x()], y)
    for estimate, exact in zip(problem.estimates, model.coefficients, strict=True):
        assert digits(exact, Decimal(estimate)) > 14
    for deviation, exact in zip(problem.deviations, standard_errors(model), strict=True):
        assert digits(exact, Decimal(deviation)) > 14
    assert digits(root(model.rss / model.df_resid), Decimal(problem.residual_deviation)) > 14
    centre = sum(y) / len(y) if problem.intercept else Fraction(0)
    r_squared = 1 - model.rss / sum((value - centre) ** 2 for value in y)
    assert digits(r_squared, Decimal(problem.r_squared)) > 14


@pytest.mark.parametrize("printed", PRINTED, ids=lambda printed: printed.name)
def test_printed_paths_are_those_of_the_data(printed):
    y = printed.y()
    steps = path(printed.columns(), y)
    assert tuple(removed for _, removed, _ in steps[: len(printed.removed)]) == printed.removed
    for (_, _, model), rss in zip(steps, printed.rss, strict=False):
        assert rounds_to(decimal(model.rss), rss)
    for (names, _, model), aic in zip(steps, printed.aic, strict=False):
        assert rounds_to(Decimal(len(y) * log(model.rss / len(y)) + 2 * (len(names) + 1)), aic)
    for (names, _, model), dropped in zip(steps, printed.drop_rss, strict=False):
        for name, rss in dropped.items():
            assert rounds_to(decimal(model.rss + model.increase(names.index(name) + 1)), rss)
    for index, printed_t in printed.t.items():
        names, _, model = steps[index]
        values = dict(zip(["Intercept", *names], t_values(model), strict=True))
        for name, value in printed_t.items():
            assert rounds_to(values[name], value)


def rounds_to(value: Decimal, printed: str) -> bool:
    """Whether `value` is what was printed.

    R rounds twice (to a few significant digits, then to the width of a column), so 12.10465 is printed as 12.11: a
    twentieth of a unit is added to the half.
    """
    unit = Decimal(1).scaleb(Decimal(printed).as_tuple().exponent)
    return abs(value - Decimal(printed)) <= unit * Decimal("0.55")
