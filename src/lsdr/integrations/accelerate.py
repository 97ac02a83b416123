"""The monitor's values in the trackers of Accelerate."""

from collections.abc import Callable
from typing import Any


def accelerate_log(accelerator: Any) -> Callable[[dict[str, float], int], None]:
    """A log function for `Monitor` that sends values to an Accelerator's trackers (TensorBoard, W&B, trackio, ...).

    `Monitor(model, log=accelerate_log(accelerator))`; the trackers are those that `accelerator.init_trackers` started.

    Args:
        accelerator: An `accelerate.Accelerator`.

    Returns:
        `log(values, step)`.
    """

    def log(values: dict[str, float], step: int) -> None:
        accelerator.log(values, step=step)

    return log
