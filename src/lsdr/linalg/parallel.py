"""Many layers at once on a CPU: one thread a layer, each product on one thread."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def each_layer(function: Callable[[T], R], layers: Iterable[T], device: torch.device | None = None) -> Iterator[R]:
    """Apply a function to every layer, in order, as many at a time as torch has threads.

    Matrices of one layer are too small to be shared by threads well: two layers side by side on one thread each
    take about two thirds of the time that they take one after the other on two (2 cores). On a GPU this is a plain
    loop. Threads are started here and gone afterwards; torch's thread count is left as it was.

    Args:
        function: What to do with a layer; it must not draw from torch's global generator, whose order is not fixed.
        layers: The layers, the longest work first for the best balance.
        device: Where they are.

    Yields:
        The results in the layers' order, each as soon as it and those before it are done.
    """
    threads = torch.get_num_threads()
    if threads == 1 or (device is not None and device.type != "cpu"):
        yield from map(function, layers)
        return
    with ThreadPoolExecutor(threads, "lsdr", initializer=lambda: torch.set_num_threads(1)) as pool:
        try:
            yield from pool.map(function, layers)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
