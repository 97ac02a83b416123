"""Over which modes, classes or clusters samples are spread, and whether they repeat."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans
from torch import Tensor

from lsdr.gan.measures.mode_coverage import RADIUS, class_coverage, mode_coverage
from lsdr.gan.measures.perfect_sampler import PerfectSampler, perfect_mixture_sampler, perfect_sampler
from lsdr.gan.mixtures import Mixture

_CLUSTERS = 20
_PER_CLUSTER = 20  # examples that a cluster should hold
_ROUNDS = 200
_ALIKE = 0.25  # of the usual distance between neighbours in the data
_COMPARED = 512
_SAME_VARIANCE = 1e-6


def of_mixture(samples: Float[Tensor, "n d"], mixture: Mixture) -> dict[str, Any]:
    """Modes of a known mixture, as `findings.of_modes` takes them."""
    found = mode_coverage(samples, mixture)
    return {
        "kind": "mode",
        "total": mixture.modes,
        "counts": found.counts.tolist(),
        "expected": [1 / mixture.modes] * mixture.modes,
        "names": [f"({', '.join(f'{round(value, 3) + 0.0:g}' for value in mean)})" for mean in mixture.means.tolist()],
        "captured": found.modes,
        "high_quality": found.high_quality,
        "reverse_kl": math.log(mixture.modes) if found.reverse_kl is None else found.reverse_kl,
        "reverse_kl_all": found.reverse_kl_all,
        "spread": _spread(samples, mixture),
        "samples": len(samples),
        "perfect": _estimates(perfect_mixture_sampler(mixture, len(samples))),
    }


def _estimates(perfect: PerfectSampler) -> dict[str, Any]:
    return {name: value for name, value in asdict(perfect).items() if value is not None}


def _spread(samples: Tensor, mixture: Mixture) -> float | None:
    """Standard deviation of the samples within a mode over the data's, the median over modes with enough of them."""
    means = mixture.means.to(samples)
    distance, mode = torch.cdist(samples.double(), means.double()).min(1)
    near = distance <= RADIUS * mixture.std
    away = samples - means[mode]
    widths = [
        float(away[chosen].var(0).mean().sqrt()) / mixture.std
        for place in range(mixture.modes)
        if int((chosen := near & (mode == place)).sum()) >= _PER_CLUSTER
    ]
    return float(np.median(widths)) if widths else None


def of_classes(labels: Int[Tensor, " n"], probabilities: Float[Tensor, " classes"]) -> dict[str, Any]:
    """Classes that a classifier sees, as `findings.of_modes` takes them."""
    classes = len(probabilities)
    found = class_coverage(labels, classes)
    return {
        "kind": "class",
        "total": classes,
        "counts": found.counts.tolist(),
        "expected": probabilities.tolist(),
        "names": [str(place) for place in range(classes)],
        "captured": found.modes,
        "high_quality": None,
        "reverse_kl": math.log(classes) if found.reverse_kl is None else found.reverse_kl,
        "samples": len(labels),
        "perfect": _estimates(perfect_sampler(probabilities, len(labels))),
    }


def of_clusters(
    samples: Float[Tensor, "n d"], data: Float[Tensor, "m d"], heldout: Float[Tensor, "h d"], seed: int = 0
) -> dict[str, Any]:
    r"""Clusters of the data, and how samples are spread over them, as `findings.of_modes` takes them.

    The data's features are cut into up to 20 clusters by k-means; with h the samples' shares of them and q the data's,

    .. math:: \mathrm{KL} = \sum_k h_k \ln(h_k / q_k)

    A perfect sampler's value is simulated: counts of as many samples and as many examples as there are, both drawn
    from q. Clusters fit the examples they are made of better than others, so it is taken to be no smaller than that of
    real examples kept aside. The largest cluster is the first.

    Source: bins by k-means as in Richardson & Weiss 2018 (arXiv:1805.12462), who test each bin; the divergence is
    that of the tables of mode coverage.

    Args:
        samples: Features of samples, finite.
        data: Features of training examples.
        heldout: Features of real examples kept aside.
        seed: Decides clusters and simulation.
    """
    number = max(2, min(_CLUSTERS, len(data) // _PER_CLUSTER))
    real, made = (part.double().cpu().numpy() for part in (data, samples))
    means = KMeans(number, n_init=3, random_state=seed).fit(real)
    order = np.argsort(-np.bincount(means.labels_, minlength=number), kind="stable")
    there = np.bincount(means.labels_, minlength=number)[order]
    counts = np.bincount(means.predict(made), minlength=number)[order]
    expected, rng = there / len(real), np.random.default_rng(seed)
    draws = rng.multinomial(len(made), expected, size=_ROUNDS), rng.multinomial(len(real), expected, size=_ROUNDS)
    divergences = [_divergence(one, other) for one, other in zip(*draws, strict=True)]
    captured = (draws[0] > 0).sum(1)
    aside = np.bincount(means.predict(heldout.double().cpu().numpy()), minlength=number)[order]
    return {
        "kind": "cluster",
        "total": number,
        "counts": counts.tolist(),
        "expected": expected.tolist(),
        "names": [f"cluster {place + 1}" for place in range(number)],
        "captured": int((counts > 0).sum()),
        "high_quality": None,
        "reverse_kl": _divergence(counts, there),
        "samples": len(made),
        "perfect": {
            "modes": {"mean": float(captured.mean()), "sd": float(captured.std())},
            "reverse_kl": {
                "mean": max(float(np.mean(divergences)), _divergence(aside, there)),
                "sd": float(np.std(divergences)),
            },
        },
    }


def _divergence(counts: Any, data: Any) -> float:
    """KL divergence of counts from those of the data, each of which is taken to be half an example more."""
    share, expected = counts / counts.sum(), (data + 0.5) / (data + 0.5).sum()
    used = share > 0
    return max(0.0, float((share[used] * np.log(share[used] / expected[used])).sum()))


def distinct(samples: Float[Tensor, "n ..."], data: Float[Tensor, "m ..."]) -> tuple[int, int]:
    """How many of up to 512 samples are different from one another, and of how many that is.

    Samples nearer to each other than a quarter of the median distance from a real example to its nearest neighbour,
    among as many, are alike, and so are those that a chain of alike ones joins. Points lie as near as there are many
    of them: they are alike only where they do not vary at all.

    Args:
        samples: Samples, finite.
        data: Real examples.
    """
    few, real = samples[:_COMPARED].flatten(1).double(), data[:_COMPARED].flatten(1).double()
    if float(samples.flatten(1).double().var(0).sum()) <= _SAME_VARIANCE * float(real.var(0).sum()):
        return 1, len(samples)
    if samples.ndim == 2:
        return len(few), len(few)
    usual = torch.cdist(real, real).fill_diagonal_(math.inf).min(1).values.median()
    alike = torch.cdist(few, few, compute_mode="donot_use_mm_for_euclid_dist") <= _ALIKE * usual
    return int(connected_components(alike.cpu().numpy(), directed=False)[0]), len(few)
