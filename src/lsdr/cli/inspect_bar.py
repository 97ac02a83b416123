"""A bar on a terminal while something is inspected; nothing where there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[str, float, float | None, str], None]


@contextmanager
def bar(first: str) -> Iterator[Advance]:
    """Show how far it has come.

    Args:
        first: What is being done, in a word or two.

    Yields:
        A function of what is done now, how much of how much is done (None: of an unknown amount),
        and the same in words.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(first, total=None, words="")

        def advance(doing: str, done: float | int, total: float | int | None, words: str) -> None:
            progress.update(task, description=doing, completed=done, total=total, words=words)

        yield advance
