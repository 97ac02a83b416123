"""Parts worked on by processes of this machine: a killed one costs its part, which another works on again."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

from lsdr.regression.engine_threads import in_order

T = TypeVar("T")
R = TypeVar("R")

# A worker is started so and not forked: threads (of BLAS, Arrow, polars) do not survive a fork. It does not import the
# caller's main module either, so that a script needs no guard. What it prints goes to standard error.
_BOOTSTRAP = (
    "import os, pickle, sys; answers = os.fdopen(os.dup(1), 'wb'); os.dup2(2, 1); "
    "sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from lsdr.regression.engine_processes import serve; serve(sys.stdin.buffer, answers)"
)
_MOST_DEATHS = 3


def in_processes(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """The results of `work` in the order of the items; `work`, items and results are pickled.

    Raises:
        RuntimeError: If workers die three times over one item.
        ValueError: If something cannot be pickled.
    """
    local = threading.local()
    started: list[_Worker] = []

    def call(item: T) -> R:
        if not hasattr(local, "worker"):
            local.worker = _Worker()
            started.append(local.worker)
        answer: R = local.worker.call(work, item)
        return answer

    try:
        yield from in_order(call, items, workers, inline=False)
    finally:
        for worker in started:
            worker.stop()


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """What a worker does: work on what comes, until nothing more comes."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    while True:
        try:
            size = int.from_bytes(questions.read(8), "little")
            if not size:
                return
            work, item = pickle.loads(questions.read(size))  # noqa: S301 - from the process that started this one
            answer: tuple[bool, Any] = (True, work(item))
        except BaseException as error:
            answer = (False, error)
        _send(answers, _packed(answer))


class _Worker:
    """A process, started anew when it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, work: Callable[[Any], Any], item: Any) -> Any:
        question, ending = _pickled((work, item)), ""
        for _ in range(_MOST_DEATHS):
            fresh = self._process is None
            process = self._alive()
            assert process.stdin is not None  # both are pipes
            assert process.stdout is not None
            try:
                if fresh:
                    pickle.dump(sys.path, process.stdin)
                _send(process.stdin, question)
                size = int.from_bytes(process.stdout.read(8), "little")
                answer = process.stdout.read(size)
            except OSError:
                size, answer = 0, b""
            if size and len(answer) == size:
                good, value = pickle.loads(answer)  # noqa: S301 - from a process started here
                if not good:
                    raise value
                return value
            ending = self.stop()
        raise RuntimeError(
            f"a worker process died {_MOST_DEATHS} times over one part of the data (the last one {ending}): most "
            "likely the machine has too little memory for so many workers; take fewer, or engine='threads'"
        )

    def stop(self) -> str:
        """End it; says how it ended if it had before."""
        process, self._process = self._process, None
        if process is None:
            return ""
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                # What it did not read any more is of no use.
                with suppress(OSError):
                    pipe.close()
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"

    def _alive(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            command = [sys.executable, "-c", _BOOTSTRAP]
            # In a session of its own Ctrl-C reaches only this process, whose end the workers see by their input's.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
            )
            assert self._process.stdin is not None  # a pipe
        return self._process


def _send(pipe: Any, data: bytes) -> None:
    pipe.write(len(data).to_bytes(8, "little"))
    pipe.write(data)
    pipe.flush()


def _pickled(question: Any) -> bytes:
    try:
        return pickle.dumps(question, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"other processes cannot be given this ({error}): take engine='threads'") from error


def _packed(answer: tuple[bool, Any]) -> bytes:
    try:
        data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        if not answer[0]:
            pickle.loads(data)  # noqa: S301 - an exception that cannot come back would be a riddle over there
        return data
    except Exception:
        return pickle.dumps((False, RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))
