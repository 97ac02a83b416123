"""The objectives by name, for those who must not import torch."""

OBJECTIVE_NAMES: dict[str, str] = {
    "vicreg": "equal views, a standard deviation of at least 1, no covariances (VICReg)",
    "barlow_twins": "the cross-correlation of the views is the identity (Barlow Twins)",
    "log_participation_ratio": "equal standardised views that use as many directions as they can (FroSSL)",
    "spectral_contrastive": "inner products large within a pair, small between examples (spectral contrastive loss)",
    "sigreg": "equal views whose every projection is standard normal, with a variance term (LeJEPA, VISReg)",
}
"""What each objective of `lsdr.SpectralObjective` wants, in one line."""
