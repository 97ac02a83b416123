"""The checkpoint that another is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lsdr.inspection.plan import Task
from lsdr.layers.checkpoint.checkpoint import Checkpoint
from lsdr.layers.checkpoint.entry import Entry
from lsdr.layers.checkpoint.names import ema_pairs, plain_names


class Base:
    """A base checkpoint, its entries found by the names of another.

    Args:
        checkpoint: The open checkpoint.
        path: What the user called it.
    """

    def __init__(self, checkpoint: Checkpoint, path: Path):
        self.checkpoint = checkpoint
        self.path = path
        taken = set(ema_pairs(checkpoint.entries).values())
        plain = plain_names(checkpoint.entries)
        self.names = {short: stored for stored, short in plain.items() if stored not in taken}
        self._unmatched: list[str] = []
        self._other_shape: list[str] = []

    def find(self, name: str) -> str | None:
        """The stored name of the entry that another checkpoint calls `name` (plain).

        A component's folder and the pipeline that it is part of name the same layer with and without "unet.".
        """
        if name in self.names:
            return self.names[name]
        inside = name.partition(".")[2]
        if inside in self.names:
            return self.names[inside]
        candidates = [f"{component}.{name}" for component in self.checkpoint.config if component]
        return next((self.names[candidate] for candidate in candidates if candidate in self.names), None)

    def match(self, tasks: Sequence[Task], plain: Mapping[str, str], entries: Mapping[str, Entry]) -> list[Task]:
        """The tasks with the base's entry of the same name and shape in each, where there is one."""
        by_stored = {stored: name for name, stored in plain.items()}
        matched = []
        for task in tasks:
            stored = None if task.is_vector else self.find(by_stored[task.stored])
            if stored is None:
                if not task.is_vector:
                    self._unmatched.append(task.name)
            elif self.checkpoint.entries[stored].shape != entries[task.stored].shape:
                self._other_shape.append(task.name)
                stored = None
            matched.append(replace(task, base=stored))
        if self._unmatched and not self._other_shape and not any(task.base for task in matched):
            raise ValueError(
                f"none of the layers ({self._unmatched[0]}, ...) is in the base {self.path}: it is another model, or "
                "its names are those of another library"
            )
        return matched

    def notes(self) -> list[str]:
        """What could not be compared."""
        found = []
        for names, what in ((self._unmatched, "not in the base"), (self._other_shape, "of another shape in the base")):
            if names:
                listed = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
                found.append(f"{len(names)} layers are {what} and were not compared ({listed})")
        return found
