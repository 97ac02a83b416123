"""How much to measure of an encoder when a run ends. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RepresentationMeasureConfig:
    """Sizes of the measures; larger is more precise and slower."""

    train_examples: int = 5000
    """Training examples at most: what probes learn from, and where neighbours are sought."""
    heldout_examples: int = 1000
    """Held-out examples at most, on which everything is measured."""
    view_examples: int = 500
    """Held-out examples at most whose codes are compared under each transformation, strength and corruption."""
    shares: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Shares of the labels that probes learn from; every class keeps one label at least."""
    draws: int = 3
    """Draws of the labels for each share below 1."""
    neighbours: int = 20
    """Neighbours that vote in the kNN probe."""
    temperature: float = 0.07
    """Temperature of their votes."""
    transformations: bool = True
    """Measure the invariance under every transformation of the modality, at several strengths."""
    corruptions: bool = True
    """Of images with labels: measure the accuracy on corrupted ones."""
    layers: bool = True
    """Measure the spectrum of every block as well."""
    references: bool = True
    """Measure what the encoder has to beat as well: raw inputs, their principal components, untrained weights."""
    directions: int = 8
    """Directions of the codes that are shown with the examples at their two ends."""
    shown: int = 8
    """Examples at each end of a direction, queries and neighbours of each that are shown."""
    batch: int = 256
    """Examples encoded at once."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        for name in (
            "train_examples",
            "heldout_examples",
            "view_examples",
            "draws",
            "neighbours",
            "directions",
            "shown",
            "batch",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"measure.{name} must be at least 1, got {getattr(self, name)}")
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"measure.shares must be above 0 and at most 1, got {self.shares}")
        if not self.temperature > 0:
            raise ValueError(f"measure.temperature must be positive, got {self.temperature}")
