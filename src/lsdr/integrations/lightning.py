"""The monitor in the Trainer of Lightning."""

from collections.abc import Mapping, Sequence
from typing import Any

from lsdr.integrations.open_step import OpenStep
from lsdr.monitor.monitor import Monitor
from lsdr.monitor.probe import Probe

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError as error:
        raise ImportError("lsdr.integrations.lightning needs lightning: pip install lightning") from error


class MonitorCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Measures the model while a Trainer trains it; `Trainer(callbacks=[MonitorCallback()])`.

    A step is all forwards and backwards up to the optimiser's step, so gradients are those of all accumulated chunks,
    before Lightning clips them. Values go to the Trainer's loggers. The state is kept in Lightning's checkpoints.

    Args:
        probes: What to measure; see `Monitor`. Names of layers are those in the LightningModule.
        every: Steps of the optimiser from turn to turn.
        budget: Seconds of measuring per second of training.
    """

    def __init__(
        self,
        probes: Sequence[Probe] | Mapping[str, Probe] | None = None,
        every: int = 100,
        budget: float | None = 0.01,
    ):
        self.probes, self.every, self.budget = probes, every, budget
        self.monitor: Monitor | None = None
        """The monitor, once training has begun."""
        self._step = OpenStep()
        self._resumed: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the monitor; take up its state where training is resumed."""
        self._step.abandon()

        def log(values: dict[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)

        self.monitor = Monitor(pl_module, self.probes, self.every, log, self.budget)
        if self._resumed:
            self.monitor.load_state_dict(self._resumed)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch begins, and with it a step unless one is open."""
        if self.monitor is not None:
            self._step.begin(self.monitor, trainer.global_step)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """All gradients are there."""
        self._step.end()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Training is over."""
        self._step.abandon()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Training has failed."""
        self._step.abandon()

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in a checkpoint."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up when training begins."""
        self._resumed = state_dict
