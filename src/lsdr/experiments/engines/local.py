"""Runs as processes of this machine."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lsdr.experiments.worker import SUPERVISED

Poll = Callable[[], str | None]
"""None while the run goes on; then how its process ended, in words."""

_GRACE = 30.0
"""Seconds that a worker has to finish its step and write a checkpoint when asked to stop."""


@contextmanager
def local(threads: int, devices: Sequence[str] = ()) -> Iterator[Callable[[Path], Poll]]:
    """Start runs as processes; those still going when the block is left are asked to stop, then killed.

    Args:
        threads: Threads that each run may use.
        devices: GPUs to spread the runs over, as CUDA_VISIBLE_DEVICES names them; none leaves the choice to the run.

    Yields:
        A function that starts the run of a job file and returns how to ask after it.
    """
    processes: list[subprocess.Popen[bytes]] = []
    places: list[str] = []

    def start(job: Path) -> Poll:
        taken = Counter(place for process, place in zip(processes, places, strict=True) if process.poll() is None)
        place = min(devices, key=lambda device: taken[device], default="")
        process = start_worker(job, threads, {"CUDA_VISIBLE_DEVICES": place} if place else {})
        processes.append(process)
        places.append(place)
        return lambda: None if process.poll() is None else ending(process.returncode)

    try:
        yield start
    finally:
        _stop(processes)


def start_worker(job: Path, threads: int, extra: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start the worker of a job file in a session of its own, its output going to worker.log beside the job.

    A session of its own keeps the terminal's Ctrl-C away from it: whoever started it decides how it stops.

    Args:
        job: The job file.
        threads: Threads that the run may use.
        extra: Variables to add to its environment.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **(extra or {})}
    with (job.parent / "worker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lsdr.experiments.worker", str(job), SUPERVISED],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def ending(code: int) -> str:
    """Say how a process ended.

    Example:
        >>> ending(-9)
        'killed by SIGKILL, as the system does when memory runs out'
        >>> ending(3)
        'exit code 3'
    """
    if code >= 0:
        return f"exit code {code}"
    reason = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{reason}"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    try:
        running = [process for process in processes if process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            process.wait(_GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):  # too slow, or a second Ctrl-C: it resumes from a checkpoint
        pass
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
