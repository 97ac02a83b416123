"""One writer to a folder at a time."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder's lock; the system lets go of it when the process ends, however it ends.

    Args:
        folder: An existing folder; `.lock` is made in it.
        patience: Seconds to wait for another holder to end.

    Raises:
        ValueError: If another process still holds the lock.
    """
    with (folder / ".lock").open("w") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ValueError(
                        f"another process is writing to {folder}; wait for it to end, or choose another folder"
                    ) from None
                time.sleep(0.1)
        yield
