"""The objectives by name."""

from lsdr.regularizers.objectives.barlow_twins import BarlowTwins
from lsdr.regularizers.objectives.log_participation_ratio import LogParticipationRatio
from lsdr.regularizers.objectives.names import OBJECTIVE_NAMES
from lsdr.regularizers.objectives.objective import Objective
from lsdr.regularizers.objectives.sigreg import SIGReg
from lsdr.regularizers.objectives.spectral_contrastive import SpectralContrastive
from lsdr.regularizers.objectives.vicreg import VICReg

OBJECTIVES: dict[str, Objective] = {
    "vicreg": VICReg(),
    "barlow_twins": BarlowTwins(),
    "log_participation_ratio": LogParticipationRatio(),
    "spectral_contrastive": SpectralContrastive(),
    "sigreg": SIGReg(),
}
"""Each with its default coefficients; call one with `Views`."""


def objective_of(objective: str | Objective) -> Objective:
    """The objective of this name, or the one given.

    Raises:
        ValueError: If there is none of this name.
    """
    if not isinstance(objective, str):
        return objective
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVE_NAMES)}, got {objective!r}")
    return OBJECTIVES[objective]
