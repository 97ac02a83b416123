"""Every measure of an encoder by name: its label and unit, which way is better, how it is measured. Imports no torch.

The names in `MEASURES` are those of the trained encoder. Where the references of a run were measured too, the same
names stand with "@raw", "@pca" and "@random" for raw inputs, principal components and untrained weights; "invariance"
and "view_retrieval" have a variant for each transformation, as in "invariance.rotation", "corruption" for each
corruption, as in "corruption.gaussian_noise": `described` knows those too.
"""

from dataclasses import replace

from lsdr.measures.measure import Measure

REFERENCES = {"raw": "raw inputs", "pca": "principal components", "random": "untrained encoder"}
"""What an encoder is measured beside."""


def _probe(label: str, share: str, how: str) -> Measure:
    return Measure(label, "", "higher", f"Accuracy on held-out examples of {how} {share}; higher is better.")


_LINEAR = "a linear classifier of the frozen codes that learned from"
_KNN = "a vote of the 20 nearest of"

MEASURES: dict[str, Measure] = {
    "linear_probe.1": _probe("Linear probe, 1% of labels", "1% of the labels (one a class at least)", _LINEAR),
    "linear_probe.10": _probe("Linear probe, 10% of labels", "10% of the labels", _LINEAR),
    "linear_probe": _probe("Linear probe, all labels", "all labels", _LINEAR),
    "knn.1": _probe("kNN, 1% of labels", "1% of the labelled codes (one a class at least)", _KNN),
    "knn.10": _probe("kNN, 10% of labels", "10% of the labelled codes", _KNN),
    "knn": _probe("kNN, all labels", "all labelled codes", _KNN),
    "retrieval": Measure(
        "Retrieval",
        "",
        "higher",
        "Mean average precision: training examples ranked by the cosine of their codes with a held-out one's, those of "
        "its class counting as right; about the share of the class by chance; higher is better.",
    ),
    "invariance": Measure(
        "Invariance (ICC)",
        "",
        "higher",
        "Share of the codes' variance that two views of a held-out example have in common (intraclass correlation), "
        "under the views that were trained on; 1 means invariant, 0 unrelated, and a constant code has none; higher is "
        "better.",
    ),
    "view_retrieval": Measure(
        "View retrieval",
        "",
        "higher",
        "Share of held-out examples that are nearest to their own other view among all held-out examples' views; "
        "higher is better.",
    ),
    "lidar": Measure(
        "LiDAR",
        "",
        "higher",
        "Effective number of directions that tell examples apart beyond what telling views apart takes: rank of linear "
        "discriminants, from two views; higher is better among runs of one method.",
    ),
    "rank_me": Measure(
        "RankMe",
        "",
        "higher",
        "Effective number of directions of training examples' codes, exponential of the entropy of singular values; "
        "compares runs of one method only: raw inputs may have the highest.",
    ),
    "effective_rank": Measure(
        "Effective rank",
        "",
        None,
        "The same of the centred codes, without RankMe's constant.",
    ),
    "participation_ratio": Measure(
        "Participation ratio",
        "",
        None,
        "Number of directions among which the variance of the codes is shared, (tr C)^2 / |C|^2; more is more spread.",
    ),
    "alpha_req": Measure(
        "alpha-ReQ",
        "",
        None,
        "Exponent of the decay of the eigenvalues of the codes' covariance; near 1 is said to be good, larger is a few "
        "directions only, smaller is noise.",
    ),
    "dead_dimensions": Measure(
        "Dead dimensions",
        "",
        "lower",
        "Share of the code's dimensions that do not vary over training examples; lower is better.",
    ),
    "collapsed": Measure(
        "Collapsed",
        "",
        "lower",
        "1 if the codes are constant, not finite, or vary in little more than one direction; findings.json says why.",
    ),
    "corruption": Measure(
        "Accuracy on corrupted images",
        "",
        "higher",
        "Accuracy of the linear probe of clean training examples, all labels, on held-out images corrupted as in "
        "CIFAR-C: mean over corruptions and five severities; higher is better.",
    ),
    "corruption_drop": Measure(
        "Drop by corruption",
        "",
        "lower",
        "How much of the clean accuracy is lost on corrupted images, as a share of it; lower is better.",
    ),
    "transformed": Measure(
        "Accuracy on transformed examples",
        "",
        "higher",
        "Accuracy of the linear probe of clean training examples, all labels, on held-out examples under each "
        "transformation: mean over transformations and strengths; higher is better.",
    ),
    "predictability": Measure(
        "Transformation read from codes",
        "",
        "lower",
        "How well a linear probe tells from a code which transformation was made, at its greatest strength, above "
        "chance as a share of what is left (0 chance, 1 perfect); invariant codes hide it; lower is better for tasks "
        "to which transformations do not matter.",
    ),
    "train_objective": Measure("Objective, training", "", None, "Objective of the encoder on training examples."),
    "heldout_objective": Measure("Objective, held-out", "", "lower", "The same on held-out ones; lower is better."),
    "overfitting_gap": Measure(
        "Overfitting gap",
        "",
        "lower",
        "Invariance (ICC) of training examples minus that of held-out ones: how much of it was learned by heart; about "
        "0 without overfitting; lower is better.",
    ),
    "knn_gap": Measure(
        "kNN gap",
        "",
        "lower",
        "Accuracy of the kNN vote on training examples, each without itself, minus that on held-out ones; about 0 "
        "without overfitting; lower is better.",
    ),
    "diverged": Measure(
        "Diverged",
        "",
        "lower",
        "1 if training diverged or crashed, otherwise 0; the mean is the divergence rate.",
    ),
    "gradient_spikes": Measure(
        "Gradient spikes",
        "",
        "lower",
        "Training steps in which the gradient norm was above 10 times its running median; fewer is better.",
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
}
"""In the order in which they are told."""


def described(name: str) -> Measure | None:
    """What a name means: one of `MEASURES`, a variant of one, or a reference's; None if nothing is known of it.

    Example:
        >>> described("invariance.rotation@raw").label
        'Invariance (ICC): rotation, raw inputs'
        >>> described("linear_probe.1").label, described("height")
        ('Linear probe, 1% of labels', None)
    """
    plain, _, reference = name.partition("@")
    family, _, variant = plain.partition(".")
    known = MEASURES.get(plain) or MEASURES.get(family)
    if known is None or (reference and reference not in REFERENCES):
        return None
    label = known.label if plain in MEASURES else f"{known.label}: {variant.replace('_', ' ')}"
    if not reference:
        return replace(known, label=label)
    beside = f" (Of {REFERENCES[reference]}: not trained, a reference.)"
    return replace(
        known, label=f"{label}, {REFERENCES[reference]}", description=known.description + beside, better=None
    )
