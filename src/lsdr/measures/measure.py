"""What a measure is called and which way is better. Imports no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """What a number in measures.json means."""

    label: str
    unit: str
    better: Literal["lower", "higher"] | None
    """The direction that counts as an improvement; None where neither does by itself."""
    description: str
