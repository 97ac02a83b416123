"""What was asked for, handed from opener to opener."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Which options each kind of data takes.
TEXT = ("limit", "holdout", "length", "vocabulary", "tokenizer", "seed")
TABLE = ("label", "drop", "limit", "holdout", "seed")
IMAGE = ("size", "channels", "limit", "holdout", "on_bad", "seed")
RAW = ("size", "limit", "holdout", "on_bad", "seed")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `lsdr.representation.data.open.open_data` was asked for."""

    modality: Literal["auto", "image", "text", "table"]
    size: int | None
    channels: int | None
    limit: int | None
    holdout: float | int
    label: str | None
    text: str | None
    drop: tuple[str, ...]
    length: int
    vocabulary: int
    tokenizer: str | Path | None
    on_bad: Literal["skip", "refuse"]
    seed: int
    in_memory: int

    def of(self, *names: str) -> dict[str, Any]:
        """Some of them by name."""
        return {name: getattr(self, name) for name in names}
