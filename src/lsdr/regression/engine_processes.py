"""Parts worked on by processes of this machine: a killed one costs its part, which another works on again."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from typing import TypeVar

from lsdr.regression.engine_threads import in_order

T = TypeVar("T")
R = TypeVar("R")

_MOST_DEATHS = 3


def in_processes(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """The results of `work` in the order of the items, each worker a process that is started anew when it dies.

    Processes are spawned, not forked: threads (of BLAS, Arrow, polars) do not survive a fork. As with everything that
    spawns, a script that calls this does so under `if __name__ == "__main__":`.

    Raises:
        RuntimeError: If workers die three times over one item.
        ValueError: If something cannot be sent to another process.
    """
    try:
        ForkingPickler.dumps(work)
    except Exception as error:
        raise ValueError(f"other processes cannot be given this ({error}): take engine='threads'") from error
    # One pool for each thread: a pool ends all its workers when one of them dies.
    local = threading.local()
    pools: set[ProcessPoolExecutor] = set()

    def fresh() -> ProcessPoolExecutor:
        pool = local.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_prepare)
        pools.add(pool)
        return pool

    def call(item: T) -> R:
        for _ in range(_MOST_DEATHS):
            pool = getattr(local, "pool", None) or fresh()
            try:
                return pool.submit(_told, work, item).result()
            except BrokenProcessPool:
                local.pool = None
                pools.discard(pool)
                pool.shutdown(wait=False)
        raise RuntimeError(
            f"a worker process died {_MOST_DEATHS} times over one part of the data: most likely the machine has too "
            "little memory for so many workers (take fewer, or engine='threads'), or the call stands in a script "
            'without `if __name__ == "__main__":`'
        )

    try:
        yield from in_order(call, items, workers, inline=False)
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def _told(work: Callable[[T], R], item: T) -> R:
    """`work`, whose errors are of a kind that can be sent back."""
    try:
        return work(item)
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _prepare() -> None:
    """What a worker does first."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    # Ctrl-C is for the caller, whose end the workers see by themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
