import numpy as np
import pytest

from lsdr.moments import Moments
from lsdr.regression.certificate import doubt, is_small, reason
from lsdr.regression.columns import Term
from lsdr.regression.system import system_of_moments


def system_with(correlation=0.0, noise=1.0, n=400, extra=None):
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, n))
    x = np.column_stack([u, correlation * u + np.sqrt(1 - correlation**2) * v])
    if extra is not None:
        x = np.column_stack([x, extra(x)])
    y = x[:, 0] + noise * rng.normal(size=n)
    columns = tuple((f"x{k}", "") for k in range(x.shape[1]))
    terms = tuple(Term(column[0], (column,)) for column in columns)
    return system_of_moments(Moments.of(np.column_stack([x, y])), columns, terms, rows=n, intercept=True)


def test_well_conditioned_rows_are_not_doubted():
    system = system_with()
    assert doubt(system) is None
    assert doubt(system, small=True) is None
    assert "about 15 digits" in reason(system, "because")
    assert reason(system, "because").startswith("Cross-products: because; the largest variance inflation is 1")


def test_inflation_beyond_the_limit_is_doubted():
    # VIF = 1 / (1 - rho^2): 5e6 here.
    system = system_with(correlation=1 - 1e-7)
    assert system.vif == pytest.approx(5e6, rel=0.3)
    assert doubt(system) is None
    assert "beyond 1e+06" in doubt(system, 1e6)
    assert "beyond 1e+08" in doubt(system_with(correlation=1 - 1e-9))


def test_near_aliases_are_doubted_because_cross_products_cannot_tell():
    assert "combination" in doubt(system_with(extra=lambda x: x[:, 0] + x[:, 1]))
    # A constant is known for sure.
    assert doubt(system_with(extra=lambda x: np.ones(len(x)))) is None


def test_a_close_fit_costs_digits_too():
    close = system_with(noise=1e-5)
    assert "fewer than 8" in doubt(close)
    some = system_with(noise=1e-2)
    assert doubt(some) is None
    assert "next to nothing" in doubt(some, small=True)


def test_small_tables():
    assert is_small(1000, 10)
    assert not is_small(1e7, 10)
    assert not is_small(None, 1)


def test_exact_fits_have_no_digits_to_speak_of():
    assert "digits" not in reason(system_with(noise=0.0), "because")


@pytest.mark.parametrize("twin", [lambda x: x[:, 0], lambda x: x[:, 0] + 1e-9 * x[:, 1] ** 2])
def test_what_looks_like_a_duplicate_may_not_be_one(twin):
    system = system_with(extra=twin)
    assert [gone.column for gone in system.aliased] == [("x2", "")]
    assert "combination" in doubt(system)
