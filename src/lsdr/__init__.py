"""LSDR: the spectra of neural networks in PyTorch - look at them, watch them, control them, prove whether that helped.

Public names load when they are first used, so that `import lsdr` is instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsdr.data.load import load_images as load_images
    from lsdr.diffusion.ddim import ddim as ddim
    from lsdr.diffusion.ddpm import DDPMDenoiser as DDPMDenoiser
    from lsdr.diffusion.edm import EDMDenoiser as EDMDenoiser
    from lsdr.diffusion.euler import euler as euler
    from lsdr.diffusion.flow import FlowDenoiser as FlowDenoiser
    from lsdr.diffusion.heun import heun as heun
    from lsdr.fourier.radial_power_spectrum import radial_power_spectrum as radial_power_spectrum
    from lsdr.layers.select import select_layers as select_layers
    from lsdr.moments import Moments as Moments
    from lsdr.probes.features import FeatureProbe as FeatureProbe
    from lsdr.probes.features import feature_summary as feature_summary
    from lsdr.probes.weights import WeightProbe as WeightProbe
    from lsdr.probes.weights import weight_spectrum as weight_spectrum
    from lsdr.regularizers.attach import attach as attach
    from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation as SpectralDecorrelation
    from lsdr.spectrum import Spectrum as Spectrum
    from lsdr.statistics.condition_number import condition_number as condition_number
    from lsdr.statistics.effective_rank import effective_rank as effective_rank
    from lsdr.statistics.marchenko_pastur import marchenko_pastur_edges as marchenko_pastur_edges
    from lsdr.statistics.marchenko_pastur import marchenko_pastur_outliers as marchenko_pastur_outliers
    from lsdr.statistics.participation_ratio import participation_ratio as participation_ratio
    from lsdr.statistics.power_law_exponent import power_law_exponent as power_law_exponent
    from lsdr.statistics.spectral_entropy import spectral_entropy as spectral_entropy
    from lsdr.statistics.stable_rank import stable_rank as stable_rank

_HOMES = {
    "DDPMDenoiser": "lsdr.diffusion.ddpm",
    "EDMDenoiser": "lsdr.diffusion.edm",
    "FeatureProbe": "lsdr.probes.features",
    "FlowDenoiser": "lsdr.diffusion.flow",
    "Moments": "lsdr.moments",
    "SpectralDecorrelation": "lsdr.regularizers.spectral_decorrelation",
    "Spectrum": "lsdr.spectrum",
    "WeightProbe": "lsdr.probes.weights",
    "attach": "lsdr.regularizers.attach",
    "condition_number": "lsdr.statistics.condition_number",
    "ddim": "lsdr.diffusion.ddim",
    "effective_rank": "lsdr.statistics.effective_rank",
    "euler": "lsdr.diffusion.euler",
    "feature_summary": "lsdr.probes.features",
    "heun": "lsdr.diffusion.heun",
    "load_images": "lsdr.data.load",
    "marchenko_pastur_edges": "lsdr.statistics.marchenko_pastur",
    "marchenko_pastur_outliers": "lsdr.statistics.marchenko_pastur",
    "participation_ratio": "lsdr.statistics.participation_ratio",
    "power_law_exponent": "lsdr.statistics.power_law_exponent",
    "radial_power_spectrum": "lsdr.fourier.radial_power_spectrum",
    "select_layers": "lsdr.layers.select",
    "spectral_entropy": "lsdr.statistics.spectral_entropy",
    "stable_rank": "lsdr.statistics.stable_rank",
    "weight_spectrum": "lsdr.probes.weights",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lsdr' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(_HOMES)
