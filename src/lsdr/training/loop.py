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
from lsdr.training.guard import Guard, Trouble
from lsdr.training.interrupt import interruptible
from lsdr.training.order import EpochOrder, StepSampler, stream_seed
from lsdr.training.provenance import investigate
from lsdr.training.recorder import Recorder
from lsdr.training.stepper import Gradient, Stepper, open_stepper
from lsdr.training.task import Task

# So many steps in a row left out, or rollbacks in all, and the run counts as diverged.
_PATIENCE = 10
# Medians of step times repeat to about this: a smaller difference in cost counts as none.
_CLOCK_NOISE = 0.02
# No method is so much faster than the baseline: beyond this, the baseline's clock was disturbed.
_LONGEST = 2


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, diverged or interrupted, at which step, and why in words."""

    status: str
    step: int
    message: str


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
        How it ended. A diverged run is an outcome, not an exception.
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
        self.monitor = Monitor(stepper.plain, every=every, log=recorder.monitored) if every else None

    def go(self, interrupted: Callable[[], bool], on_step: Callable[[int, Gradient], None] | None) -> Outcome:
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
                with self.monitor.at(self.step) if self.monitor else nullcontext():
                    gradient = self.stepper.gradient(self.step, examples)
                trouble = self._check(gradient)
                if self.guard.gradient_spike is not None:
                    self.recorder.event(self.guard.gradient_spike.to_event("none"))
                if trouble is not None:
                    event = investigate(self.stepper, self.step, examples, self.previous, trouble, self.config.guard)
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
                self.stepper.update(self.step - 1, gradient)
                self.previous, self.last_loss, self.in_a_row = (self.step - 1, examples), gradient.loss, 0
                self.recorder.step(self.step, gradient, self.stepper, self.guard.spikes, time.perf_counter() - started)
            self._after_step()
            if on_step is not None and gradient is not None:
                on_step(self.step, gradient)
        if not math.isfinite(self.last_loss):
            return self._end("diverged", f"the loss is {self.last_loss} at the last step, and the guard was off")
        return self._end("finished", "")

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

    def _check(self, gradient: Gradient) -> Trouble | None:
        if self.stepper.overflowed(gradient):
            self.guard.gradient_spike = None
            return None
        return self.guard.check(self.step, gradient.loss, gradient.norm)

    def _after_step(self) -> None:
        # A faster method trains on past its own steps, to equal wall-clock: both ends are ends.
        config, last = self.config, self.step in (self.config.steps, self.target)
        self._decide_equal_step()
        if self.step % config.evaluate_every == 0 or last:
            self.recorder.evaluation(self.step, self.stepper)
        if last or (config.sample_every and self.step % config.sample_every == 0):
            self.recorder.picture(self.step, self.stepper)
            self.recorder.spectra(self.step, self.stepper)
        if self.step == config.steps:
            self._snapshot("final")
        if self.step == self.equal_step:
            self._snapshot("equal_time")
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
            folder = self.directory / "snapshots" / name
            checkpoints.save_tensors(folder / "model.safetensors", self.stepper.plain.state_dict())
            checkpoints.save_tensors(folder / "ema.safetensors", self.stepper.average.model.state_dict())
            runs.write_json(folder / "snapshot.json", {"step": self.step, "seconds": self.recorder.seconds})

    def save(self) -> None:
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            tensors = {
                "model": self.stepper.plain.state_dict(),
                "ema": self.stepper.average.model.state_dict(),
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
        self.stepper.plain.load_state_dict(dict(found.tensors["model"]))
        self.stepper.average.model.load_state_dict(dict(found.tensors["ema"]))
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
        order = EpochOrder(len(dataset), config.batch_size, config.seed)
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
        self.recorder.finish()
        return Outcome(status, self.step, message)
