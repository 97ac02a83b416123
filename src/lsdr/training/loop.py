"""The training loop: steps, guard, records, pictures, checkpoints; killed at any moment it goes on bit for bit."""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from lsdr import runs
from lsdr.monitor.monitor import Monitor
from lsdr.regularizers.regularizer import Regularizer
from lsdr.training import checkpoint as checkpoints
from lsdr.training.config import TrainingConfig
from lsdr.training.exhausted import DiskFullError, is_disk_full, is_out_of_memory, memory_advice
from lsdr.training.guard import Guard, Trouble
from lsdr.training.interrupt import interruptible
from lsdr.training.order import StepSampler, order_of, stream_seed
from lsdr.training.provenance import investigate
from lsdr.training.recorder import Recorder
from lsdr.training.stepper import Gradient, Stepper, open_stepper
from lsdr.training.task import Task, events_of, probes_of
from lsdr.training.turn import Turn

# So many steps in a row left out, or rollbacks in all, and the run counts as diverged.
_PATIENCE = 10
# Medians of step times repeat to about this: a smaller difference in cost counts as none.
_CLOCK_NOISE = 0.02
# No method is so much faster than the baseline: beyond this, the baseline's clock was disturbed.
_LONGEST = 2


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, diverged, interrupted, out_of_memory or disk_full, at which step, and why in words."""

    status: str
    step: int
    message: str

    @property
    def over(self) -> bool:
        """Whether the run has had its result; if not, it was stopped on the way and can be resumed."""
        return self.status in ("finished", "diverged")


def train(
    task: Task,
    config: TrainingConfig,
    directory: Path,
    accelerator: Accelerator,
    *,
    regularizers: Sequence[Regularizer] = (),
    reference_seconds: float | None = None,
    on_step: Callable[[int, Gradient], None] | None = None,
) -> Outcome:
    """Train, or go on with, the run in `directory`.

    Writes metrics.jsonl, evaluations.jsonl, spectra.jsonl, monitor.jsonl, events.jsonl, samples/, checkpoints/,
    snapshots/ and status.json there. With checkpoints present the run goes on from the newest; on a CPU the weights
    then end bitwise equal to those of a run that was never interrupted.

    Args:
        task: Model, examples and loss.
        config: How to train.
        directory: The run's directory.
        accelerator: Device, precision, ranks and trackers.
        regularizers: The method under test; empty for plain training.
        reference_seconds: Training time at which to keep a second snapshot, "equal_time": a slower method passes it
            before its last step, a faster one trains on until it. None for no such snapshot.
        on_step: Called after every step with the number of steps taken and what the step found.

    Returns:
        How it ended. A diverged run is an outcome, not an exception; so is one that ran out of memory or disk, whose
        message says what to do about it and from which step it can be resumed. It may be resumed with another
        `accumulate`: the statistics of a batch stay those of the whole batch, the gradients change by rounding.
    """
    # Initial weights came from the caller; from here on every stream of randomness is named by seed and step.
    recorder = Recorder(directory, config, accelerator)
    with open_stepper(task, config, accelerator, regularizers) as stepper, interruptible() as interrupted:
        run = _Run(stepper, directory, recorder, reference_seconds)
        run.restore()
        return run.go(interrupted, on_step)


class _Run:
    """One call of `train`: the stepper plus all that is not a step."""

    def __init__(self, stepper: Stepper, directory: Path, recorder: Recorder, reference: float | None) -> None:
        self.stepper, self.directory, self.recorder, self.reference = stepper, directory, recorder, reference
        self.config, self.accelerator = stepper.config, stepper.accelerator
        self.guard = Guard(action=self.config.guard)
        self.step, self.rollbacks, self.equal_step = 0, 0, None if reference is None else 0
        self.skipped: set[int] = set()
        self.last_loss, self.in_a_row = 0.0, 0
        self.previous: tuple[int, dict[str, Tensor]] | None = None
        every = self.config.monitor_every
        probes = probes_of(stepper.task, stepper.plain)
        self.monitor = Monitor(stepper.plain, probes, every=every, log=self._monitored) if every else None

    def go(self, interrupted: Callable[[], bool], on_step: Callable[[int, Gradient], None] | None) -> Outcome:
        try:
            return self._go(interrupted, on_step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).strip().split("\n")[0] or type(error).__name__
            if self.accelerator.num_processes > 1:  # the others wait within a collective: only an exit frees them
                raise RuntimeError(f"{said}: {memory_advice(self.config)}") from error
        except OSError as error:
            if not is_disk_full(error) or self.accelerator.num_processes > 1:
                raise
            known = isinstance(error, DiskFullError)
            full = error.strerror if known else f"the disk of {error.filename or self.directory} is full"
            return self._end("disk_full", f"{full}. {self._resumable()}")
        # Only here, since the exception holds on to the step's tensors.
        return self._out_of_memory(said)

    def _out_of_memory(self, said: str) -> Outcome:
        advice = f"out of memory: {said.removesuffix('.')}. To need less, {memory_advice(self.config)}"
        try:
            self.stepper.retract()
            if self.step and not self.stepper.between_steps:
                self.save()
        except (RuntimeError, MemoryError, OSError) as error:  # the advice is still worth having
            advice += f"; the state could not be saved ({error})"
        return self._end("out_of_memory", f"{advice}. {self._resumable()}")

    def _resumable(self) -> str:
        saved = checkpoints.checkpoints(self.directory / "checkpoints")
        if not saved:
            return "No checkpoint is there yet: the run starts anew"
        step = checkpoints.step_of(saved[-1])
        return f"The run can be resumed from step {step}, also with another accumulate; other options need a new run"

    def _go(self, interrupted: Callable[[], bool], on_step: Callable[[int, Gradient], None] | None) -> Outcome:
        if self.step == 0:
            self.recorder.spectra(0, self.stepper)
            if self.config.guard == "rollback":
                self.save()
        batches = self._batches()
        while self.step < self.target:
            if self._agreed(interrupted()):
                self.save()
                return self._end("interrupted", "stopped on request; it can be resumed")
            started = time.perf_counter()
            examples = next(batches)
            gradient = None
            if self.step not in self.skipped:
                gradient, trouble, turn = self._take_turns(examples)
                if trouble is not None:
                    event = self._investigate(examples, trouble, turn)
                    self.recorder.event(event)
                    self.stepper.abandon()
                    if self.step >= self.config.steps:  # on the way to equal wall-clock, its own steps well done
                        return self._end("finished", f"at step {self.step}, past its own: {event['message']}")
                    self.in_a_row += 1
                    # A weight that is not finite stays so, however many steps are left out.
                    hopeless = event["direction"] == "parameter" and self.config.guard == "skip"
                    if self.config.guard == "stop" or hopeless or max(self.in_a_row, self.rollbacks) >= _PATIENCE:
                        return self._end("diverged", event["message"])
                    self.skipped.add(self.step)
                    if self.config.guard == "rollback":
                        self._roll_back()
                        batches = self._batches()
                        continue
                    gradient = None
            self.step += 1
            if gradient is not None:
                self.previous, self.last_loss, self.in_a_row = (self.step - 1, examples), gradient.watched, 0
                self.recorder.step(self.step, gradient, self.stepper, self.guard.spikes, time.perf_counter() - started)
            self._after_step()
            if on_step is not None and gradient is not None:
                on_step(self.step, gradient)
        if not math.isfinite(self.last_loss):
            return self._end("diverged", f"the loss is {self.last_loss} at the last step, and the guard was off")
        return self._end("finished", "")

    def _take_turns(self, examples: Mapping[str, Tensor]) -> tuple[Gradient, Trouble | None, Turn]:
        """One step: every turn's gradient and then its update, up to the first turn in trouble, which moves nothing."""
        found: Gradient | None = None
        for turn in self.stepper.turns:
            with self.monitor.at(self.step) if self.monitor and found is None else nullcontext():
                gradient = self.stepper.gradient(self.step, examples, turn)
            trouble = self._check(gradient, turn)
            if self.guard.gradient_spike is not None:
                self.recorder.event(self.guard.gradient_spike.to_event("none"))
            if trouble is not None:
                return gradient, trouble, turn
            self.stepper.update(self.step, gradient, turn)
            if len(self.stepper.turns) > 1:
                gradient = gradient.after(found or Gradient(0.0, 0.0, 0.0, {}), turn.name)
            found = gradient
        assert found is not None
        return found, None, turn

    @property
    def target(self) -> int:
        """Steps to take: the configured ones, or more where a faster method trains on to equal wall-clock."""
        return max(self.config.steps, self.equal_step or 0)

    def _agreed(self, wish: bool) -> bool:
        """Whether any rank wishes to stop; asked rarely, since the answer costs a collective."""
        if self.accelerator.num_processes == 1:
            return wish
        if self.step % self.config.log_every:
            return False
        wishes = torch.tensor(float(wish), device=self.accelerator.device)
        return bool(self.accelerator.reduce(wishes, reduction="sum") > 0)

    def _check(self, gradient: Gradient, turn: Turn) -> Trouble | None:
        if self.stepper.overflowed(gradient):
            self.guard.gradient_spike = None
            return None
        return self.guard.check(self.step, gradient.watched, gradient.norm, turn.name)

    def _investigate(self, examples: Mapping[str, Tensor], trouble: Trouble, turn: Turn) -> dict[str, Any]:
        action = self.config.guard
        try:
            return investigate(self.stepper, self.step, examples, self.previous, trouble, action, turn)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.accelerator.num_processes > 1:
                raise
            event = trouble.to_event(action) | {"direction": "", "batch": examples["index"].tolist()}
            event["message"] += "; there was not enough memory to find out where it came from"
            return event

    def _monitored(self, values: Mapping[str, float], step: int) -> None:
        self.recorder.monitored(values, step)
        self._tell(values, step)

    def _tell(self, values: Mapping[str, float], step: int) -> None:
        if values:
            for event in events_of(self.stepper.task, values, step):
                self.recorder.event(event)

    def _after_step(self) -> None:
        # A faster method trains on past its own steps, to equal wall-clock: both ends are ends.
        config, last = self.config, self.step in (self.config.steps, self.target)
        self._decide_equal_step()
        # First of all: no failure of a measurement may cost the weights.
        if self.step == config.steps:
            self._snapshot("final")
        if self.step == self.equal_step:
            self._snapshot("equal_time")
        if self.step % config.evaluate_every == 0 or last:
            self._tell(self.recorder.evaluation(self.step, self.stepper), self.step - 1)
        if last or (config.sample_every and self.step % config.sample_every == 0):
            self.recorder.picture(self.step, self.stepper)
            self.recorder.spectra(self.step, self.stepper)
        if self.step % config.checkpoint_every == 0 or last:
            self.save()

    def _decide_equal_step(self) -> None:
        # Wall-clock under load is noisy, so the step of equal time comes from the median step, once, early on.
        early = max(self.config.steps // 10, 1)
        if self.reference is not None and self.equal_step == 0 and self.step >= early and self.recorder.timed:
            local = torch.tensor(self.reference / self.recorder.median_step_seconds, device=self.accelerator.device)
            steps = round(float(self.accelerator.reduce(local, reduction="mean")))
            steps = min(steps, _LONGEST * self.config.steps)
            near = abs(steps - self.config.steps) <= _CLOCK_NOISE * self.config.steps
            self.equal_step = self.config.steps if near else max(steps, self.step)

    def _snapshot(self, name: str) -> None:
        if self.accelerator.is_main_process:
            state = {"step": self.step, "seconds": self.recorder.seconds}
            content = checkpoints.Checkpoint(self.stepper.state(), state)
            checkpoints.save_snapshot(self.directory / "snapshots" / name, content)

    def save(self) -> None:
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            tensors = {
                **self.stepper.state(),
                "optimizer": checkpoints.optimizer_tensors(self.stepper.optimizer, self.stepper.plain),
                "regularizers": self.stepper.penalty.state_dict(),
            }
            watched = self.monitor.state_dict() if self.monitor else {"tensors": {}, "numbers": None}
            if watched["tensors"]:
                tensors["monitor"] = watched["tensors"]
            state = {
                "step": self.step,
                "monitor": watched["numbers"],
                "guard": self.guard.state_dict(),
                "skipped": sorted(self.skipped),
                "rollbacks": self.rollbacks,
                "in_a_row": self.in_a_row,
                "last_loss": self.last_loss,
                "equal_step": self.equal_step,
                "scaler": None if scaler is None else scaler.state_dict(),
                **self.recorder.state(),
            }
            checkpoints.save_checkpoint(
                self.directory / "checkpoints", checkpoints.Checkpoint(tensors, state), self.config.keep
            )
        self.accelerator.wait_for_everyone()

    def restore(self, *, keep_events: bool = False) -> None:
        found = checkpoints.load_latest(self.directory / "checkpoints")
        if found is None:
            self.recorder.restart(0, {})
            return
        self.stepper.load_state(found.tensors)
        self.stepper.optimizer.state.clear()
        checkpoints.load_optimizer_tensors(self.stepper.optimizer, self.stepper.plain, found.tensors["optimizer"])
        self.stepper.penalty.load_state_dict(dict(found.tensors.get("regularizers", {})))
        state = found.state
        if self.monitor is not None and state.get("monitor"):
            self.monitor.load_state_dict({"numbers": state["monitor"], "tensors": found.tensors.get("monitor", {})})
        self._check_steps(state)
        self.guard.load_state_dict(state["guard"])
        self.step, self.equal_step = state["step"], state["equal_step"]
        self.skipped, self.rollbacks = set(state["skipped"]), state["rollbacks"]
        # JSON has no word for NaN.
        self.last_loss = math.nan if state["last_loss"] is None else state["last_loss"]
        self.in_a_row = state["in_a_row"]
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.recorder.restart(self.step, state, keep_events=keep_events)
        if not keep_events:  # the task is a new one, which has seen nothing yet
            self._remind()

    def _remind(self) -> None:
        """Show the task again what was measured before; what it says to that is recorded already."""
        for step, values in self.recorder.measured():
            events_of(self.stepper.task, values, step)

    def _check_steps(self, state: Mapping[str, Any]) -> None:
        """Refuse to shorten a run, and drop the snapshots that belong to steps which will be taken again."""
        if state["step"] > max(self.config.steps, state["equal_step"] or 0):
            raise ValueError(
                f"{self.directory} has taken {state['step']} steps already, not {self.config.steps} as asked for: "
                f"give --steps {state['step']} or more, or another folder"
            )
        for path in (self.directory / "snapshots").glob("*/snapshot.json"):
            taken = runs.read_json(path)["step"]
            lengthened = path.parent.name == "final" and taken != self.config.steps
            if self.accelerator.is_main_process and (taken > state["step"] or lengthened):
                shutil.rmtree(path.parent)

    def _roll_back(self) -> None:
        kept = set(self.skipped), self.rollbacks + 1, self.in_a_row
        self.restore(keep_events=True)
        self.skipped, self.rollbacks, self.in_a_row = kept

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        config, accelerator = self.config, self.accelerator
        dataset: Any = self.stepper.task.dataset
        order = order_of(dataset, config.batch_size, config.seed)
        loader = DataLoader(
            dataset,
            batch_sampler=StepSampler(order, self.step, accelerator.process_index, accelerator.num_processes),
            num_workers=config.workers,
            collate_fn=dict,
            pin_memory=accelerator.device.type == "cuda",
            generator=torch.Generator().manual_seed(stream_seed(config.seed, "loader")),
        )
        return iter(loader)

    def _end(self, status: str, message: str) -> Outcome:
        try:
            self.recorder.finish()
        except OSError as error:
            if status != "disk_full" or not is_disk_full(error):
                raise
        return Outcome(status, self.step, message)
