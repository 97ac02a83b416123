"""What a run writes down: metrics, held-out values, spectra, pictures, events, status."""

import math
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from lsdr import runs
from lsdr.layers.tuners import is_adapted
from lsdr.moments import Moments
from lsdr.probes.adapters import AdapterProbe
from lsdr.probes.features import FeatureProbe, feature_summary
from lsdr.probes.weights import WEIGHTED, weight_statistics
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.participation_ratio import participation_ratio
from lsdr.training.config import TrainingConfig
from lsdr.training.stepper import Gradient, Stepper

_FEATURES = ("effective_rank", "participation_ratio", "mean_abs_correlation", "values")
_FILES = ("metrics.jsonl", "evaluations.jsonl", "spectra.jsonl", "monitor.jsonl", "events.jsonl")


class Recorder:
    """Writes a run's files; only the main process writes, every process may call.

    Args:
        directory: The run's directory.
        config: Intervals between records.
        accelerator: Ranks and trackers.
    """

    def __init__(self, directory: Path, config: TrainingConfig, accelerator: Accelerator) -> None:
        self.directory, self.config, self.accelerator = directory, config, accelerator
        self.seconds = 0.0
        self._last_step, self._spikes, self._status_written, self._lr = 0, 0, 0.0, 0.0
        self._pending: list[Gradient] = []
        self._durations: deque[float] = deque(maxlen=500)
        if config.trackers:
            hyperparameters = {
                key: value if isinstance(value, int | float | str) else str(value)
                for key, value in asdict(config).items()
            }
            accelerator.init_trackers("trackers", config=hyperparameters)

    @property
    def timed(self) -> bool:
        """Whether any step has been timed since the run was started or resumed."""
        return bool(self._durations)

    @property
    def median_step_seconds(self) -> float:
        """Median duration of the steps taken lately."""
        return statistics.median(self._durations)

    def restart(self, step: int, state: Mapping[str, Any], *, keep_events: bool = False) -> None:
        """Begin at `step`: drop what was written of later steps, which will be taken again.

        After a rollback the event that caused it stays.
        """
        self.seconds = state.get("seconds", 0.0)
        self._last_step, self._spikes = step, state.get("spikes", 0)
        self._pending.clear()
        if self.accelerator.is_main_process:
            for name in _FILES:
                # Events and looks at the model name the step that was being taken, records the number of steps taken.
                last = step - 1 if name in ("events.jsonl", "monitor.jsonl") or step == 0 else step
                if (self.directory / name).exists() and not (keep_events and name == "events.jsonl"):
                    runs.keep_records(self.directory / name, last)
        self._status("running", "")

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "spikes": self._spikes}

    def step(self, step: int, gradient: Gradient, stepper: Stepper, spikes: int, seconds: float) -> None:
        """Note a step; every `log_every` steps write a record."""
        self.seconds += seconds
        self._durations.append(seconds)
        self._pending.append(gradient)
        self._last_step, self._spikes, self._lr = step, spikes, stepper.learning_rate(step - 1)
        if step % self.config.log_every == 0 or step == self.config.steps:
            self._flush()
        if time.monotonic() - self._status_written > 1:
            self._status("running", "")

    def evaluation(self, step: int, stepper: Stepper) -> dict[str, float]:
        """Record the held-out values of the averaged weights, and return them: on the main process, elsewhere none."""
        if not self.accelerator.is_main_process:
            return {}
        values = stepper.task.evaluate(stepper.average.model)
        runs.append_record(self.directory / "evaluations.jsonl", {"step": step, "seconds": self.seconds, **values})
        self._track(values, step)
        return values

    def picture(self, step: int, stepper: Stepper) -> None:
        """Save a picture of what the averaged weights make."""
        if self.accelerator.is_main_process:
            image = stepper.task.picture(stepper.average.model)
            if image is not None:
                with runs.atomic(self.directory / "samples" / f"step-{step:06d}.png") as temporary:
                    image.save(temporary, format="png")

    def spectra(self, step: int, stepper: Stepper) -> None:
        """Record the spectra of every trained layer's weights, and of the features of the layers the task names.

        Of a layer with adapters the spectrum is that of what they add to its weight.
        """
        if not self.accelerator.is_main_process:
            return
        model, path = stepper.average.model, self.directory / "spectra.jsonl"
        # The average trains nothing itself; of a frozen layer the spectrum would be the same every time.
        trained = {
            name
            for name, module in stepper.plain.named_modules()
            if any(parameter.requires_grad for parameter in module.parameters())
        }
        changes = _changes(model)
        inner = tuple(f"{name}." for name in changes)
        weights = {
            name: {**(changes.get(name) or weight_statistics(module)), "shape": list(module.weight.shape)}
            for name, module in model.named_modules()
            if name in changes or (isinstance(module, WEIGHTED) and name in trained and not name.startswith(inner))
        }
        runs.append_record(path, {"step": step, "kind": "weights", "layers": weights})
        layers = stepper.task.feature_layers()
        if layers is not None:
            with FeatureProbe(layers).attach(model) as probe:
                stepper.task.evaluate(model)
                moments = probe()
            features = {name: _feature_statistics(state) for name, state in moments.items()}
            runs.append_record(path, {"step": step, "kind": "features", "layers": features})

    def monitored(self, values: Mapping[str, float], step: int) -> None:
        """Record what the monitor saw in a turn."""
        if self.accelerator.is_main_process:
            runs.append_record(self.directory / "monitor.jsonl", {"step": step, **values})
        self._track(values, step)

    def event(self, event: Mapping[str, Any]) -> None:
        """Record what the guard found."""
        if self.accelerator.is_main_process:
            runs.append_record(self.directory / "events.jsonl", event)

    def measured(self) -> list[tuple[int, dict[str, float]]]:
        """What the monitor saw in a step, and the held-out values after one, as recorded so far and in that order."""
        watched = runs.read_records(self.directory / "monitor.jsonl")
        evaluated = runs.read_records(self.directory / "evaluations.jsonl")
        found = [(record["step"], record) for record in watched]
        found += [(record["step"] - 1, record) for record in evaluated]
        found.sort(key=lambda pair: pair[0])  # stable: in the same step the monitor comes first
        # JSON has no word for NaN.
        return [
            (step, {k: math.nan if v is None else v for k, v in record.items() if k not in ("step", "seconds")})
            for step, record in found
        ]

    def finish(self) -> None:
        """Write the last record and close the trackers; what became of the run is for the caller to say."""
        if self._pending:
            self._flush()
        self._status("running", "trained; measuring")
        # Not accelerator.end_training(), which also ends the process group: ranks still have to meet.
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        norms = [gradient.norm for gradient in pending]
        record = {
            "loss": statistics.fmean(gradient.loss for gradient in pending),
            "penalty": statistics.fmean(gradient.penalty for gradient in pending),
            "grad_norm": statistics.median(norms),
            "grad_norm_max": max(norms),
            "lr": self._lr,
            "seconds": self.seconds,
            "step_seconds": statistics.median(list(self._durations)[-len(pending) :]),
            "memory_mb": peak_memory_mb(self.accelerator.device),
            "spikes": self._spikes,
            **pending[-1].components,
        }
        if self.accelerator.is_main_process:
            runs.append_record(self.directory / "metrics.jsonl", {"step": self._last_step, **record})
        self._track(record, self._last_step)

    def _track(self, values: Mapping[str, float], step: int) -> None:
        if self.config.trackers:
            self.accelerator.log(dict(values), step=step)

    def _status(self, status: str, message: str) -> None:
        self._status_written = time.monotonic()
        if self.accelerator.is_main_process:
            runs.write_json(
                self.directory / "status.json",
                {
                    "status": status,
                    "step": self._last_step,
                    "steps": self.config.steps,
                    "seconds": self.seconds,
                    "message": message,
                    "spikes": self._spikes,
                },
            )


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB: of the device if it is a GPU, of the process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # Linux counts in kB, macOS in bytes


