"""Runs as Ray tasks: on this machine by default, on the cluster that RAY_ADDRESS names otherwise.

Each task starts the same worker process as the local engine, so the same files come out, bit for bit. On a cluster of
several machines the run directory and the data must lie on a file system that all of them share.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsdr.experiments.engines.local import Poll, ending, start_worker


@contextmanager
def on_ray(jobs: int, threads: int, devices: Sequence[str] = ()) -> Iterator[Callable[[Path], Poll]]:
    """Start runs as Ray tasks; those still going when the block is left are killed and resume another time.

    Args:
        jobs: Runs at a time on a cluster started here, which is bound to the loopback interface.
        threads: Threads that each run may use.
        devices: GPUs of this machine; with any, a run asks Ray for one, or for its share of one.

    Yields:
        A function that starts the run of a job file and returns how to ask after it.

    Raises:
        ImportError: If Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = "RAY_ADDRESS" not in os.environ
    if local:
        # Read when Ray is imported. Ray turns 127.0.0.1 into the machine's outward address and listens on all
        # interfaces, unless told, by its name for macOS and Windows, that no other machine will join.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Without this Ray hides the GPUs from tasks that ask for none, and a run would land on another device than locally.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError("the ray engine needs Ray: pip install lsdr[ray]") from error
    options: dict[str, Any] = {"num_cpus": jobs * threads, "include_dashboard": False} if local else {}
    ray.init(log_to_driver=False, configure_logging=False, **options)
    # A run that dies is a result, so Ray must not try it again.
    task = ray.remote(num_cpus=threads, num_gpus=min(1.0, len(devices) / jobs), max_retries=0)(_work)
    folder = str(Path.cwd())

    def start(job: Path) -> Poll:
        reference = task.remote(str(job), threads, folder)

        def poll() -> str | None:
            if not ray.wait([reference], timeout=0)[0]:
                return None
            try:
                return str(ray.get(reference))
            except ray.exceptions.RayError as error:
                return f"Ray: {error}"

        return poll

    try:
        yield start
    finally:
        ray.shutdown()


def _work(job: str, threads: int, folder: str) -> str:
    os.chdir(folder)
    process = start_worker(Path(job), threads)
    try:
        return ending(process.wait())
    finally:
        if process.stdin is not None:
            process.stdin.close()
