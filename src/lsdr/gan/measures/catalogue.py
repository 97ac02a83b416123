"""Every measure of a GAN by name: its label and unit, which way is better, how it is measured. Imports no torch."""

from lsdr.measures.measure import Measure

MEASURES: dict[str, Measure] = {
    "modes": Measure(
        "Modes captured",
        "",
        "higher",
        "Modes of the data with at least one sample: within 3 standard deviations of a Gaussian's mean, or assigned to "
        "a class by a classifier; more is better.",
    ),
    "high_quality": Measure(
        "High-quality samples",
        "",
        "higher",
        "Share of samples within 3 standard deviations of the nearest mode, with the noise of training off; a perfect "
        "sampler has 0.989 in the plane; higher is better.",
    ),
    "reverse_kl": Measure(
        "Reverse KL",
        "nats",
        "lower",
        "KL divergence of the samples' distribution over modes from the uniform one, high-quality samples only; a "
        "perfect sampler is above 0 by about (modes - 1) / (2 x samples); lower is better.",
    ),
    "reverse_kl_all": Measure(
        "Reverse KL, all samples",
        "nats",
        "lower",
        "The same over all samples with one bin more for those of no mode, from the shares of the data; lower is "
        "better.",
    ),
    "modes_lowest": Measure(
        "Fewest modes in the second half",
        "",
        "higher",
        "Smallest number of modes captured at any evaluation in the second half of training; more is better.",
    ),
    "high_quality_fall": Measure(
        "Fall of high quality",
        "",
        "lower",
        "How far the share of high-quality samples at the last evaluation lies below its best one; lower is better.",
    ),
    "precision": Measure(
        "Precision",
        "",
        "higher",
        "Share of samples inside the neighbourhood of a training example, in coordinates or in the run's features; a "
        "perfect sampler is below 1, see beside; higher is better.",
    ),
    "recall": Measure(
        "Recall",
        "",
        "higher",
        "Share of training examples inside the neighbourhood of a sample; higher is better.",
    ),
    "density": Measure(
        "Density",
        "",
        "higher",
        "Training examples' neighbourhoods that hold a sample, over how many would be expected; about 1 for a perfect "
        "sampler, and more where samples crowd; higher is better up to there.",
    ),
    "coverage": Measure(
        "Coverage",
        "",
        "higher",
        "Share of training examples whose neighbourhood holds a sample; higher is better.",
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
    "psd_rmse_db": Measure(
        "Power-spectrum error",
        "dB",
        "lower",
        "Root mean square difference in decibels between the radial power spectra of samples and data over all "
        "frequencies up to Nyquist; lower is better.",
    ),
    "diversity_variance": Measure(
        "Variance of samples",
        "x data",
        None,
        "Total variance of the samples divided by the data's; 1 matches the data, less means collapse.",
    ),
    "nearest_neighbour": Measure(
        "Distance to the nearest sample",
        "RMS",
        None,
        "Mean root mean square distance from each sample to the sample nearest to it; near 0 means that samples repeat "
        "one another.",
    ),
    "nearest_train": Measure(
        "Distance to the nearest training example",
        "RMS",
        None,
        "Mean root mean square distance from each sample to the training example nearest to it; near 0 hints at "
        "memorised examples.",
    ),
    "copies": Measure(
        "Copies of training examples",
        "",
        "lower",
        "Share of samples more than three times nearer to one training example (of those compared with) than to any "
        "other, less the same share of held-out examples; lower is better.",
    ),
    "interpolation_jump": Measure(
        "Largest jump of an interpolation",
        "x mean",
        None,
        "Largest step of the samples along a path between two latent points over the mean step, median over paths; 1 "
        "is an even path, the number of steps a path that jumps once.",
    ),
    "sign_real": Measure(
        "Sign of D(real)",
        "",
        None,
        "Mean sign of the discriminator's output on training examples, -1 to 1; near 1 it has learned them by heart. "
        "Means nothing with a relativistic loss.",
    ),
    "sign_relativistic": Measure(
        "Sign of D(real) - D(fake)",
        "",
        None,
        "Mean sign of the difference of the discriminator's outputs on training examples and samples, -1 to 1; near 1 "
        "it tells them apart.",
    ),
    "overfitting": Measure(
        "Overfitting of D",
        "",
        "lower",
        "Distance of the discriminator's mean output on held-out examples from that on training examples, over its "
        "distance on samples; 0 for none, 1 where held-out examples look as false as samples; lower is better.",
    ),
    "heldout_gap": Measure(
        "D(train) - D(held-out)",
        "",
        None,
        "Difference of the discriminator's mean outputs on training and held-out examples; near 0 without overfitting.",
    ),
    "gradient_norm_real": Measure(
        "Gradient of D at real",
        "",
        None,
        "Mean norm of the gradient of the discriminator's output by its input at training examples.",
    ),
    "gradient_norm_fake": Measure(
        "Gradient of D at fake",
        "",
        None,
        "The same at samples; far above that at training examples it announces divergence.",
    ),
    "largest_logit": Measure(
        "Largest output of D",
        "",
        None,
        "Largest absolute output of the discriminator at training examples and samples.",
    ),
    "diverged": Measure(
        "Diverged",
        "",
        "lower",
        "1 if training diverged or crashed, outputs are not finite, the discriminator's exceed 10,000, or fewer than "
        "1 % of the samples are of high quality at the end; otherwise 0; the mean is the divergence rate.",
    ),
    "gradient_spikes": Measure(
        "Gradient spikes",
        "",
        "lower",
        "Training steps in which a player's gradient norm was above 10 times its running median; fewer is better.",
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
    "noise_strength": Measure(
        "Noise at the end",
        "",
        None,
        "Strength of the adaptive noise at the last step, 0 to 1 in the logarithm of noise to signal.",
    ),
    "weight_sigma_max": Measure(
        "Largest weight singular value",
        "",
        None,
        "Largest singular value of any layer's weight of either network; it bounds how much that layer can amplify.",
    ),
    "generator_sigma_max": Measure(
        "Largest singular value of G", "", None, "Largest singular value of any layer's weight of the generator."
    ),
    "discriminator_sigma_max": Measure(
        "Largest singular value of D", "", None, "Largest singular value of any layer's weight of the discriminator."
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
}
"""Every measure by the name under which measures.json holds it."""