def _changes(model: nn.Module) -> dict[str, dict[str, float | None]]:
    """What `weight_statistics` tells of a weight, of what adapters add to each layer; nothing where there are none."""
    if not any(is_adapted(module) for module in model.modules()):
        return {}
    found: dict[str, dict[str, float | None]] = {}
    for name, values in AdapterProbe(base=False)(model).items():
        largest = values.get("sigma_max")
        stable = None if largest is None else (values["key_norm"] / largest) ** 2 if largest > 0 else 0.0
        found[name] = {"sigma_max": largest, "stable_rank": stable, "effective_rank": values.get("effective_rank")}
        if "nonfinite" in values:
            found[name]["nonfinite"] = values["nonfinite"]
    return found


def _feature_statistics(moments: Moments) -> dict[str, Any]:
    try:
        spectrum, correlation = feature_summary(moments)
    except ValueError:  # features that are not finite have no spectrum, and that is recorded too
        return dict.fromkeys(_FEATURES)
    zero = float(spectrum.values[0]) == 0
    return {
        "effective_rank": 0.0 if zero else float(effective_rank(spectrum)),
        "participation_ratio": 0.0 if zero else float(participation_ratio(spectrum)),
        "mean_abs_correlation": float(correlation),
        "values": spectrum.values.tolist(),
    }
