"""Every measure by name: its label and unit, which way is better, how it is measured. Imports no torch."""

from lsdr.measures.measure import Measure

_NOISE_BAND = (
    "Denoising loss on held-out images over the {} third of the noise levels seen in training, weighted like the loss; "
    "lower is better."
)
_FREQUENCY_BAND = (
    "Root mean square difference in decibels between the radial power spectra of samples and data over the {} third of "
    "the frequencies up to Nyquist; lower is better."
)

MEASURES: dict[str, Measure] = {
    "heldout_loss": Measure(
        "Held-out loss",
        "",
        "lower",
        "Denoising loss on images kept out of training, averaged over the noise levels seen in training, with the same "
        "noise for every method; lower is better.",
    ),
    "heldout_loss_low_noise": Measure("Held-out loss, low noise", "", "lower", _NOISE_BAND.format("lowest")),
    "heldout_loss_mid_noise": Measure("Held-out loss, middle noise", "", "lower", _NOISE_BAND.format("middle")),
    "heldout_loss_high_noise": Measure("Held-out loss, high noise", "", "lower", _NOISE_BAND.format("highest")),
    "psd_rmse_db": Measure(
        "Power-spectrum error",
        "dB",
        "lower",
        "Root mean square difference in decibels between the radial power spectra of samples and data over all "
        "frequencies up to Nyquist; lower is better.",
    ),
    "psd_rmse_low_db": Measure("Power-spectrum error, low", "dB", "lower", _FREQUENCY_BAND.format("lowest")),
    "psd_rmse_mid_db": Measure("Power-spectrum error, middle", "dB", "lower", _FREQUENCY_BAND.format("middle")),
    "psd_rmse_high_db": Measure("Power-spectrum error, high", "dB", "lower", _FREQUENCY_BAND.format("highest")),
    "sensitivity": Measure(
        "Output sensitivity",
        "",
        "lower",
        "Mean ratio of the change of a sample to a small random change of the unit-normal noise it was made from; "
        "lower counts only where diversity is not lower, because a sampler that ignores its noise scores zero.",
    ),
    "lyapunov": Measure(
        "Lyapunov exponent",
        "per step",
        "lower",
        "Logarithm of the greatest factor by which the sampler stretches a small change of its noise, per sampler step "
        "(a lower bound found by subspace iteration); as for sensitivity, lower counts only where diversity is not.",
    ),
    "operator_largest": Measure(
        "Largest eigenvalue",
        "",
        None,
        "Largest eigenvalue of the symmetric part of the denoiser's Jacobian on held-out images, as far as few Lanczos "
        "steps reach it from below, averaged over noise levels seen in training; near 1 a direction counts as image, "
        "near 0 as noise, and above 1 small differences grow.",
    ),
    "operator_asymmetry": Measure(
        "Asymmetry of the Jacobian",
        "",
        "lower",
        "Departure of the denoiser's Jacobian from symmetry, from 0 to 1, averaged over noise levels seen in training; "
        "the best denoiser has 0, because its Jacobian is a covariance, so lower is better.",
    ),
    "calibration_gap_db": Measure(
        "Calibration gap",
        "dB",
        "lower",
        "Root mean square over noise levels of the decibels between the denoiser's error and what its Jacobian says of "
        "it, sigma^2 times the mean eigenvalue, each level counted as 10 dB at most; 0 for the best denoiser, so lower "
        "is better.",
    ),
    "grid_artifact_db": Measure(
        "Grid artefacts",
        "dB",
        "lower",
        "How far the strongest peak in the samples' two-dimensional spectrum stands out over the data's, significant "
        "or not; stripes and chessboards raise it, so lower is better.",
    ),
    "diversity_variance": Measure(
        "Variance of samples",
        "x data",
        None,
        "Total variance of the samples' pixels divided by the data's; 1 matches the data, less means blur or collapse.",
    ),
    "nearest_neighbour": Measure(
        "Distance to the nearest sample",
        "RMS pixel",
        None,
        "Mean root mean square pixel distance from each sample to the sample nearest to it; near 0 means that samples "
        "repeat one another.",
    ),
    "nearest_train": Measure(
        "Distance to the nearest training image",
        "RMS pixel",
        None,
        "Mean root mean square pixel distance from each sample to the training image nearest to it; near 0 hints at "
        "memorised images.",
    ),
    "fid": Measure(
        "FID (own features)",
        "",
        "lower",
        "Fréchet distance between Gaussians fitted to features of samples and of training images; the features are the "
        "run's own extractor's, so compare within one experiment only; lower is better.",
    ),
    "kid": Measure(
        "KID (own features)",
        "",
        "lower",
        "Unbiased squared maximum mean discrepancy between the same features under a cubic kernel, about 0 for equal "
        "distributions and negative by chance; lower is better.",
    ),
    "largest_stable_lr": Measure(
        "Largest stable learning rate",
        "",
        "higher",
        "Largest learning rate of the grid at which, and below which, short training neither diverges nor ends above "
        "the initial loss; higher is better.",
    ),
    "lr_sensitivity": Measure(
        "Learning-rate sensitivity",
        "",
        "lower",
        "Mean over the learning rates of the grid of the final loss, capped at the initial loss, above the best one; "
        "lower is better.",
    ),
    "diverged": Measure(
        "Diverged", "", "lower", "1 if training diverged or crashed, otherwise 0; the mean is the divergence rate."
    ),
    "gradient_spikes": Measure(
        "Gradient spikes",
        "",
        "lower",
        "Training steps whose gradient norm or loss was above 10 times its running median; fewer is better.",
    ),
    "step_seconds": Measure(
        "Time per step", "s", "lower", "Median wall-clock seconds of a training step; lower is better."
    ),
    "step_seconds_ratio": Measure(
        "Time per step", "x baseline", "lower", "Time per step divided by the baseline's for the same seed."
    ),
    "memory_mb": Measure(
        "Peak memory", "MB", "lower", "Largest memory the training process held, in megabytes; lower is better."
    ),
    "memory_ratio": Measure(
        "Peak memory", "x baseline", "lower", "Peak memory divided by the baseline's for the same seed."
    ),
    "feature_effective_rank": Measure(
        "Effective rank of features",
        "",
        None,
        "Exponential of the entropy of the normalised spectrum of the features' covariance, averaged over the probed "
        "layers; higher means that features use more directions.",
    ),
    "feature_mean_abs_correlation": Measure(
        "Correlation of features",
        "",
        None,
        "Mean absolute correlation between different feature channels, averaged over the probed layers; lower means "
        "more decorrelated.",
    ),
    "weight_sigma_max": Measure(
        "Largest weight singular value",
        "",
        None,
        "Largest singular value of any layer's weight (a convolution's kernel flattened to a matrix); it bounds how "
        "much that layer can amplify.",
    ),
}
"""Every measure by the name under which measures.json holds it."""
