"""What was wrong with the data: counted by kind, the first few named."""

from dataclasses import dataclass, field
from typing import Any

_EXAMPLES = 5
# What is beside the images rather than wrong with them; `on_bad="refuse"` does not refuse it.
HARMLESS = ("ignored", "repeated_folder")
# What is told of images that are used all the same.
USED = ("long_caption",)


class BadImageError(ValueError):
    """One image that cannot be used.

    Args:
        kind: A short word for what is wrong, such as ``"empty"`` or ``"damaged"``.
        message: What was found, in words.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Problem:
    """One thing found in the data that is not used for training, or (`USED`) not as it is."""

    kind: str
    name: str
    message: str


@dataclass
class Problems:
    """Counts of problems by kind, with the first five of each kept in `listed`.

    Example:
        >>> problems = Problems()
        >>> problems.add("empty", "a.png", "the file has no bytes")
        >>> problems.summary()
        [{'kind': 'empty', 'count': 1, 'examples': ['a.png']}]
    """

    listed: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, name: str, message: str) -> None:
        """Count one problem."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.counts[kind] <= _EXAMPLES:  # a folder may hold a million text files beside its images
            self.listed.append(Problem(kind, name, message))

    def summary(self) -> list[dict[str, Any]]:
        """One record a kind: its count and the first names."""
        return [
            {"kind": kind, "count": count, "examples": [each.name for each in self.listed if each.kind == kind]}
            for kind, count in self.counts.items()
        ]
