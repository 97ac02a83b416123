"""How much to measure of a GAN. Imports no torch, so that help text and reports stay instant."""

from dataclasses import dataclass, fields

_LEAST = {"samples": 20, "class_samples": 20, "train_examples": 20, "heldout_examples": 2, "extractor_steps": 2}


@dataclass(frozen=True, kw_only=True)
class GanMeasureConfig:
    """Sizes of the measurement at the end of a run; every method of a comparison must use the same."""

    samples: int = 2500
    """Points or images generated for the measures of samples; VEEGAN's and PacGAN's tables use 2500 points."""
    class_samples: int = 26000
    """Images generated for the modes of stacked digits; VEEGAN's protocol has 26000, Unrolled GAN's 25600."""
    train_examples: int = 2500
    """Training examples that samples are compared with, also in the search for copies; fewer if there are fewer."""
    heldout_examples: int = 2500
    """Held-out examples on which the discriminator is tested for overfitting; fewer if there are fewer."""
    neighbours: int = 5
    """The k-th nearest neighbour that bounds a neighbourhood in precision, recall, density and coverage."""
    paths: int = 16
    """Interpolations between two latent points along which the generator's smoothness is measured."""
    path_steps: int = 64
    """Steps of each of them."""
    batch: int = 250
    """Examples in one call of a network."""
    extractor_steps: int = 300
    """Training steps of the small classifier in whose features images are compared."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be measured with."""
        for field in fields(self):
            value, minimum = getattr(self, field.name), _LEAST.get(field.name, 1)
            if value < minimum:
                raise ValueError(f"{field.name} must be at least {minimum}, got {value}")
        smallest = min(self.samples, self.train_examples)
        if self.neighbours >= smallest:
            raise ValueError(
                f"neighbours={self.neighbours} needs more than as many samples and training examples, got {smallest}"
            )
