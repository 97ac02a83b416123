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
    from lsdr.diffusion.guidance import GuidedDenoiser as GuidedDenoiser
    from lsdr.diffusion.heun import heun as heun
    from lsdr.diffusion.inspect_operator import inspect_operator as inspect_operator
    from lsdr.experiments.method import Method as Method
    from lsdr.fourier.grid_artifacts import grid_artifacts as grid_artifacts
    from lsdr.fourier.radial_power_spectrum import radial_power_spectrum as radial_power_spectrum
    from lsdr.gan.adaptive_noise import AdaptiveNoise as AdaptiveNoise
    from lsdr.gan.denoising_diffusion import DenoisingSchedule as DenoisingSchedule
    from lsdr.gan.gradient_penalty import gradient_penalty as gradient_penalty
    from lsdr.gan.inspect import inspect_gan as inspect_gan
    from lsdr.gan.inspect import inspect_generator as inspect_generator
    from lsdr.gan.latent_noise import latent_noise as latent_noise
    from lsdr.gan.measures.mode_coverage import mode_coverage as mode_coverage
    from lsdr.gan.measures.perfect_sampler import perfect_sampler as perfect_sampler
    from lsdr.gan.mode_seeking import mode_seeking as mode_seeking
    from lsdr.inspection.inspect import inspect as inspect
    from lsdr.layers.attention import query_key as query_key
    from lsdr.layers.checkpoint.open import open_checkpoint as open_checkpoint
    from lsdr.layers.operators import layer_operator as layer_operator
    from lsdr.layers.select import select_layers as select_layers
    from lsdr.linalg.certify import certified_norm as certified_norm
    from lsdr.linalg.circular import circular_singular_values as circular_singular_values
    from lsdr.linalg.convolution import convolution_bracket as convolution_bracket
    from lsdr.linalg.exact import exact_singular_values as exact_singular_values
    from lsdr.linalg.lanczos import lanczos as lanczos
    from lsdr.linalg.singular_values import singular_values as singular_values
    from lsdr.linalg.spectral_density import spectral_density as spectral_density
    from lsdr.linalg.tracking import Tracker as Tracker
    from lsdr.measures.precision_recall import precision_recall as precision_recall
    from lsdr.moments import Moments as Moments
    from lsdr.monitor.monitor import Monitor as Monitor
    from lsdr.monitor.overtraining import Overtraining as Overtraining
    from lsdr.probes.adapters import AdapterProbe as AdapterProbe
    from lsdr.probes.attention import AttentionProbe as AttentionProbe
    from lsdr.probes.denoising_step import discrete_time_scale as discrete_time_scale
    from lsdr.probes.denoising_step import step_gain as step_gain
    from lsdr.probes.denoising_step import time_scale as time_scale
    from lsdr.probes.features import FeatureProbe as FeatureProbe
    from lsdr.probes.features import feature_summary as feature_summary
    from lsdr.probes.gradients import GradientProbe as GradientProbe
    from lsdr.probes.operator_spectrum import operator_asymmetry as operator_asymmetry
    from lsdr.probes.operator_spectrum import operator_density as operator_density
    from lsdr.probes.operator_spectrum import operator_spectrum as operator_spectrum
    from lsdr.probes.operator_spectrum import operator_trace as operator_trace
    from lsdr.probes.tracked import TrackedWeightProbe as TrackedWeightProbe
    from lsdr.probes.weights import WeightProbe as WeightProbe
    from lsdr.probes.weights import weight_spectrum as weight_spectrum
    from lsdr.regression.backward_elimination import backward_elimination as backward_elimination
    from lsdr.regression.estimator import BackwardElimination as BackwardElimination
    from lsdr.regression.reduce_formula import reduce_formula as reduce_formula
    from lsdr.regularizers.activation_standardization import ActivationStandardization as ActivationStandardization
    from lsdr.regularizers.adapter_normalization import AdapterNormalization as AdapterNormalization
    from lsdr.regularizers.attach import attach as attach
    from lsdr.regularizers.layer_spectra import LayerSpectra as LayerSpectra
    from lsdr.regularizers.learned_spectral_discriminator import (
        LearnedSpectralDiscriminator as LearnedSpectralDiscriminator,
    )
    from lsdr.regularizers.lipschitz_bound import lipschitz_bound as lipschitz_bound
    from lsdr.regularizers.residual_normalization import ResidualNormalization as ResidualNormalization
    from lsdr.regularizers.spectral_decomposition import SpectralDecomposition as SpectralDecomposition
    from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation as SpectralDecorrelation
    from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator as SpectralDiscriminator
    from lsdr.regularizers.spectral_features import AmplitudePhase as AmplitudePhase
    from lsdr.regularizers.spectral_features import BlockDCT as BlockDCT
    from lsdr.regularizers.spectral_features import RadialSpectrum as RadialSpectrum
    from lsdr.regularizers.spectral_features import Wavelet as Wavelet
    from lsdr.regularizers.spectral_normalization import SpectralNormalization as SpectralNormalization
    from lsdr.regularizers.spectral_objective import SpectralObjective as SpectralObjective
    from lsdr.regularizers.spectral_penalties import hinge as hinge
    from lsdr.regularizers.spectral_penalties import log_barrier as log_barrier
    from lsdr.regularizers.spectral_penalties import spread as spread
    from lsdr.regularizers.spectral_penalties import target_slope as target_slope
    from lsdr.regularizers.spectral_penalty import SpectralPenalty as SpectralPenalty
    from lsdr.report.operator.page import write_operator_page as write_operator_page
    from lsdr.representation.dense_features import dense_features as dense_features
    from lsdr.representation.estimator import RepresentationEncoder as RepresentationEncoder
    from lsdr.representation.export import export_backbone as export_backbone
    from lsdr.representation.measures.alpha_req import alpha_req as alpha_req
    from lsdr.representation.measures.lidar import lidar as lidar
    from lsdr.representation.measures.rank_me import rank_me as rank_me
    from lsdr.representation.ordered_codes import OrderedCodes as OrderedCodes
    from lsdr.robust_moments import huber_moments as huber_moments
    from lsdr.robust_moments import trimmed_moments as trimmed_moments
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
    "ActivationStandardization": "lsdr.regularizers.activation_standardization",
    "AdapterNormalization": "lsdr.regularizers.adapter_normalization",
    "AdapterProbe": "lsdr.probes.adapters",
    "AdaptiveNoise": "lsdr.gan.adaptive_noise",
    "AmplitudePhase": "lsdr.regularizers.spectral_features",
    "AttentionProbe": "lsdr.probes.attention",
    "BackwardElimination": "lsdr.regression.estimator",
    "BlockDCT": "lsdr.regularizers.spectral_features",
    "DDPMDenoiser": "lsdr.diffusion.ddpm",
    "DenoisingSchedule": "lsdr.gan.denoising_diffusion",
    "EDMDenoiser": "lsdr.diffusion.edm",
    "FeatureProbe": "lsdr.probes.features",
    "FlowDenoiser": "lsdr.diffusion.flow",
    "GradientProbe": "lsdr.probes.gradients",
    "GuidedDenoiser": "lsdr.diffusion.guidance",
    "LayerSpectra": "lsdr.regularizers.layer_spectra",
    "LearnedSpectralDiscriminator": "lsdr.regularizers.learned_spectral_discriminator",
    "Method": "lsdr.experiments.method",
    "Moments": "lsdr.moments",
    "Monitor": "lsdr.monitor.monitor",
    "OrderedCodes": "lsdr.representation.ordered_codes",
    "Overtraining": "lsdr.monitor.overtraining",
    "RadialSpectrum": "lsdr.regularizers.spectral_features",
    "RepresentationEncoder": "lsdr.representation.estimator",
    "ResidualNormalization": "lsdr.regularizers.residual_normalization",
    "SpectralDecomposition": "lsdr.regularizers.spectral_decomposition",
    "SpectralDecorrelation": "lsdr.regularizers.spectral_decorrelation",
    "SpectralDiscriminator": "lsdr.regularizers.spectral_discriminator",
    "SpectralNormalization": "lsdr.regularizers.spectral_normalization",
    "SpectralObjective": "lsdr.regularizers.spectral_objective",
    "SpectralPenalty": "lsdr.regularizers.spectral_penalty",
    "Spectrum": "lsdr.spectrum",
    "TrackedWeightProbe": "lsdr.probes.tracked",
    "Tracker": "lsdr.linalg.tracking",
    "Wavelet": "lsdr.regularizers.spectral_features",
    "WeightProbe": "lsdr.probes.weights",
    "alpha_req": "lsdr.representation.measures.alpha_req",
    "attach": "lsdr.regularizers.attach",
    "backward_elimination": "lsdr.regression.backward_elimination",
    "certified_norm": "lsdr.linalg.certify",
    "circular_singular_values": "lsdr.linalg.circular",
    "condition_number": "lsdr.statistics.condition_number",
    "convolution_bracket": "lsdr.linalg.convolution",
    "ddim": "lsdr.diffusion.ddim",
    "dense_features": "lsdr.representation.dense_features",
    "discrete_time_scale": "lsdr.probes.denoising_step",
    "effective_rank": "lsdr.statistics.effective_rank",
    "euler": "lsdr.diffusion.euler",
    "exact_singular_values": "lsdr.linalg.exact",
    "export_backbone": "lsdr.representation.export",
    "feature_summary": "lsdr.probes.features",
    "gradient_penalty": "lsdr.gan.gradient_penalty",
    "grid_artifacts": "lsdr.fourier.grid_artifacts",
    "heun": "lsdr.diffusion.heun",
    "hinge": "lsdr.regularizers.spectral_penalties",
    "huber_moments": "lsdr.robust_moments",
    "inspect": "lsdr.inspection.inspect",
    "inspect_gan": "lsdr.gan.inspect",
    "inspect_generator": "lsdr.gan.inspect",
    "inspect_operator": "lsdr.diffusion.inspect_operator",
    "lanczos": "lsdr.linalg.lanczos",
    "latent_noise": "lsdr.gan.latent_noise",
    "layer_operator": "lsdr.layers.operators",
    "lidar": "lsdr.representation.measures.lidar",
    "lipschitz_bound": "lsdr.regularizers.lipschitz_bound",
    "load_images": "lsdr.data.load",
    "log_barrier": "lsdr.regularizers.spectral_penalties",
    "marchenko_pastur_edges": "lsdr.statistics.marchenko_pastur",
    "marchenko_pastur_outliers": "lsdr.statistics.marchenko_pastur",
    "mode_coverage": "lsdr.gan.measures.mode_coverage",
    "mode_seeking": "lsdr.gan.mode_seeking",
    "open_checkpoint": "lsdr.layers.checkpoint.open",
    "operator_asymmetry": "lsdr.probes.operator_spectrum",
    "operator_density": "lsdr.probes.operator_spectrum",
    "operator_spectrum": "lsdr.probes.operator_spectrum",
    "operator_trace": "lsdr.probes.operator_spectrum",
    "participation_ratio": "lsdr.statistics.participation_ratio",
    "perfect_sampler": "lsdr.gan.measures.perfect_sampler",
    "power_law_exponent": "lsdr.statistics.power_law_exponent",
    "precision_recall": "lsdr.measures.precision_recall",
    "query_key": "lsdr.layers.attention",
    "radial_power_spectrum": "lsdr.fourier.radial_power_spectrum",
    "rank_me": "lsdr.representation.measures.rank_me",
    "reduce_formula": "lsdr.regression.reduce_formula",
    "select_layers": "lsdr.layers.select",
    "singular_values": "lsdr.linalg.singular_values",
    "spectral_density": "lsdr.linalg.spectral_density",
    "spectral_entropy": "lsdr.statistics.spectral_entropy",
    "spread": "lsdr.regularizers.spectral_penalties",
    "stable_rank": "lsdr.statistics.stable_rank",
    "step_gain": "lsdr.probes.denoising_step",
    "target_slope": "lsdr.regularizers.spectral_penalties",
    "time_scale": "lsdr.probes.denoising_step",
    "trimmed_moments": "lsdr.robust_moments",
    "weight_spectrum": "lsdr.probes.weights",
    "write_operator_page": "lsdr.report.operator.page",
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
