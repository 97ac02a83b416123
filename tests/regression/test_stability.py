import numpy as np
import pytest

from lsdr.regression.batch import Batch
from lsdr.regression.blocks import halves
from lsdr.regression.columns import Term
from lsdr.regression.gram import Gram
from lsdr.regression.r_factor import RFactor
from lsdr.regression.stability import selection_frequencies

NAMES = ("a", "b", "c", "d")
COLUMNS = tuple((name, "") for name in NAMES)
TERMS = tuple(Term(name, ((name, ""),)) for name in NAMES)
BLOCKS = 8
SIZES = np.arange(4, -1, -1)


def table():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(80, 4))
    return x, x @ [0.3, 1.0, 0.1, 0.2] + rng.normal(size=80), np.arange(80) % BLOCKS


def state_of(route="gram"):
    x, y, blocks = table()
    shift = np.append(x.mean(0), y.mean())
    state = Gram(BLOCKS) if route == "gram" else RFactor(BLOCKS, True, False, shift, COLUMNS)
    state.add(Batch(COLUMNS, x, y, None, None, blocks))
    return state


def survivors(x, y):
    """Columns in the model of each size, by refitting."""
    left, found = list(range(x.shape[1])), {}
    while True:
        found[len(left)] = set(left)
        if not left:
            return found
        design = np.column_stack([np.ones(len(y)), x[:, left]])
        inverse = np.linalg.inv(design.T @ design)
        b = inverse @ design.T @ y
        left.pop(int(np.argmin(b[1:] ** 2 / np.diag(inverse)[1:])))


@pytest.mark.parametrize("route", ["gram", "qr"])
@pytest.mark.parametrize("folds", [1, 2])
def test_equals_refitting_every_half(route, folds):
    x, y, blocks = table()
    found = selection_frequencies(
        state_of(route), TERMS, SIZES, resamples=7, folds=folds, generator=np.random.default_rng(11)
    )
    generator = np.random.default_rng(11)
    expected = np.zeros((5, 4))
    # Seven are made eight: halves come in pairs.
    for _ in range(4):
        for half in halves(BLOCKS, generator, folds):
            rows = np.isin(blocks, half)
            assert rows.sum() == 40
            for line, size in enumerate(SIZES):
                expected[line, list(survivors(x[rows], y[rows])[size])] += 1 / 8
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-15)
    assert list(found.columns) == list(NAMES)
    assert list(found.index) == SIZES.tolist()
    assert found.index.name == "size"
    np.testing.assert_allclose(found.sum(axis=1), SIZES)


def test_forced_terms_are_always_there():
    terms = tuple(Term(term.name, term.columns, term.name == "c") for term in TERMS)
    found = selection_frequencies(
        state_of(), terms, SIZES[:-1], resamples=20, folds=1, generator=np.random.default_rng(0)
    )
    assert (found["c"] == 1).all()
    assert found.loc[1, ["a", "b", "d"]].sum() == 0


def test_a_half_that_cannot_tell_all_terms_apart_counts_its_own_largest_model():
    x, y, blocks = table()
    x = x.copy()
    # Only block 0 knows d: halves without it have three terms.
    x[:, 3] = np.where(blocks == 0, np.arange(80), 0.0)
    state = Gram(BLOCKS)
    state.add(Batch(COLUMNS, x, y, None, None, blocks))
    found = selection_frequencies(state, TERMS, SIZES, resamples=10, folds=1, generator=np.random.default_rng(0))
    assert found.loc[4].tolist() == [1, 1, 1, 0.5]
    # The other half drops something for size 3.
    assert found.loc[3].sum() == pytest.approx(3)


def test_a_half_without_rows_is_left_out():
    x, y, _ = table()
    state = Gram(2)
    state.add(Batch(COLUMNS, x, y, None, None, np.zeros(80, dtype=np.intp)))
    found = selection_frequencies(state, TERMS, SIZES, resamples=4, folds=1, generator=np.random.default_rng(0))
    assert found.loc[4].tolist() == [1, 1, 1, 1]


def test_many_columns_are_worked_on_a_few_halves_at_a_time(monkeypatch):
    options = {"resamples": 10, "folds": 1}
    at_once = selection_frequencies(state_of(), TERMS, SIZES, **options, generator=np.random.default_rng(2))
    monkeypatch.setattr("lsdr.regression.block_systems._BYTES", 1)
    one_by_one = selection_frequencies(state_of(), TERMS, SIZES, **options, generator=np.random.default_rng(2))
    np.testing.assert_array_equal(at_once, one_by_one)
