"""The monitor in the Trainer of Hugging Face transformers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from lsdr.integrations.open_step import OpenStep
from lsdr.monitor.monitor import Monitor
from lsdr.monitor.probe import Probe

try:
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback
except ImportError as error:
    raise ImportError("lsdr.integrations.transformers needs transformers: pip install transformers") from error

_FILE = "monitor.safetensors"


class MonitorCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Measures the model while a Trainer trains it; `trainer.add_callback(MonitorCallback(trainer))`.

    A step is all forwards and backwards up to the optimiser's step, so gradients are those that it takes: of all
    accumulated chunks, clipped. Values go to the Trainer's `state.log_history` and to its trackers (TensorBoard, W&B,
    ...), as `Trainer.log` does it, but not to the console. The monitor's state is kept in each checkpoint.

    Args:
        trainer: The Trainer; None: values go to `state.log_history` alone.
        probes: What to measure; see `Monitor`.
        every: Steps of the optimiser from turn to turn.
        budget: Seconds of measuring per second of training.
    """

    def __init__(
        self,
        trainer: Any = None,
        probes: Sequence[Probe] | Mapping[str, Probe] | None = None,
        every: int = 100,
        budget: float | None = 0.01,
    ):
        self.trainer, self.probes, self.every, self.budget = trainer, probes, every, budget
        self.monitor: Monitor | None = None
        """The monitor, once training has begun."""
        self._step = OpenStep()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make the monitor; take up its state where training is resumed."""
        self._step.abandon()

        def log(values: dict[str, float], step: int) -> None:
            state.log_history.append({**values, "epoch": state.epoch, "step": step})
            for callback in [] if self.trainer is None else self.trainer.callback_handler.callbacks:
                if not isinstance(callback, PrinterCallback | ProgressCallback | MonitorCallback):
                    callback.on_log(args, state, control, logs=dict(values), **kwargs)

        self.monitor = Monitor(kwargs["model"], self.probes, self.every, log, self.budget)
        saved = _folder(args, state) / _FILE
        if state.global_step and saved.exists():
            with safe_open(saved, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                self.monitor.load_state_dict({"numbers": json.loads(file.metadata()["numbers"]), "tensors": tensors})

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step of the optimiser begins."""
        if self.monitor is not None:
            self._step.begin(self.monitor, state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All gradients are there."""
        self._step.end()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training is over."""
        self._step.abandon()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the monitor's state in the checkpoint."""
        folder = _folder(args, state)
        if self.monitor is not None and state.is_world_process_zero and folder.is_dir():
            kept = self.monitor.state_dict()
            save_file(kept["tensors"], folder / _FILE, metadata={"numbers": json.dumps(kept["numbers"])})


def _folder(args: Any, state: Any) -> Path:
    """Where the Trainer keeps the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
