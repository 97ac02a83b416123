from functools import partial

import numpy as np
import pytest

from lsdr.regression.gram import Gram
from lsdr.regression.one_pass import one_pass
from lsdr.regression.plan import make_plan
from lsdr.regression.sources.open import open_source

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(100_000, 3)) + 5.0
Y = X @ [1.0, 2.0, 3.0] + GENERATOR.normal(size=100_000)


def opened(data=(X, Y), **options):
    source = open_source(data)
    return source, make_plan(source, "y", **options)


def test_the_pass_gives_the_moments_of_all_rows():
    source, plan = opened()
    total = one_pass(source, plan, partial(Gram, plan.blocks)).total()
    z = np.c_[X, Y]
    assert total.count == 100_000
    assert np.allclose(total.mean, z.mean(0), rtol=1e-13)
    assert np.allclose(total.cross, (z - z.mean(0)).T @ (z - z.mean(0)), rtol=1e-12)


def test_every_row_is_in_the_block_that_the_batches_say():
    source, plan = opened()
    gram = one_pass(source, plan, partial(Gram, plan.blocks))
    blocks = np.concatenate([batch.blocks for part in source.parts(plan) for batch in part.batches()])
    assert gram.rows.tolist() == np.bincount(blocks, minlength=plan.blocks).tolist()
    for block in (0, 7):
        assert np.allclose(gram.total([block]).mean[:3], X[blocks == block].mean(0), rtol=1e-13)


def test_the_seed_deals_the_rows_anew():
    first, second = (opened(seed=seed)[0].peek(opened(seed=seed)[1]).blocks for seed in (0, 1))
    assert (first != second).mean() > 0.9


def test_progress_is_told_after_every_part():
    source, plan = opened()
    told = []
    one_pass(source, plan, partial(Gram, plan.blocks), progress=lambda *done: told.append(done), workers=2)
    assert told == [(32768, 100_000), (65536, 100_000), (98304, 100_000), (100_000, 100_000)]
    source, plan = opened(iter([{"a": [1.0, None, 2.0], "y": [1.0, 2.0, 3.0]}]))
    told.clear()
    one_pass(source, plan, partial(Gram, plan.blocks), progress=lambda *done: told.append(done))
    assert told == [(3, None)]


def test_no_rows_are_an_empty_state():
    source, plan = opened((X[:0], Y[:0]))
    assert one_pass(source, plan, partial(Gram, plan.blocks)).rows.sum() == 0


def test_unknown_engines_and_no_workers_are_refused():
    source, plan = opened()
    with pytest.raises(ValueError, match="engine must be one of 'threads', 'processes', 'ray', got 'spark'"):
        one_pass(source, plan, partial(Gram, plan.blocks), engine="spark")
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        one_pass(source, plan, partial(Gram, plan.blocks), workers=0)


def test_products_keep_to_one_thread_and_get_theirs_back():
    from threadpoolctl import threadpool_info

    def threads():
        return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    class Look(Gram):
        seen = ()

        def add(self, batch):
            Look.seen = (*Look.seen, *threads().values())
            return super().add(batch)

    before = threads()
    source, plan = opened()
    one_pass(source, plan, partial(Look, plan.blocks), workers=2)
    assert set(Look.seen) == {1}
    assert threads() == before
