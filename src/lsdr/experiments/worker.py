"""Carry out one run in a process of its own: `python -m lsdr.experiments.worker JOB.json`.

The comparison writes the job file into the run's folder, so that a run can be repeated by hand, alone.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from lsdr.experiments.dotted import load
from lsdr.experiments.fields import from_dict
from lsdr.experiments.lock import alone
from lsdr.experiments.methods import resolve
from lsdr.runs import read_json

SUPERVISED = "--supervised"
"""The starter holds the other end of standard input; when that closes, the starter is gone and the run ends."""


def main(arguments: list[str]) -> None:
    """Run the job of the file that is named first."""
    job = read_json(Path(arguments[0]))
    if SUPERVISED in arguments:
        threading.Thread(target=_end_with_starter, daemon=True).start()
    directory = Path(job["directory"])
    # After a `kill -9` of the comparison an orphan may live for a moment longer; two writers would spoil the run.
    with alone(directory, patience=60.0):
        run = load(job["run"])
        config = from_dict(load(job["config_type"]), job["config"])
        method = resolve(job["method"], job["methods"], job["task"])
        run(config, method.build(), directory, reference_seconds=job["reference_seconds"])


def _end_with_starter() -> None:
    # os.read and not sys.stdin: a reader blocked inside the latter breaks the interpreter's shutdown.
    while os.read(0, 1):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)  # the starter made us a group of our own: this takes our children too


if __name__ == "__main__":
    main(sys.argv[1:])
