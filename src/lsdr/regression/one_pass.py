"""One pass over a source: parts are worked on wherever, and their states merged in an order that is always the same."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from lsdr.regression.engine_processes import in_processes
from lsdr.regression.engine_ray import in_ray
from lsdr.regression.engine_threads import in_order
from lsdr.regression.merge_tree import MergeTree
from lsdr.regression.plan import Plan
from lsdr.regression.sources.source import Source
from lsdr.regression.sources.tables import check_levels
from lsdr.regression.state import State
from lsdr.regression.work import alone, one_thread, work

S = TypeVar("S", bound=State)
ENGINES = ("threads", "processes", "ray")


def one_pass(
    source: Source,
    plan: Plan,
    empty: Callable[[], S],
    *,
    engine: str = "threads",
    workers: int | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> S:
    """Let a state see every row of a source, once.

    Each part fills a state of its own, wherever that happens; states are merged here in the order of the parts, by a
    tree that depends on their number alone. So the result is bitwise the same for every engine and number of workers
    (on machines whose BLAS takes the same path). Memory: workers + log2(parts) states, and a batch or (of rows that
    are in memory or come from an iterator) a part a worker.

    Args:
        source: What to read.
        plan: What to read of it.
        empty: Makes a state that has seen nothing; picklable for processes and Ray.
        engine: "threads" of this process, "processes" of this machine, or "ray".
        workers: How many; None: one a processor, or all of Ray's cluster.
        progress: Called with the rows done and all there are (None where unknown), after every part.

    Returns:
        The state that has seen all rows; an empty one where there are none.

    Raises:
        ValueError: If rows are not as they should be, or the engine is none of these.
        RuntimeError: If workers keep dying.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    tree: MergeTree[S] = MergeTree()
    done = width = 0
    for state, rows in _results(source, plan, empty, engine, workers):
        tree.push(state)
        width = _checked(tree.latest(), width)
        done += rows
        if progress is not None:
            progress(done, source.rows)
    total = tree.total()
    return empty() if total is None else total


def _results(
    source: Source, plan: Plan, empty: Callable[[], S], engine: str, workers: int | None
) -> Iterator[tuple[S, int]]:
    parts = source.parts(plan)
    # A state's merging happens between results: it keeps to one thread too.
    with one_thread():
        if engine == "threads":
            yield from in_order(partial(work, empty=empty), parts, workers or _processors())
        elif engine == "processes":
            yield from in_processes(partial(alone, empty=empty), parts, workers or _processors())
        else:
            yield from in_ray(partial(alone, empty=empty), parts, workers)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _checked(state: Any, width: int) -> int:
    """Refuse a factor whose levels became too many; parts see only their own."""
    columns = getattr(state, "columns", ())
    if len(columns) != width:
        for name, levels in Counter(term for term, level in columns if level).items():
            check_levels(name, levels)
    return len(columns)
