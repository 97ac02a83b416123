"""How much to measure. Imports no torch, so that help text and reports stay instant."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Sizes of the measurement at the end of a run; every method of a comparison must use the same."""

    samples: int = 256
    """Images generated for the measures of samples (spectrum, diversity, FID, KID)."""
    sampler_steps: int = 12
    """Steps of the Heun sampler that generates them."""
    heldout_images: int = 256
    """Held-out images on which the denoising loss is measured; fewer if there are fewer."""
    bands: int = 9
    """Bands of noise levels, of equal probability in training, in which the denoising loss is measured."""
    train_images: int = 2000
    """Training images that stand for the data in FID, KID, spectrum and diversity; fewer if there are fewer."""
    sensitivity_images: int = 16
    """Samples whose response to a small change of their noise is measured."""
    lyapunov_images: int = 3
    """Samples whose finite-time Lyapunov exponents are measured; 0 leaves the measure out."""
    lyapunov_directions: int = 2
    """Leading exponents measured per sample."""
    lyapunov_iterations: int = 3
    """Rounds of subspace iteration, each a pass through all sampler steps and one back."""
    operator_images: int = 4
    """Held-out images at which the spectrum of the denoiser's Jacobian is measured; 0 leaves the measure out."""
    operator_levels: int = 5
    """Noise levels at which it is measured, of equal probability in training."""
    batch: int = 64
    """Images in one call of the model."""
    extractor_steps: int = 300
    """Training steps of the small classifier whose features FID and KID compare."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be measured with."""
        least = {"samples": 4, "train_images": 10, "bands": 3, "lyapunov_images": 0, "operator_images": 0}
        for field in fields(self):
            value, minimum = getattr(self, field.name), least.get(field.name, 1)
            if value < minimum:
                raise ValueError(f"{field.name} must be at least {minimum}, got {value}")
