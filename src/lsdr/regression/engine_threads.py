"""Parts worked on by threads of this process: products and decoding run outside the interpreter lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int, *, inline: bool = True) -> Iterator[R]:
    """The results of `work` in the order of the items, of which workers + 1 at most are taken ahead.

    The first item (in their order) whose work fails ends it with its error; work under way is waited for.

    Args:
        work: What to do with an item.
        items: What to work on; taken one by one in the caller's thread.
        workers: Number of threads.
        inline: Whether one worker is the caller's own thread.

    Example:
        >>> list(in_order(abs, [-3, 2, -1], workers=2))
        [3, 2, 1]
    """
    if workers == 1 and inline:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="lsdr")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
