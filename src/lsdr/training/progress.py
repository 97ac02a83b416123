"""The bar that a training run draws on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lsdr.training.stepper import Gradient


@contextmanager
def training_bar(steps: int, *, show: bool) -> Iterator[Callable[[int, Gradient], None] | None]:
    """What to call after every step.

    Args:
        steps: How many there will be.
        show: Whether to draw anything; if not there is nothing to call.
    """
    if not show:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=steps, detail="")
        smooth: list[float] = []

        def on_step(step: int, gradient: Gradient) -> None:
            smooth[:] = [gradient.watched if not smooth else 0.95 * smooth[0] + 0.05 * gradient.watched]
            speed = progress.tasks[bar].speed
            rate = f", {speed:.1f} steps/s" if speed else ""
            progress.update(bar, completed=step, detail=f"loss {smooth[0]:.4f}{rate}")

        yield on_step
