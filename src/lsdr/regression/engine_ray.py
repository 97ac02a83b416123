"""Parts worked on by Ray: on this machine, or on the cluster that is connected."""

import copy
import os
import secrets
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 3
# Bytes for states on their way; Ray would take 30 % of the machine's memory.
_STORE_BYTES = 2**30


def in_ray(work: Callable[[T], R], items: Iterable[T], workers: int | None) -> Iterator[R]:
    """The results of `work` in the order of the items; a task whose worker dies is run again, three times at most.

    Where Ray does not run it is started here (or the cluster of RAY_ADDRESS is joined) and stays for further passes,
    until the process ends or ray.shutdown() is called.

    Raises:
        ImportError: If ray is not installed.
        RuntimeError: If workers keep dying.
    """
    ray = _started(workers)
    task = ray.remote(max_retries=_RETRIES, num_cpus=1)(_call)
    ahead = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(task.remote(work, item))
            if len(waiting) > ahead:
                yield _result(ray, waiting.popleft())
        while waiting:
            yield _result(ray, waiting.popleft())
    finally:
        for reference in waiting:
            ray.cancel(reference)


def _call(work: Callable[[T], R], item: T) -> R:
    return work(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        # Ray hands arrays over as read-only views of its store, but states are merged in place.
        return copy.deepcopy(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        # What the work itself raised, without the story of how it came here.
        raise error.cause from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise RuntimeError(
            f"Ray's workers died {_RETRIES + 1} times over one part of the data ({type(error).__name__}): most likely "
            "the machine has too little memory for so many workers; take fewer"
        ) from error


def _started(workers: int | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not any(
        os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")
    ):
        # Ray would make one up and write it into the home folder.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        if "ray" not in sys.modules:  # which reads it but once
            os.environ["RAY_AUTH_MODE"] = "token"  # what it is anyway; said so, Ray does not warn of it
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs ray: pip install 'lsdr[ray]', or take engine='processes'") from error
    if ray.is_initialized():
        return ray
    with _interrupts_later():
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False)
        else:
            ray.init(
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                log_to_driver=False,
            )
    return ray


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C waits for the end of this: Ray that is stopped while it starts leaves processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which no signal reaches
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if came:
        raise KeyboardInterrupt
