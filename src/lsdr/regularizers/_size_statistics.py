"""What a `SpectralDiscriminator` learns from the clean images of one size."""

from collections.abc import Mapping

from torch import Tensor

from lsdr.regularizers._noise_aware import Noise, NoiseAware
from lsdr.regularizers._shares import Share
from lsdr.regularizers._spread import Spread
from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.spectral_features import Feature


class SizeStatistics:
    """The data's spectrum, and the spread of each feature.

    Args:
        features: The features by name.
        mode: See `NoiseAware`.
        tolerance: See `SpectralDiscriminator`; None needs no spread.
        learn: Images to learn from.
    """

    def __init__(
        self, features: Mapping[str, Feature | LayerSpectra], mode: Noise, tolerance: float | None, learn: int
    ):
        self.noise = NoiseAware(mode, learn)
        self.spreads = (
            {}
            if tolerance is None
            else {
                name: Spread(each.components, learn, each.every if isinstance(each, LayerSpectra) else 1)
                for name, each in features.items()
            }
        )

    def merge(self, share: Share) -> None:
        """Count the step's images, after its last chunk."""
        self.noise.merge(share)
        for spread in self.spreads.values():
            spread.merge(share)

    def forget(self) -> None:
        """Let go of what the chunks of a step brought that did not end."""
        for part in self._parts().values():
            part.forget()

    def state_dict(self) -> dict[str, Tensor]:
        """All that was measured; empty before the first step."""
        return {
            f"{name}/{key}": value for name, part in self._parts().items() for key, value in part.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of other features.
        """
        parts = self._parts()
        foreign = {key for key in state if key.rpartition("/")[0] not in parts}
        if foreign:
            raise ValueError(f"the state has entries {sorted(foreign)}, but attached are {list(parts)}")
        for name, part in parts.items():
            part.load_state_dict(
                {key.rpartition("/")[2]: value for key, value in state.items() if key.rpartition("/")[0] == name}
            )

    def _parts(self) -> dict[str, NoiseAware | Spread]:
        """All that learns from clean images, by its name in the state."""
        return {"noise": self.noise, **{f"spread/{name}": spread for name, spread in self.spreads.items()}}
