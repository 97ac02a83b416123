"""The eleven certified regressions of NIST: digits of every coefficient, standard error, s and R squared, by route."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from lsdr.regression.backward_elimination import backward_elimination

from .published.exact import digits, fit, path, root, standard_errors
from .published.nist import FILIP, PROBLEMS

# Certified digits that must come out, by method: (coefficients, standard errors, s, R squared). The powers of the
# predictor are given as float64 numbers, whose rounding alone moves Filip's solution in the 8th digit. Coefficients of
# 1 under a noise of 1e5 (Wampler 4) or 1e7 (Wampler 5) lose as many digits by any method in double precision.
CERTIFIED = {
    "Norris": {"auto": (11.5, 12.5, 12.5, 15), "gram": (11.5, 10.5, 10.5, 15)},
    "Pontius": {"auto": (12, 12, 12, 15), "gram": (11, 9.5, 9.5, 15)},
    "NoInt1": {"auto": (14, 14, 14, 15), "gram": (14, 12.5, 12.5, 15)},
    "NoInt2": {"auto": (14, 13.5, 13.5, 15), "gram": (14, 13.5, 13.5, 15)},
    "Filip": {"auto": (7, 7, 7.5, 9.5)},
    "Longley": {"auto": (12.5, 14, 14, 15), "gram": (11, 12.5, 12.5, 15)},
    "Wampler1": {"auto": (8.5, 0, 0, 15), "gram": (6, 0, 0, 15)},
    "Wampler2": {"auto": (12, 0, 0, 15), "gram": (8.5, 0, 0, 15)},
    "Wampler3": {"auto": (8.5, 12, 13, 15), "gram": (5.5, 10, 10, 15)},
    "Wampler4": {"auto": (7, 12, 13, 15), "gram": (5.5, 10, 13, 15)},
    "Wampler5": {"auto": (5, 12, 13, 12.5), "gram": (5, 10, 13, 12.5)},
}
CASES = [(problem, method) for problem in PROBLEMS for method in CERTIFIED[problem.name]]
EXACT_FITS = ("Wampler1", "Wampler2")


def reduce(problem, method):
    """Our path for a problem, columns named x1, x2, ... in their order."""
    x = np.array(problem.x(), dtype=float)
    names = [f"x{j + 1}" for j in range(x.shape[1])]
    table = pd.DataFrame(x, columns=names).assign(y=np.array(problem.y(), dtype=float))
    return backward_elimination(table, "y", features=names, method=method, intercept=problem.intercept,
                                keep=len(names), folds=0)  # fmt: skip


def worst(values, truths):
    return min(digits(value, Decimal(truth)) for value, truth in zip(values, truths, strict=True))


@pytest.mark.parametrize(("problem", "method"), CASES, ids=lambda value: getattr(value, "name", value))
def test_certified_digits(problem, method):
    model = reduce(problem, method).model()
    coefficients, errors, s, r_squared = CERTIFIED[problem.name][method]
    assert worst(model.params, problem.estimates) >= coefficients
    assert digits(model.rsquared, Decimal(problem.r_squared)) >= r_squared
    if problem.name in EXACT_FITS:
        assert model.rss == 0
        assert (model.bse == 0).all()
        assert np.isposinf(model.tvalues).all()
    else:
        assert worst(model.bse, problem.deviations) >= errors
        assert digits(np.sqrt(model.mse_resid), Decimal(problem.residual_deviation)) >= s


def test_route_and_digits_are_said():
    result = reduce(FILIP, "auto")
    assert result.method == "qr"
    assert "variance inflation" in result.reason
    with_gram = reduce(FILIP, "gram")
    assert with_gram.method == "gram"
    assert with_gram.aliased
    assert any("qr" in note for note in with_gram.notes)


def test_filip_against_its_rounded_powers():
    # What the method loses, apart from what the rounding of x^10 to float64 loses before it.
    problem = FILIP
    rows = [[Fraction(float(value)) for value in row] for row in problem.x()]
    exact = fit([[Fraction(1), *row] for row in rows], [Fraction(float(value)) for value in problem.y()])
    model = reduce(problem, "auto").model()
    assert min(digits(a, b) for a, b in zip(model.params, exact.coefficients, strict=True)) > 7
    assert min(digits(a, b) for a, b in zip(model.bse, standard_errors(exact), strict=True)) > 7
    assert digits(np.sqrt(model.mse_resid), root(exact.rss / exact.df_resid)) > 7.5


@pytest.mark.parametrize("method", ["auto", "qr"])
@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.name not in EXACT_FITS], ids=lambda value: value.name)
def test_every_step_of_the_path_is_that_of_rational_numbers(problem, method):
    columns = {f"x{j + 1}": list(column) for j, column in enumerate(zip(*problem.x(), strict=True))}
    exact = path(columns, problem.y(), problem.intercept)
    ours = reduce(problem, method)
    for step, (names, removed, model) in zip(ours.steps, exact, strict=False):
        assert step.terms == tuple(names)
        if removed:
            assert step.removed == removed
        assert digits(step.rss, model.rss) > 7
