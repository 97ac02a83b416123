"""Methods x seeds, paired: the same seed gives every method the same initial weights, data order and noise."""

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from lsdr.experiments.dotted import dotted, load
from lsdr.experiments.engines.local import Poll, local
from lsdr.experiments.fields import differences, to_dict
from lsdr.experiments.lock import alone
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.experiments.progress import Display
from lsdr.experiments.states import OVER, Run, read_status, training_seconds
from lsdr.experiments.summary import summarize
from lsdr.experiments.task import DIFFUSION, Task
from lsdr.runs import environment, read_json, record_status, write_json

BASELINE = "baseline"
_PAUSE = 0.2
_LOG_LINES = 15


def compare(
    config: Any,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    task: Task = DIFFUSION,
    engine: Literal["local", "ray"] = "local",
    jobs: int | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train every method on every seed, each run in a process of its own, and summarize.

    Stopped in any way and called again, it keeps the runs that are over and goes on with those that are not. Methods
    and seeds may be added to an experiment that exists; its configuration may not change. A run that diverges or
    crashes is a result and stays one until its folder is deleted. The baseline of a seed runs before the seed's other
    methods, because its wall-clock is the time at which they are measured a second time.

    Args:
        config: The task's configuration, a dataclass with a field `training` that has `seed` and what methods override.
        methods: See `lsdr.experiments.methods.resolve`; two specs must not mean the same method.
        seeds: Seeds; every method runs on each.
        out: The experiment directory.
        task: What is trained and measured.
        engine: Processes of this machine, or Ray.
        jobs: Runs at a time; by default as many as there are GPUs or, without any, processors, and no more than runs.
        console: Where progress is shown; by default standard error.

    Returns:
        What summary.json holds.

    Raises:
        ValueError: If a method, the seeds or jobs are wrong, or `out` holds an experiment of another configuration.
        KeyboardInterrupt: On Ctrl-C, after the active runs were stopped and the summary written.
    """
    console = console or Console(stderr=True)
    if not methods or not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"expected at least one method and distinct seeds, got methods {methods} and seeds {seeds}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if (out / "metrics.jsonl").exists():
        raise ValueError(f"{out} holds a single training run, not a comparison; choose another --out")
    existed = (out / "experiment.json").exists()
    before: dict[str, Any] | None = read_json(out / "experiment.json") if existed else None
    specs = list(dict.fromkeys([*(each["spec"] for each in (before or {"methods": []})["methods"]), *methods]))
    resolved = {spec: resolve(spec, specs, task.name) for spec in specs}
    names = [method.name for method in resolved.values()]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two of the methods {', '.join(specs)} mean {twice!r}; name each once")
    runs = _ordered([Run.of(out, resolved[spec].name, seed) for spec in methods for seed in seeds])
    cores, devices = _cores(), _devices()
    jobs = jobs or min(len(devices) or cores, len(runs))
    experiment = _experiment(before, config, resolved, seeds, task, _threads(cores // jobs), out)

    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        write_json(out / "experiment.json", experiment)
        spec_of = {method.name: spec for spec, method in resolved.items()}

        def write_job(run: Run) -> Path:
            method = resolved[spec_of[run.method]]
            reference = Run.of(out, BASELINE, run.seed).directory
            job = {
                "task": task.name,
                "run": task.run,
                "config_type": dotted(type(config)),
                "config": to_dict(_configured(config, method, run.seed)),
                "method": spec_of[run.method],
                "methods": specs,
                "directory": str(run.directory.resolve()),
                "reference_seconds": None if run.method == BASELINE else training_seconds(reference),
            }
            write_json(run.directory / "job.json", job)
            return (run.directory / "job.json").resolve()

        try:
            _carry_out(runs, write_job, _engine(engine, jobs, experiment["threads"], devices), jobs, console)
        finally:
            _adopt_data(out, experiment, runs)
            over = all(
                read_status(Run.of(out, name, seed).directory)["status"] in OVER
                for name in names
                for seed in experiment["seeds"]
            )
            experiment["finished"] = _now() if over else None
            write_json(out / "experiment.json", experiment)
            summary = summarize(out)
    return summary


def _experiment(
    before: dict[str, Any] | None,
    config: Any,
    methods: dict[str, Method],
    seeds: Sequence[int],
    task: Task,
    threads: int,
    out: Path,
) -> dict[str, Any]:
    """Make experiment.json's content, or add to the one that is there after checking that it is the same experiment."""
    plain = to_dict(config)
    plain["training"].pop("seed", None)  # the seeds are the experiment's own
    described = [_described(spec, method) for spec, method in methods.items()]
    for method in methods.values():
        _configured(config, method, seeds[0])  # a wrong override is an error now, not in every run
    if before is None:
        return {
            "task": task.name,
            "command": _command(),
            "created": _now(),
            "finished": None,
            "environment": environment(),
            "methods": described,
            "seeds": list(seeds),
            "config": plain,
            # Sums of floats depend on the number of threads: a run that goes on elsewhere keeps it.
            "threads": threads,
            "data": None,
            "measures": {name: to_dict(measure) for name, measure in load(task.measures).items()},
        }
    old = {"task": before["task"], **before["config"]}
    changed = differences(old, {"task": task.name, **plain})
    for was, now in zip(before["methods"], described, strict=False):
        keys = ("regularizers", "overrides")
        changed += differences({key: was[key] for key in keys}, {key: now[key] for key in keys}, was["name"])
    if changed:
        raise ValueError(
            f"{out} holds an experiment of another configuration:\n  " + "\n  ".join(changed) + "\n"
            "Choose another --out, or repeat the first configuration (methods and seeds may be added to it)"
        )
    extended = {**before, "methods": described, "seeds": list(dict.fromkeys([*before["seeds"], *seeds]))}
    if len(described) > len(before["methods"]) or len(extended["seeds"]) > len(before["seeds"]):
        extended["command"] = f"{before['command']}\n{_command()}"
    return extended


def _described(spec: str, method: Method) -> dict[str, Any]:
    # An object's address differs from process to process.
    regularizers = [re.sub(r" at 0x[0-9a-f]+", "", repr(each)) for each in method.build()]
    return {
        "name": method.name,
        "spec": spec,
        "description": method.description,
        "regularizers": regularizers,
        "overrides": dict(method.overrides),
    }


def _configured(config: Any, method: Method, seed: int) -> Any:
    return method.configure(replace(config, training=replace(config.training, seed=seed)))


def _ordered(runs: Sequence[Run]) -> list[Run]:
    """Seed by seed, each seed's baseline first."""
    seeds = list(dict.fromkeys(run.seed for run in runs))
    return sorted(runs, key=lambda run: (seeds.index(run.seed), run.method != BASELINE))


def _engine(
    name: str, jobs: int, threads: int, devices: Sequence[str]
) -> AbstractContextManager[Callable[[Path], Poll]]:
    if name == "local":
        return local(threads, devices)
    from lsdr.experiments.engines.ray import on_ray

    return on_ray(jobs, threads, devices)


def _carry_out(
    runs: Sequence[Run],
    write_job: Callable[[Run], Path],
    engine: AbstractContextManager[Callable[[Path], Poll]],
    jobs: int,
    console: Console,
) -> None:
    """Start the runs that are not over, as many at a time as asked, and wait for all."""
    waiting = [run for run in runs if read_status(run.directory)["status"] not in OVER]
    active: dict[Run, Poll] = {}
    with Display(console, total=len(runs), done=len(runs) - len(waiting)) as display:
        _recall(set(runs) - set(waiting), console)
        if not waiting:
            return
        try:
            with engine as start:
                while waiting or active:
                    blocked = {run.seed for run in [*waiting, *active] if run.method == BASELINE}
                    ready = [run for run in waiting if run.method == BASELINE or run.seed not in blocked]
                    for run in ready[: jobs - len(active)]:
                        waiting.remove(run)
                        active[run] = start(write_job(run))
                        display.started(run)
                    time.sleep(_PAUSE)
                    for run, poll in list(active.items()):
                        ending = poll()
                        if ending is not None:
                            del active[run]
                            display.ended(run, *_settle(run, ending))
                    display.update()
        except KeyboardInterrupt:
            console.print("interrupted; the same command goes on from here")
            raise
        finally:
            for run in active:
                if read_status(run.directory)["status"] not in OVER:
                    record_status(
                        run.directory, "interrupted", "stopped on request; the same command goes on from here"
                    )


def _settle(run: Run, ending: str) -> tuple[str, str]:
    """Make sure that a run whose process has ended has a result; say which, and what to do about a crash."""
    status = read_status(run.directory)
    if status["status"] == "interrupted" and ending == "exit code 0":
        return "interrupted", "the process was asked to stop; the same command goes on from here"
    if status["status"] in ("out_of_memory", "disk_full"):  # no result yet, and its message says what to do
        return status["status"], status["message"]
    if status["status"] not in OVER:
        record_status(run.directory, "crashed", f"the process ended without a result ({ending})")
        status = read_status(run.directory)
    if status["status"] != "crashed":
        return status["status"], status.get("message") or ""
    log = run.directory / "worker.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    return "crashed", "\n".join(
        [status["message"], f"The end of {log}:", *(f"  {line}" for line in lines), _remedy(run)]
    )


def _remedy(run: Run) -> str:
    return f"To run it again, delete {run.directory}; to go on from its last checkpoint, only its status.json."


def _recall(over: set[Run], console: Console) -> None:
    """Name the crashed runs of an earlier call, which are not tried again."""
    for run in sorted(over, key=lambda run: run.title):
        status = read_status(run.directory)
        if status["status"] == "crashed":
            text = f"{run.title}: crashed earlier: {status['message']}\n{_remedy(run)}"
            console.print(text, markup=False, highlight=False)


def _adopt_data(out: Path, experiment: dict[str, Any], runs: Sequence[Run]) -> None:
    """Take the description of the data, and its picture, from the first run that has left one."""
    for run in runs:
        path = run.directory / "data.json"
        if experiment["data"] is None and path.exists():
            experiment["data"] = read_json(path)
            picture = run.directory / "data.png"
            if picture.exists():
                (out / "data.png").write_bytes(picture.read_bytes())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them."""
    count = load("torch.cuda:device_count")()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (named.split(",") if named else [str(number) for number in range(count)])[:count]


def _threads(share: int) -> int:
    """Threads a run may use: its share of the processors, or fewer where the user's environment says so."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(share, int(asked)) if asked.isdecimal() else share)


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
