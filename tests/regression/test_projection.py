"""Removals from the root inverse against inverses of what is left."""

import numpy as np
import pytest

from lsdr.moments import Moments
from lsdr.regression import projection
from lsdr.regression.columns import Term
from lsdr.regression.projection import Projection
from lsdr.regression.system import system_of_moments


def full(n=200, p=12, ridge=0.0, seed=0, collinear=0.0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, p)) @ generator.normal(size=(p, p)) + 2
    if collinear:
        x[:, 1] = x[:, 0] + collinear * x[:, 1]
    y = x @ generator.normal(size=p) + generator.normal(size=n)
    columns = tuple((f"x{i}", "") for i in range(p))
    terms = tuple(Term(name, ((name, level),)) for name, level in columns)
    moments = Moments.of(np.column_stack([x, y]))
    return system_of_moments(moments, columns, terms, rows=n, intercept=True, ridge=ridge)


def check(state, system, left, rtol=1e-8):
    """The state of the columns left against the inverse of their cross-products."""
    a = system.root.T @ system.root
    r = system.root.T @ system.projection
    c = np.linalg.inv(a[np.ix_(left, left)])
    b = c @ r[left]
    v = c - c @ np.diag(system.penalty[left]) @ c
    means = (system.mean / system.unit)[left]
    assert state.index[state.present].tolist() == left
    at = state.present
    np.testing.assert_allclose(state.b[at], b, rtol=rtol, atol=1e-9)
    np.testing.assert_allclose(state.diagonal[at], np.diagonal(c), rtol=rtol)
    np.testing.assert_allclose(state.variances[at], np.diagonal(v), rtol=rtol)
    np.testing.assert_allclose(state.mean_variance, means @ v @ means, rtol=rtol)
    objective = system.objective + system.projection @ system.projection - r[left] @ b
    np.testing.assert_allclose(state.objective, objective, rtol=rtol)
    np.testing.assert_allclose(state.b[~at], 0, atol=1e-13)
    assert np.isposinf(state.diagonal[~at]).all()
    assert np.isposinf(state.variances[~at]).all()


@pytest.mark.parametrize("ridge", [0.0, 50.0])
def test_one_column_after_another(ridge):
    system = full(ridge=ridge)
    state, left = Projection(system), list(range(12))
    check(state, system, left)
    for column in (3, 11, 0, 7, 6, 1):
        state.remove(int(np.flatnonzero(state.index == column)[0]))
        left.remove(column)
        check(state, system, left)
    inverse = state.inverse()
    assert state.present.all()
    check(state, system, left)
    np.testing.assert_allclose(np.diagonal(inverse), state.variances, rtol=1e-12)
    while left:
        state.remove(int(np.flatnonzero(state.index == left[0])[0]))
        left.pop(0)
        check(state, system, left)
    assert state.mean_variance == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 50.0])
def test_groups_and_single_columns_in_turn(ridge):
    system = full(ridge=ridge)
    state, left = Projection(system), list(range(12))
    for columns in ([3, 4, 9], [0], [1], [2, 11], [5, 6, 7, 8, 10]):
        state.update()
        places = np.array([left.index(column) for column in columns])
        v = state.inverse()[np.ix_(places, places)]
        b = state.b[places]
        assert state.gain(places) == pytest.approx(b @ np.linalg.solve(v, b), rel=1e-9)
        before = state.objective
        if len(columns) == 1:
            state.remove(int(places[0]))
        else:
            if not ridge:
                assert state.gain(places) > 0
            state.remove_group(places)
        if not ridge:
            assert state.objective - before == pytest.approx(b @ np.linalg.solve(v, b), rel=1e-9)
        left = [column for column in left if column not in columns]
        check(state, system, left)


def test_more_removals_than_wait_together(monkeypatch):
    made = []
    factor = projection.upper_factor
    monkeypatch.setattr(projection, "upper_factor", lambda *args: made.append(1) or factor(*args))
    system = full(n=400, p=90)
    state, left = Projection(system), list(range(90))
    for column in np.random.default_rng(1).permutation(90)[:80].tolist():
        state.remove(int(np.flatnonzero(state.index == column)[0]))
        left.remove(column)
        check(state, system, left, rtol=1e-6)
    assert made  # half of the columns being gone, the root was made smaller


def test_a_freed_partner_gets_its_digits_back(monkeypatch):
    made = []
    factor = projection.upper_factor
    monkeypatch.setattr(projection, "upper_factor", lambda *args: made.append(1) or factor(*args))
    system = full(collinear=1e-4)
    assert system.vif > 1e6
    state = Projection(system)
    state.remove(5)
    assert not made
    state.remove(0)
    assert made == [1]
    left = [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    a, r = (system.root.T @ system.root)[np.ix_(left, left)], (system.root.T @ system.projection)[left]
    np.testing.assert_allclose(state.b, np.linalg.solve(a, r), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(state.diagonal, np.diagonal(np.linalg.inv(a)), rtol=1e-11)
    for _ in range(3):
        state.remove(1)
        state.update()
    assert made == [1]
